//! Watches that do not start, do not go on, or do not end.

use std::{ops::RangeInclusive, time::Duration};

use sidestep_tests::api_server::{FOR_EVER, Fault, Of, Slip};

use crate::{KINDS, world::World};

const SECOND: Duration = Duration::from_secs(1);
/// How many lists a fresh start takes: it does not wait for that of Pods.
const FRESH_START: RangeInclusive<usize> = KINDS - 1..=KINDS;
const MINUTE: Duration = Duration::from_mins(1);
/// The longest wait of the back-off, and what a request takes.
const BACK_OFF: Duration = Duration::from_secs(35);

/// A quiet hour: watches end and go on from their bookmarks, though the history before them is gone.
#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_in_time_goes_on_from_its_bookmark_without_a_list() {
    let mut world = World::new().await;
    let before = world.requests();
    for _ in 0..60 {
        // Others write: versions go on, of which a watch hears by its bookmarks only.
        world.objects.put(serde_json::json!({"kind": "Node", "metadata": {"name": "another"}}));
        world.pass(MINUTE).await;
        if world.requests_since(before).1 < 2 {
            continue;
        }
        world.pass(2 * SECOND).await;
    }
    world.objects.compact();
    world.follows_at_once().await;
    let (lists, watches) = world.requests_since(before);
    assert_eq!(lists, 0, "nothing was forgotten that had not been heard");
    assert!((KINDS * 18..=KINDS * 26).contains(&watches), "watches of 150 to 200 s: {watches}");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_breaks_goes_on_where_it_was() {
    let mut world = World::new().await;
    let before = world.requests();
    for _ in 0..20 {
        world.objects.cut();
        world.change();
        world.pass(20 * SECOND).await;
        assert_eq!(world.node.endpoints(), world.existing());
    }
    assert_eq!(world.requests_since(before), (0, 20 * KINDS));
    assert!(world.node.problems().is_empty(), "one break is not worth a word: {:?}", world.node.problems());
}

/// Whatever a server answers to the start of a watch: it is asked again, and not too often.
#[tokio::test(start_paused = true)]
async fn a_watch_that_does_not_start_is_tried_again_with_patience() {
    for (fault, recovers) in [
        (Fault::Refuse, BACK_OFF),
        (Fault::Status(429), BACK_OFF),
        (Fault::Status(500), BACK_OFF),
        (Fault::Status(503), BACK_OFF),
        (Fault::Status(504), BACK_OFF),
        (Fault::Status(410), BACK_OFF),
        (Fault::Status(403), BACK_OFF),
        (Fault::Status(400), BACK_OFF),
        (Fault::EndEarly, BACK_OFF),
        (Fault::Cut, BACK_OFF),
        (Fault::Silence, BACK_OFF + 30 * SECOND),
        // The server is to end it after 200 s at most.
        (Fault::Stall, 215 * SECOND + BACK_OFF),
    ] {
        let mut world = World::new().await;
        world.objects.fault(Of::Watches, fault, FOR_EVER);
        world.objects.cut();
        let before = world.requests();
        for _ in 0..30 {
            world.change();
            world.pass(10 * SECOND).await;
        }
        let (lists, watches) = world.requests_since(before);
        assert!(watches <= KINDS * (5 + 300 / 7), "{fault:?}: {watches} watches in five minutes");
        assert!(watches >= KINDS, "{fault:?}");
        if !matches!(fault, Fault::Status(400 | 410 | 504) | Fault::Silence) {
            assert_eq!(lists, 0, "{fault:?}: nothing says that the version is not good any more");
        }
        if fault != Fault::Stall {
            assert_eq!(world.node.problems().len(), KINDS, "{fault:?}: it is said");
        }
        world.recovers_within(recovers).await;
        // Each kind for itself: a start that is still waited for, the longest wait, and until a watch is in order.
        world.pass(2 * MINUTE).await;
        assert!(world.node.problems().is_empty(), "{fault:?}: it is taken back");
        world.follows_at_once().await;
    }
}

/// A few times only: the version is given up, and the list says what the watch could not.
#[tokio::test(start_paused = true)]
async fn a_version_that_a_server_cannot_serve_does_not_hold_a_watch_up() {
    for (fault, times) in [
        (Fault::Status(410), 3),
        (Fault::Status(410), 9),
        (Fault::Status(504), 3),
        (Fault::Status(400), 9),
        (Fault::Silence, 9),
    ] {
        let mut world = World::new().await;
        world.objects.fault(Of::Watches, fault, times);
        world.objects.cut();
        let before = world.requests();
        world.recovers_within(100 * SECOND + BACK_OFF).await;
        world.pass(3 * MINUTE).await;
        assert!(world.requests_since(before).0 >= 1, "{fault:?} {times}: a list");
        world.follows_at_once().await;
    }
}

/// The history is forgotten while the connection is broken.
#[tokio::test(start_paused = true)]
async fn a_version_that_is_forgotten_is_followed_by_one_list() {
    let mut world = World::new().await;
    let before = world.requests();
    world.objects.vanish();
    for _ in 0..6 {
        world.change();
        world.pass(SECOND).await;
    }
    world.objects.compact();
    world.recovers_within(BACK_OFF).await;
    world.pass(MINUTE).await;
    let lists = world.requests_since(before).0;
    assert!(
        FRESH_START.contains(&(lists - KINDS)),
        "one list for each kind, and those of the fresh start: {lists}"
    );
}

/// Lines that are cut, doubled, swallowed or nonsense. Everything is right again soon, without a word from the server.
#[tokio::test(start_paused = true)]
async fn a_watch_that_slips_is_mended_at_once() {
    for slip in [
        Slip::Cut,
        Slip::EndWithin,
        Slip::EndBefore,
        Slip::Halve,
        Slip::Garbage,
        Slip::Gone,
        Slip::Twice,
        Slip::Again,
        Slip::Rename,
        Slip::DeleteUnknown,
    ] {
        let mut world = World::new().await;
        for times in [1, 1, 2, 3, 10] {
            world.objects.slip(slip, times);
            for _ in 0..10 {
                world.change();
                world.pass(SECOND).await;
            }
            world.recovers_within(BACK_OFF).await;
            world.pass(MINUTE).await;
        }
        world.follows_at_once().await;
    }
}

/// Half-dead: the connection is open, and nothing comes any more.
#[tokio::test(start_paused = true)]
async fn a_watch_that_falls_silent_is_given_up_when_the_server_should_have_ended_it() {
    let mut world = World::new().await;
    world.objects.slip(Slip::Stall, 2);
    for _ in 0..6 {
        world.change();
        world.pass(SECOND).await;
    }
    assert_ne!(world.node.endpoints(), world.existing(), "nothing is heard");
    let before = world.requests();
    world.recovers_within(215 * SECOND).await;
    let lists = world.requests_since(before).0;
    assert!(FRESH_START.contains(&lists), "no list but those of the fresh start: {lists}");
}
