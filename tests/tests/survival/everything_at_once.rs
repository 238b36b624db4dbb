//! A short run of `cargo xtask chaos`.

use std::time::Duration;

use sidestep_tests::{
    chaos::{self, Interrupt, Settings},
    skip,
};

/// How long agents and cluster are disturbed: each is some thirty times.
const DURATION: Duration = Duration::from_secs(25);
/// The choice of disturbances.
const SEED: u64 = 14;

/// ST-4, IN-7: agents on two nodes are killed, stopped, resized and frozen, the API server goes away and lies, Services come
/// and go by the hundred: long-lived connections stay, new ones reach an endpoint of their Service.
#[test]
fn no_connection_notices_what_happens_to_agents_and_the_api_server() {
    if let Some(reason) = skip::missing() {
        skip!("{reason}");
    }
    let settings = Settings {
        duration: DURATION,
        seed: SEED,
        long_lived: 300,
        crowd: 400,
        pause: Duration::from_millis(300),
        binaries: Vec::new(),
    };
    let verdict = chaos::run(settings, &Interrupt::default(), |line| eprintln!("{line}")).expect("it runs");
    assert!(verdict.is_flawless(), "{verdict}");
    assert!(verdict.disturbed_agents() >= 3, "too little happened to the agents\n{verdict}");
    eprintln!("{verdict}");
}
