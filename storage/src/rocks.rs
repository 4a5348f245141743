//! RocksDB as an engine.
//!
//! Every batch is written with its sync; RocksDB makes it visible only after. Recovery accepts a log whose last record is
//! torn, which a crash in the middle of an unsynced write leaves, and nothing else missing. RocksDB's default mode would
//! stop silently at the first bad record, and so forget acknowledged writes; the mode chosen here overlooks less, and
//! `log_check.rs` the rest. What recovery replays is flushed to synced table files before `open` returns
//! (`avoid_flush_during_recovery` stays off).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use rocksdb::{
    BlockBasedOptions, BoundColumnFamily, Cache, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode,
    DBWithThreadMode, Direction, ErrorKind, IteratorMode, MultiThreaded, Options, ReadOptions, WriteBatch,
    WriteOptions,
};

use crate::engine::{Batch, Change, Engine, EngineError, Entry, Space};
use crate::log_check;

type Db = DBWithThreadMode<MultiThreaded>;

/// Sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RocksOptions {
    /// Read cache, shared by all spaces.
    pub block_cache: usize,
    /// One write buffer of a space; there are at most two.
    pub write_buffer: usize,
}

impl Default for RocksOptions {
    fn default() -> Self {
        RocksOptions { block_cache: 64 << 20, write_buffer: 32 << 20 }
    }
}

/// Bytes of log after which RocksDB writes tables and drops it.
const MAX_LOG_BYTES: u64 = 256 << 20;

/// Whether there has to be a store already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    Nothing,
    Store,
}

pub struct RocksEngine {
    db: Db,
    path: PathBuf,
    synced: WriteOptions,
    /// A commit has failed. RocksDB itself would resume after a full disk has room again, and take commits behind the
    /// one whose fate is unknown.
    failed: AtomicBool,
}

impl RocksEngine {
    /// # Errors
    /// [`EngineError::Open`] if there is a store where none is expected or the other way round, if it is damaged, or if
    /// another process has it open.
    pub fn open(path: &Path, expect: Expect, options: RocksOptions) -> Result<RocksEngine, EngineError> {
        RocksEngine::open_with(path, expect, options, &database(expect))
    }

    fn open_with(
        path: &Path,
        expect: Expect,
        options: RocksOptions,
        database: &Options,
    ) -> Result<RocksEngine, EngineError> {
        let refused = |reason: String| EngineError::Open { path: path.to_owned(), reason };
        if expect == Expect::Store {
            log_check::check(path).map_err(|damage| refused(damage.to_string()))?;
        }
        let cache = Cache::new_lru_cache(options.block_cache);
        let mut database = database.clone();
        if expect == Expect::Store && lacks_trees_only(path).map_err(|error| refused(error.to_string()))? {
            database.create_missing_column_families(true);
        }
        let families = Space::ALL.map(|space| ColumnFamilyDescriptor::new(space.name(), family(&cache, options)));
        let db = Db::open_cf_descriptors(&database, path, families).map_err(|error| refused(error.to_string()))?;
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        Ok(RocksEngine { db, path: path.to_owned(), synced, failed: AtomicBool::new(false) })
    }

    fn family(&self, space: Space) -> Arc<BoundColumnFamily<'_>> {
        self.db.cf_handle(space.name()).expect("every space is opened with the store")
    }
}

/// A store from before there were hash trees. Any other space that is missing is a damage.
fn lacks_trees_only(path: &Path) -> Result<bool, rocksdb::Error> {
    let there = Db::list_cf(&Options::default(), path)?;
    let missing: Vec<Space> =
        Space::ALL.into_iter().filter(|space| !there.iter().any(|name| name == space.name())).collect();
    Ok(missing == [Space::Trees])
}

fn database(expect: Expect) -> Options {
    let mut options = Options::default();
    options.create_if_missing(expect == Expect::Nothing);
    options.create_missing_column_families(expect == Expect::Nothing);
    options.set_error_if_exists(expect == Expect::Nothing);
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_max_open_files(512);
    // What a start may have to replay, and to check record by record.
    options.set_max_total_wal_size(MAX_LOG_BYTES);
    options.set_max_background_jobs(2);
    options.set_keep_log_file_num(4);
    options.set_max_log_file_size(4 << 20);
    options
}

fn family(cache: &Cache, sizes: RocksOptions) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_bloom_filter(10.0, false);
    table.set_format_version(5);
    table.set_cache_index_and_filter_blocks(true);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(sizes.write_buffer);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_bottommost_compression_type(DBCompressionType::Zstd);
    options.set_level_compaction_dynamic_level_bytes(true);
    options
}

impl Engine for RocksEngine {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(self.db.get_cf(&self.family(space), key).map_err(failed)?.map(Bytes::from))
    }

    fn get_many(&self, space: Space, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, EngineError> {
        let found = self.db.batched_multi_get_cf(&self.family(space), keys.iter().copied(), false);
        found.into_iter().map(|value| Ok(value.map_err(failed)?.map(|v| Bytes::copy_from_slice(&v)))).collect()
    }

    fn scan(&self, space: Space, from: &[u8], until: Option<&[u8]>, limit: usize) -> Result<Vec<Entry>, EngineError> {
        let mut options = ReadOptions::default();
        if let Some(until) = until {
            options.set_iterate_upper_bound(until);
        }
        let entries =
            self.db.iterator_cf_opt(&self.family(space), options, IteratorMode::From(from, Direction::Forward));
        entries.take(limit).map(|entry| entry.map(|(key, value)| (key.into(), value.into())).map_err(failed)).collect()
    }

    fn commit(&self, batch: Batch) -> Result<(), EngineError> {
        if self.failed.load(Ordering::Acquire) {
            return Err(EngineError::NotDurable("an earlier commit has failed".to_owned()));
        }
        let mut writes = WriteBatch::default();
        for Change { space, key, value } in batch.changes() {
            match value {
                Some(value) => writes.put_cf(&self.family(*space), key, value),
                None => writes.delete_cf(&self.family(*space), key),
            }
        }
        self.db.write_opt(writes, &self.synced).map_err(|error| {
            self.failed.store(true, Ordering::Release);
            EngineError::NotDurable(error.to_string())
        })
    }

    fn free_bytes(&self) -> Option<u64> {
        let stat = rustix::fs::statvfs(&self.path).ok()?;
        Some(stat.f_bavail * stat.f_frsize)
    }

    fn used_bytes(&self) -> u64 {
        // Tables and logs; RocksDB deletes files while we look.
        let files = std::fs::read_dir(&self.path).into_iter().flatten().flatten();
        files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
    }
}

fn failed(error: rocksdb::Error) -> EngineError {
    match error.kind() {
        ErrorKind::Corruption => EngineError::Damaged(error.to_string()),
        _ => EngineError::Io(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use rocksdb::statistics::Ticker;

    use super::*;

    /// A process that is killed leaves what it wrote to the kernel, synced or not: only RocksDB itself can tell.
    #[test]
    fn every_commit_syncs_the_log() {
        let directory = tempfile::tempdir().unwrap();
        let mut counting = database(Expect::Nothing);
        counting.enable_statistics();
        let path = directory.path().join("db");
        let engine = RocksEngine::open_with(&path, Expect::Nothing, RocksOptions::default(), &counting).unwrap();
        let before = counting.get_ticker_count(Ticker::WalFileSynced);
        for number in 1..=5_u64 {
            let mut batch = Batch::default();
            batch.put(Space::Objects, number.to_be_bytes(), vec![1]);
            engine.commit(batch).unwrap();
            assert_eq!(counting.get_ticker_count(Ticker::WalFileSynced) - before, number);
        }
    }
}
