//! An application in two versions with many host names: each name is a Service of its own for the same
//! workloads, so that a scenario can give each its own routes.

use crate::harness::{App, Call, Mesh, Planes, eventually};

/// Two versions of `web`, and a client that calls them on port 9080.
pub struct Web {
    /// The client.
    pub client: App,
    /// `web-v1`.
    pub v1: App,
    /// `web-v2`.
    pub v2: App,
    /// Their mesh.
    pub mesh: Mesh,
}

impl Web {
    /// Starts the mesh and the apps with these documents in one file.
    pub async fn start(planes: impl Into<Planes>, documents: &[String]) -> Self {
        let mesh = Mesh::start(planes, &[("web.yaml", &documents.join("\n---\n"))]).await;
        let (v1, v2) = (mesh.app("web", "v1").await, mesh.app("web", "v2").await);
        let client = mesh.client().await;
        Self { client, v1, v2, mesh }
    }

    /// A request to one of the host names.
    pub fn get(&self, host: &str, path: &str) -> Call {
        self.client.get(host, path)
    }

    /// Waits until requests to a host name are answered with 200.
    pub async fn reachable(&self, host: &str) {
        eventually(&format!("an answer for {host}"), async || {
            let answer = self.get(host, "/reachable").send().await?;
            if answer.status == 200 {
                Ok(())
            } else {
                Err(format!("{}: {}", answer.status, answer.text()))
            }
        })
        .await;
    }
}

/// A Service `name` for all workloads of `web`.
pub fn service(name: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, \
         spec: {{selector: {{app: web}}, ports: [{{name: http, port: 9080}}]}}}}"
    )
}

/// A Service `name` for all workloads of `web`, with the subsets v1 and v2, and a VirtualService with these HTTP
/// routes: a YAML list in which `HOST` stands for the name.
pub fn routed(name: &str, http: &str) -> String {
    let service = service(name);
    let http = http.trim_matches('\n').replace("HOST", name).replace('\n', "\n  ");
    format!(
        "{service}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {name}}}
spec:
  host: {name}
  subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}}}
spec:
  hosts: [{name}]
  http:
  {http}"
    )
}
