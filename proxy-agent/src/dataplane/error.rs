//! What can go wrong between the agent and the kernel.

/// What can go wrong between the agent and the kernel. Each names the call or the path.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call on `path` failed.
    #[error("{call} {path}: {error}")]
    System {
        /// The call.
        call: &'static str,
        /// The object of the call.
        path: String,
        /// The kernel's answer. Not a `source`, since the message includes it.
        error: std::io::Error,
    },
    /// A pinned map is not what this version expects.
    #[error(
        "the pinned map {path} has {found}, but this version of sidestep needs {expected}: another version made \
         it; use its `sidestep`, or start this version's agent, which converts it"
    )]
    Layout {
        /// The pin.
        path: String,
        /// What it is.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// There are no pinned tables.
    #[error("no maps under {0}: `sidestep run` has not run on this node, or with another --pin-dir")]
    NoTables(String),
    /// Loading the object failed.
    #[error("cannot load the kernel programs: {0}")]
    Load(#[from] aya::EbpfError),
    /// Loading or attaching one program failed.
    #[error("{action} program {program}: {source}")]
    Program {
        /// `load` or `attach`.
        action: &'static str,
        /// Its name.
        program: &'static str,
        /// Why, with the end of the verifier's log.
        source: aya::programs::ProgramError,
    },
    /// A map operation failed.
    #[error("map {map}: {source}")]
    Map {
        /// Its name.
        map: &'static str,
        /// Why.
        source: aya::maps::MapError,
    },
    /// Something that must exist does not.
    #[error("{0}")]
    Missing(String),
}

impl Error {
    pub(super) fn system(
        call: &'static str,
        path: impl AsRef<std::path::Path>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().display().to_string();
        move |error| Self::System { call, path, error }
    }

    /// A thread that cannot be started.
    pub(crate) fn thread(name: &str, error: std::io::Error) -> Self {
        Self::System { call: "starting a thread", path: name.to_owned(), error }
    }

    pub(super) fn map(map: &'static str) -> impl FnOnce(aya::maps::MapError) -> Self {
        move |source| Self::Map { map, source }
    }
}
