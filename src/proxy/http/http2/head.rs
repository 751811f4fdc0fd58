//! Message heads as HTTP/2 field lists: validation and conversion in both directions (RFC 9113 sections 8.1 to 8.3).

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use http::uri::{self, Authority, PathAndQuery, Scheme, Uri};
use http::{Method, Request, Response, StatusCode, Version};

use super::error::Reason;
use super::hpack::{Encoder, Indexing, Name};
use super::stream::{RecvState, Stream};
use crate::proxy::http::http1::{self, Refusal, response};
use crate::proxy::http::interim::Interims;

/// What each field counts beside its bytes (RFC 9113 section 6.5.2).
const FIELD: usize = 32;

/// Initial capacity of the headers.
const USUAL: usize = 12;

/// The header list is too large.
const TOO_LARGE: &str = "http2.header_list_size_too_large";

/// Why fields are not a valid message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    Malformed,
    TooLarge,
}

impl From<Flaw> for Reason {
    fn from(flaw: Flaw) -> Self {
        match flaw {
            Flaw::Malformed => Reason::PROTOCOL_ERROR,
            Flaw::TooLarge => Reason::INTERNAL_ERROR,
        }
    }
}

/// A received request.
#[derive(Debug)]
pub(super) struct RequestHead {
    pub(super) request: Request<()>,
    /// The protocol of an extended CONNECT (RFC 8441).
    pub(super) protocol: Option<HeaderValue>,
    /// Its `content-length`.
    pub(super) length: Option<u64>,
    /// The local reply, if it is malformed in a way that is answered.
    pub(super) refusal: Option<Refusal>,
    /// Why its stream is reset, if it is malformed in a way that is not.
    pub(super) reset_details: Option<&'static str>,
}

/// Received response headers.
#[derive(Debug)]
pub(super) struct ResponseHead {
    pub(super) response: Response<()>,
    /// Their `content-length`.
    pub(super) length: Option<u64>,
}

/// Collects the fields of a header block.
#[derive(Debug)]
pub(super) struct Fields {
    method: Option<HeaderValue>,
    scheme: Option<HeaderValue>,
    authority: Option<HeaderValue>,
    path: Option<HeaderValue>,
    status: Option<HeaderValue>,
    protocol: Option<HeaderValue>,
    headers: HeaderMap,
    length: Option<u64>,
    /// How many bytes more are allowed.
    room: usize,
    flaw: Option<Flaw>,
}

impl Fields {
    /// Allows a header list of so many bytes.
    pub(super) fn new(most: usize) -> Self {
        Self {
            method: None,
            scheme: None,
            authority: None,
            path: None,
            status: None,
            protocol: None,
            headers: HeaderMap::new(),
            length: None,
            room: most,
            flaw: None,
        }
    }

    /// Adds a field. After an invalid one, further fields are ignored.
    pub(super) fn add(&mut self, name: Name, value: HeaderValue, sensitive: bool) {
        if self.flaw.is_none()
            && let Err(flaw) = self.take(name, value, sensitive)
        {
            self.flaw = Some(flaw);
        }
    }

    fn take(&mut self, name: Name, mut value: HeaderValue, sensitive: bool) -> Result<(), Flaw> {
        // For simplicity, all pseudo-headers count as the longest.
        let len = if let Name::Regular(name) = &name {
            name.as_str().len()
        } else {
            10
        };
        let room = self.room.checked_sub(len + value.len() + FIELD);
        self.room = room.ok_or(Flaw::TooLarge)?;
        let place = match name {
            Name::Regular(name) => {
                value.set_sensitive(sensitive);
                return self.header(name, value);
            }
            Name::Method => &mut self.method,
            Name::Scheme => &mut self.scheme,
            Name::Authority => &mut self.authority,
            Name::Path => &mut self.path,
            Name::Status => &mut self.status,
            Name::Protocol => &mut self.protocol,
            Name::OtherPseudo | Name::Malformed => return Err(Flaw::Malformed),
        };
        // Each once, and before regular fields.
        if place.is_some() || !self.headers.is_empty() {
            return Err(Flaw::Malformed);
        }
        *place = Some(value);
        Ok(())
    }

    fn header(&mut self, name: HeaderName, value: HeaderValue) -> Result<(), Flaw> {
        match name.as_str() {
            "te" if value != "trailers" => return Err(Flaw::Malformed),
            "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade" => {
                return Err(Flaw::Malformed);
            }
            "content-length" => {
                let length = http1::length(value.as_bytes()).ok_or(Flaw::Malformed)?;
                if self.length.replace(length).is_some_and(|before| before != length) {
                    return Err(Flaw::Malformed);
                }
            }
            _ => {}
        }
        if self.headers.is_empty() {
            self.headers.reserve(USUAL);
        }
        let added = self.headers.try_append(name, value);
        added.map(|_| ()).map_err(|_| Flaw::TooLarge)
    }

    /// Makes a request of the fields. `last` caches the last authority, since most requests on a connection share it.
    ///
    /// # Errors
    /// If it is malformed.
    pub(super) fn into_request(
        self,
        connect_protocol: bool,
        last: &mut Option<Authority>,
    ) -> Result<RequestHead, Flaw> {
        match self.flaw {
            Some(Flaw::Malformed) => return Err(Flaw::Malformed),
            Some(Flaw::TooLarge) => {
                return Ok(RequestHead {
                    request: Request::new(()),
                    protocol: None,
                    length: None,
                    refusal: None,
                    reset_details: Some(TOO_LARGE),
                });
            }
            None => {}
        }
        if self.status.is_some() || (self.protocol.is_some() && !connect_protocol) {
            return Err(Flaw::Malformed);
        }
        let method = self.method.as_ref().ok_or(Flaw::Malformed)?;
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| Flaw::Malformed)?;
        if self.protocol.is_some() && method != Method::CONNECT {
            return Err(Flaw::Malformed);
        }
        let uri = self.uri(&method, last)?;
        let fragment = self.path.is_some_and(|path| path.as_bytes().contains(&b'#'));
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = self.headers;
        Ok(RequestHead {
            request,
            protocol: self.protocol,
            length: self.length,
            refusal: fragment.then_some(http1::FRAGMENT),
            reset_details: None,
        })
    }

    fn uri(&self, method: &Method, last: &mut Option<Authority>) -> Result<Uri, Flaw> {
        let mut parts = uri::Parts::default();
        if let Some(value) = &self.authority {
            parts.authority = Some(authority(value, last)?);
        }
        if *method == Method::CONNECT && self.protocol.is_none() {
            if self.scheme.is_some() || self.path.is_some() || parts.authority.is_none() {
                return Err(Flaw::Malformed);
            }
        } else {
            let scheme = scheme(self.scheme.as_ref().ok_or(Flaw::Malformed)?)?;
            parts.path_and_query = Some(path(method, self.path.as_ref().ok_or(Flaw::Malformed)?)?);
            // A URI with a scheme needs an authority.
            parts.scheme = parts.authority.is_some().then_some(scheme);
        }
        Uri::from_parts(parts).map_err(|_| Flaw::Malformed)
    }

    /// Makes a response of the fields and gives it to the stream; an interim one is kept apart.
    ///
    /// # Errors
    /// The error code to reset the stream with if it is malformed.
    pub(super) fn into_answer(mut self, stream: &mut Stream, ended: bool) -> Result<(), Reason> {
        if let Some(flaw) = self.flaw {
            return Err(flaw.into());
        }
        let asked = [&self.method, &self.scheme, &self.authority, &self.path, &self.protocol];
        let status = self
            .status
            .as_ref()
            .filter(|_| asked.iter().all(|field| field.is_none()));
        let status = status.and_then(|status| StatusCode::from_bytes(status.as_bytes()).ok());
        let status = status.ok_or(Reason::PROTOCOL_ERROR)?;
        // Envoy counts `:status`.
        if self.headers.len() + 1 > response::COUNT {
            return Err(Flaw::TooLarge.into());
        }
        if status.is_informational() {
            // HTTP/2 has no 101 (RFC 9113 section 8.6).
            if ended || status == StatusCode::SWITCHING_PROTOCOLS {
                return Err(Reason::PROTOCOL_ERROR);
            }
            if Interims::is_known(status) {
                let interim = || Box::new(answer(status, self.headers));
                stream.interim.get_or_insert_with(interim);
            }
            return Ok(());
        }
        if let Some(length) = self.length {
            // Repeated equal values are accepted, but must not be forwarded (RFC 9110 section 8.6).
            self.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        let bodiless = stream.bodiless || matches!(status.as_u16(), 204 | 304);
        stream.length = self.length.filter(|_| !bodiless);
        if ended && stream.length.is_some_and(|length| length > 0) {
            return Err(Reason::PROTOCOL_ERROR);
        }
        stream.recv = if ended { RecvState::Ended } else { RecvState::Body };
        stream.answer = Some(answer(status, self.headers));
        Ok(())
    }

    /// Makes trailers of the fields and gives them to the stream.
    ///
    /// # Errors
    /// The error code to reset the stream with if they are malformed.
    pub(super) fn into_trailers(self, stream: &mut Stream, ended: bool) -> Result<(), Reason> {
        let pseudo = [
            &self.method,
            &self.scheme,
            &self.authority,
            &self.path,
            &self.protocol,
            &self.status,
        ];
        let short = stream.length.is_some_and(|left| left > 0);
        if let Some(flaw) = self.flaw {
            return Err(flaw.into());
        }
        if !ended || short || pseudo.iter().any(|field| field.is_some()) {
            return Err(Reason::PROTOCOL_ERROR);
        }
        stream.recv = RecvState::Ended;
        if stream.receiver {
            stream.trailers = Some(self.headers);
        }
        Ok(())
    }
}

fn answer(status: StatusCode, headers: HeaderMap) -> Response<()> {
    let mut answer = Response::new(());
    *answer.status_mut() = status;
    *answer.version_mut() = Version::HTTP_2;
    *answer.headers_mut() = headers;
    answer
}

fn authority(value: &HeaderValue, last: &mut Option<Authority>) -> Result<Authority, Flaw> {
    if let Some(last) = last
        .as_ref()
        .filter(|last| last.as_str().as_bytes() == value.as_bytes())
    {
        return Ok(last.clone());
    }
    let authority = Authority::try_from(value.as_bytes()).map_err(|_| Flaw::Malformed)?;
    Ok(last.insert(authority).clone())
}

fn scheme(value: &HeaderValue) -> Result<Scheme, Flaw> {
    match value.as_bytes() {
        b"http" => Ok(Scheme::HTTP),
        b"https" => Ok(Scheme::HTTPS),
        other => Scheme::try_from(other).map_err(|_| Flaw::Malformed),
    }
}

fn path(method: &Method, value: &HeaderValue) -> Result<PathAndQuery, Flaw> {
    let value = value.as_bytes();
    match value {
        [b'/', ..] => {}
        b"*" if *method == Method::OPTIONS => {}
        _ => return Err(Flaw::Malformed),
    }
    let path = match http1::is_odd(value) {
        false => PathAndQuery::try_from(value),
        true => PathAndQuery::from_maybe_shared(Bytes::from(http1::encoded(value))),
    };
    path.map_err(|_| Flaw::Malformed)
}

/// Writes response headers.
pub(super) fn write_answer(encoder: &mut Encoder, status: StatusCode, headers: &HeaderMap, out: &mut BytesMut) {
    encoder.status(status, out);
    write_fields(encoder, headers, out);
}

/// Writes headers.
pub(super) fn write_fields(encoder: &mut Encoder, headers: &HeaderMap, out: &mut BytesMut) {
    for (name, value) in headers {
        encoder.field(name, value, Indexing::of(name, value), out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::new(300);
        for (name, value) in pairs {
            let name = match *name {
                ":method" => Name::Method,
                ":scheme" => Name::Scheme,
                ":authority" => Name::Authority,
                ":path" => Name::Path,
                ":status" => Name::Status,
                ":protocol" => Name::Protocol,
                other => Name::Regular(HeaderName::from_bytes(other.as_bytes()).unwrap()),
            };
            fields.add(name, HeaderValue::from_str(value).unwrap(), false);
        }
        fields
    }

    fn get(path: &str) -> Vec<(&str, &str)> {
        vec![
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", "a"),
            (":path", path),
        ]
    }

    fn asked(pairs: &[(&str, &str)], connect_protocol: bool) -> Result<RequestHead, Flaw> {
        fields(pairs).into_request(connect_protocol, &mut None)
    }

    #[test]
    fn requests_are_what_their_fields_say() {
        let asked = asked(
            &[&get("/a?b")[..], &[("x-a", "1"), ("content-length", "5")]].concat(),
            false,
        )
        .unwrap();
        assert_eq!(asked.request.uri(), "http://a/a?b");
        assert_eq!((asked.request.method(), asked.length), (&Method::GET, Some(5)));
        assert_eq!(asked.request.headers().len(), 2);
    }

    #[test]
    fn a_request_without_an_authority_has_a_path_alone() {
        let mut pairs = get("/a");
        pairs.remove(2);
        assert_eq!(asked(&pairs, false).unwrap().request.uri(), "/a");
    }

    #[test]
    fn connect_has_an_authority_alone_unless_it_names_a_protocol() {
        let connect = [(":method", "CONNECT"), (":authority", "a:1")];
        assert_eq!(asked(&connect, false).unwrap().request.uri(), "a:1");
        assert!(asked(&[&connect[..], &[(":path", "/")]].concat(), false).is_err());
        assert!(asked(&connect[..1], false).is_err());
        let rest = [(":protocol", "websocket"), (":scheme", "http"), (":path", "/")];
        let extended = [&connect[..], &rest].concat();
        assert_eq!(asked(&extended, true).unwrap().protocol.unwrap(), "websocket");
        assert!(asked(&extended, false).is_err());
        assert!(asked(&[&get("/")[..], &rest[..1]].concat(), true).is_err());
    }

    #[test]
    fn a_fragment_is_refused_as_over_http_1() {
        assert_eq!(asked(&get("/a#b"), false).unwrap().refusal, Some(http1::FRAGMENT));
        assert_eq!(asked(&get("/a"), false).unwrap().refusal, None);
    }

    #[test]
    fn what_is_no_part_of_a_url_is_encoded() {
        assert_eq!(
            asked(&get("/<a`?\""), false).unwrap().request.uri(),
            "http://a/%3Ca%60?%22"
        );
    }

    #[test]
    fn what_is_too_large_is_not_answered() {
        let long = "a".repeat(300);
        let asked = asked(&[&get("/")[..], &[("x-a", &long)]].concat(), false).unwrap();
        assert_eq!((asked.refusal, asked.reset_details), (None, Some(TOO_LARGE)));
    }

    fn answered(pairs: &[(&str, &str)], bodiless: bool, ended: bool) -> Result<Stream, Reason> {
        let mut stream = Stream::new(1, 0, 0);
        stream.bodiless = bodiless;
        fields(pairs).into_answer(&mut stream, ended)?;
        Ok(stream)
    }

    #[test]
    fn answers_have_a_status_and_no_other_pseudo_header() {
        let stream = answered(&[(":status", "200"), ("x-a", "b")], false, false).unwrap();
        assert_eq!(stream.answer.unwrap().status(), 200);
        for pairs in [
            &[("x-a", "b")][..],
            &[(":status", "2x0")],
            &[(":status", "101")],
            &[(":status", "200"), (":path", "/")],
            &[(":status", "200"), (":status", "200")],
            &[("x-a", "b"), (":status", "200")],
            &[(":status", "200"), ("content-length", "x")],
            &[(":status", "200"), ("connection", "close")],
        ] {
            assert!(answered(pairs, false, false).is_err(), "{pairs:?}");
        }
        let interim = answered(&[(":status", "103")], false, false).unwrap();
        assert!(interim.answer.is_none() && interim.recv == RecvState::Head);
        assert!(answered(&[(":status", "103")], false, true).is_err());
    }

    #[test]
    fn a_length_without_a_body_is_for_those_who_have_none() {
        let pairs = [(":status", "200"), ("content-length", "5")];
        assert!(answered(&pairs, false, true).is_err());
        assert!(answered(&pairs, true, true).is_ok());
        assert!(answered(&[(":status", "304"), pairs[1]], false, true).is_ok());
    }

    #[test]
    fn trailers_end_a_message_and_have_no_pseudo_headers() {
        let trailers = |pairs: &[(&str, &str)], ended, left| {
            let mut stream = Stream::new(1, 0, 0);
            stream.length = left;
            fields(pairs)
                .into_trailers(&mut stream, ended)
                .map(|()| stream.trailers)
        };
        assert!(trailers(&[("a", "b")], true, None).unwrap().is_some());
        assert!(trailers(&[("a", "b")], false, None).is_err());
        assert!(trailers(&[("a", "b")], true, Some(1)).is_err());
        assert!(trailers(&[(":status", "200"), ("a", "b")], true, None).is_err());
        assert!(trailers(&[("transfer-encoding", "chunked")], true, None).is_err());
    }
}
