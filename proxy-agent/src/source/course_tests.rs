//! What is asked next, whatever went wrong.

use ::kube::core::{Status, response::StatusDetails};

use super::*;

/// A course, and a clock that stands still.
struct Asking {
    course: Course,
    now: Instant,
}

impl Asking {
    fn new() -> Self {
        Self { course: Course::new(), now: Instant::now() }
    }

    /// One that has listed version 10.
    fn watching() -> Self {
        let mut asking = Self::new();
        assert!(asking.listed("10", None).expect("a list"));
        asking
    }

    fn listed(&mut self, version: &str, token: Option<&str>) -> Result<bool, Failure> {
        self.course.listed(Some(version), token.map(Into::into), self.now)
    }

    fn heard(&mut self, version: &str) -> Result<(), Failure> {
        self.course.heard(Some(version))
    }

    fn fails(&mut self, failure: &Failure) -> Duration {
        self.course.failed(failure, |_| 0)
    }

    /// `list`, `page <token>` or `watch <version>`.
    fn next(&self) -> String {
        match self.course.next() {
            Next::Page { token: None, .. } => "list".into(),
            Next::Page { token: Some(token), .. } => format!("page {token}"),
            Next::Watch { version } => format!("watch {version}"),
        }
    }
}

fn says(request: Request, code: u16) -> Failure {
    let status = Status { code, ..Status::default() };
    Failure::Request { request, error: Box::new(::kube::Error::Api(status.boxed())) }
}

fn late(request: Request) -> Failure {
    Failure::Late { request, limit: Duration::from_secs(1) }
}

#[test]
fn a_watch_starts_at_the_version_of_its_list_and_goes_on_from_the_last_one_heard_of() {
    let mut asking = Asking::new();
    assert_eq!(asking.next(), "list");
    assert!(!asking.listed("10", Some("x")).expect("a page"));
    assert_eq!(asking.next(), "page x");
    assert!(asking.listed("10", None).expect("a page"));
    assert_eq!(asking.next(), "watch 10");
    asking.heard("12").expect("news");
    asking.heard("12").expect("a repetition");
    assert_eq!(asking.next(), "watch 12");
    for failure in [Failure::EndedEarly, says(Request::Watch, 503), says(Request::Watch, 403)] {
        for _ in 0..1000 {
            asking.fails(&failure);
            assert_eq!(asking.next(), "watch 12", "{failure}");
        }
    }
}

/// A server that has forgotten a version, or cannot find out whether it has (504), says so for ever.
#[test]
fn a_version_that_the_server_cannot_serve_is_given_up_for_a_list() {
    for (failure, times) in [
        (says(Request::Watch, 410), 1),
        (says(Request::Watch, 504), 1),
        (says(Request::Watch, 400), 3),
        (Failure::GaveUp(Status { code: 410, ..Status::default() }.boxed()), 1),
        (Failure::GaveUp(Status { code: 500, ..Status::default() }.boxed()), 3),
        (late(Request::Watch), 3),
        (Failure::NoVersion(Request::Watch), 1),
    ] {
        let mut asking = Asking::watching();
        for _ in 1..times {
            asking.fails(&failure);
            assert_eq!(asking.next(), "watch 10", "{failure}");
        }
        asking.fails(&failure);
        assert_eq!(asking.next(), "list", "{failure}");
    }
}

#[test]
fn progress_takes_back_what_was_in_vain() {
    let mut asking = Asking::watching();
    for version in 11..40 {
        asking.fails(&late(Request::Watch));
        asking.fails(&late(Request::Watch));
        asking.heard(&version.to_string()).expect("news");
        assert_eq!(asking.next(), format!("watch {version}"));
    }
}

#[test]
fn a_list_that_is_cut_short_goes_on_where_it_was_unless_that_is_forgotten() {
    let mut asking = Asking::new();
    asking.listed("10", Some("x")).expect("a page");
    for _ in 0..10 {
        asking.fails(&says(Request::Page, 503));
        assert_eq!(asking.next(), "page x");
    }
    asking.fails(&says(Request::Page, 410));
    assert_eq!(asking.next(), "list");
}

#[test]
fn pages_that_do_not_arrive_in_time_become_smaller_until_a_list_is_complete() {
    let mut asking = Asking::new();
    let limit = |asking: &Asking| match asking.course.next() {
        Next::Page { limit, .. } => *limit,
        Next::Watch { .. } => 0,
    };
    let mut limits = Vec::new();
    for _ in 0..7 {
        limits.push(limit(&asking));
        asking.fails(&late(Request::Page));
    }
    assert_eq!(limits, [500, 250, 125, 62, 31, 15, 15]);
    asking.listed("10", Some("x")).expect("a page");
    assert_eq!(limit(&asking), 15);
    asking.listed("10", None).expect("a page");
    asking.fails(&says(Request::Watch, 410));
    assert_eq!(limit(&asking), 500);
}

#[test]
fn a_watch_that_goes_back_in_time_is_answered_with_a_list() {
    let mut asking = Asking::watching();
    asking.heard("15").expect("news");
    let failure = asking.heard("12").expect_err("older");
    assert!(matches!(failure, Failure::OutOfOrder { newest: 15, heard: 12 }), "{failure}");
    asking.fails(&failure);
    assert_eq!(asking.next(), "list");
    assert!(asking.listed("15", None).expect("a list"), "as new as what was seen");
}

#[test]
fn a_list_from_a_server_that_lags_behind_is_not_believed_until_it_must_be_true() {
    let mut asking = Asking::watching();
    asking.fails(&says(Request::Watch, 410));
    assert!(matches!(asking.listed("9", None), Err(Failure::Stale { newest: 10, listed: 9 })));
    assert_eq!(asking.next(), "list");
    asking.now += LAG / 2;
    assert!(asking.listed("9", Some("x")).is_err());
    assert!(asking.listed("11", None).expect("a list"), "it has caught up");

    asking.fails(&says(Request::Watch, 410));
    assert!(asking.listed("3", None).is_err(), "the time starts over");
    asking.now += LAG;
    assert!(asking.listed("4", None).expect("a list"), "restored from a backup");
    asking.heard("5").expect("versions go on from there");
}

#[test]
fn versions_that_are_no_numbers_are_taken_as_they_come() {
    let mut asking = Asking::new();
    asking.listed("b", None).expect("a list");
    asking.heard("a").expect("news");
    asking.heard("7").expect("news");
    asking.heard("x").expect("news");
    assert_eq!(asking.next(), "watch x");
    assert!(asking.course.heard(None).is_err());
    assert!(asking.course.listed(Some(""), None, asking.now).is_err());
}

#[test]
fn a_server_that_asks_to_be_left_alone_is_within_reason() {
    let mut asking = Asking::watching();
    let asks = |seconds: u32| {
        let text = serde_json::json!({"retryAfterSeconds": seconds});
        let details: StatusDetails = serde_json::from_value(text).expect("details");
        let status = Status { code: 429, details: Some(details), ..Status::default() };
        Failure::Request { request: Request::Watch, error: Box::new(::kube::Error::Api(status.boxed())) }
    };
    assert_eq!(asking.fails(&asks(0)), Duration::from_millis(250));
    assert_eq!(asking.fails(&asks(7)), Duration::from_secs(7));
    assert_eq!(asking.fails(&asks(86_400)), Duration::from_secs(30));
    assert_eq!(asking.course.failures(), 3);
    asking.course.settled();
    assert_eq!(asking.fails(&asks(0)), Duration::from_millis(250));
}

/// Once. A server that forgets every version at once is not asked for list after list.
#[test]
fn after_a_long_absence_a_forgotten_version_costs_no_long_wait() {
    let mut asking = Asking::watching();
    for _ in 0..20 {
        asking.fails(&says(Request::Watch, 503));
    }
    assert_eq!(asking.fails(&says(Request::Watch, 410)), Duration::from_millis(250));
    asking.listed("20", None).expect("a list");
    assert_eq!(asking.fails(&says(Request::Watch, 410)), Duration::from_millis(7500));
}
