//! docs/compose.md, command by command.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::bookinfo::copy;
use crate::engine::{Compose, Project, TAG, attempt};
use crate::harness::eventually;

/// Stands in for Grafana, of which there is no image where no registry is reached.
const WITHOUT_GRAFANA: &str =
    "services: {grafana: {image: \"topsail-bookinfo:test\", command: \"details --listen 0.0.0.0:3000\"}}\n";

#[tokio::test]
async fn every_command_of_the_page_does_its_work() {
    let (repository, folder) = (Path::new(env!("CARGO_MANIFEST_DIR")), tempfile::tempdir().unwrap());
    let checkout = folder.path().join("topsail");
    copy(&repository.join("examples"), &checkout.join("examples"));
    let file = checkout.join("docker-compose.yml");
    fs::copy(repository.join("docker-compose.yml"), &file).unwrap();
    let override_file = folder.path().join("override.yml");
    fs::write(&override_file, WITHOUT_GRAFANA).unwrap();
    let compose = Compose::Second;
    let path = compose.path(folder.path());

    // Takes down what is left when a command fails.
    let project = Project::new("page", compose, &[&file, &override_file], &checkout);
    let page = fs::read_to_string(repository.join("docs/compose.md")).unwrap();
    let commands = commands(&page);
    assert!(commands.len() > 5, "{commands:?}");
    for line in commands {
        let mut command = Command::new("sh");
        command
            .args(["-c", line])
            .current_dir(&checkout)
            .env("PATH", &path)
            .env("COMPOSE_PROJECT_NAME", project.name())
            .env(
                "COMPOSE_FILE",
                format!("{}:{}", file.display(), override_file.display()),
            )
            .env("TOPSAIL_TAG", TAG)
            .env("TOPSAIL_PROMETHEUS", "127.0.0.1:0")
            .env("TOPSAIL_GRAFANA", "127.0.0.1:0");
        println!("$ {line}");
        // `topsail status` fails while something is on its way to a proxy.
        let printed = eventually(line, async || attempt(&mut command)).await;
        println!("{printed}");
    }
    assert!(project.leftovers().is_empty(), "{:?}", project.leftovers());
}

/// The lines of the page's blocks of shell.
fn commands(page: &str) -> Vec<&str> {
    let blocks = page.split("```sh\n").skip(1);
    blocks
        .flat_map(|block| block.split("```").next().unwrap_or_default().lines())
        .collect()
}
