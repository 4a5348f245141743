//! The own mark: what a replica remembers of its own coordinating of one key (R2, R3).
//!
//! A dot must never be minted twice. The object alone cannot prevent that: a fallback coordinates a write, hands its copy
//! off, drops it, and coordinates again from nothing; its first dot lives on elsewhere. So the replica keeps, beside the
//! object and only as long as it, the birth and the last counter it minted. Without a mark it draws a new birth. A mark
//! is local: it is never sent, and never learnt from a merge, which could bring back counters of a copy that was dropped.

use serde::{Deserialize, Serialize};

use crate::clock::{Clock, Dot, History};
use crate::fault::{self, Fault};
use crate::ids::{Birth, DirectoryId};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnMark {
    pub birth: Birth,
    /// The last counter minted.
    pub counter: u64,
    /// The run (its counter) in which that was.
    pub run: u64,
}

/// Which marks a writer may continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrustedMarks {
    /// Only those of the present run: an earlier run may have ended with unsynced dots in peers' hands, or this
    /// directory may be an old copy.
    OfThisRun,
    /// Those of this run and every one after it too: all of them ended cleanly, and a majority of peers has recorded the
    /// present run and knows no later one.
    Since(u64),
}

/// A counter above the own mark of the same birth was seen: somebody else minted under this directory's name, so it must
/// be a copy. It may not serve any longer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("directory {directory} minted {minted} dots of birth {birth} and has met dot {seen}: it is a copy of another")]
pub struct DirectoryCopied {
    pub directory: DirectoryId,
    pub birth: Birth,
    pub minted: u64,
    pub seen: u64,
}

/// Mints dots for one directory during one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Minter {
    pub directory: DirectoryId,
    pub run: u64,
    pub trusted: TrustedMarks,
}

impl Minter {
    /// The next dot after `mark`, and the mark to store with it. `fresh` is a newly drawn random birth.
    pub fn mint(&self, mark: Option<OwnMark>, fresh: Birth) -> (Dot, OwnMark) {
        let fresh = if mark.is_none() && fault::is_on(Fault::NoOwnMark) { Birth(0) } else { fresh };
        let next = match mark.filter(|mark| self.may_continue(mark)) {
            Some(mark) => OwnMark { birth: mark.birth, counter: mark.counter + 1, run: self.run },
            None => OwnMark { birth: fresh, counter: 1, run: self.run },
        };
        let history = History { directory: self.directory, birth: next.birth };
        (Dot { history, counter: next.counter }, next)
    }

    /// # Errors
    /// [`DirectoryCopied`] if `seen` counts further than this directory did.
    pub fn check(&self, mark: Option<&OwnMark>, seen: &Clock) -> Result<(), DirectoryCopied> {
        let Some(mark) = mark else { return Ok(()) };
        let seen = seen.counter(&History { directory: self.directory, birth: mark.birth });
        if seen <= mark.counter {
            return Ok(());
        }
        Err(DirectoryCopied { directory: self.directory, birth: mark.birth, minted: mark.counter, seen })
    }

    fn may_continue(&self, mark: &OwnMark) -> bool {
        if fault::is_on(Fault::TrustMarksAfterCrash) {
            return true;
        }
        match self.trusted {
            TrustedMarks::OfThisRun => mark.run == self.run,
            TrustedMarks::Since(run) => mark.run >= run,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minter(run: u64, trusted: TrustedMarks) -> Minter {
        Minter { directory: DirectoryId(1), run, trusted }
    }

    #[test]
    fn counters_continue_within_a_run_and_start_anew_after_a_doubtful_one() {
        let (first, mark) = minter(1, TrustedMarks::OfThisRun).mint(None, Birth(10));
        let (second, mark) = minter(1, TrustedMarks::OfThisRun).mint(Some(mark), Birth(11));
        assert_eq!((first.counter, second.counter), (1, 2));
        assert_eq!(second.history.birth, Birth(10));

        let (after_crash, _) = minter(2, TrustedMarks::OfThisRun).mint(Some(mark), Birth(12));
        assert_eq!((after_crash.history.birth, after_crash.counter), (Birth(12), 1));
        let (after_clean_stop, mark) = minter(2, TrustedMarks::Since(1)).mint(Some(mark), Birth(13));
        assert_eq!((after_clean_stop.history.birth, after_clean_stop.counter), (Birth(10), 3));
        assert_eq!(mark.run, 2);
    }

    #[test]
    fn a_counter_above_the_own_mark_betrays_a_copied_directory() {
        let minter = minter(1, TrustedMarks::OfThisRun);
        let (dot, mark) = minter.mint(None, Birth(10));
        let mut seen = Clock::default();
        seen.advance(dot.history, 1);
        assert!(minter.check(Some(&mark), &seen).is_ok());
        seen.advance(dot.history, 2);
        assert!(minter.check(Some(&mark), &seen).is_err());
        assert!(minter.check(None, &seen).is_ok(), "without a mark nothing can be said");
    }
}
