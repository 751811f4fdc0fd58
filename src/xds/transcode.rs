//! Transcodes proto3 JSON to the wire format using the light-weight schema.
//!
//! [`json`](super::json) converts both ways by means of `prost-reflect`, whose descriptor pool
//! takes 16 MB, too much for a proxy that only reads its bootstrap.

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use serde_json::{Map, Value};

use super::pb::wkt;
use super::schema::{Field, Kind, MessageType, Scalar};

/// A mismatch between JSON and message type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{why}", if path.is_empty() { String::new() } else { format!("`{path}`: ") })]
pub struct Fault {
    /// Path of the field: `static_resources.clusters[0].name`.
    pub path: String,
    /// What is wrong.
    pub why: String,
}

impl Fault {
    fn new(why: impl Into<String>) -> Self {
        Self {
            path: String::new(),
            why: why.into(),
        }
    }

    fn within(mut self, step: &str) -> Self {
        let dot = if self.path.is_empty() || self.path.starts_with('[') {
            ""
        } else {
            "."
        };
        self.path = format!("{step}{dot}{}", self.path);
        self
    }
}

/// Transcodes the JSON form of a message. Accepts original and lowerCamelCase field names.
///
/// # Errors
///
/// The first mismatch.
pub fn to_wire(full_name: &str, json: &Value) -> Result<Vec<u8>, Fault> {
    let message = MessageType::find(full_name).ok_or_else(|| Fault::new(format!("unknown type `{full_name}`")))?;
    self::message(message, json)
}

fn message(message: &'static MessageType, json: &Value) -> Result<Vec<u8>, Fault> {
    match &*message.name {
        "google.protobuf.Struct" => return Ok(structure(object(json)?).encode_to_vec()),
        "google.protobuf.Value" => return Ok(value(json).encode_to_vec()),
        "google.protobuf.ListValue" => return Ok(list(array(json)?).encode_to_vec()),
        _ => {}
    }
    let mut out = Vec::new();
    for (key, json) in object(json)? {
        if key == "@type" {
            continue;
        }
        let field = find(message, key).ok_or_else(|| Fault::new("unknown field").within(key))?;
        if !json.is_null() {
            put_field(&mut out, field, json).map_err(|fault| fault.within(&field.name))?;
        }
    }
    Ok(out)
}

fn find(message: &'static MessageType, key: &str) -> Option<&'static Field> {
    let mut fields = message.layout().fields.iter();
    fields.find(|field| field.name == key || is_camel(&field.name, key))
}

/// Whether `key` is the lowerCamelCase form of `name`.
fn is_camel(name: &str, key: &str) -> bool {
    let mut capital = false;
    let mut expected = name.chars().filter_map(|letter| {
        if letter == '_' {
            capital = true;
            return None;
        }
        Some(if std::mem::take(&mut capital) {
            letter.to_ascii_uppercase()
        } else {
            letter
        })
    });
    key.chars().all(|letter| expected.next() == Some(letter)) && expected.next().is_none()
}

fn put_field(out: &mut Vec<u8>, field: &Field, json: &Value) -> Result<(), Fault> {
    if let Kind::MapEntry(entry) = field.kind {
        for (key, json) in object(json)? {
            let pair = pair(entry, key, json).map_err(|fault| fault.within(&format!("[{key}]")))?;
            put_bytes(out, field.number, &pair);
        }
        return Ok(());
    }
    if !field.repeated {
        return put(out, field, json, field.optional);
    }
    for (index, json) in array(json)?.iter().enumerate() {
        put(out, field, json, true).map_err(|fault| fault.within(&format!("[{index}]")))?;
    }
    Ok(())
}

fn pair(entry: &'static MessageType, key: &str, json: &Value) -> Result<Vec<u8>, Fault> {
    let mut out = Vec::new();
    for field in &entry.layout().fields {
        match field.number {
            1 => put(&mut out, field, &Value::from(key), true)?,
            _ => put(&mut out, field, json, true)?,
        }
    }
    Ok(out)
}

/// Writes one value. A scalar with the default value is omitted unless `present` requires it.
fn put(out: &mut Vec<u8>, field: &Field, json: &Value, present: bool) -> Result<(), Fault> {
    let number = field.number;
    match field.kind {
        Kind::Scalar(scalar) => put_scalar(out, field, scalar, number, json, present)?,
        Kind::Wrapper(scalar) => {
            let mut inner = Vec::new();
            put_scalar(&mut inner, field, scalar, 1, json, false)?;
            put_bytes(out, number, &inner);
        }
        Kind::Duration => put_bytes(out, number, &duration(json)?.encode_to_vec()),
        Kind::Any => put_bytes(out, number, &any(json)?.encode_to_vec()),
        Kind::Message(message) => put_bytes(out, number, &self::message(message, json)?),
        Kind::MapEntry(_) => return Err(Fault::new("a map is not allowed here")),
    }
    Ok(())
}

fn put_scalar(
    out: &mut Vec<u8>,
    field: &Field,
    scalar: Scalar,
    number: u32,
    json: &Value,
    present: bool,
) -> Result<(), Fault> {
    let varint = |out: &mut Vec<u8>, value: u64| {
        if value != 0 || present {
            encode_key(number, WireType::Varint, out);
            encode_varint(value, out);
        }
    };
    match scalar {
        Scalar::Int => varint(out, enumerated(field, json)?.cast_unsigned()),
        Scalar::Uint => varint(out, unsigned(json)?),
        Scalar::Zigzag => {
            let value = signed(json)?;
            varint(out, (value << 1 ^ value >> 63).cast_unsigned());
        }
        Scalar::Bool => varint(out, json.as_bool().ok_or_else(|| unfit("true or false", json))?.into()),
        Scalar::Fixed64 | Scalar::Double => {
            let bits = if scalar == Scalar::Double {
                float(json)?.to_bits()
            } else {
                unsigned(json)?
            };
            if bits != 0 || present {
                encode_key(number, WireType::SixtyFourBit, out);
                out.extend(bits.to_le_bytes());
            }
        }
        Scalar::Fixed32 | Scalar::Float => {
            #[expect(clippy::cast_possible_truncation, reason = "a float has no more than that")]
            let bits = match scalar {
                Scalar::Float => (float(json)? as f32).to_bits(),
                _ => u32::try_from(unsigned(json)?).map_err(|_| unfit("a 32-bit number", json))?,
            };
            if bits != 0 || present {
                encode_key(number, WireType::ThirtyTwoBit, out);
                out.extend(bits.to_le_bytes());
            }
        }
        Scalar::String => {
            let text = json.as_str().ok_or_else(|| unfit("a string", json))?;
            if !text.is_empty() || present {
                put_bytes(out, number, text.as_bytes());
            }
        }
        Scalar::Bytes => {
            let text = json.as_str().ok_or_else(|| unfit("base64-encoded bytes", json))?;
            let bytes = BASE64_STANDARD.decode(text).or_else(|_| BASE64_URL_SAFE.decode(text));
            let bytes = bytes.map_err(|_| unfit("base64-encoded bytes", json))?;
            if !bytes.is_empty() || present {
                put_bytes(out, number, &bytes);
            }
        }
    }
    Ok(())
}

fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend(bytes);
}

fn any(json: &Value) -> Result<wkt::Any, Fault> {
    let object = object(json)?;
    let Some(type_url) = object.get("@type").and_then(Value::as_str) else {
        return Err(Fault::new("`@type` is required"));
    };
    if let Some(wrapped) = typed_struct(type_url, object) {
        return wrapped;
    }
    let of = MessageType::of_url(type_url);
    let of = of.ok_or_else(|| Fault::new(format!("unknown type `{type_url}`")).within("@type"))?;
    let value = match (of.name.strip_prefix("google.protobuf."), object.get("value")) {
        // Well-known types with a special JSON form are in `value`.
        (Some("Empty"), _) | (None, _) => message(of, json)?,
        (Some("Duration"), Some(json)) => duration(json)?.encode_to_vec(),
        (Some("Any"), Some(json)) => any(json)?.encode_to_vec(),
        (Some("Struct" | "Value" | "ListValue"), Some(json)) => message(of, json)?,
        (Some(_), Some(json)) => {
            let wrapped = of.layout().field(1).map(|(_, field)| field);
            let field = wrapped.ok_or_else(|| Fault::new(format!("`{type_url}` is not allowed here")))?;
            let mut out = Vec::new();
            put(&mut out, field, json, false)?;
            out
        }
        (Some(_), None) => return Err(Fault::new("`value` is required")),
    };
    Ok(wkt::Any {
        type_url: type_url.to_owned(),
        value,
    })
}

/// The message in a `TypedStruct`, which Envoy treats like the message itself. `None` if it is
/// another type or contains an unknown one.
fn typed_struct(type_url: &str, object: &Map<String, Value>) -> Option<Result<wkt::Any, Fault>> {
    let (_, name) = type_url.rsplit_once('/')?;
    if !matches!(name, "udpa.type.v1.TypedStruct" | "xds.type.v3.TypedStruct") {
        return None;
    }
    let type_url = object.get("type_url").or_else(|| object.get("typeUrl"))?.as_str()?;
    let of = MessageType::of_url(type_url)?;
    let value = object
        .get("value")
        .map_or_else(|| Ok(Vec::new()), |fields| message(of, fields));
    let any = value.map(|value| wkt::Any {
        type_url: type_url.to_owned(),
        value,
    });
    Some(any.map_err(|fault| fault.within("value")))
}

/// Seconds with up to nine decimals, followed by `s`.
fn duration(json: &Value) -> Result<wkt::Duration, Fault> {
    let wrong = || unfit("a duration such as `1.5s`", json);
    let text = json
        .as_str()
        .and_then(|text| text.strip_suffix('s'))
        .ok_or_else(wrong)?;
    let (negative, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(decimals) || decimals.len() > 9 {
        return Err(wrong());
    }
    let seconds: i64 = whole.parse().map_err(|_| wrong())?;
    let nanos: i32 = format!("{decimals:0<9}").parse().map_err(|_| wrong())?;
    let sign = if negative { -1 } else { 1 };
    Ok(wkt::Duration {
        seconds: seconds * i64::from(sign),
        nanos: nanos * sign,
    })
}

fn structure(object: &Map<String, Value>) -> wkt::Struct {
    wkt::Struct {
        fields: object.iter().map(|(key, json)| (key.clone(), value(json))).collect(),
    }
}

fn list(array: &[Value]) -> wkt::ListValue {
    wkt::ListValue {
        values: array.iter().map(value).collect(),
    }
}

fn value(json: &Value) -> wkt::Value {
    use wkt::value::Kind;
    let kind = match json {
        Value::Null => Kind::NullValue(0),
        Value::Bool(truth) => Kind::BoolValue(*truth),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(array) => Kind::ListValue(list(array)),
        Value::Object(object) => Kind::StructValue(structure(object)),
    };
    wkt::Value { kind: Some(kind) }
}

fn object(json: &Value) -> Result<&Map<String, Value>, Fault> {
    json.as_object().ok_or_else(|| unfit("an object", json))
}

fn array(json: &Value) -> Result<&[Value], Fault> {
    json.as_array().map(Vec::as_slice).ok_or_else(|| unfit("a list", json))
}

/// An enum value, by number or name.
fn enumerated(field: &Field, json: &Value) -> Result<i64, Fault> {
    match (field.values, json.as_str()) {
        (Some(values), Some(name)) => {
            let number = values.number(name).map(i64::from);
            number.ok_or_else(|| Fault::new(format!("unknown value `{name}`")))
        }
        _ => signed(json),
    }
}

/// 64-bit numbers may be strings.
fn signed(json: &Value) -> Result<i64, Fault> {
    let text = || json.as_str().and_then(|text| text.parse().ok());
    json.as_i64()
        .or_else(|| whole(json))
        .or_else(text)
        .ok_or_else(|| unfit("an integer", json))
}

fn unsigned(json: &Value) -> Result<u64, Fault> {
    let text = || json.as_str().and_then(|text| text.parse().ok());
    let found = json.as_u64().or_else(|| u64::try_from(whole(json)?).ok()).or_else(text);
    found.ok_or_else(|| unfit("an unsigned integer", json))
}

/// An integer written with a decimal point.
#[expect(clippy::cast_possible_truncation, reason = "it is whole and small")]
fn whole(json: &Value) -> Option<i64> {
    let number = json.as_f64()?;
    (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i64)
}

fn float(json: &Value) -> Result<f64, Fault> {
    let text = || match json.as_str()? {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        text => text.parse().ok(),
    };
    json.as_f64().or_else(text).ok_or_else(|| unfit("a number", json))
}

fn unfit(wanted: &str, json: &Value) -> Fault {
    let found = match json {
        Value::Null => "nothing".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => format!("`{json}`"),
    };
    Fault::new(format!("expected {wanted}, found {found}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::xds::json::from_json;
    use crate::xds::pb::bootstrap::Bootstrap;

    const BOOTSTRAP: &str = "envoy.config.bootstrap.v3.Bootstrap";

    fn same(json: Value) {
        let light = Bootstrap::decode(&to_wire(BOOTSTRAP, &json).unwrap()[..]).unwrap();
        let heavy: Bootstrap = from_json(BOOTSTRAP, json).unwrap();
        assert_eq!(light, heavy);
    }

    #[test]
    fn agrees_with_prost_reflect() {
        same(json!({
            "node": {"id": "a", "metadata": {"a": [1, "x", null, {"b": true}]}, "locality": {"subZone": "z"}},
            "admin": {"address": {"socket_address": {"address": "::1", "port_value": 1, "protocol": "TCP"}}},
            "static_resources": {"clusters": [{
                "name": "y",
                "type": "STRICT_DNS",
                "connectTimeout": "1.25s",
                "per_connection_buffer_limit_bytes": 0,
                "common_lb_config": {"healthy_panic_threshold": {"value": 33.5}},
                "typed_extension_protocol_options": {"x": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http2_protocol_options": {"max_concurrent_streams": "7"}},
                }},
            }, {
                "name": "z",
                "typed_extension_protocol_options": {
                    "d": {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "-3.000000001s"},
                    "s": {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": "x"},
                    "t": {"@type": "type.googleapis.com/google.protobuf.Struct", "value": {"a": 1}},
                },
                "transport_socket": {"name": "t", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                    "common_tls_context": {"validation_context": {"trusted_ca": {"inline_bytes": "aGk="}}},
                }},
            }]},
        }));
    }

    #[test]
    fn errors_name_the_field() {
        let fault = |json| to_wire(BOOTSTRAP, &json).unwrap_err().to_string();
        let clusters = |cluster: Value| json!({"static_resources": {"clusters": [cluster]}});
        assert_eq!(
            fault(clusters(json!({"connect_timeout": "1m"}))),
            "`static_resources.clusters[0].connect_timeout`: expected a duration such as `1.5s`, found `\"1m\"`"
        );
        assert_eq!(
            fault(clusters(json!({"nam": 1}))),
            "`static_resources.clusters[0].nam`: unknown field"
        );
        assert_eq!(
            fault(clusters(json!({"type": "X"}))),
            "`static_resources.clusters[0].type`: unknown value `X`"
        );
        assert_eq!(fault(json!([])), "expected an object, found a list");
    }

    proptest::proptest! {
        #[test]
        fn durations_are_read_as_they_are_written(seconds in 0_i64..1_000_000, nanos in 0_i32..1_000_000_000) {
            let json = json!(format!("{seconds}.{nanos:09}s"));
            proptest::prop_assert_eq!(duration(&json).unwrap(), wkt::Duration { seconds, nanos });
        }
    }
}
