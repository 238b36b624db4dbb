//! The lock that admits one agent at a time.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use nix::fcntl::{Flock, FlockArg};

use super::{Error, node::host::ensure_bpffs, tables::maps::abi_dir};

/// Locks the tables below `pin_dir` for one writer, until the lock is dropped: two writers would allocate the same
/// slots.
pub fn lock(pin_dir: &Path) -> Result<Flock<File>, Error> {
    ensure_bpffs(pin_dir)?;
    let dir = abi_dir(pin_dir);
    fs::create_dir_all(&dir).map_err(Error::system("mkdir", &dir))?;
    // Who can open a map can write it. The maps are root's alone, and so is the way to them, whatever the umask was.
    fs::set_permissions(&dir, Permissions::from_mode(0o700)).map_err(Error::system("chmod", &dir))?;
    let directory = File::open(&dir).map_err(Error::system("open", &dir))?;
    Flock::lock(directory, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
        if errno == nix::errno::Errno::EWOULDBLOCK {
            Error::Missing(format!("an agent is using the maps under {}: stop it first", pin_dir.display()))
        } else {
            Error::system("flock", &dir)(errno.into())
        }
    })
}
