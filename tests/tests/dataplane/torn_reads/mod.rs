//! The stress test: a writer replaces endpoint sets as fast as the dataplane can, Services come, go and change their
//! addresses, and clients connect the whole time. No client may ever see half an update.
//!
//! Every endpoint's address identifies its Service (`endpoints`), so a client detects a wrong endpoint at once. The
//! test writes the tables with the agent's own library, because no directory of manifests changes a thousand times a
//! second. `SIDESTEP_STRESS_SECONDS` sets the duration; CI uses a few seconds.

mod clients;
mod endpoints;
mod writer;

use std::time::{Duration, Instant};

use proxy_agent::dataplane::{Capacity, Dataplane, FlowOptions, Options, SocketOptions, attach, load};
use sidestep_tests::lab;

use clients::Clients;
use endpoints::Server;
use writer::Writer;

/// Replacements a second below which the test proves nothing.
const REPLACEMENTS: u64 = 1000;

/// No reader ever sees half an update.
#[test]
fn no_client_is_misled_while_the_tables_are_rewritten() {
    let lab = lab!();
    let seconds = std::env::var("SIDESTEP_STRESS_SECONDS").map_or(5, |text| text.parse().expect("seconds"));
    let pod = lab.pod("pod").expect("a pod");
    let server = Server::start(&pod).expect("a server");
    let options = Options {
        pin_dir: lab.pin_directory().to_owned(),
        cgroup_root: lab.root().path().to_owned(),
        // Small tables, so that slots, ids and indexes are reused often.
        capacity: Capacity { services: 256, frontends: 512, endpoints: 1 << 14, clients: 256, flows: 256 },
        program_log: false,
        sockets: SocketOptions::default(),
        flows: FlowOptions::default(),
    };
    let mut programs = load(&options).expect("the programs load");
    attach(&mut programs, &options).expect("the programs attach");
    let mut writer = Writer::new(Dataplane::open(&options).expect("the tables open"));
    writer.create();

    let clients = Clients::start(&pod);
    let (start, limit) = (Instant::now(), Duration::from_secs(seconds));
    while start.elapsed() < limit {
        writer.step();
    }
    let rate = writer.replacements() / seconds.max(1);
    let outcome = clients.stop();
    drop(server);

    println!(
        "{seconds} s: {rate} endpoint-set replacements a second, {} Services created, {} deleted, {} addresses moved; \
         {} connections of {} clients: {} misled, {} failed; {} were refused by source ranges, {} found a Service that was just deleted, {} were closed with their endpoint",
        writer.created(),
        writer.deleted(),
        writer.moved(),
        outcome.connections,
        clients::THREADS,
        outcome.misled,
        outcome.failed,
        outcome.refused,
        outcome.absent,
        outcome.closed,
    );
    assert_eq!((outcome.misled, outcome.failed), (0, 0), "{:#?}", outcome.words);
    assert!(outcome.refused > 100 * seconds, "only {} connections were refused", outcome.refused);
    assert!(outcome.connections > 100 * seconds, "only {} connections", outcome.connections);
    assert!(rate >= REPLACEMENTS, "only {rate} replacements a second");
}
