//! Edits of the configuration directory reach the data planes, change the traffic and lose no requests.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::harness::{Load, Plane, Planes, eventually, run};
use crate::web::{Web, routed, service};
use crate::{on_each_pair_of_planes, on_each_plane};

on_each_pair_of_planes! {
    two_hundred_edits_under_load_lose_no_requests,
}

on_each_plane! {
    in_place_writes_renames_and_new_directories_are_detected,
    a_swapped_symlink_is_detected_as_in_config_map_volumes,
    copying_many_files_applies_all_of_them,
}

/// A service with a route that sends all requests to one subset.
fn all_to(version: &str) -> String {
    routed(
        "web",
        &format!("- route: [{{destination: {{host: HOST, subset: {version}}}}}]"),
    )
}

async fn answered_by(web: &Web, host: &str, backend: &str) {
    eventually(&format!("{backend} answers for {host}"), async || {
        let answer = web.get(host, "/").send().await?;
        if answer.status != 200 {
            return Err(answer.text());
        }
        // A single answer may still come from the previous configuration.
        let answered = web.get(host, "/").count(10).await;
        match answered == [(backend.to_owned(), 10)].into() {
            true => Ok(()),
            false => Err(format!("{answered:?}")),
        }
    })
    .await;
}

async fn in_place_writes_renames_and_new_directories_are_detected(plane: Plane) {
    let web = Web::start(plane, &[all_to("v1")]).await;
    answered_by(&web, "web", "web-v1").await;
    let file = web.mesh.server.config().join("web.yaml");

    fs::write(&file, all_to("v2")).unwrap();
    answered_by(&web, "web", "web-v2").await;

    web.mesh.write("web.yaml", &all_to("v1"));
    answered_by(&web, "web", "web-v1").await;

    fs::remove_file(&file).unwrap();
    fs::create_dir(web.mesh.server.config().join("deep")).unwrap();
    fs::write(web.mesh.server.config().join("deep/again.yml"), all_to("v2")).unwrap();
    answered_by(&web, "web", "web-v2").await;
}

/// Points the symlink `..data` in `folder` to a new directory with `web.yaml`, as Kubernetes does in ConfigMap volumes.
fn swap(folder: &Path, generation: &str, text: &str) {
    let target = folder.join(format!("..{generation}"));
    fs::create_dir(&target).unwrap();
    fs::write(target.join("web.yaml"), text).unwrap();
    symlink(format!("..{generation}"), folder.join("..data_tmp")).unwrap();
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
}

async fn a_swapped_symlink_is_detected_as_in_config_map_volumes(plane: Plane) {
    let web = Web::start(plane, &[service("other")]).await;
    let volume = web.mesh.server.config().join("volume");
    fs::create_dir(&volume).unwrap();
    swap(&volume, "one", &all_to("v1"));
    symlink("..data/web.yaml", volume.join("web.yaml")).unwrap();
    answered_by(&web, "web", "web-v1").await;
    swap(&volume, "two", &all_to("v2"));
    fs::remove_dir_all(volume.join("..one")).unwrap();
    answered_by(&web, "web", "web-v2").await;
}

async fn copying_many_files_applies_all_of_them(plane: Plane) {
    let web = Web::start(plane, &[all_to("v1")]).await;
    let source = tempfile::tempdir().unwrap();
    for number in 0..40 {
        let rules = "- route: [{destination: {host: HOST, subset: v2}}]";
        fs::write(
            source.path().join(format!("copy-{number}.yaml")),
            routed(&format!("copy-{number}"), rules),
        )
        .unwrap();
    }
    let copied = tokio::process::Command::new("cp")
        .arg("-r")
        .arg(source.path().join("."))
        .arg(web.mesh.server.config())
        .status();
    assert!(copied.await.unwrap().success());
    for number in 0..40 {
        answered_by(&web, &format!("copy-{number}"), "web-v2").await;
    }
    answered_by(&web, "web", "web-v1").await;
}

/// The documents of edit `number`: weights change, subsets and services are added and removed.
fn documents(number: usize) -> String {
    let weight = number % 100;
    let with_extra = number % 4 >= 2;
    let extra = if with_extra {
        "\n  - {destination: {host: HOST, subset: extra}, weight: 10}"
    } else {
        ""
    };
    let mut text = routed(
        "web",
        &format!(
            "
- route:
  - {{destination: {{host: HOST, subset: v1}}, weight: {}}}
  - {{destination: {{host: HOST, subset: v2}}, weight: {weight}}}{extra}",
            100 - weight
        ),
    );
    if with_extra {
        text = text.replace("subsets: [", "subsets: [{name: extra, labels: {app: web}}, ");
    }
    if number.is_multiple_of(3) {
        text = format!(
            "{text}\n---\n{}",
            routed("sometimes", "- route: [{destination: {host: HOST, subset: v1}}]")
        );
    }
    text
}

async fn two_hundred_edits_under_load_lose_no_requests(planes: Planes) {
    let web = Web::start(planes, &[documents(0)]).await;
    web.reachable("web").await;
    let load = Load::start(web.get("web", "/load"), 200);
    let mut generation = web.mesh.server.generation().await;
    for number in 1..=200 {
        web.mesh.write("web.yaml", &documents(number));
        generation = eventually(&format!("edit {number}"), async || {
            let now = web.mesh.server.generation().await;
            if now > generation {
                Ok(now)
            } else {
                Err(format!("still generation {now}"))
            }
        })
        .await;
    }
    web.mesh.write("web.yaml", &all_to("v2"));
    answered_by(&web, "web", "web-v2").await;
    let report = load.stop().await;
    report.assert_lossless();
    assert!(
        report.answered["web-v1"] > 0 && report.answered["web-v2"] > 0,
        "{report:?}"
    );
    assert_eq!(web.mesh.diagnostics().await, Vec::<serde_json::Value>::new());
    let check = run(&["check", web.mesh.server.config().to_str().unwrap()]).await;
    assert!(check.status.success());
}
