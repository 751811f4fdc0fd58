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
    /// A referenced host, subset, port or other resource does not exist.
    ReferencedResourceNotFound = "IST0101" Error;
    /// A value is rejected by Istio's validation.
    SchemaValidationError = "IST0106" Error;
    /// Two VirtualServices on the `mesh` gateway define the same host; the first in path order is served.
    ConflictingMeshGatewayVirtualServiceHosts = "IST0109" Error;
    /// Two Sidecars select the same workload.
    ConflictingSidecarWorkloadSelectors = "IST0110" Error;
    /// A namespace has two Sidecars without a workload selector.
    MultipleSidecarsWithoutWorkloadSelectors = "IST0111" Error;
    /// A destination does not specify a port although the service has several.
    VirtualServiceDestinationPortSelectorRequired = "IST0112" Error;
    /// TLS is originated without verifying the server certificate.
    NoServerCertificateVerificationDestinationLevel = "IST0128" Warning;
    /// TLS is originated on a port without verifying the server certificate.
    NoServerCertificateVerificationPortLevel = "IST0129" Warning;
    /// A VirtualService rule is never used because an earlier rule matches all of its traffic.
    VirtualServiceUnreachableRule = "IST0130" Warning;
    /// A match has no effect because an earlier rule matches all of its traffic.
    VirtualServiceIneffectiveMatch = "IST0131" Info;
    /// Istio's validation warns about a value.
    SchemaWarning = "IST0133" Warning;
    /// A TCP port of a service without addresses matches all traffic to that port.
    ServiceEntryAddressesRequired = "IST0134" Warning;
    /// The labels of a subset do not match any endpoint of the service.
    DestinationRuleSubsetNotSelectPods = "IST0173" Warning;
    /// The host of a DestinationRule does not match any service.
    UnknownDestinationRuleHost = "IST0174" Warning;
    /// Two ServiceEntries define different protocols for the same host and port.
    ConflictingServiceEntryProtocol = "IST0177" Warning;
    /// The document is not valid YAML.
    InvalidYaml = "TS0001" Error;
    /// A field does not exist in this kind.
    UnknownField = "TS0002" Error;
    /// A kind or apiVersion exists in neither Istio nor Kubernetes.
    UnknownKind = "TS0003" Error;
    /// An Istio kind is not supported by Topsail yet.
    UnsupportedKind = "TS0004" Warning;
    /// An Istio field is not supported by Topsail yet, and ignoring it would change traffic.
    UnsupportedField = "TS0005" Error;
    /// A value has the wrong type or format.
    InvalidValue = "TS0006" Error;
    /// A required field is missing.
    MissingField = "TS0007" Error;
    /// An object of the same kind, namespace and name is defined twice; the first in path order is served.
    DuplicateObject = "TS0008" Error;
    /// A file cannot be read.
    UnreadableFile = "TS0009" Error;
    /// A file that contained objects is now empty; its objects are kept until the file is deleted.
    EmptyFile = "TS0010" Error;
    /// A document exceeds the size limit.
    DocumentTooLarge = "TS0011" Error;
    /// A Kubernetes kind is not relevant to the mesh and is ignored.
    IrrelevantKind = "TS0012" Info;
    /// The mesh configuration is defined twice.
    ConflictingMeshConfig = "TS0013" Error;
    /// The last valid version of an object is served instead of the one in the file.
    LastGoodServed = "TS0014" Info;
    /// Two listeners of a proxy have the same address and port.
    ConflictingListener = "TS0015" Warning;
    /// A proxy rejected (NACKed) a resource generated from this object.
    RefusedByProxy = "TS0016" Error;
    /// A generated resource violates Envoy's validation rules and is not sent.
    BreaksEnvoyRule = "TS0017" Error;
    /// The metadata of a proxy contradicts its WorkloadEntry.
    ContradictingClaim = "TS0018" Warning;
    /// A sidecar cannot share the network namespace of a Compose service.
    UnsupportedNetworkMode = "TS0019" Error;
    /// A Compose service has several containers, but a sidecar can only join one.
    SeveralContainers = "TS0020" Error;
    /// An application listens on a port that is reserved for its sidecar.
    ReservedPort = "TS0021" Error;
    /// The ports of a Compose service are unknown.
    UnknownPort = "TS0022" Warning;
    /// A Compose service has the same name as one of the services to be added.
    ReservedName = "TS0023" Error;
    /// An application can bypass its sidecar.
    BypassedSidecar = "TS0024" Error;
    /// A generated file has been edited and is not replaced.
    EditedFile = "TS0025" Error;
    /// A service can never have any endpoints.
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
`IST` are those of `istioctl analyze`; the others are specific to Topsail. The severity listed is
the default; individual findings may have a different one.

An invalid object keeps its last valid version if it had one; the rest of the mesh is served.

| code | name | severity | description |
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
