//! Which objects do the files of a directory define, together?
//!
//! Reading a file again yields only the difference. Objects in a part of a file that no longer parses stay as they
//! were: a typo must not remove a running Service. Removing a file removes its objects. If two files define an
//! object, the first one counts; a problem names the other, which takes over when the first one goes.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Event,
    documents::{Bad, Parsed},
};
use crate::model::{Flaw, Object, ObjectKey, Subject, Unread};

/// What the files say.
#[derive(Default, Debug)]
pub(super) struct Catalog {
    files: BTreeMap<String, File>,
    /// Which files define an object.
    definers: BTreeMap<ObjectKey, BTreeSet<String>>,
    /// Whether every file has been read once, or could not be.
    begun: bool,
}

/// What is wrong, by what it is about.
type Found = BTreeMap<Subject, Vec<Flaw>>;

#[derive(Default, Debug)]
struct File {
    objects: BTreeMap<ObjectKey, Object>,
    /// What is wrong in it.
    found: Found,
    /// What it may have defined since before the first look, and could never be read.
    unread: Unread,
}

impl Catalog {
    /// Takes in what a file says now.
    pub(super) fn replace(&mut self, name: &str, parsed: Parsed) -> Vec<Event> {
        let Parsed { objects, bad } = parsed;
        let mut file = File::default();
        let mut named = BTreeSet::new();
        for (position, key, object) in objects {
            if !named.insert(key.clone()) {
                let message =
                    format!("{key} is defined twice in {name}; the first one counts, remove the other");
                file.add(
                    Subject::Document { file: name.into(), position },
                    Flaw::new("metadata.name", message),
                );
            } else if let Some(object) = object {
                file.objects.insert(key, object);
            }
        }
        if let Some(before) = self.files.get(name) {
            for (key, object) in &before.objects {
                if !named.contains(key) && bad.iter().any(|bad| may_be(bad, key)) {
                    file.objects.insert(key.clone(), object.clone());
                }
            }
        }
        let never = self.was_never_read(name);
        for Bad { position, flaw, unread, about: _ } in bad {
            if never {
                file.unread.add(&unread);
            }
            file.add(Subject::Document { file: name.into(), position }, flaw);
        }
        self.set(name, Some(file))
    }

    /// A file that cannot be read at all keeps what it had.
    pub(super) fn unreadable(&mut self, name: &str, flaw: Flaw) -> Vec<Event> {
        let objects = self.files.get(name).map(|file| file.objects.clone()).unwrap_or_default();
        let found = Found::from([(Subject::File { file: name.into() }, vec![flaw])]);
        let unread = if self.was_never_read(name) { Unread::anything() } else { Unread::default() };
        self.set(name, Some(File { objects, found, unread }))
    }

    /// Every file has been looked at once: what comes later defines nothing that was there before.
    pub(super) fn begun(&mut self) {
        self.begun = true;
    }

    /// What files may define since before the first look, and nobody could read.
    pub(super) fn unread(&self) -> Unread {
        let mut unread = Unread::default();
        self.files.values().for_each(|file| unread.add(&file.unread));
        unread
    }

    fn was_never_read(&self, name: &str) -> bool {
        self.files.get(name).map_or(!self.begun, |file| !file.unread.is_nothing())
    }

    /// A file is gone.
    pub(super) fn remove(&mut self, name: &str) -> Vec<Event> {
        self.set(name, None)
    }

    /// The names of all files.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    fn set(&mut self, name: &str, file: Option<File>) -> Vec<Event> {
        let before = self.files.remove(name).unwrap_or_default();
        let after = file.as_ref();
        let mut keys: BTreeSet<ObjectKey> = before.objects.keys().cloned().collect();
        keys.extend(after.into_iter().flat_map(|file| file.objects.keys().cloned()));

        let mut events = differences(&before.found, after.map(|file| &file.found));
        // Everything said of these objects is compared with what holds afterwards.
        let effective: Vec<Option<Object>> = keys
            .iter()
            .map(|key| match self.definers.get(key)?.first()? {
                owner if owner == name => before.objects.get(key).cloned(),
                owner => self.files.get(owner)?.objects.get(key).cloned(),
            })
            .collect();
        let duplicates: Vec<_> = keys.iter().map(|key| self.duplicates(key)).collect();

        for key in before.objects.keys() {
            if let Some(definers) = self.definers.get_mut(key) {
                definers.remove(name);
                if definers.is_empty() {
                    self.definers.remove(key);
                }
            }
        }
        if let Some(file) = file {
            for key in file.objects.keys() {
                self.definers.entry(key.clone()).or_default().insert(name.into());
            }
            self.files.insert(name.into(), file);
        }

        for ((key, was), duplicated) in keys.iter().zip(effective).zip(duplicates) {
            let now = self.effective(key);
            if now != was.as_ref() {
                events.push(now.map_or_else(|| Event::Delete(key.clone()), |now| Event::Upsert(now.clone())));
            }
            events.extend(differences(&duplicated, Some(&self.duplicates(key))));
        }
        events
    }

    /// The first file's definition.
    fn effective(&self, key: &ObjectKey) -> Option<&Object> {
        self.files.get(self.definers.get(key)?.first()?)?.objects.get(key)
    }

    /// What there is to say of the files that define `key` in vain.
    fn duplicates(&self, key: &ObjectKey) -> Found {
        let Some(definers) = self.definers.get(key) else { return Found::new() };
        let Some(first) = definers.first() else { return Found::new() };
        let flaw = |file: &String| {
            let message =
                format!("{first} defines it as well and comes first by name; remove one of the two");
            let subject = Subject::Definition { file: file.clone(), object: key.clone() };
            (subject, vec![Flaw::new("metadata.name", message)])
        };
        definers.iter().skip(1).map(flaw).collect()
    }
}

impl File {
    fn add(&mut self, subject: Subject, flaw: Flaw) {
        self.found.entry(subject).or_default().push(flaw);
    }
}

/// Whether a document that could not be read may have been about this object. A document that does not even
/// parse may have been about any.
fn may_be(bad: &Bad, key: &ObjectKey) -> bool {
    bad.about.as_ref().is_none_or(|about| about.name() == key.name.name())
}

/// What to say so that `before` becomes `after`.
fn differences(before: &Found, after: Option<&Found>) -> Vec<Event> {
    let found = |subject: &Subject, flaws: Vec<Flaw>| Event::Found { subject: subject.clone(), flaws };
    let gone = before.keys().filter(|subject| !after.is_some_and(|after| after.contains_key(*subject)));
    let new = after.into_iter().flatten().filter(|(subject, flaws)| before.get(*subject) != Some(*flaws));
    gone.map(|subject| found(subject, Vec::new()))
        .chain(new.map(|(subject, flaws)| found(subject, flaws.clone())))
        .collect()
}

#[cfg(test)]
#[path = "catalog_tests.rs"]
mod tests;
