//! What an operator may ask for beside what goes on by itself: comparing at once, and checking a disk against itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use starling_core::ids::NodeId;
use starling_core::ring::Ring;
use starling_core::token::Partition;
use starling_core::tree::Pairs;
use starling_proto::control::{ControlError, Flaw, FlawKind, RepairScope, Repairing, VerifiedPage};
use starling_storage::Flaw as Found;

use crate::anti_entropy::Errand;
use crate::node::Node;

/// Repairs that are remembered.
const MOST_REPAIRS: usize = 16;
/// A page of a check is told after this long, or with so many flaws.
const PAGE_TIME: Duration = Duration::from_secs(1);
const PAGE_FLAWS: usize = 1000;

/// Repairs since the start, by number; the last few of them.
#[derive(Default)]
pub struct Repairs(Mutex<BTreeMap<u64, Arc<Errands>>>);

/// A repair: what is compared with each peer.
struct Errands {
    all: u64,
    by_peer: BTreeMap<NodeId, Errand>,
    ended: Mutex<BTreeMap<NodeId, Result<(), String>>>,
}

impl Errands {
    fn end(&self, peer: NodeId, how: Result<(), String>) {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).insert(peer, how);
    }

    fn progress(&self) -> Repairing {
        use std::sync::atomic::Ordering::Relaxed;
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = ended.iter().filter_map(|(peer, how)| Some((*peer, how.as_ref().err()?.clone())));
        Repairing {
            compared: self.by_peer.values().map(|errand| errand.compared.load(Relaxed)).sum(),
            all: self.all,
            differences: self.by_peer.values().map(|errand| errand.differences.load(Relaxed)).sum(),
            failed: failed.collect(),
            is_over: ended.len() == self.by_peer.len(),
        }
    }
}

impl Repairs {
    pub fn progress(&self, number: u64) -> Option<Repairing> {
        self.lock().get(&number).map(|errands| errands.progress())
    }

    fn begin(&self, errands: Arc<Errands>) -> u64 {
        let mut all = self.lock();
        let number = all.last_key_value().map_or(1, |(last, _)| last + 1);
        all.insert(number, errands);
        if all.len() > MOST_REPAIRS {
            all.pop_first();
        }
        number
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Errands>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Node {
    /// Compares with all peers now what this node asks about.
    ///
    /// # Errors
    /// [`ControlError::Invalid`] if the node does not serve, or there is no such partition.
    pub fn begin_repair(self: &Arc<Self>, scope: RepairScope) -> Result<u64, ControlError> {
        let ring = self.serving_ring().map_err(|not| ControlError::Invalid(not.reason))?;
        let RepairScope { bucket, partition } = scope;
        if let Some(partition) = partition {
            check_partition(&ring, partition)?;
        }
        let mut pairs = ring.read().compared_by(self.id());
        for partitions in pairs.values_mut() {
            partitions.retain(|(of, _)| partition.is_none_or(|wanted| wanted == *of));
        }
        pairs.retain(|_, partitions| !partitions.is_empty());
        let errand = |peer: &NodeId| (*peer, Errand { bucket: bucket.clone(), ..Errand::default() });
        let errands = Arc::new(Errands {
            all: pairs.values().map(|partitions| partitions.len() as u64).sum(),
            by_peer: pairs.keys().map(errand).collect(),
            ended: Mutex::default(),
        });
        let number = self.repairs.begin(Arc::clone(&errands));
        let node = Arc::clone(self);
        self.spawn(async move { node.repair(&ring, &pairs, &errands).await });
        Ok(number)
    }

    async fn repair(&self, ring: &Ring, pairs: &Pairs, errands: &Errands) {
        let with = pairs.iter().filter_map(|(peer, partitions)| {
            let errand = errands.by_peer.get(peer)?;
            Some(async move {
                let compared = tokio::select! {
                    () = self.stopping.cancelled() => Err("the node is shutting down".to_owned()),
                    compared = self.compare_with(*peer, partitions, ring, errand) => {
                        compared.map_err(|failure| failure.to_string()).and_then(|()| all_settled(errand))
                    }
                };
                errands.end(*peer, compared);
            })
        });
        futures::future::join_all(with).await;
    }

    /// Checks what this node holds, from a partition on, for as long as a page may take.
    ///
    /// # Errors
    /// [`ControlError`] if the node has no ring, or its disk cannot be read at all.
    pub async fn verify_from(&self, from: Partition) -> Result<VerifiedPage, ControlError> {
        let ring = self.store.ring();
        let ring =
            ring.ok_or_else(|| ControlError::Invalid("this node does not belong to a cluster yet".to_owned()))?;
        check_partition(&ring, from)?;
        let (began, mut page) = (Instant::now(), VerifiedPage::default());
        for partition in ring.read().partitions().all().skip(usize::from(from.0)) {
            if began.elapsed() >= PAGE_TIME || page.flaws.len() >= PAGE_FLAWS {
                page.next = Some(partition);
                break;
            }
            let verified = self.read_store(move |store| store.verify(partition)).await;
            let verified = verified.map_err(|error| ControlError::Internal(error.to_string()))?;
            page.partitions += 1;
            page.records += verified.records;
            page.bytes += verified.bytes;
            page.flaws.extend(verified.flaws.into_iter().map(|flaw| told(partition, flaw)));
        }
        Ok(page)
    }
}

/// # Errors
/// That some differences are left.
fn all_settled(errand: &Errand) -> Result<(), String> {
    match errand.passed_over.load(std::sync::atomic::Ordering::Relaxed) {
        0 => Ok(()),
        some => Err(format!("{some} objects that differ are too large to be sent, or cannot be read")),
    }
}

fn check_partition(ring: &Ring, partition: Partition) -> Result<(), ControlError> {
    let count = ring.read().partitions().get();
    if u32::from(partition.0) < count {
        return Ok(());
    }
    Err(ControlError::Invalid(format!("there is no partition {partition}: they are numbered from 0 to {}", count - 1)))
}

fn told(partition: Partition, flaw: Found) -> Flaw {
    let (key, kind) = match flaw {
        Found::Unreadable { key, reason } => (Some(key), FlawKind::Unreadable(reason)),
        Found::WrongLeaf(key) => (Some(key), FlawKind::WrongLeaf),
        Found::LeafWithoutRecord(key) => (Some(key), FlawKind::LeafWithoutRecord),
        Found::WrongSum(_) => (None, FlawKind::WrongSum),
        Found::Misplaced => (None, FlawKind::Misplaced),
    };
    Flaw { partition, key, kind }
}
