//! By what a file is known again: its size, and what its first and last megabyte hold. Hashing all of a large file would take
//! longer than importing what is left of it. While it is read, also when it was changed: between two runs a file may be moved
//! away and brought back, but during one nobody has a reason to touch it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::failure::Failure;

/// How much of the beginning, and of the end, is hashed.
const HASHED_BYTES: u64 = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    pub path: PathBuf,
    pub size: u64,
    modified_ns: u64,
    hash: String,
}

impl Fingerprint {
    /// # Errors
    /// The file cannot be read.
    pub fn of(path: &Path) -> Result<Fingerprint, Failure> {
        Fingerprint::read(path).map_err(|error| Failure::io(format_args!("read {}", path.display()), &error))
    }

    /// Whether it is the same file, as far as one can tell, or another copy of it.
    pub fn has_content_of(&self, other: &Fingerprint) -> bool {
        (self.size, &self.hash) == (other.size, &other.hash)
    }

    /// # Errors
    /// The file is another one than it was, or cannot be read any more.
    pub fn check_unchanged(&self) -> Result<(), Failure> {
        if Fingerprint::of(&self.path)? == *self {
            return Ok(());
        }
        Err(Failure::failed(format!("{} was changed while it was read", self.path.display()))
            .hint("what was read may be a mixture of old and new: give the same command again with --restart"))
    }

    fn read(path: &Path) -> io::Result<Fingerprint> {
        let mut file = File::open(path)?;
        let metadata = file.metadata()?;
        let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        Ok(Fingerprint {
            path: path.canonicalize()?,
            size: metadata.len(),
            modified_ns: u64::try_from(modified).unwrap_or(u64::MAX),
            hash: hash_of_ends(&mut file, metadata.len())?,
        })
    }
}

fn hash_of_ends(file: &mut File, size: u64) -> io::Result<String> {
    let (mut hash, mut part) = (Xxh3::new(), Vec::new());
    for from in [0, size.saturating_sub(HASHED_BYTES)] {
        part.clear();
        file.seek(SeekFrom::Start(from))?;
        file.take(HASHED_BYTES).read_to_end(&mut part)?;
        hash.update(&part);
    }
    Ok(format!("{:032x}", hash.digest128()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, SystemTime};

    use super::*;

    /// Writes a file that was last changed at a fixed moment.
    fn write(path: &Path, content: &[u8]) {
        fs::write(path, content).unwrap();
        File::options().write(true).open(path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    }

    #[test]
    fn a_copy_has_the_same_content_whenever_it_was_made() {
        let dir = tempfile::tempdir().unwrap();
        let of = |content: &[u8], modified: SystemTime| {
            let path = dir.path().join("records");
            write(&path, content);
            File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
            Fingerprint::of(&path).unwrap()
        };
        let before = of(b"records", SystemTime::UNIX_EPOCH);
        let copy = of(b"records", SystemTime::UNIX_EPOCH + Duration::from_secs(1));
        assert!(copy.has_content_of(&before) && copy != before);
        assert!(!of(b"recorded", SystemTime::UNIX_EPOCH).has_content_of(&before));
        assert!(!of(b"recordz", SystemTime::UNIX_EPOCH).has_content_of(&before));
    }

    #[test]
    fn a_change_at_either_end_is_noticed_though_size_and_time_are_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records");
        let mut content = vec![b'x'; 3 << 20];
        write(&path, &content);
        let before = Fingerprint::of(&path).unwrap();
        before.check_unchanged().unwrap();
        for at in [0, content.len() - 1] {
            content[at] = b'y';
            write(&path, &content);
            assert!(before.check_unchanged().unwrap_err().message.ends_with("was changed while it was read"));
            content[at] = b'x';
        }
        write(&path, &content);
        before.check_unchanged().unwrap();
        fs::remove_file(&path).unwrap();
        assert!(before.check_unchanged().unwrap_err().message.starts_with("cannot read "));
    }
}
