//! The mesh configuration: from the `--mesh-config` file, else the ConfigMap `istio`, else
//! defaults.

use std::sync::Arc;

use super::{Form, Options};
use crate::api::mesh_config::MeshConfigText;
use crate::api::{FieldPath, Object, Spec};
use crate::diag::{Code, Diagnostic, Severity};
use crate::mesh::config::MeshConfig;
use crate::mesh::lower::{Finding, Lowered, mesh_config};
use crate::name::{Kind, ObjectId};

/// Name of the ConfigMap in the root namespace.
const NAME: &str = "istio";

/// Key of the mesh configuration.
const KEY: &str = "mesh";

/// Key of the mesh networks, which installations write even if there is only one.
const NETWORKS: &str = "meshNetworks";

/// The sources of the mesh configuration.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    file: Option<Source>,
    map: Option<Source>,
}

/// A source: its last good content and its current problems.
#[derive(Clone, Debug, Default)]
struct Source {
    config: Option<Arc<MeshConfig>>,
    /// The text of the last good content, for the file.
    good: Option<MeshConfigText>,
    diagnostics: Vec<Diagnostic>,
}

/// Whether an object is the ConfigMap with the mesh configuration.
pub(super) fn is_config_map(id: &ObjectId, options: &Options) -> bool {
    id.kind == Kind::ConfigMap && &*id.name == NAME && id.namespace == options.base.root_namespace
}

impl Settings {
    /// The effective mesh configuration.
    pub(super) fn config(&self, options: &Options) -> Arc<MeshConfig> {
        let source = self.file.as_ref().or(self.map.as_ref());
        let config = source.and_then(|source| source.config.clone());
        config.unwrap_or_else(|| Arc::new(options.base.clone()))
    }

    /// Sets or removes the `--mesh-config` file.
    pub(super) fn put_file(&mut self, text: Option<&MeshConfigText>, options: &Options) {
        self.file = text.map(|text| {
            let mut source = read(text, options);
            source.good = source.config.is_some().then(|| text.clone());
            if let (None, Some(old)) = (&source.config, self.file.take()) {
                (source.config, source.good) = (old.config, old.good);
                source
                    .diagnostics
                    .extend(source.config.is_some().then(|| last_good(text)));
            }
            source
        });
    }

    /// The text of the file's settings that are in force.
    pub(super) fn file(&self) -> Option<&MeshConfigText> {
        self.file.as_ref()?.good.as_ref()
    }

    /// Sets the ConfigMap, which is in error if its text is.
    pub(super) fn put_config_map(&mut self, object: &Object, options: &Options) -> Lowered<Form> {
        let source = MeshConfigText::in_config_map(object).map(|text| read(&text, options));
        let good = source.as_ref().is_none_or(|source| source.config.is_some());
        let old = self.map.take().and_then(|old| old.config);
        self.map = source.map(|new| Source {
            config: new.config.or(old),
            good: None,
            diagnostics: new.diagnostics,
        });
        Lowered {
            value: good.then_some(Form::Inert),
            findings: other_keys(object),
        }
    }

    /// Removes the ConfigMap.
    pub(super) fn remove_config_map(&mut self) {
        self.map = None;
    }

    /// Diagnostics of the mesh configuration.
    pub(super) fn diagnostics<'o>(
        &self,
        find: &dyn Fn(&ObjectId) -> Option<&'o Object>,
        options: &Options,
    ) -> Vec<Diagnostic> {
        let sources = self.file.iter().chain(&self.map);
        let mut all: Vec<Diagnostic> = sources.flat_map(|source| source.diagnostics.clone()).collect();
        let id = ObjectId {
            kind: Kind::ConfigMap,
            namespace: options.base.root_namespace.clone(),
            name: NAME.into(),
        };
        if self.file.is_some()
            && self.map.is_some()
            && let Some(object) = find(&id)
        {
            let message = "the mesh configuration is also defined by a separate file, which takes precedence";
            let both = Diagnostic::new(Code::ConflictingMeshConfig, message).at(object.place("data"));
            all.push(both.help("keep one of the two"));
        }
        all
    }
}

/// Reports keys of the ConfigMap that are ignored.
fn other_keys(object: &Object) -> Vec<Finding> {
    let Spec::ConfigMap(map) = &object.spec else {
        return Vec::new();
    };
    let at = FieldPath::root().field("data");
    let mut found = Vec::new();
    for (key, text) in map.data.iter().filter(|(key, _)| *key != KEY) {
        let unused = |code, message: String| Finding::new(code, &at.key(key.as_str()), message);
        if key != NETWORKS {
            let mut finding = unused(Code::SchemaWarning, format!("`{key}` has no effect"));
            finding.help(format!("put the mesh configuration under `{KEY}`"));
            found.push(finding);
        } else if !matches!(text.trim(), "" | "{}" | "networks: {}") {
            let mut finding = unused(
                Code::UnsupportedField,
                format!("`{NETWORKS}` is not supported yet and has no effect"),
            );
            finding.severity(Severity::Warning);
            found.push(finding);
        }
    }
    found
}

fn read(text: &MeshConfigText, options: &Options) -> Source {
    let (spec, mut diagnostics) = text.read(&options.read);
    let lowered = spec.map(|spec| mesh_config::lower(&spec, &options.base));
    let Some(lowered) = lowered else {
        return Source {
            diagnostics,
            ..Source::default()
        };
    };
    for finding in &lowered.findings {
        let place = text.place(&finding.at);
        let mut diagnostic = Diagnostic::new(finding.code, &finding.message)
            .severity(finding.severity)
            .at(place);
        diagnostic.help.clone_from(&finding.help);
        diagnostics.push(diagnostic);
    }
    Source {
        config: lowered.value.map(Arc::new),
        good: None,
        diagnostics,
    }
}

fn last_good(text: &MeshConfigText) -> Diagnostic {
    let message = "the last valid version of the mesh configuration stays in effect";
    Diagnostic::new(Code::LastGoodServed, message)
        .at(text.place(FieldPath::root()))
        .help("fix the errors to apply this version")
}
