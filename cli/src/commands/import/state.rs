//! How far an import came, so that the same command can go on.
//!
//! A small TOML file for each (cluster, bucket, input), in `$XDG_CACHE_HOME/starling/import` (or `~/.cache/…`; beside the
//! input if there is neither). It holds the input's fingerprint: on another input, or with other options, its count of
//! records means nothing, and it is refused. It also holds what failed so far, so that the last of several runs reports all
//! of it. It is removed when nothing is left to be done.

use std::env;
use std::fs::{self, File, Metadata, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::commands::import::fingerprint::Fingerprint;
use crate::commands::import::ledger::Ledger;
use crate::failure::Failure;
use crate::report::import::RecordFailure;

/// The only format that this program reads and writes.
const FORMAT: u32 = 2;

/// What has to be the same for records to be the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    pub cluster: String,
    pub bucket: String,
    pub format: String,
    pub key: String,
    pub replace: bool,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    format: u32,
    /// The records up to this one are settled, but for those that failed.
    done: u64,
    /// The input was changed while it was read: which records are settled is anybody's guess.
    #[serde(default)]
    outdated: bool,
    input: Fingerprint,
    options: Options,
    /// Bounded: an import ends when there are too many.
    failures: Vec<RecordFailure>,
}

/// The part of the file that every format has.
#[derive(Deserialize)]
struct AnyFormat {
    format: u32,
}

pub struct StateFile {
    path: PathBuf,
    input: Fingerprint,
    options: Options,
    /// Held for as long as this value lives; the kernel takes it back from a process that dies.
    _lock: File,
}

impl StateFile {
    /// # Errors
    /// The input, or the options, differ from those of the import that the file tells of; or that import still runs.
    pub fn open(input: Fingerprint, options: Options, restart: bool) -> Result<(StateFile, Ledger), Failure> {
        StateFile::open_in(cache_dir(), input, options, restart)
    }

    fn open_in(
        cache: Option<PathBuf>,
        input: Fingerprint,
        options: Options,
        restart: bool,
    ) -> Result<(StateFile, Ledger), Failure> {
        let path = path_for(cache, &input.path, &options);
        let lock = take_lock(&lock_for(&path))?;
        let ledger = if restart { Ledger::default() } else { load(&path, &input, &options)? };
        Ok((StateFile { path, input, options, _lock: lock }, ledger))
    }

    /// Replaces the file in one step: whoever reads it, and a crash, finds the old state or the new one.
    pub fn save(&self, ledger: &Ledger, outdated: bool) -> Result<(), Failure> {
        let saved = Saved {
            format: FORMAT,
            done: ledger.done,
            outdated,
            input: self.input.clone(),
            options: self.options.clone(),
            // A failure ahead of the mark will be met again.
            failures: ledger.failures.range(..=ledger.done).map(|(_, failure)| failure.clone()).collect(),
        };
        let text = toml::to_string(&saved).expect("strings, numbers and tables can be written as TOML");
        let temporary = self.path.with_extension("new");
        fs::write(&temporary, text)
            .and_then(|()| fs::rename(&temporary, &self.path))
            .map_err(|error| Failure::io(format_args!("write {}", self.path.display()), &error))
    }

    /// All is done: nothing to go on with. The lock goes last, while it is held: until then nobody else begins.
    pub fn remove(&self) -> Result<(), Failure> {
        for path in [&self.path, &lock_for(&self.path)] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Failure::io(format_args!("remove {}", path.display()), &error));
                }
                _ => {}
            }
        }
        Ok(())
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

fn lock_for(path: &Path) -> PathBuf {
    path.with_extension("lock")
}

fn take_lock(path: &Path) -> Result<File, Failure> {
    let failed = |error: io::Error| Failure::io(format_args!("write {}", path.display()), &error);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    loop {
        let file = File::options().create(true).append(true).open(path).map_err(failed)?;
        match file.try_lock() {
            // An import that ended meanwhile has removed it, and the next to come would take another.
            Ok(()) if !is_at(&file, path).map_err(failed)? => {}
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::failed("this file is being imported into this bucket by another command")
                    .hint("wait until it has ended"));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
    }
}

/// Whether this path still leads to this file.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let same = |found: Metadata, held: Metadata| (found.dev(), found.ino()) == (held.dev(), held.ino());
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        found => Ok(same(found?, file.metadata()?)),
    }
}

fn load(path: &Path, input: &Fingerprint, options: &Options) -> Result<Ledger, Failure> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ledger::default()),
        read => read.map_err(|error| Failure::io(format_args!("read {}", path.display()), &error))?,
    };
    let restart = "--restart begins anew";
    let malformed = |_| Failure::failed(format!("{} cannot be understood", path.display())).hint(restart);
    let AnyFormat { format } = toml::from_str(&text).map_err(malformed)?;
    if format != FORMAT {
        return Err(
            Failure::failed(format!("{} was written by another version of starling", path.display())).hint(restart)
        );
    }
    let saved: Saved = toml::from_str(&text).map_err(malformed)?;
    let stood = format!("an earlier import stood at record {}", saved.done);
    if saved.outdated {
        return Err(Failure::failed(format!("{} was changed while an earlier import read it", input.path.display()))
            .hint("--restart imports it from its beginning"));
    }
    if !saved.input.has_content_of(input) {
        return Err(Failure::failed(format!("{} has changed since {stood}", input.path.display()))
            .hint("bring the same file back, or --restart to import the changed one from its beginning"));
    }
    if saved.options != *options {
        let Options { format, key, replace, .. } = saved.options;
        let replace = if replace { " --replace" } else { "" };
        return Err(Failure::failed(format!("{stood}, made with --format {format} --key {key}{replace}"))
            .hint("give the same options to go on, or --restart to begin anew"));
    }
    Ok(Ledger::new(saved.done, saved.failures))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::commands::import::ledger::tests::failure;
    use crate::output::bytes::Blob;

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

        fn open(&self, options: Options, restart: bool) -> Result<(StateFile, Ledger), Failure> {
            let input = Fingerprint::of(&self.input)?;
            StateFile::open_in(Some(self.dir.path().join("cache")), input, options, restart)
        }

        /// A run that ends with this.
        fn leave(&self, ledger: &Ledger) -> PathBuf {
            let (state, _) = self.open(options(), false).unwrap();
            state.save(ledger, false).unwrap();
            state.path.clone()
        }
    }

    #[test]
    fn the_next_run_goes_on_behind_the_mark_with_what_failed_before_it() {
        let fixture = Fixture::new();
        let mut ledger = Ledger::default();
        let named = RecordFailure { key: Some(Blob(vec![b'\n', 0xff].into())), ..failure(2, true) };
        for (number, failure) in [(1, None), (2, Some(named.clone())), (3, None), (5, Some(failure(5, true)))] {
            ledger.settle(number, failure);
        }
        fixture.leave(&ledger);
        let (state, found) = fixture.open(options(), false).unwrap();
        assert_eq!(found, Ledger::new(3, [named]), "record 5 lies behind a gap, and is met again");
        state.remove().unwrap();
        drop(state);
        assert_eq!(fixture.open(options(), false).unwrap().1, Ledger::default());
    }

    #[test]
    fn a_changed_file_or_other_options_are_refused_until_a_restart() {
        let fixture = Fixture::new();
        fixture.leave(&Ledger::new(1, []));
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
        assert_eq!(fixture.open(options(), true).unwrap().1, Ledger::default());
    }

    #[test]
    fn the_same_file_brought_back_is_gone_on_with_but_not_after_a_run_that_saw_it_change() {
        let fixture = Fixture::new();
        fixture.leave(&Ledger::new(1, []));
        File::options().write(true).open(&fixture.input).unwrap().set_modified(UNIX_EPOCH).unwrap();
        let (state, ledger) = fixture.open(options(), false).unwrap();
        assert_eq!(ledger, Ledger::new(1, []));
        state.save(&ledger, true).unwrap();
        drop(state);
        let refused = fixture.open(options(), false).err().unwrap();
        assert!(refused.message.ends_with("was changed while an earlier import read it"), "{}", refused.message);
        assert_eq!(fixture.open(options(), true).unwrap().1, Ledger::default());
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
    fn a_finished_import_leaves_nothing_behind_and_its_lock_is_worth_nothing() {
        let fixture = Fixture::new();
        let path = fixture.leave(&Ledger::new(1, []));
        let (state, _) = fixture.open(options(), false).unwrap();
        let late = File::open(lock_for(&path)).unwrap();
        state.remove().unwrap();
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
        drop(state);
        late.try_lock().unwrap();
        assert!(!is_at(&late, &lock_for(&path)).unwrap());
        let _next = fixture.open(options(), false).unwrap();
        assert!(!is_at(&late, &lock_for(&path)).unwrap(), "it is another file by now");
    }

    #[test]
    fn a_state_of_another_format_is_not_guessed_at() {
        let fixture = Fixture::new();
        let path = fixture.leave(&Ledger::default());
        for other in ["format = 1\n", "format = 3\n"] {
            fs::write(&path, other).unwrap();
            let refused = fixture.open(options(), false).err().unwrap();
            assert!(refused.message.ends_with("was written by another version of starling"), "{}", refused.message);
        }
    }
}
