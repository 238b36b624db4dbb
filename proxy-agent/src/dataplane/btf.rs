//! BTF, the kernel's type information (`Documentation/bpf/btf.rst`): the types one after the other.
//!
//! By hand: aya-obj keeps its types to itself, and what else reads BTF builds all 150,000 types of a kernel in memory.

/// A structure.
pub(crate) const STRUCT: u32 = 4;
/// A union.
pub(crate) const UNION: u32 = 5;
/// A pointer.
pub(crate) const PTR: u32 = 2;
/// An array.
pub(crate) const ARRAY: u32 = 3;
/// A variable.
pub(crate) const VAR: u32 = 14;
/// An integer.
pub(crate) const INT: u32 = 1;
/// A floating-point number.
pub(crate) const FLOAT: u32 = 16;
/// Enumerations, of up to four bytes and of eight.
pub(crate) const ENUMS: [u32; 2] = [6, 19];
/// What only names another type: typedefs and qualifiers.
pub(crate) const NAMES: [u32; 5] = [8, 9, 10, 11, 18];

/// One type.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Type<'a> {
    pub(crate) kind: u32,
    /// Its size, or what it refers to.
    third: u32,
    has_bit_fields: bool,
    name: u32,
    body: &'a [u8],
    strings: &'a [u8],
}

/// A member of a structure or union.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member<'a> {
    pub(crate) name: &'a str,
    /// The id of its type.
    pub(crate) kind: u32,
    /// Where it begins, in bits.
    pub(crate) bits: u32,
}

impl<'a> Type<'a> {
    /// Its name; empty if it has none.
    pub(crate) fn name(&self) -> Option<&'a str> {
        text(self.strings, self.name)
    }

    /// Bytes of a structure, union, number or enumeration.
    pub(crate) const fn size(&self) -> usize {
        self.third as usize
    }

    /// The id of the type that a pointer, variable or name refers to.
    pub(crate) const fn target(&self) -> u32 {
        self.third
    }

    /// The members of a structure or union.
    pub(crate) fn members(self) -> impl Iterator<Item = Option<Member<'a>>> {
        self.body.chunks_exact(12).map(move |member| {
            let offset = word(member, 8)?;
            let bits = if self.has_bit_fields { offset & 0x00ff_ffff } else { offset };
            Some(Member { name: text(self.strings, word(member, 0)?)?, kind: word(member, 4)?, bits })
        })
    }

    /// The id of an array's element type, and how many elements it has.
    pub(crate) fn elements(&self) -> Option<(u32, u32)> {
        Some((word(self.body, 0)?, word(self.body, 8)?))
    }
}

/// The types, from id 1 on; ends with `None` where the data are cut off or of an unknown kind. Nothing at all if they are not
/// BTF.
pub(crate) fn types(btf: &[u8]) -> Option<impl Iterator<Item = Option<Type<'_>>>> {
    let header = |index: usize| word(btf, index * 4);
    if header(0)? & 0xffff != 0xeb9f {
        return None;
    }
    let begin = header(1)? as usize;
    let (types, length, strings) = (header(2)? as usize, header(3)? as usize, header(4)? as usize);
    let types = btf.get(begin.checked_add(types)?..)?.get(..length)?;
    let strings = btf.get(begin.checked_add(strings)?..)?;
    let mut rest = types;
    Some(std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let read = read(rest, strings);
        rest = read.map_or(&[], |(_, rest)| rest);
        Some(read.map(|(found, _)| found))
    }))
}

fn read<'a>(bytes: &'a [u8], strings: &'a [u8]) -> Option<(Type<'a>, &'a [u8])> {
    let (name, info, third) = (word(bytes, 0)?, word(bytes, 4)?, word(bytes, 8)?);
    let (kind, count) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
    let length = match kind {
        INT | VAR | 17 => 4, // DECL_TAG
        ARRAY => 12,
        STRUCT | UNION | 15 | 19 => count * 12, // DATASEC, ENUM64
        6 | 13 => count * 8,                    // ENUM, FUNC_PROTO
        PTR | 7..=12 | FLOAT | 18 => 0,         // what only names another type
        _ => return None,
    };
    let (body, rest) = bytes.get(12..)?.split_at_checked(length)?;
    Some((Type { kind, third, has_bit_fields: info >> 31 != 0, name, body, strings }, rest))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn text(strings: &[u8], at: u32) -> Option<&str> {
    let rest = strings.get(at as usize..)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    str::from_utf8(rest.get(..end)?).ok()
}
