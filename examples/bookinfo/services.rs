//! The services of Bookinfo, Istio's sample application: a page about a book, composed of its details and its
//! reviews, which may include ratings.
//!
//! ```text
//! productpage ──→ details
//!             ──→ reviews v1
//!                 reviews v2, v3 ──→ ratings
//! ```
//!
//! Paths and JSON are those of Istio's sample, so that its routing rules apply unchanged. Each response lists
//! the services involved in [`SERVED_BY`].

#[path = "services/call.rs"]
mod call;
#[path = "services/details.rs"]
mod details;
#[path = "services/productpage.rs"]
mod productpage;
#[path = "services/ratings.rs"]
mod ratings;
#[path = "services/reviews.rs"]
mod reviews;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::get;
use axum::serve::IncomingStream;
use axum::{Json, Router};
use http::{HeaderName, HeaderValue};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Response header that lists the services involved, the responding one first, each as
/// `<service>/<version>@<address>`. The address is the one the request was sent to, so that replicas can be
/// told apart. A called service that failed is listed as `<service>/failed@<address called>`.
pub const SERVED_BY: HeaderName = HeaderName::from_static("x-served-by");

/// A service of the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Service {
    /// The page.
    Productpage,
    /// Author, publisher and so on.
    Details,
    /// What readers say.
    Reviews,
    /// The stars that go with a review.
    Ratings,
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Service::Productpage => "productpage",
            Service::Details => "details",
            Service::Reviews => "reviews",
            Service::Ratings => "ratings",
        })
    }
}

/// How a service reaches another one: the outbound listener of its own sidecar or, with interception, the
/// service's host name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The service called; its name is sent as `Host` header.
    pub service: Service,
    /// Address or host name, and port.
    pub address: String,
}

impl FromStr for Call {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (service, address) = text.split_once('=').ok_or("SERVICE=HOST:PORT is needed")?;
        let (_, port) = address.rsplit_once(':').ok_or("HOST:PORT is needed after `=`")?;
        port.parse::<u16>().map_err(|error| format!("port `{port}`: {error}"))?;
        Ok(Self {
            service: clap::ValueEnum::from_str(service, false)?,
            address: address.to_owned(),
        })
    }
}

/// Which service to run, and its address.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// The service.
    #[arg(value_enum)]
    pub service: Service,
    /// The version it says it is; `reviews` shows no stars as v1, black ones as v2, red ones as v3.
    #[arg(long, default_value = "v1")]
    pub version: String,
    /// The address to listen on.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,
    /// Where another service is reached; once for each that is called.
    #[arg(long = "call", value_name = "SERVICE=HOST:PORT")]
    pub calls: Vec<Call>,
}

/// Runs a service until `shutdown`, then finishes the requests in progress.
///
/// # Errors
/// If it cannot listen on its address.
pub async fn serve(config: Config, shutdown: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
    serve_on(TcpListener::bind(config.listen).await?, config, shutdown).await
}

/// Serves on a socket that is already bound to [`Config::listen`].
pub async fn serve_on(
    listener: TcpListener,
    config: Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let service = routes(config).into_make_service_with_connect_info::<Here>();
    axum::serve(listener, service).with_graceful_shutdown(shutdown).await
}

/// The local address of a connection, if known.
#[derive(Clone, Copy)]
struct Here(Option<SocketAddr>);

impl Connected<IncomingStream<'_, TcpListener>> for Here {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self(stream.io().local_addr().ok())
    }
}

fn routes(config: Config) -> Router {
    let config = Arc::new(config);
    let routes = match config.service {
        Service::Productpage => productpage::routes(),
        Service::Details => details::routes(),
        Service::Reviews => reviews::routes(),
        Service::Ratings => ratings::routes(),
    };
    routes
        .route("/health", get(health))
        .layer(from_fn_with_state(config.clone(), name_this_service))
        .with_state(config)
}

async fn health(State(config): State<Arc<Config>>) -> Json<Value> {
    Json(json!({ "status": format!("{} is healthy", config.service) }))
}

/// Adds this service in front of those it called.
async fn name_this_service(
    State(config): State<Arc<Config>>,
    ConnectInfo(Here(address)): ConnectInfo<Here>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = next.run(request).await;
    let address = address.unwrap_or(config.listen);
    let mut served_by = format!("{}/{}@{address}", config.service, config.version);
    for called in response.headers().get_all(&SERVED_BY) {
        served_by.push_str(", ");
        served_by.push_str(&String::from_utf8_lossy(called.as_bytes()));
    }
    if let Ok(value) = HeaderValue::try_from(served_by) {
        response.headers_mut().insert(SERVED_BY, value);
    }
    response
}
