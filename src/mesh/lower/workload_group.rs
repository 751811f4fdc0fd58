//! Lowers WorkloadGroups: templates of auto-registered workloads.

mod probe;

use std::sync::Arc;

use super::report::Report;
use super::workload_entry::{Names, workload};
use super::{Context, Lowered};
use crate::api::workload_entry::WorkloadEntry;
use crate::api::workload_group::WorkloadGroup as Spec;
use crate::api::{FieldPath, Object};
use crate::mesh::workload::{READY, WorkloadGroup};

/// Placeholder for the address of a member.
const SOMEWHERE: &str = "0.0.0.0";

/// Lowers a WorkloadGroup.
pub(super) fn lower(object: &Object, spec: &Spec, context: &Context) -> Lowered<Arc<WorkloadGroup>> {
    let mut report = Report::new(&object.id, context);
    let at = FieldPath::root().field("spec");
    let group = group(&mut report, &at, spec);
    report.finish_some(group).map(Arc::new)
}

fn group(report: &mut Report<'_>, at: &FieldPath, spec: &Spec) -> Option<WorkloadGroup> {
    let Some(template) = &spec.template else {
        report
            .error(at, "a WorkloadGroup must have a `template`")
            .help("use `template: {}` for an empty one");
        return None;
    };
    let probe_at = at.field("probe");
    let probe = spec.probe.as_ref().map(|probe| probe::probe(report, &probe_at, probe));
    let (at, metadata_at) = (at.field("template"), at.field("metadata"));
    if !template.address.is_empty() {
        report.error(
            &at.field("address"),
            "members of a group have no common address: each registers the address it connects from",
        );
    }
    let annotations = &spec.metadata.annotations;
    if annotations.contains_key(READY) {
        let at = metadata_at.field("annotations").key(READY);
        report.error(&at, "the readiness of a member is reported by its sidecar");
    }
    let mut labels = report.labels(&at.field("labels"), &template.labels);
    labels.extend(report.labels(&metadata_at.field("labels"), &spec.metadata.labels));
    let member = WorkloadEntry {
        address: SOMEWHERE.to_owned(),
        ..template.clone()
    };
    let member = workload(report, &at, &member, labels, Names::Refused)?;
    Some(WorkloadGroup {
        id: member.id,
        labels: member.labels,
        annotations: annotations.clone(),
        ports: member.ports,
        service_account: member.service_account,
        locality: member.locality,
        weight: member.weight,
        probe: probe.flatten(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::lower::Form;
    use crate::mesh::testing::{expect_as_marked, objects};

    #[test]
    fn templates_are_lowered() {
        let text = "
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: reviews}
spec:
  metadata: {labels: {app: reviews}, annotations: {a: b}}
  template: {labels: {app: other, version: v1}, ports: {http: 8080}, serviceAccount: sa, locality: eu/a}
";
        let object = objects("a.yaml", text).pop().unwrap();
        let lowered = crate::mesh::lower::lower(&object, &Context::default());
        let Some(Form::WorkloadGroup(group)) = lowered.value else {
            panic!("{:?}", lowered.findings)
        };
        let labels: Vec<_> = group.labels.iter().map(|(key, value)| (&**key, &**value)).collect();
        assert_eq!(labels, [("app", "reviews"), ("version", "v1")]);
        assert_eq!(group.ports, [("http".into(), 8080)]);
        assert_eq!(group.service_account.as_ref().unwrap().to_string(), "sa");
        assert_eq!((&*group.locality.zone, group.weight), ("a", 1));
    }

    #[test]
    fn errors_are_reported_at_their_field() {
        expect_as_marked(
            r#"
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: a}
spec:                                   #! IST0106
  metadata: {labels: {app: a}}
---
apiVersion: networking.istio.io/v1beta1
kind: WorkloadGroup
metadata: {name: b}
spec:
  metadata:
    labels: {"a b": c}                  #! IST0106
    annotations:
      topsail.io/ready: "true"          #! IST0106
  template:
    address: 10.0.0.1                   #! IST0106
    ports: {http: 0}                    #! IST0106
    serviceAccount: "a b"               #! IST0106
"#,
        );
    }
}
