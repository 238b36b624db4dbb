//! Which way is tried when, on connectors that say what they are.

use std::sync::Mutex;

use super::*;

/// Fails, hangs or connects, and says that it was tried.
#[derive(Clone)]
struct Stub {
    name: &'static str,
    outcome: Outcome,
    tried: Arc<Mutex<Vec<&'static str>>>,
}

#[derive(Clone, Copy)]
enum Outcome {
    Connects,
    Fails,
    Hangs,
}

impl Service<Uri> for Stub {
    type Response = &'static str;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<&'static str, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { name, outcome, tried } = self.clone();
        tried.lock().expect("no panic").push(name);
        Box::pin(async move {
            match outcome {
                Outcome::Connects => Ok(name),
                Outcome::Fails => Err(name.into()),
                Outcome::Hangs => std::future::pending().await,
            }
        })
    }
}

/// What comes of trying two ways, and which were tried.
async fn try_both(first: Outcome, second: Outcome) -> (Result<&'static str, String>, Vec<&'static str>) {
    let tried = Arc::default();
    let stub = |name, outcome| (Way::Through, Stub { name, outcome, tried: Arc::clone(&tried) });
    let mut ways = InTurn(vec![stub("first", first), stub("second", second)]);
    let came = ways.call(Uri::from_static("https://10.0.0.1")).await.map_err(|error| error.to_string());
    let tried = tried.lock().expect("no panic").clone();
    (came, tried)
}

/// If one way fails or leads to a wrong server, the other one is tried.
#[tokio::test(start_paused = true)]
async fn the_second_way_is_tried_when_the_first_one_fails() {
    use Outcome::{Connects, Fails, Hangs};
    for (outcomes, expected, count) in [
        ((Connects, Fails), Ok("first"), 1),
        ((Fails, Connects), Ok("second"), 2),
        ((Hangs, Connects), Ok("second"), 2),
        ((Fails, Fails), Err("second".to_owned()), 2),
    ] {
        let (came, tried) = try_both(outcomes.0, outcomes.1).await;
        assert_eq!((came, tried.len()), (expected, count));
    }
    let (came, _) = try_both(Fails, Hangs).await;
    assert!(came.expect_err("no connection").contains("within 30s"));
}

/// CF-1: the address of the service account alone is tried through the tables, whoever wrote it down.
#[test]
fn only_the_service_accounts_address_goes_through_the_tables() {
    for (server, service_account, expected) in [
        ("https://192.0.2.1:6443", None, &[Way::Past][..]),
        ("https://192.0.2.1:6443", Some("10.96.0.1"), &[Way::Past]),
        ("https://10.96.0.1", Some("10.96.0.1"), &[Way::Through, Way::Past]),
        ("https://[fd00::1]:443", Some("fd00::1"), &[Way::Through, Way::Past]),
        ("https://control-plane.example:6443", Some("10.96.0.1"), &[Way::Past]),
    ] {
        assert_eq!(ways(&Uri::from_static(server), service_account), expected, "{server}");
    }
}
