//! The Bookinfo sample with the configuration directory of the demo, moved to the test's own addresses.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use topsail::source::tree::Tree;

use crate::harness::{Answer, Mesh, Planes, Sidecar, eventually, get};
use crate::on_each_pair_of_planes;
use crate::services::{self, Call, Config, SERVED_BY, Service};

on_each_pair_of_planes! {
    the_product_page_is_served_through_the_mesh_and_follows_edits,
    only_the_product_page_accepts_requests_from_outside_the_mesh,
}

const WORKLOADS: [(&str, Service, &str); 6] = [
    ("productpage-v1", Service::Productpage, "v1"),
    ("details-v1", Service::Details, "v1"),
    ("reviews-v1", Service::Reviews, "v1"),
    ("reviews-v2", Service::Reviews, "v2"),
    ("reviews-v3", Service::Reviews, "v3"),
    ("ratings-v1", Service::Ratings, "v1"),
];

/// The applications, their sidecars and the control plane.
struct Bookinfo {
    page: SocketAddr,
    sidecars: Vec<Sidecar>,
    mesh: Mesh,
    applications: Vec<AbortHandle>,
}

impl Drop for Bookinfo {
    fn drop(&mut self) {
        self.applications.iter().for_each(AbortHandle::abort);
    }
}

/// The files of the example with the addresses replaced: workload n, counted from 1, has 127.0.10.n for its inbound
/// listener, 127.0.11.n for its outbound listener and port 19080 + n for its application.
fn files(places: &[(IpAddr, IpAddr, u16)]) -> Vec<(String, String)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/bookinfo/config");
    let moved = |text: String| {
        (1..).zip(places).fold(text, |text, (n, (inbound, outbound, port))| {
            text.replace(&format!("127.0.10.{n}"), &inbound.to_string())
                .replace(&format!("127.0.11.{n}"), &outbound.to_string())
                .replace(&format!("127.0.0.1:{}", 19080 + n), &format!("127.0.0.1:{port}"))
        })
    };
    let tree = Tree::scan(&Path::new(folder).into());
    tree.files()
        .map(|file| {
            let path = Path::new(&*file.origin);
            let name = path.file_name().unwrap().to_str().unwrap();
            (name.to_owned(), moved(fs::read_to_string(path).unwrap()))
        })
        .collect()
}

async fn start(planes: Planes) -> Bookinfo {
    let mut mesh = Mesh::new(planes, &[]);
    let (mut places, mut listeners) = (Vec::new(), Vec::new());
    for _ in WORKLOADS {
        // Bound from now on: any outgoing connection could take a port that is free.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        places.push((mesh.address(), mesh.address(), listener.local_addr().unwrap().port()));
        listeners.push(listener);
    }
    for (name, text) in files(&places) {
        mesh.write(&name, &text);
    }
    mesh.server.start().await;
    let (mut sidecars, mut applications) = (Vec::new(), Vec::new());
    let workloads = WORKLOADS.into_iter().zip(&places).zip(listeners);
    for (((name, service, version), (inbound, outbound, port)), listener) in workloads {
        let call = |service| Call {
            service,
            address: SocketAddr::new(*outbound, 9080).to_string(),
        };
        let listen = SocketAddr::from(([127, 0, 0, 1], *port));
        let calls = [Service::Details, Service::Reviews, Service::Ratings]
            .map(call)
            .to_vec();
        let config = Config {
            service,
            version: version.into(),
            listen,
            calls,
        };
        applications.push(tokio::spawn(services::serve_on(listener, config, std::future::pending())).abort_handle());
        let plane = match service {
            Service::Productpage | Service::Reviews => planes.calling,
            Service::Details | Service::Ratings => planes.serving,
        };
        let account = format!("bookinfo-{service}");
        let sidecar = mesh.beside(plane, name, &account, *inbound).await;
        sidecar.listens(SocketAddr::new(*inbound, 9080)).await;
        sidecars.push(sidecar);
    }
    let page = SocketAddr::new(places[0].0, 9080);
    let bookinfo = Bookinfo {
        page,
        sidecars,
        mesh,
        applications,
    };
    eventually("the product page is complete", async || {
        let served_by = served_by(&bookinfo.ask(&[]).await?);
        if served_by.contains("failed") {
            Err(served_by)
        } else {
            Ok(())
        }
    })
    .await;
    bookinfo
}

fn served_by(answer: &Answer) -> String {
    answer.header(SERVED_BY.as_str()).to_owned()
}

impl Bookinfo {
    /// Requests the product page from outside the mesh, as a browser does.
    async fn ask(&self, headers: &[(&'static str, &str)]) -> Result<Answer, String> {
        let call = get(self.page, "bookinfo.example", "/productpage");
        headers
            .iter()
            .fold(call, |call, (name, value)| call.header(name, value))
            .send()
            .await
    }

    /// How many of `count` pages used each version of reviews.
    async fn reviews(&self, count: usize, headers: &[(&'static str, &str)]) -> [usize; 3] {
        let mut counts = [0; 3];
        for _ in 0..count {
            let answer = self.ask(headers).await.unwrap();
            let served_by = served_by(&answer);
            assert!(
                answer.status == 200 && !served_by.contains("failed"),
                "{served_by}: {}",
                answer.text()
            );
            let version = ["reviews/v1@", "reviews/v2@", "reviews/v3@"]
                .iter()
                .position(|name| served_by.contains(name));
            counts[version.unwrap()] += 1;
        }
        counts
    }
}

async fn the_product_page_is_served_through_the_mesh_and_follows_edits(planes: Planes) {
    let bookinfo = start(planes).await;
    let [v1, v2, v3] = bookinfo.reviews(200, &[]).await;
    assert!(
        (80..=160).contains(&v1) && (25..=100).contains(&v2) && (2..=50).contains(&v3),
        "{v1} {v2} {v3}"
    );
    assert_eq!(bookinfo.reviews(20, &[("end-user", "jason")]).await, [0, 0, 20]);
    let page = bookinfo.ask(&[("cookie", "user=jason")]).await.unwrap().text();
    assert!(
        page.contains("Signed in as jason") && page.contains("color:red"),
        "{page}"
    );

    bookinfo.mesh.edit("reviews.yaml", "weight: 60", "weight: 0");
    bookinfo.mesh.edit("reviews.yaml", "weight: 30", "weight: 0");
    eventually("all requests go to v3", async || {
        match bookinfo.reviews(20, &[]).await {
            [0, 0, 20] => Ok(()),
            counts => Err(format!("{counts:?}")),
        }
    })
    .await;
}

async fn only_the_product_page_accepts_requests_from_outside_the_mesh(planes: Planes) {
    let bookinfo = start(planes).await;
    for sidecar in &bookinfo.sidecars[1..] {
        get(SocketAddr::new(sidecar.ip(), 9080), "reviews", "/health")
            .send()
            .await
            .unwrap_err();
    }
}
