//! What is said in the end, and on what grounds.

use std::fmt;

use starling_core::name::ObjectKey;

use crate::assertion::Assertion;
use crate::operation::OperationNumber;
use crate::timeline::Timeline;

/// Violations of one kind that are kept with their timelines. The others are counted.
pub const MAX_KEPT_OF_A_KIND: usize = 5;

/// What was in the history, so that a pass which had nothing to look at is seen as such.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub operations: u64,
    pub keys: u64,
    /// Reads that were answered.
    pub reads: u64,
    pub failed_reads: u64,
    pub acknowledged: u64,
    pub unknown: u64,
    pub failed: u64,
}

/// How often one assertion was put to the test, and how often it did not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tested {
    pub assertion: Assertion,
    pub times: u64,
    pub violated: u64,
    /// Cases that would be violations, were it not for lost disks or late tries.
    pub excused: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub counts: Counts,
    /// One of each assertion.
    pub tested: Vec<Tested>,
    /// The first of each kind.
    pub violations: Vec<Violation>,
}

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub assertion: Assertion,
    /// None of what concerns no single key.
    pub key: Option<ObjectKey>,
    /// What happened, in one sentence.
    pub what: String,
    pub culprits: Vec<OperationNumber>,
    pub timeline: Timeline,
}

impl Verdict {
    pub fn passed(&self) -> bool {
        self.tested.iter().all(|tested| tested.violated == 0)
    }

    pub fn of(&self, assertion: Assertion) -> Tested {
        let none = Tested { assertion, times: 0, violated: 0, excused: 0 };
        self.tested.iter().find(|tested| tested.assertion == assertion).copied().unwrap_or(none)
    }

    fn violated(&self) -> u64 {
        self.tested.iter().map(|tested| tested.violated).sum()
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { operations, keys, reads, failed_reads, acknowledged, unknown, failed } = self;
        let plural = |count: u64| if count == 1 { "" } else { "s" };
        writeln!(f, "{operations} operation{} on {keys} key{}", plural(*operations), plural(*keys))?;
        writeln!(f, "  reads   {reads} answered, {failed_reads} failed")?;
        writeln!(f, "  writes  {acknowledged} acknowledged, {unknown} unknown, {failed} failed")
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.violated() {
            0 => writeln!(f, "passed")?,
            1 => writeln!(f, "1 violation")?,
            more => writeln!(f, "{more} violations, {} of them below", self.violations.len())?,
        }
        self.counts.fmt(f)?;
        writeln!(f, "{:<24} {:>10} {:>10} {:>10}", "assertion", "tested", "violated", "excused")?;
        for Tested { assertion, times, violated, excused } in &self.tested {
            writeln!(f, "{assertion:<24} {times:>10} {violated:>10} {excused:>10}")?;
        }
        self.violations.iter().try_for_each(|violation| write!(f, "\n{violation}"))
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.assertion, self.what)?;
        writeln!(f, "  promised: {}", self.assertion.promise())?;
        if let Some(key) = &self.key {
            writeln!(f, "  key: {}/{}", key.bucket(), key.key().escape_ascii())?;
        }
        self.timeline.fmt(f)
    }
}
