//! `sidestep monitor`: what the kernel programs do, as it happens, and whom they refused before.
//!
//! | file | concept |
//! |---|---|
//! | `wanted` | what is asked for: a Service, a client, kinds of events |
//! | `told` | an event with names, as a line or as JSON |
//! | `guide` | the names of Services, clients and Pods |

mod guide;
mod told;
mod wanted;

use std::{
    io::{self, Write as _},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, sleep},
    time::{Duration, Instant},
};

use anyhow::{anyhow, bail};
use clap::{
    Args,
    builder::{PossibleValue, PossibleValuesParser},
};
use nix::sys::signal::{SigSet, Signal};
use proxy_common::{Happening, NodeEvent, Reason};

use self::{guide::Guide, told::Told, wanted::Wanted};
use super::{
    Output, Paths,
    clock::Clock,
    names::{ClientName, Destination},
    patience::duration,
};
use crate::{
    dataplane::{Listening, monotonic_nanoseconds},
    privileges::memory,
};

/// How often to look for events. The programs wake nobody up: that would cost those whom they serve.
const PERIOD: Duration = Duration::from_millis(10);
/// How long to show events before anything else is looked at.
const TURN: Duration = Duration::from_millis(100);
/// How often to say that somebody listens, and to look whether the Service has another index.
const FOLLOW: Duration = Duration::from_millis(250);

/// What besides refusals has a reason: packets that are lost, and endpoints that do not want them.
const LOSSES: [NodeEvent; 3] =
    [NodeEvent::WithoutSource, NodeEvent::WithoutRoute, NodeEvent::ResetByEndpoint];

/// Shown at the end of the help.
const EXAMPLES: &str = "\
Examples:
  sidestep monitor                                   everything, until Ctrl-C
  sidestep monitor shop/checkout --client shop/cart-0    one pod's use of one Service
  sidestep monitor --only refused --since 1h         who is refused what, and who was in the last hour
  sidestep monitor --since 1h --for 0s               only what was recorded
  sidestep monitor --sample 100 --for 10s -o json    each hundredth event of ten seconds, for a program";

/// Arguments of `monitor`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    paths: Paths,
    /// Only of this Service: `[NAMESPACE/]SERVICE[:PORT]`, or of one of its addresses, such as `10.96.0.10:53/udp`
    ///
    /// The kernel programs pass over all others, so that a busy node can be asked about one Service. What asks for a port that
    /// the Service does not have is shown, too, unless you name a port.
    service: Option<Destination>,
    /// Only of this client: a pod of this node as `[NAMESPACE/]POD`, node, outside:ADDRESS, pid:N, netns:PATH, or an address
    #[arg(long, value_name = "CLIENT")]
    client: Option<ClientName>,
    /// Only events of this kind; may be given several times
    #[arg(long, value_name = "EVENT", value_parser = PossibleValuesParser::new(kinds()))]
    only: Vec<String>,
    /// Only refusals for this reason; may be given several times
    #[arg(long, value_name = "REASON", value_parser = PossibleValuesParser::new(reasons()))]
    reason: Vec<String>,
    /// Show one of N events, drawn at random
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    sample: u32,
    /// Begin with the refusals of this time, such as `10m` or `2h`
    ///
    /// They are recorded whether somebody listens or not: for each client, address and reason how often, since when, and when
    /// last. The record has room for some two thousand of them (fewer on nodes with many processors), takes up at most 100 new
    /// ones of sockets and 20 of packets in a second, and ends with the agent's tables.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    since: Option<Duration>,
    /// How long to listen, such as `10s`; `0s` to show only what was recorded [default: until Ctrl-C]
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    duration: Option<Duration>,
    /// End after so many events, recorded ones included
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Output format
    ///
    /// The lines are for people and may change between versions; programs read the JSON: an object in each line.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// The kinds of events, with their meaning.
fn kinds() -> Vec<PossibleValue> {
    let of = |kind: Happening| PossibleValue::new(kind.name()).help(kind.explanation());
    Happening::ALL.map(of).into()
}

/// Everything that a refusal may be for, with its meaning.
fn reasons() -> Vec<PossibleValue> {
    let reasons = Reason::ALL.map(|reason| PossibleValue::new(reason.name()).help(reason.explanation()));
    let losses = LOSSES.map(|loss| PossibleValue::new(loss.name()));
    reasons.into_iter().chain(losses).collect()
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Paths { pin_dir, run_dir, .. } = &arguments.paths;
    if arguments.duration == Some(Duration::ZERO) && arguments.since.is_none() {
        bail!("`--for 0s` shows only what was recorded: say of which time with --since");
    }
    let is_recorded = |kind: &String| kind == Happening::Refused.name();
    if arguments.since.is_some() && !arguments.only.is_empty() && !arguments.only.iter().any(is_recorded) {
        bail!("only refusals are recorded: --since goes with `--only {}`", Happening::Refused.name());
    }
    let mut guide = Guide::new(pin_dir, run_dir)?;
    let wanted = Wanted::of(arguments, &guide)?;
    let mut screen = Screen { output: arguments.output, left: arguments.count.unwrap_or(u64::MAX), shown: 0 };
    if let Some(since) = arguments.since {
        for told in told::recorded(&mut guide, &wanted, since)? {
            if !screen.show(&told)? {
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
    if arguments.duration != Some(Duration::ZERO) {
        listen(arguments, guide, wanted, &mut screen)?;
    } else if screen.shown == 0 {
        say("nothing was recorded");
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows events until it is told to end.
fn listen(
    arguments: &Arguments,
    mut guide: Guide,
    mut wanted: Wanted,
    screen: &mut Screen,
) -> anyhow::Result<()> {
    let pin_dir = &arguments.paths.pin_dir;
    let is_interrupted = interrupted()?;
    let start = |wanted: &Wanted| {
        let listening = Listening::new(pin_dir, &wanted.listener, monotonic_nanoseconds());
        listening.map_err(|error| match memory::too_low() {
            Some(why) => anyhow!("cannot listen to the kernel programs: {error}; {why}"),
            None => anyhow!("cannot listen to the kernel programs: {error}"),
        })
    };
    memory::raise();
    let mut listening = start(&wanted)?;
    let (began, mut followed, mut clock) = (Instant::now(), Instant::now(), Clock::now());
    say("listening; Ctrl-C ends");
    let (mut dropped, mut dropped_before) = (0, 0);
    loop {
        let ends = is_interrupted.load(Ordering::Relaxed)
            || arguments.duration.is_some_and(|duration| began.elapsed() >= duration);
        let turn = Instant::now();
        let mut is_empty = false;
        while turn.elapsed() < TURN {
            let Some(event) = listening.next_event()? else {
                is_empty = true;
                break;
            };
            if wanted.has(&event, &guide) && !screen.show(&Told::of(&event, &mut guide, clock))? {
                screen.left = 0;
                break;
            }
        }
        let (_, now) = listening.heard();
        if now > dropped {
            say(&format!("{} events were dropped: too many at once", now - dropped));
            dropped = now;
        }
        if ends || screen.left == 0 {
            break;
        }
        if followed.elapsed() >= FOLLOW {
            if !listening.go_on(monotonic_nanoseconds()) || !listening.is_current(pin_dir) {
                say(
                    "listening again, as this process stood still, or there are other tables: something may be missing",
                );
                dropped_before += dropped;
                dropped = 0;
                drop(listening);
                listening = start(&wanted)?;
            }
            if guide.refresh() {
                clock = Clock::now();
                if wanted.follow(&guide) {
                    listening.want(&wanted.listener);
                }
            }
            followed = Instant::now();
        }
        if is_empty {
            sleep(PERIOD);
        }
    }
    say(&format!("{} events shown, {} dropped", screen.shown, dropped_before + dropped));
    Ok(())
}

/// Becomes true with the first SIGINT or SIGTERM; the second one ends the process, whatever it waits for.
fn interrupted() -> anyhow::Result<Arc<AtomicBool>> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.thread_block()?;
    let is_interrupted = Arc::<AtomicBool>::default();
    let told = Arc::clone(&is_interrupted);
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let _ = signals.wait();
        told.store(true, Ordering::Relaxed);
        // From now on this thread takes them as a process does that blocks none: it ends.
        let _ = signals.thread_unblock();
        loop {
            thread::park();
        }
    })?;
    Ok(is_interrupted)
}

/// What people see, or programs.
struct Screen {
    output: Output,
    /// How many are to be shown yet.
    left: u64,
    shown: u64,
}

impl Screen {
    /// Prints one; returns whether somebody reads, and wants more.
    fn show(&mut self, told: &Told) -> anyhow::Result<bool> {
        let mut out = io::stdout().lock();
        let written = match self.output {
            Output::Table => writeln!(out, "{told}"),
            Output::Json => writeln!(out, "{}", serde_json::to_string(told)?),
        };
        (self.left, self.shown) = (self.left.saturating_sub(1), self.shown + 1);
        match written.and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            written => written.map(|()| self.left > 0).map_err(Into::into),
        }
    }
}

/// Says something beside the events.
fn say(text: &str) {
    // Nobody may read it.
    let _ = writeln!(io::stderr(), "{text}");
}
