//! One lab: a node, its pods, a directory of manifests, and everything that an agent needs to run on it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{
    agent::{self, Agent},
    cgroup::Cgroup,
    hold,
    identity::Identity,
    manifest::Manifests,
    pins::PinDirectory,
    place::Place,
    seat::Seat,
    sweep,
    topology::{self, Node},
};

/// The lab. Dropping it removes everything that it made; drop agents, servers and places first.
#[derive(Debug)]
pub struct Lab {
    name: String,
    node: Node,
    other: Place,
    /// The cgroup that the agent's programs are attached to, above those of the node's processes and pods.
    root: Cgroup,
    /// A cgroup beside it, for processes that our programs must not see.
    outside: Cgroup,
    directory: Directory,
    pins: PinDirectory,
}

impl Lab {
    /// Makes a node without pods, after removing leftovers of killed processes' labs.
    pub fn new() -> Result<Self> {
        Self::on(topology::nodes)
    }

    /// The same with another topology: `nodes` makes the node and the other node from the lab's name, the cgroup of the
    /// node's processes, and the cgroup without programs.
    pub(crate) fn on(nodes: impl FnOnce(&str, Cgroup, Cgroup) -> Result<(Node, Place)>) -> Result<Self> {
        sweep::leftovers();
        let name = Identity::new().to_string();
        let directory = Directory::new(std::env::temp_dir().join(&name))?;
        let pins = PinDirectory::new(&name)?;
        let cgroup = Cgroup::new(&name)?;
        let root = cgroup.child("kubepods")?;
        let outside = cgroup.child("outside")?;
        let (node, other) = nodes(&name, root.child("host")?, outside.clone())?;
        let lab = Self { name, node, other, root, outside, directory, pins };
        hold::enrol(&lab, &lab.directory.0);
        Ok(lab)
    }

    /// Makes the next pod: `10.244.1.10`, then `.11`, and so on.
    pub fn pod(&self, name: &str) -> Result<Place> {
        self.node.pod(&self.name, name, self.root.child(name)?)
    }

    /// The node itself: its host processes and its addresses.
    pub const fn node(&self) -> &Place {
        &self.node.place
    }

    /// Another node of the cluster, on which no agent of this lab runs.
    pub const fn other_node(&self) -> &Place {
        &self.other
    }

    /// The cgroup that agents attach to.
    pub const fn root(&self) -> &Cgroup {
        &self.root
    }

    /// The cgroup beside it, which our programs do not see.
    pub const fn outside(&self) -> &Cgroup {
        &self.outside
    }

    /// The lab's name, the prefix of all names in it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory of manifests that the agent watches.
    pub fn manifests(&self) -> Manifests {
        Manifests::new(self.directory.0.join("manifests"))
    }

    /// Where agents pin their maps and links.
    pub fn pin_directory(&self) -> &Path {
        self.pins.path()
    }

    /// The agents' run directory, with `report.json`.
    pub fn run_directory(&self) -> PathBuf {
        self.directory.0.join("run")
    }

    /// Creates a folder for files of programs, which is deleted with the lab.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.directory.0.join("programs").join(name);
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(folder)
    }

    /// Where the lab's packets are captured.
    pub(crate) fn packet_directory(&self) -> PathBuf {
        self.directory.0.join("packets")
    }

    /// Where agents write their log.
    pub fn log_file(&self) -> PathBuf {
        self.directory.0.join("agent.log")
    }

    /// Where agents run: on the node, with the lab's directories.
    pub fn seat(&self) -> Seat {
        Seat {
            place: self.node().clone(),
            root: self.root.clone(),
            pin_directory: self.pins.path().to_owned(),
            run_directory: self.run_directory(),
            log: self.log_file(),
            node_name: agent::NODE_NAME,
        }
    }

    /// Starts an agent on the node and waits until it has installed all manifests.
    pub fn agent(&self) -> Result<Agent> {
        Agent::start(self)
    }

    /// Runs `sidestep` with these arguments and the lab's directories on the node, and returns what it prints.
    pub fn sidestep(&self, arguments: &[&str]) -> Result<std::process::Output> {
        let mut command = agent::command(self, arguments)?;
        self.node().namespace().run(|| command.output())?.context("cannot run sidestep")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        hold::dismiss(&self.name);
        // First `cleanup`, as users do it. Dropping the pin directory removes the rest.
        if self.pins.path().exists()
            && let Err(error) = self.sidestep(&["cleanup"])
        {
            eprintln!("lab {}: {error:#}", self.name);
        }
    }
}

/// A directory that is removed with its value.
#[derive(Debug)]
struct Directory(PathBuf);

impl Directory {
    fn new(path: PathBuf) -> Result<Self> {
        for child in ["manifests", "run"] {
            fs::create_dir_all(path.join(child)).with_context(|| path.display().to_string())?;
        }
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}
