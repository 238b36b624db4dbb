//! `net.ipv4.ip_local_reserved_ports` of this network namespace.
//!
//! Container runtimes mount `/proc/sys` read-only. So a pod mounts the node's file by hostPath at any path, and this
//! module finds it among the mounts.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use crate::{
    dataplane::{Error, node::host},
    ports::{PortRange, PortSet},
};

/// Where it is.
pub(super) const PATH: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";
const LOCAL_PORTS: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// Longer than any list of ports can be written.
const LONGEST: usize = 1 << 18;

/// The file, opened for writing.
#[derive(Debug)]
pub(super) struct Sysctl {
    path: PathBuf,
    file: File,
}

impl Sysctl {
    /// Opens the first of its paths that can be written. The error is that of its own place.
    pub(super) fn open() -> Result<Self, Error> {
        let open = |path: &Path| OpenOptions::new().write(true).open(path);
        let error = match open(Path::new(PATH)) {
            Ok(file) => return Ok(Self { path: PATH.into(), file }),
            Err(error) => error,
        };
        let mounted = host::mounts("self").unwrap_or_default();
        let places = mounted
            .iter()
            .filter(|mount| mount.fs_type == "proc")
            .filter_map(|mount| place(&mount.root, &mount.mount_point));
        for path in places {
            if let Ok(file) = open(&path) {
                return Ok(Self { path, file });
            }
        }
        Err(Error::system("opening for writing", PATH)(error))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the whole list.
    pub(super) fn write(&self, ports: &PortSet) -> Result<(), Error> {
        // The kernel takes at most a page at once, and adds what comes after the beginning.
        let text = format!("{ports}\n");
        self.file.write_all_at(text.as_bytes(), 0).map_err(Error::system("writing", &self.path))
    }
}

/// The path of the sysctl below a mount of `root` of a proc file system.
fn place(root: &str, mount_point: &Path) -> Option<PathBuf> {
    let inside = Path::new(PATH).strip_prefix("/proc").ok()?;
    let rest = inside.strip_prefix(Path::new(root).strip_prefix("/").ok()?).ok()?;
    // The file itself: joining nothing would add a slash.
    Some(if rest.as_os_str().is_empty() { mount_point.to_owned() } else { mount_point.join(rest) })
}

/// The reserved ports.
pub(super) fn read() -> Result<PortSet, Error> {
    let text = read_at_once(Path::new(PATH))?;
    text.parse().map_err(|error| Error::system("reading", PATH)(io::Error::other(error)))
}

/// The ephemeral ports of the node's own connections.
pub(super) fn local_ports() -> Result<PortRange, Error> {
    let text = read_at_once(Path::new(LOCAL_PORTS))?;
    let mut ports = text.split_whitespace().map(str::parse::<u16>);
    match (ports.next(), ports.next()) {
        (Some(Ok(first)), Some(Ok(last))) => Ok(PortRange::of_kernel(first, last)),
        _ => Err(Error::Missing(format!("{LOCAL_PORTS} does not hold two ports: {text}"))),
    }
}

/// The kernel writes such a file for one `read` only, as much as that has room for: `fs::read_to_string`, which begins
/// with a few bytes, would get the beginning of a list and take it for the whole.
fn read_at_once(path: &Path) -> Result<String, Error> {
    let mut buffer = vec![0; LONGEST];
    let length = File::open(path)
        .and_then(|file| file.read_at(&mut buffer, 0))
        .map_err(Error::system("reading", path))?;
    buffer.truncate(length);
    String::from_utf8(buffer).map_err(|error| Error::system("reading", path)(io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use nix::sched::{CloneFlags, unshare};
    use sidestep_tests::skip;

    use super::*;

    #[test]
    fn the_file_is_found_wherever_it_was_mounted() {
        let place =
            |root: &str, mount: &str| place(root, Path::new(mount)).map(|path| path.display().to_string());
        let name = "ip_local_reserved_ports";
        assert_eq!(place("/", "/proc"), Some(PATH.to_owned()));
        assert_eq!(place("/sys", "/proc/sys"), Some(PATH.to_owned()));
        assert_eq!(place("/sys/net/ipv4", "/host/ipv4"), Some(format!("/host/ipv4/{name}")));
        assert_eq!(place(&format!("/sys/net/ipv4/{name}"), "/x"), Some("/x".to_owned()));
        assert_eq!(place("/sysrq-trigger", "/proc/sysrq-trigger"), None);
        assert_eq!(place("/sys/net/ipv4/ip_local_port_range", "/y"), None);
    }

    /// A list of more than a page is written and read whole: the kernel takes it in pieces.
    #[test]
    fn a_long_list_is_written_and_read_whole() {
        if let Some(reason) = skip::missing() {
            skip!("{reason}");
        }
        let test = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
            let text: Vec<String> = (0..10_000).map(|number| (5 * number + 1).to_string()).collect();
            let ports: PortSet = text.join(",").parse().expect("ports");
            assert_eq!(read().expect("a list"), PortSet::default());
            Sysctl::open().expect("the sysctl").write(&ports).expect("written");
            assert_eq!(read().expect("a list"), ports);
            Sysctl::open().expect("the sysctl").write(&PortSet::default()).expect("written");
            assert_eq!(read().expect("a list"), PortSet::default());
            assert_eq!(local_ports().expect("a range").set().len(), 60_999 - 32_768 + 1);
        };
        std::thread::scope(|scope| scope.spawn(test).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
}
