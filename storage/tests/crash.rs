//! Real processes that end at any moment: whatever was acknowledged is there afterwards.
//!
//! Each story starts this very program again for its second role: the ignored tests below are those roles, and do nothing
//! on their own.
#![allow(clippy::unwrap_used, reason = "a helper fails as its test does")]
#![cfg(feature = "rocksdb")]

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::thread;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use starling_core::coordinate::Write;
use starling_core::ids::{Birth, ClusterId, RequestId};
use starling_core::layout::{FirstLayout, Layout, Member};
use starling_core::object::{Seen, SiblingMode, Value};
use starling_core::quorum::ReplicaCount;
use starling_core::stamp::Stamp;
use starling_core::token::PartitionCount;
use starling_storage::{
    Batch, DirectoryError, Engine, EngineError, Expect, OpenError, RocksEngine, Space, Store, StoreLimits,
};
use support::machine::SMALL;
use support::{EPOCH, block_on, key, stored};

/// The directory that a role works in.
const DIRECTORY: &str = "STARLING_CRASH_TEST_DIRECTORY";
const ROUNDS: usize = 6;
const WRITERS: u64 = 4;

fn open(path: &Path) -> Result<Store, OpenError> {
    Store::open_directory(path, &"n1".parse().unwrap(), SMALL, StoreLimits::default())
}

/// The store of a cluster of one.
fn open_as_a_member(path: &Path) -> Store {
    let store = open(path).unwrap();
    let identity = store.identity().clone();
    let member = Member {
        node: identity.node,
        directory: identity.directory,
        name: identity.name,
        zone: "z".parse().unwrap(),
        weight: 1,
        address: "n1:7400".to_owned(),
    };
    let layout = Layout::first(FirstLayout {
        cluster: ClusterId(1),
        partitions: PartitionCount::DEFAULT,
        replicas: ReplicaCount::DEFAULT,
        members: vec![member],
        buckets: BTreeMap::new(),
    });
    store.adopt(layout.unwrap()).unwrap();
    store
}

/// Another process of this program, in one of its roles.
struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(role: &str, directory: &Path) -> Process {
        // A file grown over its limit then gives an error to the process, not the signal's end.
        let script = "trap '' XFSZ; exec \"$@\"";
        let mut child = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", role, "--ignored", "--nocapture"])
            .env(DIRECTORY, directory)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Process { child, lines }
    }

    /// The next line that the role has said; none once the process has ended.
    fn next_said(&mut self) -> Option<String> {
        let said = |line: std::io::Result<String>| line.unwrap().strip_prefix("role: ").map(str::to_owned);
        self.lines.by_ref().find_map(said)
    }

    /// SIGKILL. Returns what was still on its way.
    fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::iter::from_fn(|| self.next_said()).collect()
    }
}

impl Drop for Process {
    /// A story that fails in its middle leaves nobody behind.
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// One line at once, so that a kill cannot cut it in two.
fn say(what: &str) {
    std::io::stdout().lock().write_all(format!("role: {what}\n").as_bytes()).unwrap();
}

/// None if somebody runs all ignored tests: then there is no story.
fn role_directory() -> Option<PathBuf> {
    std::env::var_os(DIRECTORY).map(PathBuf::from)
}

/// The highest number acknowledged for each key.
#[derive(Default)]
struct Acknowledged(BTreeMap<String, u64>);

impl Acknowledged {
    fn note(&mut self, line: &str) {
        let (key, number) = line.split_once(' ').unwrap();
        let number: u64 = number.parse().unwrap();
        let highest = self.0.entry(key.to_owned()).or_default();
        *highest = number.max(*highest);
    }
}

#[test]
fn killing_the_process_loses_no_acknowledged_write() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Acknowledged::default();
    for round in 1..=ROUNDS {
        let mut process = Process::start("role_that_writes_until_it_is_killed", dir.path());
        // The first one acknowledged, or the hundred and fiftieth.
        let wanted = rand::random_range(1..150);
        for _ in 0..wanted {
            acknowledged.note(&process.next_said().expect("the writer lives"));
        }
        process.kill().iter().for_each(|line| acknowledged.note(line));

        let store = open_as_a_member(dir.path());
        assert_eq!(store.run().counter, 2 * round as u64, "each start is a run, the killed ones too");
        for (name, number) in &acknowledged.0 {
            let found = stored(&store, &key("b", name)).unwrap_or_default();
            let numbers: Vec<u64> = found.iter().map(|value| value.parse().unwrap()).collect();
            // A number above it was written and never acknowledged, which may have been done.
            assert!(matches!(numbers[..], [found] if found >= *number), "{name}: {numbers:?}, acknowledged {number}");
        }
        store.close();
    }
    assert!(acknowledged.0.len() > ROUNDS);
}

/// Each of its threads writes keys of its own, and goes on counting under one key, replacing what it has written.
#[test]
#[ignore = "a role in another test's story"]
fn role_that_writes_until_it_is_killed() {
    let Some(directory) = role_directory() else { return };
    let store = Arc::new(open_as_a_member(&directory));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = Arc::clone(&store);
            thread::spawn(move || write_for_ever(&store, writer))
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
}

fn write_for_ever(store: &Store, writer: u64) {
    let counted = format!("count{writer}");
    let before = store.get(&key("b", &counted)).unwrap();
    let highest = before.iter().flat_map(support::values).map(|value| value.parse::<u64>().unwrap()).max();
    let mut seen = before.map(|object| object.seen()).unwrap_or_default();
    for number in highest.unwrap_or(0) + 1.. {
        seen = write(store, &counted, number, &seen);
        let run = store.run().counter;
        write(store, &format!("own{writer}-{run}-{number}"), number, &Seen::default());
    }
}

fn write(store: &Store, name: &str, number: u64, seen: &Seen) -> Seen {
    let write = Write {
        value: Value::Live(number.to_string().into()),
        seen: seen.clone(),
        request: RequestId(rand::random()),
        mode: SiblingMode::Keep,
        wall: Stamp::from_millis(number),
        fresh_birth: Birth(rand::random()),
    };
    let minted = block_on(store.coordinate(EPOCH, key("b", name), write, None)).unwrap();
    say(&format!("{name} {number}"));
    minted.object.seen()
}

#[test]
fn a_directory_that_another_process_has_open_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::start("role_that_writes_until_it_is_killed", dir.path());
    process.next_said().expect("the writer lives");
    assert!(matches!(open(dir.path()), Err(OpenError::Directory(DirectoryError::InUse { .. }))));
    let below = RocksEngine::open(&dir.path().join("db"), Expect::Store, SMALL);
    assert!(matches!(below, Err(EngineError::Open { .. })), "RocksDB has a lock of its own");
    process.next_said().expect("the refused ones have not disturbed it");
    process.kill();
    assert!(open(dir.path()).is_ok(), "no lock outlives its process");
}

#[test]
fn a_commit_that_fails_ends_the_engine_even_if_the_disk_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::start("role_that_runs_into_a_limit", dir.path());
    assert_eq!(process.next_said().as_deref(), Some("done"));
    assert!(process.child.wait().unwrap().success());

    let engine = RocksEngine::open(&dir.path().join("db"), Expect::Store, SMALL).unwrap();
    let found = engine.get_many(Space::Objects, &[b"before", b"behind"]).unwrap();
    assert!(found[0].is_some() && found[1].is_none(), "nothing was taken behind a commit of unknown fate");
    let mut batch = Batch::default();
    batch.put(Space::Objects, b"after", b"v".as_slice());
    engine.commit(batch).unwrap();
}

#[test]
#[ignore = "a role in another test's story"]
fn role_that_runs_into_a_limit() {
    let Some(directory) = role_directory() else { return };
    let engine = RocksEngine::open(&directory.join("db"), Expect::Nothing, SMALL).unwrap();
    let commit = |key: &str, length: usize| {
        let mut batch = Batch::default();
        batch.put(Space::Objects, key, vec![7; length]);
        engine.commit(batch)
    };
    commit("before", 100).unwrap();
    let unlimited = getrlimit(Resource::Fsize);
    setrlimit(Resource::Fsize, Rlimit { current: Some(2_000), ..unlimited }).unwrap();
    assert!(matches!(commit("across", 5_000), Err(EngineError::NotDurable(_))));
    assert_eq!(engine.get(Space::Objects, b"across").unwrap(), None, "nothing of it is visible");
    setrlimit(Resource::Fsize, unlimited).unwrap();
    for _ in 0..3 {
        assert!(matches!(commit("behind", 10), Err(EngineError::NotDurable(_))));
    }
    assert!(engine.get(Space::Objects, b"before").unwrap().is_some(), "reading is possible still");
    say("done");
}
