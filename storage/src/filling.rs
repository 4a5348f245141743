//! The store's part in coming back after a disk was lost (R3, R8): which directory comes in the place of this one, and what
//! of its partitions that has not got yet.

use std::collections::{BTreeMap, BTreeSet};

use starling_core::filling::Filling;
use starling_core::ids::{DirectoryId, NodeId};
use starling_core::report::Refusal;
use starling_core::ring::{Decree, Entry, Ring};
use starling_core::token::Partition;

use crate::error::StoreError;
use crate::meta;
use crate::shared::lock;
use crate::store::Store;

impl Store {
    /// Makes this directory, which belongs to no cluster, that of the node with that id: it stands for a member now. To be
    /// opened again as that. Blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError`] if it belongs to a cluster, or that could not be made durable.
    pub fn stand_for(&self, node: NodeId) -> Result<(), StoreError> {
        let _one_at_a_time = lock(&self.shared.deciding);
        self.check_health()?;
        if self.ring().is_some() {
            return Err(StoreError::Refused(Refusal::NotAMember));
        }
        let directory = self.identity().directory;
        self.record(|batch| meta::write_identity(batch, node, directory))
    }

    /// The directory that is to come in the place of this one: drawn when it is first asked for, the same from then on.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError`] if it could not be made durable.
    pub fn successor(&self) -> Result<DirectoryId, StoreError> {
        if let Some(drawn) = self.drawn_successor()? {
            return Ok(drawn);
        }
        let drawn = DirectoryId(rand::random());
        self.record(|batch| meta::write_successor(batch, drawn))?;
        Ok(drawn)
    }

    /// The directory that was drawn to come in the place of this one, if one was. Blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError::Damaged`].
    pub fn drawn_successor(&self) -> Result<Option<DirectoryId>, StoreError> {
        Ok(meta::read_successor(&*self.shared.engine)?)
    }

    /// Whether this node may lack writes of a partition that were acknowledged, its directory being new to it.
    pub fn is_filling(&self, partition: Partition) -> bool {
        lock(&self.shared.filling).is_filling(partition)
    }

    /// How many partitions are filling.
    pub fn filling_count(&self) -> usize {
        lock(&self.shared.filling).partitions().count()
    }

    /// With whom each partition that is filling is still to be compared, by the present ring.
    pub fn left_to_fill(&self) -> BTreeMap<Partition, BTreeSet<NodeId>> {
        let Some(ring) = self.ring() else { return BTreeMap::new() };
        lock(&self.shared.filling).left(&ring, self.identity().node)
    }

    /// Takes note that a partition has been compared with a peer, and that all that the peer had is durable here. Blocks on
    /// the disk.
    ///
    /// # Errors
    /// [`StoreError`] if that could not be made durable.
    pub fn note_filled(&self, partition: Partition, peer: NodeId) -> Result<(), StoreError> {
        self.change_filling(|filling| filling.note(partition, peer))
    }

    /// Takes note of what is full by the present ring: who declared somebody dead may have waited for nobody else. Blocks on
    /// the disk.
    ///
    /// # Errors
    /// [`StoreError`] if that could not be made durable.
    pub fn settle_filling(&self) -> Result<(), StoreError> {
        self.change_filling(|_| {})
    }

    fn change_filling(&self, change: impl FnOnce(&mut Filling)) -> Result<(), StoreError> {
        let _one_at_a_time = lock(&self.shared.deciding);
        self.check_health()?;
        let Some(ring) = self.ring() else { return Ok(()) };
        // Reads look at it: it is not held while the disk is waited for.
        let present = lock(&self.shared.filling).clone();
        let mut next = present.clone();
        change(&mut next);
        next.take_full(&ring, self.identity().node);
        let changed: Vec<Partition> =
            present.partitions().filter(|at| present.compared(*at) != next.compared(*at)).collect();
        if !changed.is_empty() {
            self.record(|batch| changed.iter().for_each(|at| meta::write_filling(batch, *at, next.compared(*at))))?;
            *lock(&self.shared.filling) = next;
        }
        Ok(())
    }

    /// What this directory lacks from its first day, by the log: nothing, unless it stands for a member that had another one
    /// before.
    pub(crate) fn lacking_by(&self, log: &[Entry], ring: &Ring) -> Filling {
        let own = self.identity();
        let is_own =
            |entry: &Entry| matches!(&entry.decree, Decree::Register { directory, .. } if *directory == own.directory);
        if log.iter().any(is_own) { Filling::begin(ring, own.node) } else { Filling::default() }
    }
}
