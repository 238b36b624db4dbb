//! `headless ADDRESS`: a process whose main thread has ended, as that of a runtime may, while another thread holds a
//! connected UDP socket. For each line that it reads it asks its peer, and prints whose answer came, or the error.

use std::{
    io::{self, BufRead},
    net::SocketAddr,
    process::ExitCode,
    thread,
    time::Duration,
};

use sidestep_tests::traffic::Asker;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let address = std::env::args().nth(1).and_then(|address| address.parse::<SocketAddr>().ok());
    let Some(address) = address else {
        eprintln!("usage: headless ADDRESS:PORT");
        return ExitCode::FAILURE;
    };
    thread::spawn(move || {
        let code = i32::from(ask_for_each_line(address).is_err());
        std::process::exit(code);
    });
    // SAFETY: ends this thread and nothing else; what is on its stack belongs to nobody else.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    unreachable!("the thread has ended")
}

fn ask_for_each_line(address: SocketAddr) -> io::Result<()> {
    let asker = Asker::for_address(address)?;
    asker.connect(address)?;
    asker.socket().set_read_timeout(Some(PATIENCE))?;
    for line in io::stdin().lock().lines() {
        line?;
        match asker.ask_peer() {
            Ok((answer, _)) => println!("{}", answer.server),
            Err(error) => println!("{error}"),
        }
    }
    Ok(())
}
