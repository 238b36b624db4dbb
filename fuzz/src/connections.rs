//! What happens to connection records: a byte each for the table, the source ports and the node, then events.

use crate::story::{Step, run};

/// As many as a story has at the most.
const STEPS: usize = 200;

pub(crate) fn decode(bytes: &[u8]) {
    let Some((&[regions, ports, foreign], mut rest)) = bytes.split_first_chunk() else { return };
    let mut steps = Vec::new();
    while steps.len() < STEPS
        && let Some(step) = step(&mut rest)
    {
        steps.push(step);
    }
    let (regions, ports) = (1 + usize::from(regions % 4), 1 + u16::from(ports % 64));
    if let Err(error) = run(regions, ports, foreign & 1 != 0, steps) {
        panic!("{error}");
    }
}

fn step(bytes: &mut &[u8]) -> Option<Step> {
    let mut next = || {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        Some(*first)
    };
    Some(match next()? {
        0..=15 => Step::Flood { clients: next()? % 40 },
        16..=31 => Step::Wait { seconds: u32::from(next()?) },
        32..=47 => Step::Change { endpoint: next()? % 4 },
        48..=63 => Step::Evict { number: next()? },
        64..=79 => Step::Idle { number: next()? },
        // Who, what TCP says, and whether it is UDP.
        who => {
            let said = next()?;
            let control = |bits: u8| (bits & 0x80 == 0).then_some(bits & 0x17);
            let answer = next()?;
            Step::Speak {
                client: who & 3,
                port: 2000 + u16::from(who >> 2 & 3) % 3,
                frontend: u16::from(who >> 4 & 3) % 3,
                segment: control(said),
                answer: (answer & 0x40 == 0).then_some(answer & 0x17),
            }
        }
    })
}
