//! `cargo xtask demo`: two nodes and a north-south client in network namespaces, the agent on `deploy/demo`, and
//! real traffic.
//!
//! Every row of the table is a check, and a failed check fails the demo. The demo touches nothing outside of the lab's
//! own namespaces, cgroup and pins.

mod cast;
mod netfilter;
mod scenes;
mod table;

use std::{path::Path, time::Instant};

use anyhow::{Context, Result, ensure};
use sidestep_tests::{Agent, Lab, TwoNodes, hold, two_nodes::Variant};

use crate::{
    build::{agent, kernel},
    setup::{self, Need},
};
use cast::Cast;
use table::Table;

/// What happens to the lab at the end.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Keep the lab open at the end
    ///
    /// Prints how to enter its network namespaces, and waits before it removes them.
    #[arg(long)]
    keep: bool,
}

/// Runs the demo; an error if a check fails.
pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(reason) = sidestep_tests::skip::missing() {
        anyhow::bail!("the demo cannot run: {reason}");
    }
    setup::ensure(&[Need::KernelBuild, Need::Network])?;
    kernel::build()?;
    agent::build(agent::Profile::Dev)?;
    let start = Instant::now();
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/demo").canonicalize()?;
    let nodes = TwoNodes::new(Variant::DIRECT).context("cannot make the lab")?;
    let lab = nodes.lab();
    let name = lab.name().to_owned();
    let mut cast = Cast::assemble(&nodes)?;
    println!(
        "The lab {name}: a node with its pods, another node with one, and a north-south client, each in a network\n\
         namespace of its own:"
    );
    println!("{cast}");

    lab.manifests().copy_from(&manifests)?;
    let ready = Instant::now();
    let mut agent = Agent::start(lab)?;
    println!(
        "sidestep run --manifests deploy/demo: ready after {} ms. Now clients talk to addresses that\n\
         exist nowhere but in BPF maps:\n",
        ready.elapsed().as_millis()
    );

    let table = play(lab, &mut cast, &mut agent)?;
    println!("{table}\n");
    let netfilter_is_clean = netfilter::show(lab)?;
    if args.keep {
        hold::hold_all();
    }
    drop(agent);
    lab.sidestep(&["cleanup"]).context("cannot remove what the agent put into the kernel")?;
    drop(cast);
    drop(nodes);
    println!("\nCleaned up {name} after {:.1} s.", start.elapsed().as_secs_f32());
    ensure!(netfilter_is_clean, "netfilter has entries of Services, listed above");
    ensure!(table.is_flawless(), "{} of the rows above failed", table.flaws());
    Ok(())
}

fn play(lab: &Lab, cast: &mut Cast, agent: &mut Agent) -> Result<Table> {
    let mut table = Table::default();
    table.push(scenes::web(cast));
    table.push(scenes::web_over_ipv6(cast));
    table.push(scenes::web_over_mapped_ipv6(cast));
    table.push(scenes::node_port(cast));
    table.push(scenes::node_port_on_loopback(lab));
    table.push(scenes::node_port_from_outside(cast));
    table.push(scenes::node_port_of_a_pod_elsewhere(cast));
    table.push(scenes::names_unconnected(cast));
    table.push(scenes::names_connected(cast));
    table.push(scenes::sticky(cast));
    table.push(scenes::nobody_there(cast));
    table.push(scenes::unknown_port(cast));
    table.push(scenes::a_pod_goes_away(lab, cast)?);
    table.push(scenes::the_agent_crashes(lab, cast, agent)?);
    Ok(table)
}
