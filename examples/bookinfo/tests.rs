//! The application without a mesh: the services call each other directly.

use std::net::SocketAddr;

use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::services::{Call, Config, SERVED_BY, Service, serve};

fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Running {
    /// Starts a service and waits until it responds.
    async fn start(service: Service, version: &str, calls: Vec<Call>) -> Self {
        let listen = free_address();
        let (stop, stopped) = oneshot::channel::<()>();
        let config = Config {
            service,
            version: version.into(),
            listen,
            calls,
        };
        let task = tokio::spawn(serve(config, async { stopped.await.unwrap_or(()) }));
        while TcpStream::connect(listen).await.is_err() {
            tokio::task::yield_now().await;
        }
        Self {
            address: listen,
            stop,
            task,
        }
    }

    fn call(&self, service: Service) -> Call {
        Call {
            service,
            address: self.address.to_string(),
        }
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> (StatusCode, HeaderMap, Bytes) {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::get(path).header("host", "productpage");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = sender
            .send_request(request.body(Empty::<Bytes>::new()).unwrap())
            .await
            .unwrap();
        let (head, body) = response.into_parts();
        (head.status, head.headers, body.collect().await.unwrap().to_bytes())
    }

    async fn json(&self, path: &str, headers: &[(&str, &str)]) -> (StatusCode, HeaderMap, Value) {
        let (status, head, body) = self.get(path, headers).await;
        (status, head, serde_json::from_slice(&body).unwrap())
    }
}

#[tokio::test]
async fn the_page_lists_all_services_involved() {
    let ratings = Running::start(Service::Ratings, "v1", vec![]).await;
    let details = Running::start(Service::Details, "v1", vec![]).await;
    let reviews = Running::start(Service::Reviews, "v3", vec![ratings.call(Service::Ratings)]).await;
    let calls = vec![details.call(Service::Details), reviews.call(Service::Reviews)];
    let page = Running::start(Service::Productpage, "v1", calls).await;

    let (status, headers, body) = page.get("/productpage", &[]).await;
    let body = String::from_utf8_lossy(&body).into_owned();
    assert_eq!(status, StatusCode::OK);
    assert!(
        body.contains("William Shakespeare") && body.contains("<span style=\"color:red\">★★★★</span>"),
        "{body}"
    );
    let expected = format!(
        "productpage/v1@{}, details/v1@{}, reviews/v3@{}, ratings/v1@{}",
        page.address, details.address, reviews.address, ratings.address
    );
    assert_eq!(headers[SERVED_BY], expected);
    assert_eq!(headers.get_all(SERVED_BY).iter().count(), 1);

    let (_, _, json) = page.json("/productpage", &[("accept", "application/json")]).await;
    assert_eq!(json["reviews"]["reviews"][0]["rating"]["stars"], 5);
    let (_, _, health) = reviews.json("/health", &[]).await;
    assert_eq!(health["status"], "reviews is healthy");
}

#[tokio::test]
async fn versions_of_reviews_differ_in_their_stars() {
    let ratings = Running::start(Service::Ratings, "v1", vec![]).await;
    for (version, colour) in [("v1", None), ("v2", Some("black")), ("v3", Some("red"))] {
        let reviews = Running::start(Service::Reviews, version, vec![ratings.call(Service::Ratings)]).await;
        let (_, headers, body) = reviews.json("/reviews/7", &[]).await;
        assert_eq!(body["id"], "7");
        assert_eq!(body["podname"], format!("reviews-{version}"));
        assert_eq!(body["reviews"][1]["rating"]["color"].as_str(), colour);
        let asks_ratings = headers[SERVED_BY].to_str().unwrap().contains("ratings/v1");
        assert_eq!(asks_ratings, colour.is_some());
    }
}

#[tokio::test]
async fn a_failed_service_affects_its_part_only() {
    let gone = Call {
        service: Service::Ratings,
        address: free_address().to_string(),
    };
    let reviews = Running::start(Service::Reviews, "v2", vec![gone.clone()]).await;
    let page = Running::start(Service::Productpage, "v1", vec![reviews.call(Service::Reviews)]).await;
    let (status, headers, body) = page.get("/productpage", &[]).await;
    let body = String::from_utf8_lossy(&body).into_owned();
    assert_eq!(status, StatusCode::OK);
    assert!(body.contains("Error fetching product details!"), "{body}");
    assert!(
        body.contains("Ratings service is currently unavailable") && body.contains("twins"),
        "{body}"
    );
    let served_by = headers[SERVED_BY].to_str().unwrap().to_owned();
    assert!(served_by.contains("details/failed@"), "{served_by}");
    assert!(
        served_by.ends_with(&format!("ratings/failed@{}", gone.address)),
        "{served_by}"
    );

    let (status, _, body) = page.json("/api/v1/products/0", &[]).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        body["error"]
            .as_str()
            .unwrap()
            .contains("details is currently unavailable"),
        "{body}"
    );
}

/// A server that responds to one request and returns its headers.
async fn mirror() -> (SocketAddr, JoinHandle<HeaderMap>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, headers) = oneshot::channel();
    let seen = std::sync::Mutex::new(Some(seen));
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
            seen.lock()
                .unwrap()
                .take()
                .unwrap()
                .send(request.headers().clone())
                .unwrap();
            async { Ok::<_, std::convert::Infallible>(http::Response::new("{}".to_owned())) }
        });
        let _ = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .await;
        headers.await.unwrap()
    });
    (address, task)
}

#[tokio::test]
async fn only_user_and_trace_headers_are_propagated() {
    let (address, seen) = mirror().await;
    let calls = vec![Call {
        service: Service::Reviews,
        address: address.to_string(),
    }];
    let page = Running::start(Service::Productpage, "v1", calls).await;
    let sent = [
        ("cookie", "a=b; user=jason"),
        ("x-request-id", "r1"),
        ("traceparent", "t1"),
        ("b3", "0"),
        ("x-other", "no"),
    ];
    page.get("/api/v1/products/0/reviews", &sent).await;
    let seen = seen.await.unwrap();
    for (name, value) in [
        ("end-user", "jason"),
        ("x-request-id", "r1"),
        ("traceparent", "t1"),
        ("b3", "0"),
    ] {
        assert_eq!(seen[name], value);
    }
    assert_eq!(seen["host"], "reviews");
    assert!(!seen.contains_key("x-other"));
}

#[tokio::test]
async fn signing_in_sets_a_harmless_cookie() {
    let page = Running::start(Service::Productpage, "v1", vec![]).await;
    let (status, headers, _) = page.get("/login?username=jason", &[]).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    assert!(headers["set-cookie"].to_str().unwrap().starts_with("user=jason;"));
    let (status, headers, _) = page.get("/login?username=a%3Bb", &[]).await;
    assert!(status == StatusCode::BAD_REQUEST && !headers.contains_key("set-cookie"));
    let (_, _, body) = page.get("/productpage", &[("end-user", "<script>")]).await;
    assert!(String::from_utf8_lossy(&body).contains("Signed in as &lt;script&gt;"));
}

#[tokio::test]
async fn shutdown_stops_the_service() {
    let running = Running::start(Service::Details, "v1", vec![]).await;
    let (_, _, details) = running.json("/details/3", &[]).await;
    assert_eq!(details["id"], 3);
    running.stop.send(()).unwrap();
    running.task.await.unwrap().unwrap();
    assert!(TcpStream::connect(running.address).await.is_err());
}

#[test]
fn calls_are_parsed() {
    let call: Call = "reviews=127.0.0.1:80".parse().unwrap();
    assert_eq!(
        call,
        Call {
            service: Service::Reviews,
            address: "127.0.0.1:80".into()
        }
    );
    let by_name: Call = "reviews=reviews:9080".parse().unwrap();
    assert_eq!(by_name.address, "reviews:9080");
    for wrong in ["reviews", "reviews=here", "reviews=here:", "review=127.0.0.1:80"] {
        assert!(wrong.parse::<Call>().is_err(), "{wrong}");
    }
}
