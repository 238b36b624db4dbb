//! Dependency circles of files: to understand one file of a circle you have to read them all.
//!
//! A file that names its own folder's `mod.rs` closes no circle: readers begin at `mod.rs`, which combines the files
//! and may hold what they share. This does not apply to the crate's root.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::uses::Uses;

/// A line for each circle, with the names that its files use of each other; none for circles within the folder `but`.
pub(super) fn circles(uses: &Uses, but: Option<&str>) -> Vec<String> {
    let reach: BTreeMap<&Path, BTreeSet<&Path>> =
        uses.0.keys().map(|file| (file.as_path(), reached(uses, file))).collect();
    let mut told = BTreeSet::new();
    let mut circles = Vec::new();
    for (file, beyond) in &reach {
        if !beyond.contains(file) || told.contains(file) {
            continue;
        }
        let members: BTreeSet<&Path> = beyond
            .iter()
            .copied()
            .filter(|other| reach.get(other).is_some_and(|back| back.contains(file)))
            .collect();
        if !but.is_some_and(|folder| members.iter().all(|member| member.starts_with(folder))) {
            circles.push(line(uses, &members));
        }
        told.extend(members);
    }
    circles
}

/// All files that `file` depends on, directly or not; `file` itself if it is on a circle.
fn reached<'a>(uses: &'a Uses, file: &PathBuf) -> BTreeSet<&'a Path> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&PathBuf> = vec![file];
    while let Some(next) = open.pop() {
        for to in uses.0.get(next).into_iter().flat_map(BTreeMap::keys) {
            if !is_of_folder(next, to) && reached.insert(to.as_path()) {
                open.push(to);
            }
        }
    }
    reached
}

/// Whether `end` is the `mod.rs` of a folder around `file`.
fn is_of_folder(file: &Path, end: &Path) -> bool {
    end.file_name().is_some_and(|name| name == "mod.rs")
        && end.parent().is_some_and(|folder| file.starts_with(folder))
}

fn line(uses: &Uses, members: &BTreeSet<&Path>) -> String {
    let mut steps = Vec::new();
    for from in members {
        let closes = |to: &Path| members.contains(to) && !is_of_folder(from, to);
        for (to, names) in uses.0.get(*from).into_iter().flatten().filter(|(to, _)| closes(to)) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            steps.push(format!("{} names {} of {}", from.display(), names.join(", "), to.display()));
        }
    }
    format!("a circle of {} files: {}", members.len(), steps.join("; "))
}

#[cfg(test)]
mod tests {
    use super::{super::uses::tests::uses, circles};

    #[test]
    fn a_circle_is_reported_once_with_every_step() {
        let found = circles(
            &uses(&[
                ("lib.rs", "mod a; mod b; mod c; mod d;"),
                ("a.rs", "use crate::b::B; pub struct A;"),
                ("b.rs", "use crate::c::C; pub struct B;"),
                ("c.rs", "use crate::a::A; use crate::d::D; pub struct C;"),
                ("d.rs", "pub struct D;"),
            ]),
            None,
        );
        assert_eq!(
            found,
            ["a circle of 3 files: a.rs names B of b.rs; b.rs names C of c.rs; c.rs names A of a.rs"]
        );
    }

    #[test]
    fn a_file_may_name_its_own_mod_rs_but_no_other_file_that_needs_it() {
        let found = circles(
            &uses(&[
                ("lib.rs", "mod a; mod b; pub struct Root;"),
                ("a/mod.rs", "mod x; pub struct A(x::X);"),
                ("a/x.rs", "pub struct X(super::A, crate::b::B);"),
                ("b.rs", "pub struct B;"),
            ]),
            None,
        );
        assert_eq!(found, [""; 0]);
        let found = circles(
            &uses(&[
                ("lib.rs", "mod a; mod b; pub struct Root;"),
                ("a/mod.rs", "mod x; pub struct A(x::X);"),
                ("a/x.rs", "pub struct X(super::A, crate::b::B);"),
                ("b.rs", "pub struct B(crate::a::A);"),
            ]),
            None,
        );
        assert_eq!(
            found,
            [
                "a circle of 3 files: a/mod.rs names X of a/x.rs; a/x.rs names B of b.rs; b.rs names A of a/mod.rs"
            ]
        );
    }

    #[test]
    fn circles_within_the_exempt_folder_are_not_reported() {
        let files = uses(&[
            ("lib.rs", "mod a;"),
            ("a/mod.rs", "mod x; mod y;"),
            ("a/x.rs", "pub struct X(super::y::Y);"),
            ("a/y.rs", "pub struct Y(super::x::X);"),
        ]);
        assert_eq!((circles(&files, Some("a")).len(), circles(&files, None).len()), (0, 1));
    }

    #[test]
    fn files_with_a_shared_dependency_are_no_circle() {
        let found = circles(
            &uses(&[
                ("lib.rs", "mod a; mod b; mod c; pub use a::A;"),
                ("a.rs", "use crate::{b::B, c::C}; pub struct A;"),
                ("b.rs", "use crate::c::C; pub struct B;"),
                ("c.rs", "pub struct C; #[cfg(test)] mod tests { use crate::A; }"),
            ]),
            None,
        );
        assert_eq!(found, [""; 0]);
    }
}
