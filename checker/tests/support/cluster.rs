//! Three replicas of one key, run by the very code that runs in production, between clients that interleave at random.
//!
//! Choices come in as bytes. Each is one small step: a session invokes something, a message arrives (which may be long after
//! its operation was given up), a replica is read, an operation ends. Operations begin and end while others are under way.

use std::collections::BTreeSet;

use starling_checker::{
    Acknowledgement, Asked, Change, ContextId, Deed, FinalState, Found, Operation, OwnCopy, Read, ReadOutcome, Replica,
    Session, ValueId, Write, WriteOutcome,
};
use starling_core::context::Context;
use starling_core::coordinate::{self, ObjectLimits, coordinate};
use starling_core::ids::{Birth, ClusterId, DirectoryId, NodeId, RequestId};
use starling_core::mark::{Minter, OwnMark, TrustedMarks};
use starling_core::object::{Object, Seen, SiblingMode, Value};
use starling_core::stamp::Stamp;
use starling_core::token::Token;
use starling_core::wall::WallTime;

use super::key;

/// Nothing expires here.
const NOW: WallTime = WallTime(0);
const REPLICAS: usize = 3;
const SESSIONS: usize = 4;
const LIMITS: ObjectLimits = ObjectLimits { siblings: usize::MAX, bytes: usize::MAX };

/// What clients do, and what replicas do wrong.
#[derive(Debug, Clone, Copy)]
pub struct Habits {
    pub mode: SiblingMode,
    pub deletes: bool,
    pub retries: bool,
    pub fault: Fault,
}

/// A bug to be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// A write is acknowledged before anybody has stored it.
    AcknowledgesEarly,
    /// A write that brings a context removes nothing.
    IgnoresContexts,
    /// A write removes all that its coordinator holds, whether its writer had read it or not.
    RemovesUnread,
    /// A read is answered by one replica, whatever its quorum.
    ReadsOne,
    /// A merge takes the incoming object for the whole truth.
    ReplacesOnMerge,
}

/// What a run left: operations in the order in which they ended.
#[derive(Debug, Clone)]
pub struct Run {
    pub operations: Vec<Operation>,
    pub end: FinalState,
}

/// A context, as a client holds it.
#[derive(Clone)]
struct Held {
    id: ContextId,
    seen: Seen,
}

impl Held {
    fn of(object: &Object) -> Held {
        let seen = object.seen();
        let id = ContextId::of(&Context::new(ClusterId(1), Token(1), seen.clone()).encode());
        Held { id, seen }
    }
}

enum Running {
    Write { write: Write, request: RequestId },
    Read { read: Read, asked: BTreeSet<usize>, merged: Object },
}

struct Call {
    invoked: u64,
    running: Running,
}

/// On its way to a replica.
enum Message {
    Coordinate { to: usize, request: RequestId, change: Change, seen: Option<Seen> },
    Merge { to: usize, request: RequestId, object: Object },
}

/// What became of a write so far.
#[derive(Default, Clone)]
struct Progress {
    stored_by: BTreeSet<usize>,
    siblings: usize,
    context: Option<Held>,
}

struct Cluster<I> {
    habits: Habits,
    choices: I,
    now: u64,
    replicas: [(Object, Option<OwnMark>); REPLICAS],
    mail: Vec<Message>,
    calls: [Option<Call>; SESSIONS],
    contexts: Vec<Held>,
    progress: Vec<Progress>,
    births: u64,
    done: Vec<Operation>,
}

pub fn run(habits: Habits, choices: &[u8]) -> Run {
    let mut cluster = Cluster {
        habits,
        choices: choices.iter().copied(),
        now: 0,
        replicas: Default::default(),
        mail: Vec::new(),
        calls: [const { None }; SESSIONS],
        contexts: Vec::new(),
        progress: Vec::new(),
        births: 0,
        done: Vec::new(),
    };
    while let Some(choice) = cluster.choices.next() {
        cluster.step(choice);
    }
    cluster.finish()
}

impl<I: Iterator<Item = u8>> Cluster<I> {
    fn step(&mut self, choice: u8) {
        // Now and then two things happen in one moment.
        self.now += u64::from(!choice.is_multiple_of(7));
        let session = self.choose(SESSIONS);
        match (choice % 3, self.mail.len(), self.calls[session].take()) {
            (0, 1.., call) => {
                self.calls[session] = call;
                let next = self.choose(self.mail.len());
                let message = self.mail.swap_remove(next);
                self.deliver(message);
            }
            (_, _, None) => self.calls[session] = Some(self.invoke()),
            (_, _, Some(call)) => self.calls[session] = self.go_on(session, call),
        }
    }

    fn choose(&mut self, among: usize) -> usize {
        usize::from(self.choices.next().unwrap_or(0)) % among
    }

    fn invoke(&mut self) -> Call {
        let copies = 3;
        let quorum = u8::try_from(1 + self.choose(REPLICAS)).unwrap();
        let asked = Asked { replicas: quorum, primaries: quorum, copies };
        let running = match self.choose(8) {
            0..4 => {
                let waits_for_repair = self.choose(2) == 0;
                let read = Read { asked, waits_for_repair, outcome: ReadOutcome::Failed };
                Running::Read { read, asked: BTreeSet::new(), merged: Object::default() }
            }
            4 if self.habits.deletes => self.write(true, asked),
            _ => self.write(false, asked),
        };
        Call { invoked: self.now, running }
    }

    fn write(&mut self, is_delete: bool, asked: Asked) -> Running {
        let number = self.progress.len() as u64;
        self.progress.push(Progress::default());
        let held = match self.choose(4) {
            0 => None,
            // Mostly young contexts, as clients use them.
            back => self.contexts.iter().rev().nth(back * back / 2).or(self.contexts.last()).cloned(),
        };
        let (context, seen) = held.map(|held| (held.id, held.seen)).unzip();
        let change =
            if is_delete { Change::Delete { context } } else { Change::Put { value: ValueId(number), context } };
        let seen = if change.is_blind_delete() { None } else { Some(seen.unwrap_or_default()) };
        let request = RequestId(number.into());
        let refused = self.choose(12) == 0;
        let tries = if self.habits.retries { 1 + self.choose(2) } else { 1 };
        let first = self.choose(REPLICAS);
        let tries: Vec<usize> = (first..first + tries).map(|at| at % REPLICAS).collect();
        let outcome = if refused { WriteOutcome::Failed } else { WriteOutcome::Unknown };
        if !refused {
            let send = |to: &usize| Message::Coordinate { to: *to, request, change, seen: seen.clone() };
            self.mail.extend(tries.iter().map(send));
        }
        let write = Write { change, asked, tries: u32::try_from(tries.len()).unwrap(), over_by: None, outcome };
        Running::Write { write, request }
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::Merge { to, request, object } => {
                match self.habits.fault {
                    Fault::ReplacesOnMerge => self.replicas[to].0 = object,
                    _ => self.replicas[to].0.merge(&object),
                }
                self.progress_of(request).stored_by.insert(to);
            }
            Message::Coordinate { to, request, change, seen } => {
                // A delete without a context reads somewhere first.
                let seen = seen.unwrap_or_else(|| {
                    let other = self.choose(REPLICAS);
                    let mut read = self.replicas[to].0.clone();
                    read.merge(&self.replicas[other].0);
                    read.seen()
                });
                self.coordinate(to, request, change, seen);
            }
        }
    }

    fn coordinate(&mut self, at: usize, request: RequestId, change: Change, seen: Seen) {
        self.births += 1;
        let value = match change {
            Change::Put { value, .. } => Value::Live(value.0.to_le_bytes().to_vec().into()),
            Change::Delete { .. } => Value::Tombstone,
        };
        // Wall clocks apart by more than operations take.
        let wall = Stamp::from_millis(self.now + 50 * at as u64);
        let (mode, fresh_birth) = (self.habits.mode, Birth(self.births));
        let seen = match self.habits.fault {
            Fault::IgnoresContexts => Seen::default(),
            Fault::RemovesUnread => self.replicas[at].0.seen(),
            _ => seen,
        };
        let write = coordinate::Write { value, seen, request, mode, wall, fresh_birth };
        let minter = Minter { directory: DirectoryId(at as u64), run: 1, trusted: TrustedMarks::OfThisRun };
        let (object, mark) = &mut self.replicas[at];
        coordinate(object, mark, write, &minter, &LIMITS).unwrap();
        let object = object.clone();

        let others = (0..REPLICAS).filter(|to| *to != at);
        self.mail.extend(others.map(|to| Message::Merge { to, request, object: object.clone() }));
        let alone = matches!(object.siblings(), [only] if only.request == request);
        let context = alone.then(|| Held::of(&object));
        let siblings = object.present(mode, NOW).len();
        let progress = self.progress_of(request);
        progress.stored_by.insert(at);
        (progress.context, progress.siblings) = (context, siblings);
    }

    fn progress_of(&mut self, request: RequestId) -> &mut Progress {
        &mut self.progress[usize::try_from(request.0).unwrap()]
    }

    fn go_on(&mut self, session: usize, call: Call) -> Option<Call> {
        let invoked = call.invoked;
        match call.running {
            Running::Read { mut read, mut asked, mut merged } => {
                let enough = if self.habits.fault == Fault::ReadsOne { 1 } else { usize::from(read.asked.replicas) };
                if asked.len() < enough {
                    let next =
                        (self.choose(REPLICAS)..).map(|at| at % REPLICAS).find(|at| !asked.contains(at)).unwrap();
                    merged.merge(&self.replicas[next].0);
                    asked.insert(next);
                    return Some(Call { invoked, running: Running::Read { read, asked, merged } });
                }
                if read.waits_for_repair {
                    asked.iter().for_each(|at| self.replicas[*at].0.merge(&merged));
                }
                read.outcome = ReadOutcome::Found(self.found(&merged));
                self.end(session, invoked, Deed::Read(read));
                None
            }
            Running::Write { mut write, request } => {
                let progress = self.progress_of(request).clone();
                let met = progress.stored_by.len() >= usize::from(write.asked.replicas)
                    || self.habits.fault == Fault::AcknowledgesEarly;
                let impatient = self.choose(8) == 0;
                if !write.is_failed() && met && !impatient {
                    let stored_by = progress.stored_by.iter().map(|at| NodeId(*at as u64)).collect();
                    let Progress { context: held, siblings, .. } = progress;
                    let context = held.as_ref().map(|held| held.id);
                    self.contexts.extend(held);
                    write.outcome = WriteOutcome::Acknowledged(Acknowledgement { context, siblings, stored_by });
                } else if !write.is_failed() && !impatient {
                    return Some(Call { invoked, running: Running::Write { write, request } });
                }
                self.end(session, invoked, Deed::Write(write));
                None
            }
        }
    }

    fn found(&mut self, object: &Object) -> Found {
        let mode = self.habits.mode;
        let held = (!object.is_unwritten()).then(|| Held::of(object));
        let context = held.as_ref().map(|held| held.id);
        self.contexts.extend(held);
        let values = present(object, mode);
        Found { values, context, clock: object.clock().clone(), deleted: object.is_deleted(mode, NOW) }
    }

    fn end(&mut self, session: usize, invoked: u64, deed: Deed) {
        let session = Session(u32::try_from(session).unwrap());
        self.done.push(Operation { session, key: key("key"), invoked, ended: self.now, deed });
    }

    /// Whoever still waits gives up; then everything arrives, and replicas compare what they have.
    fn finish(mut self) -> Run {
        self.now += 1;
        for session in 0..SESSIONS {
            match self.calls[session].take() {
                Some(Call { invoked, running: Running::Write { write, .. } }) => {
                    self.end(session, invoked, Deed::Write(write));
                }
                Some(Call { invoked, running: Running::Read { read, .. } }) => {
                    self.end(session, invoked, Deed::Read(read));
                }
                None => {}
            }
        }
        while let Some(message) = self.mail.pop() {
            self.deliver(message);
        }
        let mut merged = Object::default();
        self.replicas.iter().for_each(|(object, _)| merged.merge(object));
        let copy = OwnCopy { clock: merged.clock().clone(), values: present(&merged, self.habits.mode) };
        let holds = (!merged.is_unwritten()).then_some(copy);
        let replica = |at: usize| Replica { node: NodeId(at as u64), is_primary: true, holds: holds.clone() };
        let mut end = FinalState::default();
        end.replicas.insert(key("key"), (0..REPLICAS).map(replica).collect());
        Run { operations: self.done, end }
    }
}

fn present(object: &Object, mode: SiblingMode) -> Vec<ValueId> {
    let number = |value: &Value| match value {
        Value::Live(bytes) => ValueId(u64::from_le_bytes(bytes[..].try_into().unwrap())),
        Value::Tombstone | Value::Expiring { .. } => {
            panic!("nothing that expires is put, and a tombstone is not present")
        }
    };
    object.present(mode, NOW).into_iter().map(|sibling| number(&sibling.value)).collect()
}
