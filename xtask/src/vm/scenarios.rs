//! The lab's scenarios that run in each machine: the same tests that `cargo xtask test` runs on this kernel.
//!
//! Chosen for what differs between kernels: hooks, helpers, links, TCX, netlink and netfilter. Each is a few seconds of an
//! emulated processor.

/// A test of `sidestep-tests`, and how the table names it.
pub(super) struct Scenario {
    /// What it shows.
    pub(super) name: &'static str,
    /// The test's binary: a folder of `tests/tests`.
    pub(super) binary: &'static str,
    /// The test.
    pub(super) test: &'static str,
}

const fn scenario(name: &'static str, binary: &'static str, test: &'static str) -> Scenario {
    Scenario { name, binary, test }
}

/// All of them, in the order of the table.
pub(super) const SCENARIOS: &[Scenario] = &[
    scenario("TCP, IPv4 and IPv6", "sockets", "tcp::tcp_reaches_every_endpoint_and_the_peer_is_the_vip"),
    scenario("UDP", "sockets", "udp::an_unconnected_socket_sees_the_vip_as_the_source"),
    scenario("UDP, connected", "sockets", "udp::a_connected_socket_sees_the_vip_as_its_peer"),
    scenario("UDP, v4-mapped", "sockets", "udp::a_connected_v4_mapped_socket_sees_the_mapped_vip"),
    scenario(
        "UDP, disconnected and back",
        "sockets",
        "reconnecting::a_udp_socket_that_was_disconnected_names_its_new_peer",
    ),
    scenario("stale UDP moves", "sockets", "stale_udp::sockets_move_in_every_namespace_and_family"),
    scenario(
        "stale UDP closed",
        "sockets",
        "stale_udp::sockets_that_cannot_be_connected_again_are_closed_and_no_others",
    ),
    scenario("no endpoints", "services", "no_endpoints::a_service_without_endpoints_refuses_at_once"),
    scenario("affinity", "services", "client_ip_affinity::a_client_stays_with_its_endpoint"),
    scenario("NodePort from pods", "services", "node_ports::a_node_port_answers_at_this_nodes_addresses"),
    scenario("source ranges", "services", "source_ranges::only_clients_in_a_range_reach_a_load_balancer_ip"),
    scenario("monitor, sockets", "agent", "monitor::sockets_get_endpoints_and_are_refused"),
    scenario("kill -9, sockets", "agent", "comes_and_goes::a_restarted_agent_catches_up"),
    scenario(
        "outside, local endpoint",
        "north_south",
        "client_addresses::an_endpoint_on_this_node_sees_the_client::direct",
    ),
    scenario(
        "outside, remote endpoint",
        "north_south",
        "client_addresses::an_endpoint_on_another_node_sees_this_node::direct",
    ),
    scenario(
        "the same by VXLAN, CNI's rules",
        "north_south",
        "client_addresses::an_endpoint_on_another_node_sees_this_node::vxlan_with_cni_rules",
    ),
    scenario("outside, clsact", "north_south", "clsact::node_ports_are_served_by_filters::direct"),
    scenario(
        "clsact, restart and cleanup",
        "north_south",
        "interfaces_without_tcx::without_tcx_filters_serve_devices",
    ),
    scenario("outside, affinity", "north_south", "affinity::a_client_stays_with_its_endpoint::direct"),
    scenario(
        "outside, source ranges",
        "north_south",
        "source_ranges::only_north_south_clients_in_a_range_are_admitted::direct",
    ),
    scenario(
        "outside, no endpoints",
        "north_south",
        "no_endpoints::a_service_without_endpoints_refuses_at_once::direct",
    ),
    scenario("monitor, packets", "north_south", "monitor::connections_begin_and_end_and_are_refused"),
    scenario(
        "fragments",
        "north_south",
        "datagrams::large_datagrams_reach_an_endpoint_on_another_node::direct",
    ),
    scenario(
        "ICMP errors",
        "north_south",
        "icmp_errors::a_pod_without_the_server_refuses_the_client::direct",
    ),
    scenario(
        "fast path",
        "north_south",
        "past_the_stack::all_but_the_first_packets_take_the_fast_path::direct",
    ),
    scenario("kill -9, packets", "north_south", "agent::a_killed_agent_breaks_no_connection::direct"),
    scenario("cleanup, packets", "north_south", "agent::a_cleanup_leaves_nothing_behind::direct"),
    scenario(
        "what holds NAT",
        "north_south",
        "held_nat::known_connections_go_on_while_a_rule_reads_their_state::direct",
    ),
    scenario(
        "takeover, nftables",
        "north_south",
        "takeover::datagrams_of_kube_proxys_exchanges_are_left_to_it::direct",
    ),
    scenario(
        "takeover, rules go",
        "north_south",
        "rules_of_kube_proxy::kube_proxy_that_still_runs_is_named::direct",
    ),
];

/// The binaries that have them, each once.
pub(super) fn binaries() -> Vec<&'static str> {
    let mut binaries: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.binary).collect();
    binaries.sort_unstable();
    binaries.dedup();
    binaries
}

/// The list that `vm-init` reads: a line each, name, binary and test, separated by tabs. Nothing for a quick run.
pub(super) fn list(quick: bool) -> String {
    if quick {
        return String::new();
    }
    let line = |Scenario { name, binary, test }: &Scenario| format!("{name}\t{binary}\t{test}\n");
    SCENARIOS.iter().map(line).collect()
}
