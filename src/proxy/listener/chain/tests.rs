use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;

/// How specifically a chain asks for what a connection has: more is better, 0 is not at all, none is no match.
type Score = fn(&ChainMatch, &MatchInputs<'_>) -> Option<u32>;

/// The plain definition: the criteria in Envoy's order.
const SCORES: [Score; 9] = [
    |chain, inputs| given(chain.port.as_ref(), |port| *port == inputs.port),
    |chain, inputs| longest(&chain.prefixes, inputs.destination),
    |chain, inputs| server_name(&chain.server_names, inputs.server_name),
    |chain, inputs| {
        let wanted = if inputs.tls { "tls" } else { "raw_buffer" };
        given(chain.transport.as_ref(), |transport| **transport == *wanted)
    },
    |chain, inputs| {
        if chain.alpn.is_empty() {
            return Some(0);
        }
        let place = inputs
            .alpn
            .iter()
            .position(|offered| chain.alpn.iter().any(|one| **one == **offered))?;
        u32::try_from(inputs.alpn.len() - place).ok()
    },
    |chain, inputs| longest(&chain.direct_sources, inputs.direct_source),
    |chain, inputs| match chain.source_type {
        SourceType::Any => Some(0),
        SourceType::Local => inputs.is_local().then_some(1),
        SourceType::External => (!inputs.is_local()).then_some(1),
    },
    |chain, inputs| longest(&chain.sources, inputs.source),
    |chain, inputs| match &chain.source_ports[..] {
        [] => Some(0),
        ports => ports.contains(&inputs.source_port).then_some(1),
    },
];

fn given<T>(wanted: Option<&T>, is: impl Fn(&T) -> bool) -> Option<u32> {
    match wanted {
        None => Some(0),
        Some(wanted) => is(wanted).then_some(1),
    }
}

fn longest(prefixes: &[IpNet], address: IpAddr) -> Option<u32> {
    if prefixes.is_empty() {
        return Some(0);
    }
    let holding = prefixes.iter().filter(|prefix| prefix.contains(&address));
    holding.map(|prefix| u32::from(prefix.prefix_len()) + 1).max()
}

fn server_name(wanted: &[Box<str>], name: Option<&str>) -> Option<u32> {
    if wanted.is_empty() {
        return Some(0);
    }
    let name = name?;
    let specific = |wanted: &str| match wanted.strip_prefix('*') {
        Some(suffix) if name.len() > suffix.len() && name.ends_with(suffix) => u32::try_from(suffix.len()).ok(),
        Some(_) => None,
        None => (wanted == name).then_some(u32::MAX),
    };
    wanted.iter().filter_map(|wanted| specific(wanted)).max()
}

fn plainly(chains: &[ChainMatch], inputs: &MatchInputs<'_>) -> Option<usize> {
    let mut left: Vec<_> = (0..chains.len()).collect();
    for score in SCORES {
        let best = left.iter().filter_map(|place| score(&chains[*place], inputs)).max()?;
        left.retain(|place| score(&chains[*place], inputs) == Some(best));
    }
    assert!(left.len() < 2, "two are left: {left:?}");
    left.first().copied()
}

const NAMES: [&str; 5] = [
    "a.example.com",
    "*.example.com",
    "*.com",
    "b.a.example.com",
    "*.a.example.com",
];
const PREFIXES: [&str; 5] = ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "0.0.0.0/0", "fd00::/8"];
const ADDRESSES: [&str; 5] = ["10.1.2.3", "10.2.0.1", "127.0.0.1", "fd00::1", "::1"];

fn prefixes() -> impl Strategy<Value = Vec<IpNet>> {
    let of = |some: Vec<&str>| some.iter().map(|text| text.parse().unwrap()).collect();
    prop_oneof![2 => Just(Vec::new()), 1 => subsequence(PREFIXES.to_vec(), 1..3).prop_map(of)]
}

fn chain() -> impl Strategy<Value = ChainMatch> {
    let names = subsequence(NAMES.to_vec(), 0..3);
    let alpn = subsequence(vec!["h2", "http/1.1", "x"], 0..3);
    let transport = select(vec![None, Some("tls"), Some("raw_buffer"), Some("quic")]);
    let kind = select(vec![SourceType::Any, SourceType::Local, SourceType::External]);
    let ports = (prop::option::of(80_u16..82), vec(1_u16..3, 0..2));
    (ports, prefixes(), names, transport, alpn, prefixes(), kind, prefixes()).prop_map(
        |((port, source_ports), prefixes, names, transport, alpn, sources, source_type, direct_sources)| ChainMatch {
            port,
            prefixes,
            server_names: names.into_iter().map(Into::into).collect(),
            transport: transport.map(Into::into),
            alpn: alpn.into_iter().map(|one| one.as_bytes().into()).collect(),
            direct_sources,
            sources,
            source_ports,
            source_type,
        },
    )
}

proptest! {
    #[test]
    fn the_tree_finds_what_the_plain_definition_finds(
        mut chains in vec(chain(), 1..12),
        name in select(vec![None, Some("a.example.com"), Some("b.a.example.com"), Some("c.example.com"), Some("com"), Some("example.org")]),
        (port, source_port, tls) in (80_u16..83, 1_u16..4, any::<bool>()),
        alpn in subsequence(vec!["x", "http/1.1", "h2"], 0..3),
        (destination, source, direct_source) in (select(ADDRESSES.to_vec()), select(ADDRESSES.to_vec()), select(ADDRESSES.to_vec())),
    ) {
        // Chains that take the same connections are refused; the later one goes.
        let tree = loop {
            match Tree::new(chains.iter()) {
                Ok(tree) => break tree,
                Err((_, place)) => chains.remove(place),
            };
        };
        let alpn: Vec<_> = alpn.into_iter().map(|one| one.as_bytes().to_vec()).collect();
        let inputs = MatchInputs {
            port,
            destination: destination.parse().unwrap(),
            server_name: name,
            tls,
            alpn: &alpn,
            direct_source: direct_source.parse().unwrap(),
            source: source.parse().unwrap(),
            source_port,
        };
        prop_assert_eq!(tree.find(&inputs), plainly(&chains, &inputs));
    }
}

fn inputs() -> MatchInputs<'static> {
    MatchInputs {
        port: 80,
        destination: "10.1.2.3".parse().unwrap(),
        server_name: None,
        tls: false,
        alpn: &[],
        direct_source: "10.9.9.9".parse().unwrap(),
        source: "10.9.9.9".parse().unwrap(),
        source_port: 4000,
    }
}

fn named(names: &[&str]) -> ChainMatch {
    ChainMatch {
        server_names: names.iter().map(|name| Box::from(*name)).collect(),
        ..Default::default()
    }
}

#[test]
fn what_is_lost_at_an_earlier_criterion_does_not_come_back() {
    let port = ChainMatch {
        port: Some(80),
        transport: Some("tls".into()),
        ..Default::default()
    };
    let tree = Tree::new([port, ChainMatch::default()].iter()).unwrap();
    assert_eq!(tree.find(&inputs()), None);
    assert_eq!(tree.find(&MatchInputs { port: 81, ..inputs() }), Some(1));
    assert_eq!(tree.find(&MatchInputs { tls: true, ..inputs() }), Some(0));
}

#[test]
fn names_match_by_whole_labels() {
    let tree = Tree::new([named(&["*.example.com"]), named(&["example.com"])].iter()).unwrap();
    let find = |name| {
        tree.find(&MatchInputs {
            server_name: Some(name),
            ..inputs()
        })
    };
    assert_eq!(find("a.b.example.com"), Some(0));
    assert_eq!(find("example.com"), Some(1));
    assert_eq!(find("an-example.com"), None);
    assert_eq!(find(""), None);
}

#[test]
fn the_clients_first_protocol_decides() {
    let speaks = |protocol: &[u8]| ChainMatch {
        alpn: vec![protocol.into()],
        ..Default::default()
    };
    let tree = Tree::new([speaks(b"http/1.1"), speaks(b"h2")].iter()).unwrap();
    let offered = [b"x".to_vec(), b"h2".to_vec(), b"http/1.1".to_vec()];
    assert_eq!(
        tree.find(&MatchInputs {
            alpn: &offered,
            ..inputs()
        }),
        Some(1)
    );
}

#[test]
fn a_unix_socket_is_local_and_has_no_port() {
    let local = ChainMatch {
        source_type: SourceType::Local,
        ..Default::default()
    };
    let port = ChainMatch {
        port: Some(80),
        ..Default::default()
    };
    let tree = Tree::new([local, port].iter()).unwrap();
    let unix = MatchInputs {
        port: 0,
        destination: IpAddr::V4(std::net::Ipv4Addr::BROADCAST),
        source: IpAddr::V4(std::net::Ipv4Addr::BROADCAST),
        direct_source: IpAddr::V4(std::net::Ipv4Addr::BROADCAST),
        source_port: 0,
        ..inputs()
    };
    assert_eq!(tree.find(&unix), Some(0));
}

#[test]
fn two_chains_for_the_same_connections_are_told() {
    let error = Tree::new([named(&["a", "b"]), named(&["c"]), named(&["b", "d"])].iter()).unwrap_err();
    assert_eq!(error, (0, 2));
}
