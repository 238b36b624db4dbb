//! The source ports of masqueraded packets, which no socket of the node may be given (ST-7).
//!
//! A packet that is masqueraded has the node's address and a port of this range as its source. The kernel knows
//! nothing of that, and could give the same port to a connection of the node's own to the same endpoint. So the range
//! is reserved in `net.ipv4.ip_local_reserved_ports`, which counts for IPv6 too: the one sysctl that Sidestep sets.
//!
//! - What others have reserved stays reserved, whatever we add and take away.
//! - Which ports are ours stands in a file of the run directory, written *before* the sysctl: an agent that ends in
//!   between has noted too much for a moment, and never leaves ports reserved that nobody remembers. Both are gone
//!   with the boot.
//! - Never so many that the node's own connections find no port.
//! - A range that cannot be reserved is told, and used all the same.
//!
//! | file | concept |
//! |---|---|
//! | `range` | the range, as a person writes it |
//! | `set` | any ports, as the kernel writes them |
//! | `sysctl` | the kernel's file, also from within a container |

mod range;
mod set;
mod sysctl;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

pub use self::range::{BadRange, PortRange};
use self::{set::PortSet, sysctl::Sysctl};
use super::Error;
use crate::plan::Problem;

/// How often the reservation is looked at: `sysctl --system`, run by anybody, takes it away.
const PERIOD: Duration = Duration::from_mins(1);
/// So many ports must be left to connections of the node's own.
const LEFT: usize = 1024;
/// The file in the run directory.
const RECORD: &str = "reserved-ports";

/// A reservation that is kept; it stays when this goes.
#[derive(Debug)]
pub struct ReservedPorts {
    /// Nothing where no packet is masqueraded.
    range: Option<PortRange>,
    record: PathBuf,
    looked: Option<Instant>,
    problem: Option<Problem>,
}

impl ReservedPorts {
    /// Reserves `range`, or nothing, and takes away what an agent with another range reserved.
    pub fn reserve(range: Option<PortRange>, run_dir: &Path) -> Self {
        let mut reserved = Self { range, record: run_dir.join(RECORD), looked: None, problem: None };
        reserved.keep(Instant::now());
        reserved
    }

    /// Reserves again what somebody has taken away meanwhile. Looks once in a minute.
    pub fn keep(&mut self, now: Instant) {
        if self.looked.is_some_and(|looked| now.saturating_duration_since(looked) < PERIOD) {
            return;
        }
        self.looked = Some(now);
        let held = match self.range {
            Some(range) => hold(range, &self.record),
            None => give_back(&self.record).map(drop).map_err(|error| error.to_string()),
        };
        self.problem = held.err().map(|message| Problem {
            object: self.range.map_or("source ports".to_owned(), |range| format!("source ports {range}")),
            field: "net.ipv4.ip_local_reserved_ports".to_owned(),
            message,
        });
    }

    /// What is wrong with the reservation.
    pub fn problem(&self) -> Option<&Problem> {
        self.problem.as_ref()
    }
}

/// Gives back the ports that an agent with this run directory has reserved, and says which; those of others stay.
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

/// Makes the kernel's reservation what it should be. The error is for a person.
fn hold(range: PortRange, record: &Path) -> Result<(), String> {
    let told = |error: Error| error.to_string();
    let ours = noted(record).map_err(told)?.unwrap_or_default();
    let current = sysctl::read().map_err(told)?;
    let Step { reserved, noted } = step(&current, &ours, range);
    if reserved == current {
        return if noted == ours { Ok(()) } else { note(record, &noted).map_err(told) };
    }
    let local = sysctl::local_ports().map_err(told)?;
    let left = local.set().without(&reserved).len();
    if left < LEFT {
        return Err(format!(
            "not reserved: of net.ipv4.ip_local_port_range, {local}, {left} ports would be left for the node's own \
             connections; choose another --source-port-range"
        ));
    }
    let sysctl = Sysctl::open().map_err(|error| {
        format!(
            "not reserved, so a connection of the node's own may be given the same port: {error}; mount the node's \
             {} into the container, writable (as deploy/base/daemonset.yaml does), or set the sysctl to `{reserved}` on \
             the node",
            sysctl::PATH
        )
    })?;
    note(record, &ours.with(&noted)).map_err(told)?;
    sysctl.write(&reserved).map_err(told)?;
    tracing::info!(ports = %range, path = %sysctl.path().display(), "reserved for masqueraded packets");
    note(record, &noted).map_err(told)
}

/// What should be reserved, and which of it is ours.
#[derive(PartialEq, Eq, Debug)]
struct Step {
    reserved: PortSet,
    noted: PortSet,
}

/// `ours` are those that we reserved before.
fn step(current: &PortSet, ours: &PortSet, range: PortRange) -> Step {
    let theirs = current.without(ours);
    Step { reserved: theirs.with(&range.set()), noted: range.set().without(&theirs) }
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
        let range: PortRange = "2000-2009".parse().expect("a range");
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
            let step = step(&set(current), &set(ours), range);
            assert_eq!(step, Step { reserved: set(reserved), noted: set(noted) }, "{current} and {ours}");
            assert_eq!(step.reserved.without(&step.noted), set(left), "{current} and {ours}");
        }
    }
}
