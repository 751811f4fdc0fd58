//! Encoding header blocks.

mod recent;

use bytes::{BufMut as _, BytesMut};
use http::header::{HeaderName, HeaderValue};
use http::{Method, StatusCode};

use super::table::{Dynamic, OVERHEAD, STATIC, static_index};
use super::{Indexing, TABLE_SIZE, huffman, integer};
use recent::{Hashes, Recent};

const AUTHORITY: usize = 1;
const METHOD: usize = 2;
const PATH: usize = 4;
const SCHEME: usize = 6;
const STATUS: usize = 8;
const GZIP_DEFLATE: usize = 16;

/// Flag of an indexed field.
const INDEXED: u8 = 0x80;
/// Flag of a literal that enters the table.
const LITERAL_INDEXED: u8 = 0x40;
/// Flag of a table size update.
const SIZE_UPDATE: u8 = 0x20;
/// Flag of a literal that is never indexed.
const LITERAL_NEVER_INDEXED: u8 = 0x10;
/// Flag of a literal that does not enter the table.
const LITERAL: u8 = 0;

/// The encoder of the header blocks for one peer.
#[derive(Debug)]
pub(crate) struct Encoder {
    table: Dynamic<Entry>,
    recent: Recent,
    /// The smallest size of the table since the last block, if the peer has to be told.
    resized: Option<usize>,
}

/// An entry of the dynamic table.
#[derive(Debug)]
struct Entry {
    name: OwnName,
    value: Box<[u8]>,
}

/// The name of a field to be sent.
#[derive(Clone, Copy)]
enum SentName<'a> {
    /// A pseudo-header's index in the static table.
    Static(usize),
    /// `:protocol`, which is not in the static table.
    Protocol,
    /// A regular header.
    Regular(&'a HeaderName),
}

/// The same, owned by the table.
#[derive(Debug)]
enum OwnName {
    Static(usize),
    Protocol,
    Regular(HeaderName),
}

impl Encoder {
    /// An encoder with a table of the default size.
    pub(crate) fn new() -> Self {
        Self {
            table: Dynamic::new(TABLE_SIZE),
            recent: Recent::default(),
            resized: None,
        }
    }

    /// Applies the peer's `SETTINGS_HEADER_TABLE_SIZE`. Our table is never larger than `TABLE_SIZE`.
    pub(crate) fn set_max_table(&mut self, max: usize) {
        let max = max.min(TABLE_SIZE);
        if max != self.table.max() {
            let smallest = self.resized.unwrap_or(self.table.max());
            self.table.resize(max);
            self.resized = Some(smallest.min(max));
        }
    }

    /// Begins a block: announces a changed table size (section 4.2).
    pub(crate) fn begin(&mut self, out: &mut BytesMut) {
        if let Some(smallest) = self.resized.take() {
            if smallest < self.table.max() {
                integer::encode(smallest, 5, SIZE_UPDATE, out);
            }
            integer::encode(self.table.max(), 5, SIZE_UPDATE, out);
        }
    }

    /// `:method`.
    pub(crate) fn method(&mut self, method: &Method, out: &mut BytesMut) {
        match *method {
            Method::GET => indexed(METHOD, out),
            Method::POST => indexed(METHOD + 1, out),
            _ => self.pseudo(METHOD, method.as_str().as_bytes(), out),
        }
    }

    /// `:scheme`.
    pub(crate) fn scheme(&mut self, scheme: impl AsRef<[u8]>, out: &mut BytesMut) {
        match scheme.as_ref() {
            b"http" => indexed(SCHEME, out),
            b"https" => indexed(SCHEME + 1, out),
            other => self.pseudo(SCHEME, other, out),
        }
    }

    /// `:authority`.
    pub(crate) fn authority(&mut self, authority: impl AsRef<[u8]>, out: &mut BytesMut) {
        self.pseudo(AUTHORITY, authority.as_ref(), out);
    }

    /// `:path`, which does not enter the table: there are too many values.
    pub(crate) fn path(&mut self, path: impl AsRef<[u8]>, out: &mut BytesMut) {
        match path.as_ref() {
            b"/" => indexed(PATH, out),
            b"/index.html" => indexed(PATH + 1, out),
            other => literal(LITERAL, 4, PATH, SentName::Static(PATH), other, out),
        }
    }

    /// `:status`.
    pub(crate) fn status(&mut self, status: StatusCode, out: &mut BytesMut) {
        match status.as_u16() {
            200 => indexed(STATUS, out),
            204 => indexed(STATUS + 1, out),
            206 => indexed(STATUS + 2, out),
            304 => indexed(STATUS + 3, out),
            400 => indexed(STATUS + 4, out),
            404 => indexed(STATUS + 5, out),
            500 => indexed(STATUS + 6, out),
            _ => self.pseudo(STATUS, status.as_str().as_bytes(), out),
        }
    }

    /// `:protocol` (RFC 8441).
    pub(crate) fn protocol(&mut self, protocol: impl AsRef<[u8]>, out: &mut BytesMut) {
        self.write(SentName::Protocol, None, protocol.as_ref(), Indexing::Indexed, out);
    }

    /// A regular header. One that is nearly as large as the table, or sensitive, is not indexed, whatever `indexing`
    /// says.
    pub(crate) fn field(&mut self, name: &HeaderName, value: &HeaderValue, indexing: Indexing, out: &mut BytesMut) {
        let indexing = if value.is_sensitive() {
            Indexing::NeverIndexed
        } else {
            indexing
        };
        let at = static_index(name);
        if at == Some(GZIP_DEFLATE) && value == STATIC[GZIP_DEFLATE - 1].value && indexing != Indexing::NeverIndexed {
            return indexed(GZIP_DEFLATE, out);
        }
        self.write(SentName::Regular(name), at, value.as_bytes(), indexing, out);
    }

    fn pseudo(&mut self, at: usize, value: &[u8], out: &mut BytesMut) {
        self.write(SentName::Static(at), Some(at), value, Indexing::Indexed, out);
    }

    fn write(&mut self, name: SentName<'_>, at: Option<usize>, value: &[u8], indexing: Indexing, out: &mut BytesMut) {
        let (flags, prefix) = match indexing {
            Indexing::Indexed if self.has_room(name, value) => return self.write_indexed(name, at, value, out),
            Indexing::NameIndexed if self.has_room(name, value) => {
                return self.write_name_indexed(name, at, value, out);
            }
            Indexing::Indexed | Indexing::NameIndexed | Indexing::NotIndexed => (LITERAL, 4),
            Indexing::NeverIndexed => (LITERAL_NEVER_INDEXED, 4),
        };
        let at = at.or_else(|| self.find_name(name, Hashes::name(name).name));
        literal(flags, prefix, at.unwrap_or(0), name, value, out);
    }

    /// Whether a field leaves room for others in the table.
    fn has_room(&self, name: SentName<'_>, value: &[u8]) -> bool {
        (name.text().len() + value.len() + OVERHEAD) * 4 <= self.table.max() * 3
    }

    fn write_indexed(&mut self, name: SentName<'_>, at: Option<usize>, value: &[u8], out: &mut BytesMut) {
        let hashes = Hashes::field(name, value);
        if let Some(at) = self.find(self.recent.fields(hashes.field), |entry| entry.is(name, value)) {
            return indexed(at, out);
        }
        let at = at.or_else(|| self.find_name(name, hashes.name));
        literal(LITERAL_INDEXED, 6, at.unwrap_or(0), name, value, out);
        self.insert(name, value, hashes);
    }

    fn write_name_indexed(&mut self, name: SentName<'_>, at: Option<usize>, value: &[u8], out: &mut BytesMut) {
        let hashes = Hashes::name(name);
        match at.or_else(|| self.find_name(name, hashes.name)) {
            Some(at) => literal(LITERAL, 4, at, name, value, out),
            None => {
                literal(LITERAL_INDEXED, 6, 0, name, value, out);
                self.insert(name, value, hashes);
            }
        }
    }

    fn find_name(&self, name: SentName<'_>, hash: u32) -> Option<usize> {
        self.find(self.recent.names(hash), |entry| entry.name.is(name))
    }

    /// The index of the first of these entries that `is` accepts.
    fn find(&self, ages: impl Iterator<Item = usize>, is: impl Fn(&Entry) -> bool) -> Option<usize> {
        for age in ages {
            if self.table.get(age).is_some_and(&is) {
                return Some(STATIC.len() + 1 + age);
            }
        }
        None
    }

    fn insert(&mut self, name: SentName<'_>, value: &[u8], hashes: Hashes) {
        let entry = Entry {
            name: name.own(),
            value: value.into(),
        };
        if self.table.insert(entry, name.text().len() + value.len()) {
            self.recent.insert(hashes);
        }
    }
}

impl Entry {
    fn is(&self, name: SentName<'_>, value: &[u8]) -> bool {
        *self.value == *value && self.name.is(name)
    }
}

impl<'a> SentName<'a> {
    fn text(self) -> &'a str {
        match self {
            SentName::Static(at) => STATIC[at - 1].text,
            SentName::Protocol => ":protocol",
            SentName::Regular(name) => name.as_str(),
        }
    }

    fn own(self) -> OwnName {
        match self {
            SentName::Static(at) => OwnName::Static(at),
            SentName::Protocol => OwnName::Protocol,
            SentName::Regular(name) => OwnName::Regular(name.clone()),
        }
    }
}

impl OwnName {
    fn is(&self, other: SentName<'_>) -> bool {
        match (self, other) {
            (OwnName::Static(at), SentName::Static(other)) => *at == other,
            (OwnName::Protocol, SentName::Protocol) => true,
            (OwnName::Regular(name), SentName::Regular(other)) => name == other,
            _ => false,
        }
    }
}

fn indexed(at: usize, out: &mut BytesMut) {
    integer::encode(at, 7, INDEXED, out);
}

/// Writes a literal with the name index `at`, or 0 and the name as a string.
fn literal(flags: u8, prefix: u32, at: usize, name: SentName<'_>, value: &[u8], out: &mut BytesMut) {
    integer::encode(at, prefix, flags, out);
    if at == 0 {
        string(name.text().as_bytes(), out);
    }
    string(value, out);
}

/// Writes a string, Huffman-coded if that is shorter (section 5.2).
fn string(text: &[u8], out: &mut BytesMut) {
    let len = huffman::encoded_len(text);
    if len < text.len() {
        integer::encode(len, 7, 0x80, out);
        huffman::encode(text, len, out);
    } else {
        integer::encode(text.len(), 7, 0, out);
        out.put_slice(text);
    }
}
