//! Where the members of the running kernel's structures are, from its BTF (`Documentation/bpf/btf.rst`).
//!
//! By hand: aya-obj keeps its types to itself, and what else reads BTF builds all 150,000 types of a kernel in memory.

use std::{fs, path::Path};

use crate::dataplane::Error;

const BTF: &str = "/sys/kernel/btf/vmlinux";

const STRUCT: u32 = 4;

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
    let header = |index: usize| word(btf, index * 4);
    if header(0)? & 0xffff != 0xeb9f {
        return None;
    }
    let (begin, types) = (header(1)? as usize, header(2)? as usize);
    let (length, strings) = (header(3)? as usize, header(4)? as usize);
    let types = btf.get(begin + types..begin + types + length)?;
    let strings = btf.get(begin + strings..)?;
    let mut at = 0;
    while at < types.len() {
        let (name, info) = (word(types, at)?, word(types, at + 4)?);
        let (kind, count, has_bit_fields) = (info >> 24 & 0x1f, (info & 0xffff) as usize, info >> 31 != 0);
        at += 12;
        if kind == STRUCT {
            let structure = text(strings, name)?;
            for member in 0..count {
                let (name, offset) = (word(types, at + member * 12)?, word(types, at + member * 12 + 8)?);
                let bits = if has_bit_fields { offset & 0x00ff_ffff } else { offset };
                each(structure, text(strings, name)?, bits / 8);
            }
        }
        at += match kind {
            1 | 14 | 17 => 4,                   // INT, VAR, DECL_TAG
            3 => 12,                            // ARRAY
            STRUCT | 5 | 15 | 19 => count * 12, // UNION, DATASEC, ENUM64
            6 | 13 => count * 8,                // ENUM, FUNC_PROTO
            2 | 7..=12 | 16 | 18 => 0,          // what only names another type
            _ => return None,
        };
    }
    Some(())
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn text(strings: &[u8], at: u32) -> Option<&str> {
    let rest = strings.get(at as usize..)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    str::from_utf8(rest.get(..end)?).ok()
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
