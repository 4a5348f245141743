//! One key that is written, deleted and reaped, or expires, on a network that loses, repeats and reorders messages, by nodes
//! that crash, stand still, lose their disks and leave. Of all wall clocks one may be wrong during a round.
//!
//! Whatever a node has read it may send much later: that is what an [`Errand`] is. The first three nodes are the key's
//! primaries, the first of them leads the rounds, and one of the others may leave.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use starling_core::clock::{Clock, Dot, History};
use starling_core::coordinate::{Write, coordinate};
use starling_core::fault::{self, Fault};
use starling_core::ids::{Birth, DirectoryId, NodeId, RequestId};
use starling_core::mark::{Minter, TrustedMarks};
use starling_core::name::ObjectKey;
use starling_core::object::{Object, Seen, SiblingMode, Value};
use starling_core::reaping::{
    Bound, Expired, Fences, Reaping, Round, RoundId, RoundsOver, Stage, Standing, agrees, can_write, is_gone,
    is_guarded, may_mark, takes_in,
};
use starling_core::ring::Epoch;
use starling_core::stamp::Stamp;
use starling_core::token::Partition;
use starling_core::wall::WallTime;

use crate::support::{UNLIMITED, ensure};

const PRIMARIES: u64 = 3;
const NODES: u64 = 5;
const LEADER: NodeId = NodeId(1);
const LEAVER: NodeId = NodeId(NODES);
const HERE: Partition = Partition(0);
/// For the errors of clocks that are right.
const MARGIN: Duration = Duration::from_millis(10);

#[derive(Debug, Clone)]
pub struct World(Vec<Happening>);

#[derive(Debug, Clone)]
enum Happening {
    /// One of the messages under way arrives; it may come again.
    Arrives {
        which: Index,
        again: bool,
    },
    Lost(Index),
    /// A client writes at a node, having seen what is there, or nothing.
    Write {
        at: Index,
        what: What,
        has_read: bool,
    },
    /// So many milliseconds.
    TimePasses(u8),
    /// A wall clock is set far ahead, and the one that was is right again.
    ClockSet(Index),
    /// A node sets out to bring what it holds to others.
    SetOut(Index),
    /// What somebody else holds is added to what is brought.
    Gather(Index, Index),
    /// What was gathered is sent to somebody.
    Bring(Index, Index),
    /// A copy that is held for others is offered to one of them.
    BringHome(Index, Index),
    /// The primaries compare what they hold.
    Compare,
    /// The leader begins a round, or asks again.
    Lead,
    /// It does so, and some of those who are asked answer at once, while all else is on its way.
    LeadSwiftly(u8),
    /// The leader gives up a round of which not everybody may have heard.
    CallOff,
    /// What is not durable is lost.
    Crashes(Index),
    DiskLost(Index),
    /// The ring changes: a lost disk is replaced, one has left, one that has left is empty; or just so.
    Decree {
        leave: bool,
    },
    /// A node learns of the next decree.
    Tell(Index),
    /// A node that is filling asks another primary for what it has.
    Fill(Index, Index),
}

#[derive(Debug, Clone, Copy)]
enum What {
    Put,
    /// For so many milliseconds.
    PutFor(u8),
    Delete,
}

pub fn worlds() -> impl Strategy<Value = World> {
    let which = any::<Index>;
    let what = prop_oneof![3 => Just(What::Put), 3 => (0..20u8).prop_map(What::PutFor), 6 => Just(What::Delete)];
    let happening = prop_oneof![
        40 => (which(), prop::bool::weighted(0.1)).prop_map(|(which, again)| Happening::Arrives { which, again }),
        2 => which().prop_map(Happening::Lost),
        4 => (which(), what, prop::bool::weighted(0.8))
            .prop_map(|(at, what, has_read)| Happening::Write { at, what, has_read }),
        2 => (0..30u8).prop_map(Happening::TimePasses),
        1 => which().prop_map(Happening::ClockSet),
        3 => which().prop_map(Happening::SetOut),
        3 => (which(), which()).prop_map(|(errand, from)| Happening::Gather(errand, from)),
        10 => (which(), which()).prop_map(|(errand, to)| Happening::Bring(errand, to)),
        6 => (which(), which()).prop_map(|(from, to)| Happening::BringHome(from, to)),
        6 => Just(Happening::Compare),
        3 => Just(Happening::Lead),
        6 => prop_oneof![Just(u8::MAX), any::<u8>()].prop_map(Happening::LeadSwiftly),
        1 => Just(Happening::CallOff),
        1 => which().prop_map(Happening::Crashes),
        1 => which().prop_map(Happening::DiskLost),
        1 => any::<bool>().prop_map(|leave| Happening::Decree { leave }),
        4 => which().prop_map(Happening::Tell),
        3 => (which(), which()).prop_map(|(node, from)| Happening::Fill(node, from)),
    ];
    prop::collection::vec(happening, 0..300).prop_map(World)
}

/// What is durable, and what a node has in mind.
struct Node {
    directory: DirectoryId,
    epoch: Epoch,
    disk_lost: bool,
    held: Object,
    /// Who has to confirm a copy that is held for others.
    owed: BTreeSet<NodeId>,
    bound: Option<Bound>,
    marked: Option<RoundId>,
    fences: Fences,
    /// The last round that bound it and does not any more, and of which epoch.
    ended: (Epoch, u64),
    /// With whom it has still to be compared.
    to_fill_from: BTreeSet<NodeId>,
    /// In mind only.
    leads: Option<Reaping>,
}

/// What somebody has read and may send at any time, unless it crashes.
struct Errand {
    by: NodeId,
    epoch: Epoch,
    over: RoundsOver,
    object: Object,
}

#[derive(Debug, Clone)]
enum Message {
    Store { from: NodeId, to: NodeId, epoch: Epoch, over: RoundsOver, object: Object, home: bool },
    Refused { to: NodeId, epoch: Epoch, over: RoundsOver },
    Confirm { to: NodeId, by: NodeId, epoch: Epoch, clock: Clock },
    Fill { to: NodeId, by: NodeId, epoch: Epoch, over: RoundsOver, object: Object },
    Ask { to: NodeId, stage: Stage, round: Round, keys: BTreeSet<ObjectKey> },
    Answer { by: NodeId, stage: Stage, id: RoundId, with: BTreeSet<ObjectKey> },
}

struct Run {
    key: ObjectKey,
    epoch: Epoch,
    nodes: BTreeMap<NodeId, Node>,
    errands: Vec<Errand>,
    under_way: Vec<Message>,
    births: u64,
    disks_lost: usize,
    /// From when on the leaver is no member, and from when on it is known to be empty.
    left_in: Option<Epoch>,
    empty_in: Option<Epoch>,
    /// Of all tombstones that were deleted anywhere, and what has expired.
    reaped: Clock,
    /// What was deleted so, and is live.
    untimely: Option<Dot>,
    /// What some write has seen.
    superseded: Clock,
    /// What was put, and when it expires.
    put: BTreeMap<Dot, Option<WallTime>>,
    now: WallTime,
    wrong_clock: Option<NodeId>,
}

impl World {
    pub fn run(&self) -> Result<(), String> {
        let node = |number| (NodeId(number), Node::with(DirectoryId(number), Epoch(1)));
        let mut run = Run {
            key: ObjectKey::new("b".parse().expect("a name"), "k").expect("a key"),
            epoch: Epoch(1),
            nodes: (1..=NODES).map(node).collect(),
            errands: Vec::new(),
            under_way: Vec::new(),
            births: 0,
            disks_lost: 0,
            left_in: None,
            empty_in: None,
            reaped: Clock::default(),
            untimely: None,
            superseded: Clock::default(),
            put: BTreeMap::new(),
            now: WallTime(1_000_000),
            wrong_clock: None,
        };
        for happening in &self.0 {
            run.happens(happening);
            run.check()?;
        }
        run.in_peace()
    }
}

impl Node {
    fn with(directory: DirectoryId, epoch: Epoch) -> Node {
        Node {
            directory,
            epoch,
            disk_lost: false,
            held: Object::default(),
            owed: BTreeSet::new(),
            bound: None,
            marked: None,
            fences: Fences::default(),
            ended: (Epoch(0), 0),
            to_fill_from: BTreeSet::new(),
            leads: None,
        }
    }
}

fn is_of_a_round(message: &Message) -> bool {
    matches!(message, Message::Ask { .. } | Message::Answer { .. })
}

fn is_primary(node: NodeId) -> bool {
    node.0 <= PRIMARIES
}

fn primaries() -> BTreeSet<NodeId> {
    (1..=PRIMARIES).map(NodeId).collect()
}

impl Run {
    fn node(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).expect("messages go to nodes")
    }

    fn happens(&mut self, happening: &Happening) {
        let all: Vec<NodeId> = self.nodes.keys().copied().collect();
        let of = |which: &Index| all[which.index(all.len())];
        let errand = |errands: &[Errand], which: &Index| (!errands.is_empty()).then(|| which.index(errands.len()));
        match happening {
            Happening::Arrives { which, again } if !self.under_way.is_empty() => {
                let at = which.index(self.under_way.len());
                let message = if *again { self.under_way[at].clone() } else { self.under_way.swap_remove(at) };
                self.arrives(message);
            }
            Happening::Lost(which) if !self.under_way.is_empty() => {
                self.under_way.swap_remove(which.index(self.under_way.len()));
            }
            Happening::Arrives { .. } | Happening::Lost(_) => {}
            Happening::Write { at, what, has_read } => self.write(of(at), *what, *has_read),
            Happening::TimePasses(millis) => self.now.0 += u64::from(*millis),
            // One after another they could agree to anything, if a round lasted for as long.
            Happening::ClockSet(_) if self.nodes[&LEADER].bound.is_some() => {}
            Happening::ClockSet(which) => self.wrong_clock = Some(of(which)),
            Happening::SetOut(by) => self.set_out(of(by)),
            Happening::Gather(which, from) => {
                if let Some(at) = errand(&self.errands, which) {
                    self.gather(at, of(from));
                }
            }
            Happening::Bring(which, to) => {
                if let Some(at) = errand(&self.errands, which) {
                    self.bring(at, of(to));
                }
            }
            Happening::BringHome(from, to) => self.bring_home(of(from), of(to)),
            Happening::Compare => self.compare_primaries(),
            Happening::Lead => self.lead(),
            Happening::LeadSwiftly(who) => {
                let is_silent = |to: NodeId| who & (1 << to.0) == 0;
                for _ in [Stage::Asking, Stage::Marking, Stage::Ending, Stage::Over] {
                    self.lead();
                    self.under_way.retain(|message| !matches!(message, Message::Ask { to, .. } if is_silent(*to)));
                    while let Some(at) = self.under_way.iter().position(is_of_a_round) {
                        let message = self.under_way.swap_remove(at);
                        self.arrives(message);
                    }
                }
            }
            Happening::CallOff => self.node(LEADER).leads.iter_mut().for_each(Reaping::call_off),
            Happening::Crashes(which) => self.crash(of(which)),
            Happening::DiskLost(which) => self.lose_disk(of(which)),
            Happening::Decree { leave } => self.decree(*leave),
            Happening::Tell(to) => self.tell(of(to)),
            Happening::Fill(node, from) => self.fill(of(node), of(from)),
        }
    }

    fn is_member(&self, id: NodeId, epoch: Epoch) -> bool {
        id != LEAVER || self.left_in.is_none_or(|left| epoch < left)
    }

    fn may_reap(&self, epoch: Epoch) -> bool {
        let is_empty = self.empty_in.is_some_and(|empty| empty <= epoch);
        is_empty || self.is_member(LEAVER, epoch) || fault::is_on(Fault::ReviveDeparted)
    }

    fn serves(&self, id: NodeId) -> bool {
        !self.nodes[&id].disk_lost && self.is_member(id, self.nodes[&id].epoch)
    }

    fn over(&self, id: NodeId) -> RoundsOver {
        let node = &self.nodes[&id];
        node.fences.over(node.epoch, HERE)
    }

    fn ended(&self, id: NodeId) -> u64 {
        let (of, number) = self.nodes[&id].ended;
        if of == self.nodes[&id].epoch { number } else { 0 }
    }

    /// What a node has of the key for whatever it takes in: what binds it in the place of nothing.
    fn as_held(&self, id: NodeId) -> Object {
        let node = &self.nodes[&id];
        let guard = node.bound.as_ref().and_then(|bound| bound.guard(node.epoch, &self.key));
        match guard {
            Some(guard) if node.held.is_unwritten() && is_guarded(guard, is_primary(id)) => guard.clone(),
            _ => node.held.clone(),
        }
    }

    fn hold(&mut self, id: NodeId, object: Object) {
        let node = self.node(id);
        node.held = object;
        node.marked = None;
        node.owed = if is_primary(id) { BTreeSet::new() } else { primaries() };
    }

    fn clock(&self, id: NodeId) -> WallTime {
        if self.wrong_clock == Some(id) { self.now.after(MARGIN * 100) } else { self.now }
    }

    fn expired(&self, id: NodeId) -> Expired {
        Expired::By(self.clock(id).before(MARGIN))
    }

    fn write(&mut self, at: NodeId, what: What, has_read: bool) {
        if !self.serves(at) || !self.nodes[&at].to_fill_from.is_empty() {
            return;
        }
        self.births += 1;
        let mut object = self.as_held(at);
        let seen = if has_read { object.seen() } else { Seen::default() };
        let (bytes, until) = ("v".into(), |millis: u8| self.now.after(Duration::from_millis(millis.into())));
        let write = Write {
            value: match what {
                What::Put => Value::Live(bytes),
                What::PutFor(millis) => Value::Expiring { bytes, until: until(millis) },
                What::Delete => Value::Tombstone,
            },
            seen,
            request: RequestId(self.births.into()),
            mode: SiblingMode::Keep,
            wall: Stamp::from_millis(self.clock(at).0),
            fresh_birth: Birth(self.births),
        };
        if self.nodes[&at].held.is_unwritten() && !object.is_unwritten() && !can_write(&object, &write) {
            return;
        }
        self.superseded.merge(&write.seen.clock);
        let directory = self.nodes[&at].directory;
        if write.value.bytes().is_some() {
            // Each write begins a history of its own.
            let history = History { directory, birth: write.fresh_birth };
            self.put.insert(Dot { history, counter: 1 }, write.value.until());
        }
        let minter = Minter { directory, run: 1, trusted: TrustedMarks::OfThisRun };
        coordinate(&mut object, &mut None, write, &minter, &UNLIMITED).expect("nothing is in its way");
        self.hold(at, object);
        self.set_out(at);
    }

    fn set_out(&mut self, by: NodeId) {
        if self.serves(by) {
            let (node, over) = (&self.nodes[&by], self.over(by));
            self.errands.push(Errand { by, epoch: node.epoch, over, object: node.held.clone() });
        }
    }

    fn gather(&mut self, at: usize, from: NodeId) {
        if self.serves(from) && self.nodes[&from].epoch == self.errands[at].epoch {
            self.errands[at].object.merge(&self.nodes[&from].held);
        }
    }

    fn bring(&mut self, at: usize, to: NodeId) {
        let Errand { by, epoch, over, object } = &self.errands[at];
        if !object.is_unwritten() {
            let (epoch, over, object) = (*epoch, *over, object.clone());
            self.under_way.push(Message::Store { from: *by, to, epoch, over, object, home: false });
        }
    }

    fn bring_home(&mut self, from: NodeId, to: NodeId) {
        let node = &self.nodes[&from];
        if !node.disk_lost && node.owed.contains(&to) {
            let (epoch, over, object) = (node.epoch, self.over(from), node.held.clone());
            self.under_way.push(Message::Store { from, to, epoch, over, object, home: true });
        }
    }

    fn lead(&mut self) {
        let node = &self.nodes[&LEADER];
        if node.disk_lost || !node.to_fill_from.is_empty() || !self.may_reap(node.epoch) {
            return;
        }
        if node.bound.is_none() && is_gone(&node.held, self.expired(LEADER)) {
            let id = RoundId::next(node.epoch, HERE, self.over(LEADER), self.ended(LEADER));
            let round = Round { id, tombstones: BTreeMap::from([(self.key.clone(), node.held.outline())]) };
            self.node(LEADER).bound = Some(Bound::by(round));
        }
        let Some(bound) = self.nodes[&LEADER].bound.clone() else { return };
        self.node(LEADER).leads.take_if(|leads| leads.id() != bound.round.id);
        if self.nodes[&LEADER].leads.is_none() {
            let members = self.nodes.keys().copied().filter(|id| self.is_member(*id, bound.round.id.epoch)).collect();
            self.node(LEADER).leads = Some(Reaping::new(&bound, LEADER, members, |_| primaries()));
        }
        let Some(leads) = &self.nodes[&LEADER].leads else { return };
        let (stage, keys, waits_for) = (leads.stage(), leads.keys().clone(), leads.waits_for());
        if stage == Stage::Ending {
            self.node(LEADER).bound = Some(Bound { ending: Some(keys.clone()), ..bound.clone() });
        }
        for to in waits_for {
            self.under_way.push(Message::Ask { to, stage, round: bound.round.clone(), keys: keys.clone() });
        }
    }

    fn crash(&mut self, id: NodeId) {
        self.errands.retain(|errand| errand.by != id);
        self.node(id).leads = None;
    }

    /// One at a time: what two disks of three had may be lost with them.
    fn lose_disk(&mut self, id: NodeId) {
        let is_whole = |node: &Node| !node.disk_lost && node.to_fill_from.is_empty();
        if self.nodes.values().all(is_whole) && self.is_member(id, self.epoch) {
            self.crash(id);
            self.disks_lost += 1;
            let directory = DirectoryId(100 + self.disks_lost as u64);
            let node = self.node(id);
            *node = Node { disk_lost: true, ..Node::with(directory, node.epoch) };
        }
    }

    fn decree(&mut self, leave: bool) {
        self.epoch.0 += 1;
        let epoch = self.epoch;
        let lost: Vec<NodeId> = self.nodes.keys().copied().filter(|id| self.nodes[id].disk_lost).collect();
        if let Some(id) = lost.into_iter().next() {
            let others = primaries().into_iter().filter(|other| *other != id).collect();
            let node = self.node(id);
            (node.disk_lost, node.epoch) = (false, epoch);
            node.to_fill_from = if is_primary(id) { others } else { BTreeSet::new() };
        } else if self.left_in.is_none() {
            // Nobody leaves whose disk is lost.
            self.left_in = leave.then_some(epoch);
        } else if self.nodes[&LEAVER].epoch.0 + 1 == epoch.0 && self.nodes[&LEAVER].held.is_unwritten() {
            self.empty_in =
                self.empty_in.or_else(|| (!self.is_member(LEAVER, self.nodes[&LEAVER].epoch)).then_some(epoch));
        }
    }

    fn tell(&mut self, id: NodeId) {
        let epoch = self.epoch;
        let node = self.node(id);
        if node.disk_lost || node.epoch == epoch {
            return;
        }
        node.epoch = epoch;
        (node.leads, node.bound, node.marked) = (None, None, None);
        node.owed = if is_primary(id) || node.held.is_unwritten() { BTreeSet::new() } else { primaries() };
    }

    fn fill(&mut self, id: NodeId, from: NodeId) {
        let (node, source) = (&self.nodes[&id], &self.nodes[&from]);
        if node.to_fill_from.contains(&from) && self.serves(from) && source.epoch == node.epoch {
            let (epoch, over, object) = (node.epoch, self.over(id), source.held.clone());
            self.under_way.push(Message::Fill { to: id, by: from, epoch, over, object });
        }
    }

    /// Whether it is durable then.
    fn take(&mut self, id: NodeId, epoch: Epoch, over: RoundsOver, object: &Object) -> Result<(), RoundsOver> {
        let node = self.node(id);
        if !node.fences.admit(epoch, HERE, over) {
            return Err(node.fences.over(epoch, HERE));
        }
        let mut held = self.as_held(id);
        let binds_only = self.nodes[&id].held.is_unwritten() && !held.is_unwritten();
        if binds_only {
            let taken = takes_in(&held, object).ok_or(over)?;
            self.hold(id, taken);
        } else if !held.clock().covers_all(object.clock()) {
            held.merge(object);
            self.hold(id, held);
        }
        Ok(())
    }

    fn arrives(&mut self, message: Message) {
        match message {
            Message::Store { from, to, epoch, over, object, home } => {
                if !self.serves(to) || self.nodes[&to].epoch != epoch {
                    return;
                }
                let answer = match self.take(to, epoch, over, &object) {
                    Ok(()) => home.then(|| Message::Confirm { to: from, by: to, epoch, clock: object.clock().clone() }),
                    Err(over) => Some(Message::Refused { to: from, epoch, over }),
                };
                self.under_way.extend(answer);
            }
            Message::Refused { to, epoch, over } => {
                let node = self.node(to);
                if node.epoch == epoch && !node.disk_lost {
                    node.fences.learn(epoch, HERE, over);
                }
            }
            Message::Confirm { to, by, epoch, clock } => {
                let node = self.node(to);
                if node.epoch == epoch && clock.covers_all(node.held.clock()) && node.owed.remove(&by) {
                    let is_done = node.owed.is_empty() && !is_primary(to);
                    if is_done {
                        node.held = Object::default();
                    }
                }
            }
            Message::Fill { to, by, epoch, over, object } => {
                if self.nodes[&to].epoch == epoch && self.take(to, epoch, over, &object).is_ok() {
                    self.node(to).to_fill_from.remove(&by);
                }
            }
            Message::Ask { to, stage, round, keys } => {
                let id = round.id;
                if self.serves(to) && self.nodes[&to].epoch == id.epoch {
                    let with = self.do_as_asked(to, stage, round, &keys);
                    self.under_way.extend(with.map(|with| Message::Answer { by: to, stage, id, with }));
                }
            }
            Message::Answer { by, stage, id, with } => {
                let node = self.node(LEADER);
                if let Some(leads) = node.leads.as_mut().filter(|leads| leads.id() == id) {
                    leads.heard(stage, by, &with);
                    if leads.stage() == Stage::Over {
                        node.leads = None;
                    }
                }
            }
        }
    }

    /// With which keys it is done; none if it cannot be.
    fn do_as_asked(
        &mut self,
        id: NodeId,
        stage: Stage,
        round: Round,
        keys: &BTreeSet<ObjectKey>,
    ) -> Option<BTreeSet<ObjectKey>> {
        let (key, over, ended, expired) = (self.key.clone(), self.over(id), self.ended(id), self.expired(id));
        let tombstone = round.tombstones.get(&key).cloned()?;
        let node = self.node(id);
        let is_bound = node.bound.as_ref().is_some_and(|bound| bound.round.id == round.id);
        let is_over = over.0.max(ended) >= round.id.number && !is_bound;
        let is_done = match stage {
            Stage::Asking => {
                if is_over || (node.bound.is_some() && !is_bound) {
                    return None;
                }
                let standing = match (is_primary(id), node.to_fill_from.is_empty()) {
                    (true, true) => Standing::Primary,
                    (true, false) => Standing::FillingPrimary,
                    (false, _) => Standing::Other,
                };
                if !is_bound {
                    node.bound = Some(Bound::by(round));
                }
                agrees(standing, &node.held, &tombstone, expired)
            }
            Stage::Marking => {
                let is_same = !is_over && keys.contains(&key) && may_mark(&node.held, &tombstone, expired);
                if is_same {
                    node.marked = Some(round.id);
                }
                is_same || fault::is_on(Fault::ReapWhilePrimaryLacks)
            }
            Stage::Ending => {
                let is_marked = node.marked == Some(round.id) && keys.contains(&key);
                if !keys.is_empty() {
                    node.fences.learn(round.id.epoch, HERE, round.id.over());
                }
                node.bound.take_if(|bound| bound.round.id == round.id);
                node.ended = (round.id.epoch, round.id.number.max(ended));
                if is_marked {
                    let reaped = std::mem::take(&mut node.held);
                    node.marked = None;
                    self.reaped.merge(reaped.clock());
                    self.untimely = reaped.siblings().iter().find(|sibling| sibling.is_live(self.now)).map(|s| s.dot);
                }
                true
            }
            Stage::Over => return None,
        };
        Some(if is_done { BTreeSet::from([key]) } else { BTreeSet::new() })
    }

    /// Nothing comes back that was reaped, nothing is reaped that is live, and no state has a write in its clock that is
    /// live, and does not show it.
    fn check(&self) -> Result<(), String> {
        ensure!(self.untimely.is_none(), "{:?} is live, and was reaped", self.untimely);
        for (id, node) in &self.nodes {
            let siblings = node.held.siblings();
            let back = siblings.iter().find(|s| s.is_live(self.now) && self.reaped.covers(&s.dot));
            ensure!(back.is_none(), "{} has come back to {id}", back.map(|s| s.dot).expect("it is there"));
            let hollow = siblings.iter().find(|s| s.value.bytes().is_some_and(|bytes| bytes.is_empty()));
            ensure!(hollow.is_none(), "{id} holds {:?} without its value", hollow.map(|s| s.dot));
            let is_live = |until: &Option<WallTime>| until.is_none_or(|until| self.now < until);
            let is_hidden = |dot: &Dot| node.held.clock().covers(dot) && siblings.iter().all(|s| s.dot != *dot);
            let mut live = self.put.iter().filter(|(_, until)| is_live(until)).map(|(dot, _)| dot);
            let hidden = live.find(|dot| is_hidden(dot) && !self.superseded.covers(dot));
            ensure!(hidden.is_none(), "{id} has {hidden:?} in its clock, and does not hold it");
        }
        Ok(())
    }

    /// From now on nothing goes wrong: what is live is held by all primaries, and of what is deleted or has expired nothing
    /// is left.
    fn in_peace(&mut self) -> Result<(), String> {
        self.deliver_all()?;
        self.now = self.now.after(MARGIN * 10);
        self.wrong_clock = None;
        let all: Vec<NodeId> = self.nodes.keys().copied().collect();
        for _ in 0..8 {
            if self.nodes.values().any(|node| node.disk_lost) || !self.may_reap(self.epoch) {
                self.decree(false);
            }
            all.iter().for_each(|id| self.tell(*id));
            for id in &all {
                for other in primaries() {
                    self.fill(*id, other);
                    self.bring_home(*id, other);
                }
            }
            self.deliver_all()?;
            self.compare_primaries();
            for _ in 0..4 {
                self.lead();
                self.deliver_all()?;
            }
        }
        let lost = |dot: &&Dot| {
            !self.superseded.covers(dot) && !self.nodes[&LEADER].held.siblings().iter().any(|s| s.dot == **dot)
        };
        let missing = self.put.iter().filter(|(_, until)| until.is_none()).map(|(dot, _)| dot).find(lost);
        ensure!(missing.is_none() || self.disks_lost > 0, "{missing:?} is lost");
        let of_leader = self.nodes[&LEADER].held.clone();
        let is_live = of_leader.siblings().iter().any(|sibling| sibling.is_live(self.now));
        ensure!(is_live || of_leader.is_unwritten(), "a tombstone is left, or what has expired");
        for (id, node) in &self.nodes {
            let due = if is_primary(*id) { of_leader.clone() } else { Object::default() };
            ensure!(node.held == due, "{id} holds {:?}, and the leader {of_leader:?}", node.held);
        }
        Ok(())
    }

    /// Anti-entropy, which leaves what is marked alone.
    fn compare_primaries(&mut self) {
        let alive: Vec<NodeId> = primaries().into_iter().filter(|id| self.serves(*id)).collect();
        let shown = |id: &NodeId| Some(self.nodes[id].held.clone()).filter(|_| self.nodes[id].marked.is_none());
        let all: Vec<Object> = alive.iter().filter_map(shown).collect();
        for id in alive {
            let (epoch, over) = (self.nodes[&id].epoch, self.over(id));
            for object in &all {
                self.take(id, epoch, over, object).unwrap_or_default();
            }
        }
    }

    fn deliver_all(&mut self) -> Result<(), String> {
        while let Some(message) = self.under_way.pop() {
            self.arrives(message);
            self.check()?;
        }
        Ok(())
    }
}
