//! Child processes: found, waited for, ended.

use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::{At, Error};

/// A running program, killed when dropped. It stays in the process group of the test, so that whoever ends that group
/// (a terminal, a test runner out of patience) ends it too.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts `command` of Debian's `package`; what it writes goes to `log`.
    pub(crate) fn spawn(mut command: Command, package: &'static str, log: &Path) -> Result<Self, Error> {
        let name = command.get_program().to_string_lossy().into_owned();
        let file = File::create(log).at(log)?;
        let errors = file.try_clone().at(log)?;
        command.stdin(Stdio::null()).stdout(file).stderr(errors);
        let child = command.spawn().map_err(|error| missing(error, &name, package))?;
        Ok(Self {
            child,
            name,
            log: log.to_owned(),
        })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Polls `ready` until it holds, for a minute at most and while the program runs.
    pub(crate) fn wait_until(&mut self, mut ready: impl FnMut() -> bool) -> Result<(), Error> {
        let deadline = Instant::now() + READY_WITHIN;
        while !ready() {
            let ended = self.child.try_wait().at(&self.name)?;
            if ended.is_some() || Instant::now() > deadline {
                return Err(Error::NotReady {
                    program: self.name.clone(),
                    log: self.log_end(),
                });
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Waits until somebody listens at `address`.
    pub(crate) fn wait_for_port(&mut self, address: SocketAddr) -> Result<(), Error> {
        self.wait_until(|| TcpStream::connect(address).is_ok())
    }

    /// Ends the program as a power failure would, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends a signal to the program if it runs.
    pub(crate) fn signal(&mut self, signal: Signal) {
        // Once waited for, the number may belong to somebody else.
        if let (Ok(None), Some(pid)) = (self.child.try_wait(), Pid::from_raw(self.child.id() as i32)) {
            let _ = kill_process(pid, signal);
        }
    }

    /// Asks the program to stop; kills it after ten seconds.
    pub(crate) fn terminate(&mut self) -> Option<ExitStatus> {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + STOP_WITHIN;
        while Instant::now() < deadline {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            thread::sleep(POLL);
        }
        self.kill();
        None
    }

    /// The last lines that the program wrote.
    pub(crate) fn log_end(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        end(&text)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs `command` of Debian's `package` to its end; its output if it succeeds.
///
/// # Errors
/// [`Error::Missing`], or [`Error::Failed`] with the end of what it wrote.
pub fn run(command: &mut Command, package: &'static str) -> Result<Output, Error> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| missing(error, &name, package))?;
    if output.status.success() {
        return Ok(output);
    }
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    Err(Error::Failed {
        command: format!("{command:?}"),
        output: format!("{}: {}", output.status, end(&text)),
    })
}

/// The processes that this one started and that still run.
pub(crate) fn children(parent: i32) -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|id| fields(*id).and_then(|fields| fields.get(1)?.parse().ok()) == Some(parent))
        .collect()
}

/// Processor time that a process has taken, in seconds.
pub(crate) fn cpu_seconds(id: i32) -> Option<f64> {
    let fields = fields(id)?;
    let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some((ticks(11)? + ticks(12)?) as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Processor time of the processes that this one started and that have ended, in seconds.
pub(crate) fn ended_cpu_seconds(id: i32) -> Option<f64> {
    let fields = fields(id)?;
    let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some((ticks(13)? + ticks(14)?) as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// What `/proc/ID/stat` says behind the program's name: its state, its parent and so on.
fn fields(id: i32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let behind = stat.rsplit_once(") ")?.1;
    Some(behind.split(' ').map(str::to_owned).collect())
}

/// A loopback port that nobody listens at, below those the system gives to outgoing connections.
///
/// # Errors
/// When no such port is left.
pub fn free_port() -> Result<u16, Error> {
    let random = RandomState::new();
    let ports = (0_u32..1000).map(|attempt| 10_000 + (random.hash_one(attempt) % 20_000) as u16);
    let mut ports = ports.filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    ports
        .next()
        .ok_or_else(|| Error::Answer("no free port on 127.0.0.1".to_owned()))
}

const READY_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(1);
const LOG_END_OCTETS: usize = 2000;

fn missing(error: std::io::Error, program: &str, package: &'static str) -> Error {
    match error.kind() {
        std::io::ErrorKind::NotFound => Error::Missing {
            program: program.to_owned(),
            package,
        },
        _ => Error::Io {
            place: program.to_owned(),
            source: error,
        },
    }
}

fn end(text: &[u8]) -> String {
    String::from_utf8_lossy(&text[text.len().saturating_sub(LOG_END_OCTETS)..])
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_names_its_package() {
        let error = run(&mut Command::new("no-such-program"), "some-package").unwrap_err();
        assert_eq!(
            error.to_string(),
            "no-such-program is not installed; on Debian: apt-get install some-package"
        );
    }

    #[test]
    fn a_program_ends_with_its_guard() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sleep");
        command.arg("1000");
        let process = Process::spawn(command, "coreutils", &folder.path().join("log")).unwrap();
        let id = process.id();
        assert!(Path::new(&format!("/proc/{id}")).exists());
        drop(process);
        assert!(!Path::new(&format!("/proc/{id}")).exists());
    }
}
