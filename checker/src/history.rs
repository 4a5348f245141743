//! Operations as they end, kept by key until they are judged.

use std::collections::BTreeMap;

use starling_core::clock::Clock;
use starling_core::ids::{DirectoryId, NodeId};
use starling_core::name::{BucketName, ObjectKey};
use starling_core::object::SiblingMode;

use crate::clocks::{Histories, SmallClock};
use crate::end::{FinalState, Span};
use crate::operation::{
    Asked, ContextId, Deed, Operation, OperationNumber, Read, ReadOutcome, Session, ValueId, Write, WriteOutcome,
};
use crate::verdict::Counts;

/// A history that cannot have been recorded rightly: mend what records it. Nothing is said about the database.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHistory {
    #[error("operation {operation} ended at {ended}, before it was invoked at {invoked}")]
    EndedBeforeInvoked { operation: OperationNumber, invoked: u64, ended: u64 },
    #[error("{value} was written twice, by {first} and {second}: then nobody can tell whose was seen")]
    ValueWrittenTwice { value: ValueId, first: OperationNumber, second: OperationNumber },
    #[error("write {operation} used a context that no operation on its key had returned when it was invoked")]
    UnknownContext { operation: OperationNumber },
    #[error("the final state says nothing of {bucket}/{key}, which was written", bucket = key.bucket(), key = key.key().escape_ascii())]
    NoFinalState { key: ObjectKey },
    #[error("more operations than can be numbered")]
    TooLong,
}

/// An operation, without its key.
#[derive(Debug)]
pub(crate) struct Entry {
    pub number: OperationNumber,
    pub session: Session,
    pub invoked: u64,
    pub ended: u64,
    pub deed: Kept,
}

#[derive(Debug)]
pub(crate) enum Kept {
    Write(Write),
    Read(KeptRead),
}

#[derive(Debug)]
pub(crate) struct KeptRead {
    pub asked: Asked,
    pub waits_for_repair: bool,
    /// None of a read that failed.
    pub found: Option<KeptFound>,
}

#[derive(Debug)]
pub(crate) struct KeptFound {
    pub values: Box<[ValueId]>,
    pub context: Option<ContextId>,
    pub clock: SmallClock,
    pub deleted: bool,
}

impl Entry {
    pub fn span(&self) -> Span {
        Span { invoked: self.invoked, ended: self.ended }
    }

    /// Whether this was over before the other began. At one moment, only a session's own order tells.
    pub fn is_before(&self, other: &Entry) -> bool {
        let at_one_moment = self.ended == other.invoked && self.session == other.session;
        self.ended < other.invoked || (at_one_moment && self.number < other.number)
    }
}

/// When a value expires, by the clock of the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry {
    /// It may be gone from here on.
    pub earliest: u64,
    /// It is not shown by what begins later.
    pub latest: u64,
}

/// What was done to a database, and how its buckets and nodes are called.
///
/// Operations come in any order; a session's own in its order. Memory grows with the history: see the crate.
#[derive(Debug, Default)]
pub struct History {
    keys: BTreeMap<ObjectKey, Vec<Entry>>,
    modes: BTreeMap<BucketName, SiblingMode>,
    nodes: BTreeMap<NodeId, String>,
    values: BTreeMap<ValueId, String>,
    histories: Histories,
    forgets_deletes: bool,
    expiries: BTreeMap<ValueId, Expiry>,
    counts: Counts,
}

impl History {
    /// Deletes may be forgotten while the history lasts: a key begins a new clock after that.
    pub fn may_forget_deletes(&mut self) {
        self.forgets_deletes = true;
    }

    pub(crate) fn forgets_deletes(&self) -> bool {
        self.forgets_deletes
    }

    /// A value expires: it may be missing from when the first clock can say so, and must be when all do.
    pub fn expires(&mut self, value: ValueId, when: Expiry) {
        self.expiries.insert(value, when);
    }

    pub(crate) fn expiry(&self, value: ValueId) -> Option<Expiry> {
        self.expiries.get(&value).copied()
    }

    /// A bucket keeps siblings unless it is said here that it does not.
    pub fn set_mode(&mut self, bucket: BucketName, mode: SiblingMode) {
        self.modes.insert(bucket, mode);
    }

    /// What timelines call a node.
    pub fn name_node(&mut self, node: NodeId, name: impl Into<String>) {
        self.nodes.insert(node, name.into());
    }

    /// What timelines call a value.
    pub fn name_value(&mut self, value: ValueId, name: impl Into<String>) {
        self.values.insert(value, name.into());
    }

    /// What timelines call the histories of a directory, in operations that are recorded from now on.
    pub fn name_directory(&mut self, directory: DirectoryId, name: impl Into<String>) {
        self.histories.name_directory(directory, name.into());
    }

    /// Takes in an operation that has ended, and returns its number, by which a verdict will call it.
    ///
    /// # Errors
    /// [`InvalidHistory`] if it ended before it began, or nothing more can be numbered. It is not recorded then.
    pub fn record(&mut self, operation: Operation) -> Result<OperationNumber, InvalidHistory> {
        let Operation { session, key, invoked, ended, deed } = operation;
        let number = u32::try_from(self.counts.operations).map_err(|_| InvalidHistory::TooLong)?;
        let number = OperationNumber(number);
        if ended < invoked {
            return Err(InvalidHistory::EndedBeforeInvoked { operation: number, invoked, ended });
        }
        let deed = self.keep(deed);
        self.count(&deed);
        self.keys.entry(key).or_default().push(Entry { number, session, invoked, ended, deed });
        Ok(number)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = (&ObjectKey, &[Entry])> {
        self.keys.iter().map(|(key, entries)| (key, entries.as_slice()))
    }

    pub(crate) fn holds(&self, key: &ObjectKey) -> bool {
        self.keys.contains_key(key)
    }

    pub(crate) fn mode(&self, bucket: &BucketName) -> SiblingMode {
        self.modes.get(bucket).copied().unwrap_or_default()
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts { keys: self.keys.len() as u64, ..self.counts }
    }

    /// The node as people call it.
    pub(crate) fn node(&self, node: NodeId) -> String {
        self.nodes.get(&node).cloned().unwrap_or_else(|| format!("n{:x}", node.0))
    }

    /// The value as people call it.
    pub(crate) fn value(&self, value: ValueId) -> String {
        self.values.get(&value).cloned().unwrap_or_else(|| value.to_string())
    }

    pub(crate) fn tell_small_clock(&self, clock: &SmallClock) -> String {
        self.histories.tell_small(clock)
    }

    pub(crate) fn tell_clock(&self, clock: &Clock) -> String {
        self.histories.tell(clock)
    }

    fn keep(&mut self, deed: Deed) -> Kept {
        match deed {
            Deed::Write(write) => Kept::Write(write),
            Deed::Read(Read { asked, waits_for_repair, outcome }) => {
                let found = match outcome {
                    ReadOutcome::Failed => None,
                    ReadOutcome::Found(found) => Some(KeptFound {
                        values: found.values.into(),
                        context: found.context,
                        clock: self.histories.shrink(&found.clock),
                        deleted: found.deleted,
                    }),
                };
                Kept::Read(KeptRead { asked, waits_for_repair, found })
            }
        }
    }

    fn count(&mut self, deed: &Kept) {
        let counts = &mut self.counts;
        counts.operations += 1;
        *match deed {
            Kept::Read(KeptRead { found: Some(_), .. }) => &mut counts.reads,
            Kept::Read(KeptRead { found: None, .. }) => &mut counts.failed_reads,
            Kept::Write(write) => match write.outcome {
                WriteOutcome::Acknowledged(_) => &mut counts.acknowledged,
                WriteOutcome::Unknown => &mut counts.unknown,
                WriteOutcome::Failed => &mut counts.failed,
            },
        } += 1;
    }
}

impl FinalState {
    /// Whether every key that was written is accounted for.
    pub(crate) fn check_complete(&self, history: &History) -> Result<(), InvalidHistory> {
        let written = |entry: &Entry| matches!(&entry.deed, Kept::Write(write) if !write.is_failed());
        let missing =
            history.keys().find(|(key, entries)| !self.replicas.contains_key(key) && entries.iter().any(written));
        match missing {
            Some((key, _)) => Err(InvalidHistory::NoFinalState { key: key.clone() }),
            None => Ok(()),
        }
    }
}
