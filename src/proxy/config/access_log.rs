//! Compiling access logs.

use std::path::PathBuf;

use super::value::{self, per_million, unpack};
use super::{At, Compiled, Refusal, matcher};
use crate::proxy::access_log::filter::{Comparison, LogFilter};
use crate::proxy::access_log::{AccessLog, DEFAULT_FORMAT, JsonFormat, LogFormat, Sink, Target};
use crate::proxy::flags::Flags;
use crate::proxy::format::Format;
use crate::proxy::trace::decision::Share;
use crate::xds::pb::access_log::{
    self, AccessLogFilter, ComparisonFilter, access_log_filter::FilterSpecifier, comparison_filter::Op, file, stream,
};
use crate::xds::pb::core::{SubstitutionFormatString, substitution_format_string};
use crate::xds::pb::wkt;

const FILE: &str = "envoy.extensions.access_loggers.file.v3.FileAccessLog";
const STDOUT: &str = "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog";
const STDERR: &str = "envoy.extensions.access_loggers.stream.v3.StderrAccessLog";

/// Compiles a field `access_log`.
pub(crate) fn access_logs(messages: &[access_log::AccessLog]) -> Compiled<Box<[AccessLog]>> {
    let logs = messages.iter().enumerate();
    logs.map(|(index, message)| log(message).at_index("access_log", index))
        .collect()
}

fn log(message: &access_log::AccessLog) -> Compiled<AccessLog> {
    let Some(access_log::access_log::ConfigType::TypedConfig(any)) = message.config_type.as_ref() else {
        return Err(Refusal::new("a configuration is required"));
    };
    let (target, format) = match any.type_url.rsplit('/').next() {
        Some(FILE) => self::file(&unpack(any)?)?,
        Some(STDOUT) => (Target::Stdout, stdout(&unpack(any)?)?),
        Some(STDERR) => (Target::Stderr, stderr(&unpack(any)?)?),
        _ => return Err(Refusal::not_implemented(format!("the access log `{}`", message.name))),
    };
    let sink = Sink::open(&target).map_err(|error| Refusal::new(format!("cannot open {target:?}: {error}")))?;
    Ok(AccessLog {
        sink,
        format,
        filter: message.filter.as_ref().map(filter).transpose().at("filter")?,
    })
}

#[expect(deprecated, reason = "Envoy still reads what came before `log_format`")]
fn file(message: &file::FileAccessLog) -> Compiled<(Target, LogFormat)> {
    use file::file_access_log::AccessLogFormat;
    let format = match message.access_log_format.as_ref() {
        None => default_format(),
        Some(AccessLogFormat::LogFormat(format)) => self::format(format).at("log_format"),
        Some(AccessLogFormat::Format(text)) if text.is_empty() => default_format(),
        Some(AccessLogFormat::Format(text)) => text_format(text, false).at("format"),
        Some(AccessLogFormat::JsonFormat(fields)) => json_format(fields, false).at("json_format"),
        Some(AccessLogFormat::TypedJsonFormat(fields)) => json_format(fields, false).at("typed_json_format"),
    };
    let target = match message.path.as_str() {
        "/dev/stdout" => Target::Stdout,
        "/dev/stderr" => Target::Stderr,
        path => Target::File(PathBuf::from(path)),
    };
    Ok((target, format?))
}

fn stdout(message: &stream::StdoutAccessLog) -> Compiled<LogFormat> {
    match message.access_log_format.as_ref() {
        Some(stream::stdout_access_log::AccessLogFormat::LogFormat(format)) => self::format(format).at("log_format"),
        None => default_format(),
    }
}

fn stderr(message: &stream::StderrAccessLog) -> Compiled<LogFormat> {
    match message.access_log_format.as_ref() {
        Some(stream::stderr_access_log::AccessLogFormat::LogFormat(format)) => self::format(format).at("log_format"),
        None => default_format(),
    }
}

fn default_format() -> Compiled<LogFormat> {
    text_format(DEFAULT_FORMAT, false)
}

fn text_format(text: &str, omit_empty: bool) -> Compiled<LogFormat> {
    Ok(LogFormat::Text(Format::parse(text)?, if omit_empty { "" } else { "-" }))
}

fn json_format(fields: &wkt::Struct, omit_empty: bool) -> Compiled<LogFormat> {
    Ok(LogFormat::Json(object(fields)?, omit_empty))
}

#[expect(deprecated, reason = "Envoy still reads what came before `text_format_source`")]
pub(super) fn format(message: &SubstitutionFormatString) -> Compiled<LogFormat> {
    match message.format.as_ref() {
        Some(substitution_format_string::Format::TextFormatSource(source)) => value::text(source)
            .and_then(|text| text_format(&text, message.omit_empty_values))
            .at("text_format_source"),
        Some(substitution_format_string::Format::JsonFormat(fields)) => {
            json_format(fields, message.omit_empty_values).at("json_format")
        }
        Some(substitution_format_string::Format::TextFormat(text)) => {
            text_format(text, message.omit_empty_values).at("text_format")
        }
        None => Err(Refusal::new("a format is required")),
    }
}

fn object(message: &wkt::Struct) -> Compiled<JsonFormat> {
    let mut fields = message
        .fields
        .iter()
        .map(|(key, value)| Ok((key.clone(), json(value).at(key)?)))
        .collect::<Compiled<Vec<_>>>()?;
    fields.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(JsonFormat::Object(fields))
}

fn json(value: &wkt::Value) -> Compiled<JsonFormat> {
    use wkt::value::Kind;
    Ok(match value.kind.as_ref() {
        Some(Kind::StringValue(text)) => JsonFormat::Text(Format::parse(text)?),
        Some(Kind::NumberValue(number)) => JsonFormat::Fixed(self::number(*number)),
        Some(Kind::BoolValue(truth)) => JsonFormat::Fixed((*truth).into()),
        Some(Kind::StructValue(fields)) => object(fields)?,
        Some(Kind::ListValue(list)) => JsonFormat::List(list.values.iter().map(json).collect::<Compiled<_>>()?),
        Some(Kind::NullValue(_)) | None => JsonFormat::Fixed(serde_json::Value::Null),
    })
}

/// A number as JSON; integers without a fraction.
fn number(number: f64) -> serde_json::Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match number.fract() == 0.0 && number.abs() < EXACT {
        true => (number as i64).into(),
        false => number.into(),
    }
}

pub(super) fn filter(message: &AccessLogFilter) -> Compiled<LogFilter> {
    let several = |filters: &[AccessLogFilter]| filters.iter().map(filter).collect::<Compiled<Vec<_>>>();
    Ok(match message.filter_specifier.as_ref() {
        Some(FilterSpecifier::StatusCodeFilter(status)) => LogFilter::Status(comparison(status.comparison.as_ref())?),
        Some(FilterSpecifier::DurationFilter(duration)) => {
            LogFilter::Duration(comparison(duration.comparison.as_ref())?)
        }
        Some(FilterSpecifier::ResponseFlagFilter(flags)) => LogFilter::Flags(
            flags
                .flags
                .iter()
                .map(|name| {
                    Flags::by_short_name(name).ok_or_else(|| Refusal::not_implemented(format!("flag `{name}`")))
                })
                .collect::<Compiled<_>>()?,
        ),
        Some(FilterSpecifier::HeaderFilter(header)) => {
            let header = header
                .header
                .as_ref()
                .ok_or_else(|| Refusal::new("a header is required"))?;
            LogFilter::Header(matcher::header(header)?)
        }
        Some(FilterSpecifier::RuntimeFilter(runtime)) => {
            let fraction = runtime.percent_sampled.as_ref();
            let share = Share::per_million(fraction.map_or(0, per_million));
            LogFilter::Share(share, runtime.use_independent_randomness)
        }
        Some(FilterSpecifier::NotHealthCheckFilter(_)) => LogFilter::NotHealthCheck,
        Some(FilterSpecifier::TraceableFilter(_)) => LogFilter::Traceable,
        Some(FilterSpecifier::AndFilter(and)) => LogFilter::All(several(&and.filters)?),
        Some(FilterSpecifier::OrFilter(or)) => LogFilter::Any(several(&or.filters)?),
        Some(FilterSpecifier::GrpcStatusFilter(grpc)) => LogFilter::GrpcStatus(
            grpc.statuses
                .iter()
                .filter_map(|status| u64::try_from(*status).ok())
                .collect(),
            grpc.exclude,
        ),
        Some(_) => return Err(Refusal::not_implemented("this filter")),
        None => return Err(Refusal::new("a filter is required")),
    })
}

fn comparison(message: Option<&ComparisonFilter>) -> Compiled<Comparison> {
    let message = message.ok_or_else(|| Refusal::new("a comparison is required"))?;
    let value = u64::from(message.value.as_ref().map_or(0, |value| value.default_value));
    Ok(match message.op() {
        Op::Eq => Comparison::Equal(value),
        Op::Ge => Comparison::AtLeast(value),
        Op::Le => Comparison::AtMost(value),
        Op::Ne => Comparison::NotEqual(value),
    })
}
