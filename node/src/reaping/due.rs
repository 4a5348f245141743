//! What can be reaped, and where it was looked for last: tombstones that are old enough, and what has expired for long.

use std::collections::BTreeMap;
use std::time::Duration;

use starling_core::name::ObjectKey;
use starling_core::object::Object;
use starling_core::reaping::{Expired, is_gone};
use starling_core::stamp::Stamp;
use starling_core::token::Partition;
use starling_core::wall::WallTime;
use starling_proto::control::{HeldUp, Tombstones};
use starling_storage::{Store, StoreError};

/// Tombstones of a round.
const MOST_KEYS: usize = 256;
/// And their bytes, as they are held in memory: about as many.
const MOST_BYTES: usize = 64 << 10;
/// Entries of the index that are looked at together.
const PAGE: usize = 1024;
/// Pages of a partition that are looked through in one turn.
const MOST_PAGES: usize = 16;
/// Tombstones that are counted for whoever asks.
const MOST_COUNTED: usize = 100_000;

/// Where to look for what can be reaped: on from where it was looked last.
#[derive(Default)]
pub struct Search {
    pub last: Option<Partition>,
    /// How far each partition was looked through.
    pub cursors: BTreeMap<Partition, Cursor>,
}

impl Search {
    /// Those partitions, from behind the last on.
    pub fn order(&self, mut partitions: Vec<Partition>) -> Vec<Partition> {
        let behind = partitions.iter().position(|partition| Some(*partition) > self.last);
        partitions.rotate_left(behind.unwrap_or(0));
        partitions
    }
}

/// How far a partition was looked through: its tombstones first, then what has expired.
pub enum Cursor {
    Deleted(Option<ObjectKey>),
    Expired(Option<(WallTime, ObjectKey)>),
}

impl Cursor {
    /// The next few, each with whether it is due, and with the cursor behind it.
    fn page(
        &self,
        store: &Store,
        partition: Partition,
        due: Due,
    ) -> Result<Vec<(Cursor, ObjectKey, bool)>, StoreError> {
        match self {
            Cursor::Deleted(after) => {
                let page = store.tombstones(partition, after.as_ref(), PAGE)?.into_iter();
                Ok(page.map(|(key, since)| (Cursor::Deleted(Some(key.clone())), key, due.is_deleted(since))).collect())
            }
            Cursor::Expired(after) => {
                let Some(by) = due.expired_by() else { return Ok(Vec::new()) };
                let page = store.expired(partition, by, after.as_ref(), PAGE)?.into_iter();
                Ok(page.map(|(at, key)| (Cursor::Expired(Some((at, key.clone()))), key, true)).collect())
            }
        }
    }
}

/// What is worth a try.
#[derive(Debug, Clone, Copy)]
pub struct Due {
    pub now: WallTime,
    pub reap_after: Duration,
    pub expired: Expired,
}

impl Due {
    fn is_deleted(self, since: Stamp) -> bool {
        since.wall().until(self.now) >= self.reap_after
    }

    /// Until when values have to have expired.
    fn expired_by(self) -> Option<WallTime> {
        self.expired.by().map(|expired| expired.min(self.now.before(self.reap_after)))
    }
}

/// Up to a round's worth of what is due behind the cursor, without values, and where to go on; from the beginning the next
/// time if that is nowhere. Blocks on the disk.
pub fn gather(
    store: &Store,
    partition: Partition,
    from: Option<Cursor>,
    due: Due,
) -> Result<(BTreeMap<ObjectKey, Object>, Option<Cursor>), StoreError> {
    let (mut tombstones, mut bytes) = (BTreeMap::new(), 0);
    let mut cursor = from.unwrap_or(Cursor::Deleted(None));
    for _ in 0..MOST_PAGES {
        let page = cursor.page(store, partition, due)?;
        match cursor {
            _ if !page.is_empty() => {}
            Cursor::Deleted(_) => cursor = Cursor::Expired(None),
            Cursor::Expired(_) => return Ok((tombstones, None)),
        }
        for (behind, key, is_due) in page {
            cursor = behind;
            if !is_due {
                continue;
            }
            let object = match store.get(&key) {
                Err(StoreError::Damaged(reason)) => {
                    tracing::error!(reason, "a tombstone that is to be reaped cannot be read");
                    continue;
                }
                object => object?.filter(|object| is_gone(object, due.expired)),
            };
            // Expired long ago, and yet perhaps deleted just now: clients that repeat a request have their time as well.
            let object = object.filter(|object| object.greatest_stamp().is_some_and(|since| due.is_deleted(since)));
            let Some(object) = object.map(|object| object.outline()) else { continue };
            bytes += starling_core::codec::encode(&(&key, &object)).len();
            tombstones.insert(key, object);
            if tombstones.len() >= MOST_KEYS || bytes >= MOST_BYTES {
                return Ok((tombstones, Some(cursor)));
            }
        }
    }
    Ok((tombstones, Some(cursor)))
}

/// What is deleted or has expired in those partitions, and not forgotten, and whether that waits for the clock. Blocks on the
/// disk.
pub fn count(store: &Store, led: &[Partition], due: Due) -> Result<Tombstones, StoreError> {
    let mut counted = Counted::default();
    for partition in led {
        let mut after: Option<ObjectKey> = None;
        loop {
            let page = store.tombstones(*partition, after.as_ref(), PAGE)?;
            page.iter().for_each(|(_, since)| counted.add(since.wall(), due.is_deleted(*since)));
            match page.into_iter().last() {
                Some((last, _)) if !counted.is_full() => after = Some(last),
                Some(_) | None => break,
            }
        }
        let mut after: Option<(WallTime, ObjectKey)> = None;
        while !counted.is_full() {
            let page = store.expired(*partition, due.now, after.as_ref(), PAGE)?;
            let is_due = |at: WallTime| due.expired_by().is_some_and(|by| at <= by);
            page.iter().for_each(|(at, _)| counted.add(*at, is_due(*at)));
            counted.have_expired |= !page.is_empty();
            match page.into_iter().last() {
                Some(last) => after = Some(last),
                None => break,
            }
        }
        if counted.is_full() {
            break;
        }
    }
    Ok(Tombstones {
        pending: counted.pending,
        more: counted.is_full(),
        due: counted.due,
        oldest: counted.oldest.map(|since| since.until(due.now)),
        held_up: (counted.have_expired && due.expired == Expired::Unknown).then_some(HeldUp::Clock),
        ..Tombstones::default()
    })
}

#[derive(Default)]
struct Counted {
    pending: u64,
    due: u64,
    oldest: Option<WallTime>,
    have_expired: bool,
}

impl Counted {
    fn add(&mut self, since: WallTime, is_due: bool) {
        self.pending += 1;
        self.due += u64::from(is_due);
        self.oldest = Some(self.oldest.map_or(since, |oldest| oldest.min(since)));
    }

    fn is_full(&self) -> bool {
        self.pending >= MOST_COUNTED as u64
    }
}
