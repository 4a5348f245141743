//! Proposers and acceptors on a network that loses, repeats and reorders messages, while all of them crash, and some are
//! given up by force.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use starling_core::choice::{Action, Ballot, Event, Exclusion, Overtaken, Proposer, Vote};
use starling_core::ids::NodeId;

use crate::support::ensure;

/// What is proposed: a number for each proposer and life.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Plan {
    pub number: u64,
    /// Whom it leaves out; none if a majority chooses it.
    pub excluded: Option<BTreeSet<NodeId>>,
}

impl Plan {
    pub fn regular(number: u64) -> Plan {
        Plan { number, excluded: None }
    }

    pub fn forced(number: u64, excluded: impl IntoIterator<Item = u64>) -> Plan {
        Plan { number, excluded: Some(excluded.into_iter().map(NodeId).collect()) }
    }

    /// Those of all who have to agree on it.
    fn survivors(&self, all: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
        all.iter().filter(|node| !self.excluded.iter().flatten().any(|out| out == *node)).copied().collect()
    }
}

impl Exclusion for Plan {
    fn excluded(&self) -> Option<&BTreeSet<NodeId>> {
        self.excluded.as_ref()
    }
}

#[derive(Debug, Clone)]
pub struct World {
    acceptors: u64,
    proposers: u64,
    happenings: Vec<Happening>,
}

#[derive(Debug, Clone)]
enum Happening {
    /// One of the messages under way arrives; it may come again.
    Arrives {
        which: prop::sample::Index,
        again: bool,
    },
    Lost(prop::sample::Index),
    /// A proposer has waited long enough.
    Tick(prop::sample::Index),
    /// A proposer crashes, and proposes something else when it is back.
    ProposerCrashes(prop::sample::Index),
    /// A proposer goes on to force: these are given up.
    Forces {
        which: prop::sample::Index,
        given_up: u8,
    },
    /// An acceptor learns what was chosen.
    Learns(prop::sample::Index, prop::sample::Index),
    /// An acceptor learns what another goes by.
    Follows(prop::sample::Index, prop::sample::Index),
    /// An acceptor's disk is lost. It answers no more.
    Wiped(prop::sample::Index),
}

pub fn worlds() -> impl Strategy<Value = World> {
    let which = any::<prop::sample::Index>;
    let happening = prop_oneof![
        40 => (which(), prop::bool::weighted(0.1)).prop_map(|(which, again)| Happening::Arrives { which, again }),
        3 => which().prop_map(Happening::Lost),
        3 => which().prop_map(Happening::Tick),
        1 => which().prop_map(Happening::ProposerCrashes),
        1 => (which(), any::<u8>()).prop_map(|(which, given_up)| Happening::Forces { which, given_up }),
        3 => (which(), which()).prop_map(|(by, what)| Happening::Learns(by, what)),
        2 => (which(), which()).prop_map(|(by, whom)| Happening::Follows(by, whom)),
        1 => which().prop_map(Happening::Wiped),
    ];
    (1u64..=7, 1u64..=4, prop::collection::vec(happening, 0..250))
        .prop_map(|(acceptors, proposers, happenings)| World { acceptors, proposers, happenings })
}

#[derive(Debug, Clone)]
enum Message {
    Prepare {
        to: NodeId,
        from: usize,
        ballot: Ballot,
    },
    Accept {
        to: NodeId,
        from: usize,
        ballot: Ballot,
        value: Plan,
    },
    /// To a proposer, if it is still in that life.
    Answer {
        to: usize,
        life: u64,
        event: Event<Plan>,
    },
}

struct Run {
    acceptors: BTreeSet<NodeId>,
    /// None of an acceptor that has lost its vote.
    votes: BTreeMap<NodeId, Option<Vote<Plan>>>,
    /// In which life, asking whom.
    proposers: Vec<(u64, Proposer<Plan>, BTreeSet<NodeId>)>,
    under_way: Vec<Message>,
    /// Who ever accepted which ballot, and what: the onlooker forgets nothing.
    ever_accepted: BTreeMap<Ballot, (Plan, BTreeSet<NodeId>)>,
    /// What acceptors go by. They take part in no choice any more.
    adopted: BTreeMap<NodeId, Plan>,
    lives: u64,
}

impl World {
    pub fn run(&self) -> Result<(), String> {
        let acceptors: BTreeSet<NodeId> = (1..=self.acceptors).map(NodeId).collect();
        let mut run = Run {
            votes: acceptors.iter().map(|node| (*node, Some(Vote::default()))).collect(),
            acceptors,
            proposers: Vec::new(),
            under_way: Vec::new(),
            ever_accepted: BTreeMap::new(),
            adopted: BTreeMap::new(),
            lives: 0,
        };
        for number in 0..self.proposers as usize {
            run.begin(number, None);
        }
        for happening in &self.happenings {
            run.happens(happening)?;
            run.check()?;
        }
        run.in_peace()
    }
}

impl Run {
    /// A proposer begins, or begins again with another plan.
    fn begin(&mut self, number: usize, excluded: Option<BTreeSet<NodeId>>) {
        self.lives += 1;
        let node = NodeId(number as u64 + 1);
        let plan = Plan { number: self.lives, excluded };
        let asked = plan.survivors(&self.acceptors);
        let (proposer, actions) = Proposer::start(node, self.lives, asked.clone(), plan);
        let entry = (self.lives, proposer, asked);
        if number < self.proposers.len() {
            self.proposers[number] = entry;
        } else {
            self.proposers.push(entry);
        }
        self.send(number, actions).expect("it has only begun");
    }

    fn send(&mut self, from: usize, actions: Vec<Action<Plan>>) -> Result<(), String> {
        for action in actions {
            let acceptors = self.proposers[from].2.iter().copied();
            match action {
                Action::Prepare { ballot } => {
                    self.under_way.extend(acceptors.map(|to| Message::Prepare { to, from, ballot }));
                }
                Action::Accept { ballot, value } => {
                    self.under_way.extend(acceptors.map(|to| Message::Accept {
                        to,
                        from,
                        ballot,
                        value: value.clone(),
                    }));
                }
                Action::BackOff => {}
                Action::Chosen(value) => {
                    let chosen: Vec<Plan> = self.chosen().into_iter().map(|(_, plan)| plan).collect();
                    ensure!(chosen.contains(&value), "{value:?} is told as chosen; chosen were {chosen:?}");
                }
                Action::Bound(value) => {
                    let all_asked = value.survivors(&self.acceptors).is_subset(&self.proposers[from].2);
                    ensure!(all_asked, "{value:?} was not up to those who were asked");
                }
            }
        }
        Ok(())
    }

    fn happens(&mut self, happening: &Happening) -> Result<(), String> {
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
            Happening::Tick(which) => {
                let number = which.index(self.proposers.len());
                self.step(number, Event::Tick)?;
            }
            Happening::ProposerCrashes(which) => self.begin(which.index(self.proposers.len()), None),
            Happening::Forces { which, given_up } => {
                let number = which.index(self.proposers.len());
                let given_up: BTreeSet<NodeId> =
                    self.acceptors.iter().filter(|node| given_up >> node.0 & 1 == 1).copied().collect();
                if !given_up.is_empty() && given_up != self.acceptors {
                    self.begin(number, Some(given_up));
                }
            }
            Happening::Learns(by, what) => {
                let chosen = self.chosen();
                if !chosen.is_empty() {
                    let (_, plan) = chosen[what.index(chosen.len())].clone();
                    self.learns(self.acceptor(by), plan, None);
                }
            }
            Happening::Follows(by, whom) => {
                let (by, whom) = (self.acceptor(by), self.acceptor(whom));
                if let Some(plan) = self.adopted.get(&whom).filter(|_| self.votes[&whom].is_some()) {
                    self.learns(by, plan.clone(), Some(whom));
                }
            }
            Happening::Wiped(which) => {
                self.votes.insert(self.acceptor(which), None);
            }
        }
        Ok(())
    }

    fn acceptor(&self, which: &prop::sample::Index) -> NodeId {
        NodeId(which.index(self.acceptors.len()) as u64 + 1)
    }

    /// An acceptor is told what was chosen, by somebody who goes by it, or by nobody in particular.
    fn learns(&mut self, by: NodeId, plan: Plan, of: Option<NodeId>) {
        let Some(Some(vote)) = self.votes.get(&by) else { return };
        if plan.survivors(&self.acceptors).contains(&by) && vote.may_adopt(&plan, of) {
            self.adopted.entry(by).or_insert(plan);
        }
    }

    /// The vote of an acceptor that has one, and does not know yet that something was chosen.
    fn vote(&mut self, of: NodeId) -> Option<&mut Vote<Plan>> {
        if self.adopted.contains_key(&of) { None } else { self.votes.get_mut(&of)?.as_mut() }
    }

    fn step(&mut self, number: usize, event: Event<Plan>) -> Result<(), String> {
        let actions = self.proposers[number].1.step(event);
        self.send(number, actions)
    }

    fn arrives(&mut self, message: Message) -> Result<(), String> {
        let (by, from, answer) = match message {
            Message::Answer { to, life, event } => {
                return if self.proposers[to].0 == life { self.step(to, event) } else { Ok(()) };
            }
            Message::Prepare { to, from, ballot } => {
                let Some(vote) = self.vote(to) else { return Ok(()) };
                let answer = vote.promise(ballot);
                (
                    to,
                    from,
                    answer.map_or_else(
                        |Overtaken { promised }| Event::Overtaken { ballot, promised },
                        |accepted| Event::Promised { by: to, ballot, accepted },
                    ),
                )
            }
            Message::Accept { to, from, ballot, value } => {
                let Some(vote) = self.vote(to) else { return Ok(()) };
                let answer = vote.accept(ballot, value.clone());
                if answer.is_ok() {
                    self.ever_accepted.entry(ballot).or_insert_with(|| (value, BTreeSet::new())).1.insert(to);
                }
                (
                    to,
                    from,
                    answer.map_or_else(
                        |Overtaken { promised }| Event::Overtaken { ballot, promised },
                        |()| Event::Accepted { by: to, ballot },
                    ),
                )
            }
        };
        debug_assert!(self.acceptors.contains(&by));
        let life = self.proposers[from].0;
        self.under_way.push(Message::Answer { to: from, life, event: answer });
        Ok(())
    }

    /// All values that as many as it takes ever accepted in one ballot.
    fn chosen(&self) -> Vec<(Ballot, Plan)> {
        let majority = self.acceptors.len() / 2 + 1;
        let is_chosen = |plan: &Plan, by: &BTreeSet<NodeId>| match plan.excluded {
            None => by.len() >= majority,
            Some(_) => by.is_superset(&plan.survivors(&self.acceptors)),
        };
        let accepted = self.ever_accepted.iter().filter(|(_, (plan, by))| is_chosen(plan, by));
        accepted.map(|(ballot, (plan, _))| (*ballot, plan.clone())).collect()
    }

    fn check(&self) -> Result<(), String> {
        let chosen = self.chosen();
        for (at, (_, earlier)) in chosen.iter().enumerate() {
            let agreed = earlier.survivors(&self.acceptors);
            for (_, later) in chosen[at + 1..].iter().filter(|(_, later)| later != earlier) {
                let leaves_out_any = later.excluded.as_ref().is_some_and(|out| !out.is_disjoint(&agreed));
                let is_over_regular = earlier.excluded.is_none() && later.excluded.is_some();
                let is_over = is_over_regular || !self.can_be_gone_by(earlier);
                ensure!(leaves_out_any || is_over, "{earlier:?} and {later:?} are both chosen");
            }
            if earlier.excluded.is_some() {
                let goes_by_the_others = |node: &&NodeId| self.adopted.get(node).is_some_and(|p| p.excluded.is_none());
                let strayed = agreed.iter().find(goes_by_the_others);
                ensure!(strayed.is_none(), "{strayed:?} has agreed on {earlier:?}, and goes by a regular choice");
            }
        }
        Ok(())
    }

    /// Whether somebody who agreed on it goes by it, or may.
    fn can_be_gone_by(&self, plan: &Plan) -> bool {
        plan.survivors(&self.acceptors).iter().any(|node| match (self.adopted.get(node), &self.votes[node]) {
            (Some(adopted), _) => adopted == plan,
            (None, vote) => vote.as_ref().is_some_and(|vote| vote.may_adopt(plan, None)),
        })
    }

    /// From now on nothing goes wrong, and one proposer is at it: if a majority still votes, a value is chosen; if somebody was
    /// asked to go on without others, and some are gone, all who are left can agree on that.
    fn in_peace(&mut self) -> Result<(), String> {
        self.under_way.clear();
        if !self.adopted.is_empty() {
            // Something is chosen.
            return Ok(());
        }
        let by_force = self.ever_accepted.keys().any(Ballot::is_forced) || self.has_promised_force();
        let gone = self.votes.iter().filter(|(_, vote)| vote.is_none()).map(|(node, _)| *node);
        let gone: BTreeSet<NodeId> = gone.collect();
        let nobody_is_gone = gone.is_empty();
        let mut excluded = Some(gone).filter(|gone| by_force && !gone.is_empty());
        for _ in 0..10 {
            self.begin(0, excluded.clone());
            match self.runs_to_its_end()? {
                Some(bound) => excluded = bound.excluded,
                None => break,
            }
        }
        let voters = self.votes.values().flatten().count();
        let too_few = !by_force && voters <= self.acceptors.len() / 2 || voters == 0;
        let may_be_stuck = too_few || by_force && nobody_is_gone;
        ensure!(!self.chosen().is_empty() || may_be_stuck, "{voters} acceptors vote, and nothing is chosen");
        Ok(())
    }

    fn has_promised_force(&mut self) -> bool {
        let first = Ballot { round: 1, proposer: NodeId(0), nonce: 0 };
        let refused = |vote: &Vote<Plan>| vote.clone().promise(first).err();
        self.votes.values().flatten().filter_map(refused).any(|overtaken| overtaken.promised.is_forced())
    }

    /// Runs the first proposer; returns what it is bound to, if it is.
    fn runs_to_its_end(&mut self) -> Result<Option<Plan>, String> {
        for _ in 0..1000 {
            if self.proposers[0].1.is_done() {
                break;
            }
            let event = match self.under_way.pop() {
                Some(Message::Answer { to: 0, life, event }) if life == self.proposers[0].0 => event,
                Some(message) => {
                    self.arrives(message)?;
                    continue;
                }
                None => Event::Tick,
            };
            let actions = self.proposers[0].1.step(event);
            if let [Action::Bound(plan)] = &actions[..] {
                return Ok(Some(plan.clone()));
            }
            self.send(0, actions)?;
            self.check()?;
        }
        Ok(None)
    }
}
