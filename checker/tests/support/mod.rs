//! Histories as stories: who did what, one after another unless it is said otherwise, and how it ended.

// Everything here is test code, and not all of it for every test: a panic is how it fails.
#![allow(dead_code, clippy::unwrap_used)]

pub mod cluster;

use std::ops::Range;

use starling_checker::{
    Acknowledgement, Asked, Assertion, Change, ContextId, Deed, Expiry, FinalState, Found, HeldHints, History,
    LostDisk, Operation, OperationNumber, OwnCopy, Read, ReadOutcome, Replica, Session, Since, ValueId, Verdict, Write,
    WriteOutcome,
};
use starling_core::clock::{Clock, History as ClockHistory};
use starling_core::ids::{Birth, DirectoryId, NodeId};
use starling_core::name::ObjectKey;
use starling_core::object::SiblingMode;

/// A step of a story: by session 1, with strict quorums (2 of 3, primaries), acknowledged by nodes 1 and 2.
pub struct Step {
    session: u32,
    key: &'static str,
    deed: Deed,
}

const STRICT: Asked = Asked { replicas: 2, primaries: 2, copies: 3 };

pub fn put(value: u64) -> Step {
    write(Change::Put { value: ValueId(value), context: None })
}

/// A delete without a context.
pub fn delete() -> Step {
    write(Change::Delete { context: None })
}

pub fn read<const N: usize>(values: [u64; N]) -> Step {
    let values = values.map(ValueId).to_vec();
    let found = Found { deleted: false, context: None, clock: Clock::default(), values };
    step(Deed::Read(Read { asked: STRICT, waits_for_repair: false, outcome: ReadOutcome::Found(found) }))
}

pub fn failed_read() -> Step {
    step(Deed::Read(Read { asked: STRICT, waits_for_repair: false, outcome: ReadOutcome::Failed }))
}

fn write(change: Change) -> Step {
    let stored_by = vec![NodeId(1), NodeId(2)];
    let outcome = WriteOutcome::Acknowledged(Acknowledgement { context: None, siblings: 1, stored_by });
    step(Deed::Write(Write { change, asked: STRICT, tries: 1, over_by: None, outcome }))
}

fn step(deed: Deed) -> Step {
    Step { session: 1, key: "key", deed }
}

impl Step {
    pub fn by(mut self, session: u32) -> Step {
        self.session = session;
        self
    }

    pub fn on(mut self, key: &'static str) -> Step {
        self.key = key;
        self
    }

    /// The write uses the context of that name.
    pub fn using(mut self, name: &str) -> Step {
        match &mut self.written().change {
            Change::Put { context, .. } | Change::Delete { context } => *context = Some(ContextId::of(name.as_bytes())),
        }
        self
    }

    /// A context of that name came back.
    pub fn returns(mut self, name: &str) -> Step {
        let returned = Some(ContextId::of(name.as_bytes()));
        match &mut self.deed {
            Deed::Write(Write { outcome: WriteOutcome::Acknowledged(told), .. }) => told.context = returned,
            Deed::Read(Read { outcome: ReadOutcome::Found(found), .. }) => found.context = returned,
            Deed::Write(_) | Deed::Read(_) => panic!("nothing was returned"),
        }
        self
    }

    pub fn unknown(mut self) -> Step {
        self.written().outcome = WriteOutcome::Unknown;
        self
    }

    pub fn failed(mut self) -> Step {
        self.written().outcome = WriteOutcome::Failed;
        self
    }

    pub fn tries(mut self, tries: u32) -> Step {
        self.written().tries = tries;
        self
    }

    pub fn over_by(mut self, moment: u64) -> Step {
        self.written().over_by = Some(moment);
        self
    }

    pub fn stored_by<const N: usize>(mut self, nodes: [u64; N]) -> Step {
        if let WriteOutcome::Acknowledged(told) = &mut self.written().outcome {
            told.stored_by = nodes.map(NodeId).to_vec();
        }
        self
    }

    /// Two of three nodes, whichever they are.
    pub fn sloppy(mut self) -> Step {
        let (Deed::Write(Write { asked, .. }) | Deed::Read(Read { asked, .. })) = &mut self.deed;
        asked.primaries = 0;
        self
    }

    /// All three nodes, all of them primaries.
    pub fn by_all(mut self) -> Step {
        let (Deed::Write(Write { asked, .. }) | Deed::Read(Read { asked, .. })) = &mut self.deed;
        (asked.replicas, asked.primaries) = (3, 3);
        self
    }

    pub fn waiting(mut self) -> Step {
        if let Deed::Read(read) = &mut self.deed {
            read.waits_for_repair = true;
        }
        self
    }

    pub fn clock<const N: usize>(mut self, entries: [(u64, u64); N]) -> Step {
        if let Deed::Read(Read { outcome: ReadOutcome::Found(found), .. }) = &mut self.deed {
            found.clock = clock(entries);
        }
        self
    }

    fn written(&mut self) -> &mut Write {
        let Deed::Write(write) = &mut self.deed else { panic!("a read is no write") };
        write
    }
}

pub fn clock<const N: usize>(entries: [(u64, u64); N]) -> Clock {
    let history = |node| ClockHistory { directory: DirectoryId(node), birth: Birth(1) };
    entries.into_iter().map(|(node, counter)| (history(node), counter)).collect()
}

pub fn key(name: &'static str) -> ObjectKey {
    ObjectKey::new("bucket".parse().unwrap(), name.as_bytes()).unwrap()
}

#[derive(Default)]
pub struct Story {
    pub history: History,
    pub end: Option<FinalState>,
    now: u64,
}

impl Story {
    pub fn last_write_wins() -> Story {
        let mut story = Story::default();
        story.history.set_mode("bucket".parse().unwrap(), SiblingMode::LastWriteWins);
        story
    }

    /// A value may be gone from the beginning of that on, and is by its end.
    pub fn expires(&mut self, value: u64, within: Range<u64>) {
        self.history.expires(ValueId(value), Expiry { earliest: within.start, latest: within.end });
    }

    /// After all that happened before.
    pub fn then(&mut self, step: Step) -> OperationNumber {
        let begin = self.now + 10;
        self.at(begin..begin + 10, step)
    }

    pub fn at(&mut self, when: Range<u64>, step: Step) -> OperationNumber {
        self.now = self.now.max(when.end);
        let (session, key) = (Session(step.session), key(step.key));
        let operation = Operation { session, key, invoked: when.start, ended: when.end, deed: step.deed };
        self.history.record(operation).unwrap()
    }

    /// Nodes 1 to 3 hold these values, node 4 nothing.
    pub fn ends_with<const N: usize>(mut self, values: [u64; N]) -> Story {
        let copy = OwnCopy { clock: clock([(1, 9)]), values: values.map(ValueId).to_vec() };
        let replica =
            |node| Replica { node: NodeId(node), is_primary: node <= 3, holds: (node <= 3).then(|| copy.clone()) };
        let end = self.end.get_or_insert_default();
        end.at = self.now + 1;
        end.replicas.insert(key("key"), (1..=4).map(replica).collect());
        self
    }

    pub fn with_copy<const N: usize>(mut self, node: u64, copy: Option<(Clock, [u64; N])>) -> Story {
        let replicas = self.end.as_mut().and_then(|end| end.replicas.get_mut(&key("key"))).unwrap();
        let replica = replicas.iter_mut().find(|replica| replica.node == NodeId(node)).unwrap();
        replica.holds = copy.map(|(clock, values)| OwnCopy { clock, values: values.map(ValueId).to_vec() });
        self
    }

    pub fn with_hints(mut self, holder: u64, target: u64, count: u64) -> Story {
        let hints = HeldHints { holder: NodeId(holder), target: NodeId(target), count };
        self.end.get_or_insert_default().hints.push(hints);
        self
    }

    pub fn with_lost_disk(self, node: u64, at: u64) -> Story {
        self.with_loss(node, at, Since::Away)
    }

    /// At one time the disk went back to another.
    pub fn with_rolled_back_disk(self, node: u64, at: u64, to: u64) -> Story {
        self.with_loss(node, at, Since::RolledBack(to))
    }

    fn with_loss(mut self, node: u64, at: u64, since: Since) -> Story {
        let lost = LostDisk { node: NodeId(node), at, since };
        self.end.get_or_insert_default().lost_disks.push(lost);
        self
    }

    pub fn verdict(&self) -> Verdict {
        self.history.check(self.end.as_ref()).unwrap()
    }

    #[track_caller]
    pub fn passes(&self) {
        let verdict = self.verdict();
        assert!(verdict.passed(), "{verdict}");
    }

    /// Passes, and not because nothing was looked at.
    #[track_caller]
    pub fn passes_test_of(&self, assertion: Assertion) {
        self.passes();
        assert!(self.verdict().of(assertion).times > 0, "{}", self.verdict());
    }

    #[track_caller]
    pub fn passes_by_excuse(&self, assertion: Assertion) {
        self.passes();
        assert!(self.verdict().of(assertion).excused > 0, "{}", self.verdict());
    }

    /// Breaks this promise once and no other, by the doing of these.
    #[track_caller]
    pub fn breaks<const N: usize>(&self, assertion: Assertion, culprits: [OperationNumber; N]) {
        let verdict = self.verdict();
        let found: Vec<_> = verdict.violations.iter().map(|v| (v.assertion, v.culprits.as_slice())).collect();
        assert_eq!(found, [(assertion, &culprits[..])], "{verdict}");
    }
}
