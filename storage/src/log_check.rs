//! A look at RocksDB's log before RocksDB replays it.
//!
//! R3 accepts a torn unsynced tail and nothing else missing, and RocksDB (11.8) has no recovery mode for that. The nearest,
//! which accepts a torn tail, takes a damaged length in a log's last block for one, and a zeroed header for unused space,
//! and drops the acknowledged commits behind it without a word; a certain flipped bit in a record's type makes it loop
//! for ever; a log that is gone altogether is no error in any mode.
//!
//! A commit is one record of the log, and synced before the next is written. So at most the last record can be torn, and
//! a further commit that begins behind a bad spot proves damage. What stays undetected is damage of the last commit: it
//! cannot be told from a torn one.
//!
//! The format (RocksDB's `db/log_format.h`): blocks of 32 KiB; in each, physical records of a header (masked CRC-32C of
//! all that follows the length, length, type) and a payload; zeroes where less than a header fits. A commit is one
//! `FULL` record, or a `FIRST` one, `MIDDLE` ones and a `LAST` one.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

const BLOCK: usize = 32 * 1024;
const HEADER: usize = 7;
const FULL: u8 = 1;
const FIRST: u8 = 2;

#[derive(Debug, thiserror::Error)]
pub(crate) enum LogDamage {
    #[error("its log is gone, and with it every write since it was last flushed; this disk counts as lost")]
    Gone,
    #[error("its log {} is damaged at byte {bad}, before a commit at byte {next}; this disk counts as lost", file.display())]
    Inside { file: PathBuf, bad: u64, next: u64 },
    #[error("its log cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// Checks the logs of the store in `path`, if there is one.
///
/// # Errors
/// [`LogDamage`] if more than an unsynced tail is missing.
pub(crate) fn check(path: &Path) -> Result<(), LogDamage> {
    if !path.join("CURRENT").exists() {
        return Ok(());
    }
    let mut logs = 0;
    for entry in fs::read_dir(path)? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "log") {
            logs += 1;
            if let Some((bad, next)) = commit_behind_a_bad_spot(File::open(&file)?)? {
                return Err(LogDamage::Inside { file, bad, next });
            }
        }
    }
    // An open store always has one, and closing it leaves it there.
    if logs == 0 { Err(LogDamage::Gone) } else { Ok(()) }
}

/// Where the log is bad, and where the next commit begins; nothing if no commit begins behind a bad spot.
fn commit_behind_a_bad_spot(mut log: impl Read) -> io::Result<Option<(u64, u64)>> {
    let mut block = Vec::with_capacity(BLOCK);
    let mut start = 0;
    let mut bad = None;
    loop {
        block.clear();
        log.by_ref().take(BLOCK as u64).read_to_end(&mut block)?;
        if block.is_empty() {
            return Ok(None);
        }
        let mut at = 0;
        while at + HEADER <= block.len() {
            let record = Record::at(&block[at..]);
            if let (Some(bad), Some(Record { begins_commit: true, .. })) = (bad, &record) {
                return Ok(Some((bad, start + at as u64)));
            }
            // Behind a bad spot nothing says where the next record begins, so it is looked for byte by byte.
            at += record.as_ref().map_or(1, |record| record.length);
            if record.is_none() {
                bad = bad.or(Some(start + at as u64 - 1));
            }
        }
        start += block.len() as u64;
    }
}

/// A physical record that is as it was written.
struct Record {
    /// With its header.
    length: usize,
    begins_commit: bool,
}

impl Record {
    fn at(bytes: &[u8]) -> Option<Record> {
        let [c0, c1, c2, c3, l0, l1, kind] = *bytes.first_chunk::<HEADER>()?;
        let length = HEADER + usize::from(u16::from_le_bytes([l0, l1]));
        let summed = bytes.get(HEADER - 1..length)?;
        let sum = crc32c::crc32c(summed).rotate_right(15).wrapping_add(0xa282_ead8);
        let intact = sum == u32::from_le_bytes([c0, c1, c2, c3]);
        intact.then_some(Record { length, begins_commit: matches!(kind, FULL | FIRST) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, body: &[u8]) -> Vec<u8> {
        let summed = [&[kind], body].concat();
        let sum = crc32c::crc32c(&summed).rotate_right(15).wrapping_add(0xa282_ead8);
        let length = u16::try_from(body.len()).unwrap();
        [&sum.to_le_bytes()[..], &length.to_le_bytes(), &summed].concat()
    }

    fn find(log: &[u8]) -> Option<(u64, u64)> {
        commit_behind_a_bad_spot(log).unwrap()
    }

    #[test]
    fn a_flipped_bit_is_damage_unless_it_is_in_the_last_commit() {
        let log: Vec<u8> = (0..4).flat_map(|n| record(FULL, &[n; 30])).collect();
        let last = log.len() - 37;
        assert_eq!(find(&log), None);
        for bit in 0..log.len() * 8 {
            let mut damaged = log.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(find(&damaged).is_some(), bit / 8 < last, "bit {bit}");
        }
    }

    #[test]
    fn a_torn_commit_of_many_blocks_is_no_damage_wherever_the_disk_left_holes() {
        let fragment = |kind| record(kind, &[7; BLOCK - HEADER]);
        let before = record(FULL, &[1; BLOCK - HEADER]);
        let torn = [fragment(FIRST), fragment(3), fragment(3), fragment(4)].concat();
        for hole in 0..4 {
            let mut log = [before.clone(), torn.clone()].concat();
            log[(1 + hole) * BLOCK..][..4096].fill(0);
            assert_eq!(find(&log), None, "a hole in fragment {hole}");
            log.extend(record(FULL, b"more"));
            assert_eq!(find(&log), Some(((1 + hole as u64) * BLOCK as u64, 5 * BLOCK as u64)));
        }
    }

    #[test]
    fn a_blocks_padding_is_not_damage() {
        let mut log = record(FULL, &[1; BLOCK - HEADER - 6]);
        log.extend([0; 6]);
        log.extend(record(FULL, b"in the next block"));
        assert_eq!(find(&log), None);
    }
}
