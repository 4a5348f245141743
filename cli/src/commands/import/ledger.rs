//! What has come of the records so far.

use std::collections::{BTreeMap, BTreeSet};

use crate::report::import::RecordFailure;

/// More failed records than this end an import: something is wrong with all of them. No more are kept or listed.
pub const MOST_FAILED: usize = 1000;

/// The records numbered up to `done` are settled. Those that failed are kept, for the report, and to be tried again if that
/// may help.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    pub done: u64,
    pub failures: BTreeMap<u64, RecordFailure>,
    /// Settled behind a gap: bounded by what is under way.
    ahead: BTreeSet<u64>,
}

impl Ledger {
    pub fn new(done: u64, failures: impl IntoIterator<Item = RecordFailure>) -> Ledger {
        let failures = failures.into_iter().map(|failure| (failure.record, failure)).collect();
        Ledger { done, failures, ahead: BTreeSet::new() }
    }

    /// Goes back to where all is settled for good. What replaces values has to keep to the order of the file: a record that
    /// is tried again by itself would put an older value in the place of a newer one of the same key.
    pub fn rewind(&mut self) {
        let first_again = self.failures.values().filter(|failure| failure.again).map(|failure| failure.record).min();
        if let Some(first) = first_again.filter(|first| *first <= self.done) {
            self.done = first - 1;
            self.failures.split_off(&first);
        }
    }

    /// Whether a record is still to be worked on.
    pub fn wants(&self, number: u64) -> bool {
        number > self.done || self.failures.get(&number).is_some_and(|failure| failure.again)
    }

    /// How many are settled for good, and well.
    pub fn well(&self) -> u64 {
        self.done.saturating_sub(self.failures.range(..=self.done).count() as u64)
    }

    pub fn settle(&mut self, number: u64, failure: Option<RecordFailure>) {
        match failure {
            Some(failure) => drop(self.failures.insert(number, failure)),
            None => drop(self.failures.remove(&number)),
        }
        if number > self.done {
            self.ahead.insert(number);
        }
        while self.ahead.remove(&(self.done + 1)) {
            self.done += 1;
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::report::import::Problem;

    pub fn failure(record: u64, again: bool) -> RecordFailure {
        let message = "too long".to_owned();
        RecordFailure { record, line: record, key: None, kind: Problem::Malformed, message, again }
    }

    #[test]
    fn the_mark_moves_over_settled_records_only() {
        let mut ledger = Ledger::default();
        ledger.settle(2, None);
        ledger.settle(3, Some(failure(3, true)));
        assert_eq!(ledger.done, 0);
        ledger.settle(1, None);
        assert_eq!((ledger.done, ledger.well()), (3, 2));
        assert!(ledger.wants(3) && ledger.wants(4) && !ledger.wants(2));
    }

    #[test]
    fn what_replaces_goes_back_to_its_first_gap() {
        let mut ledger = Ledger::new(9, [failure(2, false), failure(5, true), failure(7, false)]);
        ledger.rewind();
        assert_eq!(ledger, Ledger::new(4, [failure(2, false)]));
        let settled = Ledger::new(9, [failure(2, false)]);
        let mut again = settled.clone();
        again.rewind();
        assert_eq!(again, settled);
    }

    #[test]
    fn a_failure_is_tried_again_only_if_that_may_help_and_forgotten_once_it_did() {
        let mut ledger = Ledger::new(2, [failure(1, false), failure(2, true)]);
        assert!(!ledger.wants(1) && ledger.wants(2));
        assert_eq!(ledger.well(), 0);
        ledger.settle(2, None);
        assert_eq!(ledger, Ledger::new(2, [failure(1, false)]));
    }
}
