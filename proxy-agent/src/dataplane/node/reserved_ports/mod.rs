//! Keeps the kernel from giving certain ports to the node's own sockets (ST-7): the source ports of masqueraded
//! packets, and NodePorts.
//!
//! A masqueraded packet has the node's address and a port of this range as its source. The kernel does not know that,
//! and could give the same port to the node's own connection to the same endpoint. And the answer to a connection
//! that the node makes from the number of a NodePort looks like a client's packet to that NodePort. So the agent
//! reserves the range and the NodePorts in use in `net.ipv4.ip_local_reserved_ports`, which covers IPv6, too: the one
//! sysctl that Sidestep sets.
//!
//! - Ports that others reserved stay reserved, whatever we add and remove.
//! - A file in the run directory records our ports, written *before* the sysctl: an agent that ends in between has
//!   recorded too many for a moment, and never leaves an unrecorded reservation. Both vanish with a reboot.
//! - NodePorts change with Services: at most one write per second, and none without a change. Until everything is
//!   installed and the NodePorts are known, an earlier agent's reservation stays.
//! - If the node's own connections would run out of ports, only the range is reserved, or nothing.
//! - A port that cannot be reserved becomes a problem, and is used all the same.
//!
//! `sysctl` finds the kernel's file, also from within a container.

mod sysctl;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use self::sysctl::Sysctl;
use crate::{
    dataplane::Error,
    model::{Problem, Subject},
    ports::{PortRange, PortSet},
};

/// How often to check the reservation: `sysctl --system` removes it.
const PERIOD: Duration = Duration::from_mins(1);
/// The least time between two checks, however often Services change.
const PAUSE: Duration = Duration::from_secs(1);
/// The least number of ports left for the node's own connections.
const LEFT: usize = 1024;
/// The file in the run directory.
const RECORD: &str = "reserved-ports";

/// Maintains a reservation, which outlives this value.
#[derive(Debug)]
pub struct ReservedPorts {
    /// `None` where north-south traffic is switched off.
    range: Option<PortRange>,
    /// Those in use, once they are known.
    node_ports: Option<PortSet>,
    record: PathBuf,
    /// The kernel's file, open from the start: later the agent may open none outside of its own places.
    sysctl: Option<Sysctl>,
    looked: Instant,
    due: Instant,
    problem: Option<Problem>,
}

impl ReservedPorts {
    /// Reserves `range`, or nothing, and releases what an agent with another range reserved once NodePorts are known.
    pub fn reserve(range: Option<PortRange>, run_dir: &Path) -> Self {
        let now = Instant::now();
        let record = run_dir.join(RECORD);
        let sysctl = range.and_then(|_| Sysctl::open().ok());
        let mut reserved =
            Self { range, node_ports: None, record, sysctl, looked: now, due: now, problem: None };
        reserved.keep(now);
        reserved
    }

    /// Sets the NodePorts in use. The first call reserves them before it returns.
    pub fn set_node_ports(&mut self, node_ports: &PortSet, now: Instant) {
        if self.node_ports.as_ref() == Some(node_ports) {
            return;
        }
        self.due = if self.node_ports.is_some() { self.due.min(self.looked + PAUSE) } else { now };
        self.node_ports = Some(node_ports.clone());
        self.keep(now);
    }

    /// When [`Self::keep`] has something to do.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// Updates the reservation if due: for changed NodePorts, and once a minute to restore ports that others removed.
    pub fn keep(&mut self, now: Instant) {
        if now < self.due {
            return;
        }
        (self.looked, self.due) = (now, now + PERIOD);
        self.problem = match self.range {
            Some(range) => hold(range, self.node_ports.as_ref(), &self.record, &mut self.sysctl).err(),
            None => give_back(&self.record)
                .err()
                .map(|error| NotHeld { ports: source_ports(""), message: error.to_string() }),
        }
        .map(|NotHeld { ports, message }| Problem {
            subject: ports,
            field: "net.ipv4.ip_local_reserved_ports".to_owned(),
            message,
        });
    }

    /// The problem with the reservation.
    pub fn problem(&self) -> Option<&Problem> {
        self.problem.as_ref()
    }
}

/// Releases the ports that an agent with this run directory has reserved, and returns them; reservations of others
/// stay.
pub fn release(run_dir: &Path) -> Result<Option<String>, Error> {
    give_back(&run_dir.join(RECORD))
}

fn give_back(record: &Path) -> Result<Option<String>, Error> {
    let Some(ours) = noted(record)? else { return Ok(None) };
    let current = sysctl::read()?;
    let left = current.without(&ours);
    if left != current {
        Sysctl::open()?.write(&left)?;
    }
    fs::remove_file(record).map_err(Error::system("unlink", record))?;
    Ok(Some(ours.to_string()))
}

/// The file by which ports can be reserved, if one can be written.
pub fn can_reserve() -> Result<PathBuf, Error> {
    Sysctl::open().map(|sysctl| sysctl.path().to_owned())
}

/// Ports that are not reserved, and why, for a person.
struct NotHeld {
    ports: Subject,
    message: String,
}

fn source_ports(ports: &(impl ToString + ?Sized)) -> Subject {
    Subject::SourcePorts { ports: ports.to_string() }
}

fn node_ports(ports: &(impl ToString + ?Sized)) -> Subject {
    Subject::NodePorts { ports: ports.to_string() }
}

/// Updates the kernel's reservation.
fn hold(
    range: PortRange,
    node_ports: Option<&PortSet>,
    record: &Path,
    sysctl: &mut Option<Sysctl>,
) -> Result<(), NotHeld> {
    let whole = |message: String| NotHeld { ports: source_ports(&range), message };
    let told = |error: Error| whole(error.to_string());
    let ours = noted(record).map_err(told)?.unwrap_or_default();
    let current = sysctl::read().map_err(told)?;
    let local = sysctl::local_ports().map_err(told)?;
    let left = |reserved: &PortSet| local.set().without(reserved).len();
    let range_set = range.set();
    let wanted = range_set.with(node_ports.unwrap_or(&ours));
    let mut to_do = step(&current, &ours, &wanted);
    let mut narrow = None;
    if to_do.reserved != current && left(&to_do.reserved) < LEFT {
        let alone = step(&current, &ours, &range_set);
        let (with, without) = (left(&to_do.reserved), left(&alone.reserved));
        let of = format!("of net.ipv4.ip_local_port_range, {local}");
        if without < LEFT {
            return Err(whole(format!(
                "not reserved: the node's own connections would keep only {without} ports {of}; choose another \
                 --source-port-range"
            )));
        }
        narrow = Some(NotHeld {
            ports: self::node_ports(&wanted.without(&range_set)),
            message: format!(
                "not reserved, so the answer to a connection that the node makes from such a port may be taken \
                 for a client's packet: the node's own connections would keep only {with} ports {of}; widen that \
                 range"
            ),
        });
        to_do = alone;
    }
    let Step { reserved, noted } = to_do;
    if reserved == current {
        if noted != ours {
            note(record, &noted).map_err(told)?;
        }
        return narrow.map_or(Ok(()), Err);
    }
    let opened = sysctl.take().map_or_else(Sysctl::open, Ok).map_err(|error| {
        let missing = range_set.without(&current);
        let (ports, so) = if missing.is_empty() {
            // By an operator, who cannot follow Services.
            let missing = reserved.without(&current);
            (self::node_ports(&missing), "the kernel may give one of them to a connection of the node's own")
        } else {
            (source_ports(&range), "the kernel may give the same port to a connection of the node's own")
        };
        let message = format!(
            "not reserved, so {so}: {error}; mount the node's {} into the container, writable (as \
             deploy/base/daemonset.yaml does), or set the sysctl to `{reserved}` on the node",
            sysctl::PATH
        );
        NotHeld { ports, message }
    })?;
    let sysctl = sysctl.insert(opened);
    note(record, &ours.with(&noted)).map_err(told)?;
    sysctl.write(&reserved).map_err(told)?;
    tracing::info!(
        ports = %noted, path = %sysctl.path().display(),
        "reserved the source ports of masqueraded packets, and NodePorts"
    );
    note(record, &noted).map_err(told)?;
    narrow.map_or(Ok(()), Err)
}

/// What should be reserved, and which of it is ours.
#[derive(PartialEq, Eq, Debug)]
struct Step {
    reserved: PortSet,
    noted: PortSet,
}

/// `ours` holds the ports that we reserved before.
fn step(current: &PortSet, ours: &PortSet, wanted: &PortSet) -> Step {
    let theirs = current.without(ours);
    Step { reserved: theirs.with(wanted), noted: wanted.without(&theirs) }
}

fn noted(record: &Path) -> Result<Option<PortSet>, Error> {
    match fs::read_to_string(record) {
        Ok(text) => text.parse().map(Some).map_err(|error| {
            Error::Missing(format!("{} is not a list of ports: {error}; remove it", record.display()))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::system("reading", record)(error)),
    }
}

fn note(record: &Path, ports: &PortSet) -> Result<(), Error> {
    let new = record.with_extension("new");
    fs::write(&new, format!("{ports}\n")).map_err(Error::system("writing", &new))?;
    fs::rename(&new, record).map_err(Error::system("rename", record))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> PortSet {
        text.parse().expect("ports")
    }

    /// ST-7: what is reserved, what is ours, and what is left when ours go.
    #[test]
    fn ports_of_others_stay_theirs() {
        let wanted = set("2000-2009");
        for (current, ours, reserved, noted, left) in [
            ("", "", "2000-2009", "2000-2009", ""),
            ("80,2005", "", "80,2000-2009", "2000-2004,2006-2009", "80,2005"),
            // A restart.
            ("80,2000-2009", "2000-2009", "80,2000-2009", "2000-2009", "80"),
            // Another range before.
            ("80,1990-2001", "1990-2001", "80,2000-2009", "2000-2009", "80"),
            // Somebody took everything away, ours too, and reserved something of it.
            ("2001", "2000-2009", "2000-2009", "2000-2009", ""),
            // An agent that ended before it wrote the sysctl.
            ("80", "2000-2009", "80,2000-2009", "2000-2009", "80"),
        ] {
            let step = step(&set(current), &set(ours), &wanted);
            assert_eq!(step, Step { reserved: set(reserved), noted: set(noted) }, "{current} and {ours}");
            assert_eq!(step.reserved.without(&step.noted), set(left), "{current} and {ours}");
        }
    }

    /// However often Services change, the agent writes at most once a second, and never without a change.
    #[test]
    fn changes_of_node_ports_come_together() {
        let folder = tempfile::tempdir().expect("a folder");
        let start = Instant::now();
        let (mut due, mut looks) = (start + PERIOD, 0);
        let mut reserved = ReservedPorts {
            range: None,
            node_ports: Some(PortSet::default()),
            record: folder.path().join(RECORD),
            sysctl: None,
            looked: start,
            due,
            problem: None,
        };
        let mut node_ports = PortSet::default();
        for step in 1..=1000_u16 {
            let now = start + Duration::from_millis(10) * step.into();
            node_ports.insert(30_000 + step);
            reserved.set_node_ports(&node_ports, now);
            reserved.set_node_ports(&node_ports, now);
            looks += u32::from(reserved.looked == now);
            due = reserved.due();
            assert!(due <= now + PAUSE || reserved.looked == now, "a change waits for a second at most");
        }
        assert_eq!(looks, 10, "in ten seconds");
        reserved.keep(due);
        assert_eq!(reserved.due(), due + PERIOD, "nothing but what others do");
    }
}
