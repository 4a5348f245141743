//! Several replicas of one key, next to a model that keeps exact causal histories as plain sets.
//!
//! The model knows of each write which other writes its writer had seen. A replica *knows* a set of writes, and of those
//! the ones are live that no known write has seen. That is the whole of causality; clocks, dots, births and marks are
//! only a short way to write it down. After every step each replica's object has to say exactly what the sets say.

use std::collections::{BTreeMap, BTreeSet};

use starling_core::clock::{Dot, History};
use starling_core::coordinate::{Coordinated, Write, WriteRefused, coordinate};
use starling_core::ids::{Birth, DirectoryId, RequestId, Run, RunVerdict};
use starling_core::mark::{Minter, OwnMark, TrustedMarks};
use starling_core::object::{Object, Seen, SiblingMode, Value};
use starling_core::request::RING_SIZE;
use starling_core::stamp::Stamp;

use super::{NOW, UNLIMITED, ensure};

/// The first of the replicas are the key's primaries, the rest are fallbacks.
pub const PRIMARIES: usize = 3;
pub const REPLICAS: usize = 5;

/// A step of a story. Replicas are numbered from 0; everything else is chosen modulo what there is.
#[derive(Debug, Clone)]
pub enum Step {
    /// A client reads, at one replica or merged from two, and keeps the context.
    Read {
        at: usize,
        and: usize,
    },
    /// A client merges two contexts.
    JoinContexts {
        one: usize,
        other: usize,
    },
    /// A client writes, with a context from any time and place, or with none.
    Write {
        at: usize,
        context: Option<usize>,
        what: What,
        wall: u64,
    },
    /// A client repeats a request, at the same replica or at another.
    Retry {
        request: usize,
        at: usize,
        wall: u64,
    },
    /// A replica's object is sent; the message waits, and may come often, late, or never.
    Send {
        from: usize,
    },
    Deliver {
        message: usize,
        to: usize,
    },
    /// A message sent and received at once.
    Exchange {
        from: usize,
        to: usize,
    },
    /// A fallback hands its copy to every primary and drops it.
    HandOff {
        fallback: usize,
    },
    Restart {
        at: usize,
        after: Stop,
    },
    /// A copy is taken of a running directory.
    Snapshot {
        at: usize,
    },
    /// That copy is what a replica comes back with.
    RollBack {
        at: usize,
    },
    /// A disk is lost; the replica comes back empty, under a new directory id.
    LoseDisk {
        at: usize,
    },
}

#[derive(Debug, Clone, Copy)]
pub enum What {
    Put,
    Delete,
}

#[derive(Debug, Clone, Copy)]
pub enum Stop {
    Clean,
    Crash,
}

/// Ways to break the rules of marks, to see that the checks notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// A fallback that drops its copy keeps its mark.
    MarkOutlivesTheCopy,
    /// Every start trusts all marks, also those that a crash has left.
    EveryMarkTrusted,
    /// A clean stop makes all marks trusted again, also those of runs that had ended badly.
    CleanStopTrustsEarlierCrashes,
    /// A replica without a mark takes up the highest counter of its directory that it finds in its object.
    MarkLearntFromObject,
    /// A replica that lost its disk comes back under its old directory id, with the marks of what it lost.
    WipedDirectoryKeepsItsMarks,
}

/// A write, by its number.
type WriteNo = usize;
type Known = BTreeSet<WriteNo>;

/// What the model keeps of a write.
#[derive(Debug)]
struct Fact {
    dot: Dot,
    request: usize,
    value: Value,
    /// What it makes old.
    seen: Known,
}

/// What a client has seen, with what the model says that stands for.
#[derive(Debug, Clone, Default)]
struct Context {
    seen: Seen,
    known: Known,
}

#[derive(Debug, Clone)]
struct Request {
    id: RequestId,
    value: Value,
    context: Context,
}

#[derive(Debug, Clone, Default)]
struct Record {
    object: Object,
    mark: Option<OwnMark>,
}

/// All that a directory holds: what is copied with it, and what goes with it.
#[derive(Debug, Clone)]
struct Directory {
    run: Run,
    trusted: TrustedMarks,
    record: Option<Record>,
    known: Known,
}

#[derive(Debug)]
struct Replica {
    disk: Directory,
    snapshot: Option<Directory>,
}

#[derive(Debug)]
pub struct Flock {
    replicas: Vec<Replica>,
    facts: Vec<Fact>,
    contexts: Vec<Context>,
    messages: Vec<(Object, Known)>,
    requests: Vec<Request>,
    /// The latest run of each directory that the cluster remembers.
    runs: BTreeMap<DirectoryId, Run>,
    /// Directories of which an older copy has ever been put back.
    rolled_back: BTreeSet<DirectoryId>,
    /// Something was forgotten by a disk, so that traces of requests may have gone with it.
    forgetful: bool,
    mode: SiblingMode,
    sabotage: Option<Sabotage>,
    drawn: u64,
}

/// What the checks found wrong.
pub type Violation = String;

impl Flock {
    pub fn new(mode: SiblingMode, sabotage: Option<Sabotage>) -> Flock {
        let mut flock = Flock {
            replicas: Vec::new(),
            facts: Vec::new(),
            contexts: Vec::new(),
            messages: Vec::new(),
            requests: Vec::new(),
            runs: BTreeMap::new(),
            rolled_back: BTreeSet::new(),
            forgetful: false,
            mode,
            sabotage,
            drawn: 0,
        };
        for _ in 0..REPLICAS {
            let disk = flock.new_directory();
            flock.replicas.push(Replica { disk, snapshot: None });
        }
        flock
    }

    /// Runs all steps, checking after each, then lets everybody exchange with everybody, and checks that.
    pub fn live_through(steps: &[Step], mode: SiblingMode, sabotage: Option<Sabotage>) -> Result<Flock, Violation> {
        let mut flock = Flock::new(mode, sabotage);
        for (number, step) in steps.iter().enumerate() {
            let checked = flock.step(step).and_then(|()| flock.check());
            checked.map_err(|violation| format!("after step {number}, {step:?}: {violation}"))?;
        }
        flock.exchange_all()?;
        flock.check()?;
        flock.check_agreement().map_err(|violation| format!("after the final exchange: {violation}"))?;
        Ok(flock)
    }

    pub fn step(&mut self, step: &Step) -> Result<(), Violation> {
        match *step {
            Step::Read { at, and } => {
                let context = self.read(at, and);
                self.contexts.push(context);
            }
            Step::JoinContexts { one, other } => self.join_contexts(one, other),
            Step::Write { at, context, what, wall } => {
                let request = self.new_request(context, what);
                self.coordinate(at, request, wall)?;
            }
            Step::Retry { request, at, wall } => {
                if let Some(request) = request.checked_rem(self.requests.len()) {
                    self.coordinate(at, request, wall)?;
                }
            }
            Step::Send { from } => self.messages.extend(self.message_of(from)),
            Step::Deliver { message, to } => {
                if let Some(message) = message.checked_rem(self.messages.len()) {
                    self.receive(to, &self.messages[message].clone())?;
                }
            }
            Step::Exchange { from, to } => self.exchange(from, to)?,
            Step::HandOff { fallback } => self.hand_off(fallback)?,
            Step::Restart { at, after } => self.restart(at, after),
            Step::Snapshot { at } => self.replicas[at].snapshot = Some(self.replicas[at].disk.clone()),
            Step::RollBack { at } => self.roll_back(at),
            Step::LoseDisk { at } => self.lose_disk(at),
        }
        Ok(())
    }

    /// How many siblings a reader of this replica sees.
    pub fn siblings_shown(&self, at: usize) -> usize {
        self.object(at).present(SiblingMode::Keep, NOW).len()
    }

    pub fn object(&self, at: usize) -> Object {
        self.replicas[at].disk.record.clone().unwrap_or_default().object
    }

    /// The dots of all writes so far, in their order.
    pub fn dots(&self) -> Vec<Dot> {
        self.facts.iter().map(|fact| fact.dot).collect()
    }

    fn read(&self, at: usize, and: usize) -> Context {
        let mut object = self.object(at);
        object.merge(&self.object(and));
        let known = self.known(at).union(self.known(and)).copied().collect();
        Context { seen: object.seen(), known }
    }

    fn join_contexts(&mut self, one: usize, other: usize) {
        let Some(one) = one.checked_rem(self.contexts.len()) else { return };
        let mut joined = self.contexts[one].clone();
        let other = &self.contexts[other % self.contexts.len()];
        joined.seen.merge(&other.seen);
        joined.known.extend(&other.known);
        self.contexts.push(joined);
    }

    fn new_request(&mut self, context: Option<usize>, what: What) -> usize {
        let context = context.and_then(|context| context.checked_rem(self.contexts.len()));
        let context = context.map(|context| self.contexts[context].clone()).unwrap_or_default();
        let number = self.requests.len();
        let value = match what {
            What::Put => Value::Live(format!("v{number}").into()),
            What::Delete => Value::Tombstone,
        };
        self.requests.push(Request { id: RequestId(number as u128), value, context });
        number
    }

    fn coordinate(&mut self, at: usize, request: usize, wall: u64) -> Result<(), Violation> {
        let Request { id, value, context } = self.requests[request].clone();
        let fresh_birth = Birth(self.draw());
        let sabotage = self.sabotage;
        let disk = &mut self.replicas[at].disk;
        let mut record = disk.record.clone().unwrap_or_default();
        if sabotage == Some(Sabotage::MarkLearntFromObject) {
            record.mark = record.mark.or_else(|| learn_mark(&record.object, &disk.run));
        }
        let write = Write {
            value: value.clone(),
            seen: context.seen,
            request: id,
            mode: self.mode,
            wall: Stamp::from_millis(wall),
            fresh_birth,
        };
        let minter = disk.minter();
        match coordinate(&mut record.object, &mut record.mark, write, &minter, &UNLIMITED) {
            Ok(Coordinated::Repeated) => {
                let known = disk.known.iter().any(|write| self.facts[*write].request == request);
                ensure!(known, "replica {at} takes a new request for a repeated one");
            }
            Ok(Coordinated::Minted) => {
                let mark = record.mark.ok_or("a write was minted and left no mark")?;
                let history = History { directory: minter.directory, birth: mark.birth };
                disk.record = Some(record);
                let dot = Dot { history, counter: mark.counter };
                self.note_write(at, Fact { dot, request, value, seen: self.superseded_by(at, context.known) })?;
            }
            Err(WriteRefused::DirectoryCopied(_)) => self.retire(at)?,
            Err(refused) => return Err(format!("replica {at} refuses a write: {refused}")),
        }
        Ok(())
    }

    /// All that a write makes old: what its writer had seen, and in a last-write-wins bucket what its coordinator holds.
    fn superseded_by(&self, at: usize, seen_by_writer: Known) -> Known {
        match self.mode {
            SiblingMode::Keep => seen_by_writer,
            SiblingMode::LastWriteWins => seen_by_writer.union(self.known(at)).copied().collect(),
        }
    }

    fn note_write(&mut self, at: usize, fact: Fact) -> Result<(), Violation> {
        ensure!(!self.facts.iter().any(|old| old.dot == fact.dot), "dot {} has two values", fact.dot);
        let known = &mut self.replicas[at].disk.known;
        let live_twin = live(&self.facts, known).into_iter().find(|write| self.facts[*write].request == fact.request);
        ensure!(live_twin.is_none(), "replica {at} mints again what it still holds");
        known.extend(&fact.seen);
        known.insert(self.facts.len());
        self.facts.push(fact);
        Ok(())
    }

    fn message_of(&self, from: usize) -> Option<(Object, Known)> {
        let disk = &self.replicas[from].disk;
        disk.record.as_ref().map(|record| (record.object.clone(), disk.known.clone()))
    }

    fn receive(&mut self, to: usize, (object, known): &(Object, Known)) -> Result<(), Violation> {
        let disk = &mut self.replicas[to].disk;
        let minter = disk.minter();
        let record = disk.record.get_or_insert_default();
        if minter.check(record.mark.as_ref(), object.clock()).is_err() {
            return self.retire(to);
        }
        record.object.merge(object);
        disk.known.extend(known);
        Ok(())
    }

    fn exchange(&mut self, from: usize, to: usize) -> Result<(), Violation> {
        match self.message_of(from) {
            Some(message) if from != to => self.receive(to, &message),
            _ => Ok(()),
        }
    }

    fn hand_off(&mut self, fallback: usize) -> Result<(), Violation> {
        for primary in 0..PRIMARIES {
            self.exchange(fallback, primary)?;
        }
        let disk = &mut self.replicas[fallback].disk;
        let mark = disk.record.take().and_then(|record| record.mark);
        if self.sabotage == Some(Sabotage::MarkOutlivesTheCopy) {
            disk.record = mark.map(|mark| Record { object: Object::default(), mark: Some(mark) });
        }
        disk.known.clear();
        Ok(())
    }

    fn restart(&mut self, at: usize, after: Stop) {
        let drawn = self.draw() as u32;
        let sabotage = self.sabotage;
        let disk = &mut self.replicas[at].disk;
        let nonce = Run::nonce_after(Some(disk.run.nonce), drawn);
        let run = Run { counter: disk.run.counter + 1, nonce, ..disk.run };
        match run.judge(self.runs.get(&run.directory)) {
            RunVerdict::Newer => {}
            RunVerdict::Known | RunVerdict::OldCopy => return self.lose_disk(at),
        }
        self.runs.insert(run.directory, run);
        disk.run = run;
        disk.trusted = match (sabotage, after, disk.trusted) {
            (Some(Sabotage::EveryMarkTrusted), _, _) => TrustedMarks::Since(0),
            (Some(Sabotage::CleanStopTrustsEarlierCrashes), Stop::Clean, _) => TrustedMarks::Since(0),
            (_, Stop::Clean, TrustedMarks::OfThisRun) => TrustedMarks::Since(run.counter - 1),
            (_, Stop::Clean, since @ TrustedMarks::Since(_)) => since,
            (_, Stop::Crash, _) => TrustedMarks::OfThisRun,
        };
    }

    fn roll_back(&mut self, at: usize) {
        let replica = &mut self.replicas[at];
        let Some(snapshot) = replica.snapshot.clone() else { return };
        self.rolled_back.insert(snapshot.run.directory);
        self.forgetful = true;
        replica.disk = snapshot;
        self.restart(at, Stop::Crash);
    }

    fn lose_disk(&mut self, at: usize) {
        self.forgetful = true;
        let old = self.replicas[at].disk.clone();
        let mut disk = self.new_directory();
        if self.sabotage == Some(Sabotage::WipedDirectoryKeepsItsMarks) {
            disk.run = old.run;
            disk.record = old.record.map(|record| Record { object: Object::default(), mark: record.mark });
        }
        self.replicas[at].disk = disk;
    }

    /// A directory that meets a dot above its own mark is a copy. Only one that was rolled back can be.
    fn retire(&mut self, at: usize) -> Result<(), Violation> {
        let directory = self.replicas[at].disk.run.directory;
        ensure!(self.rolled_back.contains(&directory), "replica {at} was never copied and is retired as a copy");
        self.lose_disk(at);
        Ok(())
    }

    /// Everybody's object reaches everybody.
    fn exchange_all(&mut self) -> Result<(), Violation> {
        for _ in 0..2 {
            for from in 0..REPLICAS {
                for to in 0..REPLICAS {
                    self.exchange(from, to)?;
                }
            }
        }
        Ok(())
    }

    fn new_directory(&mut self) -> Directory {
        let run = Run { directory: DirectoryId(self.draw()), counter: 1, nonce: self.draw() };
        self.runs.insert(run.directory, run);
        Directory { run, trusted: TrustedMarks::OfThisRun, record: None, known: Known::new() }
    }

    /// Stands for a random number that nobody draws twice.
    fn draw(&mut self) -> u64 {
        self.drawn += 1;
        self.drawn
    }

    fn known(&self, at: usize) -> &Known {
        &self.replicas[at].disk.known
    }

    /// Every replica's object says what the sets say.
    fn check(&self) -> Result<(), Violation> {
        for at in 0..REPLICAS {
            self.check_clock(at)?;
            self.check_siblings(at)?;
            match self.mode {
                SiblingMode::Keep => self.check_shown(at)?,
                SiblingMode::LastWriteWins => self.check_winner(at)?,
            }
            self.check_mark(at)?;
        }
        self.check_equality()
    }

    /// What is known of a key is all in its clock: replicas of which neither is ahead are equal, remembered requests
    /// included.
    fn check_equality(&self) -> Result<(), Violation> {
        for (one, other) in (0..REPLICAS).flat_map(|one| (0..one).map(move |other| (one, other))) {
            let (object, peer) = (self.object(one), self.object(other));
            ensure!(
                object.clock() != peer.clock() || object == peer,
                "replicas {one} and {other} differ under one clock"
            );
        }
        Ok(())
    }

    /// Readers of a last-write-wins bucket see one value at the most, and none of which a live write's client knew.
    fn check_winner(&self, at: usize) -> Result<(), Violation> {
        let object = self.object(at);
        let shown = object.present(SiblingMode::LastWriteWins, NOW);
        ensure!(shown.len() <= 1, "replica {at} shows {} values", shown.len());
        let live = live(&self.facts, self.known(at));
        let in_window = self.known(at).len() - live.len() <= RING_SIZE;
        if self.forgetful || !in_window {
            return Ok(());
        }
        for sibling in shown {
            let knew = |write: &WriteNo| self.facts[*write].request;
            let known_to = |request: usize| {
                let seen = &self.requests[request].context.known;
                seen.iter().any(|write| self.requests[self.facts[*write].request].id == sibling.request)
            };
            let newer = live.iter().map(knew).find(|request| known_to(*request));
            ensure!(newer.is_none(), "replica {at} shows {sibling:?}, which the writer of request {newer:?} had seen");
        }
        Ok(())
    }

    /// A clock covers exactly the known writes, and no counter that was never minted.
    fn check_clock(&self, at: usize) -> Result<(), Violation> {
        let object = self.object(at);
        for (write, fact) in self.facts.iter().enumerate() {
            let (covers, knows) = (object.clock().covers(&fact.dot), self.known(at).contains(&write));
            ensure!(!covers || knows, "replica {at} covers dot {}, which has not come to it", fact.dot);
            ensure!(covers || !knows, "replica {at} does not cover dot {}, which has come to it", fact.dot);
        }
        for (history, counter) in object.clock().entries() {
            let minted = self.facts.iter().any(|fact| fact.dot == Dot { history: *history, counter });
            ensure!(minted, "replica {at} has counter {counter} of {history:?}, which nobody ever minted");
        }
        Ok(())
    }

    /// The siblings are exactly the known writes that no known write has seen.
    fn check_siblings(&self, at: usize) -> Result<(), Violation> {
        let object = self.object(at);
        let live = live(&self.facts, self.known(at));
        for write in &live {
            let fact = &self.facts[*write];
            let sibling = object.siblings().iter().find(|sibling| sibling.dot == fact.dot);
            let sibling = sibling.ok_or(format!("replica {at} has lost {fact:?}, which nobody had seen"))?;
            let same = sibling.value == fact.value && sibling.request == self.requests[fact.request].id;
            ensure!(same, "replica {at} holds another value under dot {}", fact.dot);
            ensure!(sibling.value_hash == fact.value.hash(), "replica {at} has a wrong hash at dot {}", fact.dot);
        }
        let dots: Vec<Dot> = object.siblings().iter().map(|sibling| sibling.dot).collect();
        ensure!(dots.is_sorted(), "replica {at} has its siblings out of order");
        ensure!(dots.len() == live.len(), "replica {at} shows superseded writes again: {dots:?}");
        Ok(())
    }

    /// Readers see each request once, and miss none that was not seen and superseded.
    fn check_shown(&self, at: usize) -> Result<(), Violation> {
        let object = self.object(at);
        let shown = object.present(SiblingMode::Keep, NOW);
        let requests: BTreeSet<RequestId> = shown.iter().map(|sibling| sibling.request).collect();
        ensure!(requests.len() == shown.len(), "replica {at} shows a request twice");
        let superseded = self.superseded_requests(at);
        for sibling in object.siblings().iter().filter(|sibling| sibling.is_live(NOW)) {
            let hidden = !requests.contains(&sibling.request);
            ensure!(!hidden || superseded.contains(&sibling.request), "replica {at} hides {sibling:?} for no reason");
        }
        Ok(())
    }

    /// A mark counts what its own object covers. A sabotaged one is to be noticed by its consequences.
    fn check_mark(&self, at: usize) -> Result<(), Violation> {
        let disk = &self.replicas[at].disk;
        let Some(Record { object, mark: Some(mark) }) = &disk.record else { return Ok(()) };
        if self.sabotage.is_some() {
            return Ok(());
        }
        let history = History { directory: disk.run.directory, birth: mark.birth };
        let counter = object.clock().counter(&history);
        ensure!(counter == mark.counter, "replica {at} has mark {mark:?} and counter {counter} in its clock");
        Ok(())
    }

    /// All replicas agree, and a request of which any trace can be left shows nothing that was superseded.
    fn check_agreement(&self) -> Result<(), Violation> {
        let first = self.object(0);
        for at in 1..REPLICAS {
            let other = self.object(at);
            ensure!(other.clock() == first.clock(), "replicas 0 and {at} have different clocks");
            ensure!(other.siblings() == first.siblings(), "replicas 0 and {at} have different siblings");
        }
        let superseded = self.known(0).len() - live(&self.facts, self.known(0)).len();
        if self.mode == SiblingMode::Keep && !self.forgetful && superseded <= RING_SIZE {
            let gone = self.superseded_requests(0);
            for sibling in first.present(SiblingMode::Keep, NOW) {
                ensure!(!gone.contains(&sibling.request), "a retry shows {sibling:?}, which was superseded");
            }
        }
        ensure!(self.forgetful || self.known(0).len() == self.facts.len(), "writes are lost without a lost disk");
        Ok(())
    }

    /// Requests of which this replica knows a write that was superseded.
    fn superseded_requests(&self, at: usize) -> BTreeSet<RequestId> {
        let live = live(&self.facts, self.known(at));
        let superseded = self.known(at).difference(&live);
        superseded.map(|write| self.requests[self.facts[*write].request].id).collect()
    }
}

impl Directory {
    fn minter(&self) -> Minter {
        Minter { directory: self.run.directory, run: self.run.counter, trusted: self.trusted }
    }
}

/// Of the known writes those that no known write has seen.
fn live(facts: &[Fact], known: &Known) -> Known {
    let superseded: Known = known.iter().flat_map(|write| &facts[*write].seen).copied().collect();
    known.difference(&superseded).copied().collect()
}

fn learn_mark(object: &Object, run: &Run) -> Option<OwnMark> {
    let mut own = object.clock().entries().filter(|(history, _)| history.directory == run.directory);
    own.next().map(|(history, counter)| OwnMark { birth: history.birth, counter, run: run.counter })
}
