//! Where the members of the running kernel's structures are, from its BTF.

use std::{fs, path::Path};

use crate::dataplane::{Error, btf};

const BTF: &str = "/sys/kernel/btf/vmlinux";

/// Offsets in bytes of these members, each named with its structure.
///
/// # Errors
/// When the kernel has no BTF, or no such member.
pub(crate) fn offsets<const N: usize>(members: [(&str, &str); N]) -> Result<[u32; N], Error> {
    let path = Path::new(BTF);
    let btf = fs::read(path).map_err(Error::system("read", path))?;
    let mut found = [None; N];
    walk(&btf, |structure, member, offset| {
        for (wanted, found) in members.iter().zip(&mut found) {
            if found.is_none() && *wanted == (structure, member) {
                *found = Some(offset);
            }
        }
    })
    .ok_or_else(|| Error::Missing(format!("{BTF} is cut off, or of a kind that is not known")))?;
    let mut offsets = [0; N];
    for ((structure, member), (offset, found)) in members.iter().zip(offsets.iter_mut().zip(found)) {
        *offset = found.ok_or_else(|| Error::Missing(format!("{BTF} has no {structure}.{member}")))?;
    }
    Ok(offsets)
}

/// Calls back for every member of every structure. Nothing if the data are not BTF.
pub(crate) fn walk(btf: &[u8], mut each: impl FnMut(&str, &str, u32)) -> Option<()> {
    for found in btf::types(btf)? {
        let found = found?;
        if found.kind == btf::STRUCT {
            let structure = found.name()?;
            for member in found.members() {
                let member = member?;
                each(structure, member.name, member.bits / 8);
            }
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_the_running_kernels_structures_are_found() {
        if !Path::new(BTF).exists() {
            return;
        }
        let [address, port, pid] = offsets([
            ("sock_common", "skc_family"),
            ("sock_common", "skc_state"),
            ("task_struct", "thread_pid"),
        ])
        .expect("offsets");
        assert_eq!((address, port), (16, 18));
        assert!(pid > 0);
    }

    #[test]
    fn a_member_that_is_not_there_is_named() {
        if !Path::new(BTF).exists() {
            return;
        }
        let error = offsets([("task_struct", "no_such_member")]).expect_err("no offset");
        assert!(error.to_string().contains("task_struct.no_such_member"), "{error}");
    }

    #[test]
    fn what_is_not_btf_is_refused() {
        assert_eq!(walk(&[0; 64], |_, _, _| ()), None);
        assert_eq!(walk(&[0x9f, 0xeb, 1, 0, 24, 0, 0, 0, 0, 0, 0, 0, 99, 0, 0, 0], |_, _, _| ()), None);
    }
}
