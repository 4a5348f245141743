//! How long a verdict takes: `cargo run --release -p starling-checker --example million [OPERATIONS [KEYS [STUBBORN]]]`.
//!
//! Half of the operations are reads. Writers use contexts that are a little old, so siblings come and go; the first STUBBORN
//! writes of each key are never superseded, and so are looked for in every read from then on.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // Measuring is what this is for, and a panic is how it fails.

use std::collections::VecDeque;
use std::time::Instant;

use starling_checker::{
    Acknowledgement, Asked, Change, ContextId, Deed, FinalState, Found, History, Operation, OwnCopy, Read, ReadOutcome,
    Replica, Session, ValueId, Write, WriteOutcome,
};
use starling_core::clock::{Clock, History as ClockHistory};
use starling_core::ids::{Birth, DirectoryId, NodeId};
use starling_core::name::ObjectKey;

const ASKED: Asked = Asked { replicas: 2, primaries: 2, copies: 3 };
/// How many contexts back a writer may be.
const AGE: usize = 4;

struct Key {
    name: ObjectKey,
    /// Writes so far.
    counter: u64,
    stubborn: Vec<ValueId>,
    live: Vec<(u64, ValueId)>,
    contexts: VecDeque<(ContextId, u64)>,
}

struct Workload {
    keys: Vec<Key>,
    stubborn: usize,
    values: u64,
    now: u64,
    random: u64,
}

fn main() {
    let arguments: Vec<u64> = std::env::args().skip(1).map(|argument| argument.parse().unwrap()).collect();
    let argument = |at: usize, default| arguments.get(at).copied().unwrap_or(default);
    let (operations, keys, stubborn) = (argument(0, 1_000_000), argument(1, 10_000), argument(2, 0));

    let mut workload = Workload::new(keys, usize::try_from(stubborn).unwrap());
    let mut history = History::default();
    let begin = Instant::now();
    for _ in 0..operations {
        history.record(workload.operation()).unwrap();
    }
    println!("recorded in {:.2?}", begin.elapsed());
    let end = workload.end();
    let begin = Instant::now();
    let verdict = history.check(Some(&end)).unwrap();
    println!("judged in {:.2?}\n{verdict}", begin.elapsed());
    assert!(verdict.passed());
}

impl Workload {
    fn new(keys: u64, stubborn: usize) -> Workload {
        let key = |n| Key {
            name: ObjectKey::new("bucket".parse().unwrap(), format!("key {n}")).unwrap(),
            counter: 0,
            stubborn: Vec::new(),
            live: Vec::new(),
            contexts: VecDeque::new(),
        };
        Workload { keys: (0..keys).map(key).collect(), stubborn, values: 0, now: 0, random: 1 }
    }

    fn below(&mut self, limit: u64) -> u64 {
        // Knuth's MMIX generator.
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % limit
    }

    fn operation(&mut self) -> Operation {
        let chosen = usize::try_from(self.below(self.keys.len() as u64)).unwrap();
        let (is_read, age, is_unknown) = (self.below(2) == 0, self.below(AGE as u64), self.below(20) == 0);
        let session = Session(u32::try_from(self.below(100)).unwrap());
        self.now += 1000;
        self.values += 1;
        let (value, stubborn) = (ValueId(self.values), self.stubborn);
        let key = &mut self.keys[chosen];
        let deed = match () {
            () if key.stubborn.len() < stubborn => key.write_stubbornly(value),
            () if is_read => key.read(chosen),
            () if stubborn > 0 => key.write(chosen, value, 0, is_unknown),
            () => key.write(chosen, value, usize::try_from(age).unwrap(), is_unknown),
        };
        Operation { session, key: key.name.clone(), invoked: self.now, ended: self.now + 900, deed }
    }

    fn end(&self) -> FinalState {
        let mut end = FinalState::default();
        for key in &self.keys {
            let holds = Some(OwnCopy { clock: key.clock(), values: key.present() });
            let replica = |node| Replica { node: NodeId(node), is_primary: true, holds: holds.clone() };
            end.replicas.insert(key.name.clone(), (1..=3).map(replica).collect());
        }
        end
    }
}

impl Key {
    fn write_stubbornly(&mut self, value: ValueId) -> Deed {
        self.stubborn.push(value);
        acknowledged(Change::Put { value, context: None }, None)
    }

    /// Beside stubborn values writers use the contexts of writes alone: those of reads would cover them.
    fn write(&mut self, key: usize, value: ValueId, age: usize, is_unknown: bool) -> Deed {
        let used = self.contexts.get(age).or(self.contexts.back()).copied();
        self.counter += 1;
        self.live.retain(|(dot, _)| used.is_none_or(|(_, seen)| *dot > seen));
        self.live.push((self.counter, value));
        let change = Change::Put { value, context: used.map(|(context, _)| context) };
        if is_unknown {
            return Deed::Write(Write {
                change,
                asked: ASKED,
                tries: 1,
                over_by: None,
                outcome: WriteOutcome::Unknown,
            });
        }
        let alone = self.live.len() == 1 || !self.stubborn.is_empty();
        acknowledged(change, alone.then(|| self.hold(key)))
    }

    fn read(&mut self, key: usize) -> Deed {
        let context = if self.stubborn.is_empty() { Some(self.hold(key)) } else { None };
        let found = Found { values: self.present(), context, clock: self.clock(), deleted: false };
        Deed::Read(Read { asked: ASKED, waits_for_repair: true, outcome: ReadOutcome::Found(found) })
    }

    fn hold(&mut self, key: usize) -> ContextId {
        let context = ContextId(((key as u64) << 32) + self.counter);
        self.contexts.push_front((context, self.counter));
        self.contexts.truncate(AGE);
        context
    }

    fn present(&self) -> Vec<ValueId> {
        self.stubborn.iter().copied().chain(self.live.iter().map(|(_, value)| *value)).collect()
    }

    fn clock(&self) -> Clock {
        let history = |node| ClockHistory { directory: DirectoryId(node), birth: Birth(1) };
        (1..=3).map(|node| (history(node), (self.counter + node) / 3)).collect()
    }
}

fn acknowledged(change: Change, context: Option<ContextId>) -> Deed {
    let stored_by = vec![NodeId(1), NodeId(2)];
    let outcome = WriteOutcome::Acknowledged(Acknowledgement { context, siblings: 1, stored_by });
    Deed::Write(Write { change, asked: ASKED, tries: 1, over_by: None, outcome })
}
