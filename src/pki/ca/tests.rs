use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use rcgen::{BasicConstraints, Certificate, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer};
use rcgen::{KeyUsagePurpose, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256};

use super::*;
use crate::clock::ManualClock;
use crate::pki::IssueOptions;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn start() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn load(dir: &Path) -> Result<Ca, CaError> {
    load_at(dir, &Clock::fixed(start()))
}

fn load_at(dir: &Path, clock: &Clock) -> Result<Ca, CaError> {
    let state = StateDir::open(dir).unwrap();
    Ca::load_or_create(&state, &TrustDomain::default(), clock)
}

fn ca_file(dir: &Path, name: &str) -> String {
    std::fs::read_to_string(dir.join("ca").join(name)).unwrap()
}

/// A CA provided by an operator.
struct Operator {
    root: Certificate,
    root_key: KeyPair,
    params: CertificateParams,
    key: KeyPair,
}

impl Operator {
    fn new(key: KeyPair) -> Self {
        let root_key = KeyPair::generate().unwrap();
        let root = ca_params("Example Root").self_signed(&root_key).unwrap();
        Self {
            root,
            root_key,
            params: ca_params("Example Issuing CA"),
            key,
        }
    }

    fn certificate(&self) -> Certificate {
        let issuer = Issuer::new(ca_params("Example Root"), &self.root_key);
        self.params.signed_by(&self.key, &issuer).unwrap()
    }

    /// Writes Istio's files; `cert-chain.pem` includes the root, like the output of Istio's
    /// Makefile.
    fn write(&self, dir: &Path) {
        let certificate = self.certificate().pem();
        let chain = certificate.clone() + &self.root.pem();
        self.write_files(dir, &certificate, &chain);
    }

    fn write_files(&self, dir: &Path, certificate: &str, chain: &str) {
        std::fs::create_dir_all(dir.join("ca")).unwrap();
        let write = |name, text: &str| std::fs::write(dir.join("ca").join(name), text).unwrap();
        write("root-cert.pem", &self.root.pem());
        write("ca-cert.pem", certificate);
        write("cert-chain.pem", chain);
        write("ca-key.pem", &self.key.serialize_pem());
    }
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_before = super::super::issue::certificate_time(start() - DAY).unwrap();
    params.not_after = super::super::issue::certificate_time(start() + 3650 * DAY).unwrap();
    params
}

fn ec() -> KeyPair {
    KeyPair::generate().unwrap()
}

fn issue(ca: &Ca) -> Vec<CertificateDer<'static>> {
    let id = "spiffe://cluster.local/ns/a/sa/b".parse().unwrap();
    let issued = ca.issue(&id, &IssueOptions::default()).unwrap();
    pem::certificates(issued.chain_pem.as_bytes()).unwrap()
}

fn problem(result: Result<Ca, CaError>, file: &str) -> FileProblem {
    match result.unwrap_err() {
        CaError::File { path, problem } => {
            assert!(path.ends_with(file), "{}", path.display());
            problem
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_new_ca_is_private_and_the_same_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let first = load(dir.path()).unwrap();
    for entry in std::fs::read_dir(dir.path().join("ca")).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().mode() & 0o7777, 0o600, "{:?}", entry.path());
    }
    assert_eq!(dir.path().join("ca").metadata().unwrap().mode() & 0o7777, 0o700);
    let root = ca_file(dir.path(), "root-cert.pem");
    assert_eq!(first.bundle().pem(), root);
    let again = load(dir.path()).unwrap();
    assert_eq!(again.bundle(), first.bundle());
    assert_eq!(again.fingerprint(), first.fingerprint());
    assert_eq!(first.validity().not_after, start() + 5 * 365 * DAY);
}

#[test]
fn concurrent_creation_yields_one_ca() {
    let dir = tempfile::tempdir().unwrap();
    let fingerprints: Vec<[u8; 32]> = std::thread::scope(|threads| {
        let started: Vec<_> = (0..8)
            .map(|_| threads.spawn(|| *load(dir.path()).unwrap().fingerprint()))
            .collect();
        started.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(fingerprints.iter().all(|f| f == &fingerprints[0]));
}

#[test]
fn the_intermediate_is_renewed_in_its_last_year_with_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let hand = ManualClock::new(start());
    let first = load_at(dir.path(), &hand.clock()).unwrap();
    hand.advance(4 * 365 * DAY - DAY);
    assert_eq!(
        load_at(dir.path(), &hand.clock()).unwrap().fingerprint(),
        first.fingerprint()
    );
    let key = ca_file(dir.path(), "ca-key.pem");
    hand.advance(2 * DAY);
    let second = load_at(dir.path(), &hand.clock()).unwrap();
    assert_ne!(second.fingerprint(), first.fingerprint());
    assert_eq!(second.bundle(), first.bundle());
    assert_eq!(second.validity().not_after, hand.clock().now() + 5 * 365 * DAY);
    assert_eq!(ca_file(dir.path(), "ca-key.pem"), key);
    assert_eq!(
        load_at(dir.path(), &hand.clock()).unwrap().fingerprint(),
        second.fingerprint()
    );
}

#[test]
fn an_interrupted_renewal_leaves_a_working_ca() {
    let dir = tempfile::tempdir().unwrap();
    let hand = ManualClock::new(start());
    load_at(dir.path(), &hand.clock()).unwrap();
    let old_chain = ca_file(dir.path(), "cert-chain.pem");
    hand.advance(4 * 365 * DAY + DAY);
    load_at(dir.path(), &hand.clock()).unwrap();
    std::fs::write(dir.path().join("ca/cert-chain.pem"), old_chain).unwrap();
    issue(&load_at(dir.path(), &hand.clock()).unwrap());
}

#[test]
fn the_intermediate_ends_with_the_root_and_is_renewed_even_when_expired() {
    let dir = tempfile::tempdir().unwrap();
    let hand = ManualClock::new(start());
    load_at(dir.path(), &hand.clock()).unwrap();
    hand.advance(6 * 365 * DAY);
    let late = load_at(dir.path(), &hand.clock()).unwrap();
    let root_end = start() + 3650 * DAY;
    assert_eq!(late.validity().not_after, root_end);
    hand.advance(4 * 365 * DAY - DAY);
    assert_eq!(
        load_at(dir.path(), &hand.clock()).unwrap().fingerprint(),
        late.fingerprint()
    );
    hand.advance(2 * DAY);
    let gone = problem(load_at(dir.path(), &hand.clock()), "ca-cert.pem");
    assert_eq!(gone, FileProblem::Expired(root_end));
}

#[test]
fn without_the_root_key_the_intermediate_is_not_renewed() {
    let dir = tempfile::tempdir().unwrap();
    let hand = ManualClock::new(start());
    let first = load_at(dir.path(), &hand.clock()).unwrap();
    std::fs::remove_file(dir.path().join("ca/root-key.pem")).unwrap();
    hand.advance(4 * 365 * DAY + DAY);
    assert_eq!(
        load_at(dir.path(), &hand.clock()).unwrap().fingerprint(),
        first.fingerprint()
    );
    hand.advance(365 * DAY);
    assert!(matches!(
        problem(load_at(dir.path(), &hand.clock()), "ca-cert.pem"),
        FileProblem::Expired(_)
    ));
}

#[test]
fn an_operators_ca_may_have_any_supported_key() {
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &PKCS_ECDSA_P384_SHA384,
        &PKCS_RSA_SHA256,
    ] {
        let dir = tempfile::tempdir().unwrap();
        let operator = Operator::new(KeyPair::generate_for(algorithm).unwrap());
        operator.write(dir.path());
        let ca = load(dir.path()).unwrap();
        let chain = issue(&ca);
        assert_eq!(chain.len(), 2, "the root is not sent");
        assert_eq!(ca.bundle().pem(), pem::encode(operator.root.der()));
        let mode = dir.path().join("ca/ca-key.pem").metadata().unwrap().mode();
        assert_eq!(mode & 0o7777, 0o600);
    }
}

#[test]
fn a_root_may_sign_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let operator = Operator::new(ec());
    let root = operator.root.pem();
    operator.write_files(dir.path(), &root, "");
    std::fs::write(dir.path().join("ca/ca-key.pem"), operator.root_key.serialize_pem()).unwrap();
    assert_eq!(issue(&load(dir.path()).unwrap()).len(), 1);
}

#[test]
fn a_name_with_repeated_attributes_is_kept_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let mut operator = Operator::new(ec());
    let common_name_again = DnType::CustomDnType(vec![2, 5, 4, 3]);
    operator
        .params
        .distinguished_name
        .push(common_name_again, "Second Name");
    operator.write(dir.path());
    let chain = issue(&load(dir.path()).unwrap());
    let issuer = check::parse(&chain[0]).unwrap().issuer().to_string();
    assert_eq!(issuer, "CN=Example Issuing CA, CN=Second Name");
}

#[test]
fn an_incomplete_set_is_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    load(dir.path()).unwrap();
    std::fs::remove_file(dir.path().join("ca/ca-key.pem")).unwrap();
    std::fs::remove_file(dir.path().join("ca/cert-chain.pem")).unwrap();
    let root = ca_file(dir.path(), "root-cert.pem");
    let error = load(dir.path()).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("contains root-cert.pem, ca-cert.pem, root-key.pem but not cert-chain.pem, ca-key.pem"),
        "{text}"
    );
    assert_eq!(ca_file(dir.path(), "root-cert.pem"), root);
}

#[test]
fn a_broken_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let operator = Operator::new(ec());
    let set = |name: &str, text: &str| {
        operator.write(dir.path());
        std::fs::write(dir.path().join("ca").join(name), text).unwrap();
        load(dir.path())
    };
    let other_key = ec().serialize_pem();
    assert_eq!(
        problem(set("ca-cert.pem", ""), "ca-cert.pem"),
        FileProblem::NoCertificate
    );
    assert_eq!(problem(set("ca-key.pem", ""), "ca-key.pem"), FileProblem::NoKey);
    assert_eq!(
        problem(set("ca-key.pem", &other_key), "ca-key.pem"),
        FileProblem::KeyMismatch
    );
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    for key in [
        encrypted,
        &KeyPair::generate_for(&PKCS_ED25519).unwrap().serialize_pem(),
    ] {
        let found = problem(set("ca-key.pem", key), "ca-key.pem");
        assert!(matches!(found, FileProblem::UnsupportedKey(_)), "{found}");
    }
    let cut = "-----BEGIN CERTIFICATE-----\nAAAA\n";
    for name in ["ca-cert.pem", "cert-chain.pem"] {
        let found = problem(set(name, cut), name);
        assert!(
            matches!(&found, FileProblem::Unreadable(why) if why.contains("truncated")),
            "{found}"
        );
    }
    let found = problem(set("root-cert.pem", cut), "root-cert.pem");
    assert!(matches!(found, FileProblem::Bundle(BundleError::NotPem(_))), "{found}");
}

#[test]
fn a_certificate_that_may_not_sign_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut operator = Operator::new(ec());
    operator.params.is_ca = IsCa::ExplicitNoCa;
    operator.write(dir.path());
    assert_eq!(problem(load(dir.path()), "ca-cert.pem"), FileProblem::NotACa);

    operator.params = ca_params("Example Issuing CA");
    operator.params.key_usages = vec![KeyUsagePurpose::CrlSign];
    operator.write(dir.path());
    assert_eq!(problem(load(dir.path()), "ca-cert.pem"), FileProblem::MayNotSign);

    let (early, late) = (start() - 2 * DAY, start() + 3651 * DAY);
    operator.params = ca_params("Example Issuing CA");
    operator.write(dir.path());
    let found = problem(load_at(dir.path(), &Clock::fixed(early)), "ca-cert.pem");
    assert_eq!(found, FileProblem::NotYetValid(start() - DAY));
    let found = problem(load_at(dir.path(), &Clock::fixed(late)), "ca-cert.pem");
    assert_eq!(found, FileProblem::Expired(start() + 3650 * DAY));
}

#[test]
fn an_expired_root_is_refused_unless_another_is_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let operator = Operator::new(ec());
    operator.write(dir.path());
    let mut old = ca_params("Old Root");
    old.not_after = super::super::issue::certificate_time(start() - Duration::from_secs(1)).unwrap();
    let old = old.self_signed(&ec()).unwrap().pem();
    let roots = dir.path().join("ca/root-cert.pem");
    std::fs::write(&roots, &old).unwrap();
    assert!(matches!(
        problem(load(dir.path()), "root-cert.pem"),
        FileProblem::Expired(_)
    ));
    std::fs::write(&roots, old + &operator.root.pem()).unwrap();
    assert_eq!(load(dir.path()).unwrap().bundle().roots().len(), 2);
}

#[test]
fn a_chain_without_a_trusted_root_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (operator, stranger) = (Operator::new(ec()), Operator::new(ec()));
    operator.write(dir.path());
    std::fs::write(dir.path().join("ca/root-cert.pem"), stranger.root.pem()).unwrap();
    let error = load(dir.path()).unwrap_err();
    assert!(matches!(error, CaError::Chain { .. }), "{error}");
    assert!(error.to_string().contains("root-cert.pem"), "{error}");
}

#[test]
fn a_ca_for_servers_only_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut operator = Operator::new(ec());
    operator.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    operator.write(dir.path());
    assert!(matches!(load(dir.path()), Err(CaError::Chain { .. })));
}

#[test]
fn a_missing_link_between_intermediate_and_root_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let upper = Operator::new(ec());
    let lower_key = ec();
    let upper_issuer = Issuer::new(upper.params.clone(), &upper.key);
    let lower = ca_params("Example Lower CA")
        .signed_by(&lower_key, &upper_issuer)
        .unwrap()
        .pem();
    let set = |chain: &str| {
        upper.write_files(dir.path(), &lower, chain);
        std::fs::write(dir.path().join("ca/ca-key.pem"), lower_key.serialize_pem()).unwrap();
        load(dir.path())
    };
    assert!(matches!(set(&lower), Err(CaError::Chain { .. })));
    let whole = lower.clone() + &upper.certificate().pem() + &upper.root.pem();
    let chain = issue(&set(&whole).unwrap());
    assert_eq!(chain.len(), 3, "leaf, lower and upper");
}
