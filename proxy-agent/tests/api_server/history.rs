//! Servers that lag behind, or were restored from a backup.

use std::time::Duration;

use sidestep_tests::api_server::{FOR_EVER, Fault, Of};

use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);
const BACK_OFF: Duration = Duration::from_secs(35);

/// A load balancer leads to a server that lags behind another one.
#[tokio::test(start_paused = true)]
async fn a_list_from_a_server_that_lags_behind_takes_nothing_away() {
    let mut world = World::new().await;
    world.objects.freeze();
    world.put_slice("a-2", "a", &[50, 51]);
    world.put_service("d");
    world.put_slice("d", "d", &[1]);
    world.pass(SECOND).await;
    let installed = world.node.endpoints();
    assert!(installed.contains(&("d".into(), 1)));

    world.objects.fault(Of::Lists, Fault::Lag, FOR_EVER);
    world.objects.compact();
    world.objects.fault(Of::Watches, Fault::Status(410), 3);
    world.objects.cut();
    let before = world.requests();
    world.pass(100 * SECOND).await;
    assert_eq!(world.node.endpoints(), installed);
    let (lists, _) = world.requests_since(before);
    assert!((6..=60).contains(&lists), "{lists} lists");
    world.recovers_within(BACK_OFF).await;
    world.follows_at_once().await;
}

/// What a list does not say for two minutes is not there: versions went back for good.
#[tokio::test(start_paused = true)]
async fn a_server_that_was_restored_from_a_backup_is_believed_in_the_end() {
    let mut world = World::new().await;
    let backed_up = world.existing();
    world.objects.freeze();
    // Events of Nodes too, so that every kind has seen newer versions.
    world.put_service("lost");
    world.put_slice("lost", "lost", &[1]);
    world.pass(250 * SECOND).await;
    world.delete_service("lost");
    world.delete_slice("lost");
    world.objects.restore();
    world.objects.compact();
    // Two minutes from the first list that is old; the lists before and after them are up to a back-off away.
    world.pass(250 * SECOND).await;
    assert_eq!(world.node.endpoints(), backed_up);
    world.recovers_within(215 * SECOND).await;
    world.follows_at_once().await;
}
