//! Parsing format strings.

use super::Part;
use super::command::{Command, Source};
use super::grpc::GrpcForm;
use super::header::HeaderSource;
use super::request::{DurationSource, PathSource};
use super::time::TimeFormat;
use super::wire::WireBytes;

/// Parses a format string into its parts.
pub(super) fn parse(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        literal.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            literal.push('%');
            rest = after;
            continue;
        }
        let end = command_end(rest).ok_or_else(|| format!("`%{rest}`: missing closing `%`"))?;
        if !literal.is_empty() {
            parts.push(Part::Literal(std::mem::take(&mut literal).into()));
        }
        parts.push(Part::Command(command(&rest[..end])?));
        rest = &rest[end + 1..];
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(Part::Literal(literal.into()));
    }
    Ok(parts)
}

/// The position of the `%` that ends a command, which is not one within parentheses.
fn command_end(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    text.char_indices().find_map(|(at, character)| {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            '%' if depth == 0 => return Some(at),
            _ => {}
        }
        None
    })
}

/// Parses `NAME`, `NAME(ARGUMENT)`, or either with `:LENGTH`.
fn command(text: &str) -> Result<Command, String> {
    let unknown = || format!("unknown command `%{text}%`");
    let (head, max_len) = match text
        .rfind(':')
        .filter(|colon| text.rfind(')').is_none_or(|end| end < *colon))
    {
        Some(colon) => {
            let len = text[colon + 1..]
                .parse()
                .map_err(|_| format!("`%{text}%`: the length is not a number"))?;
            (&text[..colon], Some(len))
        }
        None => (text, None),
    };
    let (name, argument) = match head.find('(') {
        Some(open) => {
            let argument = head[open + 1..].strip_suffix(')').ok_or_else(unknown)?;
            (&head[..open], Some(argument))
        }
        None => (head, None),
    };
    let source = source(name, argument)?.ok_or_else(unknown)?;
    Ok(Command { source, max_len })
}

fn source(name: &str, argument: Option<&str>) -> Result<Option<Source>, String> {
    let header = |make: fn(HeaderSource) -> Source| -> Result<Option<Source>, String> {
        let argument = argument.ok_or_else(|| format!("`%{name}%` requires a header in parentheses"))?;
        Ok(Some(make(HeaderSource::parse(argument)?)))
    };
    match name {
        "REQ" | "REQUEST_HEADER" => return header(Source::Request),
        "RESP" | "RESPONSE_HEADER" => return header(Source::Response),
        "TRAILER" | "RESPONSE_TRAILER" => return header(Source::Trailer),
        "REQUEST_HEADERS_BYTES" => return Ok(Some(Source::RequestSize).filter(|_| argument.is_none())),
        "EMIT_TIME" => return Ok(Some(Source::EmitTime(TimeFormat::parse(argument.unwrap_or_default())))),
        "PATH" => return Ok(Some(Source::Path(PathSource::parse(argument.unwrap_or_default())?))),
        "QUERY_PARAM" => {
            let name = argument.ok_or_else(|| format!("`%{name}%` requires a name in parentheses"))?;
            return Ok(Some(Source::QueryParameter(name.into())));
        }
        "QUERY_PARAMS" => {
            return match argument {
                None | Some("" | "ORIG") => Ok(Some(Source::Query)),
                Some("DECODED") => Err("`DECODED` is not implemented".to_owned()),
                Some(other) => Err(format!("`{other}` is neither `ORIG` nor `DECODED`")),
            };
        }
        "COMMON_DURATION" => {
            return Ok(Some(Source::Duration(DurationSource::parse(
                argument.unwrap_or_default(),
            )?)));
        }
        "START_TIME" => return Ok(Some(Source::StartTime(TimeFormat::parse(argument.unwrap_or_default())))),
        "START_TIME_LOCAL" => {
            let format = TimeFormat::parse_local(argument.unwrap_or_default());
            return Ok(Some(Source::StartTime(format)));
        }
        "EMIT_TIME_LOCAL" => {
            let format = TimeFormat::parse_local(argument.unwrap_or_default());
            return Ok(Some(Source::EmitTime(format)));
        }
        "GRPC_STATUS" | "GRPC_STATUS_NUMBER" => {
            let form = match argument {
                None if name == "GRPC_STATUS" => GrpcForm::Camel,
                None => GrpcForm::Number,
                Some("CAMEL_STRING" | "") => GrpcForm::Camel,
                Some("SNAKE_STRING") => GrpcForm::Snake,
                Some("NUMBER") => GrpcForm::Number,
                Some(other) => return Err(format!("`{other}` is not a valid gRPC status format")),
            };
            return Ok(Some(Source::GrpcStatus(form)));
        }
        "ENVIRONMENT" => {
            let value = argument.and_then(|name| std::env::var(name).ok());
            return Ok(Some(Source::Fixed(Some(
                value.unwrap_or_else(|| "-".to_owned()).into(),
            ))));
        }
        "HOSTNAME" => {
            let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
            return Ok(Some(Source::Fixed(Some(name.into()))));
        }
        // Nothing here sets these.
        "DYNAMIC_METADATA"
        | "FILTER_STATE"
        | "UPSTREAM_METADATA"
        | "CLUSTER_METADATA"
        | "METADATA"
        | "UPSTREAM_FILTER_STATE"
        | "ROUNDTRIP_DURATION"
        | "TLS_JA3_FINGERPRINT"
        | "TLS_JA4_FINGERPRINT"
        // Only filters that are not supported would set these.
        | "CONNECTION_TERMINATION_DETAILS"
        // Only a listener's access log could show it, and there is none.
        | "DOWNSTREAM_TRANSPORT_FAILURE_REASON"
        | "VIRTUAL_CLUSTER_NAME" => {
            return Ok(Some(Source::Fixed(None)));
        }
        _ => {}
    }
    if argument.is_some() {
        return Ok(None);
    }
    Ok(WireBytes::named(name)
        .map(Source::WireBytes)
        .or_else(|| Source::plain(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_commands_take_turns() {
        let parts = parse("a %REQ(:PATH?X-P):10% 100%% %DURATION%").unwrap();
        assert_eq!(parts.len(), 4);
        assert!(matches!(&parts[2], Part::Literal(text) if &**text == " 100% "));
        assert!(matches!(&parts[1], Part::Command(command) if command.max_len == Some(10)));
    }

    #[test]
    fn percents_within_parentheses_belong_to_the_argument() {
        assert_eq!(parse("[%START_TIME(%Y/%m/%dT%H:%M:%S%z)%]").unwrap().len(), 3);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for text in [
            "%PATH(X)%",
            "%PATH(WQ:X)%",
            "%QUERY_PARAM%",
            "%QUERY_PARAMS(X)%",
            "%QUERY_PARAMS(DECODED)%",
            "%COMMON_DURATION%",
            "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:s)%",
            "%COMMON_DURATION(DS_RX_BEG:BOGUS:ms)%",
            "%COMMON_DURATION(US_TX_BEG:US_TX_END:ms)%",
            "%BOGUS%",
            "%REQ%",
            "%REQ(a",
            "%DURATION",
            "%REQ(a):x%",
            "%DURATION(x)%",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_does_harm(text in ".{0,40}") {
            parse(&text).ok();
        }
    }
}
