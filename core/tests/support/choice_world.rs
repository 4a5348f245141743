//! Proposers and acceptors on a network that loses, repeats and reorders messages, while all of them crash.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use starling_core::choice::{Action, Ballot, Event, Overtaken, Proposer, Vote};
use starling_core::ids::NodeId;

use crate::support::ensure;

/// What is proposed: a number for each proposer and life.
type Plan = u64;

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
    proposers: Vec<(u64, Proposer<Plan>)>,
    under_way: Vec<Message>,
    /// Who ever accepted which ballot, and what: the onlooker forgets nothing.
    ever_accepted: BTreeMap<Ballot, (Plan, BTreeSet<NodeId>)>,
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
            lives: 0,
        };
        for number in 0..self.proposers as usize {
            run.begin(number);
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
    fn begin(&mut self, number: usize) {
        self.lives += 1;
        let node = NodeId(number as u64 + 1);
        let (proposer, actions) = Proposer::start(node, self.lives, self.acceptors.clone(), self.lives);
        let entry = (self.lives, proposer);
        if number < self.proposers.len() {
            self.proposers[number] = entry;
        } else {
            self.proposers.push(entry);
        }
        self.send(number, actions).expect("it has only begun");
    }

    fn send(&mut self, from: usize, actions: Vec<Action<Plan>>) -> Result<(), String> {
        for action in actions {
            let acceptors = self.acceptors.iter().copied();
            match action {
                Action::Prepare { ballot } => {
                    self.under_way.extend(acceptors.map(|to| Message::Prepare { to, from, ballot }));
                }
                Action::Accept { ballot, value } => {
                    self.under_way.extend(acceptors.map(|to| Message::Accept { to, from, ballot, value }));
                }
                Action::BackOff => {}
                Action::Chosen(value) => {
                    let chosen = self.chosen();
                    ensure!(chosen.contains(&value), "{value} is told as chosen; chosen were {chosen:?}");
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
            Happening::ProposerCrashes(which) => self.begin(which.index(self.proposers.len())),
            Happening::Wiped(which) => {
                let node = NodeId(which.index(self.acceptors.len()) as u64 + 1);
                self.votes.insert(node, None);
            }
        }
        Ok(())
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
                let Some(Some(vote)) = self.votes.get_mut(&to) else { return Ok(()) };
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
                let Some(Some(vote)) = self.votes.get_mut(&to) else { return Ok(()) };
                let answer = vote.accept(ballot, value);
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

    /// All values that a majority ever accepted in one ballot.
    fn chosen(&self) -> BTreeSet<Plan> {
        let majority = self.acceptors.len() / 2 + 1;
        self.ever_accepted.values().filter(|(_, by)| by.len() >= majority).map(|(value, _)| *value).collect()
    }

    fn check(&self) -> Result<(), String> {
        let chosen = self.chosen();
        ensure!(chosen.len() <= 1, "{chosen:?} are all chosen");
        Ok(())
    }

    /// From now on nothing goes wrong, and one proposer is at it: if a majority still votes, a value is chosen.
    fn in_peace(&mut self) -> Result<(), String> {
        self.under_way.clear();
        self.begin(0);
        for _ in 0..1000 {
            if self.proposers[0].1.is_done() {
                break;
            }
            match self.under_way.pop() {
                Some(message) => self.arrives(message)?,
                None => self.step(0, Event::Tick)?,
            }
            self.check()?;
        }
        let voters = self.votes.values().flatten().count();
        let decided = self.proposers[0].1.is_done();
        ensure!(decided || voters <= self.acceptors.len() / 2, "{voters} acceptors vote, and nothing is chosen");
        Ok(())
    }
}
