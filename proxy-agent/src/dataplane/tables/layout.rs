//! Layouts of tables, as the kernel's type information (BTF) tells them, and turning an element of one layout into one of
//! another: by the names of fields.
//!
//! So a version needs no code for the layouts of those before and after it. A field that only the new layout has is 0; one
//! that only the old one has is dropped; a number that became longer or shorter keeps its value.

use crate::dataplane::btf::{self, Type};

/// A field without parts, such as `ends.client.bytes`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Field {
    path: String,
    /// Where it is, and how long, in bytes.
    offset: usize,
    size: usize,
}

/// A key or a value.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Layout {
    /// Bytes of all of it.
    pub(crate) size: usize,
    fields: Vec<Field>,
}

impl Layout {
    /// Whether it has a field of this name, by itself.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.fields.iter().any(|field| field.path == path)
    }
}

/// More fields than any table has.
const MOST: usize = 4096;
/// More levels of structures, arrays and names.
const DEEPEST: u32 = 32;

/// All types of a piece of BTF.
#[derive(Debug)]
pub(crate) struct Types<'a>(Vec<Type<'a>>);

impl<'a> Types<'a> {
    /// `None` if these are not BTF.
    pub(crate) fn of(bytes: &'a [u8]) -> Option<Self> {
        btf::types(bytes)?.collect::<Option<_>>().map(Self)
    }

    /// The type with this id.
    pub(crate) fn get(&self, id: u32) -> Option<&Type<'a>> {
        self.0.get((id as usize).checked_sub(1)?)
    }

    /// The variable with this name.
    pub(crate) fn variable(&self, name: &str) -> Option<&Type<'a>> {
        self.0.iter().find(|found| found.kind == btf::VAR && found.name() == Some(name))
    }

    /// The layout of a type, without what only names another.
    pub(crate) fn layout(&self, id: u32) -> Option<Layout> {
        let mut fields = Vec::new();
        let size = self.collect(id, "", 0, DEEPEST, &mut fields)?;
        Some(Layout { size, fields })
    }

    /// Adds the fields of a type that begins at `offset`. Returns its size.
    fn collect(
        &self,
        id: u32,
        path: &str,
        offset: usize,
        depth: u32,
        fields: &mut Vec<Field>,
    ) -> Option<usize> {
        let (found, depth) = (self.get(id)?, depth.checked_sub(1)?);
        let size = found.size();
        match found.kind {
            btf::STRUCT | btf::UNION => {
                for member in found.members() {
                    let member = member?;
                    let path = if path.is_empty() {
                        member.name.to_owned()
                    } else {
                        format!("{path}.{}", member.name)
                    };
                    self.collect(member.kind, &path, offset + member.bits as usize / 8, depth, fields)?;
                }
                Some(size)
            }
            btf::ARRAY => {
                let (kind, count) = found.elements()?;
                let count = count as usize;
                let first = fields.len();
                let each = self.collect(kind, &format!("{path}[0]"), offset, depth, fields)?;
                if each == 1 {
                    // Bytes are one field.
                    fields.truncate(first);
                    fields.push(Field { path: path.to_owned(), offset, size: count });
                    return Some(count);
                }
                if count == 0 {
                    fields.truncate(first);
                }
                for index in 1..count {
                    self.collect(kind, &format!("{path}[{index}]"), offset + index * each, depth, fields)?;
                    (fields.len() <= MOST).then_some(())?;
                }
                Some(each * count)
            }
            kind if btf::NAMES.contains(&kind) => self.collect(found.target(), path, offset, depth, fields),
            kind if kind == btf::INT || kind == btf::FLOAT || btf::ENUMS.contains(&kind) => {
                fields.push(Field { path: path.to_owned(), offset, size });
                Some(size)
            }
            _ => None,
        }
    }
}

/// How elements of one layout become those of another.
#[derive(Clone, Debug)]
pub(crate) struct Conversion {
    size: usize,
    /// From, to, and how many bytes.
    copies: Vec<(usize, usize, usize)>,
}

impl Conversion {
    /// Of numbers in little-endian order, as those of all nodes that eBPF has this object for.
    /// Fields are found by their names, or by the present ones of those that were `renamed`.
    pub(crate) fn new(from: &Layout, to: &Layout, renamed: &[(&str, &str)]) -> Self {
        let copy = |field: &Field| {
            let is_it = |old: &&Field| old.path == field.path || present(&old.path, renamed) == field.path;
            let old = from.fields.iter().find(is_it)?;
            Some((old.offset, field.offset, old.size.min(field.size)))
        };
        Self { size: to.size, copies: to.fields.iter().filter_map(copy).collect() }
    }

    /// Converts one element.
    pub(crate) fn apply(&self, from: &[u8]) -> Vec<u8> {
        let mut to = vec![0; self.size];
        for &(old, new, size) in &self.copies {
            if let (Some(old), Some(new)) = (from.get(old..old + size), to.get_mut(new..new + size)) {
                new.copy_from_slice(old);
            }
        }
        to
    }
}

/// A path with the present names of its parts, such as `entries[0].endpoint_port.number`.
fn present(path: &str, renamed: &[(&str, &str)]) -> String {
    let parts = path.split('.').map(|part| {
        let (name, place) = part.split_at(part.find('[').unwrap_or(part.len()));
        let name = renamed.iter().find(|(former, _)| *former == name).map_or(name, |(_, present)| present);
        format!("{name}{place}")
    });
    parts.collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize, fields: &[(&str, usize, usize)]) -> Layout {
        let fields = fields.iter().map(|(path, offset, size)| Field {
            path: (*path).to_owned(),
            offset: *offset,
            size: *size,
        });
        Layout { size, fields: fields.collect() }
    }

    #[test]
    fn fields_keep_their_values_wherever_they_are_and_however_long() {
        let old = layout(12, &[("a", 0, 2), ("gone", 2, 2), ("b", 4, 4), ("c", 8, 4)]);
        let new = layout(16, &[("c", 0, 2), ("added", 2, 2), ("a", 4, 4), ("b", 8, 4)]);
        let element = [1, 2, 9, 9, 3, 4, 5, 6, 7, 8, 0, 0];
        let converted = Conversion::new(&old, &new, &[]).apply(&element);
        assert_eq!(converted, [7, 8, 0, 0, 1, 2, 0, 0, 3, 4, 5, 6, 0, 0, 0, 0]);
        assert_eq!(Conversion::new(&new, &old, &[]).apply(&converted), [1, 2, 0, 0, 3, 4, 5, 6, 7, 8, 0, 0]);
    }

    #[test]
    fn fields_that_were_renamed_are_found() {
        let (old, new) =
            (layout(2, &[("all[1].old.number", 0, 2)]), layout(2, &[("all[1].new.number", 0, 2)]));
        let converted = |renamed: &[(&str, &str)]| Conversion::new(&old, &new, renamed).apply(&[1, 2]);
        assert_eq!((converted(&[("old", "new")]), converted(&[("ol", "new")])), (vec![1, 2], vec![0, 0]));
    }
}
