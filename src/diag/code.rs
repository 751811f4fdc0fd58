//! The table of diagnostic codes. Istio's own codes where Istio has one, `TS0001` upward else.

use std::fmt;

use super::Severity;

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $name:ident = $code:literal $severity:ident;)*) => {
        /// A row of the table of codes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code { $($(#[doc = $doc])* $name,)* }

        impl Code {
            /// Every code, in the order of the table.
            pub const ALL: &[Code] = &[$(Code::$name),*];

            /// The code as shown: `IST0101`, `TS0001`.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$name => $code),* }
            }

            /// How bad a problem of this code is unless the place it is found in says otherwise.
            pub fn severity(self) -> Severity {
                match self { $(Code::$name => Severity::$severity),* }
            }

            /// The name in the table, as Istio's `analyze` prints it.
            pub fn name(self) -> &'static str {
                match self { $(Code::$name => stringify!($name)),* }
            }

            /// What a problem of this code is: the text that documents it in the table.
            pub fn explanation(self) -> &'static str {
                match self { $(Code::$name => concat!($($doc),*).trim()),* }
            }
        }
    };
}

codes! {
    /// A host, subset, port or other name that a rule refers to does not exist.
    ReferencedResourceNotFound = "IST0101" Error;
    /// A value that Istio's validation refuses.
    SchemaValidationError = "IST0106" Error;
    /// Two mesh VirtualServices own the same host; the first in path order is served.
    ConflictingMeshGatewayVirtualServiceHosts = "IST0109" Error;
    /// Two Sidecars select the same workload.
    ConflictingSidecarWorkloadSelectors = "IST0110" Error;
    /// Two Sidecars without a selector in one namespace.
    MultipleSidecarsWithoutWorkloadSelectors = "IST0111" Error;
    /// A destination of a service with several ports names no port.
    VirtualServiceDestinationPortSelectorRequired = "IST0112" Error;
    /// TLS is originated without verifying the server.
    NoServerCertificateVerificationDestinationLevel = "IST0128" Warning;
    /// TLS is originated on one port without verifying the server.
    NoServerCertificateVerificationPortLevel = "IST0129" Warning;
    /// A route that can never match.
    VirtualServiceUnreachableRule = "IST0130" Warning;
    /// A match that an earlier one makes pointless.
    VirtualServiceIneffectiveMatch = "IST0131" Info;
    /// A value that Istio's validation warns about.
    SchemaWarning = "IST0133" Warning;
    /// A TCP port without an address catches all traffic of that port.
    ServiceEntryAddressesRequired = "IST0134" Warning;
    /// The labels of a subset match no endpoint of the service.
    DestinationRuleSubsetNotSelectPods = "IST0173" Warning;
    /// A DestinationRule for a host that no service has.
    UnknownDestinationRuleHost = "IST0174" Warning;
    /// Two ServiceEntries give one host and port different protocols.
    ConflictingServiceEntryProtocol = "IST0177" Warning;
    /// The text is not YAML.
    InvalidYaml = "TS0001" Error;
    /// A field that the kind does not have.
    UnknownField = "TS0002" Error;
    /// A kind or apiVersion that neither Istio nor Kubernetes has.
    UnknownKind = "TS0003" Error;
    /// A kind that Istio has and Topsail does not support yet.
    UnsupportedKind = "TS0004" Warning;
    /// A field that Istio has and Topsail does not support yet; ignoring it would change traffic.
    UnsupportedField = "TS0005" Error;
    /// A value of the wrong type.
    InvalidValue = "TS0006" Error;
    /// A field without which the object has no meaning.
    MissingField = "TS0007" Error;
    /// The same kind, namespace and name twice; the first in path order is served.
    DuplicateObject = "TS0008" Error;
    /// A file that cannot be read.
    UnreadableFile = "TS0009" Error;
    /// A file that held objects has become empty; its objects stay until the file is deleted.
    EmptyFile = "TS0010" Error;
    /// A document larger than the limit.
    DocumentTooLarge = "TS0011" Error;
    /// A kind of Kubernetes that has no meaning for a mesh.
    IrrelevantKind = "TS0012" Info;
    /// The mesh configuration is given twice.
    ConflictingMeshConfig = "TS0013" Error;
    /// An object's last good form is served instead of the one in the file.
    LastGoodServed = "TS0014" Info;
    /// Two listeners of one proxy want the same address and port.
    ConflictingListener = "TS0015" Warning;
    /// A proxy refused a resource made from this object.
    RefusedByProxy = "TS0016" Error;
    /// A resource breaks Envoy's own field rules and is not sent.
    BreaksEnvoyRule = "TS0017" Error;
    /// What a proxy claims about itself contradicts its WorkloadEntry.
    ContradictingClaim = "TS0018" Warning;
    /// A compose service whose network namespace a sidecar cannot share.
    UnsupportedNetworkMode = "TS0019" Error;
    /// A compose service with several containers, of which a sidecar could join one only.
    SeveralContainers = "TS0020" Error;
    /// An application listens on a port that its sidecar takes.
    ReservedPort = "TS0021" Error;
    /// The ports of a compose service cannot be told.
    UnknownPort = "TS0022" Warning;
    /// A compose service has a name that one of those has that are to be added.
    ReservedName = "TS0023" Error;
    /// An application can go round its sidecar.
    BypassedSidecar = "TS0024" Error;
    /// A generated file that somebody has edited is not replaced.
    EditedFile = "TS0025" Error;
    /// A service that nothing can ever be an endpoint of.
    ServiceWithoutEndpoints = "TS0026" Warning;
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/diagnostics.md");

    const INTRODUCTION: &str = "# Diagnostics

Every problem is reported as `path:line:column: severity[CODE]: message`. Codes that start with
`IST` are those of `istioctl analyze`; the others are Topsail's own. The severity is that of the
code as a rule; a few problems are milder or graver in their place and say so.

An object in error keeps its last good version if it had one; the rest of the mesh is served.

| code | name | severity | what it is |
|---|---|---|---|
";

    fn page() -> String {
        let row = |code: &Code| {
            let (name, severity, text) = (code.name(), code.severity().as_str(), code.explanation());
            format!("| {code} | {name} | {severity} | {text} |\n")
        };
        INTRODUCTION.to_owned() + &Code::ALL.iter().map(row).collect::<String>()
    }

    #[test]
    fn the_page_of_codes_is_current() {
        if std::env::var_os("TOPSAIL_BLESS").is_some() {
            std::fs::write(PAGE, page()).unwrap();
        }
        let written = std::fs::read_to_string(PAGE).unwrap_or_default();
        assert!(
            written == page(),
            "docs/diagnostics.md is stale: run `TOPSAIL_BLESS=1 cargo test --lib the_page_of_codes_is_current`"
        );
    }

    #[test]
    fn every_code_is_explained_and_unique() {
        let codes: BTreeSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(codes.len(), Code::ALL.len());
        for code in Code::ALL {
            let text = code.explanation();
            assert!(
                text.ends_with('.') && !text.contains(['|', '\n']) && text.trim() == text,
                "{code}: {text:?}"
            );
        }
    }
}
