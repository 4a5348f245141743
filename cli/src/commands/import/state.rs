//! How far an import came, so that the same command can go on.
//!
//! A small TOML file for each (cluster, bucket, input), in `$XDG_CACHE_HOME/starling/import` (or `~/.cache/…`; beside the
//! input if there is neither). It names the input's size, modification time and the hash of its beginning: on another
//! input, or with other options, its count of records means nothing, and it is refused. It is removed when nothing
//! is left to be done.

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::failure::Failure;

/// The newest format that this program reads, and the one that it writes.
const FORMAT: u32 = 1;
/// How much of the input's beginning is hashed.
const PREFIX_BYTES: u64 = 1 << 20;

/// What has to be the same for records to be the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    pub cluster: String,
    pub bucket: String,
    pub format: String,
    pub key: String,
    pub replace: bool,
}

/// The records numbered up to `done` are settled, but for those that failed and may yet succeed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    pub done: u64,
    pub failed: BTreeSet<u64>,
}

impl Mark {
    /// Whether a record is still to be written.
    pub fn wants(&self, number: u64) -> bool {
        number > self.done || self.failed.contains(&number)
    }
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Input {
    path: PathBuf,
    size: u64,
    modified_ns: u64,
    prefix_hash: String,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    format: u32,
    input: Input,
    options: Options,
    mark: Mark,
}

/// The part of the file that every format has.
#[derive(Deserialize)]
struct AnyFormat {
    format: u32,
}

pub struct StateFile {
    path: PathBuf,
    input: Input,
    options: Options,
    pub mark: Mark,
    /// Settled behind a gap: bounded by what is under way.
    ahead: BTreeSet<u64>,
    /// Held for as long as this value lives; the kernel takes it back from a process that dies. The file stays: somebody
    /// may have opened it to take it next.
    _lock: File,
}

impl StateFile {
    /// # Errors
    /// The input, or the options, differ from those of the import that the file tells of; or that import still runs.
    pub fn open(input: &Path, options: Options, restart: bool) -> Result<StateFile, Failure> {
        StateFile::open_in(cache_dir(), input, options, restart)
    }

    fn open_in(cache: Option<PathBuf>, input: &Path, options: Options, restart: bool) -> Result<StateFile, Failure> {
        let input = Input::of(input).map_err(|error| Failure::io(format_args!("read {}", input.display()), &error))?;
        let path = path_for(cache, &input.path, &options);
        let lock = take_lock(&path.with_extension("lock"))?;
        let mark = if restart { Mark::default() } else { load(&path, &input, &options)? };
        Ok(StateFile { path, input, options, mark, ahead: BTreeSet::new(), _lock: lock })
    }

    /// The input's length in bytes.
    pub fn size(&self) -> u64 {
        self.input.size
    }

    pub fn settle(&mut self, number: u64, failed: bool) {
        if failed {
            self.mark.failed.insert(number);
        } else {
            self.mark.failed.remove(&number);
        }
        if number > self.mark.done {
            self.ahead.insert(number);
        }
        while self.ahead.remove(&(self.mark.done + 1)) {
            self.mark.done += 1;
        }
    }

    /// Replaces the file in one step: whoever reads it, and a crash, finds the old state or the new one.
    pub fn save(&mut self) -> Result<(), Failure> {
        // A failure ahead of the mark will be met again.
        let failed = self.mark.failed.range(..=self.mark.done).copied().collect();
        let saved = Saved {
            format: FORMAT,
            input: self.input.copy(),
            options: self.options.clone(),
            mark: Mark { done: self.mark.done, failed },
        };
        let text = toml::to_string(&saved).expect("strings, numbers and tables can be written as TOML");
        let temporary = self.path.with_extension("new");
        fs::write(&temporary, text)
            .and_then(|()| fs::rename(&temporary, &self.path))
            .map_err(|error| Failure::io(format_args!("write {}", self.path.display()), &error))
    }

    /// All is done: nothing to go on with.
    pub fn remove(&mut self) -> Result<(), Failure> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Failure::io(format_args!("remove {}", self.path.display()), &error))
            }
            _ => Ok(()),
        }
    }
}

impl Input {
    fn of(path: &Path) -> io::Result<Input> {
        let mut prefix = Vec::new();
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        file.take(PREFIX_BYTES).read_to_end(&mut prefix)?;
        let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        Ok(Input {
            path: path.canonicalize()?,
            size: metadata.len(),
            modified_ns: u64::try_from(modified).unwrap_or(u64::MAX),
            prefix_hash: format!("{:032x}", xxh3_128(&prefix)),
        })
    }

    fn copy(&self) -> Input {
        Input { path: self.path.clone(), prefix_hash: self.prefix_hash.clone(), ..*self }
    }
}

fn cache_dir() -> Option<PathBuf> {
    let variable = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
    cache.map(|cache| cache.join("starling/import"))
}

fn path_for(cache: Option<PathBuf>, input: &Path, options: &Options) -> PathBuf {
    let mut hash = Xxh3::new();
    for part in [options.cluster.as_bytes(), options.bucket.as_bytes(), input.as_os_str().as_encoded_bytes()] {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let name = format!("{:032x}.toml", hash.digest128());
    match cache {
        Some(folder) => folder.join(name),
        None => input.with_file_name(format!(".starling-import-{name}")),
    }
}

fn take_lock(path: &Path) -> Result<File, Failure> {
    let failed = |error: io::Error| Failure::io(format_args!("write {}", path.display()), &error);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let file = File::options().create(true).append(true).open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(Failure::failed("this file is being imported into this bucket by another command")
                .hint("wait until it has ended"))
        }
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

fn load(path: &Path, input: &Input, options: &Options) -> Result<Mark, Failure> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Mark::default()),
        read => read.map_err(|error| Failure::io(format_args!("read {}", path.display()), &error))?,
    };
    let restart = "--restart begins anew";
    let malformed = |_| Failure::failed(format!("{} cannot be understood", path.display())).hint(restart);
    let AnyFormat { format } = toml::from_str(&text).map_err(malformed)?;
    if format > FORMAT {
        return Err(Failure::failed(format!("{} was written by a newer starling", path.display())).hint(restart));
    }
    let saved: Saved = toml::from_str(&text).map_err(malformed)?;
    let stood = format!("an earlier import stood at record {}", saved.mark.done);
    if saved.input != *input {
        return Err(Failure::failed(format!("{} has changed since {stood}", input.path.display()))
            .hint("bring the same file back, or --restart to import the changed one from its beginning"));
    }
    if saved.options != *options {
        let Options { format, key, replace, .. } = saved.options;
        let replace = if replace { " --replace" } else { "" };
        return Err(Failure::failed(format!("{stood}, made with --format {format} --key {key}{replace}"))
            .hint("give the same options to go on, or --restart to begin anew"));
    }
    Ok(saved.mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        let text = str::to_owned;
        Options { cluster: text("c"), bucket: text("b"), format: text("jsonl"), key: text("id"), replace: false }
    }

    struct Fixture {
        dir: tempfile::TempDir,
        input: PathBuf,
    }

    impl Fixture {
        fn new() -> Fixture {
            let dir = tempfile::tempdir().unwrap();
            let input = dir.path().join("records.jsonl");
            fs::write(&input, "{}\n").unwrap();
            Fixture { dir, input }
        }

        fn open(&self, options: Options, restart: bool) -> Result<StateFile, Failure> {
            StateFile::open_in(Some(self.dir.path().join("cache")), &self.input, options, restart)
        }
    }

    #[test]
    fn the_mark_moves_over_settled_records_only() {
        let fixture = Fixture::new();
        let mut state = fixture.open(options(), false).unwrap();
        state.settle(2, false);
        state.settle(3, true);
        assert_eq!(state.mark.done, 0);
        state.settle(1, false);
        assert_eq!(
            (state.mark.done, state.mark.wants(3), state.mark.wants(2), state.mark.wants(4)),
            (3, true, false, true)
        );
    }

    #[test]
    fn the_next_run_goes_on_behind_the_mark_and_tries_failures_again() {
        let fixture = Fixture::new();
        let mut state = fixture.open(options(), false).unwrap();
        [(1, false), (2, true), (3, false), (5, true)].into_iter().for_each(|(n, failed)| state.settle(n, failed));
        state.save().unwrap();
        drop(state);
        let mut state = fixture.open(options(), false).unwrap();
        assert_eq!(state.mark, Mark { done: 3, failed: [2].into() });
        state.settle(2, false);
        assert!(state.mark.failed.is_empty());
        state.remove().unwrap();
        drop(state);
        assert_eq!(fixture.open(options(), false).unwrap().mark, Mark::default());
    }

    #[test]
    fn a_changed_file_or_other_options_are_refused_until_a_restart() {
        let fixture = Fixture::new();
        let mut state = fixture.open(options(), false).unwrap();
        state.settle(1, false);
        state.save().unwrap();
        drop(state);
        let other = Options { key: "name".to_owned(), ..options() };
        let refused = fixture.open(other, false).err().unwrap();
        assert_eq!(refused.message, "an earlier import stood at record 1, made with --format jsonl --key id");
        fs::write(&fixture.input, "{}\n{}\n").unwrap();
        let refused = fixture.open(options(), false).err().unwrap();
        assert!(
            refused.message.ends_with("has changed since an earlier import stood at record 1"),
            "{}",
            refused.message
        );
        assert_eq!(fixture.open(options(), true).unwrap().mark, Mark::default());
    }

    #[test]
    fn one_import_of_a_file_runs_at_a_time() {
        let fixture = Fixture::new();
        let first = fixture.open(options(), false).unwrap();
        assert!(fixture.open(options(), false).err().unwrap().message.contains("by another command"));
        drop(first);
        assert!(fixture.open(options(), false).is_ok());
    }

    #[test]
    fn a_newer_state_is_not_guessed_at() {
        let fixture = Fixture::new();
        let mut state = fixture.open(options(), false).unwrap();
        state.save().unwrap();
        let path = state.path.clone();
        drop(state);
        fs::write(&path, "format = 2\n").unwrap();
        assert!(fixture.open(options(), false).err().unwrap().message.ends_with("was written by a newer starling"));
    }
}
