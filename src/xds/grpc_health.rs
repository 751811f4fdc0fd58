//! The messages of `grpc.health.v1.Health.Check`.

use prost::Message;

/// `HealthCheckRequest`.
#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `HealthCheckResponse`.
#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `HealthCheckResponse.ServingStatus.SERVING`.
const SERVING: i32 = 1;

/// A request that asks for this service; empty: the whole server.
pub fn request(service: &str) -> Vec<u8> {
    let message = HealthCheckRequest {
        service: service.to_owned(),
    };
    message.encode_to_vec()
}

/// Whether a response says that the service serves.
pub fn is_serving(response: &[u8]) -> bool {
    HealthCheckResponse::decode(response).is_ok_and(|response| response.status == SERVING)
}
