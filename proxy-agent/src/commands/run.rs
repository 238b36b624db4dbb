//! `sidestep run`: the agent. Source -> plan -> dataplane, until somebody ends it; the datapath stays.
//!
//! One thread does everything in turn (a source only waits for the network or for files); the grace thread
//! of the dataplane and the reader of manifests are the others.

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{MissedTickBehavior, interval, sleep_until},
};
use tracing::info;

use super::{Place, cleanup, mount};
use crate::{
    agent::follow::Agent,
    announce::{self, Announcement, Announcer},
    config::{self, Flags, Settings},
    dataplane::{self, Capacity, Wanted},
    source::{self, Batch},
};

/// Arguments of `run`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Read Service, EndpointSlice and Node objects from the YAML files of this directory, and follow it;
    /// without it, from the API server that the kubeconfig or the pod's service account names
    #[arg(long, value_name = "DIR")]
    pub(crate) manifests: Option<PathBuf>,
    /// Go straight to this API server: the `kubernetes` Service does not work before Sidestep does
    #[arg(long, value_name = "URL", alias = "master", conflicts_with = "manifests", env = "SIDESTEP_SERVER")]
    pub(crate) server: Option<String>,
    #[command(flatten)]
    configuration: Flags,
    /// Room for Service ports in all families, for tables that are made new
    #[arg(long, default_value_t = Capacity::default().services, value_parser = clap::value_parser!(u32).range(16..=1 << 24))]
    pub(crate) max_services: u32,
    /// Room for addresses of Services
    #[arg(long, default_value_t = Capacity::default().frontends, value_parser = clap::value_parser!(u32).range(16..=1 << 24))]
    pub(crate) max_frontends: u32,
    /// Room for endpoints, and for those that an update replaces
    #[arg(long, default_value_t = Capacity::default().endpoints, value_parser = clap::value_parser!(u32).range(16..=1 << 24))]
    pub(crate) max_endpoints: u32,
    /// Room for connections and UDP flows from outside
    #[arg(long, default_value_t = Capacity::default().flows, value_parser = clap::value_parser!(u32).range(16..=1 << 24))]
    pub(crate) max_flows: u32,
    /// Serve packets from outside at this device, such as `eth0` or `wg*`, and at no others but those that are named too;
    /// `none` for nowhere [default: where they come in, and where they go to other nodes]
    #[arg(
        long, value_name = "NAME", value_delimiter = ',', value_parser = glob::Pattern::new,
        env = "SIDESTEP_INTERFACE"
    )]
    interface: Vec<glob::Pattern>,
    /// Lead every packet to and from endpoints on other nodes through the node's stack: no new connection takes the fast path
    #[arg(long)]
    pub(crate) through_stack: bool,
    /// Attach to devices as kernels before 6.6 need it
    #[arg(long, hide = true)]
    pub(crate) no_tcx: bool,
    /// Remove everything that is Sidestep's, as `sidestep cleanup` does, and end
    #[arg(long, conflicts_with = "init_only")]
    cleanup: bool,
    /// Mount what the node lacks, as `sidestep mount` does, and end
    #[arg(long)]
    init_only: bool,
    /// Let the kernel programs tell every decision too (at level debug): for debugging only
    #[arg(long)]
    pub(crate) program_log: bool,
    /// What to log, such as `info` or `proxy_agent=debug`
    #[arg(long, default_value = "info", env = "SIDESTEP_LOG")]
    log: String,
    /// kube-proxy's verbosity: 4 and more is `--log debug`
    #[arg(short, long, value_name = "LEVEL", conflicts_with = "log")]
    v: Option<u8>,
}

impl Arguments {
    /// Where packets from outside are served.
    /// Where packets from outside are to be served.
    pub(crate) fn wanted(&self, masquerade_all: bool) -> Wanted {
        if self.interface.is_empty() {
            return if masquerade_all { Wanted::WithPods } else { Wanted::Auto };
        }
        let is_name = |pattern: &&glob::Pattern| pattern.as_str() != "none";
        Wanted::Named(self.interface.iter().filter(is_name).cloned().collect())
    }
}

/// How often the node's own addresses are looked at.
const ADDRESSES: Duration = Duration::from_secs(5);
/// How many batches of events may wait.
const QUEUE: usize = 256;

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let log = if arguments.v.is_some_and(|level| level >= 4) { "debug" } else { &arguments.log };
    let filter = tracing_subscriber::EnvFilter::try_new(log)
        .with_context(|| format!("--log {log:?} is not a filter"))?;
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
    if arguments.cleanup {
        return cleanup::run(&arguments.place.into());
    }
    if arguments.init_only {
        return mount::run(&arguments.place.into());
    }
    let settings = Settings::read(&arguments.configuration)?;
    if let Some(path) = &arguments.configuration.write_config_to {
        std::fs::write(path, settings.to_yaml()?).with_context(|| path.display().to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(arguments, settings))
}

async fn serve(arguments: Arguments, settings: Settings) -> anyhow::Result<ExitCode> {
    // Before anything else, so that no signal finds the agent half started.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (announcer, announcements) = Announcer::new();
    // Before anything is looked at.
    let mut network = dataplane::NetworkChanges::listen()?;
    let mut agent = Agent::start(&arguments, &settings, announcer)?;

    let (events, mut batches) = mpsc::channel::<Batch>(QUEUE);
    let bypass = dataplane::Bypass::open(&arguments.place.pin_dir)?;
    let node = agent.node().to_owned();
    let source = follow(arguments, settings.kubeconfig.clone(), node, bypass, events, announcements);
    let source = tokio::spawn(source);
    let file = settings.file.as_ref().map(|(path, text)| (path.as_path(), text.as_str()));
    let mut reconfigured = std::pin::pin!(config::changed(file));
    let mut addresses = interval(ADDRESSES);
    addresses.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut waiting = Vec::new();
    loop {
        tokio::select! {
            // Address changes first: a NodePort must not miss the address that a Service came with.
            biased;
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = &mut reconfigured => {
                info!("the configuration file has changed: ending, to be started again with it");
                break;
            }
            () = network.next() => {
                let began = Instant::now();
                agent.look_at_network()?;
                network.looked(began);
            }
            _ = addresses.tick() => agent.look_around()?,
            () = sleep_until(agent.reservation_due().into()) => agent.keep_reservation(),
            count = batches.recv_many(&mut waiting, QUEUE) => {
                if count == 0 {
                    // The source ended, which it does only with an error.
                    source.await.context("the source ended")??;
                    anyhow::bail!("the source ended");
                }
                agent.take(&mut waiting)?;
            }
        }
    }
    source.abort();
    info!("ending; programs and tables stay as they are (`sidestep cleanup` removes them)");
    Ok(ExitCode::SUCCESS)
}

/// Runs the source until nobody listens.
async fn follow(
    arguments: Arguments,
    kubeconfig: Option<PathBuf>,
    node: String,
    bypass: dataplane::Bypass,
    events: mpsc::Sender<Batch>,
    announcements: mpsc::Receiver<Announcement>,
) -> anyhow::Result<()> {
    if let Some(directory) = &arguments.manifests {
        source::manifests::run(directory, events).await?;
    } else {
        let (server, kubeconfig) = (arguments.server.as_deref(), kubeconfig.as_deref());
        let client = source::kube::connect(server, kubeconfig, Some(bypass)).await?;
        let announce = announce::publish(client.clone(), &node, announcements);
        tokio::join!(source::kube::run(client.clone(), &node, events), announce);
    }
    Ok(())
}
