//! The witness sees everything: every batch that becomes durable, every word on the network. It keeps its own account of
//! each key and says at once when a state contradicts it.
//!
//! It knows what no node and no client can: which dots exist, where they are durable, and which of them a write that had
//! seen them has superseded. What it checks are the invariants of the design, by their numbers there ([`Invariant`]). It
//! shares the product's types and none of its decisions. Here is what disks show; what is said on the network is in
//! `requests.rs`.

mod account;
mod invariant;
mod mirror;
mod needed;
mod requests;
mod rings;
mod starts;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use starling_core::clock::Clock;
use starling_core::ids::{DirectoryId, NodeId, RequestId};
use starling_core::layout::LayoutVersion;
use starling_core::name::ObjectKey;
use starling_core::object::{Object, Sibling, SiblingMode};
use starling_core::ring::{Epoch, Membership, Ring};
use starling_core::token::{Partition, Token};
use starling_proto::control::NodeStanding;
use starling_storage::inspect::HeldRecord;
use starling_storage::{Batch, Identity, Space, inspect};

use crate::kernel::network::HostId;
use crate::kernel::time::{self, Moment};
use crate::names::{self, Names};
use crate::transcript::Transcript;

use account::Accounts;
pub use invariant::Invariant;
use mirror::Lost;
pub use mirror::Mirror;
pub use needed::Needed;
use requests::Asked;
use rings::{News, Rings};
use starts::Starts;
pub use starts::ToldBy;

/// A contradiction.
#[derive(Debug, Clone)]
pub struct Breach {
    pub at: Moment,
    pub invariant: Invariant,
    pub what: String,
}

/// After so many of one invariant, the rest is counted.
pub const MOST_OF_A_KIND: u64 = 3;

pub struct Witness {
    rings: Rings,
    /// What each node held when it took up a layout that was coming.
    held_at_first: BTreeMap<(LayoutVersion, usize), BTreeMap<ObjectKey, Clock>>,
    /// And when it heard that a directory stands for a member.
    held_at_registration: BTreeMap<(DirectoryId, usize), BTreeMap<ObjectKey, Clock>>,
    mirrors: Vec<Mirror>,
    /// What each node has last dropped of a key on proof.
    gone: BTreeMap<(usize, ObjectKey), Clock>,
    /// Of the members; by their ids.
    members: BTreeMap<NodeId, usize>,
    /// Who each node is now.
    identities: Vec<Identity>,
    accounts: Accounts,
    /// Nodes whose disks hold an old state, until they are somebody else.
    old_copies: BTreeSet<usize>,
    /// What old copies held that nobody may tell from what it is a copy of: it may come back.
    may_come_back: BTreeMap<ObjectKey, Clock>,
    /// Writes whose answer is awaited, by connection and call.
    asked: BTreeMap<(u64, u64), Asked>,
    pub breaches: Vec<Breach>,
    pub counts: BTreeMap<Invariant, u64>,
    /// How often each was looked at.
    pub checked: BTreeMap<Invariant, u64>,
    starts: Starts,
    clocks: Clocks,
    names: Arc<Names>,
    transcript: Transcript,
}

/// How wrong the nodes' wall clocks may be.
#[derive(Debug, Clone, Default)]
pub struct Clocks {
    /// Any two of them.
    pub apart: Duration,
    /// Those that are ahead, at one time or another.
    pub ahead: BTreeSet<usize>,
}

impl Witness {
    /// Of the nodes that are named.
    pub fn new(names: Arc<Names>, clocks: Clocks, transcript: Transcript) -> Witness {
        let identities = names.members();
        Witness {
            rings: Rings::of(identities.len()),
            held_at_first: BTreeMap::new(),
            held_at_registration: BTreeMap::new(),
            mirrors: identities.iter().map(|identity| Mirror::new(identity.directory)).collect(),
            gone: BTreeMap::new(),
            members: identities.iter().enumerate().map(|(index, identity)| (identity.node, index)).collect(),
            identities: identities.to_vec(),
            accounts: Accounts::new(Arc::clone(&names)),
            old_copies: BTreeSet::new(),
            may_come_back: BTreeMap::new(),
            asked: BTreeMap::new(),
            breaches: Vec::new(),
            counts: BTreeMap::new(),
            checked: BTreeMap::new(),
            starts: Starts::default(),
            clocks,
            names: Arc::clone(&names),
            transcript,
        }
    }

    /// What is durable on a node's disk.
    pub fn mirror(&self, host: HostId) -> &Mirror {
        &self.mirrors[host.0]
    }

    /// How often a write was carried out.
    pub fn tries(&self, key: &ObjectKey, request: RequestId) -> u32 {
        u32::try_from(self.accounts.carried_out_times(key, request)).unwrap_or(u32::MAX)
    }

    /// When a write was last carried out by anybody, if it was.
    pub fn carried_out(&self, key: &ObjectKey, request: RequestId) -> Option<Moment> {
        self.accounts.carried_out(key, request)
    }

    pub fn checks(&self) -> u64 {
        self.checked.values().sum()
    }

    fn check(&mut self, invariant: Invariant) {
        *self.checked.entry(invariant).or_default() += 1;
    }

    /// The newest ring that anybody has made durable.
    pub fn ring(&self) -> Option<&Arc<Ring>> {
        self.rings.newest()
    }

    /// What a node has to be in the end.
    pub fn standing_of(&self, host: HostId) -> NodeStanding {
        let Identity { node, directory, .. } = &self.identities[host.0];
        match self.ring().map(|ring| ring.membership_of(*node, *directory)) {
            Some(Membership::Member) => NodeStanding::Serving,
            Some(Membership::Left) => NodeStanding::Left,
            _ => NodeStanding::Uninitialised,
        }
    }

    /// `n1 n2 n3`: where a key lies.
    pub fn place(&self, key: &ObjectKey) -> String {
        let primaries = self.primaries(key).into_iter().map(|index| self.names.host(HostId(index)));
        primaries.collect::<Vec<_>>().join(" ")
    }

    /// The disk is gone; the node has another, empty one.
    pub fn wiped(&mut self, host: HostId, identity: &Identity) {
        let lost = self.note_loss(host);
        self.mirrors[host.0] = Mirror::after_loss(identity.directory, lost);
        self.rings.forget(host, Epoch(0));
        self.is_now(host, identity);
    }

    /// The node goes by that identity from its next start on.
    pub fn is_now(&mut self, host: HostId, identity: &Identity) {
        self.old_copies.remove(&host.0);
        self.identities[host.0] = identity.clone();
    }

    /// The disk holds what it held when it had been started so often. Says who can tell: whoever has met a later start, and
    /// whoever meets a clock that counts further than the marks do that are there now.
    pub fn rolled_back(
        &mut self,
        host: HostId,
        started: u64,
        epoch: Epoch,
        records: impl IntoIterator<Item = HeldRecord>,
    ) -> ToldBy {
        let lost = self.note_loss(host);
        self.old_copies.insert(host.0);
        self.rings.forget(host, epoch);
        let directory = self.mirrors[host.0].directory;
        let mut mirror = Mirror::after_loss(directory, lost);
        if let Some(ring) = self.ring() {
            mirror.restore(records, ring.read().partitions());
        }
        let marks = mirror.records().filter_map(|record| record.mark.as_ref());
        let is_behind = marks.into_iter().any(|mark| self.accounts.has_minted_beyond(directory, mark));
        self.mirrors[host.0] = mirror;
        let told_by = match self.starts.who_can_tell(directory, started, self.mirrors.len()) {
            ToldBy::Nobody if is_behind => ToldBy::Some,
            told_by => told_by,
        };
        if told_by != ToldBy::Enough {
            for (key, clock) in self.mirrors[host.0].clocks() {
                self.may_come_back.entry(key).or_default().merge(&clock);
            }
        }
        told_by
    }

    /// What is on a disk that is about to be lost was there: it counts as kept.
    fn note_loss(&mut self, host: HostId) -> Lost {
        let mirror = &self.mirrors[host.0];
        let mut held = mirror.lost_before();
        for record in mirror.records() {
            self.accounts.note_loss(host.0, &record.place.key, record.object.clock());
            held.entry(record.place.key.clone()).or_default().merge(record.object.clock());
        }
        Lost { at: time::now(), held }
    }

    /// A batch has become durable on a node's disk.
    pub fn durable(&mut self, host: HostId, batch: &Batch) {
        for told in self.rings.durable(host, batch) {
            self.check(Invariant::OneLog);
            match told {
                Ok(news) => self.ring_adopted(host, news),
                Err(what) => self.breach(Invariant::OneLog, format!("n{}: {what}", host.0 + 1)),
            }
        }
        let touched = self.mirrors[host.0].apply(batch);
        self.check_trees(host, &touched);
        for key in touched {
            let (before, after) = self.mirrors[host.0].change_of(&key);
            match (&before, &after) {
                (Some(held), Some(taken)) if was_reaped_between(held, taken) => {
                    self.reaped(host, &key, held);
                    self.written(host, &key, None, taken);
                }
                (Some(held), None) if held.reaped.is_some() => self.reaped(host, &key, held),
                (Some(held), Some(taken)) if self.was_dropped_between(host, &key, held, taken) => {
                    self.dropped(host, &key, Some(held));
                    self.written(host, &key, None, taken);
                }
                (_, Some(record)) => self.written(host, &key, before.as_ref(), record),
                (_, None) => self.dropped(host, &key, before.as_ref()),
            }
            self.check_markers(host, &key);
        }
        let meta = batch.changes().iter().filter(|change| change.space == Space::Meta);
        meta.filter_map(|change| inspect::filled(&change.key, change.value.as_deref()))
            .for_each(|partition| self.check_filled(host, partition));
    }

    fn ring_adopted(&mut self, host: HostId, news: News) {
        match news {
            News::Coming(version) => {
                self.held_at_first.insert((version, host.0), self.mirrors[host.0].clocks());
            }
            News::Registered(directory) => {
                self.held_at_registration.insert((directory, host.0), self.mirrors[host.0].clocks());
            }
            News::Read(before, now) => self.check_copied(&before, &now),
            News::Nothing => {}
        }
    }

    /// A partition is full whose directory has come in the place of a lost one: it has what every other primary held when
    /// that stopped to take what counted the lost one.
    fn check_filled(&mut self, host: HostId, partition: Partition) {
        let Identity { node, directory, .. } = self.identities[host.0].clone();
        let Some(ring) = self.rings.by(None, host).cloned() else { return };
        let primaries: Vec<NodeId> = ring.read().primaries(partition, ring.read().replicas()).collect();
        if !primaries.contains(&node) {
            return;
        }
        self.check(Invariant::FilledFirst);
        for source in primaries.into_iter().filter(|source| *source != node && !ring.is_dead(*source)) {
            let index = self.members[&source];
            if self.mirrors[index].has_lost_a_disk() {
                continue;
            }
            let lacks = |(key, clock): (&ObjectKey, &Clock)| {
                let is_own =
                    ring.read().partition_of(key) == partition && ring.read().primaries_of(key).contains(&node);
                (is_own && !self.mirrors[host.0].covers(key, clock)).then(|| names::key(key))
            };
            let lacking = match self.held_at_registration.get(&(directory, index)) {
                Some(held) => held.iter().find_map(lacks),
                None => Some("what it took before it knew of that".to_owned()),
            };
            if let Some(lacking) = lacking {
                let (host, source) = (self.names.host(host), self.names.node(source));
                let what = format!("{host} takes itself for full again, and lacks what {source} held of {lacking}");
                self.breach(Invariant::FilledFirst, what);
            }
        }
    }

    /// Whoever has become a primary has what each old one held when it stopped to take what goes to the old layout alone.
    fn check_copied(&mut self, before: &Ring, now: &Ring) {
        self.check(Invariant::CopiedFirst);
        let version = now.read().version();
        let mut lacking = Vec::new();
        for (source, held) in before.read().members().iter().filter_map(|member| {
            let index = *self.members.get(&member.node)?;
            Some((member.node, (index, self.held_at_first.get(&(version, index)))))
        }) {
            let (index, Some(held)) = held else { continue };
            if before.is_dead(source) || self.mirrors[index].has_lost_a_disk() {
                continue;
            }
            for (key, clock) in held.iter().filter(|(key, _)| before.read().primaries_of(key).contains(&source)) {
                let gained = now
                    .read()
                    .primaries_of(key)
                    .into_iter()
                    .filter(|node| !before.read().primaries_of(key).contains(node));
                let lacks = |node: &NodeId| {
                    self.members.get(node).is_some_and(|index| !self.mirrors[*index].has_covered(key, clock))
                };
                lacking.extend(gained.filter(lacks).map(|node| (node, key.clone(), source)));
            }
        }
        for (node, key, source) in lacking {
            let (node, source) = (self.names.node(node), self.names.node(source));
            let what = format!("{node} is read from, and lacks what {source} held of {key}", key = names::key(&key));
            self.breach(Invariant::CopiedFirst, what);
        }
    }

    /// A copy that is held for others may be dropped and another taken in, in one batch.
    fn was_dropped_between(&self, host: HostId, key: &ObjectKey, held: &HeldRecord, taken: &HeldRecord) -> bool {
        let went_back = !taken.object.clock().covers_all(held.object.clock());
        went_back && !self.rings.is_primary_of(host, self.names.identity(host).node, key)
    }

    fn written(&mut self, host: HostId, key: &ObjectKey, before: Option<&HeldRecord>, record: &HeldRecord) {
        let directory = self.mirrors[host.0].directory;
        let known = before.map(|before| before.object.clock().clone()).unwrap_or_default();
        let is_new = |sibling: &&Sibling| {
            let dot = &sibling.dot;
            dot.history.directory == directory && !known.covers(dot) && !self.accounts.knows(key, dot)
        };
        let minted: Vec<Sibling> = record.object.siblings().iter().filter(is_new).cloned().collect();
        for sibling in &minted {
            if !self.accounts.mint(key, sibling, record.object.clock()) {
                let what = format!(
                    "{key}: {} came into being without a request for it",
                    self.names.dot(&sibling.dot),
                    key = names::key(key)
                );
                self.breach(Invariant::NothingInvented, what);
            }
        }
        if let Some(mark) = &record.mark {
            self.accounts.minted_up_to(directory, mark);
        }
        self.check_progress(host, key, before, record, &minted);
        self.check_state(key, &record.object, &format!("the disk of n{}", host.0 + 1));
        let may_come_back = |dot| self.may_come_back.get(key).is_some_and(|clock| clock.covers(dot));
        let back = live_below(&record.object, &self.accounts.reaped(key));
        if let Some(back) = back.filter(|back| !may_come_back(&back.dot)) {
            let (dot, key) = (self.names.dot(&back.dot), names::key(key));
            self.breach(Invariant::StaysDeleted, format!("{dot} of {key} has come back to n{}", host.0 + 1));
        }
    }

    /// A tombstone was deleted for good, or what has expired: every primary had it, and nobody who can bring anything home has
    /// anything older.
    fn reaped(&mut self, host: HostId, key: &ObjectKey, held: &HeldRecord) {
        self.check(Invariant::StaysDeleted);
        let is_live = |sibling: &&Sibling| sibling.is_live(time::wall());
        // Where the clocks of all primaries are ahead, they may rightly agree.
        let is_right = self.primaries(key).iter().any(|primary| !self.clocks.ahead.contains(primary));
        let early = held.object.siblings().iter().find(is_live).filter(|_| is_right);
        if let Some(early) = early {
            let (dot, key) = (self.names.dot(&early.dot), names::key(key));
            let what = format!("n{} has forgotten {dot} of {key}, which is live", host.0 + 1);
            self.breach(Invariant::StaysDeleted, what);
        }
        let clock = held.object.clock();
        self.accounts.note_reaped(host.0, key, clock);
        let Some(ring) = self.rings.by(held.reaped.map(|round| round.epoch), host).cloned() else { return };
        let primaries = self.indexes(&ring.primaries(key).all());
        let mut wrong = Vec::new();
        for (index, identity) in self.identities.iter().enumerate() {
            let membership = ring.membership_of(identity.node, identity.directory);
            let counts = matches!(membership, Membership::Member | Membership::Left);
            if !counts || self.old_copies.contains(&index) {
                continue;
            }
            let record = self.mirrors[index].record(key);
            let lacks = primaries.contains(&index)
                && !self.accounts.has_reaped(index, key)
                && !record.is_some_and(|record| record.object.clock().covers_all(clock));
            let older = record.and_then(|record| live_below(&record.object, clock));
            let may_come_back = |dot| self.may_come_back.get(key).is_some_and(|clock| clock.covers(dot));
            let older = older.filter(|older| !may_come_back(&older.dot));
            if lacks {
                wrong.push(format!("n{} has never had it", index + 1));
            }
            if let Some(older) = older {
                wrong.push(format!("n{} holds {}", index + 1, self.names.dot(&older.dot)));
            }
        }
        for wrong in wrong {
            let what =
                format!("n{} has forgotten that {key} was deleted, and {wrong}", host.0 + 1, key = names::key(key));
            self.breach(Invariant::StaysDeleted, what);
        }
    }

    /// A disk forgets nothing, and a last-write-wins write is stamped above all that its coordinator held, and replaces it
    /// (R6).
    fn check_progress(
        &mut self,
        host: HostId,
        key: &ObjectKey,
        before: Option<&HeldRecord>,
        record: &HeldRecord,
        minted: &[Sibling],
    ) {
        let Some(before) = before else { return };
        let (old, new) = (&before.object, &record.object);
        if !new.clock().covers_all(old.clock()) {
            let (from, to) = (self.names.clock(old.clock()), self.names.clock(new.clock()));
            let what = format!("{key} on n{} went back from {from} to {to}", host.0 + 1, key = names::key(key));
            self.breach(Invariant::NothingVanishes, what);
        }
        if self.mode(key) == SiblingMode::Keep {
            return;
        }
        for minted in minted {
            let above = old.greatest_stamp().is_none_or(|greatest| minted.stamp > greatest);
            let replaced = old.siblings().iter().all(|old| new.siblings().iter().all(|new| new.dot != old.dot));
            if !above || !replaced {
                let what = format!(
                    "{key}: {} is not stamped above what n{} held, or has not replaced it",
                    self.names.dot(&minted.dot),
                    host.0 + 1,
                    key = names::key(key)
                );
                self.breach(Invariant::NothingVanishes, what);
            }
        }
    }

    fn dropped(&mut self, host: HostId, key: &ObjectKey, before: Option<&HeldRecord>) {
        let Some(before) = before else { return };
        self.check(Invariant::DroppedOnProof);
        // By the ring by which its markers were set.
        let ring = self.rings.by(before.owed_in, host);
        let primaries = ring.map(|ring| ring.primaries(key).all()).unwrap_or_default();
        let clock = before.object.clock();
        let missing: Vec<String> = self
            .indexes(&primaries)
            .into_iter()
            .filter(|primary| !self.can_have_confirmed(*primary, key, clock))
            .map(|primary| format!("n{}", primary + 1))
            .collect();
        if missing.is_empty() {
            self.gone.insert((host.0, key.clone()), clock.clone());
        }
        if !missing.is_empty() {
            let what = format!(
                "n{} dropped its copy of {key}, at {}, which {} lacks",
                host.0 + 1,
                self.names.clock(before.object.clock()),
                missing.join(" and "),
                key = names::key(key)
            );
            self.breach(Invariant::DroppedOnProof, what);
        }
        self.check_kept(key);
    }

    /// It covers that, or did before its disk was lost, or before it was reaped; or it has dropped it on proof, being no primary any more by a ring
    /// that whoever relies on it need not know yet.
    fn can_have_confirmed(&self, index: usize, key: &ObjectKey, clock: &Clock) -> bool {
        let was_primary = !self.primaries(key).contains(&index);
        let gone = self.gone.get(&(index, key.clone())).filter(|_| was_primary);
        let is_reaped = self.accounts.has_reaped(index, key) && self.accounts.reaped(key).covers_all(clock);
        is_reaped || self.mirrors[index].has_covered(key, clock) || gone.is_some_and(|gone| gone.covers_all(clock))
    }

    /// Every acknowledged write of the key is still on enough disks.
    fn check_kept(&mut self, key: &ObjectKey) {
        let acknowledged = self.accounts.acknowledged(key);
        for (request, w) in acknowledged {
            self.check(Invariant::Kept);
            let holders = self.holders(key, request).map_or(usize::MAX, |holders| holders.len());
            // Where members have become too few there are fewer copies.
            let w = w.min(self.rings.fewest_copies(key));
            if holders < w {
                let what = format!(
                    "{key}: of the {w} disks that {} was acknowledged by, {holders} have it",
                    self.accounts.label(request),
                    key = names::key(key)
                );
                self.breach(Invariant::Kept, what);
            }
        }
    }

    /// After each batch the hash trees of what it touches are what they would be if they were made anew.
    fn check_trees(&mut self, host: HostId, touched: &BTreeSet<ObjectKey>) {
        let Some(partitions) = self.ring().map(|ring| ring.read().partitions()) else { return };
        let touched: BTreeSet<Partition> = touched.iter().map(|key| partitions.partition_of(Token::of(key))).collect();
        for partition in touched {
            self.check(Invariant::TreesMatch);
            if !self.mirrors[host.0].has_right_tree(partition, partitions) {
                let what =
                    format!("n{}: the hash tree of partition {partition} is not that of its records", host.0 + 1);
                self.breach(Invariant::TreesMatch, what);
            }
        }
    }

    fn check_markers(&mut self, host: HostId, key: &ObjectKey) {
        self.check(Invariant::MarkersMatch);
        let mirror = &self.mirrors[host.0];
        let hints = mirror.hints_of(key);
        let record = mirror.record(key);
        let markers = record.map(|record| record.markers.clone()).unwrap_or_default();
        let mut wrong = (hints != markers).then(|| format!("its hints are for {hints:?}, its markers for {markers:?}"));
        if let (Some(record), Some(ring)) = (record, record.and_then(|record| self.rings.by(record.owed_in, host))) {
            let primaries = ring.primaries(key);
            let holder = self.names.identity(host).node;
            let is_owed = |primary: &NodeId| record.markers.contains(primary) || record.confirmed.contains(primary);
            // In each layout it is a primary, or some primary, or every one if it is none anywhere, owes a confirmation.
            for layout in primaries.written().iter().filter(|layout| !layout.contains(&holder)) {
                let forgotten = layout.iter().find(|primary| !is_owed(primary));
                let counts = if primaries.contains(holder) { layout.iter().any(is_owed) } else { forgotten.is_none() };
                let is_left_over = record.owed_in.is_none() && self.rings.was_primary(holder, key);
                if let (false, Some(forgotten), false) = (counts, forgotten, is_left_over) {
                    wrong = Some(format!("it holds a copy and no marker for {}", self.names.node(*forgotten)));
                }
            }
            let lacks = |node: &&NodeId| {
                let index = self.members.get(node);
                index.is_some_and(|index| !self.can_have_confirmed(*index, key, record.object.clock()))
            };
            if let Some(node) = record.confirmed.iter().find(lacks) {
                let held = self.members.get(node).and_then(|index| self.mirrors[*index].record(key));
                let held =
                    held.map(|held| self.names.clock(held.object.clock())).unwrap_or_else(|| "nothing".to_owned());
                let (node, clock) = (self.names.node(*node), self.names.clock(record.object.clock()));
                wrong = Some(format!("it takes {node} for having confirmed {clock}, and that has {held}"));
            }
        }
        if let Some(wrong) = wrong {
            self.breach(Invariant::MarkersMatch, format!("n{}, {key}: {wrong}", host.0 + 1, key = names::key(key)));
        }
    }

    /// A state of a key, wherever it is met.
    fn check_state(&mut self, key: &ObjectKey, object: &Object, at: &str) {
        self.check(Invariant::OneValue);
        self.check(Invariant::NothingVanishes);
        self.check(Invariant::NothingInvented);
        let contradictions = self.accounts.contradictions(key, object);
        for (invariant, what) in contradictions {
            self.breach(invariant, format!("{key} on {at}: {what}", key = names::key(key)));
        }
    }

    /// The nodes that hold a write durably, or held it until their disks were lost; none if that cannot be told.
    fn holders(&self, key: &ObjectKey, request: RequestId) -> Option<Vec<usize>> {
        // Superseded in the batch that it came with, its dot was never seen from outside: another may have been before.
        let may_be_superseded_unseen =
            self.mode(key) == SiblingMode::LastWriteWins || self.accounts.had_blind_delete(key);
        let dots = match self.accounts.dots_of(key, request) {
            Some(dots) if !(may_be_superseded_unseen && self.accounts.was_asked_again(request)) => dots,
            None if !may_be_superseded_unseen => return Some(Vec::new()),
            Some(_) | None => return None,
        };
        let reaped = self.accounts.reaped(key);
        if dots.iter().any(|dot| reaped.covers(dot)) {
            return None;
        }
        let lost_with = self.accounts.lost_with(key, &dots);
        let holds = |index: &usize| {
            let held = self.mirrors[*index].record(key);
            lost_with.contains(index) || dots.iter().any(|dot| held.is_some_and(|held| held.object.clock().covers(dot)))
        };
        Some((0..self.mirrors.len()).filter(holds).collect())
    }

    fn nodes(&self, indexes: &[usize]) -> BTreeSet<NodeId> {
        indexes.iter().map(|index| self.names.identity(HostId(*index)).node).collect()
    }

    fn indexes(&self, nodes: &[NodeId]) -> Vec<usize> {
        nodes.iter().filter_map(|node| self.members.get(node).copied()).collect()
    }

    /// By index.
    pub fn primaries(&self, key: &ObjectKey) -> Vec<usize> {
        let primaries = self.ring().map(|ring| ring.read().primaries_of(key)).unwrap_or_default();
        self.indexes(&primaries)
    }

    /// Whether the primaries, which agree, have something to show. Those that are away are not asked.
    pub fn has_a_value(&self, key: &ObjectKey, away: &BTreeSet<usize>) -> bool {
        let mut here = self.primaries(key).into_iter().filter(|primary| !away.contains(primary));
        let held = here.find_map(|primary| self.mirrors[primary].record(key));
        held.is_some_and(|held| !held.object.present(self.mode(key), time::wall()).is_empty())
    }

    fn mode(&self, key: &ObjectKey) -> SiblingMode {
        self.ring().map(|ring| ring.read().rules(key.bucket()).mode).unwrap_or_default()
    }

    pub fn breach(&mut self, invariant: Invariant, what: String) {
        self.transcript.complain(|| format!("invariant {}: {what}", invariant.number()));
        *self.counts.entry(invariant).or_insert(0) += 1;
        if self.counts[&invariant] <= MOST_OF_A_KIND {
            self.breaches.push(Breach { at: time::now(), invariant, what });
        }
    }
}

/// A tombstone was deleted and something else taken in, in one batch.
fn was_reaped_between(held: &HeldRecord, taken: &HeldRecord) -> bool {
    held.reaped.is_some() && !taken.object.clock().covers_all(held.object.clock())
}

/// What of an object is live and covered by that clock.
fn live_below<'a>(object: &'a Object, clock: &Clock) -> Option<&'a Sibling> {
    object.siblings().iter().find(|sibling| sibling.is_live(time::wall()) && clock.covers(&sibling.dot))
}
