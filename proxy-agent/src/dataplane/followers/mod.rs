//! What goes on beside the tables, each in a thread of its own: it follows what changes, and does not hold it up.
//!
//! | folder | concept |
//! |---|---|
//! | `stale` | moving the connected UDP sockets of endpoints that are gone |
//! | `clients` | by which addresses the sockets of a network namespace are judged |
//! | `flows` | how long flows of packets stay, and taking away those that are idle |

pub(super) mod clients;
pub(super) mod flows;
pub(super) mod stale;

use std::{collections::BTreeSet, path::Path};

use proxy_common::{Address, Port, Protocol};

use self::{clients::Clients, flows::Flows, stale::Stale};
use crate::{dataplane::Error, plan::Changes, timeouts::Timeouts};

/// All followers; they end with it.
#[derive(Debug)]
pub(super) struct Followers {
    clients: Clients,
    stale: Stale,
    _flows: Flows,
}

impl Followers {
    /// Starts them on the tables below `pin_dir`.
    pub(super) fn start(pin_dir: &Path, timeouts: Timeouts) -> Result<Self, Error> {
        Ok(Self {
            clients: Clients::start(pin_dir)?,
            stale: Stale::start(pin_dir)?,
            _flows: Flows::start(pin_dir, timeouts)?,
        })
    }

    /// To be called before `changes` are installed.
    pub(super) fn expect(&mut self, changes: &Changes, nodes: &BTreeSet<Address>) {
        self.clients.expect(changes, nodes);
    }

    /// To be called when changes are installed: the endpoints that went with them, the LoadBalancer IPs that are not for
    /// everyone now, whether the whole plan is there for the first time, and whether UDP Services are among the changes.
    pub(super) fn follow(
        &mut self,
        gone: Vec<(Protocol, Address, Port)>,
        restricted_vips: [Option<Address>; 2],
        nodes: &BTreeSet<Address>,
        complete: bool,
        udp: bool,
    ) {
        self.clients.follow(restricted_vips, nodes);
        for (protocol, address, port) in gone {
            self.stale.gone(protocol, address, port);
        }
        self.stale.look(complete, udp);
    }

    /// Which stale sockets were not found.
    pub(super) fn stale_problem(&self) -> Option<String> {
        self.stale.problem()
    }

    /// What keeps clients from being found.
    pub(super) fn clients_problem(&self) -> Option<String> {
        self.clients.problem()
    }
}
