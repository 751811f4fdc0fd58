//! Which servers are asked for what, and what is read of their answers.

use super::super::testing::servers;
use super::*;

fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn own_servers_come_in_the_place_of_the_systems_or_after_them() {
    let known = || System::read(b"nameserver 10.0.0.1\nnameserver ::1\n").servers;
    let none = Vec::new;
    let mut config = servers(&addresses(&["10.0.0.9:5353"]));
    assert_eq!(asked(&config, known()), config.own);
    config.fallback = true;
    assert_eq!(asked(&config, known()), addresses(&["10.0.0.1:53", "[::1]:53"]));
    assert_eq!(asked(&config, none()), config.own);
    config.own.clear();
    assert_eq!(asked(&config, known()), addresses(&["10.0.0.1:53", "[::1]:53"]));
    assert_eq!(asked(&config, none()), addresses(&["127.0.0.1:53"]));
}

#[test]
fn names_are_looked_for_in_the_domains_of_the_system() {
    let text = b"domain zero.example\nsearch one.example two.example\nodd line\noptions ndots:2\nnameserver 10.0.0.1\n";
    let mut config = servers(&[]);
    let of = |config: &NameServers, name: &str| {
        let servers = Servers::beside(config, System::read(text));
        let candidates = candidates(name, &servers.search, servers.ndots).unwrap();
        candidates.iter().map(Name::to_ascii).collect::<Vec<_>>()
    };
    assert_eq!(of(&config, "back"), ["back.one.example.", "back.two.example.", "back."]);
    assert_eq!(
        of(&config, "a.b.back"),
        ["a.b.back.", "a.b.back.one.example.", "a.b.back.two.example."]
    );
    assert_eq!(of(&config, "back."), ["back."]);
    // As containers are called.
    assert_eq!(of(&config, "my_back.")[..], ["my_back."]);
    config.searches = false;
    assert_eq!(of(&config, "back"), ["back."]);
}

#[tokio::test]
async fn what_is_no_name_cannot_be_looked_up() {
    let servers = Servers::new(&servers(&addresses(&["127.0.0.1:1"])));
    let error = servers.lookup(&"a".repeat(64), DnsFamily::V4).await.unwrap_err();
    assert!(matches!(error, LookupError::Name(_)), "{error}");
}

#[test]
fn an_alias_limits_the_time_to_live() {
    use hickory_resolver::proto::rr::rdata::{A, CNAME};
    let name = |text: &str| Name::from_ascii(text).unwrap();
    let mut message = Message::query();
    message.answers = vec![
        Record::from_rdata(name("back.example."), 7, RData::CNAME(CNAME(name("other.example.")))),
        Record::from_rdata(name("other.example."), 60, RData::A(A::new(10, 0, 0, 1))),
        Record::from_rdata(name("other.example."), 5, RData::A(A::new(10, 0, 0, 2))),
    ];
    let found = |address: &str, ttl| Found {
        address: address.parse().unwrap(),
        ttl: Duration::from_secs(ttl),
    };
    assert_eq!(
        records(&message, RecordType::A),
        [found("10.0.0.1", 7), found("10.0.0.2", 5)]
    );
    assert!(records(&message, RecordType::AAAA).is_empty());
}
