//! Random faults at random times.

use std::time::Duration;

use proptest::{prelude::*, sample::select};
use sidestep_tests::api_server::{Fault, Of, Slip};

use crate::world::World;

/// How long the worst takes: a silent watch, then a list of one small page that does not come.
const RECOVERY: Duration = Duration::from_secs(215 + 3 * (30 + 75) + 120);

#[derive(Clone, Debug)]
enum Step {
    Change,
    Fault(Of, Fault, u32),
    Slip(Slip, u32),
    Cut,
    Compact,
    Freeze,
    Mend,
    Vanish,
    Wait(Duration),
}

fn step() -> impl Strategy<Value = Step> {
    let faults = vec![
        Fault::Refuse,
        Fault::Silence,
        Fault::Stall,
        Fault::Status(410),
        Fault::Status(429),
        Fault::Status(500),
        Fault::Status(504),
        Fault::Cut,
        Fault::EndEarly,
        Fault::Drip(Duration::from_millis(200)),
        Fault::Lag,
    ];
    let slips = vec![
        Slip::Stall,
        Slip::Cut,
        Slip::EndWithin,
        Slip::EndBefore,
        Slip::Halve,
        Slip::Garbage,
        Slip::Gone,
        Slip::Twice,
        Slip::Again,
        Slip::Swap,
        Slip::Rename,
        Slip::DeleteUnknown,
    ];
    let of = select(vec![Of::Lists, Of::LaterPages, Of::Watches]);
    let wait = select(vec![0, 1, 100, 1000, 1000, 10_000, 60_000, 300_000]);
    prop_oneof![
        8 => Just(Step::Change),
        3 => (of, select(faults), 1_u32..6).prop_map(|(of, fault, times)| Step::Fault(of, fault, times)),
        3 => (select(slips), 1_u32..4).prop_map(|(slip, times)| Step::Slip(slip, times)),
        2 => Just(Step::Cut),
        2 => Just(Step::Compact),
        1 => Just(Step::Freeze),
        1 => Just(Step::Mend),
        1 => Just(Step::Vanish),
        8 => wait.prop_map(|millis| Step::Wait(Duration::from_millis(millis))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever goes wrong in whatever order: nothing is lost on the way (see [`World::pass`]), and everything is
    /// right in the end.
    #[test]
    fn whatever_happens_nothing_is_lost_and_the_end_is_right(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(async {
            let mut world = World::new().await;
            for step in steps {
                match step {
                    Step::Change => world.change(),
                    Step::Fault(of, fault, times) => world.objects.fault(of, fault, times),
                    Step::Slip(slip, times) => world.objects.slip(slip, times),
                    Step::Cut => world.objects.cut(),
                    Step::Compact => world.objects.compact(),
                    Step::Freeze => world.objects.freeze(),
                    Step::Mend => world.objects.mend(),
                    Step::Vanish => world.objects.vanish(),
                    Step::Wait(time) => world.pass(time).await,
                }
            }
            world.recovers_within(RECOVERY).await;
            world.pass(Duration::from_mins(5)).await;
            world.follows_at_once().await;
        });
    }
}
