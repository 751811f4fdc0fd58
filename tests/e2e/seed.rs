//! A common first configuration: a route to a subset, and mutual TLS for its host.

use crate::harness::{App, Mesh, Plane, Planes, eventually, run};
use crate::{on_each_pair_of_planes, on_each_plane};

on_each_pair_of_planes! {
    with_subsets_all_requests_reach_v2,
}

on_each_plane! {
    a_missing_subset_is_answered_with_503_and_reported_with_its_line,
    a_subset_removed_while_in_use_stays_served_and_is_reported,
}

/// As in many tutorials: an old API version, short host names, one file.
const ROUTE_AND_TLS: &str = "
apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata:
  name: reviews
spec:
  hosts:
  - reviews
  http:
  - match:
    - uri:
        prefix: /v2
    route:
    - destination:
        host: reviews
        subset: v2
---
apiVersion: networking.istio.io/v1alpha3
kind: DestinationRule
metadata:
  name: reviews
spec:
  host: reviews
  trafficPolicy:
    tls:
      mode: ISTIO_MUTUAL
";

const SUBSETS: &str = "  subsets:
  - name: v1
    labels:
      version: v1
  - name: v2
    labels:
      version: v2
";

const SERVICES: &str = "
{apiVersion: v1, kind: Service, metadata: {name: reviews}, spec: {selector: {app: reviews}, ports: [{name: http, port: 9080}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: ratings}, spec: {selector: {app: ratings}, ports: [{name: http, port: 9080}]}}
";

/// The position of `subset: v2` in [`ROUTE_AND_TLS`], as it is reported.
const SUBSET_REFERENCE: &str = "seed.yaml:16:17: error[IST0101]";

struct Seed {
    client: App,
    _apps: [App; 3],
    mesh: Mesh,
}

/// The documents, two versions of reviews, ratings and a client.
async fn seed(planes: impl Into<Planes>, documents: &str) -> Seed {
    let mesh = Mesh::start(planes, &[("services.yaml", SERVICES), ("seed.yaml", documents)]).await;
    let apps = [
        mesh.app("reviews", "v1").await,
        mesh.app("reviews", "v2").await,
        mesh.app("ratings", "v1").await,
    ];
    let client = mesh.client().await;
    Seed {
        client,
        _apps: apps,
        mesh,
    }
}

impl Seed {
    /// What `topsail check` prints about the directory, and its exit status.
    async fn check(&self) -> (String, Option<i32>) {
        let output = run(&["check", self.mesh.server.config().to_str().unwrap()]).await;
        (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            output.status.code(),
        )
    }

    async fn v2_answers(&self) {
        eventually("v2 answers", async || {
            let answer = self.client.get("reviews", "/v2").send().await?;
            if answer.status == 200 {
                Ok(())
            } else {
                Err(format!("{}: {}", answer.status, answer.text()))
            }
        })
        .await;
    }
}

async fn with_subsets_all_requests_reach_v2(planes: Planes) {
    let seed = seed(planes, &(ROUTE_AND_TLS.to_owned() + SUBSETS)).await;
    seed.v2_answers().await;
    assert_eq!(
        seed.client.get("reviews", "/v2/1").count(50).await,
        [("reviews-v2".to_owned(), 50)].into()
    );
    assert_eq!(seed.client.get("reviews", "/v2").expect(200).await.seen().path, "/v2");
    seed.client.get("reviews", "/v1").expect(404).await;
    let (printed, status) = seed.check().await;
    assert_eq!(status, Some(0), "{printed}");
}

async fn a_missing_subset_is_answered_with_503_and_reported_with_its_line(plane: Plane) {
    let seed = seed(plane, ROUTE_AND_TLS).await;
    eventually("ratings answers", async || {
        let answer = seed.client.get("ratings", "/").send().await?;
        if answer.status == 200 {
            Ok(())
        } else {
            Err(answer.text())
        }
    })
    .await;
    seed.client.get("reviews", "/v2").expect(503).await;
    let (printed, status) = seed.check().await;
    assert_eq!(status, Some(1), "{printed}");
    assert!(printed.contains(SUBSET_REFERENCE), "{printed}");
    assert!(
        seed.mesh.server.log().contains(SUBSET_REFERENCE),
        "{}",
        seed.mesh.server.log()
    );

    seed.mesh.write("seed.yaml", &(ROUTE_AND_TLS.to_owned() + SUBSETS));
    seed.v2_answers().await;
    assert_eq!(seed.mesh.diagnostics().await, Vec::<serde_json::Value>::new());
}

async fn a_subset_removed_while_in_use_stays_served_and_is_reported(plane: Plane) {
    let seed = seed(plane, &(ROUTE_AND_TLS.to_owned() + SUBSETS)).await;
    seed.v2_answers().await;
    seed.mesh.write("seed.yaml", ROUTE_AND_TLS);
    eventually("the missing subset is reported", async || {
        let diagnostics = seed.mesh.diagnostics().await;
        if diagnostics.iter().any(|found| found["code"] == "IST0101") {
            Ok(())
        } else {
            Err(format!("{diagnostics:?}"))
        }
    })
    .await;
    assert_eq!(
        seed.client.get("reviews", "/v2").count(50).await,
        [("reviews-v2".to_owned(), 50)].into()
    );
    assert!(
        seed.mesh.server.log().contains(SUBSET_REFERENCE),
        "{}",
        seed.mesh.server.log()
    );
}
