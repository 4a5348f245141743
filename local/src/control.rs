//! What is done to processes that run: ending, pausing, and learning how they ended.

use std::fmt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use starling_core::name::NodeName;

use crate::cluster::LocalCluster;
use crate::error::{LocalError, failed};
use crate::node_ref::NodeRef;
use crate::process::{Process, deadline_after};
use crate::view::{NodeState, open_process};

/// How long SIGKILL, SIGSTOP and SIGCONT may take. They need no consent of the process, only for its threads to leave
/// the kernel, which a write to a slow disk delays.
const SIGNAL_LIMIT: Duration = Duration::from_secs(10);

/// How a node's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Status(ExitStatus),
    /// Only the parent learns a process's exit status, and that was not this value; or there was no process yet.
    Unknown,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Status(status) => status.fmt(f),
            Exit::Unknown => f.write_str("exit status not known: another command started it"),
        }
    }
}

impl LocalCluster {
    /// Sends SIGTERM and waits until the process has ended, at most for `limit`. A paused node is resumed for it.
    ///
    /// # Errors
    /// [`LocalError::NotRunning`]; [`LocalError::StillRunning`] after the limit: the caller decides whether to stop it
    /// once more or to kill it.
    pub fn stop(&mut self, which: impl Into<NodeRef>, limit: Duration) -> Result<Exit, LocalError> {
        let (name, process) = self.require_alive(which)?;
        terminate(&name, &process)?;
        self.finish(&name, &process, limit)
    }

    /// Stops all nodes that run or are paused, at once and within one `limit`.
    ///
    /// # Errors
    /// [`LocalError::StillRunning`] names those that are left after the limit; the others have stopped.
    pub fn stop_all(&mut self, limit: Duration) -> Result<(), LocalError> {
        self.end_all(limit, terminate)
    }

    /// Sends SIGKILL and waits until the process has ended: its port is free then.
    ///
    /// # Errors
    /// [`LocalError::NotRunning`]; [`LocalError::StillRunning`] if the kernel has not ended it within 10 s.
    pub fn kill(&mut self, which: impl Into<NodeRef>) -> Result<Exit, LocalError> {
        let (name, process) = self.require_alive(which)?;
        send(&name, &process, Signal::KILL)?;
        self.finish(&name, &process, SIGNAL_LIMIT)
    }

    /// Kills all nodes that run or are paused, at once.
    ///
    /// # Errors
    /// [`LocalError::StillRunning`] names those that the kernel has not ended within 10 s.
    pub fn kill_all(&mut self) -> Result<(), LocalError> {
        self.end_all(SIGNAL_LIMIT, |name, process| send(name, process, Signal::KILL))
    }

    /// Sends SIGSTOP and waits until every thread has stopped.
    ///
    /// # Errors
    /// [`LocalError::NotRunning`], [`LocalError::AlreadyPaused`]; [`LocalError::Unsettled`] if a thread still runs
    /// after 10 s.
    pub fn pause(&mut self, which: impl Into<NodeRef>) -> Result<(), LocalError> {
        let (name, process) = self.require_alive(which)?;
        if let NodeState::Paused { pid } = self.view.state(&name)? {
            return Err(LocalError::AlreadyPaused { name, pid });
        }
        send(&name, &process, Signal::STOP)?;
        settle(name, &process, true)
    }

    /// Sends SIGCONT and waits until the process runs again.
    ///
    /// # Errors
    /// [`LocalError::NotRunning`], [`LocalError::NotPaused`]; [`LocalError::Unsettled`] if it is still paused after
    /// 10 s.
    pub fn resume(&mut self, which: impl Into<NodeRef>) -> Result<(), LocalError> {
        let (name, process) = self.require_alive(which)?;
        if let NodeState::Running { pid } = self.view.state(&name)? {
            return Err(LocalError::NotPaused { name, pid });
        }
        send(&name, &process, Signal::CONT)?;
        settle(name, &process, false)
    }

    /// How the node's process ended; `None` while it runs or is paused.
    ///
    /// # Errors
    /// [`LocalError::UnknownNode`], or that the process cannot be looked at.
    pub fn exited(&mut self, which: impl Into<NodeRef>) -> Result<Option<Exit>, LocalError> {
        let name = self.view.resolve(which)?;
        match open_process(self.view.node(&name))? {
            Some(_) => Ok(None),
            None => self.reap(&name).map(Some),
        }
    }

    /// Before a new start: waits for a child that has ended, and forgets how.
    pub(crate) fn forget_exit(&mut self, name: &NodeName) -> Result<(), LocalError> {
        self.reap(name)?;
        self.exits.remove(name);
        Ok(())
    }

    fn require_alive(&self, which: impl Into<NodeRef>) -> Result<(NodeName, Process), LocalError> {
        let name = self.view.resolve(which)?;
        let node = self.view.node(&name);
        match open_process(node)? {
            Some(process) => Ok((name, process)),
            None => {
                let died = node.process.as_ref().map(|started| started.id.pid);
                Err(LocalError::NotRunning { name, died })
            }
        }
    }

    fn end_all(
        &mut self,
        limit: Duration,
        end: impl Fn(&NodeName, &Process) -> Result<(), LocalError>,
    ) -> Result<(), LocalError> {
        let mut ending = Vec::new();
        for name in self.view.names() {
            if let Some(process) = open_process(self.view.node(&name))? {
                end(&name, &process)?;
                ending.push((name, process));
            }
        }
        let deadline = deadline_after(limit);
        let mut left = Vec::new();
        for (name, process) in ending {
            match self.finish(&name, &process, deadline.saturating_duration_since(Instant::now())) {
                Err(LocalError::StillRunning { .. }) => left.push(name),
                finished => drop(finished?),
            }
        }
        if left.is_empty() { Ok(()) } else { Err(LocalError::StillRunning { running: left, waited: limit }) }
    }

    /// Waits for a process that we have told to end, and notes that it was us.
    fn finish(&mut self, name: &NodeName, process: &Process, limit: Duration) -> Result<Exit, LocalError> {
        wait_end(name, process, limit)?;
        let exit = self.reap(name)?;
        self.view.node_mut(name).process = None;
        self.save()?;
        Ok(exit)
    }

    /// The exit of a process that has ended, which is waited for if it is our child.
    fn reap(&mut self, name: &NodeName) -> Result<Exit, LocalError> {
        if let Some(mut child) = self.children.remove(name) {
            let status = child.wait().map_err(failed(format_args!("wait for {name} (pid {})", child.id())))?;
            self.exits.insert(name.clone(), status);
        }
        Ok(self.exits.get(name).map_or(Exit::Unknown, |status| Exit::Status(*status)))
    }
}

/// SIGTERM stays pending in a paused process until it is resumed.
fn terminate(name: &NodeName, process: &Process) -> Result<(), LocalError> {
    send(name, process, Signal::TERM)?;
    send(name, process, Signal::CONT)
}

fn send(name: &NodeName, process: &Process, signal: Signal) -> Result<(), LocalError> {
    process.signal(signal).map_err(failed(format_args!("signal {name} (pid {})", process.pid)))
}

fn wait_end(name: &NodeName, process: &Process, limit: Duration) -> Result<(), LocalError> {
    let pid = process.pid;
    let ended = process.wait_end(limit).map_err(failed(format_args!("wait for {name} (pid {pid})")))?;
    if ended { Ok(()) } else { Err(LocalError::StillRunning { running: vec![name.clone()], waited: limit }) }
}

fn settle(name: NodeName, process: &Process, paused: bool) -> Result<(), LocalError> {
    let pid = process.pid;
    let settled = process.wait_paused(paused, SIGNAL_LIMIT);
    let settled = settled.map_err(failed(format_args!("look at {name} (pid {pid})")))?;
    if settled {
        return Ok(());
    }
    // Rather than refuse, it may have been killed by somebody else meanwhile.
    wait_end(&name, process, Duration::ZERO).map_err(|_| LocalError::Unsettled {
        name: name.clone(),
        pid,
        paused,
        waited: SIGNAL_LIMIT,
    })?;
    Err(LocalError::NotRunning { name, died: Some(pid) })
}
