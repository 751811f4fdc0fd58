//! Invalid files do not affect other configuration. Until they are repaired, the log, the admin API and `topsail check`
//! report them with their position.

use std::fs;
use std::io::Write;

use serde_json::Value;

use crate::harness::{Plane, eventually, run};
use crate::on_each_plane;
use crate::web::{Web, routed};

on_each_plane! {
    one_invalid_file_is_reported_and_does_not_affect_other_configuration,
    a_file_is_not_read_while_it_is_being_written,
}

/// A mesh with two services: the file of `patient` is going to be invalid, that of `sound` stays valid.
async fn start(plane: Plane) -> Web {
    let web = Web::start(plane, &[to("sound", "v1")]).await;
    web.mesh.write("patient.yaml", &to("patient", "v1"));
    web.reachable("sound").await;
    web.reachable("patient").await;
    web
}

fn to(host: &str, version: &str) -> String {
    routed(
        host,
        &format!("- route: [{{destination: {{host: HOST, subset: {version}}}}}]"),
    )
}

/// An invalid version of `patient.yaml`, and the diagnostic to expect.
struct Breakage {
    what: &'static str,
    text: String,
    code: Option<&'static str>,
    line: usize,
}

fn line_of(text: &str, part: &str) -> usize {
    text[..text.find(part).unwrap()].lines().count().max(1)
}

fn breakages() -> Vec<Breakage> {
    let sound = to("patient", "v1");
    let half = sound[..sound.find("hosts: [patient]").unwrap() + "hosts: [pat".len()].to_owned();
    let unknown_field = sound.replace("  hosts:", "  host: nonsense\n  hosts:");
    let dangling = sound.replace("subset: v1}}]", "subset: v9}}]");
    let not_yaml = sound.replace("spec:\n  hosts", "spec: ][\n  hosts");
    vec![
        Breakage {
            what: "broken YAML",
            line: line_of(&not_yaml, "]["),
            text: not_yaml,
            code: None,
        },
        Breakage {
            what: "half a file",
            line: line_of(&half, "[pat"),
            text: half,
            code: None,
        },
        Breakage {
            what: "an emptied file",
            line: 1,
            text: String::new(),
            code: None,
        },
        Breakage {
            what: "an unknown field",
            line: line_of(&unknown_field, "host: nonsense"),
            text: unknown_field,
            code: None,
        },
        Breakage {
            what: "a dangling reference",
            line: line_of(&dangling, "v9"),
            text: dangling,
            code: Some("IST0101"),
        },
    ]
}

fn mentions(found: &Value, line: usize) -> bool {
    let text = found.to_string();
    text.contains("patient.yaml")
        && (text.contains(&format!("patient.yaml:{line}:")) || text.contains(&format!("\"line\":{line}")))
}

async fn one_invalid_file_is_reported_and_does_not_affect_other_configuration(plane: Plane) {
    let web = start(plane).await;
    for Breakage { what, text, code, line } in breakages() {
        fs::write(web.mesh.server.config().join("patient.yaml"), &text).unwrap();
        eventually(&format!("{what} is reported at line {line}"), async || {
            let found = web.mesh.diagnostics().await;
            let hit = found
                .iter()
                .any(|one| mentions(one, line) && code.is_none_or(|code| one["code"] == code));
            if hit { Ok(()) } else { Err(format!("{found:#?}")) }
        })
        .await;
        for host in ["sound", "patient"] {
            assert_eq!(
                web.get(host, "/").count(5).await,
                [("web-v1".to_owned(), 5)].into(),
                "{what}: {host}"
            );
        }
        let place = format!("patient.yaml:{line}:");
        assert!(
            web.mesh.server.log().contains(&place),
            "{what}: {}",
            web.mesh.server.log()
        );
        let check = run(&["check", web.mesh.server.config().to_str().unwrap()]).await;
        let printed = String::from_utf8_lossy(&check.stdout);
        // `topsail check` does not know the former content, so an empty file is valid.
        let said = check.status.code() == Some(1) && printed.contains(&place);
        assert!(said || text.is_empty(), "{what}: {printed}");

        web.mesh.write("another.yaml", &to("another", "v2"));
        web.reachable("another").await;
        web.mesh.remove("another.yaml");

        web.mesh.write("patient.yaml", &to("patient", "v2"));
        eventually(&format!("{what}: the repaired file is applied"), async || {
            let answer = web.get("patient", "/").send().await?;
            let found = web.mesh.diagnostics().await;
            if answer.seen().backend == "web-v2" && found.is_empty() {
                Ok(())
            } else {
                Err(format!("{found:?}"))
            }
        })
        .await;
        web.mesh.write("patient.yaml", &to("patient", "v1"));
        eventually("the original file is applied", async || {
            let seen = web.get("patient", "/").send().await?.seen();
            if seen.backend == "web-v1" {
                Ok(())
            } else {
                Err(seen.backend)
            }
        })
        .await;
    }
}

async fn a_file_is_not_read_while_it_is_being_written(plane: Plane) {
    let web = start(plane).await;
    let text = to("patient", "v2");
    let (first, rest) = text.split_at(text.rfind("---").unwrap());
    let mut file = fs::File::create(web.mesh.server.config().join("patient.yaml")).unwrap();
    file.write_all(first.as_bytes()).unwrap();
    file.flush().unwrap();
    // Meanwhile the directory is read again because of another file.
    web.mesh.write("another.yaml", &to("another", "v2"));
    web.reachable("another").await;
    assert_eq!(
        web.get("patient", "/").count(5).await,
        [("web-v1".to_owned(), 5)].into()
    );
    assert_eq!(web.mesh.diagnostics().await, Vec::<Value>::new());
    file.write_all(rest.as_bytes()).unwrap();
    drop(file);
    eventually("the complete file is applied", async || {
        let seen = web.get("patient", "/").send().await?.seen();
        if seen.backend == "web-v2" {
            Ok(())
        } else {
            Err(seen.backend)
        }
    })
    .await;
}
