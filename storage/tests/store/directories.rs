//! Stores in data directories: made once, found again, never mixed up, never replaced by an empty one.

use std::fs;
use std::path::Path;

use starling_core::name::NodeName;
use starling_storage::{DirectoryError, Health, OpenError, Store, StoreLimits};
use tempfile::TempDir;

use crate::support::machine::SMALL;

fn open(path: &Path) -> Result<Store, OpenError> {
    open_as("n1", path)
}

fn open_as(name: &str, path: &Path) -> Result<Store, OpenError> {
    let name: NodeName = name.parse().unwrap();
    Store::open_directory(path, &name, SMALL, StoreLimits::default())
}

/// A directory that a node has run in.
fn used() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).unwrap().close();
    dir
}

#[test]
fn a_directory_is_made_once_and_keeps_its_identity() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("not/there/yet");
    let first = open(&path).unwrap();
    let (identity, run) = (first.identity().clone(), first.run());
    assert_eq!(run.counter, 1);
    drop(first);
    let second = open(&path).unwrap();
    assert_eq!(*second.identity(), identity);
    assert_eq!((second.run().directory, second.run().counter), (run.directory, 2));
    assert!(second.free_bytes().is_some());
}

#[test]
fn two_new_directories_are_two_identities() {
    let (one, other) = (used(), used());
    let (one, other) = (open(one.path()).unwrap(), open(other.path()).unwrap());
    assert_ne!(one.identity().node, other.identity().node);
    assert_ne!(one.identity().directory, other.identity().directory);
}

#[test]
fn a_directory_in_use_is_refused_and_free_as_soon_as_its_store_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    for counter in 1..=5 {
        let store = open(dir.path()).unwrap();
        assert_eq!(store.run().counter, counter);
        assert!(matches!(open(dir.path()), Err(OpenError::Directory(DirectoryError::InUse { .. }))));
    }
}

#[test]
fn a_directory_of_another_node_is_refused() {
    let dir = used();
    assert!(matches!(open_as("n2", dir.path()), Err(OpenError::Directory(DirectoryError::OtherNode { .. }))));
    assert_eq!(open(dir.path()).unwrap().run().counter, 2);
}

/// It would be a wiped disk under its old directory id, which no peer could tell from the full one (R3).
#[test]
fn a_lost_store_is_never_replaced_by_an_empty_one() {
    let dir = used();
    fs::remove_dir_all(dir.path().join("db")).unwrap();
    for _ in 0..2 {
        assert!(matches!(open(dir.path()), Err(OpenError::Engine(_))));
    }
}

#[test]
fn a_store_under_another_directorys_identity_is_refused() {
    let (one, other) = (used(), used());
    fs::remove_dir_all(one.path().join("db")).unwrap();
    fs::rename(other.path().join("db"), one.path().join("db")).unwrap();
    assert!(matches!(open(one.path()), Err(OpenError::MixedUp { .. })));
}

#[test]
fn a_first_start_cut_short_at_any_step_is_finished_or_begun_again() {
    let parts = |dir: &TempDir| dir.path().join("db").exists() && dir.path().join("STARLING").exists();
    // Before the store was complete.
    let half_built = tempfile::tempdir().unwrap();
    fs::create_dir(half_built.path().join("db.new")).unwrap();
    fs::write(half_built.path().join("db.new/000001.log"), "a beginning").unwrap();
    // Before the first rename.
    let built = used();
    fs::rename(built.path().join("db"), built.path().join("db.new")).unwrap();
    fs::rename(built.path().join("STARLING"), built.path().join("STARLING.new")).unwrap();
    // Before the second.
    let half_named = used();
    fs::rename(half_named.path().join("STARLING"), half_named.path().join("STARLING.new")).unwrap();
    for dir in [half_built, built, half_named] {
        let store = open(dir.path()).unwrap();
        assert_eq!(*store.health().borrow(), Health::Serving);
        assert!(parts(&dir) && !dir.path().join("db.new").exists());
    }
}

#[test]
fn a_retired_directory_stays_retired() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).unwrap().retire("an old copy");
    let store = open(dir.path()).unwrap();
    assert_eq!(*store.health().borrow(), Health::Retired { reason: "an old copy".to_owned() });
}

#[test]
fn a_damaged_log_keeps_the_node_from_starting_and_says_so() {
    let dir = used();
    let logs = fs::read_dir(dir.path().join("db")).unwrap().map(|entry| entry.unwrap().path());
    for log in logs.filter(|file| file.extension().is_some_and(|extension| extension == "log")) {
        fs::remove_file(log).unwrap();
    }
    let refused = open(dir.path()).err().unwrap().to_string();
    assert!(refused.contains("its log is gone") && refused.contains("counts as lost"), "{refused}");
}
