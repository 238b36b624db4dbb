//! Loads the programs with maps of their own, attaches them to a scratch cgroup, and runs a client there that
//! connects real sockets. It all happens in a separate network namespace, so no packet leaves the machine.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;
use aya::Ebpf;
use nix::sched::{CloneFlags, unshare};
use proxy_common::{Address, AddressBits, FrontendKey, FrontendKind, Port, Protocol, Reason};

use super::{
    Check, Outcome,
    scenario::{EMPTY_PORT, PORT, Servers, VIP4, VIP6},
};
use crate::{
    commands::Paths,
    dataplane::{
        Capacity, Dataplane, Devices, FlowOptions, Interfaces, Options, SharedTables, SocketOptions, Wanted,
        attach, cleanup, ensure_bpffs, has_tcx, load, load_packet_programs,
    },
    model::ObjectName,
    plan::{AllowedClients, Changes, Family, PlannedEndpoint, ServicePlan, ServicePortId, Target},
};

pub(super) fn check(paths: &Paths) -> Vec<Check> {
    let tested = std::thread::scope(|scope| {
        scope.spawn(|| test(paths)).join().unwrap_or_else(|_| Err(anyhow::anyhow!("the self-test panicked")))
    });
    match tested {
        Ok(checks) => checks,
        Err(error) => vec![Check::new("self-test", Outcome::Failed, format!("{error:#}"))],
    }
}

fn test(paths: &Paths) -> anyhow::Result<Vec<Check>> {
    unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace")?;
    loopback_up().context("cannot bring the loopback device up")?;
    let scratch = Scratch::new(paths)?;
    let options = Options {
        pin_dir: scratch.pin_dir.clone(),
        cgroup_root: scratch.cgroup.clone(),
        capacity: Capacity { services: 64, frontends: 64, endpoints: 64, clients: 64, flows: 64 },
        program_log: false,
        sockets: SocketOptions::default(),
        flows: FlowOptions::default(),
    };
    let mut ebpf = load(&options)?;
    let mut checks =
        vec![Check::new("programs load", Outcome::Ok, "the verifier accepts the socket programs")];
    let loaded = load_packet_programs(&mut ebpf);
    checks.push(Check::of("packet programs load", loaded, |()| {
        "the verifier accepts the packet programs".to_owned()
    }));
    let servers = serve()?;
    let mut dataplane = Dataplane::open(&options)?;
    let problems = dataplane.apply(&plan(servers));
    anyhow::ensure!(problems.is_empty(), "cannot install the test's Services: {problems:?}");
    attach(&mut ebpf, &options)?;
    checks.push(Check::new("programs attach", Outcome::Ok, scratch.cgroup.display().to_string()));
    checks.push(packets(&mut ebpf, &options, dataplane.shared())?);

    let mut client = Command::new(std::env::current_exe()?);
    client.args(["doctor", "--client", &serde_json::to_string(&servers)?]);
    let procs = scratch.cgroup.join("cgroup.procs");
    // SAFETY: between fork and exec the child only opens, writes and closes one file.
    unsafe { client.pre_exec(move || fs::write(&procs, "0")) };
    let output = client.output().context("cannot start the self-test's client")?;
    let answers: Vec<Check> = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("the self-test's client: {}", String::from_utf8_lossy(&output.stderr)))?;
    checks.extend(answers);
    Ok(checks)
}

/// Attaches the programs of packets to the namespace's loopback device.
fn packets(ebpf: &mut Ebpf, options: &Options, tables: SharedTables) -> anyhow::Result<Check> {
    const NAME: &str = "north-south traffic";
    let (loopback, tcx) = (glob::Pattern::new("lo")?, has_tcx());
    let wanted = Wanted::of_uplinks(Devices::Named(vec![loopback]));
    let mut interfaces = Interfaces::open(&options.pin_dir, tables, wanted, tcx)?;
    interfaces.look(ebpf);
    Ok(match (interfaces.problems(), tcx) {
        ([], true) => Check::new(NAME, Outcome::Ok, "programs attach to devices as TCX links"),
        ([], false) => Check::new(
            NAME,
            Outcome::Ok,
            "programs attach to devices as filters in a clsact qdisc (TCX: 6.6)",
        ),
        ([problem, ..], _) => Check::new(
            NAME,
            Outcome::Failed,
            format!(
                "{problem}; the kernel needs TCX (6.6), or the modules sch_ingress and cls_bpf; to do without, \
                 start the agent with `--interface none`"
            ),
        ),
    })
}

/// A cgroup and a pin directory, removed on drop.
struct Scratch {
    cgroup: PathBuf,
    pin_dir: PathBuf,
}

impl Scratch {
    fn new(paths: &Paths) -> anyhow::Result<Self> {
        let name = format!("sidestep-doctor-{}", std::process::id());
        let parent = paths.pin_dir.parent().unwrap_or(Path::new("/sys/fs/bpf"));
        let scratch = Self { cgroup: paths.cgroup_root()?.join(&name), pin_dir: parent.join(&name) };
        ensure_bpffs(&scratch.pin_dir)?;
        fs::create_dir(&scratch.cgroup)
            .with_context(|| format!("cannot create {}", scratch.cgroup.display()))?;
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = cleanup(&self.pin_dir) {
            eprintln!("doctor: cannot remove the scratch programs: {error}");
        }
        if let Err(error) = fs::remove_dir(&self.cgroup) {
            eprintln!("doctor: cannot remove {}: {error}", self.cgroup.display());
        }
    }
}

/// `ip link set lo up`.
fn loopback_up() -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // SAFETY: all zeros is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *place = byte.cast_signed();
    }
    request.ifr_ifru.ifru_flags =
        libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or_default();
    // SAFETY: SIOCSIFFLAGS reads the request, which outlives the call.
    let result = unsafe {
        libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&socket), libc::SIOCSIFFLAGS, &raw const request)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Starts a TCP and a UDP server on loopback of each family, which end with the process.
fn serve() -> anyhow::Result<Servers> {
    let mut ports = [0; 4];
    for (place, address) in
        [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)].into_iter().enumerate()
    {
        let tcp = TcpListener::bind(SocketAddr::new(address, 0))
            .with_context(|| format!("cannot listen on {address}"))?;
        let udp =
            UdpSocket::bind(SocketAddr::new(address, 0)).with_context(|| format!("cannot bind {address}"))?;
        ports[2 * place] = tcp.local_addr()?.port();
        ports[2 * place + 1] = udp.local_addr()?.port();
        std::thread::spawn(move || {
            for stream in tcp.incoming().flatten() {
                let mut stream = stream;
                let mut byte = [0];
                let _ = stream.read(&mut byte).and_then(|_| stream.write_all(&byte));
            }
        });
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((length, from)) = udp.recv_from(&mut buffer) {
                let _ = udp.send_to(&buffer[..length], from);
            }
        });
    }
    let [tcp4, udp4, tcp6, udp6] = ports;
    Ok(Servers { tcp4, udp4, tcp6, udp6 })
}

fn plan(servers: Servers) -> Changes {
    let Servers { tcp4, udp4, tcp6, udp6 } = servers;
    let loopback = |vip: IpAddr| -> IpAddr {
        if vip.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() }
    };
    let service = |vip: IpAddr, port: u16, protocol: Protocol, server: Option<u16>| {
        let target =
            if server.is_some() { Target::Endpoints(0..1) } else { Target::Refuse(Reason::NoEndpoints) };
        ServicePlan {
            id: ServicePortId {
                service: ObjectName::new("sidestep", "doctor"),
                port: port.to_string().into(),
                protocol,
                family: if vip.is_ipv4() { Family::V4 } else { Family::V6 },
            },
            frontends: vec![(
                FrontendKey::new(Address::from(vip), Port::new(port), protocol as u8),
                FrontendKind::ClusterIp,
            )],
            allowed_clients: AllowedClients::Everyone,
            affinity_seconds: 0,
            endpoints: server
                .map(|port| PlannedEndpoint {
                    address: Address::from(loopback(vip)),
                    port: Port::new(port),
                    local: true,
                    serving: true,
                })
                .into_iter()
                .collect(),
            cluster: target.clone(),
            inside: target.clone(),
            outside: target,
        }
    };
    Changes {
        more: false,
        complete: true,
        install: vec![
            service(VIP4, PORT, Protocol::Tcp, Some(tcp4)),
            service(VIP4, PORT, Protocol::Udp, Some(udp4)),
            service(VIP6, PORT, Protocol::Tcp, Some(tcp6)),
            service(VIP6, PORT, Protocol::Udp, Some(udp6)),
            service(VIP4, EMPTY_PORT, Protocol::Tcp, None),
            service(VIP4, EMPTY_PORT, Protocol::Udp, None),
            service(VIP6, EMPTY_PORT, Protocol::Tcp, None),
        ],
        remove: Vec::new(),
        addresses: vec![
            (Address::from(VIP4), AddressBits::CLUSTER_IP),
            (Address::from(VIP6), AddressBits::CLUSTER_IP),
        ],
        pods: None,
    }
}
