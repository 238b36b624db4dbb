//! `sidestep run`: the agent, with what the command line asks for.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Args;

use super::{Paths, cleanup, mount};
use crate::{
    agent::{self, Objects, Start},
    config::{Flags, Settings},
    dataplane::{Capacity, Wanted, has_tcx},
};

/// Arguments of `run`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct Arguments {
    #[command(flatten)]
    paths: Paths,
    /// Read Service, EndpointSlice and Node objects from the YAML files of this directory, and follow it;
    /// without it, from the API server that the kubeconfig or the pod's service account names
    #[arg(long, value_name = "DIR")]
    manifests: Option<PathBuf>,
    /// Go straight to this API server: the `kubernetes` Service does not work before Sidestep does
    #[arg(long, value_name = "URL", alias = "master", conflicts_with = "manifests", env = "SIDESTEP_SERVER")]
    server: Option<String>,
    #[command(flatten)]
    configuration: Flags,
    /// Room for Service ports in all families, for tables that are made new
    #[arg(long, default_value_t = Capacity::default().services, value_parser = clap::value_parser!(u32).range(16..=1 << 24))]
    max_services: u32,
    /// Room for addresses of Services
    #[arg(long, default_value_t = Capacity::default().frontends, value_parser = clap::value_parser!(u32).range(16..=1 << 24))]
    max_frontends: u32,
    /// Room for endpoints, and for those that an update replaces
    #[arg(long, default_value_t = Capacity::default().endpoints, value_parser = clap::value_parser!(u32).range(16..=1 << 24))]
    max_endpoints: u32,
    /// Room for connections and UDP flows from outside
    #[arg(long, default_value_t = Capacity::default().flows, value_parser = clap::value_parser!(u32).range(16..=1 << 24))]
    max_flows: u32,
    /// Serve packets from outside at this device, such as `eth0` or `wg*`, and at no others but those that are named too;
    /// `none` for nowhere [default: where they come in, and where they go to other nodes]
    #[arg(
        long, value_name = "NAME", value_delimiter = ',', value_parser = glob::Pattern::new,
        env = "SIDESTEP_INTERFACE"
    )]
    interface: Vec<glob::Pattern>,
    /// Lead every packet to and from endpoints on other nodes through the node's stack: no new connection takes the fast path
    #[arg(long)]
    through_stack: bool,
    /// Attach to devices as kernels before 6.6 need it
    #[arg(long, hide = true)]
    no_tcx: bool,
    /// Remove everything that is Sidestep's, as `sidestep cleanup` does, and end
    #[arg(long, conflicts_with = "init_only")]
    cleanup: bool,
    /// Mount what the node lacks, as `sidestep mount` does, and end
    #[arg(long)]
    init_only: bool,
    /// Let the kernel programs tell every decision too (at level debug): for debugging only
    #[arg(long)]
    program_log: bool,
    /// What to log, such as `info` or `proxy_agent=debug`
    #[arg(long, default_value = "info", env = "SIDESTEP_LOG")]
    log: String,
    /// kube-proxy's verbosity: 4 and more is `--log debug`
    #[arg(short, long, value_name = "LEVEL", conflicts_with = "log")]
    v: Option<u8>,
}

impl Arguments {
    /// What the agent is started with.
    fn start(self, settings: &Settings) -> anyhow::Result<Start> {
        let cgroup_root = self.paths.cgroup_root()?;
        self.paths.check_bpffs()?;
        let devices = self.wanted(settings.masquerade_all);
        let Paths { pin_dir, run_dir, cgroup_root: _ } = self.paths;
        Ok(Start {
            pin_dir,
            run_dir,
            cgroup_root,
            objects: match self.manifests {
                Some(directory) => Objects::Manifests(directory),
                None => Objects::ApiServer(self.server),
            },
            capacity: Capacity {
                services: self.max_services,
                frontends: self.max_frontends,
                endpoints: self.max_endpoints,
                flows: self.max_flows,
            },
            devices,
            tcx: !self.no_tcx && has_tcx(),
            through_stack: self.through_stack,
            program_log: self.program_log,
        })
    }

    /// Where packets from outside are to be served.
    fn wanted(&self, masquerade_all: bool) -> Wanted {
        if self.interface.is_empty() {
            return if masquerade_all { Wanted::WithPods } else { Wanted::Auto };
        }
        let is_name = |pattern: &&glob::Pattern| pattern.as_str() != "none";
        Wanted::Named(self.interface.iter().filter(is_name).cloned().collect())
    }
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let log = if arguments.v.is_some_and(|level| level >= 4) { "debug" } else { &arguments.log };
    let filter = tracing_subscriber::EnvFilter::try_new(log)
        .with_context(|| format!("--log {log:?} is not a filter"))?;
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
    if arguments.cleanup {
        return cleanup::run(&arguments.paths.into());
    }
    if arguments.init_only {
        return mount::run(&arguments.paths.into());
    }
    let settings = Settings::read(&arguments.configuration)?;
    if let Some(path) = &arguments.configuration.write_config_to {
        std::fs::write(path, settings.to_yaml()?).with_context(|| path.display().to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    let start = arguments.start(&settings)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(agent::run(start, settings))?;
    Ok(ExitCode::SUCCESS)
}
