//! The file, the flags, and what they mean together.

use super::*;

fn settings(text: &str, flags: &Flags) -> Settings {
    let header = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
    let text = if text.contains("apiVersion") { text.to_owned() } else { format!("{header}{text}") };
    let decoded = decode(&text).expect("a configuration");
    Settings::new(Some(("kube-proxy.conf".into(), text)), decoded, flags)
}

#[expect(clippy::unnecessary_wraps, reason = "the settings that it is compared with are optional")]
fn at(text: &str) -> Option<SocketAddr> {
    Some(text.parse().expect("an address"))
}

/// CF-2, CF-4, CF-5, CF-12, CF-15: kubeadm writes every field empty, which means the defaults.
#[test]
fn what_kubeadm_writes_means_the_defaults() {
    let read = settings(include_str!("testdata/kubeadm.yaml"), &Flags::default());
    assert_eq!((read.healthz, read.metrics), (at("0.0.0.0:10256"), at("127.0.0.1:10249")));
    assert_eq!((read.node_name.as_deref(), read.bind_hard_fail, read.oom_score_adj), (None, false, -999));
    assert_eq!(read.patience, Duration::from_mins(1));
    assert_eq!(read.kubeconfig, Some("/var/lib/kube-proxy/kubeconfig.conf".into()));
    assert_eq!(read.node_port_addresses, NodePortAddresses::default());
    assert_eq!(read.problems, []);
}

/// CF-2, CF-3, CF-4, CF-5, CF-12, CF-15: fields that are written count.
#[test]
fn what_is_written_counts() {
    let read = settings(
        "bindAddress: '::'\nbindAddressHardFail: true\nhostnameOverride: ' Node-1 '\noomScoreAdj: -5\n\
         metricsBindAddress: 0.0.0.0\nmode: ipvs\nipvs: {syncPeriod: 1m30s}\nnodePortAddresses: [primary]\n",
        &Flags::default(),
    );
    assert_eq!((read.healthz, read.metrics), (at("[::]:10256"), at("0.0.0.0:10249")));
    assert_eq!(
        (read.node_name.as_deref(), read.bind_hard_fail, read.oom_score_adj),
        (Some("node-1"), true, -5)
    );
    assert_eq!(read.patience, Duration::from_mins(3));
    assert_eq!(read.node_port_addresses, NodePortAddresses::read(["primary"]).0);
    assert_eq!(read.problems, []);
}

/// CF-1, CF-2: flags override the file; CF-4: an empty one, or port 0, means nowhere.
#[test]
fn flags_override_the_file() {
    let flags = Flags {
        node_name: Some("N2".into()),
        healthz_bind_address: Some(String::new()),
        metrics_bind_address: Some("127.0.0.1:0".into()),
        bind_address_hard_fail: Some(false),
        kubeconfig: Some("/etc/k".into()),
        oom_score_adj: Some(7),
        ..Flags::default()
    };
    let read = settings(
        "hostnameOverride: n1\nhealthzBindAddress: 0.0.0.0:1\nbindAddressHardFail: true\noomScoreAdj: 1\n\
         clientConnection: {kubeconfig: /file}\n",
        &flags,
    );
    assert_eq!((read.healthz, read.metrics), (None, None));
    assert_eq!((read.node_name.as_deref(), read.bind_hard_fail, read.oom_score_adj), (Some("n2"), false, 7));
    assert_eq!(read.kubeconfig, Some("/etc/k".into()));
}

/// CF-8, CF-12: what cannot be used is named, and the defaults hold.
#[test]
fn what_cannot_be_used_is_named() {
    let read = settings(
        "healthzBindAddress: nowhere\niptables: {syncPeriod: often}\nnodePortAddresses: [10.0.0.0]\nfoo: 1\n",
        &Flags::default(),
    );
    let fields: Vec<&str> = read.problems.iter().map(|problem| &*problem.field).collect();
    assert_eq!(fields, ["foo", "healthzBindAddress", "nodePortAddresses[0]", "iptables.syncPeriod"]);
    assert_eq!((read.healthz, read.patience), (at("0.0.0.0:10256"), Duration::from_mins(1)));
}

/// CF-10: `masqueradeAll` counts in the section of every mode.
#[test]
fn masquerade_all_counts_in_every_mode() {
    for back_end in ["iptables", "ipvs", "nftables"] {
        let read = |value| settings(&format!("{back_end}: {{masqueradeAll: {value}}}\n"), &Flags::default());
        assert!(read(true).masquerade_all && !read(false).masquerade_all, "{back_end}");
        assert_eq!(ignored(&read(true).effective).expect("fields"), [], "{back_end}");
    }
    assert!(!settings("", &Flags::default()).masquerade_all);
}

/// CF-6, CF-7, CF-9, CF-12, CF-13, CF-14: fields without effect are known, change nothing, are logged by name, and
/// appear in `/configz`.
#[test]
fn fields_without_effect_are_named_and_change_nothing() {
    let written = [
        "featureGates: {SomeGate: true}",
        "logging: {format: json}",
        "enableProfiling: true",
        "showHiddenMetricsForVersion: '1.35'",
        "mode: nftables",
        "detectLocalMode: BridgeInterface",
        "clusterCIDR: 10.244.0.0/16",
        "detectLocal: {bridgeInterface: br0}",
        "iptables: {masqueradeBit: 14, minSyncPeriod: 5s}",
        "configSyncPeriod: 15m",
        "conntrack: {maxPerCore: 1, min: 2, tcpBeLiberal: true}",
        "ipvs: {scheduler: rr, strictARP: true}",
        "winkernel: {networkName: x}",
    ];
    let nothing = settings("", &Flags::default());
    for line in written {
        let read = settings(&format!("{line}\n"), &Flags::default());
        assert_eq!(read.problems, [], "{line}");
        let field = line.split_once(':').expect("a field").0;
        let named = ignored(&read.effective).expect("fields");
        assert!(!named.is_empty() && named.iter().all(|found| found.field.starts_with(field)), "{named:?}");
        assert!(read.to_yaml().expect("YAML").contains(field), "{line}");
        assert_eq!(
            (read.healthz, read.metrics, read.node_name, read.kubeconfig, read.patience),
            (
                nothing.healthz,
                nothing.metrics,
                nothing.node_name.clone(),
                nothing.kubeconfig.clone(),
                nothing.patience
            ),
            "{line}"
        );
        assert_eq!(
            (read.node_port_addresses, read.bind_hard_fail, read.oom_score_adj),
            (nothing.node_port_addresses.clone(), nothing.bind_hard_fail, nothing.oom_score_adj),
            "{line}"
        );
    }
}

/// CF-14: the timeouts that kube-proxy sets in conntrack are those of flows; 0 means the default, and what cannot be
/// read is named.
#[test]
fn conntracks_timeouts_are_those_of_flows() {
    let of = |text| settings(text, &Flags::default());
    let default = Timeouts::default();
    assert_eq!((default.tcp_established.as_secs(), default.udp_seconds()), (86_400, 30));
    let read = of(
        "conntrack: {tcpEstablishedTimeout: 2h0m0s, tcpCloseWaitTimeout: 10m, udpTimeout: 1500ms, udpStreamTimeout: 3m}\n",
    );
    let expected = Timeouts {
        tcp_established: Duration::from_hours(2),
        tcp_close_wait: Duration::from_mins(10),
        udp: Duration::from_millis(1500),
        udp_stream: Duration::from_mins(3),
    };
    assert_eq!((read.timeouts, read.timeouts.udp_seconds(), read.problems), (expected, 2, vec![]));
    let read = of("conntrack: {tcpEstablishedTimeout: 0s, udpTimeout: 0s, udpStreamTimeout: soon}\n");
    assert_eq!(read.timeouts, default);
    let fields: Vec<&str> = read.problems.iter().map(|problem| &*problem.field).collect();
    assert_eq!(fields, ["conntrack.udpStreamTimeout"]);
}

/// CF-16: `portRange` is where masqueraded packets have their source ports from; the flag goes first, and what cannot
/// be used is named.
#[test]
fn the_port_range_is_that_of_source_ports() {
    let flags = Flags { source_port_range: Some("2000-2001".parse().expect("a range")), ..Flags::default() };
    for (text, flags, ports, bad) in [
        ("", &Flags::default(), "49152-65535", false),
        ("portRange: ''\n", &Flags::default(), "49152-65535", false),
        ("portRange: '0-0'\n", &Flags::default(), "49152-65535", false),
        ("portRange: 50000-50009\n", &Flags::default(), "50000-50009", false),
        ("portRange: 50000-50009\n", &flags, "2000-2001", false),
        ("portRange: 80-90\n", &Flags::default(), "49152-65535", true),
    ] {
        let read = settings(text, flags);
        assert_eq!(read.source_ports.to_string(), ports, "{text}");
        assert_eq!(read.effective.port_range.as_deref(), Some(ports), "{text}");
        let fields: Vec<&str> = read.problems.iter().map(|problem| &*problem.field).collect();
        assert_eq!(fields, if bad { &["portRange"][..] } else { &[] }, "{text}");
    }
}

/// CF-11: NodePorts at loopback are switched off by the field of iptables, as in kube-proxy, and by no other.
#[test]
fn localhost_node_ports_of_iptables_counts() {
    let of = |text| settings(text, &Flags::default()).node_port_addresses;
    let default = NodePortAddresses::default();
    assert_eq!(of("iptables: {localhostNodePorts: false}\n"), default.clone().never_at_loopback());
    for text in ["iptables: {localhostNodePorts: true}\n", "nftables: {localhostNodePorts: false}\n"] {
        assert_eq!(of(text), default, "{text}");
    }
}

/// CF-17: what `--write-config-to` writes means the same when it is read.
#[test]
fn the_effective_configuration_reads_as_itself() {
    let flags = Flags { node_name: Some("n2".into()), ..Flags::default() };
    let first = settings("nodePortAddresses: [10.0.0.0/8]\n", &flags);
    let second = settings(&first.to_yaml().expect("YAML"), &Flags::default());
    assert_eq!(second.effective, first.effective);
    assert_eq!(second.problems, []);
}
