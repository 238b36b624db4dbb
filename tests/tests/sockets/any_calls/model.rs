//! What one or two UDP sockets of a port see where netfilter translates for them: the judge of the real ones.
//!
//! Conntrack knows an answer by the request that it belongs to, so an answer is from whom was asked; a port keeps its
//! endpoint for a Service while that serves; `connect` asks nobody and succeeds. What is different without conntrack,
//! and accepted, is in [`Model::excused`] and in `reach` below. What Linux itself does not define, or does not keep, is
//! not asked of it: [`Model::admits`] says which calls.
//!
//! Answers come between two calls: whoever drives this waits for them.

use std::collections::BTreeMap;

use proxy_common::Datagrams;

use super::calls::{Bound, Call, Domain, Endpoints, Pods, Spelling, Target, Whom, names};

/// What a call is to come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// Success.
    Success,
    /// ECONNREFUSED.
    Refused,
    /// Either of the two: whether an earlier datagram was rejected is heard sooner or later.
    SuccessOrRefused,
    /// Any other error.
    NoWay,
}

/// How an answer was named.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Name {
    /// As netfilter would have it.
    Exact,
    /// As another peer with the same pod behind it.
    Excused,
}

/// Whom the kernel may have a socket connected to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum KernelPeer {
    /// One of these pods.
    OneOf(Pods),
    /// No pod.
    NoPod,
    /// It does not matter.
    Anything,
}

/// The sockets of one port.
#[derive(Clone, Debug)]
pub(super) struct Model {
    endpoints: Endpoints,
    members: Vec<Member>,
    requests: BTreeMap<u64, Request>,
    choices: Vec<Choice>,
    /// How many of the calls may still end with ECONNREFUSED because of an earlier datagram to nobody.
    excuses: u32,
    /// Counts up with everything that is asked or connected to.
    now: u64,
}

/// One socket.
#[derive(Clone, Debug)]
struct Member {
    domain: Domain,
    bound: Bound,
    connected: Option<Target>,
    /// An address of IPv6 that the kernel goes on to filter by after `AF_UNSPEC`.
    filtered: bool,
    /// It was connected in IPv4.
    was_v4: bool,
    /// When `AF_UNSPEC` took its port last, if it did.
    lost_port: Option<u64>,
    /// Which endpoint it has for each Service and family.
    kept: BTreeMap<(usize, bool), usize>,
    /// When it was connected, to whom, and what was chosen then.
    connects: Vec<(u64, Target, Option<usize>)>,
}

/// Which endpoint somebody got.
#[derive(Clone, Debug)]
struct Choice {
    candidates: Pods,
    known: Option<usize>,
}

#[derive(Clone, Debug)]
struct Request {
    member: usize,
    target: Target,
    choice: usize,
    at: u64,
    /// When the socket said last whom it asks: a `send` does not.
    named_at: u64,
    /// Whether an answer has to come.
    reaches: bool,
    while_connected: bool,
    answered: bool,
}

impl Choice {
    fn possible(&self) -> Pods {
        self.known.map_or_else(|| self.candidates.clone(), |known| Pods::from([known]))
    }

    fn may_be(&self, pod: usize) -> bool {
        self.possible().contains(&pod)
    }
}

const fn is_v6(spelling: Spelling) -> bool {
    matches!(spelling, Spelling::V6)
}

impl Model {
    /// So many sockets that are made alike, one or two.
    pub(super) fn new(members: usize, domain: Domain, bound: Bound, endpoints: Endpoints) -> Self {
        let member = Member {
            domain,
            bound,
            connected: None,
            filtered: false,
            was_v4: false,
            lost_port: None,
            kept: BTreeMap::new(),
            connects: Vec::new(),
        };
        Self {
            endpoints,
            members: vec![member; members],
            requests: BTreeMap::new(),
            choices: Vec::new(),
            excuses: 0,
            now: 0,
        }
    }

    /// Whether Linux by itself does something sensible then, and always the same.
    pub(super) fn admits(&self, member: usize, call: Call) -> bool {
        let Member { domain, bound, connected, was_v4, .. } = &self.members[member];
        match call {
            Call::Connect(Target { whom: Whom::Unreachable, spelling }) => {
                // A connected socket of AF_INET sends elsewhere after a connect that found no route.
                Self::fits(*bound, spelling) && (*domain == Domain::Inet6 || connected.is_none())
            }
            Call::SendTo(Target { whom: Whom::Unreachable, .. }) => false,
            // The route by which answers of IPv4 came stays with the socket (`sk_rx_dst`), and those of IPv6 are lost
            // to it.
            Call::Connect(Target { spelling: Spelling::V6, .. }) if *was_v4 => false,
            // A socket that was connected has an address of that family, until AF_UNSPEC takes it.
            Call::Connect(target) | Call::SendTo(target) => {
                Self::fits(*bound, target.spelling)
                    && connected.is_none_or(|peer| is_v6(peer.spelling) == is_v6(target.spelling))
            }
            Call::Send => connected.is_some(),
            Call::Disconnect | Call::Receive | Call::Duplicate | Call::HandOver => true,
        }
    }

    fn fits(bound: Bound, spelling: Spelling) -> bool {
        match bound {
            Bound::No | Bound::Port => true,
            Bound::Address(own) => own == spelling,
        }
    }

    /// A call, and what it is to come to. A datagram carries the number `request`.
    pub(super) fn call(&mut self, member: usize, call: Call, request: u64) -> Outcome {
        self.now += 1;
        match call {
            Call::Connect(target) => self.connect(member, target),
            Call::Disconnect => {
                self.disconnect(member);
                Outcome::Success
            }
            Call::SendTo(target) => self.send_to(member, target, request),
            Call::Send => self.send(member, request),
            Call::Receive | Call::Duplicate | Call::HandOver => Outcome::Success,
        }
    }

    fn connect(&mut self, member: usize, target: Target) -> Outcome {
        if target.whom == Whom::Unreachable {
            return Outcome::NoWay;
        }
        let choice = self.choose(member, target);
        let now = self.now;
        let socket = &mut self.members[member];
        socket.connected = Some(target);
        socket.filtered = false;
        socket.was_v4 |= !is_v6(target.spelling);
        socket.connects.push((now, target, choice));
        Outcome::Success
    }

    fn disconnect(&mut self, member: usize) {
        let socket = &mut self.members[member];
        socket.filtered |= socket.connected.take().is_some() && socket.domain == Domain::Inet6;
        self.forget_port(member);
    }

    /// `AF_UNSPEC` takes a port that nobody asked for, and with it what netfilter knows. A socket that keeps its endpoint
    /// all the same is as right as one that does not.
    fn forget_port(&mut self, member: usize) {
        if self.members[member].bound != Bound::No {
            return;
        }
        self.members[member].lost_port = Some(self.now);
        let kept: Vec<_> = self.members[member].kept.iter().map(|(key, choice)| (*key, *choice)).collect();
        for ((service, v6), choice) in kept {
            let mut candidates = self.endpoints.choosable(service);
            candidates.extend(self.choices[choice].possible());
            let choice = self.new_choice(candidates);
            self.members[member].kept.insert((service, v6), choice);
        }
    }

    fn send_to(&mut self, member: usize, target: Target, request: u64) -> Outcome {
        let is_peer = |member: &Member| {
            member.connected.is_some_and(|peer| {
                peer.whom == target.whom && is_v6(peer.spelling) == is_v6(target.spelling)
            })
        };
        let same = is_peer(&self.members[member]);
        let Some(choice) = self.choose(member, target) else {
            // The kernel tells every socket of the port that is connected to whom it could not reach.
            self.excuses += u32::from(self.members.iter().any(is_peer));
            return if same { Outcome::SuccessOrRefused } else { Outcome::Refused };
        };
        let connected = self.members[member].connected;
        // The kernel gives a connected socket answers of its peer only. With netfilter that is the Service; here it is
        // the pod, so an answer of the same pod by another name comes, too.
        let reaches = match connected {
            Some(_) => same,
            None => !(self.members[member].filtered && is_v6(target.spelling)),
        };
        self.ask(member, target, choice, request, reaches);
        Outcome::Success
    }

    fn send(&mut self, member: usize, request: u64) -> Outcome {
        let target = self.members[member].connected.expect("`admits` asks for a connected socket");
        if let Some(choice) = self.choose(member, target) {
            let (named_at, ..) = *self.members[member].connects.last().expect("it is connected");
            self.ask(member, target, choice, request, true);
            self.requests.entry(request).and_modify(|asked| asked.named_at = named_at);
            Outcome::Success
        } else {
            self.excuses += 1;
            Outcome::SuccessOrRefused
        }
    }

    fn ask(&mut self, member: usize, target: Target, choice: usize, request: u64, reaches: bool) {
        let while_connected = self.members[member].connected.is_some();
        let at = self.now;
        let asked =
            Request { member, target, choice, at, named_at: at, reaches, while_connected, answered: false };
        assert!(self.requests.insert(request, asked).is_none(), "each request has a number of its own");
    }

    /// The endpoint that the socket has for a target, or gets; nothing where there is none.
    fn choose(&mut self, member: usize, target: Target) -> Option<usize> {
        match target.whom {
            Whom::Pod(pod) => Some(self.new_choice(Pods::from([pod]))),
            Whom::UnknownPort(_) | Whom::Unreachable => None,
            Whom::Service(service) => {
                let key = (service, is_v6(target.spelling));
                if let Some(choice) = self.members[member].kept.get(&key) {
                    return Some(*choice);
                }
                let mut candidates = self.endpoints.choosable(service);
                if candidates.is_empty() {
                    return None;
                }
                // Netfilter knows the port, which may have one that drains; here each socket has an endpoint of its own.
                for choice in self.members.iter().filter_map(|other| other.kept.get(&key)) {
                    candidates.extend(self.choices[*choice].possible());
                }
                let choice = self.new_choice(candidates);
                self.members[member].kept.insert(key, choice);
                Some(choice)
            }
        }
    }

    fn new_choice(&mut self, candidates: Pods) -> usize {
        self.choices.push(Choice { candidates, known: None });
        self.choices.len() - 1
    }

    /// Endpoints are these from now on, and every socket that had to be taken elsewhere has been.
    pub(super) fn change(&mut self, endpoints: &Endpoints) {
        self.now += 1;
        self.endpoints = endpoints.clone();
        for member in 0..self.members.len() {
            let kept = self.members[member].kept.clone();
            for (key, choice) in kept {
                let serving = endpoints.serving(key.0);
                let had = self.choices[choice].possible();
                let unknown = self.choices[choice].known.is_none();
                if had.is_subset(&serving) {
                    // It may not have been chosen yet.
                    self.choices[choice].candidates.extend(endpoints.choosable(key.0));
                    continue;
                }
                self.members[member].kept.remove(&key);
                let mut candidates: Pods = had.intersection(&serving).copied().collect();
                if unknown && !candidates.is_empty() {
                    // It may have one that goes, or one that stays.
                    candidates.extend(endpoints.choosable(key.0));
                    let choice = self.new_choice(candidates);
                    self.members[member].kept.insert(key, choice);
                }
            }
            if let Some(target @ Target { whom: Whom::Service(_), .. }) = self.members[member].connected {
                let had = self.members[member].connects.last().and_then(|(.., choice)| *choice);
                let choice = self.choose(member, target);
                if had.is_some() && choice.is_none() {
                    self.excuses += 1;
                }
                if choice != had {
                    let now = self.now;
                    self.members[member].connects.push((now, target, choice));
                }
            }
        }
    }

    /// A call ended with ECONNREFUSED that had no reason to by itself. Whether an earlier datagram explains it.
    pub(super) fn excuses_refusal(&mut self) -> bool {
        let excused = self.excuses > 0;
        self.excuses = self.excuses.saturating_sub(1);
        excused
    }

    /// A socket has read the answer to a request: which pod's, and whom the socket believes it to be from.
    pub(super) fn answered(
        &mut self,
        receiver: usize,
        request: u64,
        pod: usize,
        named: Option<Target>,
    ) -> Result<Name, String> {
        let Some(asked) = self.requests.get_mut(&request) else {
            return Err(format!("an answer to {request}, which is no request of this port"));
        };
        if std::mem::replace(&mut asked.answered, true) {
            return Err(format!("a second answer to request {request}"));
        }
        let asked = asked.clone();
        let choice = &mut self.choices[asked.choice];
        if !choice.may_be(pod) {
            let (target, expected) = (asked.target, names(&choice.possible()));
            return Err(format!("request {request} to {target} got pod-{pod}, expected {expected}"));
        }
        choice.known = Some(pod);
        match named {
            Some(named) if named == asked.target => Ok(Name::Exact),
            Some(named) if self.excused(receiver, &asked, pod, named) => Ok(Name::Excused),
            other => Err(format!(
                "the answer of pod-{pod} to request {request}, which asked {}, is named {}",
                asked.target,
                other.map_or_else(
                    || "by an address that nobody asked for".to_owned(),
                    |named| named.to_string()
                )
            )),
        }
    }

    /// Whether the socket, or the other one of the port, knows the pod by this name as well: whoever asks a pod under
    /// several names is answered by the name that was used last, because nothing in the answer tells them apart.
    fn excused(&self, receiver: usize, asked: &Request, pod: usize, named: Target) -> bool {
        let may_be = |choice: usize| self.choices[choice].may_be(pod);
        let asked_later = |request: &Request| {
            // Of two sockets the one that reads has a name for the pod already, and what the other connects to is not
            // known when this one sends.
            let counts = request.at > asked.at
                || (self.members.len() > 1 && (request.member == receiver || request.at > asked.named_at));
            counts && request.target == named && may_be(request.choice)
        };
        let connects = &self.members[receiver].connects;
        // What only the connection of then let through is from whom it was to.
        let connection_of_then = self.members[asked.member]
            .connects
            .iter()
            .rfind(|(at, ..)| *at < asked.at)
            .filter(|_| asked.while_connected);
        let is_connected = self.members[receiver].connected.is_some();
        // Of many Services a socket finds those that it asked first by its port.
        let before_port = self.members[receiver].lost_port.is_some_and(|lost| asked.at < lost)
            && connects.len() + self.requests.len() > Datagrams::LEN
            && named == Target { whom: Whom::Pod(pod), ..asked.target };
        let current = connects.last().filter(|_| is_connected);
        let connected_later = |(at, target, choice): &(u64, Target, Option<usize>)| {
            (*at > asked.at || self.members.len() > 1) && *target == named && choice.is_some_and(may_be)
        };
        before_port
            || self.requests.values().any(asked_later)
            || self.members.iter().any(|member| member.connects.iter().any(connected_later))
            || [current, connection_of_then]
                .into_iter()
                .flatten()
                .any(|(_, target, choice)| *target == named && choice.is_some_and(may_be))
    }

    /// Requests that were to be answered by now, and were not.
    pub(super) fn overdue(&self) -> Vec<u64> {
        self.requests
            .iter()
            .filter(|(_, request)| request.reaches && !request.answered)
            .map(|(number, _)| *number)
            .collect()
    }

    /// How many requests have reached a pod so far, whether or not their answers come.
    pub(super) fn asked(&self) -> usize {
        self.requests.len()
    }

    /// What `getpeername` is to say: nothing for ENOTCONN.
    pub(super) fn peer(&self, member: usize) -> Option<Target> {
        self.members[member].connected
    }

    /// How `getsockname` is to write the pod's own address: nothing for the "any" address.
    pub(super) fn own(&self, member: usize) -> Option<Spelling> {
        let Member { bound, connected, .. } = &self.members[member];
        match bound {
            Bound::Address(spelling) => Some(*spelling),
            Bound::No | Bound::Port => connected.map(|peer| peer.spelling),
        }
    }

    /// Whom the kernel is to have the socket connected to.
    pub(super) fn kernel_peer(&self, member: usize) -> KernelPeer {
        let Member { connected, connects, .. } = &self.members[member];
        match (connected, connects.last()) {
            (Some(_), Some((.., Some(choice)))) => KernelPeer::OneOf(self.choices[*choice].possible()),
            (Some(_), _) => KernelPeer::NoPod,
            (None, _) => KernelPeer::Anything,
        }
    }
}

#[cfg(test)]
mod tests;
