//! What a node has done since its start. Atomic: reading them never waits.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: Counter,)*
        }

        impl Counters {
            /// All counters by name.
            pub fn snapshot(&self) -> BTreeMap<String, u64> {
                [$((stringify!($name).to_owned(), self.$name.get())),*].into_iter().collect()
            }
        }
    };
}

counters! {
    /// Reads coordinated here.
    reads_coordinated,
    /// Writes coordinated here.
    writes_coordinated,
    /// Writes sent on to a primary.
    writes_forwarded,
    /// Reads and writes that missed their quorum.
    quorums_missed,
    /// Requests refused for want of room.
    requests_refused,
    /// Replicas asked because another was slow.
    hedges,
    /// Copies taken in place of a primary.
    hints_taken,
    /// Copies brought to the primary they were held for.
    hints_delivered,
    /// Copies that their primary would not take: too large, or damaged there.
    hints_not_taken,
    /// Objects copied to become a primary of them.
    objects_copied,
    /// And their bytes, as they came.
    bytes_copied,
    /// Partitions compared with another primary of them, from end to end, by this node asking.
    partitions_compared,
    /// Of those, the partitions whose hash trees differed at the root.
    partitions_differing,
    /// Keys in which such comparisons, and copying, have found a difference.
    differences_found,
    /// Objects that anti-entropy has merged here or sent.
    objects_repaired,
    /// Objects that came while it filled up again.
    objects_filled,
    /// Records read to see whether they can be.
    records_scrubbed,
    /// Stale replicas sent the merged object after a read.
    read_repairs,
    /// Tombstones deleted here, their rounds being over.
    tombstones_reaped,
    /// Histories in the longest clock of any object that was read or written here.
    longest_clock,
}

#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// For what only a maximum is kept of.
    pub fn raise_to(&self, value: u64) {
        self.0.fetch_max(value, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
