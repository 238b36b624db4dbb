//! A real directory, changed in the ways that editors, `mv` and kubelet change one.

use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;
use crate::plan::Planner;

/// A directory that is followed, and the planner that consumes what comes out of it.
struct Followed {
    directory: TempDir,
    planner: Planner,
    events: mpsc::Receiver<Batch>,
    _stop: StopOnDrop,
}

impl Followed {
    /// Follows `directory`; without notices, files are found by looking every `rescan`.
    fn start(directory: TempDir, rescan: Duration, notices: bool) -> Self {
        let (wake, woken) = std_mpsc::channel();
        let (sender, events) = mpsc::channel(16);
        let mut reader = Reader::new(directory.path().to_owned(), wake.clone());
        reader.rescan = rescan;
        if !notices {
            // A watch that says nothing stands in for notices that get lost.
            let silent = notify::recommended_watcher(|_: notify::Result<notify::Event>| ()).expect("a watch");
            reader.watch = Some((silent, Stamp::of(directory.path()).expect("a directory")));
        }
        thread::spawn(move || reader.run(&woken, &sender));
        let mut followed = Self { directory, planner: Planner::new("n1"), events, _stop: StopOnDrop(wake) };
        followed.until("the first scan", |followed| followed.planner.is_synced());
        followed
    }

    fn new() -> Self {
        Self::start(TempDir::new().expect("a directory"), Duration::from_mins(1), true)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.directory.path().join(name), text).expect("writable");
    }

    /// Consumes until `holds`, at most ten seconds.
    fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !holds(self) {
            match self.events.try_recv() {
                Ok(batch) => drop(self.planner.apply(batch)),
                Err(_) => thread::sleep(Duration::from_millis(2)),
            }
            let state = (self.services(), self.planner.problems());
            assert!(start.elapsed() < Duration::from_secs(10), "{what}: {state:?}");
        }
    }

    fn services(&self) -> Vec<String> {
        let mut names: Vec<_> = self
            .planner
            .plans()
            .flat_map(|plan| {
                let name = plan.id.service;
                plan.frontends.into_iter().map(move |(key, _)| format!("{} {}", name.name(), key.address))
            })
            .collect();
        names.sort();
        names
    }

    fn until_services(&mut self, expected: &[&str]) {
        self.until(&format!("{expected:?}"), |followed| followed.services() == expected);
    }

    fn until_problems(&mut self, expected: &[(&str, &str)]) {
        self.until(&format!("{expected:?}"), |followed| {
            let problems = followed.planner.problems();
            let named = problems.iter().map(|p| (p.subject.to_string(), p.field.clone()));
            named.eq(expected.iter().map(|(subject, field)| (subject.to_string(), field.to_string())))
        });
    }
}

fn service(name: &str, ip: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{clusterIP: {ip}, ports: [{{port: 80}}]}}\n"
    )
}

#[test]
fn files_that_are_written_changed_renamed_and_deleted_are_followed() {
    let mut followed = Followed::new();
    followed.write("a.yaml", &service("a", "10.0.0.1"));
    followed.until_services(&["a 10.0.0.1"]);
    followed.write("a.yaml", &service("a", "10.0.0.2"));
    followed.until_services(&["a 10.0.0.2"]);
    followed.write("b.yml", &service("b", "10.0.0.3"));
    followed.until_services(&["a 10.0.0.2", "b 10.0.0.3"]);
    let path = |followed: &Followed, name: &str| followed.directory.path().join(name);
    fs::rename(path(&followed, "b.yml"), path(&followed, "b.txt")).expect("renamed");
    followed.until_services(&["a 10.0.0.2"]);
    fs::rename(path(&followed, "b.txt"), path(&followed, "c.json")).expect("renamed");
    followed.until_services(&["a 10.0.0.2", "b 10.0.0.3"]);
    fs::remove_file(path(&followed, "a.yaml")).expect("removed");
    followed.until_services(&["b 10.0.0.3"]);
}

#[test]
fn a_file_that_is_renamed_into_place_is_read_and_editors_files_are_not() {
    let mut followed = Followed::new();
    followed.write("a.yaml", &service("a", "10.0.0.1"));
    followed.write(".a.yaml.swp", &service("x", "10.0.0.8"));
    followed.write("a.yaml~", &service("y", "10.0.0.9"));
    followed.until_services(&["a 10.0.0.1"]);
    followed.write(".a.yaml.new", &service("a", "10.0.0.2"));
    let directory = followed.directory.path();
    fs::rename(directory.join(".a.yaml.new"), directory.join("a.yaml")).expect("renamed");
    followed.until_services(&["a 10.0.0.2"]);
}

/// As kubelet updates a `ConfigMap` volume: a new directory, and one rename of the link that all files go through.
#[test]
fn the_swap_of_a_config_map_is_followed() {
    let directory = TempDir::new().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    for (version, ip) in [("..v1", "10.0.0.1"), ("..v2", "10.0.0.2")] {
        fs::create_dir(at(version)).expect("created");
        fs::write(at(version).join("a.yaml"), service("a", ip)).expect("written");
    }
    symlink("..v1", at("..data")).expect("linked");
    symlink("..data/a.yaml", at("a.yaml")).expect("linked");
    let mut followed = Followed::start(directory, Duration::from_mins(1), true);
    followed.until_services(&["a 10.0.0.1"]);
    let at = |name: &str| followed.directory.path().join(name);
    symlink("..v2", at("..data_tmp")).expect("linked");
    fs::rename(at("..data_tmp"), at("..data")).expect("renamed");
    followed.until_services(&["a 10.0.0.2"]);
}

#[test]
fn changes_are_found_without_a_notice() {
    let directory = TempDir::new().expect("a directory");
    let mut followed = Followed::start(directory, Duration::from_millis(20), false);
    followed.write("a.yaml", &service("a", "10.0.0.1"));
    followed.until_services(&["a 10.0.0.1"]);
    followed.write("a.yaml", &service("a", "10.0.0.10"));
    followed.until_services(&["a 10.0.0.10"]);
    fs::remove_file(followed.directory.path().join("a.yaml")).expect("removed");
    followed.until_services(&[]);
}

#[test]
fn a_directory_that_is_gone_for_a_while_takes_nothing_with_it() {
    let directory = TempDir::new().expect("a directory");
    let mut followed = Followed::start(directory, Duration::from_millis(20), true);
    followed.write("a.yaml", &service("a", "10.0.0.1"));
    followed.until_services(&["a 10.0.0.1"]);
    let path = followed.directory.path().to_owned();
    fs::rename(&path, path.with_extension("away")).expect("renamed");
    followed.until_problems(&[(&path.display().to_string(), "directory")]);
    followed.until_services(&["a 10.0.0.1"]);
    fs::rename(path.with_extension("away"), &path).expect("renamed");
    followed.until_problems(&[]);
    followed.write("a.yaml", &service("a", "10.0.0.2"));
    followed.until_services(&["a 10.0.0.2"]);
}

/// Every kind of bad manifest: each is named, the rest is installed, and what is fixed is not named any more.
#[test]
fn bad_manifests_are_named_and_the_rest_is_installed() {
    use std::fmt::Write as _;
    let mut huge = String::from(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: huge\n  labels: {kubernetes.io/service-name: good}\naddressType: IPv4\nports: [{port: 80}]\nendpoints:\n",
    );
    for i in 0..5000 {
        writeln!(huge, "- addresses: [10.1.{}.{}]", i / 250, i % 250 + 1).expect("a String takes everything");
    }
    let mut followed = Followed::new();
    followed.write("01-good.yaml", &service("good", "10.0.0.1"));
    followed.write("02-kind.yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n");
    followed.write("03-address.yaml", &service("address", "10.0.0.300"));
    followed.write("04-port.yaml", &service("zero", "10.0.0.4").replace("port: 80", "port: 0"));
    followed.write("05-overlap.yaml", &service("overlap", "10.0.0.1"));
    followed.write("06-huge.yaml", &huge);
    let cut = format!("{}---\napiVersion: v1\nkind: Service\nmetadata: {{na", service("fine", "10.0.0.6"));
    followed.write("07-truncated.yaml", &cut);

    followed.until_problems(&[
        ("02-kind.yaml, document 1", "kind"),
        ("07-truncated.yaml, document 2", "line 9"),
        ("Service default/address", "spec.clusterIP"),
        ("Service default/overlap", "spec.clusterIPs[0]"),
        ("Service default/zero", "spec.ports[0].port"),
        ("EndpointSlice default/huge", "endpoints"),
    ]);
    followed.until_services(&["fine 10.0.0.6", "good 10.0.0.1"]);
    let counts: Vec<usize> = followed.planner.plans().map(|plan| plan.endpoints.len()).collect();
    assert!(counts.contains(&1000), "{counts:?}");

    for name in ["02-kind.yaml", "03-address.yaml", "05-overlap.yaml", "06-huge.yaml"] {
        fs::remove_file(followed.directory.path().join(name)).expect("removed");
    }
    followed.write("04-port.yaml", &service("zero", "10.0.0.4"));
    followed.write("07-truncated.yaml", &service("fine", "10.0.0.6"));
    followed.until_problems(&[]);
    followed.until_services(&["fine 10.0.0.6", "good 10.0.0.1", "zero 10.0.0.4"]);
}

#[tokio::test]
async fn a_directory_that_does_not_exist_is_an_error() {
    let (sender, _events) = mpsc::channel(1);
    let error = run(Path::new("/nonexistent/manifests"), sender).await.expect_err("no directory");
    assert!(error.to_string().contains("/nonexistent/manifests"), "{error}");
}

#[tokio::test]
async fn the_reader_ends_when_nobody_listens() {
    let directory = TempDir::new().expect("a directory");
    let (sender, mut events) = mpsc::channel(1);
    let path = directory.path().to_owned();
    let running = tokio::spawn(async move { run(&path, sender).await });
    assert_eq!(events.recv().await, Some(vec![Event::PodsListed, Event::Synced]));
    drop(events);
    fs::write(directory.path().join("a.yaml"), service("a", "10.0.0.1")).expect("written");
    running.await.expect("no panic").expect("no error");
}
