//! gRPC statuses in format strings.

use std::borrow::Cow;

use super::Value;

/// Formats of a gRPC status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GrpcForm {
    /// `NotFound`.
    Camel,
    /// `NOT_FOUND`.
    Snake,
    /// `5`.
    Number,
}

impl GrpcForm {
    /// The status in this format.
    pub(super) fn of(self, status: i64) -> Value<'static> {
        match self {
            GrpcForm::Number => match u64::try_from(status) {
                Ok(status) => Value::Number(status),
                Err(_) => Value::Text(status.to_string().into()),
            },
            GrpcForm::Camel => Value::Text(grpc_name(status)),
            GrpcForm::Snake => {
                let mut snake = String::new();
                for (at, letter) in grpc_name(status).char_indices() {
                    if at > 0 && letter.is_ascii_uppercase() {
                        snake.push('_');
                    }
                    snake.push(letter.to_ascii_uppercase());
                }
                // The only name that is not CamelCase.
                Value::Text(if status == 0 { "OK".into() } else { snake.into() })
            }
        }
    }
}

fn grpc_name(status: i64) -> Cow<'static, str> {
    const NAMES: [&str; 17] = [
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];
    let name = usize::try_from(status).ok().and_then(|status| NAMES.get(status));
    name.map_or_else(|| status.to_string().into(), |name| (*name).into())
}
