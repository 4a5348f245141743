//! What each replica did for a request: for `--explain`, for error messages, and for metrics.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::NodeId;

/// As what a node was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    Primary,
    /// In place of a primary that is down, slow, or known to lack writes.
    Fallback {
        stands_in_for: NodeId,
    },
}

/// Why a replica would not do what it was asked. Nothing was done there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// Its queue is full.
    Overloaded,
    /// Its disk has reached the reserve mark.
    DiskFull,
    /// It holds as many hints as it may.
    HintsFull,
    /// It is shutting down.
    Stopping,
    /// A sync failed; it serves nothing until it is restarted (R13).
    StorageFailed,
    /// It is no member of the layout: never was, was wiped, or runs on an old copy of its directory.
    NotAMember,
    /// Its layout differs from the asker's.
    OtherLayout,
    /// The deadline had passed when it got to it.
    DeadlinePassed,
    /// The object does not fit a frame.
    TooLarge,
    /// Its clock is too far ahead of its peers' to stamp a last-write-wins write (R6), or too far from them to say when
    /// something expires.
    ClockDrift,
    /// What it holds of the key cannot be read.
    Damaged,
    /// Its directory is new, and it may lack writes that were acknowledged (R8).
    Filling,
    /// What it is sent was read before tombstones of its partition were reaped, and could bring back what was deleted (R11).
    Reaped,
    /// It has agreed that what has expired of the key may go, holds nothing of it, and takes only what has that in its clock
    /// until it is decided (R12).
    BeingReaped,
}

impl Refusal {
    /// Whether it is about the one object: others may be taken all the same.
    pub fn concerns_the_object(self) -> bool {
        match self {
            Refusal::TooLarge | Refusal::Damaged | Refusal::BeingReaped => true,
            Refusal::Overloaded
            | Refusal::DiskFull
            | Refusal::HintsFull
            | Refusal::Stopping
            | Refusal::StorageFailed
            | Refusal::NotAMember
            | Refusal::OtherLayout
            | Refusal::DeadlinePassed
            | Refusal::ClockDrift
            | Refusal::Filling
            | Refusal::Reaped => false,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::Overloaded => "is overloaded",
            Refusal::DiskFull => "has its disk full up to the reserve",
            Refusal::HintsFull => "holds as many hints as it may",
            Refusal::Stopping => "is shutting down",
            Refusal::StorageFailed => "has stopped after a failed sync",
            Refusal::NotAMember => "is not a member of the layout",
            Refusal::OtherLayout => "has another layout",
            Refusal::DeadlinePassed => "got to it only after the deadline",
            Refusal::TooLarge => "cannot send or take an object this large",
            Refusal::ClockDrift => "has a clock too far from its peers'",
            Refusal::Damaged => "cannot read what it holds of the key",
            Refusal::Filling => "is filling up again",
            Refusal::Reaped => "has reaped tombstones meanwhile",
            Refusal::BeingReaped => "has agreed that the key, which has expired, may be forgotten",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failure {
    /// The request was never sent.
    Unreachable,
    /// No answer in time: it may or may not have been done.
    NoAnswer,
    /// The connection broke: it may or may not have been done.
    Disconnected,
    Refused(Refusal),
    /// Its sync failed (R13): it may or may not survive there.
    SyncFailed,
}

impl Failure {
    /// Whether nothing can have been done there.
    pub fn is_definite(self) -> bool {
        match self {
            Failure::Unreachable | Failure::Refused(_) => true,
            Failure::NoAnswer | Failure::Disconnected | Failure::SyncFailed => false,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Unreachable => f.write_str("could not be reached"),
            Failure::NoAnswer => f.write_str("did not answer"),
            Failure::Disconnected => f.write_str("lost its connection"),
            Failure::Refused(refusal) => refusal.fmt(f),
            Failure::SyncFailed => f.write_str("could not make it durable"),
        }
    }
}

/// How asking a replica ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    Pending,
    /// The write is durable there.
    Stored,
    /// It holds the key, with this many live siblings; with none if it holds only that it was deleted.
    Found {
        siblings: usize,
    },
    /// It holds nothing of the key.
    NotFound,
    Failed(Failure),
}

/// Whether a replica that was behind was brought up to date by this read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Repair {
    NotNeeded,
    Sent,
    Done,
    Failed(Failure),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaReport {
    pub node: NodeId,
    pub role: Role,
    /// Asked because another was slow, not because it had failed.
    pub hedge: bool,
    pub outcome: Outcome,
    /// From asking to the outcome; to the end of the report if it is still pending.
    pub took: Duration,
    pub repair: Repair,
}
