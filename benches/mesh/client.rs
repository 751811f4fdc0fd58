//! Simulated proxies: delta xDS like Envoy's, over TLS, with join tokens.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::{Channel, Endpoint};
use topsail::clock::Clock;
use topsail::pki::{Bearer, StateDir, TokenGrant, TokenSigner, TrustBundle, server_identity};
use topsail::tls::{SpiffeMatcher, client_config};

use super::server::Server;

/// Connected proxies.
pub(crate) struct Fleet {
    tasks: Vec<JoinHandle<()>>,
    first: watch::Receiver<Option<Instant>>,
}

impl Fleet {
    /// Connects this many proxies, each for a workload of its own, as fast as the server accepts
    /// them.
    pub(crate) async fn connect(server: &Server, proxies: usize) -> Self {
        let (first_sender, first) = watch::channel(None);
        let first_sender = Arc::new(first_sender);
        let mut tasks = Vec::new();
        for proxy in 0..proxies {
            let (channel, token) = (channel(server).await, token(server, proxy));
            tasks.push(tokio::spawn(run(proxy, channel, token, first_sender.clone())));
        }
        Self { tasks, first }
    }

    /// Time of the first response.
    pub(crate) async fn first_response(&self) -> Instant {
        let mut first = self.first.clone();
        let came = first.wait_for(Option::is_some).await.expect("proxies run");
        came.expect("it was waited for")
    }

    pub(crate) async fn disconnect(self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        for task in self.tasks {
            let _ = task.await;
        }
    }
}

async fn channel(server: &Server) -> Channel {
    let roots = loop {
        match std::fs::read(server.state.join("ca/root-cert.pem")) {
            Ok(roots) => break roots,
            Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    };
    let bundle = TrustBundle::from_pem(&roots).expect("a bundle");
    let expected = SpiffeMatcher::from(&server_identity(&Default::default()));
    let config = client_config(&bundle, expected, None, &Clock::system()).expect("a TLS client");
    let connector = TlsConnector::from(config);
    let address = server.xds;
    let endpoint = Endpoint::from_static("http://xds");
    let connect = move |_| {
        let connector = connector.clone();
        async move {
            let tcp = loop {
                match TcpStream::connect(address).await {
                    Ok(tcp) => break tcp,
                    Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            };
            tcp.set_nodelay(true)?;
            let name = "localhost".try_into().map_err(std::io::Error::other)?;
            connector.connect(name, tcp).await.map(TokioIo::new)
        }
    };
    endpoint
        .connect_with_connector(tower::service_fn(connect))
        .await
        .expect("a connection")
}

fn token(server: &Server, proxy: usize) -> String {
    let state = StateDir::open(&server.state).expect("the state directory");
    let signer = TokenSigner::load_or_create(&state, &Default::default()).expect("the token key");
    let grant = TokenGrant {
        bearer: Bearer::Workload {
            name: format!("proxy-{proxy}.bench").parse().expect("a workload"),
            addresses: vec![address(proxy)],
        },
        service_account: "proxy".parse().expect("a service account"),
        labels: [("app".to_owned(), "proxy".to_owned())].into(),
    };
    signer
        .create(&grant, Duration::from_secs(3600), SystemTime::now())
        .expect("a token")
}

fn address(proxy: usize) -> IpAddr {
    format!("10.200.{}.{}", proxy / 250, proxy % 250 + 1)
        .parse()
        .expect("an address")
}

const CDS: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
const EDS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
const LDS: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
const RDS: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
const SDS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

async fn run(proxy: usize, channel: Channel, token: String, first: Arc<watch::Sender<Option<Instant>>>) {
    let (requests, outgoing) = mpsc::unbounded_channel();
    let mut request = tonic::Request::new(UnboundedReceiverStream::new(outgoing));
    let bearer = format!("Bearer {token}").parse().expect("a header value");
    request.metadata_mut().insert("authorization", bearer);
    let ip = address(proxy);
    let node = Node {
        id: format!("sidecar~{ip}~proxy-{proxy}.bench~bench.svc.cluster.local"),
        cluster: "proxy.bench".to_owned(),
        ..Default::default()
    };
    let _ = requests.send(DeltaDiscoveryRequest {
        node: Some(node),
        ..subscribe(CDS, &[])
    });
    let mut client = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(256 << 20);
    let mut responses = match client.delta_aggregated_resources(request).await {
        Ok(response) => response.into_inner(),
        Err(status) => return eprintln!("proxy {proxy}: {status}"),
    };
    let mut asked = BTreeSet::new();
    loop {
        match responses.message().await {
            Ok(Some(response)) => {
                first.send_if_modified(|first| first.replace(first.unwrap_or_else(Instant::now)).is_none());
                answer(&response, &mut asked)
                    .into_iter()
                    .for_each(|request| drop(requests.send(request)));
            }
            Ok(None) => return,
            Err(status) => return eprintln!("proxy {proxy}: {status}"),
        }
    }
}

/// The ACK and the subscriptions that follow: endpoints of clusters, listeners, routes of
/// listeners.
fn answer(response: &DeltaDiscoveryResponse, asked: &mut BTreeSet<String>) -> Vec<DeltaDiscoveryRequest> {
    let ack = DeltaDiscoveryRequest {
        response_nonce: response.nonce.clone(),
        ..subscribe(&response.type_url, &[])
    };
    let mut requests = vec![ack];
    let names = response.resources.iter().map(|resource| resource.name.as_str());
    let mut ask = |kind: &'static str, names: Vec<&str>| {
        let new: Vec<&str> = names
            .into_iter()
            .filter(|name| asked.insert(format!("{kind}/{name}")))
            .collect();
        if !new.is_empty() {
            requests.push(subscribe(kind, &new));
        }
    };
    match response.type_url.as_str() {
        CDS => {
            ask(EDS, names.filter(|name| name.starts_with("outbound|")).collect());
            ask(SDS, vec!["default", "ROOTCA"]);
            if asked.insert(LDS.to_owned()) {
                requests.push(subscribe(LDS, &[]));
            }
        }
        LDS => ask(RDS, names.filter_map(|name| name.strip_prefix("0.0.0.0_")).collect()),
        _ => {}
    }
    requests
}

fn subscribe(kind: &str, names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: kind.to_owned(),
        resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    }
}
