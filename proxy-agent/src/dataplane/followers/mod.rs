//! Background work beside the tables, each kind in a thread of its own: it follows changes without delaying them.
//!
//! | folder | concept |
//! |---|---|
//! | `stale` | moving the connected UDP sockets of endpoints that are gone |
//! | `namespaces` | the addresses of each network namespace, for source ranges, and which are passed by |
//! | `flows` | releasing idle north-south flows |
//! | `sweep` | giving back old translations of datagrams, and elements of sockets that are gone |

pub(super) mod flows;
pub(super) mod namespaces;
pub(super) mod stale;
mod sweep;

use std::collections::BTreeSet;

use proxy_common::{Address, Port, Protocol};

use self::{
    flows::{Crowd, Flows},
    namespaces::{Namespaces, PassedNamespace},
    stale::Stale,
    sweep::Sweep,
};
use crate::{
    dataplane::{Error, Options, SharedTables},
    plan::Changes,
};

/// All followers; they end with it.
#[derive(Debug)]
pub(super) struct Followers {
    namespaces: Namespaces,
    stale: Stale,
    flows: Flows,
    _sweep: Sweep,
}

impl Followers {
    /// Starts them on the tables of this datapath.
    pub(super) fn start(options: &Options, tables: &SharedTables, crowd: Crowd) -> Result<Self, Error> {
        let (pin_dir, flows) = (&options.pin_dir, &options.flows);
        Ok(Self {
            namespaces: Namespaces::start(options, tables)?,
            stale: Stale::start(pin_dir, tables)?,
            flows: Flows::start(pin_dir, tables, flows.timeouts, crowd, flows.of_pods)?,
            _sweep: Sweep::start(pin_dir)?,
        })
    }

    /// Call it before `changes` are installed.
    pub(super) fn expect(&mut self, changes: &Changes, nodes: &BTreeSet<Address>) {
        self.namespaces.expect(changes, nodes);
    }

    /// Call it after changes are installed, with the removed endpoints, the restricted LoadBalancer IPs, whether
    /// the whole plan is installed for the first time, and whether UDP Services are among the changes.
    pub(super) fn follow(
        &mut self,
        gone: Vec<(Protocol, Address, Port)>,
        restricted_vips: [Option<Address>; 2],
        nodes: &BTreeSet<Address>,
        complete: bool,
        udp: bool,
    ) {
        self.namespaces.follow(restricted_vips, nodes);
        for (protocol, address, port) in gone {
            self.stale.gone(protocol, address, port);
        }
        self.stale.look(complete, udp);
    }

    /// Call it when programs are attached, and when other devices of pods have some.
    pub(super) fn look_at_namespaces(&mut self) {
        self.namespaces.look();
    }

    /// Call it after the tables were replaced.
    pub(super) fn follow_tables(&self) {
        self.flows.look();
    }

    /// Which stale sockets were not found.
    pub(super) fn stale_problem(&self) -> Option<String> {
        self.stale.problem()
    }

    /// Why clients, or those to be passed by, cannot be found, if they cannot.
    pub(super) fn namespaces_problem(&self) -> Option<String> {
        self.namespaces.problem()
    }

    /// Whom the socket programs pass by.
    pub(super) fn passed_by(&self) -> Vec<PassedNamespace> {
        self.namespaces.passed_by()
    }
}
