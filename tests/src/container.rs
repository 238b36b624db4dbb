//! Processes in a pod with the pod's own name servers, as a container runs them.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use crate::{kept::Kept, lab::Lab, place::Place};

/// Longest time until a process ends that is waited for.
const LONGEST: Duration = Duration::from_secs(20);

/// A pod with a `/etc/resolv.conf`, and a folder for the files of its processes.
#[derive(Clone, Debug)]
pub struct Container {
    place: Place,
    folder: PathBuf,
}

impl Container {
    /// Prepares a container whose processes ask these name servers.
    pub fn new(lab: &Lab, place: &Place, name_servers: &[IpAddr]) -> Result<Self> {
        let folder = lab.folder(place.name())?;
        let container = Self { place: place.clone(), folder };
        let mut lines: Vec<String> =
            name_servers.iter().map(|server| format!("nameserver {server}")).collect();
        lines.push("options timeout:1 attempts:2\n".to_owned());
        container.write("resolv.conf", &lines.join("\n"))?;
        // Only DNS: a resolver service of this machine would answer by itself.
        container.write("nsswitch.conf", "hosts: files dns\n")?;
        Ok(container)
    }

    /// The pod.
    pub const fn place(&self) -> &Place {
        &self.place
    }

    /// The folder for files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes a file into the folder and returns its path.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Starts a process, which is killed with the value that is returned, and if this process ends.
    pub fn start(&self, mut command: Command) -> Result<Process> {
        command.current_dir(&self.folder);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let name = command.get_program().to_string_lossy().into_owned();
        let (place, folder) = (self.place.clone(), self.folder.clone());
        let mut kept = Kept::start(command, move || {
            place.enter()?;
            mount_files(&folder)
        })?;
        let stdout = lines_of(kept.child.stdout.take().context("no pipe")?);
        let stderr = lines_of(kept.child.stderr.take().context("no pipe")?);
        Ok(Process { name, kept, stdout, stderr })
    }

    /// Runs a process to its end and returns its standard output; an exit status other than 0 is an error.
    pub fn output(&self, command: Command) -> Result<String> {
        self.start(command)?.wait()
    }
}

/// Mounts the folder's files over those in `/etc`, for the calling thread and the processes that it starts.
fn mount_files(folder: &Path) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("cannot create a mount namespace")?;
    let nothing = None::<&str>;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)
        .context("cannot make mounts private")?;
    for file in ["resolv.conf", "nsswitch.conf"] {
        let over = Path::new("/etc").join(file);
        if over.exists() {
            mount(Some(&folder.join(file)), &over, nothing, MsFlags::MS_BIND, nothing)
                .with_context(|| format!("cannot mount over {}", over.display()))?;
        }
    }
    Ok(())
}

/// The lines of a pipe. They are read at once, so the writer never waits.
fn lines_of(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    // The thread ends when the last process closes the pipe.
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
    lines
}

/// A process in a container; killed on drop.
#[derive(Debug)]
pub struct Process {
    name: String,
    kept: Kept,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

impl Process {
    /// The next line that it prints from now on, apart from empty ones.
    pub fn next_line(&mut self, timeout: Duration) -> Result<String> {
        self.drop_lines();
        self.line(timeout)
    }

    /// Writes a line to its standard input.
    pub fn write_line(&mut self, line: &str) -> Result<()> {
        let pipe = self.kept.child.stdin.as_mut().context("its input is closed")?;
        writeln!(pipe, "{line}").with_context(|| format!("cannot write to {}", self.name))
    }

    /// Writes a line to its standard input, and returns the next one that it prints, apart from empty ones.
    pub fn ask(&mut self, line: &str, timeout: Duration) -> Result<String> {
        self.drop_lines();
        self.write_line(line)?;
        self.line(timeout)
    }

    fn drop_lines(&self) {
        self.stdout.try_iter().for_each(drop);
    }

    fn line(&self, timeout: Duration) -> Result<String> {
        let start = Instant::now();
        loop {
            let left = timeout.saturating_sub(start.elapsed());
            let line = self.stdout.recv_timeout(left).with_context(|| self.with_stderr("printed nothing"))?;
            if !line.trim().is_empty() {
                return Ok(line);
            }
        }
    }

    /// Waits until it ends and returns the rest of its standard output; an exit status other than 0 is an error.
    pub fn wait(mut self) -> Result<String> {
        drop(self.kept.child.stdin.take());
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.kept.child.try_wait()? {
                break status;
            }
            ensure!(start.elapsed() < LONGEST, self.with_stderr(&format!("took longer than {LONGEST:?}")));
            thread::sleep(Duration::from_millis(2));
        };
        let text = self.stdout.iter().collect::<Vec<_>>().join("\n");
        if !status.success() {
            bail!("{text}\n{}", self.with_stderr(&format!("ended with {status}")));
        }
        Ok(text)
    }

    /// The process's name, what happened to it, and what it printed on standard error.
    fn with_stderr(&self, what: &str) -> String {
        let said: Vec<String> = self.stderr.try_iter().collect();
        format!("{} {what}; on standard error:\n{}", self.name, said.join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if thread::panicking() {
            let printed: Vec<String> = self.stdout.try_iter().collect();
            eprintln!("--- {}\n{}\n---", self.with_stderr("is killed"), printed.join("\n"));
        }
    }
}
