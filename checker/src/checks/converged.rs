//! Replicas agree in the end, and nobody has hints or copies left that are not theirs.

use std::collections::BTreeSet;

use starling_core::clock::Clock;

use crate::assertion::Assertion::{HintsLeft, ReplicasDiffer};
use crate::end::{FinalState, OwnCopy, Replica};
use crate::history::History;
use crate::index::Index;
use crate::operation::ValueId;
use crate::report::Report;

/// Whether the replicas agree.
pub fn check(index: &Index<'_>, report: &mut Report<'_>) -> bool {
    let expected: Vec<&Replica> = index.replicas.iter().filter(|replica| !index.end.is_away(replica.node)).collect();
    if expected.is_empty() {
        return true;
    }
    report.tested(ReplicasDiffer, 1);
    let (primaries, others): (Vec<&Replica>, Vec<&Replica>) =
        expected.into_iter().partition(|replica| replica.is_primary);
    let agreed = primaries.windows(2).all(|pair| content(pair[0]) == content(pair[1]));
    if !agreed {
        report.violated(index, ReplicasDiffer, &[], || "its primaries do not hold the same".to_owned());
    } else if others.iter().any(|other| other.holds.is_some()) {
        report.violated(index, ReplicasDiffer, &[], || "a node that is no primary of it still holds a copy".to_owned());
    }
    agreed
}

pub fn check_hints(history: &History, end: &FinalState, report: &mut Report<'_>) {
    // Once for those that nobody holds.
    report.tested(HintsLeft, 1);
    for hints in &end.hints {
        report.tested(HintsLeft, 1);
        if hints.count == 0 {
            continue;
        }
        if end.is_away(hints.holder) || end.is_away(hints.target) {
            report.excused(HintsLeft);
            continue;
        }
        let (holder, target) = (history.node(hints.holder), history.node(hints.target));
        report.violated_by_no_key(HintsLeft, || format!("{holder} still holds {} hints for {target}", hints.count));
    }
}

fn content(replica: &Replica) -> Option<(&Clock, BTreeSet<ValueId>)> {
    let of_copy = |copy: &'_ OwnCopy| copy.values.iter().copied().collect();
    replica.holds.as_ref().map(|copy| (&copy.clock, of_copy(copy)))
}
