//! Constraints on a field (`validate.rules`), compiled from the field option once and evaluated
//! many times.

use std::fmt;
use std::sync::Arc;

use regex::Regex;

use crate::xds::pb::validate::field_rules::Type;
use crate::xds::pb::validate::string_rules::WellKnown;
use crate::xds::pb::validate::{
    AnyRules, BoolRules, BytesRules, DurationRules, EnumRules, FieldRules, KnownRegex, MapRules, MessageRules,
    RepeatedRules, StringRules,
};
use crate::xds::pb::wkt::Duration;

/// Bounds of a numeric constraint. The constraint types of all numbers have the same shape but no
/// common trait.
macro_rules! bounds {
    ($rules:expr, $check:path) => {{
        let mut rules = $rules;
        let limits = [
            (Bound::Above, rules.gt.take()),
            (Bound::AtLeast, rules.gte.take()),
            (Bound::Below, rules.lt.take()),
            (Bound::AtMost, rules.lte.take()),
        ];
        let ignore_empty = rules.ignore_empty.take().unwrap_or(false);
        none_left(rules == Default::default())?;
        let list = limits
            .into_iter()
            .filter_map(|(bound, limit)| Some($check(bound, limit?.into())));
        Ok(Checks {
            list: list.collect(),
            ignore_empty,
        })
    }};
}

/// An unknown kind of constraint.
#[derive(Debug)]
pub(in crate::xds) struct Unknown;

/// The constraints on a field.
#[derive(Debug, Default)]
pub(in crate::xds) struct Constraint {
    /// A message must be set.
    pub(in crate::xds) required: bool,
    /// The content of a message is not checked.
    pub(in crate::xds) skip: bool,
    /// Minimum number of elements or entries.
    pub(in crate::xds) min_count: u64,
    /// Maximum number of elements.
    pub(in crate::xds) max_count: Option<u64>,
    /// Elements must be unique.
    pub(in crate::xds) unique: bool,
    /// Constraints on each value: of an element of a repeated field, or a value of a map.
    pub(in crate::xds) value: Checks,
    /// Constraints on each key of a map.
    pub(in crate::xds) key: Checks,
}

/// Constraints on a value.
#[derive(Debug, Default)]
pub(in crate::xds) struct Checks {
    list: Vec<Check>,
    ignore_empty: bool,
}

/// A value to be checked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::xds) enum Value<'a> {
    Int(i128),
    Float(f64),
    Bool(bool),
    Text(&'a str),
    Bytes(&'a [u8]),
}

#[derive(Debug)]
enum Check {
    Int(Bound, i128),
    Float(Bound, f64),
    Nanoseconds(Bound, i128),
    Truth(bool),
    Defined(Arc<[i32]>),
    NoneOf(Vec<i32>),
    MinChars(usize),
    MaxChars(usize),
    MinBytes(usize),
    MaxBytes(usize),
    Pattern(Regex),
    Prefix(String),
    Suffix(String),
    In(Vec<String>),
    HeaderName,
    HeaderValue,
    HeaderText,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    Above,
    AtLeast,
    Below,
    AtMost,
}

impl Constraint {
    /// Compiles a field option; `defined` are the numbers of the field's enum.
    ///
    /// # Errors
    ///
    /// On an unknown kind of constraint.
    pub(in crate::xds) fn compile(rules: FieldRules, defined: &Arc<[i32]>) -> Result<Self, Unknown> {
        let MessageRules { skip, required } = rules.message.unwrap_or_default();
        let mut constraint = Self {
            required: required.unwrap_or(false),
            skip: skip.unwrap_or(false),
            ..Self::default()
        };
        match rules.r#type {
            None => {}
            Some(Type::Repeated(rules)) => constraint.repeated(*rules, defined)?,
            Some(Type::Map(rules)) => constraint.map(*rules, defined)?,
            Some(Type::Any(AnyRules { required, r#in, not_in })) => {
                none_left(r#in.is_empty() && not_in.is_empty())?;
                constraint.required |= required.unwrap_or(false);
            }
            Some(Type::Duration(rules)) => {
                constraint.required |= rules.required.unwrap_or(false);
                constraint.value = duration(rules)?;
            }
            Some(scalar) => constraint.value = Checks::compile(scalar, defined)?,
        }
        Ok(constraint)
    }

    fn repeated(&mut self, rules: RepeatedRules, defined: &Arc<[i32]>) -> Result<(), Unknown> {
        none_left(rules.ignore_empty.is_none())?;
        self.min_count = rules.min_items.unwrap_or(0);
        self.max_count = rules.max_items;
        self.unique = rules.unique.unwrap_or(false);
        self.value = elements(rules.items, defined)?;
        Ok(())
    }

    fn map(&mut self, rules: MapRules, defined: &Arc<[i32]>) -> Result<(), Unknown> {
        none_left(rules.ignore_empty.is_none() && rules.no_sparse.is_none())?;
        self.min_count = rules.min_pairs.unwrap_or(0);
        self.max_count = rules.max_pairs;
        self.key = elements(rules.keys, defined)?;
        self.value = elements(rules.values, defined)?;
        Ok(())
    }
}

impl Checks {
    /// Whether there are no constraints.
    pub(in crate::xds) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Describes the first violation.
    pub(in crate::xds) fn broken(&self, value: Value<'_>) -> Option<String> {
        if self.ignore_empty && value.is_zero() {
            return None;
        }
        let broken = self.list.iter().find(|check| !check.holds(value))?;
        Some(broken.to_string())
    }

    fn compile(rules: Type, defined: &Arc<[i32]>) -> Result<Self, Unknown> {
        match rules {
            Type::Float(rules) => bounds!(rules, Check::Float),
            Type::Double(rules) => bounds!(rules, Check::Float),
            Type::Int32(rules) => bounds!(rules, Check::Int),
            Type::Int64(rules) => bounds!(rules, Check::Int),
            Type::Uint32(rules) => bounds!(rules, Check::Int),
            Type::Uint64(rules) => bounds!(rules, Check::Int),
            Type::Bool(BoolRules { r#const }) => Ok(Self::of(r#const.map(Check::Truth))),
            Type::String(rules) => text(rules),
            Type::Bytes(rules) => bytes(rules),
            Type::Enum(rules) => enums(rules, defined),
            Type::Sint32(_)
            | Type::Sint64(_)
            | Type::Fixed32(_)
            | Type::Fixed64(_)
            | Type::Sfixed32(_)
            | Type::Sfixed64(_)
            | Type::Repeated(_)
            | Type::Map(_)
            | Type::Any(_)
            | Type::Duration(_)
            | Type::Timestamp(_) => Err(Unknown),
        }
    }

    fn of(checks: impl IntoIterator<Item = Check>) -> Self {
        Self {
            list: checks.into_iter().collect(),
            ignore_empty: false,
        }
    }
}

impl<'a> Value<'a> {
    fn is_zero(self) -> bool {
        match self {
            Value::Int(value) => value == 0,
            Value::Float(value) => value == 0.0,
            Value::Bool(value) => !value,
            Value::Text(value) => value.is_empty(),
            Value::Bytes(value) => value.is_empty(),
        }
    }

    fn int(self) -> Option<i128> {
        match self {
            Value::Int(value) => Some(value),
            Value::Float(_) | Value::Bool(_) | Value::Text(_) | Value::Bytes(_) => None,
        }
    }

    fn float(self) -> Option<f64> {
        match self {
            Value::Float(value) => Some(value),
            Value::Int(_) | Value::Bool(_) | Value::Text(_) | Value::Bytes(_) => None,
        }
    }

    fn truth(self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(value),
            Value::Int(_) | Value::Float(_) | Value::Text(_) | Value::Bytes(_) => None,
        }
    }

    fn text(self) -> Option<&'a str> {
        match self {
            Value::Text(value) => Some(value),
            Value::Int(_) | Value::Float(_) | Value::Bool(_) | Value::Bytes(_) => None,
        }
    }

    fn byte_count(self) -> Option<usize> {
        match self {
            Value::Text(value) => Some(value.len()),
            Value::Bytes(value) => Some(value.len()),
            Value::Int(_) | Value::Float(_) | Value::Bool(_) => None,
        }
    }
}

impl Check {
    /// Whether the value satisfies the constraint; true for constraints on other types.
    fn holds(&self, value: Value<'_>) -> bool {
        let int = |holds: &dyn Fn(i128) -> bool| value.int().is_none_or(holds);
        let text = |holds: &dyn Fn(&str) -> bool| value.text().is_none_or(holds);
        match self {
            Check::Int(bound, limit) | Check::Nanoseconds(bound, limit) => int(&|value| bound.holds(&value, limit)),
            Check::Float(bound, limit) => value.float().is_none_or(|value| bound.holds(&value, limit)),
            Check::Truth(wanted) => value.truth().is_none_or(|value| value == *wanted),
            Check::Defined(numbers) => int(&|value| numbers.iter().any(|number| i128::from(*number) == value)),
            Check::NoneOf(numbers) => int(&|value| numbers.iter().all(|number| i128::from(*number) != value)),
            Check::MinChars(least) => text(&|text| text.chars().count() >= *least),
            Check::MaxChars(most) => text(&|text| text.chars().count() <= *most),
            Check::MinBytes(least) => value.byte_count().is_none_or(|count| count >= *least),
            Check::MaxBytes(most) => value.byte_count().is_none_or(|count| count <= *most),
            Check::Pattern(pattern) => text(&|text| pattern.is_match(text)),
            Check::Prefix(prefix) => text(&|text| text.starts_with(prefix)),
            Check::Suffix(suffix) => text(&|text| text.ends_with(suffix)),
            Check::In(allowed) => text(&|text| allowed.iter().any(|one| one == text)),
            Check::HeaderName => text(&is_header_name),
            Check::HeaderValue => text(&|text| text.bytes().all(|b| b == b'\t' || (b >= 0x20 && b != 0x7f))),
            Check::HeaderText => text(&|text| !text.contains(['\0', '\n', '\r'])),
        }
    }
}

impl Bound {
    fn holds<T: PartialOrd>(self, value: &T, limit: &T) -> bool {
        match self {
            Bound::Above => value > limit,
            Bound::AtLeast => value >= limit,
            Bound::Below => value < limit,
            Bound::AtMost => value <= limit,
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Check::Int(bound, limit) => write!(f, "must be {bound} {limit}"),
            Check::Float(bound, limit) => write!(f, "must be {bound} {limit}"),
            #[expect(clippy::cast_precision_loss, reason = "only shown")]
            Check::Nanoseconds(bound, limit) => write!(f, "must be {bound} {}s", *limit as f64 / 1e9),
            Check::Truth(wanted) => write!(f, "must be {wanted}"),
            Check::Defined(_) => f.write_str("must be a defined value"),
            Check::NoneOf(_) => f.write_str("has a value that is not allowed"),
            Check::MinChars(least) => write!(f, "must have at least {least} character(s)"),
            Check::MaxChars(most) => write!(f, "must have at most {most} characters"),
            Check::MinBytes(least) => write!(f, "must have at least {least} byte(s)"),
            Check::MaxBytes(most) => write!(f, "must have at most {most} bytes"),
            Check::Pattern(pattern) => write!(f, "must match `{pattern}`"),
            Check::Prefix(prefix) => write!(f, "must start with `{prefix}`"),
            Check::Suffix(suffix) => write!(f, "must end with `{suffix}`"),
            Check::In(allowed) => write!(f, "must be one of `{}`", allowed.join("`, `")),
            Check::HeaderName => f.write_str("must be a header name"),
            Check::HeaderValue | Check::HeaderText => f.write_str("must be a header value, without control characters"),
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Bound::Above => "above",
            Bound::AtLeast => "at least",
            Bound::Below => "below",
            Bound::AtMost => "at most",
        })
    }
}

fn is_header_name(text: &str) -> bool {
    let name = text.strip_prefix(':').unwrap_or(text);
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+,-.^_|~`".contains(&b);
    !name.is_empty() && name.bytes().all(allowed)
}

fn elements(rules: Option<Box<FieldRules>>, defined: &Arc<[i32]>) -> Result<Checks, Unknown> {
    let Some(rules) = rules.and_then(|rules| rules.r#type) else {
        return Ok(Checks::default());
    };
    Checks::compile(rules, defined)
}

fn text(mut rules: StringRules) -> Result<Checks, Unknown> {
    let strict = rules.strict.take().unwrap_or(true);
    let known = match rules.well_known.take() {
        None => None,
        Some(WellKnown::WellKnownRegex(regex)) => match KnownRegex::try_from(regex) {
            Ok(KnownRegex::HttpHeaderName) if strict => Some(Check::HeaderName),
            Ok(KnownRegex::HttpHeaderValue) if strict => Some(Check::HeaderValue),
            Ok(KnownRegex::HttpHeaderName | KnownRegex::HttpHeaderValue) => Some(Check::HeaderText),
            Ok(KnownRegex::Unknown) | Err(_) => return Err(Unknown),
        },
        Some(_) => return Err(Unknown),
    };
    let pattern = rules.pattern.take().map(|pattern| Regex::new(&pattern)).transpose();
    let allowed = std::mem::take(&mut rules.r#in);
    let list = [
        rules.min_len.take().map(|least| Check::MinChars(size(least))),
        rules.max_len.take().map(|most| Check::MaxChars(size(most))),
        rules.min_bytes.take().map(|least| Check::MinBytes(size(least))),
        rules.max_bytes.take().map(|most| Check::MaxBytes(size(most))),
        pattern.map_err(|_| Unknown)?.map(Check::Pattern),
        rules.prefix.take().map(Check::Prefix),
        rules.suffix.take().map(Check::Suffix),
        (!allowed.is_empty()).then_some(Check::In(allowed)),
        known,
    ];
    let ignore_empty = rules.ignore_empty.take().unwrap_or(false);
    none_left(rules == StringRules::default())?;
    Ok(Checks {
        list: list.into_iter().flatten().collect(),
        ignore_empty,
    })
}

fn bytes(mut rules: BytesRules) -> Result<Checks, Unknown> {
    let least = rules.min_len.take().map(|least| Check::MinBytes(size(least)));
    let most = rules.max_len.take().map(|most| Check::MaxBytes(size(most)));
    none_left(rules == BytesRules::default())?;
    Ok(Checks::of(least.into_iter().chain(most)))
}

fn enums(mut rules: EnumRules, defined: &Arc<[i32]>) -> Result<Checks, Unknown> {
    let defined_only = rules.defined_only.take().unwrap_or(false);
    let excluded = std::mem::take(&mut rules.not_in);
    none_left(rules == EnumRules::default())?;
    let defined = defined_only.then(|| Check::Defined(Arc::clone(defined)));
    let excluded = (!excluded.is_empty()).then_some(Check::NoneOf(excluded));
    Ok(Checks::of(defined.into_iter().chain(excluded)))
}

fn duration(mut rules: DurationRules) -> Result<Checks, Unknown> {
    rules.required = None;
    let limits = [
        (Bound::Above, rules.gt.take()),
        (Bound::AtLeast, rules.gte.take()),
        (Bound::Below, rules.lt.take()),
        (Bound::AtMost, rules.lte.take()),
    ];
    none_left(rules == DurationRules::default())?;
    let nanoseconds = |limit: Duration| i128::from(limit.seconds) * 1_000_000_000 + i128::from(limit.nanos);
    let check = |(bound, limit): (Bound, Option<Duration>)| Some(Check::Nanoseconds(bound, nanoseconds(limit?)));
    Ok(Checks::of(limits.into_iter().filter_map(check)))
}

fn size(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

fn none_left(empty: bool) -> Result<(), Unknown> {
    if empty { Ok(()) } else { Err(Unknown) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xds::pb::validate::{DoubleRules, UInt32Rules};

    fn value(rules: Type) -> Checks {
        let rules = FieldRules {
            r#type: Some(rules),
            ..Default::default()
        };
        Constraint::compile(rules, &Arc::from([0, 1, 3])).unwrap().value
    }

    #[test]
    fn numbers_have_bounds() {
        let rules = UInt32Rules {
            gte: Some(1),
            lt: Some(10),
            ..Default::default()
        };
        let checks = value(Type::Uint32(rules));
        assert_eq!(checks.broken(Value::Int(1)), None);
        assert_eq!(checks.broken(Value::Int(0)).unwrap(), "must be at least 1");
        assert_eq!(checks.broken(Value::Int(10)).unwrap(), "must be below 10");
    }

    #[test]
    fn ignore_empty_skips_empty_values() {
        let rules = DoubleRules {
            gt: Some(0.5),
            ignore_empty: Some(true),
            ..Default::default()
        };
        let checks = value(Type::Double(rules));
        assert_eq!(checks.broken(Value::Float(0.0)), None);
        assert_eq!(checks.broken(Value::Float(0.25)).unwrap(), "must be above 0.5");
    }

    #[test]
    fn header_names_and_values_are_what_http_allows() {
        let known = |regex: KnownRegex, strict| {
            value(Type::String(StringRules {
                well_known: Some(WellKnown::WellKnownRegex(regex.into())),
                strict,
                ..Default::default()
            }))
        };
        let name = known(KnownRegex::HttpHeaderName, None);
        assert_eq!(name.broken(Value::Text(":path")), None);
        assert!(name.broken(Value::Text("a b")).is_some());
        assert!(name.broken(Value::Text("")).is_some());
        let text = known(KnownRegex::HttpHeaderValue, None);
        assert_eq!(text.broken(Value::Text("a\tb é")), None);
        assert!(text.broken(Value::Text("a\x01")).is_some());
        let loose = known(KnownRegex::HttpHeaderValue, Some(false));
        assert_eq!(loose.broken(Value::Text("a\x01")), None);
        assert!(loose.broken(Value::Text("a\n")).is_some());
    }

    #[test]
    fn enums_have_defined_values() {
        let checks = value(Type::Enum(EnumRules {
            defined_only: Some(true),
            not_in: vec![0],
            ..Default::default()
        }));
        assert_eq!(checks.broken(Value::Int(3)), None);
        assert!(checks.broken(Value::Int(2)).is_some());
        assert!(checks.broken(Value::Int(0)).is_some());
    }
}
