//! Events that come twice, too late, or in the wrong order.

use std::time::Duration;

use sidestep_tests::api_server::Slip;

use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);

/// The order of one object's versions is turned round: the newer one is what counts, and what the older one would
/// have taken away stays.
#[tokio::test(start_paused = true)]
async fn an_older_version_after_a_newer_one_changes_nothing() {
    let mut world = World::new().await;
    world.objects.slip(Slip::Swap, 1);
    world.put_slice("a", "a", &[1, 2]);
    world.put_slice("a", "a", &[1, 2, 7, 8]);
    world.pass(SECOND / 10).await;
    assert_eq!(world.node.endpoints(), world.existing(), "the newer one");
    world.recovers_within(5 * SECOND).await;
    world.follows_at_once().await;
}

/// An object that is gone does not come back with an event from before.
#[tokio::test(start_paused = true)]
async fn a_version_from_before_a_deletion_brings_nothing_back() {
    let mut world = World::new().await;
    world.objects.slip(Slip::Swap, 1);
    world.put_slice("b", "b", &[5]);
    world.delete_slice("b");
    world.pass(5 * SECOND).await;
    assert_eq!(world.node.endpoints(), world.existing());
    world.follows_at_once().await;
}

/// Two objects' events that change places: the one that is too late is not believed, and the list that follows has it.
#[tokio::test(start_paused = true)]
async fn events_of_two_objects_in_the_wrong_order_both_count() {
    let mut world = World::new().await;
    let before = world.requests();
    world.objects.slip(Slip::Swap, 1);
    world.put_slice("a", "a", &[1, 2, 9]);
    world.put_slice("b", "b", &[1, 2, 3, 4]);
    world.pass(5 * SECOND).await;
    assert_eq!(world.node.endpoints(), world.existing());
    assert_eq!(world.requests_since(before), (1, 1), "a list of slices, and a watch");
    world.follows_at_once().await;
}

/// The same event twice is one event, and no reason to distrust anybody.
#[tokio::test(start_paused = true)]
async fn an_event_that_is_repeated_is_one_event() {
    let mut world = World::new().await;
    let before = world.requests();
    world.objects.slip(Slip::Twice, 20);
    for _ in 0..20 {
        world.change();
        world.pass(SECOND / 10).await;
        assert_eq!(world.node.endpoints(), world.existing());
    }
    assert_eq!(world.requests_since(before), (0, 0));
}
