//! A rejected resource is attributed to its file and line, affects nothing else, and is not sent again.

use super::client::{CDS, Client, EDS, LDS, RDS, Versions, names};
use super::control_plane::{Home, eventually, service_entry};

/// A service with one port, and a VirtualService with a timeout for it.
fn service(name: &str, port: u16, timeout: &str) -> String {
    format!(
        "{}---
# The timeout of {name}.
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}}}
spec:
  hosts: [{name}.example.com]
  http: [{{timeout: {timeout}, route: [{{destination: {{host: {name}.example.com}}}}]}}]
",
        service_entry(name, port)
    )
}

#[tokio::test]
async fn rejected_clusters_are_attributed_to_their_file_and_line() {
    let home = Home::with(&[
        ("bad.yaml", &service("bad", 80, "1s")),
        ("good.yaml", &service("good", 81, "1s")),
    ]);
    let server = home.serve().await;
    let mut client = Client::join(&home, &server, "a.default").await;
    client.subscribe(CDS, &[], &Versions::new());
    let clusters = client.next().await.unwrap();
    let bad = "outbound|80||bad.example.com";
    assert!(names(&clusters).contains(&bad), "{:?}", names(&clusters));
    client.nack(
        &clusters,
        &format!("Error adding/updating cluster(s) {bad}: this build has no such thing"),
    );

    eventually("the refusal is reported", || {
        let problems = server.diagnostics();
        problems
            .iter()
            .any(|line| line.contains("bad.yaml:3:") && line.contains("TS0016") && line.contains("no such thing"))
    })
    .await;
    assert!(
        !server.diagnostics().iter().any(|line| line.contains("good.yaml")),
        "{:?}",
        server.diagnostics()
    );

    // Everything else proceeds, and the rejected cluster is not sent again.
    client.subscribe(EDS, &["outbound|81||good.example.com"], &Versions::new());
    assert_eq!(names(&client.take(EDS).await), ["outbound|81||good.example.com"]);
    client.subscribe(LDS, &[], &Versions::new());
    let listeners = client.take(LDS).await;
    assert!(names(&listeners).contains(&"0.0.0.0_81"), "{:?}", names(&listeners));
    home.write("good.yaml", &service("good", 82, "1s"));
    let clusters = client.take(CDS).await;
    assert_eq!(names(&clusters), ["outbound|82||good.example.com"]);

    // Once changed, it is sent again, and the diagnostic disappears when it is ACKed.
    home.write("bad.yaml", &service("bad", 83, "1s"));
    let clusters = client.take(CDS).await;
    assert_eq!(names(&clusters), ["outbound|83||bad.example.com"]);
    eventually("the blame is gone", || {
        !server.diagnostics().iter().any(|line| line.contains("TS0016"))
    })
    .await;
}

#[tokio::test]
async fn rejected_routes_are_found_by_bisection() {
    let files = [
        ("a.yaml", service("a", 80, "1s")),
        ("b.yaml", service("b", 81, "1s")),
        ("c.yaml", service("c", 82, "1s")),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let home = Home::with(&files);
    let server = home.serve().await;
    let mut client = Client::join(&home, &server, "a.default").await;
    client.subscribe(RDS, &["80", "81", "82"], &Versions::new());
    let mut taken = Vec::new();
    while taken.len() < 2 {
        let routes = client.next().await.unwrap();
        match names(&routes).contains(&"81") {
            true => client.nack(&routes, "something about a route"),
            false => {
                taken.extend(names(&routes).iter().map(|name| (*name).to_owned()));
                client.ack(&routes);
            }
        }
    }
    taken.sort();
    assert_eq!(taken, ["80", "82"]);
    eventually("the refusal is reported", || {
        let problems = server.diagnostics();
        problems
            .iter()
            .any(|line| line.contains("b.yaml:") && line.contains("RDS `81`"))
    })
    .await;
    home.write("c.yaml", &service("c", 82, "7s"));
    assert_eq!(names(&client.take(RDS).await), ["82"]);
}
