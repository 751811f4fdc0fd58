//! docker-compose.yml from `up` to `down`: Bookinfo in containers, with each data plane.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::capture::{Capture, Segment};
use crate::dashboard;
use crate::engine::{Compose, Project};
use crate::harness::{Answer, Call, Load, eventually, get};

#[tokio::test]
async fn the_mesh_of_the_compose_file_with_envoys() {
    all_of_it("envoy", Compose::First).await;
}

#[tokio::test]
async fn the_mesh_of_the_compose_file_with_the_bundled_proxy() {
    all_of_it("rust", Compose::Second).await;
}

/// All checks on one mesh, since starting it takes longer than the rest.
async fn all_of_it(dataplane: &str, compose: Compose) {
    let (bookinfo, first_page) = Bookinfo::up(dataplane, compose).await;
    println!(
        "{dataplane}, {}: the first page {first_page:.1?} after `up`",
        compose.command()
    );
    all_pages_are_served(&bookinfo).await;
    traffic_between_containers_is_encrypted(&bookinfo).await;
    edits_move_traffic_and_lose_no_requests(&bookinfo).await;
    scaling_replicas_fails_no_requests(&bookinfo).await;
    killed_sidecars_are_restarted(&bookinfo).await;
    traffic_continues_while_the_control_plane_is_down(&bookinfo).await;
    dashboard::every_dashboard_query_returns_data(&bookinfo.directory.path().join(OBSERVABILITY), bookinfo.prometheus)
        .await;
    bookinfo.down_leaves_nothing().await;
}

const OBSERVABILITY: &str = "examples/bookinfo/observability";

/// Request rate of a load: low, because a busy machine must respond before productpage times out.
const PER_SECOND: u32 = 10;

/// The service that is not started: Grafana has no image if no registry can be reached.
const NOT_STARTED: &str = "grafana";

/// The project with a copy of the sample directory, and its published address.
pub struct Bookinfo {
    /// The project.
    pub project: Project,
    directory: TempDir,
    /// A string that is only in the command line of the data plane.
    pub data_plane: &'static str,
    /// Published address of productpage.
    pub page: SocketAddr,
    prometheus: SocketAddr,
}

impl Bookinfo {
    /// Starts everything and waits for the first complete page; returns the time this took.
    pub async fn up(dataplane: &str, compose: Compose) -> (Self, Duration) {
        let (repository, directory) = (Path::new(env!("CARGO_MANIFEST_DIR")), tempfile::tempdir().unwrap());
        let example = directory.path().join("examples/bookinfo");
        for folder in ["config", "compose", "observability"] {
            copy(
                &repository.join("examples/bookinfo").join(folder),
                &example.join(folder),
            );
        }
        let project = Project::new(
            dataplane,
            compose,
            &[&repository.join("docker-compose.yml")],
            directory.path(),
        )
        .variable("TOPSAIL_DATAPLANE", dataplane)
        .variable("TOPSAIL_PAGE", "127.0.0.1:0")
        .variable("TOPSAIL_PROMETHEUS", "127.0.0.1:0");
        let services = project.compose(&["config", "--services"]).await;
        let services = services.lines().filter(|service| *service != NOT_STARTED);
        let services: Vec<String> = services.map(str::to_owned).collect();
        let start = Instant::now();
        let wanted = services.iter().map(String::as_str);
        let up: Vec<&str> = ["up", "--detach", "--no-build"].into_iter().chain(wanted).collect();
        project.compose(&up).await;
        let page = project.published("productpage-pod", 9080).await;
        let prometheus = project.published("prometheus", 9090).await;
        let bookinfo = Self {
            project,
            directory,
            data_plane: match dataplane {
                "envoy" => "/usr/bin/envoy",
                _ => "topsail proxy",
            },
            page,
            prometheus,
        };
        eventually("the whole page", async || {
            let served_by = served_by(&bookinfo.get("/productpage").send().await?);
            let whole = ["productpage/v1", "details/v1", "reviews/v"]
                .iter()
                .all(|part| served_by.contains(part));
            whole.then_some(()).ok_or(served_by)
        })
        .await;
        let first_page = start.elapsed();
        (bookinfo, first_page)
    }

    fn get(&self, path: &str) -> Call {
        get(self.page, "productpage", path)
    }

    /// The reviews through productpage's API which, unlike the page, fails if a part fails.
    fn reviews(&self) -> Call {
        self.get("/api/v1/products/0/reviews")
    }

    fn reviews_file(&self) -> PathBuf {
        self.directory.path().join("examples/bookinfo/config/reviews.yaml")
    }

    /// Edits the weights of reviews v1, v2 and v3 by rename, as editors do.
    fn weigh(&self, weights: [u32; 3]) {
        let mut weights = weights.iter();
        let text = fs::read_to_string(self.reviews_file()).unwrap();
        let lines = text.lines().map(|line| match line.split_once("weight: ") {
            Some((before, _)) => format!("{before}weight: {}\n", weights.next().unwrap()),
            None => format!("{line}\n"),
        });
        let edited: String = lines.collect();
        assert!(weights.next().is_none(), "{text}");
        let partial = self.directory.path().join("partial");
        fs::write(&partial, edited).unwrap();
        fs::rename(partial, self.reviews_file()).unwrap();
    }

    /// Waits until many requests in a row are answered by these versions of reviews, and each version answers
    /// some.
    async fn all_go_to(&self, versions: &[&str]) {
        let wanted = versions.iter().map(|version| (*version).to_owned()).collect();
        self.are_seen(&wanted, |(version, _)| version).await;
    }

    /// Waits until many requests in a row are answered by reviews at these addresses, and each address
    /// answers some.
    async fn all_go_to_addresses(&self, addresses: &BTreeSet<IpAddr>) {
        self.are_seen(addresses, |(_, address)| address).await;
    }

    /// Waits until the set of values that `take` extracts from many responses is exactly this.
    async fn are_seen<T: Ord + Debug>(&self, wanted: &BTreeSet<T>, take: impl Fn((String, IpAddr)) -> T) {
        eventually(&format!("all go to {wanted:?}"), async || {
            let mut seen = BTreeSet::new();
            for _ in 0..12 {
                let answer = self.reviews().send().await?;
                let reviews = reviews_of(&answer).ok_or(format!("{}: {}", answer.status, answer.text()))?;
                seen.insert(take(reviews));
            }
            (seen == *wanted).then_some(()).ok_or(format!("{seen:?}"))
        })
        .await;
    }

    /// Waits until many requests in a row succeed.
    async fn answers_again(&self, call: &Call) {
        eventually(&format!("answers for {call:?}"), async || {
            for _ in 0..10 {
                let answer = call.send().await?;
                if answer.status != 200 {
                    return Err(format!("{}: {}", answer.status, answer.text()));
                }
            }
            Ok(())
        })
        .await;
    }

    async fn scale(&self, service: &str, replicas: usize) {
        let scale = format!("{service}={replicas}");
        let command = ["up", "--detach", "--no-build", "--no-deps", "--scale", &scale, service];
        self.project.compose(&command).await;
    }

    /// Takes it down and checks that nothing is left.
    pub async fn down_leaves_nothing(self) {
        assert!(!self.project.leftovers().is_empty(), "the filter finds what there is");
        self.project.compose(&["down", "--volumes", "--timeout", "5"]).await;
        let left = self.project.leftovers();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// Copies a directory.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// The services involved, each as `<service>/<version>@<address>`.
fn served_by(answer: &Answer) -> String {
    answer.header("x-served-by").to_owned()
}

/// The version and address of reviews that was involved.
fn reviews_of(answer: &Answer) -> Option<(String, IpAddr)> {
    let served_by = served_by(answer);
    let reviews = served_by.split(", ").find_map(|part| part.strip_prefix("reviews/"))?;
    let (version, address) = reviews.split_once('@')?;
    let address: SocketAddr = address.parse().ok()?;
    Some((version.to_owned(), address.ip()))
}

async fn all_pages_are_served(bookinfo: &Bookinfo) {
    let home = bookinfo.get("/").expect(303).await;
    assert_eq!(home.header("location"), "/productpage");
    let page = bookinfo.get("/productpage").expect(200).await.text();
    for part in [
        "The Comedy of Errors",
        "William Shakespeare",
        "Two pairs of twins",
        "Sign in as jason",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    for (path, part) in [
        ("/api/v1/products", "The Comedy of Errors"),
        ("/api/v1/products/0", "William Shakespeare"),
        ("/api/v1/products/0/reviews", "Two pairs of twins"),
        ("/api/v1/products/0/ratings", "Reviewer2"),
        ("/health", "productpage is healthy"),
    ] {
        let text = bookinfo.get(path).expect(200).await.text();
        assert!(text.contains(part), "{path}: {text}");
    }
    let login = bookinfo.get("/login?username=jason").expect(303).await;
    assert!(login.header("set-cookie").starts_with("user=jason;"));
    bookinfo.get("/logout").expect(303).await;
    for _ in 0..10 {
        let page = bookinfo
            .get("/productpage")
            .header("cookie", "user=jason")
            .expect(200)
            .await;
        assert!(page.text().contains("Signed in as jason"), "{}", page.text());
        assert!(served_by(&page).contains("reviews/v3@"), "{}", served_by(&page));
        assert!(served_by(&page).contains("ratings/v1@"), "{}", served_by(&page));
    }
    bookinfo.all_go_to(&["v1", "v2", "v3"]).await;
    let status = bookinfo.project.container("topsail").exec(&["topsail", "status"]);
    assert_eq!(status.matches("SYNCED").count(), 6 * 5, "{status}");
}

async fn traffic_between_containers_is_encrypted(bookinfo: &Bookinfo) {
    const MARKER: &str = "marker-7c1f0d5e";
    let capture = Capture::start(&bookinfo.project.bridge()).await;
    // Forces new connections, so that their handshakes are captured.
    let details = bookinfo.project.container("details-sidecar");
    details.kill_process(bookinfo.data_plane);
    bookinfo.answers_again(&bookinfo.get("/api/v1/products/0")).await;
    for version in [[100, 0, 0], [0, 100, 0], [0, 0, 100]] {
        bookinfo.weigh(version);
        let index = version.iter().position(|weight| *weight == 100).unwrap() + 1;
        bookinfo.all_go_to(&[&format!("v{index}")]).await;
        // Only jason is routed by header; others are routed by weight. The header is propagated to every
        // service.
        let call = bookinfo.get("/productpage").header("end-user", MARKER);
        let page = call.expect(200).await;
        assert!(page.text().contains(MARKER) && page.text().contains("William Shakespeare"));
    }
    let segments = capture.stop().await;

    let ip = |service: &str| bookinfo.project.container(service).ip().unwrap();
    let page = ip("productpage-pod");
    let (prometheus, gateway) = (ip("prometheus"), bookinfo.project.gateway());
    // The capture does see plaintext where it exists: the browser's connection.
    let of_browser = |from: IpAddr, to: IpAddr| [from, to].contains(&gateway) && [from, to].contains(&page);
    for text in [MARKER, "William Shakespeare", "HTTP/1.1"] {
        let seen = segments
            .iter()
            .any(|segment| of_browser(segment.from.0, segment.to.0) && segment.holds(text));
        assert!(seen, "the capture shows `{text}` between browser and page");
    }

    let between: Vec<_> = segments
        .iter()
        .filter(|segment| ![segment.from.0, segment.to.0].contains(&gateway))
        .collect();
    for segment in &between {
        for text in [MARKER, "Shakespeare", "twins", "Reviewer1"] {
            assert!(
                !segment.holds(text),
                "`{text}` in plain text from {:?} to {:?}",
                segment.from,
                segment.to
            );
        }
        // Prometheus scrapes metrics over plain HTTP, and nothing else.
        let is_scrape = [segment.from.0, segment.to.0].contains(&prometheus);
        assert!(
            is_scrape || !segment.holds("HTTP/1.1"),
            "HTTP from {:?} to {:?}",
            segment.from,
            segment.to
        );
    }
    let carries = |from: IpAddr, to: IpAddr| {
        between
            .iter()
            .any(|segment| segment.from.0 == from && segment.to == (to, 9080))
    };
    for callee in ["details-pod", "reviews-v1", "reviews-v2", "reviews-v3"] {
        assert!(carries(page, ip(callee)), "productpage calls {callee} over the bridge");
    }
    assert!(
        carries(ip("reviews-v2"), ip("ratings-pod")),
        "reviews-v2 calls ratings over the bridge"
    );
    let begins = |segment: &&Segment| segment.to == (ip("details-pod"), 9080) && segment.is_client_hello();
    assert!(
        between.iter().copied().any(|segment| begins(&segment)),
        "productpage begins TLS with details"
    );
}

async fn edits_move_traffic_and_lose_no_requests(bookinfo: &Bookinfo) {
    let load = Load::start(bookinfo.reviews(), PER_SECOND);
    for (weights, version) in [([100, 0, 0], "v1"), ([0, 0, 100], "v3"), ([0, 100, 0], "v2")] {
        bookinfo.weigh(weights);
        bookinfo.all_go_to(&[version]).await;
    }
    load.stop().await.assert_lossless();
}

async fn scaling_replicas_fails_no_requests(bookinfo: &Bookinfo) {
    bookinfo.weigh([100, 0, 0]);
    bookinfo.all_go_to(&["v1"]).await;
    let load = Load::start(bookinfo.reviews(), PER_SECOND);
    let addresses = |replicas: usize| {
        let containers = bookinfo.project.containers("reviews-v1");
        let addresses: BTreeSet<IpAddr> = containers.iter().filter_map(|container| container.ip()).collect();
        assert_eq!(addresses.len(), replicas);
        addresses
    };
    for replicas in [3, 1] {
        bookinfo.scale("reviews-v1", replicas).await;
        bookinfo.all_go_to_addresses(&addresses(replicas)).await;
    }
    load.stop().await.assert_lossless();
}

async fn killed_sidecars_are_restarted(bookinfo: &Bookinfo) {
    let details = bookinfo.get("/api/v1/products/0");
    details.expect(200).await;
    let sidecar = bookinfo.project.container("details-sidecar");

    // The data plane alone: its parent restarts it.
    sidecar.kill_process(bookinfo.data_plane);
    bookinfo.answers_again(&details).await;
    assert_eq!(sidecar.restarts(), 0);

    // The whole container: the engine restarts it in its pod's network, which has the iptables rules.
    sidecar.kill_process("sidecar --no-iptables");
    eventually("the engine has started the sidecar again", async || {
        match sidecar.restarts() {
            0 => Err("not yet".to_owned()),
            _ => sidecar.is_healthy(),
        }
    })
    .await;
    bookinfo.answers_again(&details).await;

    // A replica with application and sidecar in one container.
    bookinfo.weigh([0, 0, 100]);
    bookinfo.all_go_to(&["v3"]).await;
    let replica = bookinfo.project.container("reviews-v3");
    replica.kill_process(bookinfo.data_plane);
    bookinfo.answers_again(&bookinfo.reviews()).await;
    assert_eq!(replica.restarts(), 0);
}

async fn traffic_continues_while_the_control_plane_is_down(bookinfo: &Bookinfo) {
    let load = Load::start(bookinfo.reviews(), PER_SECOND);
    let server = bookinfo.project.container("topsail");
    server.kill_process("topsail serve");
    eventually(
        "the engine has started the control plane again",
        async || match server.restarts() {
            0 => Err("not yet".to_owned()),
            _ => server.is_healthy(),
        },
    )
    .await;
    bookinfo.weigh([100, 0, 0]);
    bookinfo.all_go_to(&["v1"]).await;
    load.stop().await.assert_lossless();
}
