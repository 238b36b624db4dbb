//! Random sequences of calls on UDP sockets, compared with what netfilter would show.
//!
//! | file | concept |
//! |---|---|
//! | `calls` | what a program may do, and whom it may name |
//! | `model` | what one or two sockets see then: pure, and the judge |
//! | `story` | the real sockets of one port |
//! | `world` | the lab in which they live side by side |
//! | `proxy` | who translates there |
//! | `elsewhere` | who calls in another namespace and cgroup |
//!
//! Hundreds of stories take a call each in turn; then what was sent is answered. Now and then all endpoints change, and
//! the agent has [`FOLLOWED`] to take connected sockets along, as the kernel's own table shows.
//!
//! The model is judged too, by netfilter.
//!
//! `SIDESTEP_SEQUENCES` says how many stories there are to be, `SIDESTEP_SEED` repeats them.

mod calls;
mod elsewhere;
mod model;
mod proxy;
mod story;
mod world;

use std::{
    collections::BTreeMap,
    thread::sleep,
    time::{Duration, Instant, SystemTime},
};

use sidestep_tests::{random::Random, skip};

use self::{
    calls::{Condition, Endpoints, PODS, SERVICES},
    story::{Difference, Story, Tally},
    world::World,
};

/// Stories by default.
const SEQUENCES: u64 = 1000;
/// Stories in one lab.
const SIDE_BY_SIDE: usize = 500;
/// Calls of each story, with the changes of endpoints in between.
const ROUNDS: u32 = 28;
/// A change of all endpoints after so many calls.
const UNCHANGED: u32 = 7;
/// Longest time until connected sockets have followed a change.
const FOLLOWED: Duration = Duration::from_secs(2);
/// The local port of the first story; clients' own ports begin far above.
const FIRST_PORT: u16 = 6000;
/// So many kinds of differences are shown, each with its shortest story.
const SHOWN: usize = 12;

/// PO-24, ST-5, ST-10: whatever a program does, it sees what it would see if the Service were there, but for what
/// docs/east-west.md lists.
#[test]
fn sockets_behave_as_if_the_service_were_there_whatever_is_called() {
    judge(World::of_agent, setting("SIDESTEP_SEQUENCES", SEQUENCES));
}

/// The model is one of netfilter: what it says of netfilter is right.
#[test]
fn the_model_finds_nothing_wrong_with_netfilter() {
    let tally = judge(World::of_netfilter, setting("SIDESTEP_SEQUENCES", SEQUENCES) / 4);
    // Conntrack knows each answer by its request.
    assert_eq!(tally.excused, 0);
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// So many stories, in as many worlds as they need.
fn judge(new: fn() -> anyhow::Result<World>, sequences: u64) -> Tally {
    let (mut tally, mut all, start) = (Tally::default(), Vec::new(), Instant::now());
    if let Some(reason) = skip::missing() {
        skip::announce(&reason);
        return tally;
    }
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("a clock").as_secs();
    let seed = setting("SIDESTEP_SEED", now);
    println!("SIDESTEP_SEED={seed} SIDESTEP_SEQUENCES={sequences}");
    for (number, first) in (0..).zip((0..sequences).step_by(SIDE_BY_SIDE)) {
        let stories = (SIDE_BY_SIDE as u64).min(sequences - first);
        let seed = seed.wrapping_add(number);
        let world = new().expect("a lab");
        let differences = run(world, seed, stories, &mut tally);
        println!(
            "{} sequences after {:.1} s, {} of the last {stories} different: {} calls, {} answers, {} of them named by \
             what was asked last",
            first + stories,
            start.elapsed().as_secs_f32(),
            differences.len(),
            tally.calls,
            tally.answers,
            tally.excused
        );
        all.extend(differences);
    }
    if !all.is_empty() {
        fail(sequences, all);
    }
    tally
}

/// Lives one world through; returns what was different from the model.
fn run(mut world: World, seed: u64, stories: u64, tally: &mut Tally) -> Vec<Difference> {
    let client = world.client().clone();
    client.run(|| {
        let mut random = Random::new(seed);
        let mut differences = Vec::new();
        world.change(&endpoints(&mut random)).expect("endpoints");
        let mut stories: Vec<Story> = (0..stories)
            .zip(FIRST_PORT..)
            .map(|(number, port)| {
                let random = Random::new(seed.wrapping_add((number + 1) << 32));
                Story::begin(&world, random, port, seed).expect("a socket")
            })
            .collect();
        // What pods had before, and what stories asked that are over.
        let mut elsewhere = world.requests();
        for round in 1..=ROUNDS {
            drop_different(&mut stories, &mut elsewhere, &mut differences, |story| story.step(&world, tally));
            let asked: usize = stories.iter().map(Story::asked).sum();
            world.settle(elsewhere + asked as u64);
            if round % UNCHANGED == 0 && round < ROUNDS {
                let before = world.requests();
                let next = endpoints(&mut random);
                world.change(&next).expect("a change");
                elsewhere += world.requests() - before;
                for story in &mut stories {
                    story.change(&next);
                }
                if world.translates_sockets() {
                    wait_for_followers(&world, &mut stories, &mut elsewhere, &mut differences);
                }
            }
        }
        drop_different(&mut stories, &mut elsewhere, &mut differences, |story| story.end(&world, tally));
        if !differences.is_empty() {
            println!("--- end of the agent's log\n{}\n---", world.log_tail());
        }
        differences
    })
}

/// Waits until every connected socket is where it is to be; those that never are, are different.
fn wait_for_followers(
    world: &World,
    stories: &mut Vec<Story>,
    elsewhere: &mut u64,
    differences: &mut Vec<Difference>,
) {
    let start = Instant::now();
    loop {
        let peers = world.kernel_peers().expect("the kernel's table");
        let followed = stories.iter().all(|story| story.judge_kernel_peers(&peers).is_ok());
        if followed || start.elapsed() > FOLLOWED {
            return drop_different(stories, elsewhere, differences, |story| story.judge_kernel_peers(&peers));
        }
        sleep(Duration::from_millis(10));
    }
}

/// Does something with every story, and takes out those in which it shows a difference.
fn drop_different(
    stories: &mut Vec<Story>,
    elsewhere: &mut u64,
    differences: &mut Vec<Difference>,
    mut work: impl FnMut(&mut Story) -> Result<(), Difference>,
) {
    stories.retain_mut(|story| match work(story) {
        Ok(()) => true,
        Err(difference) => {
            *elsewhere += story.asked() as u64;
            differences.push(difference);
            false
        }
    });
}

/// Any endpoints, often none.
fn endpoints(random: &mut Random) -> Endpoints {
    let mut endpoints = Endpoints::default();
    for conditions in &mut endpoints.0 {
        if random.once_in(4) {
            continue;
        }
        for condition in conditions.iter_mut() {
            *condition = match random.below(8_u32) {
                0..4 => Condition::Absent,
                4 => Condition::Draining,
                _ => Condition::Ready,
            };
        }
    }
    endpoints
}

/// Shows the shortest story of each kind of difference. The first line of each says how to repeat its world.
fn fail(stories: u64, differences: Vec<Difference>) -> ! {
    let all = differences.len();
    let mut kinds: BTreeMap<String, Vec<Difference>> = BTreeMap::new();
    for difference in differences {
        let kind = difference.what.chars().filter(|character| !character.is_ascii_digit()).collect();
        kinds.entry(kind).or_default().push(difference);
    }
    let mut kinds: Vec<Vec<Difference>> = kinds.into_values().collect();
    kinds.sort_by_key(|kind| std::cmp::Reverse(kind.len()));
    let stories_of_kinds: Vec<String> = kinds
        .iter()
        .take(SHOWN)
        .map(|kind| {
            let shortest = kind.iter().min_by_key(|difference| difference.told.len()).expect("one at least");
            format!("{} such as: {}\n  {}", kind.len(), shortest.what, shortest.told.join("\n  "))
        })
        .collect();
    panic!(
        "{all} of {stories} sequences are different, in {} kinds; {SERVICES} Services, {PODS} pods\n\n{}",
        kinds.len(),
        stories_of_kinds.join("\n\n")
    );
}
