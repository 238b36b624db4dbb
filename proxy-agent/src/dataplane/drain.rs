//! Gives a node back to kube-proxy: what is new is kube-proxy's from now on, and our programs only follow the
//! connections that they have.
//!
//! Removing every frontend from the tables does it: a packet or socket that asks for no Service passes untouched, and
//! what has a record goes on with it, as its endpoint stays. Conntrack does not know the source ports of our masqueraded
//! connections, and could give one to a connection of kube-proxy's to the same endpoint; so each gets an entry, until
//! `cleanup` has removed the programs.

use std::{collections::HashSet, fs::File, net::SocketAddr, path::Path};

use nix::fcntl::Flock;
use proxy_common::{AddressBits, Port, Protocol, Tuple};

use super::{
    Error,
    followers::flows::{Crowd, FlowState, Flows, ListedFlow, list},
    lock,
    node::{
        kube_proxy::{self, Rules},
        netlink::{Conntrack, Nftables},
        system::uptime,
    },
    tables::{shared::SharedTables, writer::Writer},
    takeover::Left,
};
use crate::{plan::Changes, timeouts::Timeouts};

/// How many seconds a connection counts that nothing has confirmed yet.
const BEGINNING: u32 = 30;
/// After how many seconds conntrack forgets a port that was never given back: as long as a connection may be idle.
const RESERVED: u32 = 24 * 60 * 60;

/// Tables without frontends. Nobody else may write them; records that are over are still released.
#[derive(Debug)]
pub struct Drain {
    writer: Writer,
    conntrack: Conntrack,
    /// The masqueraded connections that conntrack has an entry of from here, as their endpoints see them.
    reserved: HashSet<Tuple>,
    _flows: Flows,
    _lock: Flock<File>,
}

impl Drain {
    /// Removes every frontend from the tables below `pin_dir`.
    pub fn begin(pin_dir: &Path) -> Result<Self, Error> {
        if !Rules::read(&Nftables::new()?)?.decides() && !kube_proxy::serves_otherwise() {
            return Err(Error::Missing(
                "kube-proxy has no rules here, so nobody would serve new connections: start it first, or leave \
                 out --drain"
                    .to_owned(),
            ));
        }
        let lock = lock(pin_dir)?;
        let writer = Writer::open(pin_dir)?;
        let tables = SharedTables::new(writer.tables().again(pin_dir)?);
        let mut drain = Self {
            writer,
            conntrack: Conntrack::new()?,
            reserved: HashSet::new(),
            _flows: Flows::start(pin_dir, &tables, Timeouts::default(), Crowd::default(), false)?,
            _lock: lock,
        };
        // Before kube-proxy gets connections from outside the node.
        drain.reserve()?;
        // Addresses first: a Service's address without a frontend would refuse connections.
        let nobodys = |(address, _)| (address, AddressBits::NONE);
        let addresses = drain.writer.tables().addresses.iter().filter_map(Result::ok).map(nobodys).collect();
        drain.writer.apply(&Changes { addresses, ..Changes::default() });
        drain.writer.delete_all_frontends();
        // Those that began meanwhile.
        drain.reserve()?;
        Ok(drain)
    }

    /// Has conntrack give the source ports to nobody, also those of connections that are over: their records still claim
    /// them. What another connection holds in conntrack is tried again the next time.
    fn reserve(&mut self) -> Result<(), Error> {
        for tuple in self.masqueraded() {
            if !self.reserved.contains(&tuple) && self.conntrack.reserve(&tuple, RESERVED)? {
                self.reserved.insert(tuple);
            }
        }
        Ok(())
    }

    /// Counts the north-south connections that are not over, by protocol. Sockets need no program: they are connected to
    /// their endpoints.
    pub fn left(&mut self) -> Result<Left, Error> {
        self.reserve()?;
        let (now, mut left) = (uptime(), Left::new());
        for flow in list(self.writer.tables()) {
            let may_begin = now.saturating_sub(flow.used) < BEGINNING;
            if flow.state != FlowState::Closed && (flow.confirmed || may_begin) {
                *left.entry(flow.protocol.map_or("other", Protocol::name).to_owned()).or_default() += 1;
            }
        }
        Ok(left)
    }

    /// The masqueraded connections, as their endpoints see them.
    fn masqueraded(&self) -> Vec<Tuple> {
        let tuple = |flow: ListedFlow| {
            let side = |end: SocketAddr| (end.ip().into(), Port::new(end.port()));
            Some(Tuple::new(flow.protocol? as u8, side(flow.source?), side(flow.endpoint)))
        };
        list(self.writer.tables()).into_iter().filter_map(tuple).collect()
    }
}
