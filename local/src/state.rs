//! `cluster.toml`: what is known about a cluster between two commands.

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use starling_core::name::{NodeName, Zone};

use crate::error::{LocalError, failed_to};
use crate::launch::Launch;
use crate::process::ProcessId;

/// The newest format that this program reads, and the one that it writes.
pub(crate) const FORMAT: u32 = 1;
const FILE_NAME: &str = "cluster.toml";
const HEADING: &str = "# Kept by `starling local`. Do not edit while a command runs.\n";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    format: u32,
    pub launch: Launch,
    pub nodes: Vec<Node>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Node {
    pub name: NodeName,
    pub zone: Zone,
    pub address: SocketAddr,
    /// Set when a process is started, taken away when this crate has ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<StartedProcess>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StartedProcess {
    #[serde(flatten)]
    pub id: ProcessId,
    /// When it was started, in seconds since 1970.
    pub since: u64,
}

/// The part of the file that every format has.
#[derive(Deserialize)]
struct AnyFormat {
    format: u32,
}

impl State {
    pub fn new(launch: Launch, nodes: Vec<Node>) -> State {
        State { format: FORMAT, launch, nodes }
    }

    /// # Errors
    /// [`LocalError::NoCluster`], [`LocalError::NewerFormat`], [`LocalError::Malformed`], or that it cannot be read.
    pub fn load(dir: &Path) -> Result<State, LocalError> {
        let path = path_in(dir);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(LocalError::NoCluster { dir: dir.to_owned() });
            }
            read => read.map_err(failed_to("read", &path))?,
        };
        parse(&text, &path)
    }

    /// Replaces the file in one step: a reader, and a crash, find the old state or the new one.
    pub fn save(&self, dir: &Path) -> Result<(), LocalError> {
        let path = path_in(dir);
        let body = toml::to_string(self).expect("strings, numbers and tables can be written as TOML");
        replace(&path, &format!("{HEADING}{body}")).map_err(failed_to("write", &path))
    }

    pub fn remove(dir: &Path) -> Result<(), LocalError> {
        let path = path_in(dir);
        fs::remove_file(&path).map_err(failed_to("remove", &path))
    }
}

fn path_in(dir: &Path) -> PathBuf {
    dir.join(FILE_NAME)
}

fn parse(text: &str, path: &Path) -> Result<State, LocalError> {
    let malformed = |source| LocalError::Malformed { path: path.to_owned(), source: Box::new(source) };
    // The format comes first, and alone: a newer file need not make sense in any other way.
    let AnyFormat { format: found } = toml::from_str(text).map_err(malformed)?;
    if found > FORMAT {
        return Err(LocalError::NewerFormat { path: path.to_owned(), found });
    }
    toml::from_str(text).map_err(malformed)
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_extension("toml.new");
    let mut file = fs::File::create(&temporary)?;
    file.write_all(text.as_bytes())?;
    // Without it a power failure may leave an empty file under the final name.
    file.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_reads_back_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let id = ProcessId { pid: 41, start_ticks: 9, boot: "b".to_owned() };
        let launch = Launch { args: vec!["--zap".to_owned()], env: [("A".into(), "1".into())].into(), binary: None };
        let node = |name: &str, process| Node {
            name: name.parse().unwrap(),
            zone: "z1".parse().unwrap(),
            address: "127.0.0.1:7401".parse().unwrap(),
            process,
        };
        let state = State::new(launch, vec![node("n1", Some(StartedProcess { id, since: 5 })), node("n2", None)]);
        state.save(dir.path()).unwrap();
        assert_eq!(State::load(dir.path()).unwrap(), state);
    }

    #[test]
    fn a_newer_format_is_refused_before_anything_else_is_read() {
        let refused = parse("format = 2\nnodes = 'elsewhere'", Path::new("/c/cluster.toml")).unwrap_err();
        assert!(matches!(refused, LocalError::NewerFormat { found: 2, .. }), "{refused}");
    }
}
