//! A get machine among nodes whose fates are drawn, and a ledger that recounts from the events alone what the machine
//! may and must do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use starling_core::get::{Action, Answer, Candidate, Event, Get, Hinted, Plan, Standing};
use starling_core::ids::NodeId;
use starling_core::object::Object;
use starling_core::preference::LayoutQuorum;
use starling_core::quorum::{Quorum, Tally};
use starling_core::report::{Failure, Refusal, Role};

use super::agenda::Agenda;
use super::versions::{merged, rival, version};
use super::{NOW, ensure, includes, layouts, ms};

#[derive(Debug, Clone)]
struct Node {
    holds: Holding,
    standing: Standing,
    /// After how long, and how, it answers; None is silence.
    answer: Option<(u64, Option<Failure>)>,
    /// After how long a repair ends, and whether it works.
    repair: (u64, bool),
    believed_down: bool,
    slow_after: u64,
}

#[derive(Debug, Clone, Copy)]
enum Holding {
    Nothing,
    Version(u64),
    Rival,
    VersionAndRival(u64),
}

#[derive(Debug, Clone)]
pub struct World {
    primaries: usize,
    /// Primaries first.
    nodes: Vec<Node>,
    /// Pairs of a primary and a fallback, each modulo how many there are.
    hinted: Vec<(usize, usize)>,
    quorum: Quorum,
    wait_for_repair: bool,
    /// Of a layout that is written and not read.
    elsewhere: Option<LayoutQuorum>,
    deadline: u64,
    give_up_after: u64,
    /// By how much each tick is late, and how long after a step the next wake-up is asked for, in turn.
    lateness: Vec<u64>,
    /// Events that nobody asked for: repeated or misdirected.
    noise: Vec<(u64, Event)>,
}

pub fn worlds() -> impl Strategy<Value = World> {
    (1usize..=5, 0usize..=5).prop_flat_map(|(primaries, fallbacks)| {
        let all = primaries + fallbacks;
        let times = (prop_oneof![1 => 1u64..50, 2 => 50u64..300], 5u64..200);
        (
            prop::collection::vec(node(), all),
            prop::collection::vec((0..primaries, 0usize..5), 0..3),
            layouts(primaries),
            any::<bool>(),
            times,
            prop::collection::vec(prop_oneof![3 => Just(0u64), 1 => 1u64..40], 1..4),
            prop::collection::vec((0u64..300, noise(all)), 0..4),
        )
            .prop_map(
                move |(mut nodes, hinted, layouts, wait_for_repair, (deadline, give_up_after), lateness, noise)| {
                    let (read, elsewhere) = (&layouts[0], layouts.get(1).cloned());
                    for node in &mut nodes[read.primaries.len()..primaries] {
                        node.standing = Standing::Filling;
                    }
                    let quorum = read.quorum;
                    World {
                        primaries,
                        nodes,
                        hinted,
                        quorum,
                        wait_for_repair,
                        elsewhere,
                        deadline,
                        give_up_after,
                        lateness,
                        noise,
                    }
                },
            )
    })
}

fn node() -> impl Strategy<Value = Node> {
    let failure =
        prop_oneof![Just(Failure::Unreachable), Just(Failure::NoAnswer), Just(Failure::Refused(Refusal::Overloaded)),];
    let delay = || prop_oneof![3 => 0u64..10, 1 => 0u64..250];
    (
        holding(),
        prop_oneof![5 => Just(Standing::Complete), 1 => Just(Standing::Filling)],
        prop::option::weighted(0.85, (delay(), prop::option::weighted(0.2, failure))),
        (delay(), prop::bool::weighted(0.8)),
        prop::bool::weighted(0.2),
        1u64..60,
    )
        .prop_map(|(holds, standing, answer, repair, believed_down, slow_after)| Node {
            holds,
            standing,
            answer,
            repair,
            believed_down,
            slow_after,
        })
}

fn holding() -> impl Strategy<Value = Holding> {
    prop_oneof![
        2 => Just(Holding::Nothing),
        4 => (1u64..=3).prop_map(Holding::Version),
        1 => Just(Holding::Rival),
        1 => (1u64..=3).prop_map(Holding::VersionAndRival),
    ]
}

fn noise(nodes: usize) -> impl Strategy<Value = Event> {
    let node = || (0..nodes as u64 + 2).prop_map(NodeId);
    prop_oneof![
        node().prop_map(|by| Event::Failed { by, failure: Failure::Unreachable }),
        node().prop_map(|by| Event::Failed { by, failure: Failure::NoAnswer }),
        node().prop_map(|from| Event::Reply { from, standing: Standing::Complete, object: Some(version(1)) }),
        node().prop_map(|from| Event::Reply { from, standing: Standing::Complete, object: None }),
        Just(Event::Tick),
    ]
}

impl Node {
    fn object(&self) -> Option<Object> {
        match self.holds {
            Holding::Nothing => None,
            Holding::Version(last) => Some(version(last)),
            Holding::Rival => Some(rival()),
            Holding::VersionAndRival(last) => Some(merged([version(last), rival()])),
        }
    }
}

impl World {
    /// Lets everything happen in the order of time, and checks each step.
    pub fn run(&self) -> Result<(), String> {
        let (mut get, actions) = Get::start(self.plan());
        let (mut ledger, mut agenda) = (Ledger::new(self), Agenda::default());
        for (at, event) in &self.noise {
            agenda.add(ms(*at), event.clone());
        }
        let mut now = Duration::ZERO;
        self.answer(now, &actions, &mut agenda);
        ledger.check(now, &actions)?;
        for step in 0.. {
            ensure!(step < 300, "it never ends");
            let late = ms(self.lateness[step % self.lateness.len()]);
            let wake = get.next_wake(now + late);
            ledger.check_wake(now, wake)?;
            let wake = wake.map(|wake| wake.max(now) + late);
            let Some((at, event)) = agenda.next(wake, Event::Tick) else { break };
            now = at;
            ledger.happens(now, &event);
            let actions = get.step(now, event);
            self.answer(now, &actions, &mut agenda);
            ledger.check(now, &actions)?;
            ledger.check_machine(now, &get)?;
        }
        ensure!(get.is_done(), "nothing is left to happen and it is not done");
        ledger.check_repairs()
    }

    fn plan(&self) -> Plan {
        let candidate = |number: usize| {
            let Node { believed_down, slow_after, .. } = self.nodes[number];
            Candidate { node: NodeId(number as u64), believed_down, slow_after: ms(slow_after) }
        };
        Plan {
            primaries: (0..self.primaries).map(candidate).collect(),
            fallbacks: (self.primaries..self.nodes.len()).map(candidate).collect(),
            hinted: self.hinted(),
            quorum: self.quorum,
            wait_for_repair: self.wait_for_repair,
            repair_quorums: self.elsewhere.iter().cloned().collect(),
            deadline: ms(self.deadline),
            wall: NOW,
            give_up_after: ms(self.give_up_after),
        }
    }

    fn hinted(&self) -> Vec<Hinted> {
        let fallbacks = self.nodes.len() - self.primaries;
        let pair = |(primary, holder): &(usize, usize)| {
            let holder = holder.checked_rem(fallbacks)? + self.primaries;
            Some(Hinted { primary: NodeId(*primary as u64), holder: NodeId(holder as u64) })
        };
        self.hinted.iter().filter_map(pair).collect()
    }

    fn answer(&self, now: Duration, actions: &[Action], agenda: &mut Agenda<Event>) {
        for action in actions {
            match action {
                Action::Ask { node } => self.answer_read(now, *node, agenda),
                Action::Repair { node, .. } => {
                    let (after, works) = self.nodes[node.0 as usize].repair;
                    let failed = Event::RepairFailed { node: *node, failure: Failure::NoAnswer };
                    agenda.add(now + ms(after), if works { Event::Repaired { node: *node } } else { failed });
                }
                Action::Answer(_) => {}
            }
        }
    }

    fn answer_read(&self, now: Duration, from: NodeId, agenda: &mut Agenda<Event>) {
        let node = &self.nodes[from.0 as usize];
        match node.answer {
            Some((after, Some(failure))) => agenda.add(now + ms(after), Event::Failed { by: from, failure }),
            Some((after, None)) => {
                let reply = Event::Reply { from, standing: node.standing, object: node.object() };
                agenda.add(now + ms(after), reply);
            }
            None => {}
        }
    }

    fn all(&self) -> impl Iterator<Item = NodeId> {
        (0..self.nodes.len() as u64).map(NodeId)
    }

    fn is_primary(&self, node: NodeId) -> bool {
        node.0 < self.primaries as u64
    }
}

#[derive(Debug, Clone)]
enum Ending {
    Reply { standing: Standing, object: Option<Object> },
    Failed(Failure),
}

/// What an onlooker counts.
struct Ledger<'a> {
    world: &'a World,
    asked: BTreeMap<NodeId, Duration>,
    ended: BTreeMap<NodeId, Ending>,
    ended_at: BTreeMap<NodeId, Duration>,
    /// Each with what it was sent; then with whether it has arrived.
    repairs: BTreeMap<NodeId, Object>,
    repaired: BTreeSet<NodeId>,
    repairs_ended: BTreeSet<NodeId>,
    /// What was said while the read went on: until all have ended, or what they lack is sent to them.
    heard: BTreeMap<NodeId, Object>,
    reading: bool,
    answered: Option<Answer>,
}

impl<'a> Ledger<'a> {
    fn new(world: &'a World) -> Self {
        Ledger {
            world,
            asked: BTreeMap::new(),
            ended: BTreeMap::new(),
            ended_at: BTreeMap::new(),
            repairs: BTreeMap::new(),
            repaired: BTreeSet::new(),
            repairs_ended: BTreeSet::new(),
            heard: BTreeMap::new(),
            reading: true,
            answered: None,
        }
    }

    fn happens(&mut self, now: Duration, event: &Event) {
        let (node, ending) = match event.clone() {
            Event::Reply { from, standing, object } => (from, Ending::Reply { standing, object }),
            Event::Failed { by, failure } => (by, Ending::Failed(failure)),
            Event::Repaired { node } => {
                self.repaired.insert(node);
                self.repairs_ended.insert(node);
                return;
            }
            Event::RepairFailed { node, .. } => {
                self.repairs_ended.insert(node);
                return;
            }
            Event::Tick => return,
        };
        // Nobody's word counts who was not asked, nor a second one, except that silence can be broken.
        let silent = matches!(self.ended.get(&node), None | Some(Ending::Failed(Failure::NoAnswer)));
        if self.asked.contains_key(&node) && silent {
            if let (Ending::Reply { object, .. }, true) = (&ending, self.reading) {
                self.heard.insert(node, object.clone().unwrap_or_default());
            }
            self.ended.insert(node, ending);
            self.ended_at.insert(node, now);
        }
    }

    fn check(&mut self, now: Duration, actions: &[Action]) -> Result<(), String> {
        for action in actions {
            match action {
                Action::Ask { node } => {
                    ensure!(self.asked.insert(*node, now).is_none(), "{node} is asked twice");
                    ensure!(self.world.all().any(|known| known == *node), "{node} is asked, whom nobody named");
                }
                Action::Repair { node, role, object } => self.check_repair(*node, *role, object)?,
                Action::Answer(answer) => self.check_answer(now, answer)?,
            }
        }
        let waited_for = self.asked.keys().any(|node| self.is_awaited(*node, now));
        let over = self.answered.as_ref().is_some_and(|a| !a.met || self.world.wait_for_repair || !waited_for);
        self.reading &= self.repairs.is_empty() && !over;
        Ok(())
    }

    fn check_repair(&mut self, node: NodeId, role: Role, object: &Object) -> Result<(), String> {
        ensure!(self.world.is_primary(node) == (role == Role::Primary), "{node} is repaired as what it is not");
        let Some(Ending::Reply { object: held, .. }) = self.ended.get(&node) else {
            return Err(format!("{node} is repaired and has not said what it holds"));
        };
        ensure!(self.keeps(node, held.as_ref()), "{node} holds nothing, and is given a copy");
        let held = held.clone().unwrap_or_default();
        ensure!(!includes(&held, object), "{node} is sent what it holds");
        ensure!(self.repairs.insert(node, object.clone()).is_none(), "{node} is repaired twice");
        Ok(())
    }

    fn check_answer(&mut self, now: Duration, answer: &Answer) -> Result<(), String> {
        ensure!(self.answered.is_none(), "it answers twice");
        let heard = merged(self.heard.values().cloned());
        ensure!(answer.object == heard, "it returns other than what it heard");
        let counted = if self.world.wait_for_repair { self.up_to_date(&heard) } else { self.counted() };
        ensure!(answer.counted == counted, "it counts {:?} where {counted:?} count", answer.counted);
        let quorum = self.world.quorum;
        if answer.met {
            ensure!(quorum.is_met(counted), "it answers below the quorum, by {counted:?}");
            let held = !self.world.wait_for_repair || self.is_held_elsewhere(&heard);
            ensure!(held, "it answers what a quorum of another layout does not hold");
            ensure!(
                !heard.is_unwritten() || self.looked_everywhere(now),
                "it says \"not found\" before the holders have"
            );
        } else {
            let hopeless = self.is_hopeless(now) && !self.soon(now);
            let late = now >= ms(self.world.deadline);
            ensure!(late || hopeless, "it gives up at {now:?} with {:?} left", self.conceivable(now));
            ensure!(self.world.wait_for_repair || !quorum.is_met(counted), "it keeps back what {counted:?} said");
        }
        let reported: BTreeSet<NodeId> = answer.replicas.iter().map(|replica| replica.node).collect();
        ensure!(reported.len() == answer.replicas.len(), "a replica is reported twice");
        ensure!(reported.iter().eq(self.asked.keys()), "it reports {reported:?} of {:?}", self.asked);
        self.answered = Some(answer.clone());
        Ok(())
    }

    /// What must be so after every step.
    fn check_machine(&self, now: Duration, get: &Get) -> Result<(), String> {
        let (quorum, late) = (self.world.quorum, now >= ms(self.world.deadline));
        let answered = self.answered.is_some();
        ensure!(answered || !late, "it is {now:?}, past the deadline, and it does not answer");
        let enough = quorum.is_met(self.counted()) && (self.doubtful().is_empty() || self.looked_everywhere(now));
        ensure!(
            answered || self.world.wait_for_repair || !enough,
            "{:?} count, and it does not answer",
            self.counted()
        );
        let heard = merged(self.heard.values().cloned());
        let up_to_date = self.up_to_date(&heard);
        let held = quorum.is_met(up_to_date) && self.is_held_elsewhere(&heard);
        let all_is_well = enough && self.doubtful().is_empty() && held;
        ensure!(answered || !all_is_well, "{up_to_date:?} hold what it returns, and it does not answer");
        ensure!(
            answered || !self.is_hopeless(now) || self.soon(now),
            "only {:?} are left, and it does not say so",
            self.conceivable(now)
        );
        let waiting = self.asked.keys().any(|node| self.is_awaited(*node, now)) || !self.repairs_sent_have_ended();
        ensure!(get.is_done() || !answered || waiting, "nobody is waited for, and it is not done");
        Ok(())
    }

    /// It wants to be woken when the next node turns slow or too silent, and at the deadline until it has answered.
    fn check_wake(&self, stepped_at: Duration, wake: Option<Duration>) -> Result<(), String> {
        let pending = self.asked.iter().filter(|(node, _)| self.is_awaited(**node, stepped_at));
        let due = pending.flat_map(|(node, asked_at)| {
            let slow_after = self.world.nodes[node.0 as usize].slow_after;
            [*asked_at + ms(slow_after), *asked_at + ms(self.world.give_up_after)]
        });
        let deadline = self.answered.is_none().then_some(ms(self.world.deadline));
        let expected = due.filter(|at| *at > stepped_at).chain(deadline).min();
        let or_before = self.out_of_patience().filter(|at| *at > stepped_at && Some(*at) < expected);
        let as_expected = wake == expected || (or_before.is_some() && wake == or_before);
        ensure!(as_expected, "after {stepped_at:?} it wants to be woken at {wake:?}, not at {expected:?}");
        Ok(())
    }

    /// When a read that waits for its repair, and has its quorum, waits for no others.
    fn out_of_patience(&self) -> Option<Duration> {
        let waits = self.world.wait_for_repair && self.answered.is_none() && self.world.quorum.is_met(self.counted());
        let counting = self.ended_at.iter().filter(|(node, _)| self.counts(**node));
        counting.map(|(_, at)| *at * 2).max().filter(|_| waits)
    }

    /// After an answer that met its quorum each replica that had told less than the others is told the rest.
    fn check_repairs(&self) -> Result<(), String> {
        let met = self.answered.as_ref().is_some_and(|answer| answer.met);
        let all = merged(self.heard.values().cloned());
        let stale = |(node, held): &(&NodeId, &Object)| self.keeps(**node, Some(*held)) && !includes(held, &all);
        let unrepaired = self.heard.iter().filter(stale).find(|(node, _)| !self.repairs.contains_key(node));
        ensure!(!met || unrepaired.is_none(), "{unrepaired:?} lacks something and is not repaired");
        Ok(())
    }

    /// A primary, or a fallback that holds a copy for one.
    fn keeps(&self, node: NodeId, held: Option<&Object>) -> bool {
        self.world.is_primary(node) || held.is_some_and(|held| !held.is_unwritten())
    }

    fn doubtful(&self) -> BTreeSet<NodeId> {
        self.world.hinted().into_iter().map(|hinted| hinted.primary).collect()
    }

    /// All but the primaries known to lack writes have answered or are overdue.
    fn looked_everywhere(&self, now: Duration) -> bool {
        let doubtful = self.doubtful();
        doubtful.is_empty()
            || self.asked.iter().filter(|(node, _)| !doubtful.contains(node)).all(|(node, asked_at)| {
                let slow = now >= *asked_at + ms(self.world.nodes[node.0 as usize].slow_after);
                !self.is_awaited(*node, now) || slow || now >= ms(self.world.deadline)
            })
    }

    fn counted(&self) -> Tally {
        self.count(|node| self.counts(node))
    }

    /// Those who count and hold what is returned, since they said so or were sent it.
    fn up_to_date(&self, returned: &Object) -> Tally {
        self.count(|node| self.counts(node) && self.holds(node, returned))
    }

    fn is_held_elsewhere(&self, returned: &Object) -> bool {
        let holders = || self.world.all().filter(|node| self.holds(*node, returned));
        self.world.elsewhere.iter().all(|layout| layout.is_met(holders()))
    }

    /// It has said so, or was sent it.
    fn holds(&self, node: NodeId, returned: &Object) -> bool {
        let told_all = matches!(self.ended.get(&node), Some(Ending::Reply { object, .. })
            if includes(object.as_ref().unwrap_or(&Object::default()), returned));
        told_all || self.repaired.contains(&node)
    }

    fn counts(&self, node: NodeId) -> bool {
        match self.ended.get(&node) {
            Some(Ending::Reply { standing: Standing::Complete, object }) => {
                object.is_some() || self.world.is_primary(node)
            }
            Some(Ending::Reply { standing: Standing::Filling, .. } | Ending::Failed(_)) | None => false,
        }
    }

    fn is_hopeless(&self, now: Duration) -> bool {
        !self.world.quorum.is_met(self.conceivable(now)) || !self.can_be_held_elsewhere(now)
    }

    fn can_be_held_elsewhere(&self, now: Duration) -> bool {
        let heard = merged(self.heard.values().cloned());
        let may_hold = |node: &NodeId| match self.ended.get(node) {
            None if self.asked.contains_key(node) => self.is_awaited(*node, now),
            None => self.may_be_asked(*node),
            Some(Ending::Failed(_)) => false,
            Some(Ending::Reply { object, .. }) => {
                let repair_failed = self.repairs_ended.contains(node) && !self.repaired.contains(node);
                self.holds(*node, &heard) || (self.keeps(*node, object.as_ref()) && !repair_failed)
            }
        };
        let is_met = |layout: &LayoutQuorum| layout.is_met(self.world.all().filter(may_hold));
        !self.world.wait_for_repair || self.world.elsewhere.iter().all(is_met)
    }

    /// Who counts, or may yet: of the fallbacks no more than two for each primary.
    fn conceivable(&self, now: Duration) -> Tally {
        self.count(|node| {
            let open = match self.asked.contains_key(&node) {
                true => self.is_awaited(node, now),
                false => self.may_be_asked(node),
            };
            let repair_failed = self.repairs_ended.contains(&node) && !self.repaired.contains(&node);
            self.counts(node) && !(self.world.wait_for_repair && repair_failed) || open
        })
    }

    /// Somebody is within the usual delay.
    fn soon(&self, now: Duration) -> bool {
        let in_time = |node: &NodeId, asked_at: &Duration| {
            now < *asked_at + ms(self.world.nodes[node.0 as usize].slow_after) && now < ms(self.world.deadline)
        };
        self.asked.iter().any(|(node, asked_at)| self.is_awaited(*node, now) && in_time(node, asked_at))
    }

    fn may_be_asked(&self, node: NodeId) -> bool {
        let mut fallbacks: Vec<NodeId> = self.world.all().filter(|node| !self.world.is_primary(*node)).collect();
        fallbacks.sort_by_key(|node| self.world.nodes[node.0 as usize].believed_down);
        fallbacks.truncate(2 * self.world.primaries);
        fallbacks.contains(&node)
    }

    fn count(&self, of: impl Fn(NodeId) -> bool) -> Tally {
        let (primaries, fallbacks): (Vec<_>, Vec<_>) =
            self.world.all().filter(|node| of(*node)).partition(|node| self.world.is_primary(*node));
        Tally { primaries: primaries.len(), fallbacks: fallbacks.len() }
    }

    fn is_awaited(&self, node: NodeId, now: Duration) -> bool {
        let Some(asked_at) = self.asked.get(&node) else { return false };
        !self.ended.contains_key(&node) && now < *asked_at + ms(self.world.give_up_after)
    }

    fn repairs_sent_have_ended(&self) -> bool {
        self.repairs.keys().all(|node| self.repairs_ended.contains(node))
    }
}
