//! What a run came to, counted; and which exit code says so.

use std::process::ExitCode;

use crate::commands::import::lane::{Outcome, may_pass};
use crate::failure::{FAILED, Failure, Kind, UNDECIDED};
use crate::report::import::Problem;

/// Of this run alone.
#[derive(Debug, Default)]
pub struct Tally {
    pub records: u64,
    pub stored: u64,
    pub bytes: u64,
    pub with_siblings: u64,
    pub repeated: u64,
    pub unchanged: u64,
    pub matching: u64,
    pub different: u64,
    pub missing: u64,
    pub failed: u64,
    /// Records that no attempt succeeded with, since the last that the cluster had an answer for.
    pub unanswered: u64,
    /// Of the first record that was neither done nor left undone for certain.
    undecided: Option<Kind>,
}

impl Tally {
    pub fn add(&mut self, outcome: &Outcome) {
        self.records += 1;
        match outcome {
            Outcome::Failed(failure, _) if failure.kind == Problem::Malformed => {}
            Outcome::Failed(_, Some(cause)) if may_pass(cause.kind) => self.unanswered += 1,
            _ => self.unanswered = 0,
        }
        match outcome {
            Outcome::Stored { bytes, siblings } => {
                self.stored += 1;
                self.bytes += bytes;
                self.with_siblings += u64::from(*siblings > 1);
            }
            Outcome::Repeated => self.repeated += 1,
            Outcome::Unchanged => self.unchanged += 1,
            Outcome::Matching => self.matching += 1,
            Outcome::Failed(failure, _) => self.add_problem(failure.kind),
        }
    }

    fn add_problem(&mut self, problem: Problem) {
        match problem {
            Problem::Different => self.different += 1,
            Problem::Missing => self.missing += 1,
            Problem::Malformed => self.failed += 1,
            Problem::Request(kind) => {
                self.failed += 1;
                self.undecided = self.undecided.or((kind.code() == UNDECIDED).then_some(kind));
            }
        }
    }

    /// How a run ends that was cut short by `halted`, or that left so many records `failed`, those of earlier runs included.
    /// Code 5 says that nothing was done: it is only for a run that stored nothing, and may have stored nothing.
    pub fn verdict(&self, halted: Option<Failure>, complete: bool, failed: u64) -> Result<ExitCode, Failure> {
        let accomplished = self.stored + self.repeated + self.unchanged > 0;
        match (halted, self.undecided) {
            (Some(failure), Some(kind)) => Err(Failure { kind, ..failure }),
            (Some(failure), None) if failure.kind == Kind::Unreachable && accomplished => {
                Err(Failure { kind: Kind::Failed, ..failure })
            }
            (Some(failure), None) => Err(failure),
            (None, _) if self.different + self.missing > 0 => Ok(FAILED.into()),
            (None, Some(_)) => Ok(UNDECIDED.into()),
            (None, None) if complete && failed == 0 => Ok(ExitCode::SUCCESS),
            (None, None) => Ok(FAILED.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::import::ledger::tests::failure;
    use crate::report::import::RecordFailure;

    fn tally(outcomes: &[Outcome]) -> Tally {
        let mut tally = Tally::default();
        outcomes.iter().for_each(|outcome| tally.add(outcome));
        tally
    }

    fn failed(kind: Problem) -> Outcome {
        Outcome::Failed(RecordFailure { kind, ..failure(1, true) }, None)
    }

    /// The exit code's number, by way of what a process would print of it.
    fn code(verdict: Result<ExitCode, Failure>) -> String {
        format!("{:?}", verdict.unwrap_or_else(|failure| failure.exit()))
    }

    fn expected(code: u8) -> String {
        format!("{:?}", ExitCode::from(code))
    }

    fn unreachable() -> Option<Failure> {
        Some(Failure::new(Kind::Unreachable, "nobody is there"))
    }

    const STORED: Outcome = Outcome::Stored { bytes: 3, siblings: 2 };
    const UNKNOWN: Problem = Problem::Request(Kind::OutcomeUnknown);

    #[test]
    fn unreachable_means_that_nothing_at_all_was_stored() {
        let end = |outcomes: &[Outcome]| code(tally(outcomes).verdict(unreachable(), false, 1));
        assert_eq!(end(&[failed(Problem::Request(Kind::Unreachable))]), expected(5));
        assert_eq!(end(&[STORED]), expected(1));
        assert_eq!(end(&[Outcome::Repeated]), expected(1));
        assert_eq!(end(&[failed(UNKNOWN)]), expected(4), "it may have been stored");
        assert_eq!(end(&[STORED, failed(UNKNOWN)]), expected(4));
    }

    #[test]
    fn a_run_succeeds_only_if_no_record_of_any_run_failed() {
        let end = |outcomes: &[Outcome], complete, failed| code(tally(outcomes).verdict(None, complete, failed));
        assert_eq!(end(&[STORED, Outcome::Unchanged], true, 0), expected(0));
        assert_eq!(end(&[STORED], true, 1), expected(1), "an earlier run's record is malformed");
        assert_eq!(end(&[STORED], false, 0), expected(1));
        assert_eq!(end(&[STORED, failed(UNKNOWN)], true, 1), expected(4));
    }

    #[test]
    fn a_verification_fails_if_anything_differs() {
        let end = |outcomes: &[Outcome]| code(tally(outcomes).verdict(None, true, 0));
        assert_eq!(end(&[Outcome::Matching]), expected(0));
        assert_eq!(end(&[Outcome::Matching, failed(Problem::Different)]), expected(1));
        assert_eq!(end(&[failed(Problem::Missing), failed(UNKNOWN)]), expected(1));
    }

    #[test]
    fn any_answer_ends_a_row_of_unanswered_records_and_a_malformed_one_does_not() {
        let request = |kind| {
            let listed = RecordFailure { kind: Problem::Request(kind), ..failure(1, true) };
            Outcome::Failed(listed, Some(Failure::new(kind, "no")))
        };
        let unanswered = || request(Kind::QuorumNotMet);
        assert_eq!(tally(&[STORED, unanswered(), failed(Problem::Malformed), unanswered()]).unanswered, 2);
        assert_eq!(tally(&[unanswered(), STORED]).unanswered, 0);
        assert_eq!(tally(&[unanswered(), request(Kind::Refused)]).unanswered, 0);
    }

    #[test]
    fn each_record_is_counted_once() {
        let tally = tally(&[STORED, Outcome::Matching, failed(Problem::Missing), failed(Problem::Malformed)]);
        assert_eq!((tally.records, tally.stored, tally.bytes, tally.with_siblings), (4, 1, 3, 1));
        assert_eq!((tally.matching, tally.missing, tally.failed), (1, 1, 1));
    }
}
