//! A pinned map of whatever layout: its elements as bytes, and what the kernel knows of their types.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use aya_obj::generated::bpf_cmd;

use super::{
    Error,
    bpf::{self, MapInfo},
    tables::crash,
};

/// The part of `union bpf_attr` that the commands on elements read.
#[repr(C)]
#[derive(Default)]
struct Element {
    map_fd: u32,
    padding: u32,
    key: u64,
    /// The value, or the next key.
    other: u64,
    flags: u64,
}

/// A key and its value.
pub(crate) type KeyAndValue = (Vec<u8>, Vec<u8>);

/// An open map.
#[derive(Debug)]
pub(crate) struct RawMap {
    fd: OwnedFd,
    pin: PathBuf,
    pub(crate) info: MapInfo,
}

impl RawMap {
    /// Opens the map that is pinned there.
    pub(crate) fn open(pin: &Path) -> Result<Self, Error> {
        let fd = bpf::open_pin(pin)?;
        let info = bpf::map_info(&fd).map_err(Error::system("BPF_OBJ_GET_INFO_BY_FD", pin))?;
        Ok(Self { fd, pin: pin.to_owned(), info })
    }

    /// All elements. Of a table that others write, each at least once, if it is there all the time.
    pub(crate) fn elements(&self) -> Result<Vec<KeyAndValue>, Error> {
        let mut elements = Vec::new();
        let mut last: Option<Vec<u8>> = None;
        // Others may insert faster than this reads.
        let most = self.info.max_entries as usize * 2;
        while elements.len() < most {
            let mut key = vec![0; self.info.key_size as usize];
            match self.next_key(last.as_deref(), &mut key) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                found => found.map_err(Error::system("BPF_MAP_GET_NEXT_KEY", &self.pin))?,
            }
            if let Some(value) = self.lookup(&key)? {
                elements.push((key.clone(), value));
            }
            last = Some(key);
        }
        Ok(elements)
    }

    fn next_key(&self, key: Option<&[u8]>, next: &mut [u8]) -> io::Result<()> {
        let mut attr = self.element(key.map_or(0, |key| key.as_ptr() as u64), next.as_mut_ptr() as u64);
        // SAFETY: both keys are as long as the map's, and outlive the call.
        unsafe { bpf::bpf(bpf_cmd::BPF_MAP_GET_NEXT_KEY, &mut attr) }.map(drop)
    }

    /// A value, if there is one.
    pub(crate) fn lookup(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        assert_eq!(key.len(), self.info.key_size as usize, "{}", self.pin.display());
        self.lookup_at(key.as_ptr() as u64)
    }

    /// The value of a socket.
    pub(crate) fn of_socket(&self, socket: BorrowedFd<'_>) -> Result<Option<Vec<u8>>, Error> {
        let key = socket.as_raw_fd();
        self.lookup_at(&raw const key as u64)
    }

    fn lookup_at(&self, key: u64) -> Result<Option<Vec<u8>>, Error> {
        let mut value = vec![0; self.info.value_size as usize];
        let mut attr = self.element(key, value.as_mut_ptr() as u64);
        // SAFETY: key and value are as long as the map's, and outlive the call.
        match unsafe { bpf::bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attr) } {
            Ok(_) => Ok(Some(value)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::system("BPF_MAP_LOOKUP_ELEM", &self.pin)(error)),
        }
    }

    /// Writes an element; with [`RawMap::IF_MISSING`] only one that is not there.
    pub(crate) fn insert(&self, key: &[u8], value: &[u8], flags: u64) -> Result<(), Error> {
        assert_eq!(key.len(), self.info.key_size as usize, "{}", self.pin.display());
        self.insert_at(key.as_ptr() as u64, value, flags)
    }

    /// Writes the value of a socket.
    pub(crate) fn set_of_socket(
        &self,
        socket: BorrowedFd<'_>,
        value: &[u8],
        flags: u64,
    ) -> Result<(), Error> {
        let key = socket.as_raw_fd();
        self.insert_at(&raw const key as u64, value, flags)
    }

    fn insert_at(&self, key: u64, value: &[u8], flags: u64) -> Result<(), Error> {
        assert_eq!(value.len(), self.info.value_size as usize, "{}", self.pin.display());
        crash::point();
        let mut attr = Element { flags, ..self.element(key, value.as_ptr() as u64) };
        // SAFETY: key and value are as long as the map's, and outlive the call.
        match unsafe { bpf::bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attr) } {
            Err(error) if flags == Self::IF_MISSING && error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            result => result.map(drop).map_err(Error::system("BPF_MAP_UPDATE_ELEM", &self.pin)),
        }
    }

    /// `BPF_NOEXIST`.
    pub(crate) const IF_MISSING: u64 = 1;

    fn element(&self, key: u64, other: u64) -> Element {
        Element { map_fd: self.fd.as_raw_fd().cast_unsigned(), key, other, ..Default::default() }
    }
}
