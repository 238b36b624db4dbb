//! The corpora, replayed; and a short run beyond them, which the fuzzer does for minutes.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::PathBuf,
    time::{Duration, Instant},
};

use sidestep_fuzz::{TARGETS, Target};
use sidestep_tests::random::Random;

/// How long each target runs on changed inputs.
const TIME: Duration = Duration::from_secs(1);
/// How many inputs it gets at the most in that time.
const INPUTS: usize = 20_000;
/// How large a corpus may be: small enough for the repository.
const LARGEST: usize = 96 << 10;

/// The inputs of a target, by name.
fn corpus(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort_unstable();
    files.into_iter().map(|file| (file.clone(), fs::read(&file).expect("an input"))).collect()
}

/// Runs an input, and names it if it fails.
fn run(target: &Target, input: &[u8], what: &str) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target.run(input))) {
        let file = std::env::temp_dir().join(format!("sidestep-fuzz-{}", target.name));
        fs::write(&file, input).expect("the input");
        eprintln!("{what}; `cargo xtask fuzz {} --input {}` repeats it", target.name, file.display());
        resume_unwind(panic);
    }
}

#[test]
fn every_input_that_was_kept_does_no_harm() {
    for target in &TARGETS {
        let corpus = corpus(target);
        assert!(!corpus.is_empty(), "{} has no corpus", target.name);
        let bytes: usize = corpus.iter().map(|(_, input)| input.len()).sum();
        assert!(bytes <= LARGEST, "the corpus of {} has {bytes} bytes: minimise it", target.name);
        for (file, input) in &corpus {
            run(target, input, &file.display().to_string());
        }
        println!("{}: {} inputs, {bytes} bytes", target.name, corpus.len());
    }
}

#[test]
fn inputs_like_those_that_were_kept_do_no_harm() {
    let seed = std::env::var("SIDESTEP_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| std::process::id().into());
    println!("SIDESTEP_SEED={seed}");
    let mut random = Random::new(seed);
    for target in &TARGETS {
        let corpus: Vec<Vec<u8>> = corpus(target).into_iter().map(|(_, input)| input).collect();
        let (began, mut inputs) = (Instant::now(), 0);
        while inputs < INPUTS && began.elapsed() < TIME {
            run(target, &changed(&corpus, &mut random), &format!("input {inputs} of seed {seed}"));
            inputs += 1;
        }
        println!("{}: {inputs} inputs", target.name);
        assert!(inputs > 10, "{} is so slow that nothing was tried", target.name);
    }
}

/// One of the inputs with a few changes: bytes, numbers, parts of others, repetitions, cuts.
fn changed(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = random.one_of(corpus);
    for _ in 0..=random.below(4_u32) {
        let at = random.index(input.len().max(1));
        let length = random.index(1 + input.len().saturating_sub(at).min(64));
        match random.below(7_u32) {
            0 => input.iter_mut().skip(at).take(1).for_each(|byte| *byte = random.bits().to_le_bytes()[0]),
            1 => input.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << random.below(8_u8)),
            2 => {
                let number = random.one_of(&[0, 1, 0x7f, 0x80, 0xff]);
                input.iter_mut().skip(at).take(1 + length % 4).for_each(|byte| *byte = number);
            }
            3 => input.truncate(at),
            4 => {
                let end = (at + length).min(input.len());
                let part = input[at.min(end)..end].to_vec();
                input.splice(at.min(end)..at.min(end), part);
            }
            5 => drop(input.drain(at.min(input.len())..(at + length).min(input.len()))),
            _ => {
                let other = random.one_of(corpus);
                let from = random.index(other.len().max(1));
                let part: Vec<u8> = other.into_iter().skip(from).take(64).collect();
                let at = at.min(input.len());
                input.splice(at..at, part);
            }
        }
    }
    input
}

#[test]
fn a_target_that_takes_too_much_memory_fails() {
    let greedy =
        Target::made_up("greedy", |bytes| drop(std::hint::black_box(vec![0_u8; bytes.len() << 20])), 16);
    greedy.run(&[0]);
    let failed = catch_unwind(AssertUnwindSafe(|| greedy.run(&[0; 64])));
    assert!(failed.is_err(), "64 MiB for 64 bytes");
}
