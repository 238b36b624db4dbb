//! The agent's loop: one thread handles events of the sources, changes of the node and signals in turn.

use std::{
    os::fd::BorrowedFd,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{MissedTickBehavior, interval, sleep_until},
};
use tracing::{debug, info, warn};

use super::{
    follow::Agent,
    start::{Objects, Start},
};
use crate::{
    announce::{self, Announcement, Announcer},
    config::{self, Settings},
    dataplane::{self, Bypass, NetworkChanges},
    privileges::places,
    source::{self, Batch, kube::MarkSocket},
};

/// How often the agent checks the node's own addresses.
const ADDRESSES: Duration = Duration::from_secs(5);
/// How many batches of events may wait.
const QUEUE: usize = 256;

/// Runs the agent until a signal ends it or the configuration file changes; the datapath stays in place.
pub async fn run(start: Start, settings: Settings) -> anyhow::Result<()> {
    // First, so that no signal arrives at a half-started agent.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (announcer, announcements) = Announcer::new();
    // Before the first read, so that no change is missed.
    let mut network = NetworkChanges::listen()?;
    let run_dir = start.lock()?;
    let cgroup_root = tokio::select! {
        found = start.cgroup_root(&run_dir) => found?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let mut agent = Agent::start(&start, run_dir, cgroup_root, &settings, announcer)?;

    confine(&start, &settings);
    let (events, mut batches) = mpsc::channel::<Batch>(QUEUE);
    let bypass = Bypass::open(&start.pin_dir)?;
    let mark = Arc::new(move |socket: BorrowedFd<'_>| bypass.mark(&socket).map_err(Into::into));
    let node = agent.node().to_owned();
    let source = follow(start.objects, settings.kubeconfig.clone(), node, mark, events, announcements);
    let source = tokio::spawn(source);
    let file = settings.file.as_ref().map(|(path, text)| (path.as_path(), text.as_str()));
    let mut reconfigured = std::pin::pin!(config::changed(file));
    let mut addresses = interval(ADDRESSES);
    addresses.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (loaded, crowded, mut waiting) = (agent.growth.loaded(), agent.crowded(), Vec::new());
    loop {
        tokio::select! {
            // Address changes first, so that a NodePort includes addresses added together with its Service.
            biased;
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = &mut reconfigured => {
                info!("the configuration file has changed: exiting, so that the agent starts again with it");
                break;
            }
            has_news = network.next() => {
                let began = Instant::now();
                agent.look_at_network(has_news)?;
                network.looked(began.elapsed().saturating_sub(agent.interfaces.take_welcomed()));
            }
            () = loaded.notified() => agent.resize_and_report(),
            () = crowded.notified() => agent.make_room_for_connections(),
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
    info!("exiting; programs and maps stay in place (`sidestep cleanup` removes them)");
    Ok(())
}

/// Confines this thread, and those that it starts from now on, to the agent's own places.
fn confine(start: &Start, settings: &Settings) {
    if let Objects::ApiServer(_) = start.objects
        && source::kube::runs_programs(settings.kubeconfig.as_deref())
    {
        info!("the kubeconfig gets credentials from a program, so the agent may execute and write files");
        return;
    }
    // A file system that is mounted anew is another place, with nothing in it but what the agent pins.
    let above = dataplane::above_bpffs(&start.pin_dir).ok().flatten();
    match places::confine(&[&start.pin_dir, &start.run_dir], above.as_deref()) {
        Ok(true) => debug!("confined to the pin directory and the run directory (landlock)"),
        Ok(false) => {
            debug!("this kernel has no landlock: file permissions alone say what the agent may write");
        }
        Err(error) => {
            warn!(%error, "cannot confine the agent to its directories (landlock); it works without");
        }
    }
}

/// Runs the source until the receiver is dropped; marks its sockets so that the socket programs leave them alone.
async fn follow(
    objects: Objects,
    kubeconfig: Option<PathBuf>,
    node: String,
    mark: Arc<MarkSocket>,
    events: mpsc::Sender<Batch>,
    announcements: mpsc::Receiver<Announcement>,
) -> anyhow::Result<()> {
    match objects {
        Objects::Manifests(directory) => source::manifests::run(&directory, events).await?,
        Objects::ApiServer(server) => {
            let client = source::kube::connect(server.as_deref(), kubeconfig.as_deref(), Some(mark)).await?;
            let announce = announce::publish(client.clone(), &node, announcements);
            tokio::join!(source::kube::run(client.clone(), &node, events), announce);
        }
    }
    Ok(())
}
