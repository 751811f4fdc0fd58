use prost::{Message, Name};

use super::*;
use crate::proxy::config::Names;
use crate::xds::pb::core::socket_address::PortSpecifier;
use crate::xds::pb::core::{Address, SocketAddress, address as any_address};
use crate::xds::pb::listener::listener_filter::ConfigType;
use crate::xds::pb::listener::listener_filter_chain_match_predicate::{MatchSet, Rule};
use crate::xds::pb::listener::{
    Filter, FilterChain, FilterChainMatch, ListenerFilter, ListenerFilterChainMatchPredicate as Predicate,
    filter::ConfigType as FilterConfig,
};
use crate::xds::pb::listener_filter::http_inspector::HttpInspector;
use crate::xds::pb::listener_filter::original_dst::OriginalDst;
use crate::xds::pb::listener_filter::original_src::OriginalSrc;
use crate::xds::pb::listener_filter::proxy_protocol::ProxyProtocol;
use crate::xds::pb::listener_filter::tls_inspector::TlsInspector;
use crate::xds::pb::network_filter::tcp_proxy::TcpProxy;
use crate::xds::pb::network_filter::tcp_proxy::tcp_proxy::ClusterSpecifier;
use crate::xds::pb::types::Int32Range;

fn ip(address: &str, port: u32) -> Address {
    Address {
        address: Some(any_address::Address::SocketAddress(SocketAddress {
            address: address.to_owned(),
            port_specifier: Some(PortSpecifier::PortValue(port)),
            ..Default::default()
        })),
    }
}

fn plain() -> listener::Listener {
    listener::Listener {
        name: "a".to_owned(),
        address: Some(ip("127.0.0.1", 80)),
        ..Default::default()
    }
}

fn filter<M: Message + Name>(config: &M) -> ListenerFilter {
    ListenerFilter {
        name: "x".to_owned(),
        config_type: Some(ConfigType::TypedConfig(wkt::Any {
            type_url: M::type_url(),
            value: config.encode_to_vec(),
        })),
        filter_disabled: None,
    }
}

fn passing_on() -> Filter {
    let proxy = TcpProxy {
        stat_prefix: "x".to_owned(),
        cluster_specifier: Some(ClusterSpecifier::Cluster("x".to_owned())),
        ..Default::default()
    };
    Filter {
        name: "x".to_owned(),
        config_type: Some(FilterConfig::TypedConfig(wkt::Any {
            type_url: TcpProxy::type_url(),
            value: proxy.encode_to_vec(),
        })),
    }
}

fn compiled(message: &listener::Listener) -> Result<Listener, String> {
    listener(message, &mut Names::default()).map_err(|refusal| refusal.to_string())
}

fn on_port(start: i32) -> Predicate {
    Predicate {
        rule: Some(Rule::DestinationPortRange(Int32Range { start, end: start + 1 })),
    }
}

#[test]
fn inspectors_leave_ports_alone() {
    let mut tls = filter(&TlsInspector::default());
    tls.filter_disabled = Some(Predicate {
        rule: Some(Rule::OrMatch(MatchSet {
            rules: vec![on_port(3306), on_port(8080)],
        })),
    });
    let mut http = filter(&HttpInspector {});
    http.filter_disabled = Some(on_port(25));
    let original_src = OriginalSrc {
        mark: 1337,
        ..Default::default()
    };
    let message = listener::Listener {
        listener_filters: vec![filter(&OriginalDst {}), filter(&original_src), tls, http],
        continue_on_listener_filters_timeout: true,
        ..plain()
    };
    let inspection = compiled(&message).unwrap().inspection;
    assert!(inspection.original_dst && inspection.continue_on_timeout);
    assert_eq!(inspection.timeout, Some(Duration::from_secs(15)));
    assert_eq!(inspection.original_src, Some(1337));
    assert_eq!(inspection.tls, Some(vec![(3306, 3307), (8080, 8081)]));
    assert_eq!(inspection.http, Some(vec![(25, 26)]));
}

#[test]
fn filters_that_are_not_known_are_refused() {
    let unknown = ListenerFilter {
        name: "who".to_owned(),
        config_type: Some(ConfigType::TypedConfig(wkt::Any {
            type_url: "type.googleapis.com/x.Y".to_owned(),
            value: Default::default(),
        })),
        filter_disabled: None,
    };
    let message = listener::Listener {
        listener_filters: vec![unknown],
        ..plain()
    };
    let error = compiled(&message).unwrap_err();
    assert_eq!(
        error,
        "listener_filters[0]: the listener filter `who` is not implemented"
    );
}

#[test]
fn who_hands_connections_off_by_their_destination_looks_for_it() {
    let message = listener::Listener {
        use_original_dst: Some(wkt::BoolValue { value: true }),
        ..plain()
    };
    assert!(compiled(&message).unwrap().inspection.original_dst);
}

#[test]
fn inspectors_come_after_the_original_destination() {
    let message = listener::Listener {
        listener_filters: vec![filter(&TlsInspector::default()), filter(&OriginalDst {})],
        ..plain()
    };
    assert!(
        compiled(&message)
            .unwrap_err()
            .contains("an inspector is not implemented")
    );
}

#[test]
fn a_proxy_before_us_is_heard_after_the_destination_and_before_all_else() {
    let proxy = || filter(&ProxyProtocol::default());
    let with = |filters| {
        compiled(&listener::Listener {
            listener_filters: filters,
            ..plain()
        })
    };
    let inspection = with(vec![filter(&OriginalDst {}), proxy(), filter(&TlsInspector::default())]);
    let protocol = inspection.unwrap().inspection.proxy_protocol.unwrap();
    assert!(protocol.v1 && protocol.v2 && !protocol.optional);
    for wrong in [
        vec![proxy(), filter(&OriginalDst {})],
        vec![proxy(), proxy()],
        vec![filter(&OriginalSrc::default()), proxy()],
        vec![filter(&TlsInspector::default()), proxy()],
        vec![filter(&HttpInspector::default()), proxy()],
    ] {
        let error = with(wrong).unwrap_err();
        assert!(error.starts_with("listener_filters[1]: "), "{error}");
    }
}

#[test]
fn a_condition_that_is_not_about_ports_is_refused() {
    let mut tls = filter(&TlsInspector::default());
    tls.filter_disabled = Some(Predicate {
        rule: Some(Rule::AnyMatch(true)),
    });
    let message = listener::Listener {
        listener_filters: vec![tls],
        ..plain()
    };
    assert!(
        compiled(&message)
            .unwrap_err()
            .starts_with("listener_filters[0].filter_disabled: ")
    );
}

fn for_names(name: &str, server_names: &[&str]) -> FilterChain {
    FilterChain {
        name: name.to_owned(),
        filter_chain_match: Some(FilterChainMatch {
            server_names: server_names.iter().map(ToString::to_string).collect(),
            ..Default::default()
        }),
        filters: vec![passing_on()],
        ..Default::default()
    }
}

#[test]
fn chains_that_overlap_are_refused() {
    let message = listener::Listener {
        filter_chains: vec![for_names("one", &["a", "b"]), for_names("two", &["b"])],
        ..plain()
    };
    let error = compiled(&message).unwrap_err();
    assert_eq!(
        error,
        "filter_chains[1]: filter chain 'two' has matching rules that overlap with those of 'one'"
    );
}

#[test]
fn names_that_are_only_partly_wildcards_are_refused() {
    for name in ["*", "*w.example.com", "a.*.com"] {
        let message = listener::Listener {
            filter_chains: vec![for_names("one", &[name])],
            ..plain()
        };
        let error = compiled(&message).unwrap_err();
        assert!(
            error.starts_with("filter_chains[0].filter_chain_match.server_names[0]: "),
            "{error}"
        );
    }
}

#[test]
fn a_zero_turns_keep_alive_off() {
    let seconds = |value| Some(wkt::UInt32Value { value });
    let message = core::TcpKeepalive {
        keepalive_time: seconds(30),
        ..Default::default()
    };
    let on = keepalive(&message).unwrap();
    assert_eq!((on.time, on.probes), (Some(Duration::from_secs(30)), None));
    let message = core::TcpKeepalive {
        keepalive_interval: seconds(0),
        ..message
    };
    assert_eq!(keepalive(&message), None);
}
