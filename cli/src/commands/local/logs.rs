//! `starling local logs`.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use starling_local::{ClusterView, NodeRef};

use crate::failure::Failure;
use crate::output::Out;
use crate::report::local::LogReport;

const EXAMPLES: &str = "\
Examples:
  starling local logs 2
  starling local logs n2 --lines 200
  starling local logs 2 --follow           until ctrl-C, across restarts";

/// How often a followed log is looked at.
const EVERY: Duration = Duration::from_millis(200);
/// Most bytes that are read at once.
const CHUNK_BYTES: usize = 64 << 10;

/// Print the end of a node's log
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct LogsArgs {
    /// A number or a name: 2 and n2 are the same
    node: NodeRef,
    /// How many lines, at most 1 MiB
    #[arg(long, short = 'n', default_value_t = 50)]
    lines: usize,
    /// Go on printing what is added
    #[arg(long, short)]
    follow: bool,
}

pub async fn run(args: LogsArgs, view: &ClusterView, out: &Out) -> Result<(), Failure> {
    if args.follow && out.is_json() {
        return Err(Failure::usage("--follow never ends, so it has no JSON value").hint("leave one of the two out"));
    }
    let name = view.resolve(args.node)?;
    let path = view.log_path(&name)?;
    // Its end is noted before its last lines are read: what is added between is printed twice rather than not at all.
    let mut follower =
        Follower::at_end(&path).map_err(|error| Failure::io(format_args!("read {}", path.display()), &error))?;
    let lines = view.log_tail(&name, args.lines)?;
    if lines.is_empty() && !args.follow {
        out.note(format!("{name} has not been started yet: no log"));
    }
    out.print(&LogReport { node: name.to_string(), path, lines })?;
    if !args.follow {
        return Ok(());
    }
    loop {
        tokio::time::sleep(EVERY).await;
        let added = follower.read().map_err(|error| Failure::io("read the log", &error))?;
        out.raw(&added)?;
    }
}

/// Reads what is added to a file, also after it was put aside for a new one.
struct Follower {
    path: PathBuf,
    inode: u64,
    offset: u64,
}

impl Follower {
    fn at_end(path: &Path) -> io::Result<Follower> {
        let (inode, offset) = match path.metadata() {
            Ok(metadata) => (metadata.ino(), metadata.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (0, 0),
            Err(error) => return Err(error),
        };
        Ok(Follower { path: path.to_owned(), inode, offset })
    }

    fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let inode = file.metadata()?.ino();
        if inode != self.inode {
            (self.inode, self.offset) = (inode, 0);
        }
        file.seek(SeekFrom::Start(self.offset))?;
        let mut added = Vec::new();
        file.take(CHUNK_BYTES as u64).read_to_end(&mut added)?;
        self.offset += added.len() as u64;
        Ok(added)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_followed_log_goes_on_in_a_new_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut follower = Follower::at_end(&path).unwrap();
        assert_eq!(follower.read().unwrap(), b"");
        fs::write(&path, "one\n").unwrap();
        assert_eq!(follower.read().unwrap(), b"one\n");
        fs::rename(&path, dir.path().join("log.1")).unwrap();
        fs::write(&path, "two\n").unwrap();
        assert_eq!(follower.read().unwrap(), b"two\n");
        assert_eq!(follower.read().unwrap(), b"");
    }
}
