//! The admin interface: for the same mesh, the bundled proxy's responses have the same fields with the same types as
//! Envoy's, so that tools for Envoy can read them.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::between_planes;
use crate::harness::{App, Plane};
use crate::web::{Web, routed};

between_planes! {
    admin_responses_have_the_same_fields_as_envoys,
}

/// The admin endpoints to compare.
const ANSWERS: [&str; 6] = [
    "/config_dump?include_eds",
    "/clusters?format=json",
    "/listeners?format=json",
    "/certs",
    "/server_info",
    "/init_dump",
];

/// Parts of the paths of fields that only one of the planes has, and why.
const DIFFER: [(&str, &str); 9] = [
    ("/server_info.command_line_options", "the command lines differ"),
    ("/server_info.hot_restart_initializing", "there is no hot restart"),
    (".node.extensions", "the bundled proxy does not list its extensions"),
    (".node.user_agent", "the bundled proxy does not report its build there"),
    (
        ".lb_endpoints[].metadata.",
        "only the endpoint metadata for transport socket matches is kept",
    ),
    (
        ".endpoints[].load_balancing_weight",
        "locality weights are part of the dumped endpoints",
    ),
    (
        "days_until_expiration",
        "zero is omitted, and timing decides whether a new certificate has a full day left",
    ),
    ("generic_secret", "token files are read on demand"),
    ("/init_dump", "it reports only the current init targets"),
];

/// The path and type of every field in a value; `Any` messages contribute their type name to the path.
fn places(at: &str, value: &Value, out: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            let at = match fields.get("@type") {
                Some(kind) => format!("{at}<{}>", kind.as_str().unwrap().rsplit(['.', '/']).next().unwrap()),
                None => at.to_owned(),
            };
            for (name, value) in fields.iter().filter(|(name, _)| *name != "@type") {
                places(&format!("{at}.{name}"), value, out);
            }
        }
        Value::Array(all) => all.iter().for_each(|value| places(&format!("{at}[]"), value, out)),
        Value::String(_) => drop(out.insert(format!("{at}: text"))),
        Value::Number(_) => drop(out.insert(format!("{at}: number"))),
        Value::Bool(_) => drop(out.insert(format!("{at}: bool"))),
        Value::Null => drop(out.insert(format!("{at}: null"))),
    }
}

async fn forms(app: &App) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for path in ANSWERS {
        let answer = app.sidecar.admin(path).await;
        let value = serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{path}: {error}\n{answer}"));
        places(path, &value, &mut all);
    }
    all
}

async fn of(plane: Plane) -> BTreeSet<String> {
    let strict = "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: default, \
                  namespace: istio-system}, spec: {mtls: {mode: STRICT}}}";
    let rules = "
- route: [{destination: {host: HOST, subset: v1}}]
  retries: {attempts: 2, retryOn: 5xx}
";
    let web = Web::start(plane, &[routed("web", rules), strict.to_owned()]).await;
    web.reachable("web").await;
    &forms(&web.client).await | &forms(&web.v1).await
}

async fn admin_responses_have_the_same_fields_as_envoys() {
    let (envoys, ours) = (of(Plane::Envoy).await, of(Plane::Topsail).await);
    let known = |place: &&String| !DIFFER.iter().any(|(part, _)| place.contains(part));
    let missing: Vec<_> = envoys.difference(&ours).filter(known).collect();
    let made_up: Vec<_> = ours.difference(&envoys).filter(known).collect();
    assert!(
        missing.is_empty() && made_up.is_empty(),
        "missing: {missing:#?}\nnot Envoy's: {made_up:#?}"
    );
}
