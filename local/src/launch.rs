//! How a node's process is started.

use std::collections::BTreeMap;
use std::env;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Signal, set_parent_process_death_signal, setsid};
use serde::{Deserialize, Serialize};

use crate::forker::on_forker;
use crate::state::Node;

/// What the caller adds to the start of every node. Kept in the cluster's file, so that `start` after `kill` starts the
/// same thing again: no place for secrets.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Launch {
    /// `None` searches for one at each start, see [`find_binary`](crate::find_binary). A relative path is meant from
    /// here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binary: Option<PathBuf>,
    /// Flags after our own. `--seeds` among them takes the place of ours.
    pub args: Vec<String>,
    /// Set for the node. Apart from these it sees our environment without its `STARLING_*`, which are meant for us.
    pub env: BTreeMap<String, String>,
}

impl Launch {
    /// The same for a later command, which is given in another folder.
    pub(crate) fn anchored(self) -> Launch {
        let binary = self.binary.map(|path| std::path::absolute(&path).unwrap_or(path));
        Launch { binary, ..self }
    }
}

/// What becomes of the nodes when this process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// They go on, for the next command to find.
    Independent,
    /// They are killed, however this process ended: a test that is interrupted leaves nothing behind.
    OfThisProcess,
}

/// What is particular to the start of one node.
pub(crate) struct Start<'a> {
    pub binary: &'a Path,
    pub node: &'a Node,
    /// All nodes' addresses.
    pub seeds: String,
    /// Where the node runs: core dumps go there, and no folder of the caller's is kept busy.
    pub folder: &'a Path,
    pub data_dir: &'a Path,
}

impl Start<'_> {
    /// Starts the process and writes its command line to `log`, then its output.
    pub fn spawn(&self, launch: &Launch, lifetime: Lifetime, mut log: File) -> io::Result<Child> {
        let mut command = self.command(launch);
        writeln!(log, "--- starling local: {command:?}")?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        detach(&mut command, lifetime);
        on_forker(move || command.spawn())
    }

    fn command(&self, launch: &Launch) -> Command {
        let Node { name, zone, address, .. } = self.node;
        let mut command = Command::new(self.binary);
        command.args(["--name", name.as_str(), "--zone", zone.as_str(), "--data-dir"]).arg(self.data_dir);
        command.args(["--listen", &address.to_string()]);
        if !launch.args.iter().any(|arg| arg == "--seeds") {
            command.args(["--seeds", &self.seeds]);
        }
        command.args(&launch.args);
        for (variable, _) in env::vars_os() {
            if variable.to_string_lossy().starts_with("STARLING_") {
                command.env_remove(variable);
            }
        }
        command.envs(&launch.env).current_dir(self.folder);
        command
    }
}

/// Cuts what ties the node to us, and puts it into a session of its own. A process group would keep ctrl-C from it as
/// well; but the kernel sends SIGHUP to a group of our session that has a paused member when we, the parent, end.
fn detach(command: &mut Command, lifetime: Lifetime) {
    let prepare = move || {
        keep_only_standard_streams();
        setsid()?;
        match lifetime {
            Lifetime::Independent => Ok(()),
            Lifetime::OfThisProcess => Ok(set_parent_process_death_signal(Some(Signal::KILL))?),
        }
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; `prepare` makes three system calls and
    // does not allocate.
    unsafe { command.pre_exec(prepare) };
}

/// A script that calls us may have given us a pipe or a lock beyond the standard streams. Kept open by a node, the pipe
/// never ends for its reader, and the lock is never free. Before Linux 5.11, which lacks the flag, they are kept.
fn keep_only_standard_streams() {
    let (first, last) = (3, libc::c_uint::MAX);
    // SAFETY: closes nothing now; marks what `exec` is to close, in this process, which is about to call it.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, libc::CLOSE_RANGE_CLOEXEC) };
}
