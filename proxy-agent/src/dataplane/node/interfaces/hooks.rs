//! Attaches the packet programs to a device, finds them again, and detaches them.
//!
//! With TCX (6.6) a program is a link, pinned as `links/tc/<device's number>-ingress` or `-egress`. A link forgets
//! its device when that goes, so a number that is used again is noticed. Without TCX it is a filter in a `clsact`
//! qdisc (`netlink/filters.rs`); a directory `links/tc/<number>-clsact` records that we added filters to a device,
//! and `<number>-qdisc` that we created its qdisc. So the pin directory lists everything that is ours, and we remove
//! nothing else: a `clsact` qdisc only if we created it and it holds no filter.
//!
//! A link cannot move within its chain. To move ours to the front, we create a new link at the front with another
//! load of the program (a chain takes each program once), pin it as `<number>-ingress-new`, and rename it over the
//! old pin, which detaches the old link: there is no moment without our program.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{
        LinkOrder, Program, ProgramError, SchedClassifier, TcAttachType,
        links::{FdLink, PinnedLink},
        tc::TcAttachOptions,
    },
};

use proxy_common::Interface;

use super::{
    Way,
    choice::{Chosen, Header},
    order::{self, Ahead},
};
use crate::dataplane::{
    Error, bpf,
    node::netlink::{Direction, Filters},
    programs::load,
    tables::{crash, maps::abi_dir},
};

/// The order of attaching: programs that undo translations before those that make them.
pub(super) const DIRECTIONS: [Direction; 2] = [Direction::Egress, Direction::Ingress];

/// The program for one side of a device, if there is one.
pub(super) fn program_for(device: &Chosen, direction: Direction) -> Result<&'static str, Error> {
    match (direction, device.header) {
        (Direction::Egress, Header::Ethernet) if device.flags & Interface::KEEPS_SOURCE != 0 => {
            Ok("egress_pod")
        }
        (Direction::Egress, Header::Ethernet) => Ok("egress"),
        (Direction::Egress, Header::None) => Ok("egress_l3"),
        (Direction::Ingress, Header::Ethernet) => Ok("ingress"),
        (Direction::Ingress, Header::None) => Ok("ingress_l3"),
        (_, Header::Unknown(layer)) => {
            Err(Error::Missing(format!("the packet programs do not support its link layer {layer:?}")))
        }
    }
}

/// The hooks of one pin directory.
#[derive(Debug)]
pub(super) struct Hooks {
    directory: PathBuf,
    filters: Filters,
}

impl Hooks {
    pub(super) fn new(pin_dir: &Path) -> Result<Self, Error> {
        let directory = directory(pin_dir);
        fs::create_dir_all(&directory).map_err(Error::system("mkdir", &directory))?;
        Ok(Self { directory, filters: Filters::new()? })
    }

    /// Attaches the program of one direction to the device, or replaces ours there. A program of ours that is attached
    /// in the other way (TCX or filter) is removed afterwards: for a moment a packet may pass both, and the second
    /// changes nothing.
    pub(super) fn attach(
        &self,
        ebpf: &mut Ebpf,
        device: &Chosen,
        direction: Direction,
        way: Way,
    ) -> Result<(), Error> {
        let (name, program) = program(ebpf, device, direction)?;
        crash::point();
        match way {
            Way::Tcx => {
                self.link(program, name, device, direction)?;
                self.remove_filter(device.index, direction)?;
                // The other direction has come before.
                if direction == Direction::Ingress {
                    self.forget_filters(device.index)?;
                }
                Ok(())
            }
            Way::Clsact => {
                self.put_filter(program, name, device.index, direction)?;
                bpf::detach(&self.pin(device.index, direction)).map(drop)
            }
        }
    }

    /// Whether ours is at the device.
    pub(super) fn is_attached(&self, device: u32, direction: Direction, way: Way) -> bool {
        match way {
            Way::Tcx => bpf::tcx_link(&self.pin(device, direction)).is_ok_and(|link| link.device == device),
            Way::Clsact => self.filters.has(device, direction).unwrap_or(false),
        }
    }

    /// Detaches our programs from a device, which may be gone.
    pub(super) fn detach(&self, device: u32) -> Result<Vec<PathBuf>, Error> {
        let mut removed = Vec::new();
        for direction in DIRECTIONS.into_iter().rev() {
            for pin in [self.pin(device, direction), self.new_pin(device, direction)] {
                if bpf::detach(&pin)? {
                    removed.push(pin);
                }
            }
            self.remove_filter(device, direction)?;
        }
        removed.extend(self.forget_filters(device)?);
        Ok(removed)
    }

    /// Removes the qdisc of a device that has no filter of ours any more, if we made it and it is empty.
    fn forget_filters(&self, device: u32) -> Result<Vec<PathBuf>, Error> {
        let (qdisc, filters) = (self.qdisc_marker(device), self.filter_marker(device));
        if qdisc.is_dir() {
            self.filters.remove_qdisc(device)?;
        }
        let mut removed = Vec::new();
        for marker in [qdisc, filters].into_iter().filter(|marker| marker.is_dir()) {
            fs::remove_dir(&marker).map_err(Error::system("rmdir", &marker))?;
            removed.push(marker);
        }
        Ok(removed)
    }

    /// The devices with pins of ours, including deleted devices.
    pub(super) fn devices(&self) -> Result<BTreeSet<u32>, Error> {
        devices(&self.directory)
    }

    /// The programs of others that run before ours on one side of a device.
    pub(super) fn ahead(&self, index: u32, name: &str, direction: Direction) -> Result<Vec<Ahead>, Error> {
        let link = bpf::tcx_link(&self.pin(index, direction))?;
        order::ahead_of(name, direction, link.program)
    }

    /// Makes ours the first of its chain again.
    pub(super) fn go_first(
        &self,
        ebpf: &mut Ebpf,
        device: &Chosen,
        direction: Direction,
    ) -> Result<(), Error> {
        let (name, program) = program(ebpf, device, direction)?;
        let classifier: &mut SchedClassifier = program.try_into().map_err(attaching(name))?;
        let loaded = classifier.info().map_err(attaching(name))?.id();
        if bpf::tcx_link(&self.pin(device.index, direction))?.program == loaded {
            // A chain takes each program once, so load the same instructions again.
            classifier.unload().and_then(|()| classifier.load()).map_err(|source| Error::Program {
                action: "load",
                program: name,
                source,
            })?;
        }
        self.link_first(classifier, name, device, direction)
    }

    fn link(
        &self,
        program: &mut Program,
        name: &'static str,
        device: &Chosen,
        direction: Direction,
    ) -> Result<(), Error> {
        let pin = self.pin(device.index, direction);
        if pin.exists()
            && bpf::tcx_link(&pin)?.device == device.index
            && self.ahead(device.index, &device.name, direction)?.is_empty()
        {
            return replace(program.try_into().map_err(attaching(name))?, name, &pin);
        }
        // None yet, or not the first, or its device is gone and this one has its number.
        self.link_first(program.try_into().map_err(attaching(name))?, name, device, direction)
    }

    /// Attaches a newly loaded program before all others, and replaces the link of ours that is there.
    fn link_first(
        &self,
        program: &mut SchedClassifier,
        name: &'static str,
        device: &Chosen,
        direction: Direction,
    ) -> Result<(), Error> {
        let (pin, new) = (self.pin(device.index, direction), self.new_pin(device.index, direction));
        let side = match direction {
            Direction::Ingress => TcAttachType::Ingress,
            Direction::Egress => TcAttachType::Egress,
        };
        let first = TcAttachOptions::TcxOrder(LinkOrder::first());
        let id = program.attach_with_options(&device.name, side, first).map_err(attaching(name))?;
        let link: FdLink = program
            .take_link(id)
            .and_then(|link| link.try_into().map_err(|_| ProgramError::UnexpectedProgramType))
            .map_err(attaching(name))?;
        // Left by an agent that ended in between.
        bpf::detach(&new)?;
        link.pin(&new).map_err(|error| Error::System {
            call: "BPF_OBJ_PIN",
            path: new.display().to_string(),
            error: io::Error::other(error),
        })?;
        // aya attaches by name, which may belong to another device by now.
        if bpf::tcx_link(&new)?.device != device.index {
            bpf::detach(&new)?;
            return Err(Error::Missing("the device was renamed in the meantime".to_owned()));
        }
        fs::rename(&new, &pin).map_err(Error::system("rename", &pin))
    }

    fn put_filter(
        &self,
        program: &Program,
        name: &'static str,
        device: u32,
        direction: Direction,
    ) -> Result<(), Error> {
        let descriptor = program.fd().map_err(attaching(name))?;
        mark(&self.filter_marker(device))?;
        if self.filters.make_qdisc(device)? {
            mark(&self.qdisc_marker(device))?;
        }
        self.filters.put(device, direction, descriptor)
    }

    /// Removes our filter, if we ever made one.
    fn remove_filter(&self, device: u32, direction: Direction) -> Result<(), Error> {
        if self.filter_marker(device).is_dir() {
            self.filters.remove(device, direction)?;
        }
        Ok(())
    }

    fn pin(&self, device: u32, direction: Direction) -> PathBuf {
        self.directory.join(format!("{device}-{}", direction.name()))
    }

    fn new_pin(&self, device: u32, direction: Direction) -> PathBuf {
        self.directory.join(format!("{device}-{}-new", direction.name()))
    }

    fn filter_marker(&self, device: u32) -> PathBuf {
        self.directory.join(format!("{device}-clsact"))
    }

    fn qdisc_marker(&self, device: u32) -> PathBuf {
        self.directory.join(format!("{device}-qdisc"))
    }
}

/// The program for one side of a device.
fn program<'a>(
    ebpf: &'a mut Ebpf,
    device: &Chosen,
    direction: Direction,
) -> Result<(&'static str, &'a mut Program), Error> {
    let name = program_for(device, direction)?;
    Ok((name, load::program(ebpf, name)?))
}

/// A device with something of ours, as the kernel has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hooked {
    /// The device's number.
    pub index: u32,
    /// How it is attached.
    pub way: Way,
    /// Whether both directions are attached: not if another program detached one, or the device is gone.
    pub attached: bool,
    /// Programs of others that run before ours, if the kernel reports them (TCX).
    pub ahead: Vec<Ahead>,
}

/// The attached devices, found without the agent.
pub fn hooked(pin_dir: &Path) -> Result<Vec<Hooked>, Error> {
    let directory = directory(pin_dir);
    if !directory.is_dir() {
        return Ok(Vec::new());
    }
    let hooks = Hooks { directory, filters: Filters::new()? };
    let found = |index| {
        let way = if hooks.filter_marker(index).is_dir() { Way::Clsact } else { Way::Tcx };
        let attached = DIRECTIONS.iter().all(|direction| hooks.is_attached(index, *direction, way));
        let name = nix::net::if_::if_indextoname(index).ok().filter(|_| attached && way == Way::Tcx);
        let ahead = name.map_or_else(Vec::new, |name| {
            let name = name.to_string_lossy();
            DIRECTIONS
                .iter()
                .rev()
                .flat_map(|side| hooks.ahead(index, &name, *side).unwrap_or_default())
                .collect()
        });
        Hooked { index, way, attached, ahead }
    };
    Ok(hooks.devices()?.into_iter().map(found).collect())
}

/// Where the links are.
pub(super) fn directory(pin_dir: &Path) -> PathBuf {
    abi_dir(pin_dir).join("links").join("tc")
}

/// The devices of which there is something below `directory`.
fn devices(directory: &Path) -> Result<BTreeSet<u32>, Error> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        entries => entries.map_err(Error::system("readdir", directory))?,
    };
    let number = |name: &str| {
        let (number, kind) = name.split_once('-')?;
        ["ingress", "egress", "ingress-new", "egress-new", "clsact", "qdisc"]
            .contains(&kind)
            .then(|| number.parse().ok())?
    };
    Ok(entries.filter_map(|entry| number(entry.ok()?.file_name().to_str()?)).collect())
}

/// Whether the kernel has TCX (6.6).
pub fn has_tcx() -> bool {
    SchedClassifier::query_tcx("lo", TcAttachType::Ingress).is_ok()
}

/// Atomically replaces the program behind a pinned link.
fn replace(program: &mut SchedClassifier, name: &'static str, pin: &Path) -> Result<(), Error> {
    let link = PinnedLink::from_pin(pin).map(FdLink::from).and_then(TryInto::try_into);
    let link = link.map_err(|error| Error::System {
        call: "BPF_OBJ_GET",
        path: pin.display().to_string(),
        error: io::Error::other(error),
    })?;
    let id = program.attach_to_link(link).map_err(attaching(name))?;
    // Its pin alone holds the link: it is to end when another one is pinned in its place.
    program.take_link(id).map(drop).map_err(attaching(name))
}

fn attaching(program: &'static str) -> impl Fn(ProgramError) -> Error {
    move |source| Error::Program { action: "attach", program, source }
}

fn mark(marker: &Path) -> Result<(), Error> {
    match fs::create_dir(marker) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result.map_err(Error::system("mkdir", marker)),
    }
}
