//! One run of a program on one packet.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    time::Duration,
};

use aya::{Ebpf, programs::SchedClassifier};

/// The packet goes on (`TC_ACT_UNSPEC`).
pub(crate) const PASS: i32 = -1;
/// The packet is dropped (`TC_ACT_SHOT`).
pub(crate) const DROP: i32 = 2;
/// The packet leaves by the device on which it arrived (`TC_ACT_REDIRECT`).
pub(crate) const REDIRECT: i32 = 7;

/// Frames of at least this many bytes have whole network headers.
const SHORT: usize = 14 + 40;
/// The longest packet that a run may return.
const LONGEST: usize = 4096;
/// `BPF_PROG_TEST_RUN`.
const COMMAND: libc::c_long = 10;
/// `BPF_F_TEST_SKB_CHECKSUM_COMPLETE` (6.17): the packet arrives with the sum of its bytes, as from a device; the run
/// fails with EBADMSG if the sum is wrong afterwards.
const CHECKSUM_COMPLETE: u32 = 1 << 2;

/// The part of `union bpf_attr` for test runs.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Attributes {
    program: u32,
    result: u32,
    length_in: u32,
    length_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_length_in: u32,
    context_length_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch: u32,
    padding: u32,
}

/// The result of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The program's return value.
    pub(crate) action: i32,
    /// The frame.
    pub(crate) frame: Vec<u8>,
}

/// A loaded program, and the device in its packets' context.
#[derive(Debug)]
pub(crate) struct Runner<'a> {
    program: BorrowedFd<'a>,
    /// `struct __sk_buff`; a test run accepts only a few of its fields.
    context: [u32; 48],
    buffer: Vec<u8>,
}

impl<'a> Runner<'a> {
    pub(crate) fn new(programs: &'a Ebpf, name: &str, device: u32) -> Self {
        let program = programs.program(name).expect("the program is in the object");
        let program: &SchedClassifier = program.try_into().expect("a program of packets");
        let mut context = [0; 48];
        context[10] = device;
        Self { program: program.fd().expect("it is loaded").as_fd(), context, buffer: vec![0; LONGEST] }
    }

    /// Runs the program on a frame. The kernel rejects a frame with a truncated network header, or without a byte after
    /// the link header; such a frame counts as passed on unchanged.
    pub(crate) fn run(&mut self, frame: &[u8]) -> Outcome {
        match self.try_run(frame, 0) {
            Err(error) if frame.len() < SHORT && error.raw_os_error() == Some(libc::EINVAL) => {
                Outcome { action: PASS, frame: frame.to_vec() }
            }
            result => result.expect("BPF_PROG_TEST_RUN"),
        }
    }

    /// The same, as from a device that has summed the bytes. An error if the sum is wrong afterwards; nothing on a
    /// kernel that cannot verify it.
    pub(crate) fn run_summed(&mut self, frame: &[u8]) -> Option<io::Result<Outcome>> {
        match self.try_run(frame, CHECKSUM_COMPLETE) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => None,
            result => Some(result),
        }
    }

    /// Runs the program so often on a frame that it does not change; returns how long a run took.
    pub(crate) fn run_repeatedly(&mut self, frame: &[u8], times: u32) -> Duration {
        let attributes = self.call(frame, 0, times).expect("BPF_PROG_TEST_RUN");
        Duration::from_nanos(attributes.duration.into())
    }

    fn try_run(&mut self, frame: &[u8], flags: u32) -> io::Result<Outcome> {
        let attributes = self.call(frame, flags, 1)?;
        let frame = self.buffer[..attributes.length_out as usize].to_vec();
        Ok(Outcome { action: attributes.result.cast_signed(), frame })
    }

    fn call(&mut self, frame: &[u8], flags: u32, repeat: u32) -> io::Result<Attributes> {
        let mut attributes = Attributes {
            program: self.program.as_raw_fd().cast_unsigned(),
            length_in: u32::try_from(frame.len()).expect("a short frame"),
            length_out: u32::try_from(LONGEST).expect("a short buffer"),
            data_in: frame.as_ptr() as u64,
            data_out: self.buffer.as_mut_ptr() as u64,
            repeat,
            context_length_in: u32::try_from(size_of_val(&self.context)).expect("short"),
            context_in: self.context.as_ptr() as u64,
            flags,
            ..Attributes::default()
        };
        let size = size_of::<Attributes>();
        // SAFETY: the kernel reads and writes the attributes, and what they point to, which outlives the call.
        let result = unsafe { libc::syscall(libc::SYS_bpf, COMMAND, &raw mut attributes, size) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(attributes)
    }
}
