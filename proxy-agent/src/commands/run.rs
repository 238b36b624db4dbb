//! `sidestep run`: starts the agent.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use super::{Paths, cleanup, mount};
use crate::{
    agent::{self, Objects, Start},
    config::{Flags, Settings},
    dataplane::{self, Capacity, Devices, SocketOptions, Wanted, has_tcx, memory_for_tables},
};

/// Arguments of `run`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct Arguments {
    #[command(flatten)]
    paths: Paths,
    /// Read Services, EndpointSlices, Nodes and Pods from the YAML files in this directory
    ///
    /// The agent follows the directory: it installs a changed file at once and lists what is wrong with it among the
    /// problems. Without this flag it watches the API server that the kubeconfig or the pod's service account names.
    #[arg(long, value_name = "DIR")]
    manifests: Option<PathBuf>,
    /// Connect to this API server directly, such as `https://10.0.0.1:6443`
    ///
    /// Without kube-proxy the `kubernetes` Service of a fresh node works only after Sidestep has installed it, and
    /// Sidestep needs an API server to install anything. Name an address here that leads there without a Service.
    #[arg(long, value_name = "URL", alias = "master", conflicts_with = "manifests", env = "SIDESTEP_SERVER")]
    server: Option<String>,
    #[command(flatten)]
    configuration: Flags,
    /// Largest number of Service ports [default: by memory, 131072 for each 4 GiB of the node]
    ///
    /// Each port of a Service counts once for each IP family. Tables begin small and grow with what they hold, up to
    /// this. The default is less where the container's memory limit is. They shrink again when they have been nearly
    /// empty for ten minutes, and when the agent starts. A restart honours another number; a lower one when nothing
    /// that is installed lies beyond it. The agent lists what does not fit among the problems.
    #[arg(long, value_parser = clap::value_parser!(u32).range(16..=1 << 24))]
    max_services: Option<u32>,
    /// Largest number of frontends [default: twice that of Service ports]
    ///
    /// A frontend is an address, port and protocol that clients connect to: of a ClusterIP, a NodePort, an external
    /// IP or a LoadBalancer IP. Grows as with --max-services.
    #[arg(long, value_parser = clap::value_parser!(u32).range(16..=1 << 24))]
    max_frontends: Option<u32>,
    /// Largest number of endpoints [default: twice that of Service ports]
    ///
    /// An update needs room for a Service's old and new endpoints side by side until no program can still read the
    /// old ones. Grows as with --max-services.
    #[arg(long, value_parser = clap::value_parser!(u32).range(16..=1 << 24))]
    max_endpoints: Option<u32>,
    /// Capacity for north-south connections and UDP flows
    ///
    /// The table is made when the first Service can be reached from outside the node, with room for 12,288, and grows when a
    /// quarter of it is in use. When it is full, new connections evict unconfirmed ones, so a SYN flood cannot displace
    /// established connections. If all are confirmed, clients are refused with the reason `flow-table-full`. A restart
    /// honours another number, a lower one when no more than a quarter of it is in use.
    #[arg(long, default_value_t = Capacity::default().flows, value_parser = clap::value_parser!(u32).range(16..=1 << 24))]
    max_flows: u32,
    /// Devices for north-south traffic, such as eth0 or wg*, or `none` [default: all uplinks]
    ///
    /// By default the agent attaches to every device that leads out of the node: with a default route, a route to a
    /// gateway, a tunnel, the Node's address, or a network card with an address. Name devices to attach to these
    /// only; repeat the flag or separate names by commas. `none` switches north-south traffic off: NodePorts then
    /// work for this node's own pods and processes only.
    #[arg(
        long, value_name = "NAME", value_delimiter = ',', value_parser = glob::Pattern::new,
        env = "SIDESTEP_INTERFACE"
    )]
    interface: Vec<glob::Pattern>,
    /// Devices of pods whose packets to Services are served, such as cali*, or `none` [default: all of them]
    ///
    /// What a pod's sockets send is translated before there is a packet. What comes out of a pod otherwise is translated at
    /// the node's end of the pod's wire: packets that a pod forwards (VPNs, routers, containers inside it), those of virtual
    /// machines, and those of sockets that no hook serves.
    #[arg(
        long, value_name = "NAME", value_delimiter = ',', value_parser = glob::Pattern::new,
        env = "SIDESTEP_POD_INTERFACE"
    )]
    pod_interface: Vec<glob::Pattern>,
    /// Whose sockets get their endpoint in `connect()` and `sendto()`: `all`, or those of the node itself (`host-only`)
    ///
    /// With `host-only` a pod's sockets keep the Service's address, and its packets are translated at the node's end of the
    /// pod's wire: for meshes and VPNs that must see every Service's address, at the price of a translation for each packet.
    #[arg(long, value_enum, default_value_t, env = "SIDESTEP_SOCKET_LB")]
    socket_lb: SocketLb,
    /// Pass by the sockets of those pods alone that ask for it
    ///
    /// By default the sockets of some network namespaces are passed by, as their own rules or routes must see the Service's
    /// address: of clusters and containers inside a pod, of pods whose netfilter rules redirect what they send (Istio,
    /// Linkerd), and of pods whose route to Services is not their default route (VPNs). `sidestep status` lists them. A Pod's
    /// annotation `sidestep.dev/socket-lb`, with the value `off` or `on`, decides for itself.
    #[arg(long)]
    no_bypass_detection: bool,
    /// Send all packets through the node's network stack instead of the fast path
    ///
    /// By default the packets of an established connection to an endpoint on another node are forwarded at ingress,
    /// past the stack. Use this where netfilter rules must see every such packet, for instance because they mark
    /// packets or drop those in state INVALID. It applies to new connections.
    #[arg(long)]
    through_stack: bool,
    /// Take over from kube-proxy: remove its rules once it is gone, and break none of its connections
    ///
    /// Does by itself what `sidestep takeover` does, as soon as all Services are installed, kube-proxy is gone from this
    /// node and its rules change no more, and whenever they come back. `sidestep status` shows how far it is. Where a
    /// difference between what kube-proxy serves and what Sidestep serves matters, the rules stay, and `status` says so.
    #[arg(long)]
    take_over: bool,
    /// Attach packet programs as clsact filters, even where the kernel has TCX (6.6)
    #[arg(long, hide = true)]
    no_tcx: bool,
    /// Do what `sidestep cleanup` does, and exit
    ///
    /// kube-proxy has this flag, too: a pod can clean up with the arguments it already has.
    #[arg(long, conflicts_with = "init_only")]
    cleanup: bool,
    /// Do what `sidestep mount` does, and exit
    ///
    /// kube-proxy has this flag, too: for a privileged init container beside an agent with fewer privileges.
    #[arg(long)]
    init_only: bool,
    /// Log every decision of the kernel programs, at level debug
    ///
    /// For debugging only: a log line for every connection costs far more than the connection.
    #[arg(long)]
    program_log: bool,
    /// Log filter, such as `info` or `proxy_agent=debug`
    ///
    /// A level (error, warn, info, debug, trace), or levels for modules separated by commas, in the syntax of
    /// tracing's `EnvFilter`. The log goes to standard error.
    #[arg(long, default_value = "info", env = "SIDESTEP_LOG")]
    log: String,
    /// kube-proxy's verbosity: 4 and above means --log debug
    ///
    /// For DaemonSets written for kube-proxy; lower levels mean `--log info`.
    #[arg(short, long, value_name = "LEVEL", conflicts_with = "log")]
    v: Option<u8>,
}

/// Whose sockets are translated.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, ValueEnum)]
enum SocketLb {
    /// Those of every pod, and of the node.
    #[default]
    All,
    /// Those of the node's own network namespace.
    HostOnly,
}

impl Arguments {
    /// The agent's start parameters, from the command line and the configuration.
    fn start(self, settings: &Settings) -> anyhow::Result<Start> {
        if self.paths.cgroup_root.is_none() {
            // A container's own is refused at once; one that is not mounted yet is waited for.
            dataplane::mounted_cgroup()?;
        }
        self.paths.check_bpffs()?;
        let devices = self.wanted(settings.masquerade_all);
        let host_only = self.socket_lb == SocketLb::HostOnly;
        anyhow::ensure!(
            !host_only || !devices.pods.is_nothing(),
            "--socket-lb host-only with --pod-interface none would leave pods without Services: name devices of pods, or leave \
             one of the two out"
        );
        let most = Capacity::of_memory(memory_for_tables());
        let limits = Capacity {
            services: self.max_services.unwrap_or(most.services),
            frontends: self.max_frontends.unwrap_or(most.frontends),
            endpoints: self.max_endpoints.unwrap_or(most.endpoints),
            clients: most.clients,
            flows: self.max_flows,
        };
        anyhow::ensure!(
            !host_only || dataplane::netns_cookie()? != 0,
            "--socket-lb host-only needs a kernel that tells network namespaces apart (5.14)"
        );
        let Paths { pin_dir, run_dir, cgroup_root } = self.paths;
        Ok(Start {
            pin_dir,
            run_dir,
            cgroup_root,
            objects: match self.manifests {
                Some(directory) => Objects::Manifests(directory),
                None => Objects::ApiServer(self.server),
            },
            limits,
            devices,
            tcx: !self.no_tcx && has_tcx(),
            through_stack: self.through_stack,
            program_log: self.program_log,
            sockets: SocketOptions { host_only, detects_bypass: !self.no_bypass_detection },
            take_over: self.take_over,
        })
    }

    /// The devices to attach the packet programs to.
    fn wanted(&self, masquerade_all: bool) -> Wanted {
        let is_name = |pattern: &&glob::Pattern| pattern.as_str() != "none";
        let named = |patterns: &[glob::Pattern]| match patterns {
            [] => Devices::Auto,
            patterns => Devices::Named(patterns.iter().filter(is_name).cloned().collect()),
        };
        let uplinks = named(&self.interface);
        Wanted {
            masquerade_all: masquerade_all && uplinks == Devices::Auto,
            uplinks,
            pods: named(&self.pod_interface),
        }
    }
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let log = if arguments.v.is_some_and(|level| level >= 4) { "debug" } else { &arguments.log };
    let filter = tracing_subscriber::EnvFilter::try_new(log)
        .with_context(|| format!("--log {log:?} is not a log filter (such as info or proxy_agent=debug)"))?;
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
    if arguments.cleanup {
        return cleanup::remove(&arguments.paths, None);
    }
    if arguments.init_only {
        return mount::run(&arguments.paths.into());
    }
    let settings = Settings::read(&arguments.configuration)?;
    if let Some(path) = &arguments.configuration.write_config_to {
        std::fs::write(path, settings.to_yaml()?).with_context(|| path.display().to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    let run_dir = arguments.paths.run_dir.clone();
    let ended = serve(arguments, settings);
    agent::note_end(&run_dir, ended.as_ref().err().map(|error| format!("{error:#}")));
    ended
}

fn serve(arguments: Arguments, settings: Settings) -> anyhow::Result<ExitCode> {
    let start = arguments.start(&settings)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(agent::run(start, settings))?;
    Ok(ExitCode::SUCCESS)
}
