//! What durability costs, beside the disk's own price for the same bytes, and what a read costs.
//!
//! The files are made in cargo's target directory: `/tmp` is often no disk at all.

use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;
use divan::Bencher;
use starling_benches::{LIMITS, bytes, key, layout, write};
use starling_core::ids::{DirectoryId, NodeId};
use starling_core::name::ObjectKey;
use starling_core::ring::Epoch;
use starling_storage::{
    Engine, Expect, Identity, MemoryDisk, MemoryEngine, RocksEngine, RocksOptions, Store, StoreLimits,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const VALUE_BYTES: usize = 1024;

fn main() {
    divan::main();
}

/// Writes of new keys that arrive together, until all of them are durable; each sample is one such crowd. Floor: one
/// append and one fdatasync of as many bytes as their records and keys have. One sync is out of reach: the two writers
/// share out the crowd, and the first write of each does not wait for company. What the in-memory engine takes for the
/// same crowd is the store's own time: its queues, its threads, its folding.
mod group_commit {
    use super::*;
    use std::io::Write as _;
    use std::sync::atomic::{AtomicU64, Ordering};

    use divan::counter::ItemsCount;

    const WRITES: [u64; 3] = [1, 16, 64];
    const SAMPLES: u32 = 200;

    #[divan::bench(args = WRITES, sample_count = SAMPLES, sample_size = 1, max_time = 5)]
    fn rocks(bencher: Bencher, writes: u64) {
        let disk = Disk::new();
        crowds(bencher, &disk.open(), writes);
    }

    #[divan::bench(args = WRITES, sample_count = SAMPLES, sample_size = 1, max_time = 5)]
    fn memory(bencher: Bencher, writes: u64) {
        crowds(bencher, &in_memory(), writes);
    }

    #[divan::bench(args = WRITES, sample_count = SAMPLES, sample_size = 1, max_time = 5)]
    fn floor(bencher: Bencher, writes: u64) {
        let disk = Disk::new();
        let mut log = File::create(disk.directory.path().join("log")).expect("a new file");
        let bytes = bytes(bytes_of(writes));
        bencher.counter(ItemsCount::new(writes)).bench_local(|| {
            log.write_all(&bytes).expect("there is room");
            log.sync_data().expect("the disk works");
        });
    }

    fn crowds(bencher: Bencher, store: &Store, writes: u64) {
        let runtime = runtime();
        let value = bytes(VALUE_BYTES);
        let written = AtomicU64::new(0);
        bencher
            .counter(ItemsCount::new(writes))
            .with_inputs(|| written.fetch_add(writes, Ordering::Relaxed))
            .bench_local_values(|first| write_all(&runtime, store, first..first + writes, &value));
    }

    /// What the store commits for these writes: keys and records, without the log's own headers.
    fn bytes_of(writes: u64) -> usize {
        let store = in_memory();
        let before = store.used_bytes();
        write_all(&runtime(), &store, 0..writes, &bytes(VALUE_BYTES));
        usize::try_from(store.used_bytes() - before).expect("it is in memory")
    }
}

/// One key among [`KEYS`] that lie in RocksDB's tables. Floor: reading as many bytes from a file in the page cache.
mod read {
    use super::*;
    use std::os::unix::fs::FileExt as _;

    use divan::black_box;

    const KEYS: u64 = 10_000;

    #[divan::bench(min_time = 0.3)]
    fn rocks_present(bencher: Bencher) {
        let disk = filled();
        reads(bencher, &disk.open(), 0);
    }

    #[divan::bench(min_time = 0.3)]
    fn rocks_absent(bencher: Bencher) {
        let disk = filled();
        reads(bencher, &disk.open(), KEYS);
    }

    #[divan::bench(min_time = 0.3)]
    fn memory_present(bencher: Bencher) {
        let store = in_memory();
        fill(&store);
        reads(bencher, &store, 0);
    }

    #[divan::bench(min_time = 0.3)]
    fn memory_absent(bencher: Bencher) {
        let store = in_memory();
        fill(&store);
        reads(bencher, &store, KEYS);
    }

    #[divan::bench(min_time = 0.3)]
    fn floor(bencher: Bencher) {
        let disk = Disk::new();
        let path = disk.directory.path().join("values");
        std::fs::write(&path, bytes(VALUE_BYTES * KEYS as usize)).expect("there is room");
        let file = File::open(&path).expect("it was just written");
        let mut numbers = scattered();
        bencher.bench_local(|| {
            let offset = numbers() as u64 * VALUE_BYTES as u64;
            let mut value = vec![0; VALUE_BYTES];
            file.read_exact_at(&mut value, offset).expect("it is that long");
            value
        });
    }

    /// Reads keys from number `first` on.
    fn reads(bencher: Bencher, store: &Store, first: u64) {
        let keys: Vec<ObjectKey> = (first..first + KEYS).map(key).collect();
        let mut numbers = scattered();
        let present = first < KEYS;
        bencher.bench_local(|| {
            let found = store.get(black_box(&keys[numbers()])).expect("the store serves");
            assert_eq!(found.is_some(), present);
            found
        });
    }

    /// Each number below [`KEYS`], over and over, in an order that is not theirs.
    fn scattered() -> impl FnMut() -> usize {
        const STRIDE: usize = 7919;
        let mut at = 0;
        move || {
            at = (at + STRIDE) % KEYS as usize;
            at
        }
    }

    /// A start moves what is in the log to tables, so whoever opens this disk finds everything there.
    fn filled() -> Disk {
        let disk = Disk::new();
        let store = disk.open();
        fill(&store);
        store.close();
        disk
    }

    fn fill(store: &Store) {
        let (runtime, value) = (runtime(), bytes(VALUE_BYTES));
        for first in (0..KEYS).step_by(1000) {
            write_all(&runtime, store, first..first + 1000, &value);
        }
    }
}

/// A directory for a RocksDB store, gone with this.
struct Disk {
    directory: TempDir,
}

impl Disk {
    fn new() -> Disk {
        Disk { directory: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the target directory is there") }
    }

    fn open(&self) -> Store {
        let path = self.directory.path().join("db");
        let expect = if path.exists() { Expect::Store } else { Expect::Nothing };
        store(Arc::new(RocksEngine::open(&path, expect, RocksOptions::default()).expect("the store opens")))
    }
}

fn in_memory() -> Store {
    store(Arc::new(MemoryEngine::open(MemoryDisk::default())))
}

fn store(engine: Arc<dyn Engine>) -> Store {
    let identity =
        Identity { name: "n1".parse().expect("a valid name"), node: NodeId(1), directory: DirectoryId(1001) };
    let limits = StoreLimits { object: LIMITS, ..StoreLimits::default() };
    let store = Store::open_engine(engine, identity, limits).expect("the store opens");
    store.adopt(layout(5)).expect("it is the only layout");
    store
}

fn write_all(runtime: &Runtime, store: &Store, numbers: std::ops::Range<u64>, value: &Bytes) {
    let writes = numbers.map(|n| store.coordinate(Epoch(1), key(n), write(n, value.clone()), None));
    for done in runtime.block_on(futures::future::join_all(writes)) {
        done.expect("the store takes it");
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime starts")
}
