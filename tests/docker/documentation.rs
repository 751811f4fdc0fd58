//! Runs the commands of docs/compose.md.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::bookinfo::copy;
use crate::engine::{Compose, Project, TAG, attempt};
use crate::harness::{eventually, get};

/// Replaces Grafana, which has no image if no registry can be reached.
const WITHOUT_GRAFANA: &str = r#"
services:
  grafana:
    image: python:3.11-slim-bookworm
    command: [python3, /grafana.py]
    init: true
    volumes: ["REPOSITORY/tests/docker/grafana.py:/grafana.py:ro"]
"#;

#[tokio::test]
async fn every_command_of_the_page_does_its_work() {
    let (repository, folder) = (Path::new(env!("CARGO_MANIFEST_DIR")), tempfile::tempdir().unwrap());
    let checkout = folder.path().join("topsail");
    copy(&repository.join("examples"), &checkout.join("examples"));
    let file = checkout.join("docker-compose.yml");
    fs::copy(repository.join("docker-compose.yml"), &file).unwrap();
    let override_file = folder.path().join("override.yml");
    let without_grafana = WITHOUT_GRAFANA.replace("REPOSITORY", &repository.display().to_string());
    fs::write(&override_file, without_grafana).unwrap();
    let compose = Compose::Second;
    let path = compose.path(folder.path());

    // Takes down what is left if a command fails.
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
        // `topsail status` fails while a proxy is not in sync.
        let printed = eventually(line, async || attempt(&mut command)).await;
        println!("{printed}");
        if line.ends_with("topsail status") {
            dashboards_have_data(&project).await;
        }
    }
    assert!(project.leftovers().is_empty(), "{:?}", project.leftovers());
}

/// Every panel of the dashboards has data.
async fn dashboards_have_data(project: &Project) {
    let grafana = get(project.published("grafana", 3000).await, "grafana", "/");
    eventually("the dashboards", async || {
        let answer = grafana.send().await?;
        (answer.status == 200).then_some(()).ok_or(answer.text())
    })
    .await;
}

/// The lines of the page's shell blocks.
fn commands(page: &str) -> Vec<&str> {
    let blocks = page.split("```sh\n").skip(1);
    blocks
        .flat_map(|block| block.split("```").next().unwrap_or_default().lines())
        .collect()
}
