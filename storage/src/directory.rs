//! The data directory: whose it is, in which format, and that nobody else has it open.
//!
//! ```text
//! DIR/STARLING   who this is, for people and for the next start; written last, so that its presence means "complete"
//! DIR/lock       held while a node runs
//! DIR/db/        RocksDB
//! DIR/db.old/    what was there before, if this directory was begun anew; it may be deleted
//! ```
//!
//! A directory is made in an order that no crash can leave ambiguous: the store is built as `db.new`, then `STARLING.new`
//! is written, then the one is renamed and then the other, each step synced before the next. Whoever finds the directory
//! after a crash either finishes the renames or starts over; a store without its `STARLING` is never taken for an empty
//! one.
//!
//! A directory that may not serve any more, being an old copy (R3), is begun anew under another id: a `STARLING.new` beside
//! the present one says so. The next to open it builds the new store, sets the old one aside, and takes the renames from
//! there. `db.old` is removed before `STARLING.new` is written, so its presence says how far that is.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use starling_core::ids::{DirectoryId, NodeId};
use starling_core::name::NodeName;

/// 2 since values can expire: a build that knows only format 1 would take such records for damaged.
const FORMAT: u32 = 2;
const IDENTITY: &str = "STARLING";
const IDENTITY_NEW: &str = "STARLING.new";
/// While it is written.
const IDENTITY_DRAFT: &str = "STARLING.draft";
const LOCK: &str = "lock";
const STORE: &str = "db";
const STORE_NEW: &str = "db.new";
const STORE_OLD: &str = "db.old";

#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    #[error("data directory {path} is in use by another starling-node; stop that one, or choose another --data-dir")]
    InUse { path: PathBuf },
    #[error(
        "{path} holds other files and no Starling data; choose an empty or a new directory (the first such file: {file})"
    )]
    Foreign { path: PathBuf, file: String },
    #[error(
        "data directory {path} has format {found}; this build knows format {FORMAT} and will not touch a newer one"
    )]
    NewerFormat { path: PathBuf, found: u32 },
    #[error("data directory {path} belongs to node `{owner}`, not to `{asked}`; check --name and --data-dir")]
    OtherNode { path: PathBuf, owner: NodeName, asked: NodeName },
    #[error("{path} is not readable as the identity of a data directory: {reason}")]
    BadIdentity { path: PathBuf, reason: String },
    #[error("cannot use data directory {path}")]
    Io { path: PathBuf, source: io::Error },
}

/// Who a data directory is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub name: NodeName,
    #[serde(with = "hex_text")]
    pub node: NodeId,
    #[serde(with = "hex_text")]
    pub directory: DirectoryId,
}

/// What a directory that is begun anew takes over of the store that was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Inheritance {
    #[default]
    Nothing,
    /// All objects that can be read.
    Objects,
}

impl Inheritance {
    fn is_nothing(&self) -> bool {
        *self == Inheritance::Nothing
    }
}

#[derive(Serialize, Deserialize)]
struct IdentityFile {
    format: u32,
    #[serde(flatten)]
    identity: Identity,
    #[serde(default, skip_serializing_if = "Inheritance::is_nothing")]
    inherits: Inheritance,
}

/// A store that is to be made.
pub struct ToBuild<'a> {
    pub path: PathBuf,
    pub identity: &'a Identity,
    /// The one whose objects it takes over.
    pub heir_of: Option<PathBuf>,
}

/// An open data directory; it is locked until this is dropped.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    identity: Identity,
    _lock: File,
}

impl DataDirectory {
    /// Opens the directory of the node `name`, making it with `fresh` ids if it is new or empty. `build` is called for a
    /// store that is to be made.
    ///
    /// # Errors
    /// [`DirectoryError`]; nothing in the directory is changed by a refusal.
    pub fn open<E: From<DirectoryError>>(
        path: &Path,
        name: &NodeName,
        fresh: (NodeId, DirectoryId),
        build: impl Fn(ToBuild) -> Result<(), E>,
    ) -> Result<DataDirectory, E> {
        let at = |source| DirectoryError::Io { path: path.to_owned(), source };
        create_durably(path).map_err(at)?;
        check_contents(path)?;
        let lock = lock(path)?;
        let identity_path = path.join(IDENTITY);
        if !identity_path.exists() && !path.join(STORE).exists() {
            let identity = Identity { name: name.clone(), node: fresh.0, directory: fresh.1 };
            // Of a first start that did not finish. Nothing in it was ever served.
            remove_store(path, STORE_NEW).map_err(at)?;
            build(ToBuild { path: path.join(STORE_NEW), identity: &identity, heir_of: None })?;
            write_identity(path, &identity, Inheritance::Nothing).map_err(at)?;
            rename(path, STORE_NEW, STORE).map_err(at)?;
        }
        if identity_path.exists() && path.join(IDENTITY_NEW).exists() {
            check_name(path, &read_identity(&identity_path)?.identity, name)?;
            finish_renewal(path, build)?;
        }
        if path.join(IDENTITY_NEW).exists() {
            rename(path, IDENTITY_NEW, IDENTITY).map_err(at)?;
        }
        let old = path.join(STORE_OLD);
        if old.exists() {
            tracing::info!(path = %old.display(), "the store that was here before is kept; it may be deleted");
        }
        let IdentityFile { format, identity, .. } = read_identity(&identity_path)?;
        check_name(path, &identity, name)?;
        if format < FORMAT {
            replace_identity(path, &identity).map_err(at)?;
        }
        Ok(DataDirectory { path: path.to_owned(), identity, _lock: lock })
    }

    /// Has the directory begun anew under that identity by whoever opens it next. What it holds is set aside.
    ///
    /// # Errors
    /// [`DirectoryError::Io`]; it may be done all the same.
    pub fn begin_anew(path: &Path, identity: &Identity, inherits: Inheritance) -> Result<(), DirectoryError> {
        let at = |source| DirectoryError::Io { path: path.to_owned(), source };
        remove_store(path, STORE_OLD).map_err(at)?;
        write_identity(path, identity, inherits).map_err(at)
    }

    /// Says from now on that it belongs to that node, as its store does.
    ///
    /// # Errors
    /// [`DirectoryError::Io`].
    pub fn belong_to(&mut self, node: NodeId) -> Result<(), DirectoryError> {
        if self.identity.node == node {
            return Ok(());
        }
        let at = |source| DirectoryError::Io { path: self.path.clone(), source };
        let identity = Identity { node, ..self.identity.clone() };
        replace_identity(&self.path, &identity).map_err(at)?;
        self.identity = identity;
        Ok(())
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    pub fn store(&self) -> PathBuf {
        self.path.join(STORE)
    }
}

/// Makes a directory and what is missing above it, so that a power cut cannot take the way to it.
fn create_durably(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|at| !at.as_os_str().is_empty() && !at.exists()).collect();
    fs::create_dir_all(path)?;
    for made in missing {
        let above = made.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        sync_directory(above)?;
    }
    Ok(())
}

fn check_name(path: &Path, identity: &Identity, asked: &NodeName) -> Result<(), DirectoryError> {
    if identity.name == *asked {
        return Ok(());
    }
    let (owner, asked) = (identity.name.clone(), asked.clone());
    Err(DirectoryError::OtherNode { path: path.to_owned(), owner, asked })
}

/// Puts the new store in the place of the old one, up to the last rename.
fn finish_renewal<E: From<DirectoryError>>(path: &Path, build: impl Fn(ToBuild) -> Result<(), E>) -> Result<(), E> {
    let at = |source| DirectoryError::Io { path: path.to_owned(), source };
    let IdentityFile { identity, inherits, .. } = read_identity(&path.join(IDENTITY_NEW))?;
    if !path.join(STORE_OLD).exists() {
        remove_store(path, STORE_NEW).map_err(at)?;
        let heir_of = (inherits == Inheritance::Objects).then(|| path.join(STORE));
        build(ToBuild { path: path.join(STORE_NEW), identity: &identity, heir_of })?;
        sync_directory(path).map_err(at)?;
        rename(path, STORE, STORE_OLD).map_err(at)?;
    }
    if path.join(STORE_NEW).exists() {
        rename(path, STORE_NEW, STORE).map_err(at)?;
    }
    Ok(())
}

fn remove_store(path: &Path, store: &str) -> io::Result<()> {
    let store = path.join(store);
    if store.exists() {
        fs::remove_dir_all(store)?;
        sync_directory(path)?;
    }
    Ok(())
}

/// Durable when this returns.
fn rename(path: &Path, from: &str, to: &str) -> io::Result<()> {
    fs::rename(path.join(from), path.join(to))?;
    sync_directory(path)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Refuses a directory that is somebody else's before a single file is made in it.
fn check_contents(path: &Path) -> Result<(), DirectoryError> {
    let at = |source| DirectoryError::Io { path: path.to_owned(), source };
    if path.join(IDENTITY).exists() {
        return Ok(());
    }
    let unfinished = path.join(IDENTITY_NEW).exists();
    for entry in fs::read_dir(path).map_err(at)? {
        let file = entry.map_err(at)?.file_name().to_string_lossy().into_owned();
        let expected =
            matches!(file.as_str(), LOCK | STORE_NEW | IDENTITY_NEW | IDENTITY_DRAFT) || (file == STORE && unfinished);
        if !expected {
            return Err(DirectoryError::Foreign { path: path.to_owned(), file });
        }
    }
    Ok(())
}

fn lock(path: &Path) -> Result<File, DirectoryError> {
    let at = |source| DirectoryError::Io { path: path.to_owned(), source };
    let file = File::options().create(true).append(true).open(path.join(LOCK)).map_err(at)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(DirectoryError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(at(source)),
    }
}

/// As what the directory is to be. Whole, or not there.
fn write_identity(path: &Path, identity: &Identity, inherits: Inheritance) -> io::Result<()> {
    draft_identity(path, identity, inherits)?;
    rename(path, IDENTITY_DRAFT, IDENTITY_NEW)
}

/// From now on the directory says that of itself, in the present format.
fn replace_identity(path: &Path, identity: &Identity) -> io::Result<()> {
    draft_identity(path, identity, Inheritance::Nothing)?;
    rename(path, IDENTITY_DRAFT, IDENTITY)
}

fn draft_identity(path: &Path, identity: &Identity, inherits: Inheritance) -> io::Result<()> {
    let file = IdentityFile { format: FORMAT, identity: identity.clone(), inherits };
    let text = toml::to_string(&file).map_err(io::Error::other)?;
    let mut file = File::create(path.join(IDENTITY_DRAFT))?;
    writeln!(file, "# The identity of a Starling data directory. Do not edit, and do not start a copy of it.")?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn read_identity(path: &Path) -> Result<IdentityFile, DirectoryError> {
    let bad = |reason: String| DirectoryError::BadIdentity { path: path.to_owned(), reason };
    let text = fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| bad(error.message().to_owned()))?;
    let format = table.get("format").and_then(toml::Value::as_integer).ok_or_else(|| bad("no format".to_owned()))?;
    let found = u32::try_from(format).map_err(|_| bad(format!("format {format}")))?;
    if found > FORMAT {
        let path = path.parent().unwrap_or(path).to_owned();
        return Err(DirectoryError::NewerFormat { path, found });
    }
    toml::from_str(&text).map_err(|error| bad(error.message().to_owned()))
}

/// Ids as hexadecimal text.
mod hex_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub fn serialize<T: Display, S: Serializer>(id: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NodeName {
        text.parse().unwrap()
    }

    fn open(path: &Path, node: &str) -> Result<DataDirectory, DirectoryError> {
        DataDirectory::open(path, &name(node), (NodeId(1), DirectoryId(2)), |ToBuild { path, heir_of, .. }| {
            let at = |source| DirectoryError::Io { path: path.clone(), source };
            fs::create_dir(&path).map_err(at)?;
            heir_of.map_or(Ok(()), |old| fs::copy(old.join("data"), path.join("inherited")).map(drop)).map_err(at)
        })
    }

    #[test]
    fn a_directory_keeps_its_identity() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path(), "n1").unwrap().identity().clone();
        let again: Result<_, DirectoryError> =
            DataDirectory::open(dir.path(), &name("n1"), (NodeId(8), DirectoryId(9)), |_| panic!("built twice"));
        assert_eq!(*again.unwrap().identity(), first);
    }

    #[test]
    fn a_directory_in_use_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let _held = open(dir.path(), "n1").unwrap();
        assert!(matches!(open(dir.path(), "n1"), Err(DirectoryError::InUse { .. })));
    }

    #[test]
    fn foreign_newer_and_other_nodes_directories_are_refused() {
        let foreign = tempfile::tempdir().unwrap();
        fs::write(foreign.path().join("thesis.tex"), "").unwrap();
        assert!(matches!(open(foreign.path(), "n1"), Err(DirectoryError::Foreign { .. })));
        assert_eq!(fs::read_dir(foreign.path()).unwrap().count(), 1, "nothing was added");

        let dir = tempfile::tempdir().unwrap();
        open(dir.path(), "n1").unwrap();
        assert!(matches!(open(dir.path(), "n2"), Err(DirectoryError::OtherNode { .. })));

        fs::write(dir.path().join(IDENTITY), "format = 3\nshape = \"unheard of\"\n").unwrap();
        assert!(matches!(open(dir.path(), "n1"), Err(DirectoryError::NewerFormat { found: 3, .. })));
    }

    #[test]
    fn a_directory_of_an_earlier_format_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let identity = open(dir.path(), "n1").unwrap().identity().clone();
        let written = fs::read_to_string(dir.path().join(IDENTITY)).unwrap();
        assert!(written.contains("format = 2\n"));
        fs::write(dir.path().join(IDENTITY), written.replace("format = 2\n", "format = 1\n")).unwrap();
        assert_eq!(*open(dir.path(), "n1").unwrap().identity(), identity);
        assert_eq!(fs::read_to_string(dir.path().join(IDENTITY)).unwrap(), written);
    }

    #[test]
    fn a_store_without_its_identity_is_never_taken_for_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path(), "n1").unwrap();
        fs::remove_file(dir.path().join(IDENTITY)).unwrap();
        assert!(matches!(open(dir.path(), "n1"), Err(DirectoryError::Foreign { .. })));
    }

    #[test]
    fn a_first_start_cut_short_is_finished_by_the_next() {
        let half_built = tempfile::tempdir().unwrap();
        fs::create_dir(half_built.path().join(STORE_NEW)).unwrap();
        assert!(open(half_built.path(), "n1").is_ok());

        let half_named = tempfile::tempdir().unwrap();
        open(half_named.path(), "n1").unwrap();
        fs::rename(half_named.path().join(IDENTITY), half_named.path().join(IDENTITY_NEW)).unwrap();
        assert!(open(half_named.path(), "n1").is_ok());
    }

    const ANEW: DirectoryId = DirectoryId(7);

    /// A directory with something in its store, which is to begin anew.
    fn to_begin_anew() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path(), "n1").unwrap());
        fs::write(dir.path().join(STORE).join("data"), "").unwrap();
        let identity = Identity { name: name("n1"), node: NodeId(1), directory: ANEW };
        DataDirectory::begin_anew(dir.path(), &identity, Inheritance::Nothing).unwrap();
        dir
    }

    fn assert_begun_anew(path: &Path) {
        for _ in 0..2 {
            assert_eq!(open(path, "n1").unwrap().identity().directory, ANEW);
            assert!(!path.join(STORE).join("data").exists() && path.join(STORE_OLD).join("data").exists());
            assert!(!path.join(STORE_NEW).exists() && !path.join(IDENTITY_NEW).exists());
        }
    }

    #[test]
    fn a_directory_begins_anew_and_keeps_what_it_held_once() {
        let dir = to_begin_anew();
        assert_begun_anew(dir.path());
        let again = Identity { name: name("n1"), node: NodeId(1), directory: DirectoryId(8) };
        DataDirectory::begin_anew(dir.path(), &again, Inheritance::Nothing).unwrap();
        assert_eq!(open(dir.path(), "n1").unwrap().identity().directory, DirectoryId(8));
        assert!(!dir.path().join(STORE_OLD).join("data").exists(), "of two it keeps the last");
    }

    #[test]
    fn a_directory_that_begins_anew_may_take_over_what_was_there() {
        let dir = to_begin_anew();
        let identity = Identity { name: name("n1"), node: NodeId(1), directory: ANEW };
        DataDirectory::begin_anew(dir.path(), &identity, Inheritance::Objects).unwrap();
        assert_begun_anew(dir.path());
        assert!(dir.path().join(STORE).join("inherited").exists());
    }

    #[test]
    fn beginning_anew_may_be_cut_short_anywhere() {
        let half_built = to_begin_anew();
        fs::create_dir(half_built.path().join(STORE_NEW)).unwrap();
        assert_begun_anew(half_built.path());

        let set_aside = to_begin_anew();
        fs::create_dir(set_aside.path().join(STORE_NEW)).unwrap();
        fs::rename(set_aside.path().join(STORE), set_aside.path().join(STORE_OLD)).unwrap();
        assert_begun_anew(set_aside.path());

        let in_place = to_begin_anew();
        fs::rename(in_place.path().join(STORE), in_place.path().join(STORE_OLD)).unwrap();
        fs::create_dir(in_place.path().join(STORE)).unwrap();
        assert_begun_anew(in_place.path());
    }

    #[test]
    fn a_directory_goes_by_the_node_that_its_store_belongs_to() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path(), "n1").unwrap().belong_to(NodeId(5)).unwrap();
        let identity = open(dir.path(), "n1").unwrap().identity().clone();
        assert_eq!((identity.node, identity.directory), (NodeId(5), DirectoryId(2)));
    }
}
