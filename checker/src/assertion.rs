//! What is asserted, in words for whoever reads a verdict.

use std::fmt;

/// A promise that a history can break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Assertion {
    AcknowledgedWriteLost,
    FailedWriteVisible,
    ReplicasDiffer,
    HintsLeft,
    NotSuperseded,
    Resurrected,
    ValueNobodyWrote,
    StaleRead,
    ContextWentBackwards,
    DeleteUndone,
    SeveralWinners,
    ShownTwice,
    ExpiredShown,
}

impl Assertion {
    pub const ALL: [Assertion; 13] = [
        Assertion::AcknowledgedWriteLost,
        Assertion::FailedWriteVisible,
        Assertion::ReplicasDiffer,
        Assertion::HintsLeft,
        Assertion::NotSuperseded,
        Assertion::Resurrected,
        Assertion::ValueNobodyWrote,
        Assertion::StaleRead,
        Assertion::ContextWentBackwards,
        Assertion::DeleteUndone,
        Assertion::SeveralWinners,
        Assertion::ShownTwice,
        Assertion::ExpiredShown,
    ];

    /// What would be true of a database that keeps its promises.
    pub fn promise(self) -> &'static str {
        match self {
            Assertion::AcknowledgedWriteLost => {
                "an acknowledged write is there in the end, or a later write that had it in its context"
            }
            Assertion::FailedWriteVisible => "a write of which the answer said that nothing was done is never seen",
            Assertion::ReplicasDiffer => "in the end every primary holds the same, and nobody else holds anything",
            Assertion::HintsLeft => "in the end no hints are left",
            Assertion::NotSuperseded => "a write is never seen beside one that had it in its context",
            Assertion::Resurrected => "what an acknowledged write had in its context is gone in the end",
            Assertion::ValueNobodyWrote => "every value that is read was written to this key before",
            Assertion::StaleRead => {
                "a strict read shows every strictly acknowledged write before it, or what replaced it"
            }
            Assertion::ContextWentBackwards => "a strict read has seen all that a strict quorum held before it",
            Assertion::DeleteUndone => "what an acknowledged delete had in its context stays deleted",
            Assertion::SeveralWinners => "a key of a last-write-wins bucket has one value",
            Assertion::ShownTwice => "a write is shown once, however often it was carried out",
            Assertion::ExpiredShown => "a value that has expired by everybody's clock is not seen",
        }
    }
}

/// `acknowledged write lost`
impl fmt::Display for Assertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Assertion::AcknowledgedWriteLost => "acknowledged write lost",
            Assertion::FailedWriteVisible => "failed write visible",
            Assertion::ReplicasDiffer => "replicas differ",
            Assertion::HintsLeft => "hints left",
            Assertion::NotSuperseded => "not superseded",
            Assertion::Resurrected => "resurrected",
            Assertion::ValueNobodyWrote => "value nobody wrote",
            Assertion::StaleRead => "stale read",
            Assertion::ContextWentBackwards => "context went backwards",
            Assertion::DeleteUndone => "delete undone",
            Assertion::SeveralWinners => "several winners",
            Assertion::ShownTwice => "shown twice",
            Assertion::ExpiredShown => "expired shown",
        })
    }
}
