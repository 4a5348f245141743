//! The assertions, each a walk over one key's history.

mod backwards;
mod converged;
mod deletes;
mod lost;
mod moments;
mod shown;
mod stale;
mod superseded;
mod winners;

use starling_core::object::SiblingMode;

use crate::ancestry::Ancestry;
use crate::end::FinalState;
use crate::history::{History, InvalidHistory};
use crate::index::Index;
use crate::report::Report;
use crate::verdict::Verdict;

/// Whether there is a final state to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Known,
    Unknown,
}

impl History {
    /// Judges what was recorded. Without a final state, only what reads showed is judged.
    ///
    /// # Errors
    /// [`InvalidHistory`] if it cannot have been recorded rightly: then nothing is said about the database.
    pub fn check(&self, end: Option<&FinalState>) -> Result<Verdict, InvalidHistory> {
        let unknown = FinalState::default();
        let ending = if end.is_some() { Ending::Known } else { Ending::Unknown };
        let end = end.unwrap_or(&unknown);
        if ending == Ending::Known {
            end.check_complete(self)?;
        }
        let mut report = Report::new(self);
        for (key, entries) in self.keys() {
            let index = Index::new(key, entries, |value| self.expiry(value), end)?;
            backwards::check(&index, self.forgets_deletes(), &mut report);
            check_key(&index, self.mode(key.bucket()), ending, &mut report);
        }
        for key in end.replicas.keys().filter(|key| !self.holds(key)) {
            let index = Index::new(key, &[], |_| None, end)?;
            check_key(&index, self.mode(key.bucket()), ending, &mut report);
        }
        if ending == Ending::Known {
            converged::check_hints(self, end, &mut report);
        }
        Ok(report.into_verdict())
    }
}

fn check_key(index: &Index<'_>, mode: SiblingMode, ending: Ending, report: &mut Report<'_>) {
    let agreed = converged::check(index, report);
    shown::check(index, report);
    match mode {
        SiblingMode::LastWriteWins => winners::check(index, ending, report),
        SiblingMode::Keep => {
            let mut ancestry = Ancestry::default();
            let beside = superseded::check_shown_together(index, &mut ancestry, report);
            deletes::check_reads(index, report);
            stale::check(index, &mut ancestry, report);
            if agreed {
                superseded::check_end(index, &beside, report);
            }
            if ending == Ending::Known {
                lost::check(index, report);
            }
        }
    }
}
