//! What RocksDB's log may look like at a start, and what must be refused (R3): a torn tail is accepted, as a crash in the
//! middle of an unsynced write leaves it; whatever else is missing or damaged would be acknowledged writes.
#![allow(clippy::unwrap_used, reason = "a helper fails as its test does")]
#![cfg(feature = "rocksdb")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use starling_storage::{Batch, Engine, EngineError, Expect, RocksEngine, RocksOptions, Space};
use support::machine::SMALL;

/// Bytes of the log's header of a record: checksum (4), length (2), type (1).
const HEADER: usize = 7;
/// A log is a sequence of such blocks; no physical record spans two.
const BLOCK: usize = 32 * 1024;

/// The files of a store as a killed process leaves them, with its one log apart.
struct Image {
    files: Vec<(String, Vec<u8>)>,
    log_name: String,
    log: Vec<u8>,
    /// Where each commit begins in the log, the header included.
    starts: Vec<usize>,
    values: Vec<Vec<u8>>,
}

/// A store with these values under 0, 1, 2, ..., one commit each, copied while its engine is still open.
fn image(values: Vec<Vec<u8>>) -> Image {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let engine = RocksEngine::open(&path, Expect::Nothing, SMALL).unwrap();
    let log_path = the_log(&path);
    let mut starts = Vec::new();
    for (n, value) in values.iter().enumerate() {
        starts.push(usize::try_from(fs::metadata(&log_path).unwrap().len()).unwrap());
        let mut batch = Batch::default();
        batch.put(Space::Objects, [u8::try_from(n).unwrap()], value.clone());
        engine.commit(batch).unwrap();
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(&path).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.path() != log_path && name != "LOCK" {
            files.push((name, fs::read(entry.path()).unwrap()));
        }
    }
    let log_name = log_path.file_name().unwrap().to_str().unwrap().to_owned();
    Image { files, log_name, log: fs::read(&log_path).unwrap(), starts, values }
}

/// Six records of some 50 bytes.
fn small_image() -> Image {
    image((0..6u8).map(|n| vec![b'a' + n; 20]).collect())
}

fn the_log(path: &Path) -> PathBuf {
    let files = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let logs: Vec<PathBuf> =
        files.filter(|file| file.extension().is_some_and(|extension| extension == "log")).collect();
    assert_eq!(logs.len(), 1, "{logs:?}");
    logs[0].clone()
}

#[derive(Debug, PartialEq, Eq)]
enum Start {
    /// Which of the image's commits are there.
    With(Vec<usize>),
    Refused,
}

impl Image {
    /// Starts a store from the image with this log, or without one.
    fn start_with(&self, log: Option<&[u8]>) -> Start {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in &self.files {
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        if let Some(log) = log {
            fs::write(dir.path().join(&self.log_name), log).unwrap();
        }
        match open_unless_it_hangs(dir.path().to_owned()) {
            Err(EngineError::Open { .. }) => Start::Refused,
            Err(other) => panic!("not an error of opening: {other}"),
            Ok(engine) => Start::With(self.found_in(&engine)),
        }
    }

    fn found_in(&self, engine: &RocksEngine) -> Vec<usize> {
        let found = engine.scan(Space::Objects, b"", None, usize::MAX).unwrap();
        let number = |key: &[u8]| usize::from(key[0]);
        for (key, value) in &found {
            assert_eq!(*value, self.values[number(key)], "a commit came back changed");
        }
        found.iter().map(|(key, _)| number(key)).collect()
    }

    fn all(&self) -> Start {
        Start::With((0..self.values.len()).collect())
    }

    fn all_but_the_last(&self) -> Start {
        Start::With((0..self.values.len() - 1).collect())
    }
}

fn open_unless_it_hangs(path: PathBuf) -> Result<RocksEngine, EngineError> {
    let (answer, opened) = mpsc::channel();
    thread::spawn(move || drop(answer.send(RocksEngine::open(&path, Expect::Store, SMALL))));
    opened.recv_timeout(Duration::from_secs(20)).expect("opening a damaged store hangs")
}

fn flipped(log: &[u8], at: usize, bits: u8) -> Vec<u8> {
    let mut damaged = log.to_vec();
    damaged[at] ^= bits;
    damaged
}

#[test]
fn an_undamaged_log_is_replayed_in_full() {
    let image = small_image();
    assert_eq!(image.start_with(Some(&image.log)), image.all());
}

#[test]
fn any_flipped_bit_in_the_header_of_a_record_before_the_last_is_refused() {
    let image = small_image();
    for record in [0, 2] {
        for at in image.starts[record]..image.starts[record] + HEADER {
            for bit in 0..8 {
                let started = image.start_with(Some(&flipped(&image.log, at, 1 << bit)));
                assert_eq!(started, Start::Refused, "bit {bit} of byte {at}, in record {record}");
            }
        }
    }
}

#[test]
fn any_damaged_byte_in_the_body_of_a_record_before_the_last_is_refused() {
    let image = small_image();
    for at in image.starts[2] + HEADER..image.starts[3] {
        assert_eq!(image.start_with(Some(&flipped(&image.log, at, 0xff))), Start::Refused, "byte {at}");
    }
}

#[test]
fn a_zeroed_record_is_refused() {
    let image = small_image();
    let (from, to) = (image.starts[2], image.starts[3]);
    let mut zeroed = image.log.clone();
    zeroed[from..to].fill(0);
    assert_eq!(image.start_with(Some(&zeroed)), Start::Refused);
}

#[test]
fn a_hole_in_a_log_of_many_blocks_is_refused_wherever_it_begins() {
    let image = image((0..20u8).map(|n| vec![n; 9_000]).collect());
    assert!(image.log.len() > 5 * BLOCK);
    // At a block's start, at a record's header, and at a page in the middle of a value.
    for from in [BLOCK, image.starts[5], 2 * BLOCK + 4096] {
        let mut damaged = image.log.clone();
        damaged[from..from + 4096].fill(0);
        assert_eq!(image.start_with(Some(&damaged)), Start::Refused, "zeroes from {from}");
        let mut garbage = image.log.clone();
        garbage[from..from + 512].fill(0xa5);
        assert_eq!(image.start_with(Some(&garbage)), Start::Refused, "garbage from {from}");
    }
}

#[test]
fn a_lost_log_is_refused() {
    let image = small_image();
    assert_eq!(image.start_with(None), Start::Refused);
}

#[test]
fn a_torn_last_record_is_accepted_wherever_it_was_torn() {
    let image = small_image();
    let last = image.starts[5];
    for length in last..image.log.len() {
        assert_eq!(image.start_with(Some(&image.log[..length])), image.all_but_the_last(), "cut at {length}");
    }
}

#[test]
fn a_torn_record_of_many_blocks_is_accepted() {
    let image = image(vec![vec![1; 100], vec![2; 100], vec![3; 5 * BLOCK]]);
    for length in [image.starts[2] + 1, BLOCK, BLOCK + 3, 2 * BLOCK + HEADER, 3 * BLOCK + 17, image.log.len() - 1] {
        assert_eq!(image.start_with(Some(&image.log[..length])), image.all_but_the_last(), "cut at {length}");
    }
}

#[test]
fn garbage_behind_the_last_record_is_taken_for_a_torn_one() {
    let image = small_image();
    let noise: Vec<u8> = (0..300u32).map(|n| (n * n * 31 + n * 7 + 3) as u8).collect();
    for tail in [&[0; 3][..], &[0; 500], &[0xff; 5], &[0xff; 500], &noise] {
        assert_eq!(image.start_with(Some(&[&image.log, tail].concat())), image.all(), "{} bytes", tail.len());
    }
}

#[test]
fn a_log_that_was_accepted_once_is_accepted_again() {
    let image = small_image();
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in &image.files {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    fs::write(dir.path().join(&image.log_name), &image.log[..image.log.len() - 1]).unwrap();
    for _ in 0..3 {
        let engine = RocksEngine::open(dir.path(), Expect::Store, SMALL).unwrap();
        assert_eq!(image.found_in(&engine), [0, 1, 2, 3, 4]);
    }
}

#[test]
fn what_recovery_replayed_no_longer_depends_on_the_log() {
    let image = small_image();
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in &image.files {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    fs::write(dir.path().join(&image.log_name), &image.log).unwrap();
    let engine = RocksEngine::open(dir.path(), Expect::Store, SMALL).unwrap();
    assert_eq!(fs::metadata(the_log(dir.path())).unwrap().len(), 0, "a new log, and nothing in it");
    assert!(engine.used_bytes() > 0, "the commits are in table files");
}

#[test]
fn a_missing_store_is_not_made_where_one_is_expected() {
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path().to_owned(), dir.path().join("nowhere")] {
        for _ in 0..2 {
            let refused = RocksEngine::open(&path, Expect::Store, SMALL);
            assert!(matches!(refused, Err(EngineError::Open { .. })));
        }
        assert!(!path.join("CURRENT").exists());
    }
}

#[test]
fn an_existing_store_is_not_taken_for_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    drop(RocksEngine::open(dir.path(), Expect::Nothing, SMALL).unwrap());
    assert!(matches!(RocksEngine::open(dir.path(), Expect::Nothing, SMALL), Err(EngineError::Open { .. })));
    assert!(RocksEngine::open(dir.path(), Expect::Store, SMALL).is_ok(), "and the refusal did it no harm");
}

#[test]
fn a_store_is_opened_once_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let first = RocksEngine::open(dir.path(), Expect::Nothing, SMALL).unwrap();
    assert!(matches!(RocksEngine::open(dir.path(), Expect::Store, SMALL), Err(EngineError::Open { .. })));
    drop(first);
    assert!(RocksEngine::open(dir.path(), Expect::Store, RocksOptions::default()).is_ok(), "sizes may change");
}
