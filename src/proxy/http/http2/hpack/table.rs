//! The static and dynamic tables (RFC 7541 sections 2.3 and 4, appendix A).

use std::collections::VecDeque;

use http::header::{self, HeaderName, HeaderValue};

use super::Name;

/// Size of an entry beside its name and value (section 4.1).
pub(super) const OVERHEAD: usize = 32;

/// An entry of the static table.
pub(super) struct StaticEntry {
    /// The name as it is sent.
    pub(super) text: &'static str,
    /// The name.
    pub(super) name: Name,
    /// The value; empty: only the name is useful.
    pub(super) value: HeaderValue,
}

const fn entry(text: &'static str, name: Name, value: &'static str) -> StaticEntry {
    StaticEntry {
        text,
        name,
        value: HeaderValue::from_static(value),
    }
}

const fn named(text: &'static str, name: HeaderName) -> StaticEntry {
    entry(text, Name::Regular(name), "")
}

/// The static table; its first entry has index 1.
pub(super) static STATIC: [StaticEntry; 61] = [
    entry(":authority", Name::Authority, ""),
    entry(":method", Name::Method, "GET"),
    entry(":method", Name::Method, "POST"),
    entry(":path", Name::Path, "/"),
    entry(":path", Name::Path, "/index.html"),
    entry(":scheme", Name::Scheme, "http"),
    entry(":scheme", Name::Scheme, "https"),
    entry(":status", Name::Status, "200"),
    entry(":status", Name::Status, "204"),
    entry(":status", Name::Status, "206"),
    entry(":status", Name::Status, "304"),
    entry(":status", Name::Status, "400"),
    entry(":status", Name::Status, "404"),
    entry(":status", Name::Status, "500"),
    named("accept-charset", header::ACCEPT_CHARSET),
    entry(
        "accept-encoding",
        Name::Regular(header::ACCEPT_ENCODING),
        "gzip, deflate",
    ),
    named("accept-language", header::ACCEPT_LANGUAGE),
    named("accept-ranges", header::ACCEPT_RANGES),
    named("accept", header::ACCEPT),
    named("access-control-allow-origin", header::ACCESS_CONTROL_ALLOW_ORIGIN),
    named("age", header::AGE),
    named("allow", header::ALLOW),
    named("authorization", header::AUTHORIZATION),
    named("cache-control", header::CACHE_CONTROL),
    named("content-disposition", header::CONTENT_DISPOSITION),
    named("content-encoding", header::CONTENT_ENCODING),
    named("content-language", header::CONTENT_LANGUAGE),
    named("content-length", header::CONTENT_LENGTH),
    named("content-location", header::CONTENT_LOCATION),
    named("content-range", header::CONTENT_RANGE),
    named("content-type", header::CONTENT_TYPE),
    named("cookie", header::COOKIE),
    named("date", header::DATE),
    named("etag", header::ETAG),
    named("expect", header::EXPECT),
    named("expires", header::EXPIRES),
    named("from", header::FROM),
    named("host", header::HOST),
    named("if-match", header::IF_MATCH),
    named("if-modified-since", header::IF_MODIFIED_SINCE),
    named("if-none-match", header::IF_NONE_MATCH),
    named("if-range", header::IF_RANGE),
    named("if-unmodified-since", header::IF_UNMODIFIED_SINCE),
    named("last-modified", header::LAST_MODIFIED),
    named("link", header::LINK),
    named("location", header::LOCATION),
    named("max-forwards", header::MAX_FORWARDS),
    named("proxy-authenticate", header::PROXY_AUTHENTICATE),
    named("proxy-authorization", header::PROXY_AUTHORIZATION),
    named("range", header::RANGE),
    named("referer", header::REFERER),
    named("refresh", header::REFRESH),
    named("retry-after", header::RETRY_AFTER),
    named("server", header::SERVER),
    named("set-cookie", header::SET_COOKIE),
    named("strict-transport-security", header::STRICT_TRANSPORT_SECURITY),
    named("transfer-encoding", header::TRANSFER_ENCODING),
    named("user-agent", header::USER_AGENT),
    named("vary", header::VARY),
    named("via", header::VIA),
    named("www-authenticate", header::WWW_AUTHENTICATE),
];

/// The first index of a name in the static table.
pub(super) fn static_index(name: &HeaderName) -> Option<usize> {
    Some(match *name {
        header::ACCEPT_CHARSET => 15,
        header::ACCEPT_ENCODING => 16,
        header::ACCEPT_LANGUAGE => 17,
        header::ACCEPT_RANGES => 18,
        header::ACCEPT => 19,
        header::ACCESS_CONTROL_ALLOW_ORIGIN => 20,
        header::AGE => 21,
        header::ALLOW => 22,
        header::AUTHORIZATION => 23,
        header::CACHE_CONTROL => 24,
        header::CONTENT_DISPOSITION => 25,
        header::CONTENT_ENCODING => 26,
        header::CONTENT_LANGUAGE => 27,
        header::CONTENT_LENGTH => 28,
        header::CONTENT_LOCATION => 29,
        header::CONTENT_RANGE => 30,
        header::CONTENT_TYPE => 31,
        header::COOKIE => 32,
        header::DATE => 33,
        header::ETAG => 34,
        header::EXPECT => 35,
        header::EXPIRES => 36,
        header::FROM => 37,
        header::HOST => 38,
        header::IF_MATCH => 39,
        header::IF_MODIFIED_SINCE => 40,
        header::IF_NONE_MATCH => 41,
        header::IF_RANGE => 42,
        header::IF_UNMODIFIED_SINCE => 43,
        header::LAST_MODIFIED => 44,
        header::LINK => 45,
        header::LOCATION => 46,
        header::MAX_FORWARDS => 47,
        header::PROXY_AUTHENTICATE => 48,
        header::PROXY_AUTHORIZATION => 49,
        header::RANGE => 50,
        header::REFERER => 51,
        header::REFRESH => 52,
        header::RETRY_AFTER => 53,
        header::SERVER => 54,
        header::SET_COOKIE => 55,
        header::STRICT_TRANSPORT_SECURITY => 56,
        header::TRANSFER_ENCODING => 57,
        header::USER_AGENT => 58,
        header::VARY => 59,
        header::VIA => 60,
        header::WWW_AUTHENTICATE => 61,
        _ => return None,
    })
}

/// A dynamic table, of the encoder or the decoder.
#[derive(Debug)]
pub(super) struct Dynamic<T> {
    /// Newest first, each with its size.
    entries: VecDeque<(T, usize)>,
    size: usize,
    max: usize,
}

impl<T> Dynamic<T> {
    /// An empty table of at most `max` bytes.
    pub(super) fn new(max: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            size: 0,
            max,
        }
    }

    /// Its maximum size.
    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// Changes the maximum size, which may evict entries.
    pub(super) fn resize(&mut self, max: usize) {
        self.max = max;
        self.evict(max);
    }

    /// The number of entries.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The entry after which `age` others were inserted.
    pub(super) fn get(&self, age: usize) -> Option<&T> {
        self.entries.get(age).map(|(entry, _)| entry)
    }

    /// Inserts an entry whose name and value have `len` bytes, evicting the oldest as needed. Returns whether it is in
    /// the table: one that is larger than the table only empties it (section 4.4).
    pub(super) fn insert(&mut self, entry: T, len: usize) -> bool {
        let size = len + OVERHEAD;
        self.evict(self.max.saturating_sub(size));
        let fits = size <= self.max;
        if fits {
            self.size += size;
            self.entries.push_front((entry, size));
        }
        fits
    }

    fn evict(&mut self, most: usize) {
        while self.size > most
            && let Some((_, size)) = self.entries.pop_back()
        {
            self.size -= size;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_where_they_are_first_in_the_static_table() {
        for (entry, index) in STATIC.iter().zip(1..) {
            if let Name::Regular(name) = &entry.name {
                assert_eq!(name.as_str(), entry.text);
                assert_eq!(static_index(name), Some(index));
            } else {
                assert!(entry.text.starts_with(':'), "{}", entry.text);
            }
        }
        assert_eq!(static_index(&HeaderName::from_static("x-request-id")), None);
        assert_eq!(static_index(&header::TE), None);
    }

    #[test]
    fn the_oldest_make_room() {
        let mut table = Dynamic::new(100);
        assert!(table.insert('a', 8) && table.insert('b', 18));
        assert_eq!((table.get(0), table.get(1)), (Some(&'b'), Some(&'a')));
        assert!(table.insert('c', 0));
        assert_eq!((table.get(0), table.get(1), table.len()), (Some(&'c'), Some(&'b'), 2));
        table.resize(32);
        assert_eq!((table.get(0), table.len(), table.max()), (Some(&'c'), 1, 32));
        assert!(!table.insert('d', 1));
        assert_eq!((table.get(0), table.size), (None, 0));
    }
}
