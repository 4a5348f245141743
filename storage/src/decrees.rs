//! The store's part in changing the ring: the log of decrees, this node's vote on the next one, and how far it has copied.
//!
//! All of it is committed where it is asked for, one change at a time, and synced before the call returns: what another
//! node is told is durable.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use starling_core::change::Change;
use starling_core::choice::{Ballot, Exclusion, Overtaken, Vote};
use starling_core::ids::{ClusterId, DirectoryId, NodeId};
use starling_core::layout::{Layout, LayoutVersion};
use starling_core::name::{BucketName, ObjectKey};
use starling_core::object::Object;
use starling_core::report::Refusal;
use starling_core::ring::{Decree, Entry, Epoch, InvalidDecree, Ring};
use starling_core::token::Partition;
use starling_core::transition::{Progress, Pull};
use starling_core::tree::Breadth;

use crate::engine::{Batch, Space};
use crate::error::StoreError;
use crate::keys::{self, RecordKey};
use crate::meta;
use crate::shared::lock;
use crate::store::{Store, object_in};

/// Why a layout or a decree was not adopted.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    #[error("this node belongs to cluster {ours}, the layout to {theirs}")]
    OtherCluster { ours: ClusterId, theirs: ClusterId },
    #[error("this node has adopted another layout of version {0}")]
    Forked(LayoutVersion),
    #[error("this node has adopted another decree in epoch {0}")]
    ForkedLog(Epoch),
    #[error(
        "this node has agreed to go on without members that are gone for good, and goes by nothing else in epoch {0}"
    )]
    BoundByForce(Epoch),
    #[error("this node belongs to no cluster yet")]
    NoCluster,
    #[error(transparent)]
    Invalid(#[from] InvalidDecree),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why this node does not vote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoVote {
    #[error(transparent)]
    Overtaken(#[from] Overtaken),
    /// The vote is about another entry of the log than the next one here.
    #[error("this node is in epoch {0}")]
    OtherEpoch(Epoch),
    /// It is not among those who choose, or not with this directory, or not in that cluster.
    #[error("this node has no vote")]
    NoAcceptor,
    #[error(transparent)]
    Invalid(#[from] InvalidDecree),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Records that are looked at for one page, wanted or not.
const PAGE_RECORDS: usize = 4096;
/// Records of a page that are read at once.
const RECORDS_AT_ONCE: usize = 16;

/// How far a pull has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pulled {
    /// Everything up to this key.
    UpTo(ObjectKey),
    All,
}

/// Part of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    pub objects: Vec<(ObjectKey, Object)>,
    /// The last key that was looked at; none if there are no more.
    pub next: Option<ObjectKey>,
}

impl Store {
    pub fn ring(&self) -> Option<Arc<Ring>> {
        self.shared.ring()
    }

    /// The cluster that this node belongs to.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.ring().map(|ring| ring.cluster())
    }

    /// The layout that is read.
    pub fn layout(&self) -> Option<Arc<Layout>> {
        self.ring().map(|ring| Arc::clone(ring.read()))
    }

    /// Makes the layout durable that a cluster begins with, and uses it from now on. Adopting the present one again changes
    /// nothing.
    ///
    /// # Errors
    /// [`AdoptError`] if it belongs to another cluster or contradicts what was adopted, or if the store does not serve.
    pub fn adopt(&self, layout: Layout) -> Result<(), AdoptError> {
        let _one_at_a_time = lock(&self.shared.deciding);
        self.check_health()?;
        if let Some(ours) = self.layout() {
            if ours.cluster() != layout.cluster() {
                return Err(AdoptError::OtherCluster { ours: ours.cluster(), theirs: layout.cluster() });
            }
            if *ours == layout {
                return Ok(());
            }
            return Err(AdoptError::Forked(layout.version()));
        }
        let ring = Ring::first(layout.clone())?;
        self.record(|batch| meta::write_first_layout(batch, &layout))?;
        self.put_into_effect(ring);
        Ok(())
    }

    /// Makes a whole log durable, from its beginning, and uses what it comes to from now on: of a node that joins.
    ///
    /// # Errors
    /// [`AdoptError`] if it contradicts itself, if this node has a log already, or if the store does not serve.
    pub fn adopt_log(&self, log: &[Entry]) -> Result<(), AdoptError> {
        let _one_at_a_time = lock(&self.shared.deciding);
        self.check_health()?;
        let (first, rest) = log.split_first().ok_or(AdoptError::NoCluster)?;
        let Decree::Begin { layout, .. } = &first.decree else { return Err(InvalidDecree::NotTheFirst.into()) };
        let beginning = Ring::first(layout.clone())?;
        if let Some(ours) = self.ring() {
            return Err(AdoptError::OtherCluster { ours: ours.cluster(), theirs: beginning.cluster() });
        }
        let ring = rest.iter().try_fold(beginning, |ring, entry| ring.after(entry))?;
        let filling = self.lacking_by(rest, &ring);
        self.record(|batch| {
            meta::write_first_layout(batch, layout);
            rest.iter().for_each(|entry| meta::write_entry(batch, entry));
            filling.partitions().for_each(|at| meta::write_filling(batch, at, filling.compared(at)));
        })?;
        *lock(&self.shared.filling) = filling;
        self.put_into_effect(ring);
        Ok(())
    }

    /// Makes the next entry of the log durable, and uses it from now on. One that was adopted before changes nothing. A
    /// batch of the epoch before may still be under way: see [`Store::adopted`]. `of` is the member that goes by it, if it
    /// was learnt of one, by the directory that is registered for it here.
    ///
    /// # Errors
    /// [`AdoptError`] if it contradicts what was adopted, or if the store does not serve.
    pub fn append(&self, entry: &Entry, of: Option<(NodeId, DirectoryId)>) -> Result<(), AdoptError> {
        let _one_at_a_time = lock(&self.shared.deciding);
        self.check_health()?;
        let ring = self.ring().ok_or(AdoptError::NoCluster)?;
        if entry.epoch <= ring.epoch() {
            let known = self.entries(Epoch(entry.epoch.0.saturating_sub(1)), 1)?;
            return if known.first() == Some(entry) { Ok(()) } else { Err(AdoptError::ForkedLog(entry.epoch)) };
        }
        let next = ring.after(entry)?;
        let vote = meta::read_vote(&*self.shared.engine, entry.epoch).map_err(StoreError::from)?;
        let gone_by = of.filter(|(node, directory)| ring.directory_of(*node) == Some(*directory)).map(|(node, _)| node);
        if !vote.may_adopt(&entry.decree, gone_by) {
            return Err(AdoptError::BoundByForce(entry.epoch));
        }
        self.record(|batch| {
            meta::write_entry(batch, entry);
            meta::delete_vote(batch, entry.epoch);
        })?;
        self.put_into_effect(next);
        Ok(())
    }

    /// The newest epoch in effect, once no batch of an earlier one is under way. From then on this node has durably taken
    /// nothing, and takes nothing, that was meant for an earlier one and is not on its disk by now.
    pub async fn adopted(&self) -> Option<Epoch> {
        let epoch = self.ring()?.epoch();
        self.shared.batches_before_are_over(epoch).await;
        self.shared.adopted.fetch_max(epoch.0, Ordering::AcqRel);
        Some(epoch)
    }

    /// Up to `limit` entries of the log behind `after`. Blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError::Damaged`].
    pub fn entries(&self, after: Epoch, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let mut entries = Vec::new();
        if after < Epoch(1) && limit > 0 {
            entries.extend(meta::read_first_layout(&*self.shared.engine)?.map(Ring::first_entry));
        }
        let (after, left) = (after.max(Epoch(1)), limit - entries.len());
        entries.extend(meta::read_entries(&*self.shared.engine, after, left)?);
        Ok(entries)
    }

    /// Promises to take part in no earlier ballot about the entry of that epoch, for somebody who goes by that cluster id:
    /// others may have another log as long as this one. Returns what was accepted before. Blocks on the disk.
    ///
    /// # Errors
    /// [`NoVote`]; nothing has changed, unless the store has failed.
    pub fn promise(
        &self,
        cluster: ClusterId,
        epoch: Epoch,
        ballot: Ballot,
    ) -> Result<Option<(Ballot, Decree)>, NoVote> {
        self.vote(cluster, epoch, ballot, |_, vote| Ok(vote.promise(ballot)?))
    }

    /// Accepts a decree for the entry of that epoch, as [`Store::promise`] promises. Blocks on the disk.
    ///
    /// # Errors
    /// [`NoVote`]; nothing has changed, unless the store has failed.
    pub fn accept(&self, cluster: ClusterId, epoch: Epoch, ballot: Ballot, decree: Decree) -> Result<(), NoVote> {
        let excluded = decree.excluded();
        let leaves_this_out = excluded.is_some_and(|out| out.contains(&self.identity().node));
        if leaves_this_out || excluded.is_some() != ballot.is_forced() {
            return Err(NoVote::NoAcceptor);
        }
        self.vote(cluster, epoch, ballot, |ring, vote| {
            ring.after(&ring.entry(decree.clone()))?;
            Ok(vote.accept(ballot, decree)?)
        })
    }

    fn vote<T>(
        &self,
        cluster: ClusterId,
        epoch: Epoch,
        ballot: Ballot,
        change: impl FnOnce(&Ring, &mut Vote<Decree>) -> Result<T, NoVote>,
    ) -> Result<T, NoVote> {
        let _one_at_a_time = lock(&self.shared.deciding);
        self.check_health()?;
        let ring = self.ring().ok_or(NoVote::NoAcceptor)?;
        if epoch.0 != ring.epoch().0 + 1 {
            return Err(NoVote::OtherEpoch(ring.epoch()));
        }
        let identity = self.identity();
        let has_a_vote = ring.cluster() == cluster && ring.has_vote(identity.node, ballot);
        if !has_a_vote || ring.directory_of(identity.node) != Some(identity.directory) {
            return Err(NoVote::NoAcceptor);
        }
        let mut vote = meta::read_vote(&*self.shared.engine, epoch).map_err(StoreError::from)?;
        let answer = change(&ring, &mut vote)?;
        self.record(|batch| meta::write_vote(batch, epoch, &vote))?;
        Ok(answer)
    }

    /// Whether this node was asked to go on without others as the next entry of the log, and has agreed to hear of nothing
    /// else. Blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError::Damaged`].
    pub fn is_bound_by_force(&self) -> Result<bool, StoreError> {
        let Some(ring) = self.ring() else { return Ok(false) };
        let vote = meta::read_vote(&*self.shared.engine, Epoch(ring.epoch().0 + 1))?;
        Ok(vote.is_bound_by_force())
    }

    /// What this node has accepted as the next entry of the log, and not seen chosen. Blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError::Damaged`].
    pub fn accepted(&self) -> Result<Option<Decree>, StoreError> {
        let Some(ring) = self.ring() else { return Ok(None) };
        let vote = meta::read_vote(&*self.shared.engine, Epoch(ring.epoch().0 + 1))?;
        Ok(vote.accepted().cloned())
    }

    /// Takes note that this node has all that it has to copy for a layout. Blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError`] if that could not be made durable.
    pub fn note_copied(&self, version: LayoutVersion) -> Result<(), StoreError> {
        self.check_health()?;
        let mut copied = lock(&self.shared.copied);
        if *copied < Some(version) {
            let mut batch = Batch::default();
            meta::write_copied(&mut batch, version);
            meta::delete_pulls(&*self.shared.engine, &mut batch)?;
            self.shared.commit(batch).map_err(|_| StoreError::Unknown)?;
            *copied = Some(version);
        }
        Ok(())
    }

    /// How far each pull for a layout has come, of those that have begun. Blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError::Damaged`].
    pub fn pulls(&self, version: LayoutVersion) -> Result<BTreeMap<Pull, Pulled>, StoreError> {
        Ok(meta::read_pulls(&*self.shared.engine, version)?)
    }

    /// Takes note of how far a pull has come, whose objects are durable up to there. Blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError`] if that could not be made durable.
    pub fn note_pulled(&self, version: LayoutVersion, pull: &Pull, pulled: &Pulled) -> Result<(), StoreError> {
        self.check_health()?;
        self.record(|batch| meta::write_pull(batch, version, pull, pulled))
    }

    /// A page of a partition behind `after`: the objects of which `is_wanted` says so, of about `bytes` in all. Blocks on the
    /// disk.
    ///
    /// # Errors
    /// [`StoreError`] if the store does not serve, or a record cannot be read: a page that passed it over would claim that
    /// there is nothing.
    pub fn page(
        &self,
        partition: Partition,
        after: Option<&ObjectKey>,
        bytes: usize,
        is_wanted: impl Fn(&ObjectKey) -> bool,
    ) -> Result<Page, StoreError> {
        self.check_health()?;
        let start = partition.0.to_be_bytes().to_vec();
        let end = keys::after_prefix(&start);
        let mut from = after.map_or(start, |after| keys::next_after(RecordKey::new(partition, after).as_bytes()));
        let (mut page, mut left, mut looked_at) = (Page::default(), bytes, 0);
        loop {
            let found = self.shared.engine.scan(Space::Objects, &from, end.as_deref(), RECORDS_AT_ONCE)?;
            let Some((last, _)) = found.last() else { return Ok(Page { next: None, ..page }) };
            from = keys::next_after(last);
            for (at, value) in found {
                let misplaced = || StoreError::Damaged("a record lies under a key that names no object".to_owned());
                let key = keys::object_of(&at).ok_or_else(misplaced)?;
                looked_at += 1;
                if is_wanted(&key) {
                    let object = object_in(&value)?;
                    left = left.saturating_sub(value.len());
                    page.objects.push((key.clone(), object));
                }
                page.next = Some(key);
                if left == 0 || looked_at >= PAGE_RECORDS {
                    return Ok(page);
                }
            }
        }
    }

    /// Up to `limit` keys that records are held under in a partition, behind `after`. Blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError`] if the store does not serve.
    pub fn keys_in(
        &self,
        partition: Partition,
        after: Option<&ObjectKey>,
        limit: usize,
    ) -> Result<Vec<ObjectKey>, StoreError> {
        self.check_health()?;
        let start = partition.0.to_be_bytes().to_vec();
        let end = keys::after_prefix(&start);
        let mut from = after.map_or(start, |after| keys::next_after(RecordKey::new(partition, after).as_bytes()));
        let mut found = Vec::new();
        while found.len() < limit {
            let wanted = RECORDS_AT_ONCE.min(limit - found.len());
            let records = self.shared.engine.scan(Space::Objects, &from, end.as_deref(), wanted)?;
            let Some((last, _)) = records.last() else { break };
            from = keys::next_after(last);
            found.extend(records.iter().filter_map(|(at, _)| keys::object_of(at)));
        }
        Ok(found)
    }

    /// Where in the hash trees all keys of some buckets have their leaves, as it was noted last. Blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError::Damaged`].
    pub fn breadths(&self) -> Result<BTreeMap<BucketName, Breadth>, StoreError> {
        Ok(meta::read_breadths(&*self.shared.engine)?)
    }

    /// Takes note of where they have them now. Blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError`] if that could not be made durable.
    pub fn note_breadths(&self, breadths: &BTreeMap<BucketName, Breadth>) -> Result<(), StoreError> {
        self.check_health()?;
        self.record(|batch| meta::write_breadths(batch, breadths))
    }

    /// Changes that were staged here. Blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError::Damaged`].
    pub fn staged(&self) -> Result<Vec<Change>, StoreError> {
        Ok(meta::read_staged(&*self.shared.engine)?)
    }

    /// Stages these changes in the place of what was. Blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError`] if that could not be made durable.
    pub fn stage(&self, changes: &[Change]) -> Result<(), StoreError> {
        self.check_health()?;
        self.record(|batch| meta::write_staged(batch, changes))
    }

    /// What this node has durably done of the present change.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if the store does not serve.
    pub fn progress(&self) -> Result<Progress, StoreError> {
        self.check_health()?;
        let ring = self.ring().ok_or(StoreError::Refused(Refusal::NotAMember))?;
        let adopted = Epoch(self.shared.adopted.load(Ordering::Acquire)).min(ring.epoch());
        Ok(Progress { directory: self.identity().directory, adopted, copied: *lock(&self.shared.copied) })
    }

    fn put_into_effect(&self, ring: Ring) {
        let is_first = self.ring().is_none();
        if is_first {
            // No batch was ever begun.
            self.shared.adopted.fetch_max(ring.epoch().0, Ordering::AcqRel);
        }
        self.shared.ring.store(Some(Arc::new(ring)));
    }
}
