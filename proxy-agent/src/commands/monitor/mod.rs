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
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::{Args, builder::PossibleValuesParser};
use proxy_common::{Happening, NodeEvent, Reason};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};

use self::{guide::Guide, told::Told, wanted::Wanted};
use super::{
    Output, Paths,
    clock::Clock,
    names::{ClientName, Destination},
    patience::duration,
};
use crate::dataplane::{Listening, monotonic_nanoseconds};

/// How often to look for events. The programs wake nobody up: that would cost those whom they serve.
const PERIOD: Duration = Duration::from_millis(10);
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
    #[arg(long, value_name = "EVENT", value_parser = PossibleValuesParser::new(Happening::ALL.map(Happening::name)))]
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
    /// last. The record has room for some two thousand of them, and ends when the agent's tables are removed.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    since: Option<Duration>,
    /// How long to listen, such as `10s`; `0s` to show only what was recorded [default: until Ctrl-C]
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    duration: Option<Duration>,
    /// End after so many events
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Output format
    ///
    /// The lines are for people and may change between versions; programs read the JSON: an object in each line.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// The names of everything that a refusal may be for.
fn reasons() -> Vec<&'static str> {
    Reason::ALL.map(Reason::name).into_iter().chain(LOSSES.map(NodeEvent::name)).collect()
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Paths { pin_dir, run_dir, .. } = &arguments.paths;
    let mut guide = Guide::new(pin_dir, run_dir)?;
    let wanted = Wanted::of(arguments, &guide)?;
    let clock = Clock::now();
    let mut shown = 0;
    if let Some(since) = arguments.since {
        for told in told::recorded(&mut guide, &wanted, clock, since)? {
            shown += 1;
            if !show(&told, arguments.output)? {
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
    if arguments.duration == Some(Duration::ZERO) {
        if shown == 0 && arguments.output == Output::Table {
            println!("nothing was recorded");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let listening = Listening::new(pin_dir, &wanted.listener, monotonic_nanoseconds())
        .context("cannot listen to the kernel programs")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(listen(arguments, listening, guide, wanted, clock))?;
    Ok(ExitCode::SUCCESS)
}

/// Shows events until it is told to end.
async fn listen(
    arguments: &Arguments,
    mut listening: Listening,
    mut guide: Guide,
    mut wanted: Wanted,
    clock: Clock,
) -> anyhow::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let began = Instant::now();
    let is_over = || arguments.duration.is_some_and(|duration| began.elapsed() >= duration);
    eprintln!("listening; Ctrl-C ends");
    let (mut shown, mut dropped, mut followed) = (0, 0, Instant::now());
    loop {
        let ends = is_over();
        while let Some(event) = listening.next_event() {
            if !wanted.has(&event) {
                continue;
            }
            let told = Told::of(&event, &mut guide, clock);
            shown += 1;
            if !show(&told, arguments.output)? {
                return Ok(());
            }
            if arguments.count.is_some_and(|count| shown >= count) {
                return Ok(());
            }
        }
        let (_, now) = listening.heard();
        if now > dropped {
            eprintln!("{} events were dropped: too many at once", now - dropped);
            dropped = now;
        }
        if ends {
            break;
        }
        if followed.elapsed() >= FOLLOW {
            listening.go_on(monotonic_nanoseconds())?;
            guide.refresh();
            if wanted.follow(&guide) {
                listening.want(&wanted.listener);
            }
            followed = Instant::now();
        }
        tokio::select! {
            () = sleep(PERIOD) => {}
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        }
    }
    eprintln!("{shown} events shown, {dropped} dropped");
    Ok(())
}

/// Prints one; returns whether somebody reads.
fn show(told: &Told, output: Output) -> anyhow::Result<bool> {
    let mut out = io::stdout().lock();
    let written = match output {
        Output::Table => writeln!(out, "{told}"),
        Output::Json => writeln!(out, "{}", serde_json::to_string(told)?),
    };
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true).map_err(Into::into),
    }
}
