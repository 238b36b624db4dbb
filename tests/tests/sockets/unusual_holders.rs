//! Connected UDP sockets that `/proc/<pid>/fd` of no process shows: whoever holds them, they are taken to a living
//! endpoint when theirs goes.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::{SocketAddr, UdpSocket},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::net::UnixDatagram,
    },
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::mpsc,
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{
    cmsg_space,
    sched::{CloneFlags, unshare},
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg},
};
use sidestep_tests::{
    Agent, Place, cluster as new_cluster,
    cluster::{Cluster, at, service},
    skip,
    traffic::Asker,
};

/// Longest time until a socket is with the new endpoint, from when that became possible.
const NOTICE: Duration = Duration::from_secs(3);
/// Longest time until the user of a socket that cannot be moved hears that it is of no use any more.
const VERDICT: Duration = Duration::from_secs(20);
/// How often is asked meanwhile.
const PERIOD: Duration = Duration::from_millis(50);
/// What `status` says of sockets that are known to be stale, and not moved.
const TOLD: &str = "stale";

const VIP: &str = "10.96.0.80:53";

/// A Service of which one backend is the endpoint.
fn start(cluster: &Cluster) -> Agent {
    let service = service("stats", &["10.96.0.80"]);
    cluster.lab.manifests().write("stats.yaml", &[&service]).expect("manifests");
    endpoint(cluster, 0);
    cluster.lab.agent().expect("an agent")
}

fn endpoint(cluster: &Cluster, backend: usize) {
    cluster.endpoints("stats", &cluster.slice_v4("stats", [backend])).expect("manifests");
}

/// Asks until the new endpoint answers.
fn assert_moved(what: &str, mut ask: impl FnMut() -> io::Result<String>) {
    let start = Instant::now();
    loop {
        match ask() {
            Ok(server) if server == "pod-1" => break,
            other => {
                assert!(start.elapsed() < NOTICE, "{what}: not moved after {:?}: {other:?}", start.elapsed());
            }
        }
        sleep(PERIOD);
    }
    println!("{what}: moved after {:?}", start.elapsed());
}

/// A socket here that is connected to the Service, and has been answered.
fn connected() -> Asker {
    let asker = Asker::v4().expect("a socket");
    asker.connect(at(VIP)).expect("connect");
    assert_eq!(asker.ask_peer().expect("an answer").0.server, "pod-0");
    asker.socket().set_read_timeout(Some(PERIOD)).expect("a limit");
    asker
}

fn server(asker: &Asker) -> io::Result<String> {
    Ok(asker.ask_peer()?.0.server)
}

/// Whether `status` tells of a socket that it cannot move.
fn is_told(cluster: &Cluster) -> bool {
    let output = cluster.lab.sidestep(&["status"]).expect("status runs");
    String::from_utf8_lossy(&output.stdout).contains(TOLD)
}

/// ST-5: `/proc/<pid>/fd` of such a process is empty; its threads have what is missing there.
#[test]
fn a_socket_of_a_process_whose_main_thread_has_ended_is_moved() {
    let cluster = new_cluster!(2);
    let _agent = start(&cluster);
    let mut headless = Headless::start(&cluster.client, at(VIP));
    assert_eq!(headless.ask().expect("an answer"), "pod-0");
    endpoint(&cluster, 1);
    assert_moved("main thread ended", || headless.ask());
}

/// A running `headless`; ended on drop.
struct Headless {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Headless {
    fn start(place: &Place, address: SocketAddr) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_headless"));
        command.arg(address.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = place.run(|| command.spawn()).expect("a process");
        let requests = child.stdin.take().expect("piped");
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, requests, answers }
    }

    fn ask(&mut self) -> io::Result<String> {
        self.requests.write_all(b"who?\n")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }
}

impl Drop for Headless {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// ST-5: a thread that shares its descriptors with nobody (`unshare(CLONE_FILES)`).
#[test]
fn a_socket_in_a_threads_own_descriptor_table_is_moved() {
    let cluster = new_cluster!(2);
    let _agent = start(&cluster);
    cluster.client.run(|| {
        unshare(CloneFlags::CLONE_FILES).expect("a table of descriptors of its own");
        let asker = connected();
        endpoint(&cluster, 1);
        assert_moved("a table of its own", || server(&asker));
    });
}

/// Sends a socket to whoever reads at the other end.
fn send_socket(way: &UnixDatagram, socket: &UdpSocket) {
    let sockets = [socket.as_raw_fd()];
    let message = ControlMessage::ScmRights(&sockets);
    let bytes = [io::IoSlice::new(b"s")];
    sendmsg::<()>(way.as_raw_fd(), &bytes, &[message], MsgFlags::empty(), None).expect("sendmsg");
}

/// Takes the socket that somebody sent.
fn receive_socket(way: &UnixDatagram) -> UdpSocket {
    let mut byte = [0; 1];
    let mut bytes = [io::IoSliceMut::new(&mut byte)];
    let mut room = cmsg_space!(RawFd);
    let message =
        recvmsg::<()>(way.as_raw_fd(), &mut bytes, Some(&mut room), MsgFlags::empty()).expect("recvmsg");
    let received = message.cmsgs().expect("all of them").find_map(|message| match message {
        ControlMessageOwned::ScmRights(sockets) => sockets.first().copied(),
        _ => None,
    });
    let descriptor = received.expect("a socket was sent");
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(descriptor) }.into()
}

/// ST-5: on its way to another process the socket is nobody's. `status` tells of it; once received it is moved.
#[test]
fn a_socket_in_flight_is_told_of_and_moved_when_it_is_received() {
    let cluster = new_cluster!(2);
    let _agent = start(&cluster);
    let (out, back) = UnixDatagram::pair().expect("a pair");
    let socket = cluster.client.run(connected).into_socket().expect("a socket");
    send_socket(&out, &socket);
    drop(socket);
    endpoint(&cluster, 1);
    sidestep_tests::eventually("status tells of the socket in flight", || is_told(&cluster));
    // Longer than anything that follows the change at once.
    sleep(NOTICE);
    let socket = receive_socket(&back);
    socket.set_read_timeout(Some(PERIOD)).expect("a limit");
    assert_moved("in flight", || {
        socket.send(b"who?")?;
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..length]).split(' ').next().unwrap_or_default().to_owned())
    });
    sidestep_tests::eventually("status tells nothing any more", || !is_told(&cluster));
}

/// ST-5: no process is in the namespace, and no mount names it: its sockets alone keep it.
#[test]
fn a_socket_that_alone_holds_its_namespace_is_moved() {
    let cluster = new_cluster!(2);
    let _agent = start(&cluster);
    let left = cluster.lab.pod("left").expect("a pod");
    let cgroup = left.cgroup().clone();
    let asker = left.run(connected);
    drop(left);
    assert_eq!(server(&asker).expect("the namespace is still there"), "pod-0");
    endpoint(&cluster, 1);
    assert_moved("a namespace without processes", || server(&asker));
    drop(cgroup);
}

/// ST-5: a socket that only an `io_uring` knows has no descriptor to borrow. Its user hears of it all the same.
#[test]
fn a_socket_that_only_a_ring_holds_ends_with_an_error() {
    let cluster = new_cluster!(2);
    let _agent = start(&cluster);
    let mut ring = match io_uring::IoUring::new(4) {
        Ok(ring) => ring,
        Err(error) => skip!("io_uring is not allowed here: {error}"),
    };
    let socket = cluster.client.run(connected).into_socket().expect("a socket");
    ring.submitter().register_files(&[socket.as_raw_fd()]).expect("registered");
    drop(socket);
    assert_eq!(ask_ring(&mut ring).expect("an answer").as_deref(), Some("pod-0"));
    endpoint(&cluster, 1);
    let changed = Instant::now();
    let (answered, told) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while answered.send(is_told(&cluster)).is_ok() {
                sleep(PERIOD);
            }
        });
        loop {
            match ask_ring(&mut ring) {
                Err(error) => {
                    println!("{error} after {:?}", changed.elapsed());
                    break;
                }
                // If the kernel can move it, so much the better.
                Ok(Some(server)) if server == "pod-1" => break,
                Ok(_) => {}
            }
            assert!(changed.elapsed() < VERDICT, "a black hole for {:?}", changed.elapsed());
            sleep(PERIOD);
        }
        let was_told = told.try_iter().any(|told| told);
        drop(told);
        assert!(was_told || changed.elapsed() < NOTICE, "status told nothing for {:?}", changed.elapsed());
    });
}

/// Asks over the ring's first file; nothing if no answer came in time.
fn ask_ring(ring: &mut io_uring::IoUring) -> io::Result<Option<String>> {
    use io_uring::{opcode, types::Fixed};

    let (question, mut answer) = (*b"who?", [0; 256]);
    let send = opcode::Send::new(Fixed(0), question.as_ptr(), 4).build();
    complete(ring, &send)?;
    sleep(PERIOD / 5);
    let receive = opcode::Recv::new(Fixed(0), answer.as_mut_ptr(), 256).flags(libc::MSG_DONTWAIT).build();
    match complete(ring, &receive) {
        Ok(length) => {
            let text = String::from_utf8_lossy(&answer[..length]);
            Ok(text.split(' ').next().map(str::to_owned))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// Runs one request, and waits for it.
fn complete(ring: &mut io_uring::IoUring, request: &io_uring::squeue::Entry) -> io::Result<usize> {
    // SAFETY: the buffers of the request outlive this call, which waits for its completion.
    unsafe { ring.submission().push(request) }.expect("room for one request");
    ring.submit_and_wait(1)?;
    let result = ring.completion().next().expect("one completion").result();
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}
