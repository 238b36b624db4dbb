//! Files that change, break, overlap and go: what is said of them.

use super::*;
use crate::{model::ObjectName, source::documents::parse};

fn service(name: &str, ip: &str) -> String {
    format!("---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{clusterIP: {ip}}}\n")
}

/// Events, short: `+web 10.0.0.1`, `-web`, `!origin` and `ok origin`.
fn said(events: &[Event]) -> Vec<String> {
    events
        .iter()
        .map(|event| match event {
            Event::Upsert(Object::Service(service)) => {
                format!("+{} {}", service.name.name(), service.cluster_ips[0].address)
            }
            Event::Delete(key) => format!("-{}", key.name.name()),
            Event::Found { subject, flaws } if flaws.is_empty() => format!("ok {subject}"),
            Event::Found { subject, .. } => format!("!{subject}"),
            other => panic!("unexpected {other:?}"),
        })
        .collect()
}

#[derive(Default)]
struct Files(Catalog);

impl Files {
    fn write(&mut self, name: &str, text: &str) -> Vec<String> {
        said(&self.0.replace(name, parse(text)))
    }

    fn remove(&mut self, name: &str) -> Vec<String> {
        said(&self.0.remove(name))
    }
}

#[test]
fn a_file_that_changes_gives_the_difference() {
    let mut files = Files::default();
    let (a, b) = (service("a", "10.0.0.1"), service("b", "10.0.0.2"));
    assert_eq!(files.write("x.yaml", &format!("{a}{b}")), ["+a 10.0.0.1", "+b 10.0.0.2"]);
    assert_eq!(files.write("x.yaml", &format!("{b}{a}")), [""; 0]);
    assert_eq!(files.write("x.yaml", &format!("{a}{}", service("c", "10.0.0.3"))), ["-b", "+c 10.0.0.3"]);
    assert_eq!(files.write("x.yaml", &service("a", "10.0.0.9")), ["+a 10.0.0.9", "-c"]);
    assert_eq!(files.write("x.yaml", &service("a", "None")), ["-a"]);
    assert_eq!(files.remove("x.yaml"), [""; 0]);
}

#[test]
fn a_file_that_is_gone_takes_its_objects_with_it() {
    let mut files = Files::default();
    files.write("x.yaml", &service("a", "10.0.0.1"));
    files.write("y.yaml", "kind: Nonsense");
    assert_eq!(files.remove("x.yaml"), ["-a"]);
    assert_eq!(files.remove("y.yaml"), ["ok y.yaml, document 1"]);
}

#[test]
fn a_typo_takes_nothing_away() {
    let mut files = Files::default();
    let (a, b) = (service("a", "10.0.0.1"), service("b", "10.0.0.2"));
    files.write("x.yaml", &format!("{a}{b}"));
    // The second document is cut off: whatever it was about stays.
    let cut = format!("{}---\napiVersion: v1\nkind: Service\nmetadata: {{na", service("a", "10.0.0.7"));
    assert_eq!(files.write("x.yaml", &cut), ["!x.yaml, document 2", "+a 10.0.0.7"]);
    assert_eq!(files.write("x.yaml", &cut), [""; 0]);
    assert_eq!(files.write("x.yaml", "{{{"), ["ok x.yaml, document 2", "!x.yaml, document 1"]);
    assert_eq!(files.write("x.yaml", &b), ["ok x.yaml, document 1", "-a"]);
}

#[test]
fn a_bad_document_that_says_what_it_is_about_keeps_only_that() {
    let mut files = Files::default();
    let (a, b) = (service("a", "10.0.0.1"), service("b", "10.0.0.2"));
    files.write("x.yaml", &format!("{a}{b}"));
    let bad = b.replace("kind: Service", "kind: Servce");
    assert_eq!(files.write("x.yaml", &bad), ["!x.yaml, document 1", "-a"]);
    assert_eq!(files.write("x.yaml", &a), ["ok x.yaml, document 1", "+a 10.0.0.1", "-b"]);
}

#[test]
fn a_file_that_cannot_be_read_keeps_what_it_had() {
    let mut files = Files::default();
    let a = service("a", "10.0.0.1");
    files.write("x.yaml", &a);
    let flaw = Flaw::new("file", "permission denied");
    assert_eq!(said(&files.0.unreadable("x.yaml", flaw)), ["!x.yaml"]);
    assert_eq!(files.write("x.yaml", &a), ["ok x.yaml"]);
}

#[test]
fn an_object_in_two_files_is_the_first_ones() {
    let mut files = Files::default();
    assert_eq!(files.write("b.yaml", &service("a", "10.0.0.2")), ["+a 10.0.0.2"]);
    assert_eq!(
        files.write("a.yaml", &service("a", "10.0.0.1")),
        ["+a 10.0.0.1", "!b.yaml, Service default/a"]
    );
    assert_eq!(files.write("b.yaml", &service("a", "10.0.0.3")), [""; 0]);
    assert_eq!(files.remove("a.yaml"), ["+a 10.0.0.3", "ok b.yaml, Service default/a"]);
    assert_eq!(files.remove("b.yaml"), ["-a"]);
    assert!(files.0.definers.is_empty());
}

#[test]
fn an_object_twice_in_a_file_is_the_first_one() {
    let mut files = Files::default();
    let text = format!("{}{}", service("a", "10.0.0.1"), service("a", "10.0.0.2"));
    assert_eq!(files.write("x.yaml", &text), ["!x.yaml, document 2", "+a 10.0.0.1"]);
}

/// What was read before is known; what comes later defines nothing that was there before.
#[test]
fn unread_is_what_was_never_read_since_the_start() {
    let (broken, a) = ("{{{", service("a", "10.0.0.1"));
    let flaw = || Flaw::new("file", "permission denied");
    let mut files = Files::default();
    files.write("x.yaml", broken);
    assert_eq!(files.0.unread(), Unread::anything());
    files.write("y.yaml", &a);
    files.0.begun();
    files.0.unreadable("y.yaml", flaw());
    files.write("z.yaml", broken);
    files.write("x.yaml", &a.replace("kind: Service", "kind: Servce"));
    assert_eq!(files.0.unread(), Unread::of(ObjectName::new("default", "a")), "y was read, z is new");
    files.write("x.yaml", &a);
    assert!(files.0.unread().is_nothing());
    files.write("x.yaml", broken);
    assert!(files.0.unread().is_nothing(), "it has been read by now");

    let mut files = Files::default();
    files.0.unreadable("x.yaml", flaw());
    assert_eq!(files.0.unread(), Unread::anything());
    files.remove("x.yaml");
    assert!(files.0.unread().is_nothing());
}
