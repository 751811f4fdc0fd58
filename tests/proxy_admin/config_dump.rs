//! `/config_dump` and `/certs`.

use super::proxy::Proxy;

#[tokio::test]
async fn config_dump_has_envoys_format() {
    let proxy = Proxy::start().await;
    let dump = proxy.json("/config_dump?include_eds").await;
    let configs = dump["configs"].as_array().unwrap();
    let kinds: Vec<_> = configs
        .iter()
        .map(|config| config["@type"].as_str().unwrap().rsplit('.').next().unwrap())
        .collect();
    let expected = [
        "BootstrapConfigDump",
        "ClustersConfigDump",
        "EndpointsConfigDump",
        "ListenersConfigDump",
        "ScopedRoutesConfigDump",
        "RoutesConfigDump",
        "SecretsConfigDump",
    ];
    assert_eq!(kinds, expected);
    assert_eq!(configs[0]["bootstrap"]["node"]["cluster"], "a.default");
    let cluster = &configs[1]["static_clusters"][0];
    assert_eq!(
        cluster["cluster"]["@type"],
        "type.googleapis.com/envoy.config.cluster.v3.Cluster"
    );
    assert!(cluster["last_updated"].as_str().unwrap().ends_with('Z'));
    let endpoints = &configs[2]["static_endpoint_configs"][0]["endpoint_config"];
    let endpoint = &endpoints["endpoints"][0]["lb_endpoints"][0];
    assert_eq!(
        endpoint["endpoint"]["address"]["socket_address"]["port_value"],
        proxy.admin.port()
    );
    assert_eq!(endpoint["health_status"], "HEALTHY");
    assert_eq!(configs[3]["static_listeners"][1]["listener"]["name"], "metrics");
    let routes = &configs[5]["static_route_configs"][0]["route_config"];
    assert_eq!(routes["virtual_hosts"][0]["routes"][0]["route"]["cluster"], "admin");
}

#[tokio::test]
async fn config_dump_can_be_filtered() {
    let proxy = Proxy::start().await;
    let dump = proxy.json("/config_dump?resource=static_listeners").await;
    let kind = "type.googleapis.com/envoy.admin.v3.ListenersConfigDump.StaticListener";
    assert_eq!(dump["configs"][0]["@type"], kind);
    assert_eq!(dump["configs"].as_array().unwrap().len(), 2);
    assert_eq!(proxy.text("/config_dump?resource=dynamic_listeners").await, "{}\n");
    let (status, text) = proxy.get("/config_dump?resource=nope").await;
    assert_eq!((status.as_u16(), &*text), (404, "nope not found in config dump"));
    let none = proxy.json("/config_dump?name_regex=nobody").await;
    assert!(none["configs"][1].get("static_clusters").is_none(), "{none}");
    assert_eq!(proxy.text("/certs").await, "{}\n");
}
