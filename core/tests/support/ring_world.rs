//! A ring that changes while it is written and read, on a network that loses, repeats and reorders messages.
//!
//! One key; what a node holds of it is a set of writes. How decrees are chosen has a world of its own: here whoever knows
//! the whole log appends to it. Everything else is done as nodes do it, each by the ring that it knows.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::Index;
use starling_core::fault::{self, Fault};
use starling_core::filling::Filling;
use starling_core::ids::{ClusterId, DirectoryId, NodeId};
use starling_core::layout::{BucketRules, FirstLayout, Layout, LayoutVersion, Member, NextLayout};
use starling_core::name::ObjectKey;
use starling_core::object::SiblingMode;
use starling_core::preference::Preference;
use starling_core::quorum::Level;
use starling_core::ring::{Decree, Entry, Epoch, Phase, Ring};
use starling_core::token::{Partition, PartitionCount};
use starling_core::transition::{Progress, Pull};

use crate::support::{copies, ensure};

type Write = usize;
type Writes = BTreeSet<Write>;

/// Nodes that there are, members or not.
const NODES: u64 = 7;

#[derive(Debug, Clone)]
pub struct World {
    members: u64,
    replicas: usize,
    key: u8,
    happenings: Vec<Happening>,
}

#[derive(Debug, Clone)]
enum Happening {
    /// One of the messages under way arrives; it may come again.
    Arrives {
        which: Index,
        again: bool,
    },
    Lost(Index),
    Write(Index),
    Read(Index),
    /// Somebody who knows all decrees proposes a change of the layout.
    Change {
        by: Index,
        change: Change,
        /// The dead, if there are any, are given up without a vote of a majority.
        by_force: bool,
    },
    /// Somebody looks whether the ring may go on.
    Advance(Index),
    /// Somebody tells somebody of the decrees it knows.
    Tell(Index, Index),
    AskProgress(Index),
    Pull(Index),
    Offer(Index),
    /// What is not durable is lost.
    Crashes(Index),
    /// A disk is lost for good.
    DiskLost(Index),
    /// A member that has lost its disk begins again with another directory.
    Register {
        by: Index,
    },
    /// A node that is filling compares itself with others.
    Compare(Index),
}

#[derive(Debug, Clone)]
enum Change {
    Join(Index),
    Leave(Index),
    Replace(Index, Index),
    Replicas(usize),
    BucketReplicas(usize),
    /// Those whose disks are lost are declared dead.
    RemoveDead,
}

pub fn worlds() -> impl Strategy<Value = World> {
    let which = any::<Index>;
    let change = prop_oneof![
        3 => which().prop_map(Change::Join),
        2 => which().prop_map(Change::Leave),
        3 => (which(), which()).prop_map(|(old, new)| Change::Replace(old, new)),
        1 => (1usize..=3).prop_map(Change::Replicas),
        1 => (1usize..=3).prop_map(Change::BucketReplicas),
        2 => Just(Change::RemoveDead),
    ];
    let happening = prop_oneof![
        60 => (which(), prop::bool::weighted(0.1)).prop_map(|(which, again)| Happening::Arrives { which, again }),
        4 => which().prop_map(Happening::Lost),
        8 => which().prop_map(Happening::Write),
        8 => which().prop_map(Happening::Read),
        3 => (which(), change, prop::bool::weighted(0.3))
            .prop_map(|(by, change, by_force)| Happening::Change { by, change, by_force }),
        6 => which().prop_map(Happening::Advance),
        10 => (which(), which()).prop_map(|(from, to)| Happening::Tell(from, to)),
        3 => which().prop_map(Happening::AskProgress),
        4 => which().prop_map(Happening::Pull),
        2 => which().prop_map(Happening::Offer),
        1 => which().prop_map(Happening::Crashes),
        1 => which().prop_map(Happening::DiskLost),
        2 => which().prop_map(|by| Happening::Register { by }),
        4 => which().prop_map(Happening::Compare),
    ];
    (1u64..=4, 1usize..=3, any::<u8>(), prop::collection::vec(happening, 0..600))
        .prop_map(|(members, replicas, key, happenings)| World { members, replicas, key, happenings })
}

/// What is durable, and what a node has in mind.
struct Node {
    directory: DirectoryId,
    ring: Ring,
    disk_lost: bool,
    filling: Filling,
    held: Writes,
    /// Who has to confirm, and who has, by the ring of that epoch.
    owed: BTreeSet<NodeId>,
    confirmed: BTreeSet<NodeId>,
    owed_in: Epoch,
    pulled: BTreeSet<Pull>,
    pulled_for: Option<LayoutVersion>,
    copied: Option<LayoutVersion>,
    /// In mind only.
    requests: BTreeMap<usize, Request>,
    progress: BTreeMap<NodeId, Progress>,
}

struct Request {
    epoch: Epoch,
    preference: Preference,
    answered: BTreeSet<NodeId>,
    what: What,
}

enum What {
    Write(Write),
    /// What the reader has to see, and what it has seen.
    Read {
        due: Writes,
        seen: Writes,
    },
}

#[derive(Debug, Clone)]
enum Message {
    Decree { to: NodeId, entry: Entry },
    Store { from: NodeId, to: NodeId, request: usize, epoch: Epoch, write: Write },
    Stored { to: NodeId, by: NodeId, request: usize },
    Read { from: NodeId, to: NodeId, request: usize, epoch: Epoch },
    Found { to: NodeId, by: NodeId, request: usize, held: Writes, is_full: bool },
    Compare { from: NodeId, to: NodeId, epoch: Epoch },
    Compared { to: NodeId, by: NodeId, epoch: Epoch, held: Writes },
    Pull { from: NodeId, epoch: Epoch, pull: Pull },
    Pulled { to: NodeId, epoch: Epoch, pull: Pull, held: Writes },
    AskProgress { from: NodeId, to: NodeId },
    Progress { to: NodeId, by: NodeId, progress: Progress },
    Offer { from: NodeId, to: NodeId, epoch: Epoch, held: Writes },
    Confirm { to: NodeId, by: NodeId, epoch: Epoch, held: Writes },
}

/// A write that was answered.
struct Acknowledged {
    /// How many copies it asked for.
    copies: usize,
    /// A majority of primaries in each layout.
    is_strict: bool,
}

struct Run {
    key: ObjectKey,
    log: Vec<Entry>,
    /// By the whole log.
    ring: Ring,
    nodes: BTreeMap<NodeId, Node>,
    under_way: Vec<Message>,
    requests: usize,
    /// Which directories ever held what durably.
    takers: BTreeMap<Write, BTreeSet<DirectoryId>>,
    lost: BTreeSet<DirectoryId>,
    acknowledged: BTreeMap<Write, Acknowledged>,
}

impl World {
    pub fn run(&self) -> Result<(), String> {
        let bucket = "b".parse().expect("a name");
        let key = ObjectKey::new(bucket, vec![self.key]).expect("a key");
        let first = FirstLayout {
            cluster: ClusterId(1),
            partitions: PartitionCount::try_from(8).expect("a power of two"),
            replicas: copies(self.replicas),
            members: (1..=self.members).map(member).collect(),
            buckets: BTreeMap::new(),
        };
        let layout = Layout::first(first).expect("members differ");
        let ring = Ring::first(layout.clone()).expect("it is the first");
        let mut run = Run {
            key,
            log: vec![Ring::first_entry(layout)],
            nodes: (1..=NODES).map(|node| (NodeId(node), Node::with(DirectoryId(node), ring.clone()))).collect(),
            ring,
            under_way: Vec::new(),
            requests: 0,
            takers: BTreeMap::new(),
            lost: BTreeSet::new(),
            acknowledged: BTreeMap::new(),
        };
        for happening in &self.happenings {
            run.happens(happening)?;
            run.check()?;
        }
        run.in_peace()
    }
}

fn member(number: u64) -> Member {
    Member {
        node: NodeId(number),
        directory: DirectoryId(number),
        name: format!("n{number}").parse().expect("a name"),
        zone: format!("z{}", number % 3).parse().expect("a zone"),
        weight: 1,
        address: format!("127.0.0.1:{number}"),
    }
}

impl Node {
    fn with(directory: DirectoryId, ring: Ring) -> Node {
        Node {
            directory,
            owed_in: ring.epoch(),
            ring,
            disk_lost: false,
            filling: Filling::default(),
            held: Writes::new(),
            owed: BTreeSet::new(),
            confirmed: BTreeSet::new(),
            pulled: BTreeSet::new(),
            pulled_for: None,
            copied: None,
            requests: BTreeMap::new(),
            progress: BTreeMap::new(),
        }
    }

    /// Its disk has all that it had, or has it again.
    fn is_whole(&self) -> bool {
        !self.disk_lost && self.filling.partitions().next().is_none()
    }

    fn id_of(nodes: &BTreeMap<NodeId, Node>, which: &Index) -> NodeId {
        *nodes.keys().nth(which.index(nodes.len())).expect("there are nodes")
    }
}

impl Run {
    fn node(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).expect("messages go to nodes")
    }

    fn happens(&mut self, happening: &Happening) -> Result<(), String> {
        let of = |which: &Index| Node::id_of(&self.nodes, which);
        match happening {
            Happening::Arrives { which, again } if !self.under_way.is_empty() => {
                let at = which.index(self.under_way.len());
                let message = if *again { self.under_way[at].clone() } else { self.under_way.swap_remove(at) };
                self.arrives(message)?;
            }
            Happening::Lost(which) if !self.under_way.is_empty() => {
                let at = which.index(self.under_way.len());
                self.under_way.swap_remove(at);
            }
            Happening::Arrives { .. } | Happening::Lost(_) => {}
            Happening::Write(by) => self.write(of(by)),
            Happening::Read(by) => self.read(of(by)),
            Happening::Change { by, change, by_force } => self.change(of(by), change, *by_force),
            Happening::Advance(by) => self.advance(of(by)),
            Happening::Tell(from, to) => self.tell(of(from), of(to)),
            Happening::AskProgress(by) => self.ask_progress(of(by)),
            Happening::Pull(by) => self.pull(of(by)),
            Happening::Offer(by) => self.offer(of(by)),
            Happening::Crashes(which) => {
                let node = of(which);
                let node = self.node(node);
                node.requests.clear();
                node.progress.clear();
            }
            // Two lost disks out of three copies may lose what two were asked for: one at a time.
            Happening::DiskLost(which) => {
                let node = of(which);
                if self.ring.is_member(node) && self.nodes.values().all(Node::is_whole) && self.ring.members().len() > 1
                {
                    self.lose_disk(node);
                }
            }
            Happening::Register { by } => self.register(of(by)),
            Happening::Compare(by) => self.compare(of(by)),
        }
        Ok(())
    }

    fn lose_disk(&mut self, node: NodeId) {
        let node = self.node(node);
        node.disk_lost = true;
        node.held.clear();
        node.requests.clear();
        let directory = node.directory;
        self.lost.insert(directory);
    }

    /// Another directory stands for whoever has lost its disk, and knows the log as far as that.
    fn register(&mut self, by: NodeId) {
        let lost = self.nodes.iter().find(|(node, state)| state.disk_lost && self.ring.is_member(**node));
        let Some((node, state)) = lost.map(|(node, state)| (*node, state)) else { return };
        let directory = DirectoryId(state.directory.0 + 100);
        self.append(by, Decree::Register { node, directory });
        if self.ring.directory_of(node) == Some(directory) {
            // The other partitions hold nothing here, and are never compared.
            let (all, here) = (Filling::begin(&self.ring, node), self.here());
            let filling = all.compared(here).map(|compared| (here, compared.clone())).into_iter().collect();
            let begun = Node::with(directory, self.ring.clone());
            *self.node(node) = Node { filling: Filling::from_parts(filling), ..begun };
            self.settle_filling(node);
        }
    }

    fn compare(&mut self, by: NodeId) {
        self.settle_filling(by);
        let node = &self.nodes[&by];
        let epoch = node.ring.epoch();
        let left = node.filling.left(&node.ring, by).remove(&self.here()).unwrap_or_default();
        self.under_way.extend(left.into_iter().map(|to| Message::Compare { from: by, to, epoch }));
    }

    fn settle_filling(&mut self, id: NodeId) {
        let node = self.node(id);
        node.filling.take_full(&node.ring, id);
    }

    /// The partition of the key.
    fn here(&self) -> Partition {
        self.ring.read().partition_of(&self.key)
    }

    /// Whether a node takes part in requests.
    fn serves(&self, id: NodeId) -> bool {
        let node = &self.nodes[&id];
        let is_registered = node.ring.directory_of(id) == Some(node.directory);
        !node.disk_lost && is_registered && node.ring.departure_of(id).is_none()
    }

    fn write(&mut self, by: NodeId) {
        if !self.serves(by) {
            return;
        }
        let write = self.requests;
        let (request, epoch, preference) = self.begin(by, What::Write(write));
        let to = preference.primaries().all().into_iter().chain(preference.fallbacks().iter().copied().take(1));
        self.under_way.extend(to.map(|to| Message::Store { from: by, to, request, epoch, write }));
    }

    fn read(&mut self, by: NodeId) {
        if !self.serves(by) {
            return;
        }
        let strict = self.acknowledged.iter().filter(|(write, done)| done.is_strict && self.survives(**write));
        let due = strict.map(|(write, _)| *write).collect();
        let (request, epoch, preference) = self.begin(by, What::Read { due, seen: Writes::new() });
        let to = preference.reads().primaries().iter();
        self.under_way.extend(to.map(|to| Message::Read { from: by, to: *to, request, epoch }));
    }

    fn begin(&mut self, by: NodeId, what: What) -> (usize, Epoch, Preference) {
        let (request, key) = (self.requests, self.key.clone());
        self.requests += 1;
        let node = self.node(by);
        let (epoch, preference) = (node.ring.epoch(), node.ring.preference(&key));
        let begun = Request { epoch, preference: preference.clone(), answered: BTreeSet::new(), what };
        node.requests.insert(request, begun);
        (request, epoch, preference)
    }

    /// Fewer of the disks that took it are lost than it asked copies for.
    fn survives(&self, write: Write) -> bool {
        self.lost_of(write) < self.acknowledged[&write].copies
    }

    /// How many lost disks ever held a write.
    fn lost_of(&self, write: Write) -> usize {
        self.takers[&write].intersection(&self.lost).count()
    }

    fn change(&mut self, by: NodeId, change: &Change, by_force: bool) {
        let newest = self.ring.newest();
        let mut next = NextLayout {
            replicas: newest.replicas(),
            members: newest.members().to_vec(),
            buckets: newest.buckets().clone(),
        };
        let lost: BTreeSet<NodeId> = self.nodes.iter().filter(|(_, node)| node.disk_lost).map(|(id, _)| *id).collect();
        let dead: BTreeSet<NodeId> = lost.into_iter().filter(|node| self.ring.is_member(*node)).collect();
        next.members.retain(|member| !dead.contains(&member.node));
        for member in &mut next.members {
            member.directory = self.ring.directory_of(member.node).unwrap_or(member.directory);
        }
        match change {
            Change::Join(which) => next.members.extend(self.free(which).map(|node| member(node.0))),
            Change::Leave(which) if !next.members.is_empty() => {
                next.members.remove(which.index(next.members.len()));
            }
            Change::Replace(old, new) if !next.members.is_empty() => {
                next.members.remove(old.index(next.members.len()));
                next.members.extend(self.free(new).map(|node| member(node.0)));
            }
            Change::Leave(_) | Change::Replace(..) => {}
            Change::Replicas(count) => next.replicas = copies(*count),
            Change::BucketReplicas(count) => {
                let rules = BucketRules { replicas: Some(copies(*count)), mode: SiblingMode::Keep };
                next.buckets.insert(self.key.bucket().clone(), rules);
            }
            Change::RemoveDead => {}
        }
        if next.members.is_empty() {
            // Those who were to leave have to stay.
            let may_stay = |member: &&Member| !dead.contains(&member.node) && !self.ring.is_dead(member.node);
            let registered = |member: &Member| Member {
                directory: self.ring.directory_of(member.node).unwrap_or(member.directory),
                ..member.clone()
            };
            next.members = self.ring.members().into_values().filter(may_stay).map(registered).collect();
        }
        for rules in next.buckets.values_mut() {
            rules.replicas = rules.replicas.map(|asked| asked.min(next.replicas));
        }
        if let Ok(layout) = newest.successor(next) {
            let decree = if by_force && !dead.is_empty() {
                Decree::Force { layout: layout.in_cluster(ClusterId(1000 + self.log.len() as u64)), dead }
            } else {
                Decree::Begin { layout, dead }
            };
            self.append(by, decree);
        }
    }

    /// Somebody who has never been a member.
    fn free(&self, which: &Index) -> Option<NodeId> {
        let is_free = |node: &NodeId| {
            !self.ring.is_member(*node) && self.ring.departure_of(*node).is_none() && !self.nodes[node].disk_lost
        };
        let free: Vec<NodeId> = self.nodes.keys().copied().filter(is_free).collect();
        (!free.is_empty()).then(|| free[which.index(free.len())])
    }

    fn advance(&mut self, by: NodeId) {
        let node = &self.nodes[&by];
        if let Ok(Some(decree)) = node.ring.next_decree(&node.progress) {
            self.append(by, decree);
        }
    }

    /// Only who knows all that was chosen can propose what comes next.
    fn append(&mut self, by: NodeId, decree: Decree) {
        if self.nodes[&by].ring.epoch() != self.ring.epoch() {
            return;
        }
        let entry = self.ring.entry(decree);
        if let Ok(ring) = self.ring.after(&entry) {
            self.ring = ring;
            self.log.push(entry);
            let fewest = self.ring.primaries(&self.key).written().iter().map(Vec::len).min().unwrap_or(1);
            // What has fewer replicas from now on has fewer copies.
            self.acknowledged
                .values_mut()
                .for_each(|acknowledged| acknowledged.copies = acknowledged.copies.min(fewest));
        }
    }

    fn tell(&mut self, from: NodeId, to: NodeId) {
        // The first of its log, as it is told that others know more.
        let known = self.nodes[&from].ring.epoch().0.max(self.nodes[&to].ring.epoch().0 + 1);
        let next = self.log.get(self.nodes[&to].ring.epoch().0 as usize).filter(|entry| entry.epoch.0 <= known);
        self.under_way.extend(next.cloned().map(|entry| Message::Decree { to, entry }));
    }

    fn ask_progress(&mut self, from: NodeId) {
        let whom = self.nodes[&from].ring.in_transition();
        self.under_way.extend(whom.into_iter().map(|to| Message::AskProgress { from, to }));
    }

    fn pull(&mut self, by: NodeId) {
        let node = &self.nodes[&by];
        let here = node.ring.read().partition_of(&self.key);
        let pulls = node.ring.pulls_of(by).into_iter().filter(|pull| pull.partition == here);
        let epoch = node.ring.epoch();
        self.under_way.extend(pulls.map(|pull| Message::Pull { from: by, epoch, pull }));
        self.note_copied(by);
    }

    fn offer(&mut self, from: NodeId) {
        self.refresh(from);
        let node = &self.nodes[&from];
        let (epoch, held) = (node.ring.epoch(), &node.held);
        if !held.is_empty() {
            let offers = node.owed.iter().map(|to| Message::Offer { from, to: *to, epoch, held: held.clone() });
            self.under_way.extend(offers);
        }
    }

    /// By a new ring all is owed anew.
    fn refresh(&mut self, id: NodeId) {
        let key = self.key.clone();
        let node = self.node(id);
        if node.owed_in != node.ring.epoch() && !node.held.is_empty() {
            let preference = node.ring.preference(&key);
            node.owed = preference.primaries().owed_by(id);
            node.confirmed.clear();
            node.owed_in = node.ring.epoch();
        }
    }

    fn take(&mut self, id: NodeId, writes: &Writes, owes: bool) {
        let (key, new) = (self.key.clone(), writes.iter().any(|write| !self.nodes[&id].held.contains(write)));
        self.refresh(id);
        let node = self.node(id);
        node.held.extend(writes);
        if new && owes {
            node.owed = node.ring.preference(&key).primaries().owed_by(id);
            node.confirmed.clear();
            node.owed_in = node.ring.epoch();
        }
        let directory = node.directory;
        for write in writes {
            self.takers.entry(*write).or_default().insert(directory);
        }
    }

    fn arrives(&mut self, message: Message) -> Result<(), String> {
        match message {
            Message::Decree { to, entry } => {
                let node = self.node(to);
                if let Ok(ring) = node.ring.after(&entry) {
                    node.ring = ring;
                    node.progress.clear();
                }
            }
            Message::Store { from, to, request, epoch, write } => {
                if self.serves(to) && self.nodes[&to].ring.epoch() == epoch {
                    self.take(to, &Writes::from([write]), true);
                    self.under_way.push(Message::Stored { to: from, by: to, request });
                }
            }
            Message::Stored { to, by, request } => self.stored(to, by, request),
            Message::Read { from, to, request, epoch } => {
                if self.serves(to) && self.nodes[&to].ring.epoch() == epoch {
                    let (held, is_full) = (self.nodes[&to].held.clone(), self.is_full(to));
                    self.under_way.push(Message::Found { to: from, by: to, request, held, is_full });
                }
            }
            Message::Found { to, by, request, held, is_full } => {
                let counts = is_full || fault::is_on(Fault::CountFilling);
                self.found(to, counts.then_some(by), request, held)?;
            }
            Message::Compare { from, to, epoch } => {
                if self.serves(to) && self.nodes[&to].ring.epoch() == epoch {
                    let held = self.nodes[&to].held.clone();
                    self.under_way.push(Message::Compared { to: from, by: to, epoch, held });
                }
            }
            Message::Compared { to, by, epoch, held } => {
                if !self.nodes[&to].disk_lost && self.nodes[&to].ring.epoch() == epoch {
                    self.take(to, &held, true);
                    let here = self.here();
                    self.node(to).filling.note(here, by);
                    self.settle_filling(to);
                }
            }
            Message::Pull { from, epoch, pull } => {
                let source = &self.nodes[&pull.source];
                let concerns = source.ring.is_pulled(&self.key, from) || source.ring.epoch() < epoch;
                if !source.disk_lost && source.ring.may_be_copied_in(epoch) {
                    let held = if concerns { source.held.clone() } else { Writes::new() };
                    self.under_way.push(Message::Pulled { to: from, epoch, pull, held });
                }
            }
            Message::Pulled { to, epoch, pull, held } => {
                let node = &self.nodes[&to];
                if node.ring.epoch() == epoch && !node.disk_lost {
                    let version = node.ring.newest().version();
                    self.take(to, &held, false);
                    let node = self.node(to);
                    if node.pulled_for != Some(version) {
                        node.pulled.clear();
                        node.pulled_for = Some(version);
                    }
                    node.pulled.insert(pull);
                    self.note_copied(to);
                }
            }
            Message::AskProgress { from, to } => {
                let node = &self.nodes[&to];
                if !node.disk_lost {
                    let progress =
                        Progress { directory: node.directory, adopted: node.ring.epoch(), copied: node.copied };
                    self.under_way.push(Message::Progress { to: from, by: to, progress });
                }
            }
            Message::Progress { to, by, progress } => {
                self.node(to).progress.insert(by, progress);
            }
            Message::Offer { from, to, epoch, held } => {
                if self.serves(to) && self.nodes[&to].ring.epoch() == epoch {
                    self.take(to, &held, true);
                    self.under_way.push(Message::Confirm { to: from, by: to, epoch, held });
                }
            }
            Message::Confirm { to, by, epoch, held } => self.confirmed(to, by, epoch, &held),
        }
        Ok(())
    }

    fn note_copied(&mut self, id: NodeId) {
        let here = self.ring.read().partition_of(&self.key);
        let node = self.node(id);
        let version = node.ring.newest().version();
        let all = node.ring.pulls_of(id).into_iter().filter(|pull| pull.partition == here);
        let done = all.into_iter().all(|pull| node.pulled_for == Some(version) && node.pulled.contains(&pull));
        if node.ring.phase() == Phase::Dual && done {
            node.copied = Some(version);
        }
    }

    fn stored(&mut self, to: NodeId, by: NodeId, request: usize) {
        let Some(pending) = self.node(to).requests.get_mut(&request) else { return };
        let What::Write(write) = pending.what else { return };
        pending.answered.insert(by);
        let is_met = |pw| {
            let quorums = pending.preference.write_quorums(Level::Quorum, pw).expect("a majority is possible");
            quorums.iter().all(|layout| layout.is_met(pending.answered.iter().copied()))
        };
        let is_strict = is_met(Level::Quorum);
        if is_strict || is_met(Level::Default) {
            let copies = pending
                .preference
                .primaries()
                .written()
                .iter()
                .map(|primaries| primaries.len() / 2 + 1)
                .min()
                .unwrap_or(1);
            let known = self.acknowledged.entry(write).or_insert(Acknowledged { copies, is_strict });
            known.is_strict |= is_strict;
        }
    }

    fn is_full(&self, id: NodeId) -> bool {
        !self.nodes[&id].filling.is_filling(self.here())
    }

    /// `by` whom, if that counts.
    fn found(&mut self, to: NodeId, by: Option<NodeId>, request: usize, held: Writes) -> Result<(), String> {
        let Some(pending) = self.node(to).requests.get_mut(&request) else { return Ok(()) };
        let What::Read { due, seen } = &mut pending.what else { return Ok(()) };
        let majority = pending.preference.reads().primaries().len() / 2 + 1;
        if pending.answered.len() == majority {
            return Ok(());
        }
        pending.answered.extend(by);
        seen.extend(held);
        if pending.answered.len() == majority {
            let missed: Vec<&Write> = due.difference(seen).collect();
            let (epoch, by) = (pending.epoch, &pending.answered);
            ensure!(missed.is_empty(), "a read of epoch {epoch} by {by:?} has missed {missed:?}");
        }
        Ok(())
    }

    fn confirmed(&mut self, to: NodeId, by: NodeId, epoch: Epoch, held: &Writes) {
        self.refresh(to);
        let key = self.key.clone();
        let node = self.node(to);
        if node.ring.epoch() != epoch || !node.owed.contains(&by) || !held.is_superset(&node.held) {
            return;
        }
        node.owed.remove(&by);
        node.confirmed.insert(by);
        let preference = node.ring.preference(&key);
        let all = preference.primaries().all().iter().all(|primary| node.confirmed.contains(primary));
        if all && node.owed.is_empty() && !preference.primaries().contains(to) {
            node.held.clear();
        }
    }

    /// Every copy counts in each layout, and what was acknowledged is somewhere, unless as many disks are lost as it asked copies for.
    fn check(&self) -> Result<(), String> {
        let preference = self.ring.preference(&self.key);
        for node in self.nodes.keys() {
            let owed = preference.primaries().owed_by(*node);
            let counts = |primaries: &Vec<NodeId>| primaries.iter().any(|p| p == node || owed.contains(p));
            ensure!(
                preference.primaries().written().iter().all(counts),
                "what {node} takes in does not count in each layout"
            );
        }
        for (write, acknowledged) in &self.acknowledged {
            let holders = self.nodes.values().filter(|node| node.held.contains(write)).count();
            let due = acknowledged.copies.saturating_sub(self.lost_of(*write));
            ensure!(holders >= due, "write {write} has {holders} copies, and {due} are due");
        }
        Ok(())
    }

    /// From now on nothing goes wrong: the ring settles, all primaries hold everything, and nobody else does.
    fn in_peace(&mut self) -> Result<(), String> {
        self.under_way.clear();
        let all: Vec<NodeId> = self.nodes.keys().copied().collect();
        for round in 0..40 {
            for id in &all {
                for _ in 0..self.log.len() {
                    self.tell(*id, *id);
                    self.deliver_all()?;
                }
            }
            // Where the only member is left with a lost disk there is nothing to come back to.
            let Some(by) = all.iter().copied().find(|id| self.serves(*id)) else { return Ok(()) };
            if round == 0 {
                self.register(by);
                continue;
            }
            self.compare_primaries();
            for id in &all {
                self.compare(*id);
                self.pull(*id);
                self.offer(*id);
                self.deliver_all()?;
            }
            self.ask_progress(by);
            self.deliver_all()?;
            self.advance(by);
        }
        ensure!(self.ring.phase() == Phase::Settled, "the ring is still in phase {}", self.ring.phase());
        let filling = self.nodes.iter().find(|(id, node)| self.serves(**id) && !node.is_whole());
        ensure!(filling.is_none(), "{:?} is still filling", filling.map(|(id, _)| id));
        let primaries = self.ring.primaries(&self.key).all();
        for (id, node) in &self.nodes {
            if primaries.contains(id) && !node.disk_lost {
                let due: Writes = self.acknowledged.keys().copied().filter(|write| self.survives(*write)).collect();
                let missing: Vec<&Write> = due.difference(&node.held).collect();
                ensure!(missing.is_empty() || !self.everybody_answers(), "{id} lacks {missing:?} in the end");
            } else if !self.ring.is_dead(*id) && self.ring.departure_of(*id).is_none() {
                ensure!(node.held.is_empty(), "{id} still holds {:?}", node.held);
            }
        }
        Ok(())
    }

    /// Anti-entropy, which makes replicas equal that missed a write.
    fn compare_primaries(&mut self) {
        let primaries = self.ring.preference(&self.key).reads().primaries().to_vec();
        let alive: Vec<NodeId> = primaries.into_iter().filter(|node| self.serves(*node)).collect();
        let all: Writes = alive.iter().flat_map(|node| self.nodes[node].held.clone()).collect();
        alive.into_iter().for_each(|node| self.take(node, &all, true));
    }

    /// No disk was lost, so nothing is missing without somebody to bring it home.
    fn everybody_answers(&self) -> bool {
        self.nodes.values().all(|node| !node.disk_lost)
    }

    fn deliver_all(&mut self) -> Result<(), String> {
        while let Some(message) = self.under_way.pop() {
            self.arrives(message)?;
            self.check()?;
        }
        Ok(())
    }
}
