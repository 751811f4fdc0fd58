//! Running demos, and how they end.

use std::collections::BTreeMap;

use rustix::process::Signal;

use crate::stage::{Demo, Stage, all_gone, children, kill};
use crate::wait::eventually;

/// Shares in per cent by version, parsed from `… | reviews v1 60% v2 30% v3 10% | …`.
fn shares(line: &str) -> BTreeMap<String, i32> {
    let reviews = line
        .split(" | ")
        .find_map(|part| part.strip_prefix("reviews "))
        .unwrap_or_default();
    let words: Vec<&str> = reviews.split(' ').collect();
    words
        .chunks_exact(2)
        .map(|pair| (pair[0].to_owned(), pair[1].trim_end_matches('%').parse().unwrap()))
        .collect()
}

fn is_near(line: &str, wanted: [(&str, i32); 3]) -> bool {
    let shares = shares(line);
    wanted
        .iter()
        .all(|(version, share)| (shares.get(*version).unwrap_or(&0) - share).abs() <= 8)
}

#[tokio::test]
async fn traffic_follows_weights_and_edits_and_ctrl_c_cleans_up() {
    let stage = Stage::set();
    let mut command = stage.command();
    command.args(["--rate", "100"]);
    let mut demo = Demo::start(command);
    let hint = demo.says("a hint", |line| line.contains("reviews.yaml:")).await;
    assert!(hint.contains("weight: 60"), "{hint}");
    demo.is_up().await;
    let by_weight = [("v1", 60), ("v2", 30), ("v3", 10)];
    demo.says("shares by weight", |line| {
        line.contains("errors 0") && is_near(line, by_weight)
    })
    .await;

    stage.edit(
        "reviews.yaml",
        &[
            ("weight: 60", "weight: 0"),
            ("weight: 30", "weight: 0"),
            ("weight: 10", "weight: 100"),
        ],
    );
    let moved = demo
        .says("all on v3", |line| is_near(line, [("v1", 0), ("v2", 0), ("v3", 100)]))
        .await;
    assert!(
        moved.contains("last edit to last ACK") && moved.contains("errors 0"),
        "{moved}"
    );

    stage.edit("reviews.yaml", &[("weight: 100", "wieght: 100")]);
    let problem = demo
        .says("the problem", |line| {
            line.contains("reviews.yaml:") && line.contains("error[")
        })
        .await;
    assert!(problem.contains("wieght"), "{problem}");
    stage.edit("reviews.yaml", &[("wieght: 100", "weight: 100")]);
    demo.says("no problem", |line| line == "problems: 0").await;

    let processes = children(demo.id());
    assert_eq!(processes.len(), 1 + 6 + 6, "{processes:#?}");
    demo.signal(Signal::INT);
    let (status, said) = demo.end().await;
    assert!(status.success(), "{status} {said:#?}");
    assert!(
        said.last().unwrap().contains(" 0 of them failed; interrupted"),
        "{said:#?}"
    );
    all_gone(&processes).await;
    stage.is_empty().unwrap();
}

#[tokio::test]
async fn envoy_as_sidecar() {
    let stage = Stage::set();
    let mut command = stage.command();
    command.args(["--dataplane", "envoy", "--rate", "100"]);
    let mut demo = Demo::start(command);
    demo.is_up().await;
    demo.says("shares by weight", |line| {
        line.contains("errors 0") && is_near(line, [("v1", 60), ("v2", 30), ("v3", 10)])
    })
    .await;
    demo.signal(Signal::INT);
    let (status, said) = demo.end().await;
    assert!(status.success(), "{status} {said:#?}");
    stage.is_empty().unwrap();
}

#[tokio::test]
async fn one_demo_at_a_time_restarts_processes_and_kills_them_when_killed() {
    let stage = Stage::set();
    let mut demo = Demo::start(stage.command());
    demo.is_up().await;
    let second = stage.refused(stage.command()).await;
    assert!(second.contains(&format!("process {} on ", demo.id())), "{second}");
    assert!(
        second.contains("config, with its state and logs in ") && second.contains("topsail-demo-"),
        "{second}"
    );

    let parts = children(demo.id());
    let part = |text: &str| {
        parts
            .iter()
            .find(|(_, command)| command.contains(text))
            .map(|(id, _)| *id)
            .unwrap()
    };
    kill(part(" serve "), Signal::KILL);
    demo.says("the end of the control plane", |line| {
        line.contains("the control plane ended with signal: 9")
    })
    .await;
    demo.says("its absence", |line| {
        line.contains("errors 0") && line.contains("no control plane")
    })
    .await;
    demo.says("its return", |line| {
        line.contains("the control plane has been restarted")
    })
    .await;
    demo.is_up().await;
    kill(part("ratings-v1.default.yaml"), Signal::KILL);
    demo.says("the sidecar's return", |line| {
        line.contains("sidecar of ratings-v1.default has been restarted")
    })
    .await;
    demo.is_up().await;

    let parts = children(demo.id());
    assert_eq!(parts.len(), 1 + 6 + 6, "{parts:#?}");
    demo.signal(Signal::KILL);
    demo.end().await;
    all_gone(&parts).await;
    assert_eq!(stage.folders(), 1, "nobody was left to remove it");

    let mut next = Demo::start(stage.command());
    next.is_up().await;
    assert_eq!(stage.folders(), 1, "the next demo removes what the killed one left");
    next.signal(Signal::TERM);
    assert!(next.end().await.0.success());
    stage.is_empty().unwrap();
}

#[tokio::test]
async fn a_terminal_is_drawn_on_and_restored() {
    let stage = Stage::set();
    let mut command = stage.command_in_terminal();
    command.args(["--duration", "2s"]);
    let (status, said) = Demo::start(command).end().await;
    let said = said.join("\n");
    assert!(status.success(), "{said}");
    let (before, picture) = said.split_once("\u{1b}[?1049h").unwrap();
    let (picture, after) = picture.split_once("\u{1b}[?1049l").unwrap();
    assert!(before.contains("starting the control plane"), "{before}");
    assert!(
        picture.contains("productpage → reviews") && picture.contains('█'),
        "{picture}"
    );
    assert!(picture.contains("reviews.yaml:"), "{picture}");
    assert!(after.contains("the time is up"), "{after}");
    stage.is_empty().unwrap();

    // Closing the terminal window: the process behind the terminal is gone.
    let mut demo = Demo::start(stage.command_in_terminal());
    demo.says("the picture", |line| line.contains("6 of 6 SYNCED")).await;
    let processes = children(demo.id());
    demo.signal(Signal::KILL);
    demo.end().await;
    all_gone(&processes).await;
    eventually("nothing to be left", async || stage.is_empty()).await;
}

#[tokio::test]
async fn stopping_during_startup_cleans_up() {
    let stage = Stage::set();
    let mut demo = Demo::start(stage.command());
    demo.says("the control plane's start", |line| {
        line.starts_with("starting the control plane")
    })
    .await;
    demo.signal(Signal::INT);
    let (status, said) = demo.end().await;
    assert!(status.success(), "{said:#?}");
    stage.is_empty().unwrap();
}
