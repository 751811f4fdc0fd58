//! Join tokens: none is accepted that this server did not sign.

#![no_main]

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use libfuzzer_sys::fuzz_target;
use topsail::name::TrustDomain;
use topsail::pki::{Bearer, StateDir, TokenClaims, TokenGrant, TokenSigner};

struct Server {
    signer: TokenSigner,
    good: String,
    now: SystemTime,
}

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let directory = tempfile::tempdir().expect("a state directory");
    let state = StateDir::open(directory.path()).expect("the state directory opens");
    let signer = TokenSigner::load_or_create(&state, &TrustDomain::default()).expect("a key");
    let grant = TokenGrant {
        bearer: Bearer::Workload {
            name: "web.default".parse().expect("a workload's name"),
            addresses: vec![],
        },
        service_account: "web".parse().expect("a service account's name"),
        labels: [("app".to_owned(), "web".to_owned())].into(),
    };
    let now = SystemTime::now();
    let good = signer.create(&grant, Duration::from_secs(3600), now).expect("a token");
    Server { signer, good, now }
});

fuzz_target!(|input: (bool, String)| {
    let (altered, text) = input;
    let server = &*SERVER;
    // Half of the inputs are appended to a truncated valid token, as random input never has a valid
    // signature.
    let kept = server.good.len().saturating_sub(text.len());
    let token = if altered {
        format!("{}{text}", &server.good[..kept])
    } else {
        text
    };
    match server.signer.verify(&token, server.now) {
        Ok(_) => assert_eq!(token, server.good),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    // Sidecars read the claims without verifying the signature.
    if let Ok(told) = TokenClaims::told_to_bearer(&token) {
        let _ = (told.identity(), told.is_half_over(server.now));
    }
});
