//! Lists that do not arrive, or are incomplete.

use std::time::Duration;

use sidestep_tests::api_server::{FOR_EVER, Fault, Kind, Of};

use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);
const BACK_OFF: Duration = Duration::from_secs(35);
/// How long a list may take, a page at a time.
const PAGE: Duration = Duration::from_secs(75);

const FAULTS: [Fault; 12] = [
    Fault::Refuse,
    Fault::Silence,
    Fault::Stall,
    Fault::Status(403),
    Fault::Status(429),
    Fault::Status(500),
    Fault::Status(503),
    Fault::Status(504),
    Fault::Cut,
    Fault::EndEarly,
    Fault::Drip(Duration::from_secs(1)),
    Fault::Status(410),
];

/// A list must be taken again, and does not come: what is known stays, deletions wait.
#[tokio::test(start_paused = true)]
async fn a_list_that_does_not_come_takes_nothing_away() {
    for fault in FAULTS {
        let mut world = World::new().await;
        world.objects.fault(Of::Lists, fault, FOR_EVER);
        world.objects.cut();
        world.change();
        world.objects.compact();
        let before = world.requests();
        let installed = world.node.endpoints();
        for _ in 0..30 {
            world.change();
            world.objects.compact();
            world.pass(10 * SECOND).await;
        }
        assert_eq!(world.node.endpoints(), installed, "{fault:?}");
        let (lists, watches) = world.requests_since(before);
        assert!((2..=3 * (5 + 300 / 7)).contains(&lists), "{fault:?}: {lists} lists in five minutes");
        assert!(watches <= 3, "{fault:?}: {watches}");
        world.recovers_within(BACK_OFF + PAGE).await;
        world.follows_at_once().await;
    }
}

/// IN-7: an agent that starts against such a server installs nothing, rather than half of the cluster.
#[tokio::test(start_paused = true)]
async fn nothing_is_planned_before_every_list_is_whole() {
    for kind in [Kind::Service, Kind::EndpointSlice] {
        for fault in FAULTS {
            let mut world = World::empty();
            world.populate();
            world.objects.fault_of(kind, Of::Lists, fault, FOR_EVER);
            world.pass(300 * SECOND).await;
            assert!(!world.node.is_synced() && world.node.installed.is_empty(), "{kind:?} {fault:?}");
            world.recovers_within(BACK_OFF + PAGE).await;
        }
    }
}

/// IN-5: a Node that cannot be listed, such as for want of rights, is waited for for 30 seconds; then the agent goes on
/// without, says so, and takes it in when it comes.
#[tokio::test(start_paused = true)]
async fn a_node_that_cannot_be_listed_holds_nothing_up_for_long() {
    for fault in FAULTS {
        let mut world = World::empty();
        world.populate();
        world.objects.fault_of(Kind::Node, Of::Lists, fault, FOR_EVER);
        world.pass(29 * SECOND).await;
        assert!(!world.node.is_synced() && world.node.installed.is_empty(), "{fault:?}");
        world.pass(2 * SECOND).await;
        assert!(world.node.is_synced() && !world.node.knows_node(), "{fault:?}");
        assert_eq!(world.node.endpoints(), world.existing(), "{fault:?}");
        let said = |world: &World| world.node.problems().iter().any(|problem| problem.starts_with("Node n1"));
        assert!(said(&world), "{fault:?}: {:?}", world.node.problems());
        world.follows_at_once().await;
        assert!(said(&world), "{fault:?}: {:?}", world.node.problems());
        world.objects.mend();
        world.pass(BACK_OFF + PAGE).await;
        assert!(world.node.knows_node(), "{fault:?}");
        assert_eq!(world.node.problems(), [""; 0], "{fault:?}");
        world.recovers_within(SECOND).await;
    }
}

/// A later page that fails is asked for again; the pages before it are not.
#[tokio::test(start_paused = true)]
async fn a_list_that_is_cut_short_goes_on_where_it_was() {
    for fault in FAULTS {
        let mut world = World::empty();
        world.populate();
        world.crowd(700);
        world.objects.fault_of(Kind::EndpointSlice, Of::LaterPages, fault, 2);
        world.pass(10 * Duration::from_mins(1)).await;
        assert_eq!(world.node.endpoints(), world.existing(), "{fault:?}");
        let pages = world.objects.asked();
        let pages = pages.iter().filter(|asked| asked.kind == Kind::EndpointSlice && !asked.watch).count();
        let most = match fault {
            // Forgotten, and so from the start, twice.
            Fault::Status(410) => 3 * 2,
            // Late, and so smaller for the rest of this list: 203 of 125 each.
            Fault::Silence | Fault::Stall | Fault::Drip(_) => 3 + 2,
            _ => 3 + 1,
        };
        assert_eq!(pages, most, "{fault:?}");
        world.follows_at_once().await;
    }
}

/// The rest of a list is forgotten in the middle of it, while objects come and go.
#[tokio::test(start_paused = true)]
async fn a_list_whose_rest_is_forgotten_is_started_over_as_a_difference() {
    let mut world = World::new().await;
    world.crowd(700);
    world.pass(5 * SECOND).await;
    world.objects.fault(Of::LaterPages, Fault::Status(410), 6);
    world.objects.cut();
    world.change();
    world.objects.compact();
    for _ in 0..20 {
        world.change();
        world.pass(3 * SECOND).await;
    }
    world.recovers_within(BACK_OFF).await;
    world.follows_at_once().await;
}

/// Too slow for a whole page, fast enough for a small one.
#[tokio::test(start_paused = true)]
async fn a_slow_server_is_asked_for_smaller_pages() {
    let mut world = World::empty();
    world.populate();
    world.crowd(60);
    world.objects.fault(Of::Lists, Fault::Drip(Duration::from_millis(6)), FOR_EVER);
    world.objects.fault(Of::LaterPages, Fault::Drip(Duration::from_millis(6)), FOR_EVER);
    world.pass(Duration::from_mins(20)).await;
    assert!(world.node.is_synced(), "{:?}", world.node.problems());
    assert_eq!(world.node.endpoints(), world.existing());
}
