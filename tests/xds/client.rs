//! A scripted delta xDS client.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use envoy_types::pb::google::rpc::Status;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};
use topsail::clock::Clock;
use topsail::pki::{TrustBundle, server_identity};
use topsail::tls::{SpiffeMatcher, client_config};

use super::control_plane::{ControlPlane, Home, PATIENCE};

/// The type URL of CDS.
pub const CDS: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
/// The type URL of EDS.
pub const EDS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
/// The type URL of LDS.
pub const LDS: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
/// The type URL of RDS.
pub const RDS: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
/// The type URL of SDS.
pub const SDS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

/// Resource versions by name.
pub type Versions = BTreeMap<String, String>;

/// A delta stream.
pub struct Client {
    requests: mpsc::UnboundedSender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

/// A TLS connector that verifies the server as the bootstrap does.
pub fn connector(home: &Home) -> TlsConnector {
    let roots = std::fs::read(home.state().join("ca/root-cert.pem")).unwrap();
    let expected = SpiffeMatcher::from(&server_identity(&Default::default()));
    let config = client_config(
        &TrustBundle::from_pem(&roots).unwrap(),
        expected,
        None,
        &Clock::system(),
    )
    .unwrap();
    TlsConnector::from(config)
}

/// A connection to the server.
pub async fn channel(home: &Home, address: SocketAddr) -> Channel {
    let connector = connector(home);
    let connect = move |_| {
        let connector = connector.clone();
        async move {
            let tcp = TcpStream::connect(address).await?;
            connector
                .connect("localhost".try_into().unwrap(), tcp)
                .await
                .map(TokioIo::new)
        }
    };
    Endpoint::from_static("http://xds")
        .connect_with_connector(tower::service_fn(connect))
        .await
        .unwrap()
}

impl Client {
    /// Opens a stream as a workload, with or without a token.
    pub async fn open(
        home: &Home,
        server: &ControlPlane,
        node: &str,
        token: Option<&str>,
    ) -> Result<Self, tonic::Status> {
        Self::connect(home, server.address(), node, token).await
    }

    /// Opens a stream as a workload, with its token.
    pub async fn join(home: &Home, server: &ControlPlane, workload: &str) -> Self {
        Self::join_at(home, server.address(), workload).await
    }

    /// Like `join`, to the address of any server of the home.
    pub async fn join_at(home: &Home, address: SocketAddr, workload: &str) -> Self {
        Self::connect(home, address, workload, Some(&home.token(workload)))
            .await
            .unwrap()
    }

    async fn connect(home: &Home, address: SocketAddr, node: &str, token: Option<&str>) -> Result<Self, tonic::Status> {
        let node = Node {
            id: format!("sidecar~10.9.9.9~{node}~default.svc.cluster.local"),
            cluster: "client.default".to_owned(),
            ..Default::default()
        };
        let hello = DeltaDiscoveryRequest {
            node: Some(node),
            type_url: "hello".to_owned(),
            ..Default::default()
        };
        Self::start(home, address, hello, token).await
    }

    /// Opens a stream with a custom first request.
    pub async fn open_with(
        home: &Home,
        server: &ControlPlane,
        hello: DeltaDiscoveryRequest,
        token: Option<&str>,
    ) -> Result<Self, tonic::Status> {
        Self::start(home, server.address(), hello, token).await
    }

    async fn start(
        home: &Home,
        address: SocketAddr,
        hello: DeltaDiscoveryRequest,
        token: Option<&str>,
    ) -> Result<Self, tonic::Status> {
        let (requests, outgoing) = mpsc::unbounded_channel();
        let mut request = tonic::Request::new(UnboundedReceiverStream::new(outgoing));
        if let Some(token) = token {
            request
                .metadata_mut()
                .insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        requests.send(hello).unwrap();
        let mut client = AggregatedDiscoveryServiceClient::new(channel(home, address).await);
        let responses = client.delta_aggregated_resources(request).await?.into_inner();
        Ok(Self { requests, responses })
    }

    /// Subscribes to names, or to the wildcard if there are none. `has` are the `initial_resource_versions`.
    pub fn subscribe(&self, kind: &str, names: &[&str], has: &Versions) {
        let request = DeltaDiscoveryRequest {
            type_url: kind.to_owned(),
            resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
            initial_resource_versions: has.clone().into_iter().collect(),
            ..Default::default()
        };
        self.requests.send(request).unwrap();
    }

    /// Unsubscribes from names.
    pub fn unsubscribe(&self, kind: &str, names: &[&str]) {
        let request = DeltaDiscoveryRequest {
            type_url: kind.to_owned(),
            resource_names_unsubscribe: names.iter().map(|name| (*name).to_owned()).collect(),
            ..Default::default()
        };
        self.requests.send(request).unwrap();
    }

    /// Sends a request unchanged.
    pub fn send(&self, request: DeltaDiscoveryRequest) {
        self.requests.send(request).unwrap();
    }

    /// The next response.
    pub async fn next(&mut self) -> Result<DeltaDiscoveryResponse, tonic::Status> {
        let next = tokio::time::timeout(PATIENCE, self.responses.message()).await;
        next.expect("a response in time")?
            .ok_or_else(|| tonic::Status::cancelled("the stream ended"))
    }

    /// Whether no response arrives for a while.
    pub async fn is_quiet(&mut self) -> bool {
        tokio::time::timeout(Duration::from_millis(500), self.responses.message())
            .await
            .is_err()
    }

    /// Whether no response arrives for a while. If one arrives, it is passed to `answer`.
    pub async fn is_quiet_or(&mut self, answer: impl FnOnce(&Self, &DeltaDiscoveryResponse)) -> bool {
        let next = tokio::time::timeout(Duration::from_millis(500), self.responses.message()).await;
        let Ok(next) = next else { return true };
        answer(self, &next.unwrap().unwrap());
        false
    }

    /// ACKs a response.
    pub fn ack(&self, response: &DeltaDiscoveryResponse) {
        self.answer(response, None);
    }

    /// NACKs a response.
    pub fn nack(&self, response: &DeltaDiscoveryResponse, message: &str) {
        self.answer(
            response,
            Some(Status {
                code: 13,
                message: message.to_owned(),
                details: Vec::new(),
            }),
        );
    }

    /// The next response of a type, ACKed; responses of other types are ACKed on the way.
    pub async fn take(&mut self, kind: &str) -> DeltaDiscoveryResponse {
        loop {
            let response = self.next().await.unwrap();
            self.ack(&response);
            if response.type_url == kind {
                return response;
            }
        }
    }

    fn answer(&self, response: &DeltaDiscoveryResponse, error: Option<Status>) {
        let request = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail: error,
            ..Default::default()
        };
        self.requests.send(request).unwrap();
    }
}

/// The names of the resources in a response.
pub fn names(response: &DeltaDiscoveryResponse) -> Vec<&str> {
    let mut names: Vec<&str> = response
        .resources
        .iter()
        .map(|resource| resource.name.as_str())
        .collect();
    names.sort_unstable();
    names
}

/// The versions of the resources in a response.
pub fn versions(response: &DeltaDiscoveryResponse) -> Versions {
    response
        .resources
        .iter()
        .map(|resource| (resource.name.clone(), resource.version.clone()))
        .collect()
}
