//! What a run has shown: the checker's verdict on what clients saw, and the witness's on what it saw inside.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use starling_checker::{
    Acknowledgement, Asked, Change, ContextId, Deed, Expiry, FinalState, Found, HeldHints, History, LostDisk,
    Operation, OwnCopy, Read, ReadOutcome, Replica, Session, Since, ValueId, Write, WriteOutcome,
};
use starling_core::ids::NodeId;
use starling_core::name::ObjectKey;
use starling_core::object::{Object, SiblingMode};
use starling_core::wall::WallTime;

use crate::duty::Duty;
use crate::kernel::network::HostId;
use crate::kernel::time::Moment;
use crate::names::Names;
use crate::plan::Plan;
use crate::run::Loss;
use crate::summary::Times;
use crate::transcript::Transcript;
use crate::witness::{Breach, Invariant, Needed, Witness};
use crate::workload::{self, Done, Written};

/// Beyond its timeout a client's operation may take this long: a tick here and there.
const SLACK: Duration = Duration::from_millis(100);

/// How the world was left.
pub struct Ending {
    /// Of which nodes disks were lost.
    pub lost: BTreeMap<usize, Vec<Loss>>,
    /// Of those, the nodes that do not serve any more.
    pub away: BTreeSet<usize>,
    /// Troubles, as often as they came.
    pub happened: Vec<&'static str>,
    /// The last questions were answered, and rightly.
    pub examined: bool,
    pub ended: Moment,
}

pub struct Verdict {
    pub checker: starling_checker::Verdict,
    pub breaches: Vec<Breach>,
    /// All of them, also those that are not kept.
    pub counts: BTreeMap<Invariant, u64>,
    /// How often what was put to the test, by requests and from inside.
    pub tested: BTreeMap<&'static str, Times>,
    pub happened: Vec<&'static str>,
    pub simulated: Duration,
    pub checks: u64,
    pub fingerprint: String,
}

impl Verdict {
    pub fn of(
        plan: &Plan,
        names: &Names,
        witness: &Witness,
        done: &[Done],
        ending: &Ending,
        transcript: &Transcript,
    ) -> Verdict {
        let judge = Judge { plan, names, witness, ending };
        let (mut breaches, mut counts) = (witness.breaches.clone(), witness.counts.clone());
        let mut tested: BTreeMap<&'static str, Times> =
            Duty::NAMES.into_iter().map(|name| (name, Times::default())).collect();
        for done in done {
            let duty = Duty::of(plan, done);
            let neglected = duty.and_then(|duty| neglected(duty, done));
            if let Some(duty) = duty {
                let violated = u64::from(neglected.is_some());
                *tested.entry(duty.name()).or_default() += Times { tested: 1, violated, excused: 0 };
            }
            for breach in judge.overdue(done).into_iter().chain(neglected) {
                *counts.entry(breach.invariant).or_insert(0) += 1;
                breaches.push(breach);
            }
        }
        let once = |times: u64| Times { tested: times, ..Times::default() };
        for loss in ending.lost.values().flatten() {
            *tested.entry(loss.told_by.duty()).or_default() += once(1);
        }
        *tested.entry("listings and refusals in the end").or_default() += once(u64::from(ending.examined));
        for invariant in Invariant::SEEN_INSIDE {
            let times = witness.checked.get(&invariant).copied().unwrap_or_default();
            let violated = counts.get(&invariant).copied().unwrap_or_default();
            tested.insert(invariant.claim(), Times { tested: times, violated, excused: 0 });
        }
        Verdict {
            tested,
            happened: ending.happened.clone(),
            checker: judge.judge(done),
            breaches,
            counts,
            simulated: ending.ended.since_start(),
            checks: witness.checks(),
            fingerprint: transcript.fingerprint(),
        }
    }

    pub fn passed(&self) -> bool {
        self.breaches.is_empty() && self.checker.passed()
    }

    /// `invariant 2 broken 19 times`
    fn witnessed(&self) -> String {
        let told: Vec<String> = self
            .counts
            .iter()
            .map(|(invariant, count)| {
                format!("invariant {} broken {count} time{}", invariant.number(), if *count == 1 { "" } else { "s" })
            })
            .collect();
        if told.is_empty() { "nothing wrong".to_owned() } else { told.join(", ") }
    }

    /// The key that the first complaint is about, if it is about one.
    pub fn key(&self, plan: &Plan) -> Option<String> {
        let of_checker = self.checker.violations.iter().find_map(|violation| violation.key.as_ref());
        let said = |key: &String| self.breaches.first().is_some_and(|breach| breach.what.contains(key.as_str()));
        let of_witness = plan.keys.iter().map(crate::names::key).find(said);
        of_witness.or_else(|| of_checker.map(crate::names::key))
    }

    /// The first thing that went wrong, by name: an invariant of the witness, or an assertion of the checker.
    pub fn caught_by(&self) -> Vec<String> {
        let numbers: BTreeSet<u8> = self.breaches.iter().map(|breach| breach.invariant.number()).collect();
        let invariants = numbers.into_iter().map(|number| format!("invariant {number}"));
        let assertions: BTreeSet<String> =
            self.checker.violations.iter().map(|violation| violation.assertion.to_string()).collect();
        assertions.into_iter().chain(invariants).collect()
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "the witness (inside): {}", self.witnessed())?;
        for (invariant, count) in &self.counts {
            writeln!(f, "\ninvariant {}: {}", invariant.number(), invariant.claim())?;
            let told: Vec<&Breach> = self.breaches.iter().filter(|breach| breach.invariant == *invariant).collect();
            for Breach { at, what, .. } in &told {
                writeln!(f, "{:>9}  {what}", at.to_string())?;
            }
            let more = count - told.len() as u64;
            if more > 0 {
                writeln!(f, "           and {more} more")?;
            }
        }
        write!(f, "\nthe checker (what clients saw): {}", self.checker)
    }
}

struct Judge<'a> {
    plan: &'a Plan,
    names: &'a Names,
    witness: &'a Witness,
    ending: &'a Ending,
}

impl Judge<'_> {
    fn overdue(&self, done: &Done) -> Option<Breach> {
        let late = Duration::from_nanos(done.ended.saturating_sub(done.due));
        (late > SLACK).then(|| Breach {
            at: Moment(done.ended),
            invariant: Invariant::Progress,
            what: format!("an operation of c{} came to its end {late:?} after its deadline", done.session + 1),
        })
    }

    fn judge(&self, done: &[Done]) -> starling_checker::Verdict {
        let mut history = History::default();
        history.may_forget_deletes();
        for (bucket, rules) in crate::run::buckets() {
            history.set_mode(bucket, rules.mode);
        }
        for identity in self.names.members() {
            history.name_node(identity.node, identity.name.to_string());
        }
        self.names.directories().into_iter().for_each(|(directory, name)| history.name_directory(directory, name));
        for written in done.iter().filter_map(Done::value) {
            history.name_value(ValueId::of(written), String::from_utf8_lossy(written));
        }
        for (done, ttl) in done.iter().filter_map(|done| Some((done, done.ttl?))) {
            let Some(value) = done.value() else { continue };
            history.expires(ValueId::of(value), self.expiry(done, ttl));
        }
        for done in done {
            history.record(self.operation(done)).expect("time goes forward");
        }
        history.check(Some(&self.final_state())).expect("every key is accounted for")
    }

    /// By whichever clock: each try is reckoned by that of a node, and a reader may go by another's.
    fn expiry(&self, done: &Done, ttl: Duration) -> Expiry {
        const GRAIN: Duration = Duration::from_millis(2);
        let error = self.plan.clocks().apart + GRAIN;
        let last = match &done.deed {
            workload::Deed::Write { request, .. } => self.witness.carried_out(&done.key, *request),
            workload::Deed::Read { .. } => None,
        };
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Expiry {
            earliest: (done.invoked + nanos(ttl)).saturating_sub(nanos(error)),
            latest: last.map_or(done.ended, |last| last.0) + nanos(ttl + error),
        }
    }

    fn operation(&self, done: &Done) -> Operation {
        let session = Session(u32::try_from(done.session + 1).unwrap_or(u32::MAX));
        let deed = match &done.deed {
            workload::Deed::Read { waits_for_repair, found } => Deed::Read(Read {
                asked: self.asked(done),
                waits_for_repair: *waits_for_repair,
                outcome: found.as_ref().map_or(ReadOutcome::Failed, |found| {
                    ReadOutcome::Found(Found {
                        values: found.values.iter().map(|value| ValueId::of(value)).collect(),
                        context: found.context.as_ref().map(|context| ContextId::of(context)),
                        clock: found.clock.clone(),
                        deleted: found.deleted,
                    })
                }),
            }),
            workload::Deed::Write { request, value, context, outcome } => {
                let context = context.as_ref().map(|context| ContextId::of(context));
                Deed::Write(Write {
                    change: match value {
                        Some(value) => Change::Put { value: ValueId::of(value), context },
                        None => Change::Delete { context },
                    },
                    asked: self.asked(done),
                    tries: self.witness.tries(&done.key, *request).max(1),
                    over_by: Some(self.witness.carried_out(&done.key, *request).map_or(done.invoked, |last| last.0)),
                    outcome: written(outcome),
                })
            }
        };
        Operation { session, key: done.key.clone(), invoked: done.invoked, ended: done.ended, deed }
    }

    fn asked(&self, done: &Done) -> Asked {
        let copies = self.plan.copies(&done.key);
        let (fewest, copies) = ((*copies.start()).min(self.plan.members), (*copies.end()).min(self.plan.members));
        let Needed { replicas, primaries } = Needed::of(done.asked.all, done.asked.primaries, fewest);
        let small = |count: usize| u8::try_from(count).expect("a key has few copies");
        Asked { replicas: small(replicas), primaries: small(primaries), copies: small(copies) }
    }

    fn final_state(&self) -> FinalState {
        let replicas = self.plan.keys.iter().map(|key| {
            let primaries = self.witness.primaries(key);
            let mode = crate::run::buckets().get(key.bucket()).map(|rules| rules.mode).unwrap_or_default();
            let replica = |index: usize| {
                let held = self.witness.mirror(HostId(index)).record(key);
                Replica {
                    node: self.names.identity(HostId(index)).node,
                    is_primary: primaries.contains(&index),
                    holds: held.map(|held| own_copy(&held.object, mode, self.ending.ended.wall())),
                }
            };
            let expected = (0..self.plan.nodes).filter(|index| !self.is_excused(*index, key, &primaries));
            (key.clone(), expected.map(replica).collect())
        });
        FinalState {
            replicas: replicas.collect(),
            hints: self.hints(),
            lost_disks: self.lost_disks(),
            at: self.ending.ended.0,
        }
    }

    /// A node that is away has nothing to show. Whoever holds a copy for it has to keep that.
    fn is_excused(&self, index: usize, key: &ObjectKey, primaries: &[usize]) -> bool {
        let away = &self.ending.away;
        let owes = || {
            let is_away = |node: &NodeId| away.iter().any(|away| self.names.identity(HostId(*away)).node == *node);
            self.witness.mirror(HostId(index)).hints_of(key).iter().any(is_away)
        };
        away.contains(&index) || (!primaries.contains(&index) && owes())
    }

    fn hints(&self) -> Vec<HeldHints> {
        let mut counts: BTreeMap<_, u64> = BTreeMap::new();
        for index in 0..self.plan.nodes {
            for (_, target) in self.witness.mirror(HostId(index)).hints() {
                *counts.entry((self.names.identity(HostId(index)).node, target)).or_default() += 1;
            }
        }
        counts.into_iter().map(|((holder, target), count)| HeldHints { holder, target, count }).collect()
    }

    fn lost_disks(&self) -> Vec<LostDisk> {
        // A node that is away in the end may have answered for a while from what its disk went back to.
        let lost = |(index, losses): (&usize, &Vec<Loss>)| {
            let node = self.names.identity(HostId(*index)).node;
            // What it took meanwhile is lost with it too.
            let is_away = self.ending.away.contains(index);
            let away = is_away.then_some(LostDisk { node, at: self.ending.ended.0, since: Since::Away });
            let once = losses.iter().map(|loss| {
                let since = if loss.is_new { Since::Filled } else { Since::RolledBack(loss.to.0) };
                LostDisk { node, at: loss.at.0, since }
            });
            away.into_iter().chain(once).collect::<Vec<LostDisk>>()
        };
        self.ending.lost.iter().flat_map(lost).collect()
    }
}

fn neglected(duty: Duty, done: &Done) -> Option<Breach> {
    let what = duty.neglect(done)?;
    Some(Breach { at: Moment(done.ended), invariant: Invariant::Progress, what })
}

fn written(outcome: &Written) -> WriteOutcome {
    match outcome {
        Written::Acknowledged { context, siblings, stored_by } => WriteOutcome::Acknowledged(Acknowledgement {
            context: context.as_ref().map(|context| ContextId::of(context)),
            siblings: *siblings,
            stored_by: stored_by.clone(),
        }),
        Written::Unknown => WriteOutcome::Unknown,
        Written::NotDone => WriteOutcome::Failed,
    }
}

fn own_copy(object: &Object, mode: SiblingMode, now: WallTime) -> OwnCopy {
    let live = object.present(mode, now).into_iter().filter_map(|sibling| sibling.value.bytes());
    let live = live.map(|bytes| ValueId::of(bytes));
    OwnCopy { clock: object.clock().clone(), values: live.collect() }
}
