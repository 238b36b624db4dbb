//! The sockets of one port, from their making to their end: random calls on real sockets, judged by the model.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use sidestep_tests::{random::Random, sockets::disconnect};
use socket2::{Protocol, Socket, Type};

use super::{
    calls::{Bound, Call, Domain, Endpoints, PODS, SERVICES, Target, Whom, names},
    model::{KernelPeer, Model, Name, Outcome},
    world::World,
};

/// Some sockets share a port.
const PAIRS: u32 = 4;

/// One or two sockets, and what became of them.
pub(super) struct Story {
    random: Random,
    model: Model,
    members: Vec<Member>,
    domain: Domain,
    next_request: u64,
    told: Vec<String>,
}

struct Member {
    socket: Arc<Socket>,
    /// Its local port; 0 while the kernel has not chosen one.
    port: u16,
    elsewhere: bool,
}

/// What was different from the model, with all that went before.
#[derive(Debug)]
pub(super) struct Difference {
    pub(super) what: String,
    pub(super) told: Vec<String>,
}

/// What was as in the model.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Tally {
    pub(super) calls: u64,
    pub(super) answers: u64,
    pub(super) excused: u64,
}

impl Story {
    /// Makes sockets at this port if they are bound to one. `seed` is that of the world, to be told. Call it in the client's
    /// place.
    pub(super) fn begin(world: &World, mut random: Random, port: u16, seed: u64) -> io::Result<Self> {
        let domain = random.one_of(&[Domain::Inet, Domain::Inet6]);
        let pair = random.once_in(PAIRS);
        let bound = match random.below(6_u32) {
            _ if pair => Bound::Port,
            0 => Bound::No,
            1 => Bound::Address(random.one_of(domain.spellings())),
            _ => Bound::Port,
        };
        let local = match bound {
            Bound::No => None,
            Bound::Port => Some((any(domain), port).into()),
            Bound::Address(spelling) => Some(world.own(spelling, port)),
        };
        let members: Vec<Member> = (0..=usize::from(pair))
            .map(|_| {
                let socket = Arc::new(socket(domain, local, pair)?);
                Ok(Member { socket, port: local.map_or(0, |_| port), elsewhere: false })
            })
            .collect::<io::Result<_>>()?;
        let model = Model::new(members.len(), domain, bound, world.endpoints().clone());
        let told = vec![
            format!(
                "{domain:?}, bound: {bound:?}, {} sockets, port {port}, SIDESTEP_SEED={seed} SIDESTEP_SEQUENCES=500",
                members.len()
            ),
            format!("endpoints: {}", world.endpoints()),
        ];
        Ok(Self { random, model, members, domain, next_request: 1, told })
    }

    /// Makes one call, and compares what can be seen then.
    pub(super) fn step(&mut self, world: &World, tally: &mut Tally) -> Result<(), Difference> {
        let member = self.random.index(self.members.len());
        let call = self.choose(member);
        self.perform(world, member, call, tally).map_err(|what| self.difference(what))
    }

    /// Reads what has come, and asks for what has not.
    pub(super) fn end(&mut self, world: &World, tally: &mut Tally) -> Result<(), Difference> {
        self.perform(world, 0, Call::Receive, tally).map_err(|what| self.difference(what))
    }

    /// All Services have these endpoints now.
    pub(super) fn change(&mut self, endpoints: &Endpoints) {
        self.model.change(endpoints);
        self.told.push(format!("endpoints: {endpoints}"));
    }

    /// How many requests have gone to pods.
    pub(super) fn asked(&self) -> usize {
        self.model.asked()
    }

    /// Whether the kernel has each socket connected to whom it should be.
    pub(super) fn judge_kernel_peers(&self, peers: &[(u16, Option<usize>)]) -> Result<(), Difference> {
        for (number, member) in self.members.iter().enumerate() {
            let mut here = peers.iter().filter(|(port, _)| *port == member.port).map(|(_, pod)| *pod);
            let (right, wanted) = match self.model.kernel_peer(number) {
                KernelPeer::Anything => continue,
                KernelPeer::NoPod => (here.any(|pod| pod.is_none()), "no pod".to_owned()),
                KernelPeer::OneOf(some) => {
                    (here.any(|pod| pod.is_some_and(|pod| some.contains(&pod))), names(&some))
                }
            };
            if !right {
                let found: Vec<_> = peers.iter().filter(|(port, _)| *port == member.port).collect();
                let socket = self.name(number);
                return Err(self.difference(format!(
                    "{socket} was not moved: it is to be connected to {wanted}, the kernel has {found:?}"
                )));
            }
        }
        Ok(())
    }

    fn difference(&self, what: String) -> Difference {
        Difference { what, told: self.told.clone() }
    }

    /// The socket's name in what is told.
    fn name(&self, member: usize) -> &'static str {
        match (self.members.len(), member) {
            (1, _) => "it",
            (_, 0) => "the first",
            _ => "the second",
        }
    }

    fn choose(&mut self, member: usize) -> Call {
        loop {
            let call = match self.random.below(20_u32) {
                0..6 => Call::SendTo(self.target()),
                6..9 => Call::Send,
                9..13 => Call::Connect(self.target()),
                13 => Call::Disconnect,
                14..18 => Call::Receive,
                18 => Call::Duplicate,
                _ => Call::HandOver,
            };
            if self.model.admits(member, call) {
                return call;
            }
        }
    }

    fn target(&mut self) -> Target {
        let random = &mut self.random;
        let whom = match random.below(16_u32) {
            0..9 => Whom::Service(random.index(SERVICES)),
            9 => Whom::UnknownPort(random.index(SERVICES)),
            10 => Whom::Unreachable,
            _ => Whom::Pod(random.index(PODS)),
        };
        Target { whom, spelling: random.one_of(self.domain.spellings()) }
    }

    fn perform(&mut self, world: &World, member: usize, call: Call, tally: &mut Tally) -> Result<(), String> {
        tally.calls += 1;
        let request = self.next_request;
        self.next_request += 1;
        let outcome = self.model.call(member, call, request);
        self.told.push(match call {
            Call::Send | Call::SendTo(_) => format!("{}: {call}: request {request}", self.name(member)),
            _ => format!("{}: {call}", self.name(member)),
        });
        let mut result = self.system_call(world, member, call, request);
        if matches!(&result, Err(error) if error.kind() == io::ErrorKind::ConnectionRefused)
            && outcome == Outcome::Success
            && self.model.excuses_refusal()
        {
            result = self.system_call(world, member, call, request);
        }
        let refused = matches!(&result, Err(error) if error.kind() == io::ErrorKind::ConnectionRefused);
        let right = match outcome {
            Outcome::Success => result.is_ok(),
            Outcome::Refused => refused || !world.translates_sockets() && result.is_ok(),
            Outcome::SuccessOrRefused => result.is_ok() || refused,
            Outcome::NoWay => result.is_err() && !refused,
        };
        if let Err(error) = &result {
            self.told.push(format!("    {error}"));
        }
        if !right {
            return Err(format!("{call} is to be {outcome:?}, and is {result:?}"));
        }
        if call == Call::Receive {
            for member in 0..self.members.len() {
                self.read(world, member, tally)?;
            }
            let overdue = self.model.overdue();
            if !overdue.is_empty() {
                return Err(format!("no answer came to requests {overdue:?}"));
            }
        }
        self.judge_names(world, member)
    }

    /// Makes the call on the real socket. `Receive` is [`Self::read`].
    fn system_call(&mut self, world: &World, member: usize, call: Call, request: u64) -> io::Result<()> {
        let Member { socket, elsewhere, .. } = &mut self.members[member];
        let payload = request.to_string();
        let address = |target| world.address(target).into();
        match call {
            Call::Connect(target) => {
                let address = address(target);
                on(world, *elsewhere, socket, move |socket| socket.connect(&address))
            }
            Call::Disconnect => on(world, *elsewhere, socket, disconnect),
            Call::SendTo(target) => {
                let address = address(target);
                on(world, *elsewhere, socket, move |socket| {
                    socket.send_to(payload.as_bytes(), &address).map(drop)
                })
            }
            Call::Send => {
                on(world, *elsewhere, socket, move |socket| socket.send(payload.as_bytes()).map(drop))
            }
            Call::Duplicate => {
                *socket = Arc::new(socket.try_clone()?);
                Ok(())
            }
            Call::HandOver => {
                *elsewhere = !*elsewhere;
                Ok(())
            }
            Call::Receive => Ok(()),
        }
    }

    /// Reads all answers that a socket has, and has them judged.
    fn read(&mut self, world: &World, member: usize, tally: &mut Tally) -> Result<(), String> {
        loop {
            let Member { socket, elsewhere, .. } = &self.members[member];
            let (answer, source) = match on(world, *elsewhere, socket, receive) {
                Ok(Some(read)) => read,
                Ok(None) => return Ok(()),
                Err(error)
                    if error.kind() == io::ErrorKind::ConnectionRefused && self.model.excuses_refusal() =>
                {
                    continue;
                }
                Err(error) => return Err(format!("recvfrom: {error}")),
            };
            let mut words = answer.split(' ');
            let pod = words.next().and_then(|name| name.strip_prefix("pod-")?.parse().ok());
            let request = words.next_back().and_then(|number| number.parse().ok());
            let (Some(pod), Some(request)) = (pod, request) else {
                return Err(format!("{answer:?} is no answer"));
            };
            let reader = self.name(member);
            self.told.push(format!("    {reader} reads of request {request}: pod-{pod} answers as {source}"));
            tally.answers += 1;
            if self.model.answered(member, request, pod, world.target(source))? == Name::Excused {
                tally.excused += 1;
            }
        }
    }

    /// What `getpeername` and `getsockname` say.
    fn judge_names(&mut self, world: &World, number: usize) -> Result<(), String> {
        let member = &mut self.members[number];
        let (peer, local) = on(world, member.elsewhere, &member.socket, |socket| {
            (socket.peer_addr().ok().and_then(|peer| peer.as_socket()), socket.local_addr())
        });
        let expected = self.model.peer(number).map(|target| world.address(target));
        if peer != expected {
            return Err(format!("getpeername says {peer:?}, expected {expected:?}"));
        }
        let local = local.map_err(|error| format!("getsockname: {error}"))?;
        let local = local.as_socket().ok_or("getsockname gives no address")?;
        let expected =
            self.model.own(number).map_or_else(|| any(self.domain), |spelling| world.own(spelling, 0).ip());
        if local.ip() != expected {
            return Err(format!("getsockname says {local}, expected {expected}"));
        }
        let had = std::mem::replace(&mut member.port, local.port());
        // A port that nobody asked for comes with the first call that needs one, and goes with AF_UNSPEC.
        if had != local.port() && had != 0 && local.port() != 0 {
            return Err(format!("the local port was {had} and is {}", local.port()));
        }
        Ok(())
    }
}

/// Does something with a socket, here or elsewhere.
fn on<T: Send + 'static>(
    world: &World,
    elsewhere: bool,
    socket: &Arc<Socket>,
    work: impl FnOnce(&Socket) -> T + Send + 'static,
) -> T {
    if elsewhere {
        let socket = Arc::clone(socket);
        world.elsewhere().run(move || work(&socket))
    } else {
        work(socket)
    }
}

/// The next answer and its source; nothing if there is none.
fn receive(socket: &Socket) -> io::Result<Option<(String, SocketAddr)>> {
    let mut buffer = Vec::with_capacity(256);
    match socket.recv_from(buffer.spare_capacity_mut()) {
        Ok((length, source)) => {
            // SAFETY: the kernel has written so many bytes.
            unsafe { buffer.set_len(length) };
            let source = source.as_socket().ok_or_else(|| io::Error::other("a source without an address"))?;
            Ok(Some((String::from_utf8_lossy(&buffer).into_owned(), source)))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

fn socket(domain: Domain, local: Option<SocketAddr>, shared: bool) -> io::Result<Socket> {
    let family = match domain {
        Domain::Inet => socket2::Domain::IPV4,
        Domain::Inet6 => socket2::Domain::IPV6,
    };
    let socket = Socket::new(family, Type::DGRAM, Some(Protocol::UDP))?;
    if domain == Domain::Inet6 {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.set_reuse_port(shared)?;
    if let Some(local) = local {
        socket.bind(&local.into())?;
    }
    Ok(socket)
}

fn any(domain: Domain) -> std::net::IpAddr {
    match domain {
        Domain::Inet => Ipv4Addr::UNSPECIFIED.into(),
        Domain::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
    }
}
