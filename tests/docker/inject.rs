//! `topsail inject` on projects that know nothing of a mesh, on each data plane.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::capture::{Capture, Segment};
use crate::documentation;
use crate::engine::{Container, Project, TAG, output};
use crate::harness::{Answer, Call, eventually, get};

/// A project of `tests/docker/projects` in a folder of its own, with its override.
struct Injected {
    project: Project,
    _folder: TempDir,
}

impl Injected {
    /// Injects and starts it.
    async fn up(name: &str, dataplane: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let projects = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/docker/projects");
        let path = folder.path().join(name);
        fs::create_dir(&path).unwrap();
        fs::copy(projects.join("web.py"), folder.path().join("web.py")).unwrap();
        for entry in fs::read_dir(projects.join(name)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), path.join(entry.file_name())).unwrap();
        }
        let sidecar_image = match dataplane {
            "envoy" => format!("topsail-sidecar-envoy:{TAG}"),
            _ => format!("topsail:{TAG}"),
        };
        let mut inject = Command::new(env!("CARGO_BIN_EXE_topsail"));
        let image = format!("topsail:{TAG}");
        inject.args(["inject", "--image", &image, "--sidecar-image", &sidecar_image]);
        inject.args(["--dataplane", dataplane]).current_dir(&path);
        output(&mut inject);
        let files = ["docker-compose.yml", "docker-compose.topsail.yml"].map(|name| path.join(name));
        let project = Project::new(&format!("{name}-{dataplane}"), &[&files[0], &files[1]], &path);
        project.compose(&["up", "--detach"]).await;
        let injected = Self {
            project,
            _folder: folder,
        };
        injected.all_are_healthy().await;
        injected
    }

    /// Waits until every sidecar has its configuration, and all others know where it is.
    async fn all_are_healthy(&self) {
        let services = self.project.compose(&["config", "--services"]).await;
        for sidecar in services.lines().filter(|name| name.ends_with("-sidecar")) {
            for container in self.project.containers(sidecar) {
                eventually(&format!("{sidecar} is healthy"), async || container.is_healthy()).await;
            }
        }
    }

    fn of(&self, service: &str) -> Container {
        self.project.container(service)
    }

    /// What a container with Python gets from a page of the project.
    fn page(&self, service: &str, url: &str) -> String {
        let script = "import sys, urllib.request, urllib.error\n\
                      try: print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())\n\
                      except urllib.error.HTTPError as error: print(error.code, error.read().decode())\n\
                      except OSError as error: print('failed:', error)";
        self.of(service).exec(&["python3", "-c", script, url])
    }

    /// The same, until the answer holds `part`.
    async fn page_says(&self, service: &str, url: &str, part: &str) {
        eventually(&format!("{part} from {url} for {service}"), async || {
            let answer = self.page(service, url);
            answer.contains(part).then_some(()).ok_or(answer)
        })
        .await;
    }

    async fn published(&self, service: &str, port: u16, host: &str) -> Call {
        let at = self.project.published(service, port).await;
        get(at, host, "/")
    }

    async fn down_leaves_nothing(self) {
        self.project.compose(&["down", "--volumes", "--timeout", "5"]).await;
        assert_eq!(self.project.leftovers(), [String::new(); 0]);
    }
}

/// Waits for an answer that holds `part`.
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

/// Segments between containers that hold one of these, which TLS would have hidden.
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
    a_web_application_and_its_database("envoy").await;
}

#[tokio::test]
async fn a_web_application_and_its_database_with_the_bundled_proxy() {
    a_web_application_and_its_database("rust").await;
}

async fn a_web_application_and_its_database(dataplane: &str) {
    let shop = Injected::up("shop", dataplane).await;
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

    // Its container is started again, in another network namespace, and its sidecar follows.
    let sidecar = shop.of("web-sidecar");
    let before = sidecar.restarts();
    output(Command::new("docker").args(["restart", "--time", "1", shop.of("web").id()]));
    eventually("the sidecar follows", async || {
        (sidecar.restarts() > before)
            .then_some(())
            .ok_or_else(|| "it has not been started again".to_owned())
    })
    .await;
    shop.all_are_healthy().await;
    // The engine may have published it anew.
    let page = shop.published("web", 8000, "shop.example").await;
    answers(&page, "of shop.example").await;
    shop.page_says("worker", "http://web:8000/", "of web:8000").await;
    shop.down_leaves_nothing().await;
}

#[tokio::test]
async fn several_networks_with_envoys() {
    several_networks("envoy").await;
}

#[tokio::test]
async fn several_networks_with_the_bundled_proxy() {
    several_networks("rust").await;
}

async fn several_networks(dataplane: &str) {
    let project = Injected::up("networks", dataplane).await;
    let page = project.published("edge", 80, "networks.example").await;
    answers(&page, "of networks.example").await;
    // The other network of the application, under the name that it has there.
    project.page_says("probe", "http://app:8000/", "of app:8000").await;
    project
        .page_says("probe", "http://counter:8000/", "of counter:8000")
        .await;
    project.down_leaves_nothing().await;
}

#[tokio::test]
async fn a_service_that_is_left_alone() {
    let project = Injected::up("beside", "envoy").await;
    let services = project.project.compose(&["config", "--services"]).await;
    assert!(!services.contains("legacy-sidecar"), "{services}");
    // It calls who takes plaintext, is called in plaintext, and gets nothing from the others.
    project.page_says("legacy", "http://api:8000/", "hello api").await;
    project.page_says("api", "http://legacy:8000/", "hello legacy").await;
    project.page_says("api", "http://private:8000/", "hello private").await;
    project.page_says("legacy", "http://private:8000/", "failed").await;
    project.down_leaves_nothing().await;
}

/// docs/inject.md, block by block.
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
    let path = format!(
        "{}:{}",
        program.display(),
        documentation::path_with_compose(folder.path())
    );
    // Takes down what is left when a command fails.
    let project = Project::new("inject-page", &[&file], &checkout);
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
    assert_eq!(project.leftovers(), [String::new(); 0]);
    let left = fs::read_dir(&checkout).unwrap().count();
    assert_eq!(left, 2, "the project is as it was");
}

/// The blocks of a language.
fn blocks<'p>(page: &'p str, language: &str) -> Vec<&'p str> {
    let fence = format!("```{language}\n");
    let blocks = page.split(&*fence).skip(1);
    blocks
        .map(|block| block.split("```").next().unwrap_or_default())
        .collect()
}
