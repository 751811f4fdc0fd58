//! `topsail inject` on projects without a mesh, with each data plane.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::capture::{Capture, Segment};
use crate::engine::{Compose, Container, Project, TAG, docker, output};
use crate::harness::{Answer, Call, eventually, get};

/// A project of `tests/docker/projects` in its own directory, with its override.
struct Injected {
    project: Project,
    dataplane: String,
    compose: Compose,
    folder: TempDir,
    path: PathBuf,
}

impl Injected {
    /// Injects it, starts it and waits until it is healthy.
    async fn up(name: &str, dataplane: &str, compose: Compose) -> Self {
        let injected = Self::started(name, dataplane, compose).await;
        injected.all_are_healthy().await;
        injected
    }

    /// Injects and starts it, without waiting any longer than `up` does.
    async fn started(name: &str, dataplane: &str, compose: Compose) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let projects = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/docker/projects");
        let path = folder.path().join(name);
        fs::create_dir(&path).unwrap();
        fs::create_dir(folder.path().join("programs")).unwrap();
        fs::copy(projects.join("web.py"), folder.path().join("web.py")).unwrap();
        for entry in fs::read_dir(projects.join(name)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), path.join(entry.file_name())).unwrap();
        }
        let files = ["docker-compose.yml", "docker-compose.topsail.yml"].map(|name| path.join(name));
        let project = Project::new(&format!("{name}-{dataplane}"), compose, &[&files[0], &files[1]], &path);
        let injected = Self {
            project,
            dataplane: dataplane.to_owned(),
            compose,
            folder,
            path,
        };
        injected.inject_and_start().await;
        injected
    }

    /// Runs the command in the last line of the summary.
    async fn inject_and_start(&self) {
        let sidecar_image = match &*self.dataplane {
            "envoy" => format!("topsail-sidecar-envoy:{TAG}"),
            _ => format!("topsail:{TAG}"),
        };
        let mut inject = Command::new(env!("CARGO_BIN_EXE_topsail"));
        let image = format!("topsail:{TAG}");
        inject.args(["inject", "--image", &image, "--sidecar-image", &sidecar_image]);
        inject.args(["--dataplane", &self.dataplane]).current_dir(&self.path);
        let path = self.compose.path(&self.folder.path().join("programs"));
        let told = output(inject.env("PATH", path));
        println!("{told}");
        let (_, up) = told.rsplit_once(" up ").unwrap();
        let arguments: Vec<&str> = ["up"].into_iter().chain(up.split_whitespace()).collect();
        self.project.compose(&arguments).await;
    }

    /// Waits until every sidecar has its configuration, and all others know its endpoints.
    async fn all_are_healthy(&self) {
        let services = self.project.compose(&["config", "--services"]).await;
        for sidecar in services.lines().filter(|name| name.ends_with("-sidecar")) {
            for container in self.project.containers(sidecar) {
                eventually(&format!("{sidecar} is healthy"), async || container.is_healthy()).await;
            }
        }
    }

    /// The container whose network namespace a service uses.
    fn holder(&self, service: &str) -> String {
        let pod = format!("{service}-pod");
        match self.project.containers(&pod).is_empty() {
            true => service.to_owned(),
            false => pod,
        }
    }

    fn of(&self, service: &str) -> Container {
        self.project.container(service)
    }

    /// The response to a request from a container with Python to a page of the project.
    fn page(&self, service: &str, url: &str) -> String {
        let script = "import sys, urllib.request, urllib.error\n\
                      try: print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())\n\
                      except urllib.error.HTTPError as error: print(error.code, error.read().decode())\n\
                      except OSError as error: print('failed:', error)";
        self.of(service).exec(&["python3", "-c", script, url])
    }

    /// The output of a Python program in a container.
    fn python(&self, service: &str, program: &str) -> String {
        self.of(service).exec(&["python3", "-c", program])
    }

    /// Like `page`, repeated until the response contains `part`.
    async fn page_says(&self, service: &str, url: &str, part: &str) {
        eventually(&format!("{part} from {url} for {service}"), async || {
            let answer = self.page(service, url);
            answer.contains(part).then_some(()).ok_or(answer)
        })
        .await;
    }

    async fn published(&self, service: &str, port: u16, host: &str) -> Call {
        let at = self.project.published(&self.holder(service), port).await;
        get(at, host, "/")
    }

    async fn down_leaves_nothing(self) {
        self.project.compose(&["down", "--volumes", "--timeout", "5"]).await;
        assert_eq!(self.project.leftovers(), Vec::<String>::new());
    }
}

/// Waits for a response that contains `part`.
async fn answers(call: &Call, part: &str) -> Answer {
    let mut last = None;
    eventually(&format!("{part} from {call:?}"), async || {
        let answer = call.send().await?;
        let text = answer.text();
        let good = answer.status == 200 && text.contains(part);
        last = Some(answer);
        good.then_some(()).ok_or(text)
    })
    .await;
    last.unwrap()
}

/// The number of segments between containers that contain one of these words in plaintext.
fn in_plain_text(segments: &[Segment], words: &[&str], outside: std::net::IpAddr) -> usize {
    let inside = segments
        .iter()
        .filter(|segment| segment.from.0 != outside && segment.to.0 != outside);
    inside
        .filter(|segment| words.iter().any(|word| segment.holds(word)))
        .count()
}

#[tokio::test]
async fn a_web_application_and_its_database_with_envoys() {
    a_web_application_and_its_database("envoy", Compose::Second).await;
}

#[tokio::test]
async fn a_web_application_and_its_database_with_the_bundled_proxy() {
    a_web_application_and_its_database("rust", Compose::First).await;
}

async fn a_web_application_and_its_database(dataplane: &str, compose: Compose) {
    let shop = Injected::up("shop", dataplane, compose).await;
    let page = shop.published("web", 8000, "shop.example").await;
    answers(&page, "of shop.example").await;
    shop.page_says("worker", "http://web:8000/", "of web:8000").await;

    let capture = Capture::start(&shop.project.bridge()).await;
    for _ in 0..5 {
        answers(&page, "visit").await;
        shop.page_says("worker", "http://web:8000/marker-of-the-path", "visit")
            .await;
    }
    let segments = capture.stop().await;
    let words = ["marker-of-the-path", "visits-of-the-page", "HTTP/1.1", "INCR"];
    assert_eq!(in_plain_text(&segments, &words, shop.project.gateway()), 0);
    assert!(segments.iter().any(Segment::is_client_hello), "{}", segments.len());

    let sidecar = shop.of("web-sidecar");
    let before = sidecar.restarts();
    output(Command::new("docker").args(["restart", "--time", "1", shop.of("web").id()]));
    if shop.holder("web") == "web" {
        // It gets a new network namespace, and its sidecar follows.
        eventually("the sidecar follows", async || {
            (sidecar.restarts() > before)
                .then_some(())
                .ok_or_else(|| "it has not been started again".to_owned())
        })
        .await;
    } else {
        docker(&["restart", "--time", "1", sidecar.id()]);
    }
    shop.all_are_healthy().await;
    // The published port may have changed.
    let page = shop.published("web", 8000, "shop.example").await;
    answers(&page, "of shop.example").await;
    shop.page_says("worker", "http://web:8000/", "of web:8000").await;

    // After an edit that recreates a pod, containers that share its network use that of the new one.
    let file = shop.path.join("docker-compose.yml");
    let text = fs::read_to_string(&file).unwrap();
    let none = "topsail.io/ports: none";
    let label = format!("{none}\n      traffic.sidecar.istio.io/excludeOutboundPorts: \"25\"");
    fs::write(&file, text.replace(none, &label)).unwrap();
    shop.inject_and_start().await;
    shop.all_are_healthy().await;
    shop.page_says("worker", "http://web:8000/", "of web:8000").await;
    shop.down_leaves_nothing().await;
}

#[tokio::test]
async fn several_networks_with_envoys() {
    several_networks("envoy", Compose::First).await;
}

#[tokio::test]
async fn several_networks_with_the_bundled_proxy() {
    several_networks("rust", Compose::Second).await;
}

async fn several_networks(dataplane: &str, compose: Compose) {
    let project = Injected::up("networks", dataplane, compose).await;
    let page = project.published("edge", 80, "networks.example").await;
    answers(&page, "of networks.example").await;
    // The application's other network, under its alias there.
    project.page_says("probe", "http://app:8000/", "of app:8000").await;
    project
        .page_says("probe", "http://counter:8000/", "of counter:8000")
        .await;
    // Whatever the Compose file says about the application's network, and about services that share it or
    // link to it.
    let of_app = project.python(
        "app",
        "import socket; print(socket.gethostname(), socket.gethostbyname('elsewhere'))",
    );
    assert_eq!(of_app, "the-app 192.0.2.1");
    let limit = project.python("app", "print(open('/proc/sys/net/core/somaxconn').read())");
    assert_eq!(limit, "1234");
    project
        .page_says("neighbour", "http://127.0.0.1:8000/", "of 127.0.0.1:8000")
        .await;
    let address = "import socket; print(*sorted({socket.gethostbyname(name) for name in ['app', 'linked']}))";
    assert_eq!(project.python("outsider", address).split(' ').count(), 1);
    project.down_leaves_nothing().await;
}

#[tokio::test]
async fn a_service_that_is_left_alone() {
    let project = Injected::up("beside", "envoy", Compose::Second).await;
    let services = project.project.compose(&["config", "--services"]).await;
    assert!(!services.contains("legacy-sidecar"), "{services}");
    // It calls a service that accepts plaintext, is called in plaintext, and cannot reach the others.
    project.page_says("legacy", "http://api:8000/", "hello api").await;
    project.page_says("api", "http://legacy:8000/", "hello legacy").await;
    project.page_says("api", "http://private:8000/", "hello private").await;
    project.page_says("legacy", "http://private:8000/", "failed").await;
    project.down_leaves_nothing().await;
}

#[tokio::test]
async fn the_first_act_of_an_application_and_its_first_moment_with_envoys() {
    first_act_and_first_moment("envoy", Compose::Second).await;
}

#[tokio::test]
async fn the_first_act_of_an_application_and_its_first_moment_with_the_bundled_proxy() {
    first_act_and_first_moment("rust", Compose::First).await;
}

async fn first_act_and_first_moment(dataplane: &str, compose: Compose) {
    let project = Injected::started("first", dataplane, compose).await;
    let caller = project.of("caller");
    eventually("the caller is through", async || caller.has_ended()).await;
    assert_eq!(caller.logs(), "hello api:8000");

    // Destinations that are not in the mesh are not let through by the sidecar either.
    let asks = "import socket\n\
                connection = socket.create_connection(('store', 6379), 5)\n\
                try: connection.sendall(b'PING\\r\\n'); print(connection.recv(100))\n\
                except ConnectionResetError: print(b'')";
    assert_eq!(project.python("api", asks), "b''");

    // A client without a sidecar that is answered in plaintext by services without one never gets a response
    // from the others.
    let stranger = project.of("stranger");
    eventually("the stranger tries them all", async || {
        let said = stranger.logs();
        let tried = ["legacy:8000 answered", "api:8000 closed", "store:6379 closed"];
        tried.iter().all(|line| said.contains(line)).then_some(()).ok_or(said)
    })
    .await;
    project.all_are_healthy().await;
    // Nor after a restart.
    let store = project.of("store");
    docker(&["restart", "--time", "1", store.id()]);
    eventually("it is there again", async || store.is_healthy()).await;
    let said = stranger.logs();
    let answers: Vec<&str> = said.lines().filter(|line| line.ends_with("answered")).collect();
    assert_eq!(answers, ["legacy:8000 answered"], "{said}");
    project.down_leaves_nothing().await;
}

/// Runs the commands of docs/inject.md.
#[tokio::test]
async fn every_command_of_the_page_does_its_work() {
    let (repository, folder) = (Path::new(env!("CARGO_MANIFEST_DIR")), tempfile::tempdir().unwrap());
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let page = fs::read_to_string(repository.join("docs/inject.md")).unwrap();
    let page = page.replace("127.0.0.1:8080", &format!("127.0.0.1:{port}"));
    let checkout = folder.path().join("shop");
    fs::create_dir(&checkout).unwrap();
    let file = checkout.join("docker-compose.yml");
    fs::write(&file, blocks(&page, "yaml")[0]).unwrap();
    fs::copy(repository.join("tests/docker/projects/web.py"), checkout.join("web.py")).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_topsail")).parent().unwrap();
    let path = format!("{}:{}", program.display(), Compose::Second.path(folder.path()));
    // Takes down what is left if a command fails.
    let project = Project::new("inject-page", Compose::Second, &[&file], &checkout);
    let commands = blocks(&page, "sh");
    assert!(commands.len() > 3, "{commands:?}");
    for block in commands {
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", block]).current_dir(&checkout);
        command.env("PATH", &path).env("COMPOSE_PROJECT_NAME", project.name());
        command.env("TOPSAIL_IMAGE", format!("topsail:{TAG}"));
        command.env("TOPSAIL_SIDECAR_IMAGE", format!("topsail-sidecar-envoy:{TAG}"));
        println!("$ {block}");
        println!(
            "{}",
            tokio::task::spawn_blocking(move || output(&mut command)).await.unwrap()
        );
    }
    assert_eq!(project.leftovers(), Vec::<String>::new());
    let left = fs::read_dir(&checkout).unwrap().count();
    assert_eq!(left, 2, "the project is as it was");
}

/// The page's code blocks in a language.
fn blocks<'p>(page: &'p str, language: &str) -> Vec<&'p str> {
    let fence = format!("```{language}\n");
    let blocks = page.split(&*fence).skip(1);
    blocks
        .map(|block| block.split("```").next().unwrap_or_default())
        .collect()
}
