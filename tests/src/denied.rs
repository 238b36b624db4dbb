//! System calls that fail: a seccomp filter on the calling thread, inherited by the processes that it starts.

use anyhow::{Result, ensure};

/// Has this system call fail with this error from now on.
pub fn deny(call: libc::c_long, errno: i32) -> Result<()> {
    const WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    let instruction = |code: u32, jt, jf, k| -> Result<libc::sock_filter> {
        Ok(libc::sock_filter { code: code.try_into()?, jt, jf, k })
    };
    // The number of the call is the first word of `struct seccomp_data`.
    let mut filter = [
        instruction(WORD, 0, 0, 0)?,
        instruction(EQUAL, 0, 1, call.try_into()?)?,
        instruction(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | errno.unsigned_abs())?,
        instruction(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW)?,
    ];
    let program = libc::sock_fprog { len: filter.len().try_into()?, filter: filter.as_mut_ptr() };
    // SAFETY: `program` and `filter` outlive the call, which copies them.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    ensure!(result == 0, "seccomp: {}", std::io::Error::last_os_error());
    Ok(())
}
