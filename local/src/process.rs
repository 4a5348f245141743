//! One process, told apart from every other that has or will have its pid.
//!
//! The kernel gives a pid away again once its process is gone. So a process is remembered by its pid, the time of its
//! start (proc_pid_stat(5), field 22, in ticks since the boot), and the boot. To signal it:
//!
//! 1. open a pidfd for the pid, which from then on means whoever has the pid now, and nobody after;
//! 2. read the start time of whoever has the pid: if it is the remembered one, that process has had the pid all along,
//!    and the pidfd means it;
//! 3. signal through the pidfd.
//!
//! A pidfd also becomes readable when its process ends, whoever its parent is: nobody has to ask again and again.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// How often the kernel is asked whether a process has paused: of that it tells nobody but the parent.
const SETTLE_POLL: Duration = Duration::from_millis(1);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    pub pid: u32,
    /// In ticks since the boot.
    pub start_ticks: u64,
    /// The kernel's name of that boot: after the next one, a process may have the same pid and the same ticks.
    pub boot: String,
}

impl ProcessId {
    /// The identity of a process that is known to be there: a child that was not yet waited for.
    pub fn of(pid: u32) -> io::Result<ProcessId> {
        let stat = Stat::read(&format!("/proc/{pid}/stat"))?.ok_or(io::ErrorKind::NotFound)?;
        Ok(ProcessId { pid, start_ticks: stat.start_ticks, boot: this_boot()? })
    }

    /// The process, if it has not ended. One that nobody has waited for yet (a zombie) has ended.
    pub fn open(&self) -> io::Result<Option<Process>> {
        if self.boot != this_boot()? {
            return Ok(None);
        }
        let Some(pidfd) = open_pidfd(self.pid)? else { return Ok(None) };
        let stat = Stat::read(&format!("/proc/{}/stat", self.pid))?;
        if stat.is_none_or(|stat| stat.start_ticks != self.start_ticks) {
            return Ok(None);
        }
        let process = Process { pid: self.pid, pidfd };
        Ok(if process.wait_end(Duration::ZERO)? { None } else { Some(process) })
    }
}

/// A process that had not ended when it was opened.
#[derive(Debug)]
pub(crate) struct Process {
    pub pid: u32,
    pidfd: OwnedFd,
}

impl Process {
    /// Nothing happens to a process that has ended since.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Whether the process has ended, or ends within `limit`.
    pub fn wait_end(&self, limit: Duration) -> io::Result<bool> {
        let deadline = deadline_after(limit);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
            match poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&timeout)) {
                Ok(ready) => return Ok(ready > 0),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Whether SIGSTOP has taken hold of every thread. A thread in an uninterruptible wait stops only after it.
    pub fn is_paused(&self) -> io::Result<bool> {
        let tasks = match fs::read_dir(format!("/proc/{}/task", self.pid)) {
            Err(error) if is_gone(&error) => return Ok(false),
            tasks => tasks?,
        };
        let mut some_thread = false;
        for task in tasks {
            let path = task?.path().join("stat");
            match Stat::read(&path.to_string_lossy())? {
                Some(stat) if stat.state != 'T' => return Ok(false),
                Some(_) => some_thread = true,
                None => {}
            }
        }
        Ok(some_thread)
    }

    /// Whether the process is paused (or, if `paused` is false, not), or becomes so before `limit` or its end.
    pub fn wait_paused(&self, paused: bool, limit: Duration) -> io::Result<bool> {
        let deadline = deadline_after(limit);
        while self.is_paused()? != paused {
            if Instant::now() >= deadline || self.wait_end(SETTLE_POLL)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A limit beyond what the clock can show means one that is never reached.
pub(crate) fn deadline_after(limit: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
    Instant::now() + limit.min(FAR)
}

/// `None` if the pid is nobody's, or now a mere thread's.
fn open_pidfd(pid: u32) -> io::Result<Option<OwnedFd>> {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => Ok(Some(pidfd)),
        Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn this_boot() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// What we need of proc_pid_stat(5).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: char,
    start_ticks: u64,
}

impl Stat {
    /// `None` if the process or thread is gone.
    fn read(path: &str) -> io::Result<Option<Stat>> {
        match fs::read(path) {
            Ok(line) => Stat::parse(&String::from_utf8_lossy(&line)).map(Some).ok_or_else(|| unreadable(path)),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn parse(line: &str) -> Option<Stat> {
        // The second field is the program's name in parentheses, which may itself hold spaces and parentheses.
        let (_, after_name) = line.rsplit_once(')')?;
        let mut fields = after_name.split_whitespace();
        let state = fields.next()?.chars().next()?;
        // Field 3 is taken; 18 more are passed over to reach field 22.
        let start_ticks = fields.nth(18)?.parse().ok()?;
        Some(Stat { state, start_ticks })
    }
}

/// A process that ends while its file is being read makes the read fail rather than the open.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

fn unreadable(path: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{path} is not in the form of proc_pid_stat(5)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_name_may_hold_spaces_and_parentheses() {
        let line = "7 (a) T (b c) S 1 7 7 0 -1 4194560 10 0 0 0 0 0 0 0 20 0 1 0 4711 8000 100 18446744073709551615";
        assert_eq!(Stat::parse(line), Some(Stat { state: 'S', start_ticks: 4711 }));
        assert_eq!(Stat::parse("7 (cut short) S 1 7"), None);
    }

    #[test]
    fn a_process_with_another_start_or_of_another_boot_is_not_the_remembered_one() {
        let this = ProcessId::of(std::process::id()).unwrap();
        assert!(this.open().unwrap().is_some());
        let earlier = ProcessId { start_ticks: this.start_ticks - 1, ..this.clone() };
        assert!(earlier.open().unwrap().is_none());
        let other_boot = ProcessId { boot: "another".to_owned(), ..this };
        assert!(other_boot.open().unwrap().is_none());
    }
}
