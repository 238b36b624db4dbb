//! One unconnected socket that asks thousands of Services before it reads an answer, as a resolver or a scanner does.

use std::{
    collections::BTreeSet,
    fmt::Write,
    io,
    net::SocketAddr,
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};
use sidestep_tests::{
    Place, cluster,
    cluster::{DNS, at},
    manifest::{EndpointSlice, Protocol, Service},
    traffic::Asker,
};
use tokio::{net::UdpSocket, sync::oneshot};

const SERVICES: u16 = 8000;
/// The port at the pod of the first Service; the others follow.
const FIRST_PORT: u16 = 20_000;
/// How often what was lost is asked again.
const ROUNDS: usize = 4;
/// Room for all answers.
const ROOM: usize = 64 << 20;
/// So many datagrams, and a pause: a device forgets what is too much at once.
const BURST: u16 = 100;

fn vip(number: u16) -> SocketAddr {
    at(&format!("10.98.{}.{}:53", number / 250, number % 250 + 1))
}

/// A pod that answers at every port with what it was sent. Ends on drop.
struct Ports {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Ports {
    fn start(place: &Place) -> Result<Self> {
        let place = place.clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            place.enter()?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
            runtime.block_on(async {
                for number in 0..SERVICES {
                    let socket = UdpSocket::bind((place.v4, FIRST_PORT + number)).await?;
                    tokio::spawn(async move {
                        let mut request = [0; 64];
                        while let Ok((length, client)) = socket.recv_from(&mut request).await {
                            let _ = socket.send_to(&request[..length], client).await;
                        }
                    });
                }
                let _ = ready.send(());
                let _ = stopped.await;
                anyhow::Ok(())
            })
        });
        is_ready.recv().context("the ports are open")?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Ports {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Each Service has an endpoint of its own, so that every answer can be told.
#[test]
fn a_socket_that_asks_thousands_of_services_knows_whom_each_answer_is_from() {
    let cluster = cluster!(0);
    let pod = cluster.lab.pod("ports").expect("a pod");
    let mut manifests = String::new();
    for number in 0..SERVICES {
        let name = format!("dns-{number}");
        let service = Service::new(&name, &[&vip(number).ip().to_string()]).port(DNS, Protocol::Udp, 53);
        let slice = EndpointSlice::new(&name).port(DNS, Protocol::Udp, FIRST_PORT + number).ready(pod.v4);
        write!(manifests, "{service}---\n{slice}---\n").expect("written");
    }
    cluster.lab.manifests().write_text("services.yaml", &manifests).expect("manifests");
    let _ports = Ports::start(&pod).expect("a server at every port");
    let _agent = cluster.lab.agent().expect("an agent");
    for services in [3000, SERVICES] {
        cluster.client.run(|| {
            let asker = Asker::v4().expect("a socket");
            asker.socket().set_read_timeout(Some(Duration::from_secs(1))).expect("a limit");
            setsockopt(asker.socket(), RcvBufForce, &ROOM).expect("SO_RCVBUFFORCE");
            let mut waiting: BTreeSet<u16> = (0..services).collect();
            let mut wrong = Vec::new();
            // What a busy machine has lost is asked again.
            for _ in 0..ROUNDS {
                for (sent, number) in (0..).zip(&waiting) {
                    asker.socket().send_to(&number.to_be_bytes(), vip(*number)).expect("sendto");
                    if sent % BURST == 0 {
                        thread::sleep(Duration::from_millis(5));
                    }
                }
                while !waiting.is_empty() {
                    let mut answer = [0; 2];
                    let source = match asker.socket().recv_from(&mut answer) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                        received => received.expect("an answer").1,
                    };
                    let number = u16::from_be_bytes(answer);
                    waiting.remove(&number);
                    if source != vip(number) {
                        wrong.push((number, source));
                    }
                }
            }
            assert!(waiting.is_empty(), "no answer from {} of {services}", waiting.len());
            assert!(wrong.is_empty(), "{} of {services}, such as {:?}", wrong.len(), wrong.first());
        });
    }
}
