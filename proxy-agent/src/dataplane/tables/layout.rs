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
    /// The same with the present names of fields that were `renamed`.
    pub(crate) fn renamed(&self, renamed: &[(&str, &str)]) -> Self {
        let fields =
            self.fields.iter().map(|field| Field { path: present(&field.path, renamed), ..field.clone() });
        Self { size: self.size, fields: fields.collect() }
    }

    /// How many fields it has.
    pub(crate) fn fields(&self) -> usize {
        self.fields.len()
    }

    /// Whether it has a field of this name, by itself.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.fields.iter().any(|field| field.path == path)
    }
}

/// The fields so far, and how many types were looked at for them: types may refer to each other in circles.
#[derive(Default)]
struct Collected {
    fields: Vec<Field>,
    steps: usize,
}

/// All types of a piece of BTF.
#[derive(Debug)]
pub(crate) struct Types<'a>(Vec<Type<'a>>);

impl<'a> Types<'a> {
    /// As many types as are looked at for a layout, and so its fields: more than any table has.
    pub(crate) const MOST: usize = 512;

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
        let mut found = Collected::default();
        let size = self.collect(id, "", 0, &mut found)?;
        Some(Layout { size, fields: found.fields })
    }

    /// Adds the fields of a type that begins at `offset`. Returns its size.
    fn collect(&self, id: u32, path: &str, offset: usize, all: &mut Collected) -> Option<usize> {
        let found = self.get(id)?;
        all.steps += 1;
        (all.steps <= Self::MOST).then_some(())?;
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
                    self.collect(member.kind, &path, offset.checked_add(member.bits as usize / 8)?, all)?;
                }
                Some(size)
            }
            btf::ARRAY => {
                let (kind, count) = found.elements()?;
                let (count, first) = (count as usize, all.fields.len());
                let each = self.collect(kind, &format!("{path}[0]"), offset, all)?;
                let size = each.checked_mul(count)?;
                if each == 1 || count == 0 {
                    // Bytes are one field.
                    all.fields.truncate(first);
                    all.fields.push(Field { path: path.to_owned(), offset, size });
                    return Some(size);
                }
                for index in 1..count {
                    let path = format!("{path}[{index}]");
                    self.collect(kind, &path, offset.checked_add(index * each)?, all)?;
                }
                Some(size)
            }
            kind if btf::NAMES.contains(&kind) => self.collect(found.target(), path, offset, all),
            kind if kind == btf::INT || kind == btf::FLOAT || btf::ENUMS.contains(&kind) => {
                all.fields.push(Field { path: path.to_owned(), offset, size });
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
    pub(crate) fn new(from: &Layout, to: &Layout) -> Self {
        let copy = |field: &Field| {
            let old = from.fields.iter().find(|old| old.path == field.path)?;
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
        let converted = Conversion::new(&old, &new).apply(&element);
        assert_eq!(converted, [7, 8, 0, 0, 1, 2, 0, 0, 3, 4, 5, 6, 0, 0, 0, 0]);
        assert_eq!(Conversion::new(&new, &old).apply(&converted), [1, 2, 0, 0, 3, 4, 5, 6, 7, 8, 0, 0]);
    }

    #[test]
    fn fields_that_were_renamed_are_found() {
        let (old, new) =
            (layout(2, &[("all[1].old.number", 0, 2)]), layout(2, &[("all[1].new.number", 0, 2)]));
        let converted =
            |renamed: &[(&str, &str)]| Conversion::new(&old.renamed(renamed), &new).apply(&[1, 2]);
        assert_eq!((converted(&[("old", "new")]), converted(&[("ol", "new")])), (vec![1, 2], vec![0, 0]));
    }
}
