//! What a client did, and what came back.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use starling_core::clock::Clock;
use starling_core::ids::NodeId;
use starling_core::name::ObjectKey;
use starling_core::quorum::{Quorum, ReplicaCount};

/// One client that does one thing after another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Session(pub u32);

/// What tells a written value from all others: a workload writes none twice. A number of its own, or [`ValueId::of`] its
/// bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueId(pub u64);

/// A context, by its bytes. The same bytes are the same context, whoever returned them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContextId(pub u64);

/// The place of an operation among all that were recorded, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationNumber(pub u32);

/// An operation that has ended, one way or another. However often a client tried, it is one operation, from the first try
/// to the last answer. One that never returned ended when it was given up, as unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    pub session: Session,
    pub key: ObjectKey,
    /// Nanoseconds of one clock that all sessions share.
    pub invoked: u64,
    pub ended: u64,
    pub deed: Deed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    Write(Write),
    Read(Read),
}

/// A quorum, and of how many copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked {
    pub replicas: u8,
    pub primaries: u8,
    pub copies: u8,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub change: Change,
    pub asked: Asked,
    /// How often it may have been carried out, at the most: 1, unless its client sent it again or a node forwarded it twice.
    /// A try that comes late is recognised only while the key remembers the request, so on a busy key a write of several
    /// tries may come back: see the crate's documentation.
    pub tries: u32,
    /// No try was carried out later than this, if somebody knows. Else one that has no answer may be under way for ever.
    pub over_by: Option<u64>,
    pub outcome: WriteOutcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Put {
        value: ValueId,
        context: Option<ContextId>,
    },
    /// Without a context the node that is asked reads first, and deletes what it reads.
    Delete {
        context: Option<ContextId>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteOutcome {
    Acknowledged(Acknowledgement),
    /// It may have been done, or be done yet. A timeout is this.
    Unknown,
    /// The answer said that nothing was done.
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Acknowledgement {
    pub context: Option<ContextId>,
    pub siblings: usize,
    /// Who had stored it when it was acknowledged. Empty if that is not known: then any lost disk may have been one.
    pub stored_by: Vec<NodeId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    pub asked: Asked,
    /// Answered only once its quorum held what it returned.
    pub waits_for_repair: bool,
    pub outcome: ReadOutcome,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadOutcome {
    Found(Found),
    Failed,
}

/// What a read showed: nothing, if the key is absent or deleted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    pub values: Vec<ValueId>,
    pub context: Option<ContextId>,
    pub clock: Clock,
    pub deleted: bool,
}

impl ValueId {
    pub fn of(bytes: &[u8]) -> ValueId {
        ValueId(hash(bytes))
    }
}

impl ContextId {
    pub fn of(bytes: &[u8]) -> ContextId {
        ContextId(hash(bytes))
    }
}

/// SipHash under fixed keys. Among a million values two collide once in 40 million histories.
fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

impl Asked {
    pub fn new(quorum: Quorum, copies: ReplicaCount) -> Asked {
        // A quorum and a count of copies are both at most 7.
        let small = |count: usize| u8::try_from(count).unwrap_or(u8::MAX);
        Asked { replicas: small(quorum.replicas()), primaries: small(quorum.primaries()), copies: small(copies.get()) }
    }
}

impl Change {
    /// None of a delete.
    pub fn value(&self) -> Option<ValueId> {
        match self {
            Change::Put { value, .. } => Some(*value),
            Change::Delete { .. } => None,
        }
    }

    pub fn context(&self) -> Option<ContextId> {
        match self {
            Change::Put { context, .. } | Change::Delete { context } => *context,
        }
    }

    pub fn is_delete(&self) -> bool {
        matches!(self, Change::Delete { .. })
    }

    /// A delete of whatever its node will find.
    pub fn is_blind_delete(&self) -> bool {
        matches!(self, Change::Delete { context: None })
    }
}

impl Write {
    pub fn acknowledgement(&self) -> Option<&Acknowledgement> {
        match &self.outcome {
            WriteOutcome::Acknowledged(acknowledgement) => Some(acknowledgement),
            WriteOutcome::Unknown | WriteOutcome::Failed => None,
        }
    }

    pub fn is_acknowledged(&self) -> bool {
        self.acknowledgement().is_some()
    }

    pub fn is_failed(&self) -> bool {
        matches!(self.outcome, WriteOutcome::Failed)
    }
}

impl fmt::Display for OperationNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// Small numbers as they are, hashes in hexadecimal.
impl fmt::Display for ValueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match u32::try_from(self.0) {
            Ok(small) => write!(f, "v{small}"),
            Err(_) => write!(f, "v{:016x}", self.0),
        }
    }
}
