//! A put machine among nodes whose fates are drawn, and a ledger that recounts from the events alone what the machine
//! may and must do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use starling_core::ids::NodeId;
use starling_core::preference::LayoutQuorum;
use starling_core::put::{Action, Answer, Candidate, Event, Plan, Put, Verdict};
use starling_core::report::{Failure, Outcome, Refusal, Role};

use super::agenda::Agenda;
use super::{ensure, layouts, ms};

/// What a node does when it is asked, and how long it takes. Silence is the fate of who is not given another.
#[derive(Debug, Clone, Copy)]
pub struct Fate {
    after: u64,
    ends: End,
}

#[derive(Debug, Clone, Copy)]
pub enum End {
    Stored,
    Failed(Failure),
    Silent,
}

#[derive(Debug, Clone)]
pub struct World {
    primaries: usize,
    /// Per node, primaries first.
    nodes: Vec<(Fate, bool, u64)>,
    coordinator: usize,
    /// All of them together are the primaries.
    layouts: Vec<LayoutQuorum>,
    deadline: u64,
    give_up_after: u64,
    /// By how much each tick is late, and how long after a step the next wake-up is asked for, in turn.
    lateness: Vec<u64>,
    /// Events that nobody asked for: repeated, misdirected or made up.
    noise: Vec<(u64, Event)>,
}

pub fn worlds() -> impl Strategy<Value = World> {
    let sizes = (1usize..=5, 0usize..=4);
    sizes.prop_flat_map(|(primaries, fallbacks)| {
        let all = primaries + fallbacks;
        let coordinator = prop_oneof![2 => 0..primaries, 1 => 0..all];
        let node = (fate(), prop::bool::weighted(0.2), 1u64..60);
        (
            prop::collection::vec(node, all),
            coordinator,
            layouts(primaries),
            (5u64..300, 5u64..200),
            prop::collection::vec(prop_oneof![3 => Just(0u64), 1 => 1u64..40], 1..4),
            prop::collection::vec((0u64..300, noise(all)), 0..4),
        )
            .prop_map(move |(nodes, coordinator, layouts, (deadline, give_up_after), lateness, noise)| World {
                primaries,
                nodes,
                coordinator,
                layouts,
                deadline,
                give_up_after,
                lateness,
                noise,
            })
    })
}

fn fate() -> impl Strategy<Value = Fate> {
    let ends = prop_oneof![
        6 => Just(End::Stored),
        1 => Just(End::Failed(Failure::Unreachable)),
        1 => Just(End::Failed(Failure::NoAnswer)),
        1 => Just(End::Failed(Failure::Refused(Refusal::HintsFull))),
        2 => Just(End::Silent),
    ];
    let after = prop_oneof![3 => 0u64..10, 1 => 0u64..250];
    (after, ends).prop_map(|(after, ends)| Fate { after, ends })
}

fn noise(nodes: usize) -> impl Strategy<Value = Event> {
    let node = || (0..nodes as u64 + 2).prop_map(NodeId);
    prop_oneof![
        node().prop_map(|by| Event::Stored { by }),
        node().prop_map(|by| Event::Failed { by, failure: Failure::Unreachable }),
        node().prop_map(|by| Event::Failed { by, failure: Failure::NoAnswer }),
        Just(Event::Coordinated),
        Just(Event::NotCoordinated(Refusal::Stopping)),
        Just(Event::Tick),
    ]
}

impl World {
    /// Lets everything happen in the order of time, and checks each step.
    pub fn run(&self) -> Result<(), String> {
        let (mut put, actions) = Put::start(self.plan());
        ensure!(actions == [Action::Coordinate], "it begins with {actions:?}");
        let mut ledger = Ledger::new(self);
        let mut agenda = Agenda::default();
        // A coordinator does not take its own store for a replica that was sent the write.
        let sane = |event: &Event| !matches!(event, Event::Stored { by } if by.0 == self.coordinator as u64);
        for (at, event) in self.noise.iter().filter(|(_, event)| sane(event)) {
            agenda.add(ms(*at), event.clone());
        }
        self.let_own_store_answer(&mut agenda);

        let mut now = Duration::ZERO;
        for step in 0.. {
            ensure!(step < 200, "it never ends");
            let late = ms(self.lateness[step % self.lateness.len()]);
            let wake = put.next_wake(now + late);
            ledger.check_wake(now, wake)?;
            let wake = wake.map(|wake| wake.max(now) + late);
            let Some((at, event)) = agenda.next(wake, Event::Tick) else { break };
            now = at;
            ledger.happens(now, &event);
            let actions = put.step(now, event);
            for action in &actions {
                if let Action::Store { to, .. } = action {
                    self.let_node_answer(now, *to, &mut agenda);
                }
            }
            ledger.check(now, &actions)?;
            ledger.check_machine(now, &put)?;
        }
        ensure!(put.is_done(), "nothing is left to happen and it is not done");
        ledger.check_hints()
    }

    fn plan(&self) -> Plan {
        let candidate = |number: usize| {
            let (_, believed_down, slow_after) = self.nodes[number];
            Candidate { node: NodeId(number as u64), believed_down, slow_after: ms(slow_after) }
        };
        Plan {
            coordinator: NodeId(self.coordinator as u64),
            primaries: (0..self.primaries).map(candidate).collect(),
            fallbacks: (self.primaries..self.nodes.len()).map(candidate).collect(),
            quorums: self.layouts.clone(),
            deadline: ms(self.deadline),
            give_up_after: ms(self.give_up_after),
        }
    }

    /// The own store always answers in the end.
    fn let_own_store_answer(&self, agenda: &mut Agenda<Event>) {
        let by = NodeId(self.coordinator as u64);
        let Fate { after, ends } = self.nodes[self.coordinator].0;
        let event = match ends {
            End::Stored | End::Silent => Event::Coordinated,
            End::Failed(Failure::Refused(refusal)) => Event::NotCoordinated(refusal),
            End::Failed(failure) => Event::Failed { by, failure },
        };
        agenda.add(ms(after), event);
    }

    fn let_node_answer(&self, now: Duration, by: NodeId, agenda: &mut Agenda<Event>) {
        let Some((Fate { after, ends }, _, _)) = self.nodes.get(by.0 as usize) else { return };
        match *ends {
            End::Stored => agenda.add(now + ms(*after), Event::Stored { by }),
            End::Failed(failure) => agenda.add(now + ms(*after), Event::Failed { by, failure }),
            End::Silent => {}
        }
    }
}

/// What an onlooker counts.
struct Ledger<'a> {
    world: &'a World,
    asked: BTreeMap<NodeId, Duration>,
    on_behalf_of: BTreeMap<NodeId, NodeId>,
    ended: BTreeMap<NodeId, Outcome>,
    /// When the machine could first know that a node would not answer any more.
    over_at: BTreeMap<NodeId, Duration>,
    answered: Option<Answer>,
}

impl<'a> Ledger<'a> {
    fn new(world: &'a World) -> Self {
        let asked = [(NodeId(world.coordinator as u64), Duration::ZERO)].into();
        Ledger {
            world,
            asked,
            on_behalf_of: BTreeMap::new(),
            ended: BTreeMap::new(),
            over_at: BTreeMap::new(),
            answered: None,
        }
    }

    fn happens(&mut self, now: Duration, event: &Event) {
        self.hear(event);
        let over: Vec<NodeId> = self.asked.keys().copied().filter(|node| !self.is_awaited(*node, now)).collect();
        for node in over {
            self.over_at.entry(node).or_insert(now);
        }
    }

    fn hear(&mut self, event: &Event) {
        let (node, outcome) = match event {
            Event::Coordinated => (self.coordinator(), Outcome::Stored),
            Event::NotCoordinated(refusal) => (self.coordinator(), Outcome::Failed(Failure::Refused(*refusal))),
            Event::Stored { by } => (*by, Outcome::Stored),
            Event::Failed { by, failure } => (*by, Outcome::Failed(*failure)),
            Event::Tick => return,
        };
        // Nobody's word counts who was not asked, nor a second one, except that silence can be broken.
        let silent = matches!(self.ended.get(&node), None | Some(Outcome::Failed(Failure::NoAnswer)));
        if self.asked.contains_key(&node) && silent {
            self.ended.insert(node, outcome);
        }
    }

    fn check(&mut self, now: Duration, actions: &[Action]) -> Result<(), String> {
        for action in actions {
            match action {
                Action::Coordinate => return Err("it coordinates twice".to_owned()),
                Action::Store { to, role } => self.check_store(now, *to, *role)?,
                Action::Answer(answer) => self.check_answer(now, answer)?,
            }
        }
        Ok(())
    }

    fn check_store(&mut self, now: Duration, to: NodeId, role: Role) -> Result<(), String> {
        ensure!(self.asked.insert(to, now).is_none(), "{to} is asked twice");
        ensure!(self.coordinated(), "{to} is sent what is not durable at the coordinator");
        match role {
            Role::Primary => ensure!(self.is_primary(to), "{to} is no primary"),
            Role::Fallback { stands_in_for } => {
                ensure!(!self.is_primary(to), "{to} is a primary and asked as a fallback");
                ensure!(self.is_primary(stands_in_for), "{to} stands in for {stands_in_for}, which is no primary");
                self.on_behalf_of.insert(to, stands_in_for);
            }
        }
        Ok(())
    }

    fn check_answer(&mut self, now: Duration, answer: &Answer) -> Result<(), String> {
        ensure!(self.answered.is_none(), "it answers twice");
        let (stored, met) = (self.stored(), self.is_met_by(&self.stored()));
        let told = self.world.layouts.iter().find(|layout| !layout.is_met(stored.iter().copied()));
        let told = told.unwrap_or(&self.world.layouts[0]);
        let counted = told.tally(stored.iter().copied());
        ensure!(answer.quorum == told.quorum, "it tells of {:?}, not of {:?}", answer.quorum, told.quorum);
        ensure!(answer.acknowledged == counted, "it says {:?} where {counted:?} stored", answer.acknowledged);
        let own = self.ended.get(&self.coordinator());
        match answer.verdict {
            Verdict::Acknowledged => ensure!(met, "it acknowledges below the quorum, {stored:?}"),
            Verdict::NothingDone(refusal) => {
                let refused = own == Some(&Outcome::Failed(Failure::Refused(refusal)));
                ensure!(refused && stored.is_empty(), "it says that nothing was done, by {stored:?}");
            }
            Verdict::Unknown => {
                let own_failed = matches!(own, Some(Outcome::Failed(_)));
                let hopeless = own.is_some() && !self.is_met_by(&self.conceivable(now)) && !self.soon(now);
                let late = now >= ms(self.world.deadline);
                ensure!(!met, "it does not acknowledge what {stored:?} stored");
                ensure!(late || own_failed || hopeless, "it gives up at {now:?} with {:?} left", self.conceivable(now));
            }
        }
        let reported: BTreeSet<NodeId> = answer.replicas.iter().map(|replica| replica.node).collect();
        ensure!(reported.len() == answer.replicas.len(), "a replica is reported twice");
        ensure!(reported.iter().eq(self.asked.keys()), "it reports {reported:?} of {:?}", self.asked);
        self.answered = Some(answer.clone());
        Ok(())
    }

    /// Until the answer nobody stays slow, or has failed, without a stand-in, as long as there are any.
    fn check_stand_ins(&self, now: Duration) -> Result<(), String> {
        let nobody_left = self.asked.len() == self.world.nodes.len();
        if nobody_left || self.answered.is_some() {
            return Ok(());
        }
        for (node, asked_at) in self.asked.iter().filter(|(node, _)| **node != self.coordinator()) {
            let primary = self.on_behalf_of.get(node).unwrap_or(node);
            let stands_in = |(by, of): (&NodeId, &NodeId)| of == primary && by != node && self.asked[by] >= *asked_at;
            let by_coordinator = !self.is_primary(self.coordinator()) && *primary == NodeId(0);
            let stood_in_for = by_coordinator || self.on_behalf_of.iter().any(stands_in);
            let (_, _, slow_after) = self.world.nodes[node.0 as usize];
            let slow = !self.ended.contains_key(node) && now >= *asked_at + ms(slow_after);
            let failed = matches!(self.ended.get(node), Some(Outcome::Failed(_)));
            ensure!(stood_in_for || !(slow || failed), "{node} is slow or has failed, and nobody stands in for it");
        }
        Ok(())
    }

    /// What must be so after every step.
    fn check_machine(&self, now: Duration, put: &Put) -> Result<(), String> {
        let (met, late) = (self.is_met_by(&self.stored()), now >= ms(self.world.deadline));
        let answered = self.answered.is_some();
        ensure!(answered || !met, "{:?} stored, and it does not answer", self.stored());
        ensure!(answered || !late, "it is {now:?}, past the deadline, and it does not answer");
        let hopeless = self.ended.contains_key(&self.coordinator()) && !self.is_met_by(&self.conceivable(now));
        ensure!(answered || !hopeless || self.soon(now), "only {:?} are left, and it does not say so", self.stored());
        self.check_stand_ins(now)?;
        let waiting = self.asked.keys().any(|node| self.is_awaited(*node, now));
        ensure!(put.is_done() == (answered && !waiting), "done: {}, waiting: {waiting}", put.is_done());
        Ok(())
    }

    /// It wants to be woken when the next node turns slow or too silent, and at the deadline until it has answered.
    fn check_wake(&self, stepped_at: Duration, wake: Option<Duration>) -> Result<(), String> {
        let replicas = self.asked.iter().filter(|(node, _)| **node != self.coordinator());
        let pending = replicas.filter(|(node, _)| self.is_awaited(**node, stepped_at));
        let due = pending.flat_map(|(node, asked_at)| {
            let (_, _, slow_after) = self.world.nodes[node.0 as usize];
            [*asked_at + ms(slow_after), *asked_at + ms(self.world.give_up_after)]
        });
        let deadline = self.answered.is_none().then_some(ms(self.world.deadline));
        let expected = due.filter(|at| *at > stepped_at).chain(deadline).min();
        ensure!(wake == expected, "after {stepped_at:?} it wants to be woken at {wake:?}, not at {expected:?}");
        Ok(())
    }

    /// Whoever did not store it has a hint somewhere, unless there was nobody left to take it.
    fn check_hints(&self) -> Result<(), String> {
        let nobody_left = self.asked.len() == self.world.nodes.len();
        // Past the deadline a stand-in that fails is not replaced.
        let late = |(node, at): (&NodeId, &Duration)| {
            !self.is_primary(*node) && !self.has_stored(*node) && *at >= ms(self.world.deadline)
        };
        if nobody_left || self.over_at.iter().any(late) || !self.coordinated() {
            return Ok(());
        }
        let first = (!self.is_primary(self.coordinator())).then_some(NodeId(0));
        for primary in (0..self.world.primaries as u64).map(NodeId).filter(|primary| Some(*primary) != first) {
            let hinted = self.on_behalf_of.iter().any(|(by, of)| *of == primary && self.has_stored(*by));
            ensure!(self.has_stored(primary) || hinted, "{primary} has neither the write nor a hint");
        }
        Ok(())
    }

    /// Somebody is within the usual delay.
    fn soon(&self, now: Duration) -> bool {
        let in_time = |node: &NodeId, asked_at: &Duration| now < *asked_at + ms(self.world.nodes[node.0 as usize].2);
        self.asked.iter().any(|(node, asked_at)| self.is_awaited(*node, now) && in_time(node, asked_at))
    }

    fn is_met_by(&self, nodes: &BTreeSet<NodeId>) -> bool {
        self.world.layouts.iter().all(|layout| layout.is_met(nodes.iter().copied()))
    }

    /// Who stored it, or may still.
    fn conceivable(&self, now: Duration) -> BTreeSet<NodeId> {
        self.those(|node| {
            let given_up = self.asked.contains_key(&node) && !self.is_awaited(node, now);
            self.has_stored(node) || !given_up
        })
    }

    fn stored(&self) -> BTreeSet<NodeId> {
        self.those(|node| self.has_stored(node))
    }

    fn those(&self, of: impl Fn(NodeId) -> bool) -> BTreeSet<NodeId> {
        (0..self.world.nodes.len() as u64).map(NodeId).filter(|node| of(*node)).collect()
    }

    fn has_stored(&self, node: NodeId) -> bool {
        self.ended.get(&node) == Some(&Outcome::Stored)
    }

    fn is_awaited(&self, node: NodeId, now: Duration) -> bool {
        let Some(asked_at) = self.asked.get(&node) else { return false };
        let silent_too_long = node != self.coordinator() && now >= *asked_at + ms(self.world.give_up_after);
        !self.ended.contains_key(&node) && !silent_too_long
    }

    fn coordinated(&self) -> bool {
        self.has_stored(self.coordinator())
    }

    fn coordinator(&self) -> NodeId {
        NodeId(self.world.coordinator as u64)
    }

    fn is_primary(&self, node: NodeId) -> bool {
        node.0 < self.world.primaries as u64
    }
}
