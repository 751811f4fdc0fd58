//! `topsail inject` without an engine: what it reads, writes and rejects.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::run::{text, topsail};

/// The projects that the Docker tests run.
fn projects() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/docker/projects")
}

/// Runs it in a directory, for Compose 2 and without an engine.
fn inject(folder: &Path, arguments: &[&str]) -> Output {
    inject_for("2", folder, arguments)
}

fn inject_for(compose: &str, folder: &Path, arguments: &[&str]) -> Output {
    let mut command = topsail(&["inject", "--offline", "--compose", compose]);
    command.env_remove("COMPOSE_FILE").env_remove("COMPOSE_PATH_SEPARATOR");
    command.args(arguments).current_dir(folder).output().unwrap()
}

/// Exit code, standard output, standard error.
fn of(output: &Output) -> (Option<i32>, &str, &str) {
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// A directory with a Compose file.
fn folder(compose: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("docker-compose.yml"), compose).unwrap();
    folder
}

/// All files below a directory, with their content.
fn files(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(next) = pending.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => pending.push(path),
                false => {
                    let name = path.strip_prefix(folder).unwrap().display().to_string();
                    found.push((name, fs::read_to_string(path).unwrap()));
                }
            }
        }
    }
    found.sort();
    found
}

const WEB: &str = "services:\n  web: {image: web, ports: [\"80:8000\"]}\n  db: {image: redis, scale: 1}\n";

#[test]
fn injected_projects() {
    for project in ["shop", "networks", "beside"] {
        for compose in ["2", "1"] {
            let output = inject_for(compose, &projects().join(project), &["--dry-run"]);
            let (code, stdout, stderr) = of(&output);
            assert_eq!((code, stderr), (Some(0), ""));
            insta::assert_snapshot!(format!("inject_{project}_{compose}"), stdout);
        }
    }
}

#[test]
fn override_has_data_plane_images_labels_and_profiles() {
    let folder = folder(
        "
services:
  a:
    image: a
    profiles: [x, y]
    labels:
      topsail.io/ports: \"80\"
      sidecar.istio.io/interceptionMode: TPROXY
      sidecar.istio.io/logLevel: debug
      traffic.sidecar.istio.io/excludeOutboundPorts: \"25, 587\"
      traffic.sidecar.istio.io/includeInboundPorts: \"\"
",
    );
    let arguments = ["--dry-run", "--dataplane", "rust", "--image", "registry/topsail:1"];
    let output = inject(folder.path(), &arguments);
    let (_, stdout, _) = of(&output);
    let override_file = stdout.split("--- # docker-compose.topsail.yml").nth(1).unwrap();
    let sidecar = &override_file[override_file.find("  a-pod:").unwrap()..];
    insta::assert_snapshot!("inject_labels", sidecar);
}

#[test]
fn a_second_run_removes_only_obsolete_objects() {
    let folder = folder(WEB);
    let path = folder.path();
    let output = inject(path, &[]);
    let (code, stdout, stderr) = of(&output);
    assert_eq!((code, stderr), (Some(0), ""));
    let told = "web: pod web-pod, sidecar web-sidecar, 8000 auto (plaintext too)\ndb: pod db-pod, sidecar db-sidecar, 6379 tcp\n";
    assert!(stdout.starts_with(told), "{stdout}");
    assert!(
        stdout.ends_with("start with: docker compose -f docker-compose.yml -f docker-compose.topsail.yml up -d\n"),
        "{stdout}"
    );
    let written = files(path);
    let names: Vec<&str> = written.iter().map(|(name, _)| &**name).collect();
    let of_mesh = [
        "mesh/compose/db.yaml",
        "mesh/compose/topsail.yaml",
        "mesh/compose/web.yaml",
    ];
    assert_eq!(
        names,
        [&["docker-compose.topsail.yml", "docker-compose.yml"][..], &of_mesh].concat()
    );
    let again = inject(path, &[]);
    assert_eq!(of(&again).1.matches(": unchanged").count(), 4, "{}", of(&again).1);
    assert_eq!(files(path), written);
    fs::write(
        path.join("docker-compose.yml"),
        WEB.lines().take(2).collect::<Vec<_>>().join("\n"),
    )
    .unwrap();
    let third = inject(path, &[]);
    assert!(
        of(&third).1.contains("mesh/compose/db.yaml: removed"),
        "{}",
        of(&third).1
    );
    assert!(!path.join("mesh/compose/db.yaml").exists());
    assert!(
        topsail(&["check", "mesh"])
            .current_dir(path)
            .status()
            .unwrap()
            .success()
    );
}

#[test]
fn edited_files_are_not_replaced() {
    let folder = folder(WEB);
    let path = folder.path();
    inject(path, &[]);
    let web = path.join("mesh/compose/web.yaml");
    let edited = fs::read_to_string(&web).unwrap().replace("port: 8000", "port: 8001");
    fs::write(&web, &edited).unwrap();
    fs::write(path.join("docker-compose.yml"), WEB.replace("redis", "postgres")).unwrap();
    let before = files(path);
    let output = inject(path, &[]);
    let (code, stdout, stderr) = of(&output);
    assert_eq!((code, stdout), (Some(1), ""));
    assert!(stderr.contains("mesh/compose/web.yaml:1:1: error[TS0025]"), "{stderr}");
    assert!(stderr.ends_with("nothing was written: 1 error\n"), "{stderr}");
    assert_eq!(files(path), before);
    // Without the marker in its first line, the file is maintained by hand.
    fs::write(&web, edited.split_once('\n').unwrap().1).unwrap();
    let output = inject(path, &[]);
    let (code, stdout, stderr) = of(&output);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(
        stderr.contains("info[TS0025]") && stdout.contains("db.yaml: replaced"),
        "{stderr}{stdout}"
    );
    assert!(fs::read_to_string(&web).unwrap().contains("port: 8001"));
    // An override that was not generated.
    fs::write(path.join("docker-compose.topsail.yml"), "services: {}\n").unwrap();
    assert_eq!(of(&inject(path, &[])).0, Some(1));
    assert_eq!(of(&inject(path, &["--force"])).0, Some(0));
    assert!(!fs::read_to_string(&web).unwrap().contains("port: 8001"));
}

#[test]
fn errors_have_locations_and_nothing_is_written() {
    let folder = folder(
        "services:\n  web: {image: web, network_mode: host}\n  db:\n    expose: [15001]\n    labels: {topsail.io/port: \"1\"}\n",
    );
    let output = inject(folder.path(), &[]);
    let (code, stdout, stderr) = of(&output);
    assert_eq!((code, stdout), (Some(1), ""));
    insta::assert_snapshot!("inject_errors", stderr);
    assert_eq!(files(folder.path()).len(), 1);
    let output = inject(folder.path(), &["-f", "none.yml"]);
    let (code, _, stderr) = of(&output);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("error[TS0009]: cannot read none.yml"), "{stderr}");
}

#[test]
fn files_are_discovered_and_merged_as_by_compose() {
    let folder = folder(WEB);
    let path = folder.path();
    fs::write(
        path.join("docker-compose.override.yml"),
        "services: {db: {expose: [7000]}}\n",
    )
    .unwrap();
    fs::write(
        path.join("prod.yml"),
        "services: {db: {labels: [\"topsail.io/inject=true\"]}}\n",
    )
    .unwrap();
    fs::create_dir(path.join("below")).unwrap();
    let output = inject(&path.join("below"), &[]);
    let (_, stdout, stderr) = of(&output);
    assert!(
        stdout.contains("db: pod db-pod, sidecar db-sidecar, 7000 auto\n"),
        "{stdout}{stderr}"
    );
    assert!(path.join("docker-compose.topsail.yml").is_file());
    let text = fs::read_to_string(path.join("docker-compose.topsail.yml")).unwrap();
    assert!(text.contains("./mesh:/etc/topsail/mesh:ro"), "{text}");
    let arguments = [
        "-f",
        "docker-compose.yml",
        "-f",
        "prod.yml",
        "--override",
        "o.yml",
        "--config",
        "m",
    ];
    let output = inject(path, &arguments);
    let (_, stdout, _) = of(&output);
    assert!(
        stdout.contains("db: pod") && stdout.contains("web: not injected"),
        "{stdout}"
    );
    assert!(
        stdout.ends_with("-f docker-compose.yml -f prod.yml -f o.yml up -d\n"),
        "{stdout}"
    );
    assert!(path.join("m/compose/db.yaml").is_file());
    let mut command = topsail(&["inject", "--offline", "--dry-run", "--compose", "2"]);
    command.env("COMPOSE_FILE", "docker-compose.yml:docker-compose.topsail.yml");
    let output = command.current_dir(path).output().unwrap();
    assert!(text_of(&output).contains("port: 6379"), "{}", text_of(&output));
}

fn text_of(output: &Output) -> String {
    text(&output.stdout).to_owned() + text(&output.stderr)
}

#[test]
fn a_missing_project_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    // A parent directory may contain a Compose file on the machine this runs on.
    fs::write(
        folder.path().join("compose.yaml"),
        "services: {a: {labels: {topsail.io/inject: \"false\"}}}\n",
    )
    .unwrap();
    let output = inject(folder.path(), &[]);
    let (code, _, stderr) = of(&output);
    assert_eq!(code, Some(2));
    assert!(
        stderr.contains("no service of compose.yaml is selected for injection"),
        "{stderr}"
    );
    fs::write(folder.path().join("compose.yaml"), "services: {}\n").unwrap();
    assert_eq!(of(&inject(folder.path(), &[])).0, Some(2));
    assert_eq!(of(&inject(folder.path(), &["--all", "--labelled"])).0, Some(2));
}

/// A directory with programs that print these texts; those without a text fail.
fn programs(texts: &[(&str, Option<&str>)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in texts {
        let script = match text {
            Some(text) => format!("#!/bin/sh\necho '{text}'\n"),
            None => "#!/bin/sh\nexit 1\n".to_owned(),
        };
        let path = folder.path().join(name);
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    }
    folder
}

#[test]
fn override_suits_the_installed_compose() {
    let told = |programs: &tempfile::TempDir, arguments: &[&str]| {
        let folder = folder(WEB);
        let mut command = topsail(&["inject", "--offline"]);
        command.env_remove("COMPOSE_FILE").env("PATH", programs.path());
        let output = command.args(arguments).current_dir(folder.path()).output().unwrap();
        text_of(&output)
    };
    let second = programs(&[("docker", Some("2.26.1-4")), ("docker-compose", Some("1.29.2"))]);
    let text = told(&second, &[]);
    assert!(text.contains("for docker compose 2.26.1: every service"), "{text}");
    assert!(text.ends_with("start with: docker compose -f docker-compose.yml -f docker-compose.topsail.yml up -d\n"));
    let text = told(&second, &["--compose", "1.29"]);
    assert!(text.contains("for Compose 1.29, which cannot reset"), "{text}");
    assert!(text.contains("start with: docker-compose -f"), "{text}");
    let first = programs(&[("docker", None), ("docker-compose", Some("1.29.2"))]);
    let text = told(&first, &[]);
    assert!(
        text.contains("web: no pod (it has `ports`), sidecar web-sidecar") && text.contains("db: pod db-pod"),
        "{text}"
    );
    assert!(text.contains("for docker-compose 1.29.2, which cannot reset"), "{text}");
    assert!(text.contains("start with: docker-compose -f"), "{text}");
    let none = programs(&[]);
    let text = told(&none, &[]);
    assert!(
        text.contains("for an unknown version of Compose (not installed here), which"),
        "{text}"
    );
    assert!(text.contains("start with: docker compose -f"), "{text}");
    assert!(told(&none, &["--compose", "two"]).contains("expected a Compose version"));
}

#[test]
fn json_output() {
    let folder = folder(WEB);
    let path = folder.path();
    let json = |compose: &str, arguments: &[&str]| {
        let output = inject_for(compose, path, &[&["-o", "json"], arguments].concat());
        let (code, stdout, stderr) = of(&output);
        assert_eq!((code, stderr), (Some(0), ""));
        serde_json::from_str::<serde_json::Value>(stdout).unwrap()
    };
    let looked = json("1.29.2", &["--dry-run"]);
    assert!(
        looked["files"][0]["text"].as_str().unwrap().starts_with("# Made by"),
        "{looked:#}"
    );
    assert_eq!(files(path).len(), 1);
    insta::assert_snapshot!("inject_json", format!("{:#}", json("1.29.2", &[])));
    let again = json("2", &["--all"]);
    let (services, files) = (&again["services"], &again["files"]);
    assert_eq!(
        (&services[0]["pod"], &services[0]["withoutPod"]),
        (&"web-pod".into(), &serde_json::Value::Null)
    );
    assert_eq!(
        (&files[0]["change"], &files[3]["change"]),
        (&"unchanged".into(), &"replaced".into())
    );
}
