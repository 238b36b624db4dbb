//! No server at all.

use std::time::Duration;

use crate::{KINDS, world::World};

const BACK_OFF: Duration = Duration::from_secs(35);

/// Two hours without an API server, while the cluster goes on.
#[tokio::test(start_paused = true)]
async fn two_hours_without_a_server_lose_nothing_and_the_agent_catches_up_within_half_a_minute() {
    for forgets in [false, true] {
        let mut world = World::new().await;
        world.objects.vanish();
        let before = world.requests();
        let installed = world.node.installed.clone();
        for _ in 0..720 {
            world.change();
            world.pass(Duration::from_secs(10)).await;
            assert_eq!(world.node.installed, installed, "what was last known stays");
        }
        let (lists, watches) = world.requests_since(before);
        // At the most every 7.5 s, after the first few; on average every 19 s.
        assert!(watches <= KINDS * (7200 / 15), "{watches} watches");
        assert!(
            watches >= KINDS * (7200 / 30),
            "{watches} watches: a server that comes back is followed soon"
        );
        assert_eq!(lists, 0, "a server that is not there cannot say that a version is no good");
        if forgets {
            world.objects.compact();
        }
        let before = world.requests();
        world.recovers_within(BACK_OFF).await;
        let (lists, _) = world.requests_since(before);
        // The fresh start's, and those that are needed.
        assert!(lists <= if forgets { 2 * KINDS } else { KINDS }, "{lists} lists");
        world.follows_at_once().await;
    }
}

/// An agent that starts without a server knows nothing, and so plans nothing.
#[tokio::test(start_paused = true)]
async fn an_agent_that_starts_without_a_server_waits_for_it() {
    let mut world = World::empty();
    world.populate();
    world.objects.vanish();
    world.pass(Duration::from_hours(2)).await;
    assert!(!world.node.is_synced() && world.node.installed.is_empty());
    assert_eq!(world.node.problems().len(), KINDS, "{:?}", world.node.problems());
    world.recovers_within(BACK_OFF).await;
    world.pass(Duration::from_mins(1)).await;
    assert!(world.node.problems().is_empty());
}
