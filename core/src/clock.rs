//! Histories, dots and clocks: the version vector half of dotted version vectors.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{Birth, DirectoryId};

/// One uninterrupted series of writes that one directory coordinated for one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct History {
    pub directory: DirectoryId,
    pub birth: Birth,
}

/// One write: the `counter`-th of its history, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dot {
    pub history: History,
    pub counter: u64,
}

impl fmt::Display for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.history.directory, self.history.birth, self.counter)
    }
}

/// A set of dots without gaps: all dots of a history up to a counter.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<History, u64>")]
pub struct Clock(BTreeMap<History, u64>);

/// A clock that has a history of which it has no dot: equal sets of dots would not be equal clocks.
#[derive(Debug, thiserror::Error)]
#[error("a clock has an entry without a dot")]
pub struct InvalidClock;

impl TryFrom<BTreeMap<History, u64>> for Clock {
    type Error = InvalidClock;

    fn try_from(counters: BTreeMap<History, u64>) -> Result<Self, InvalidClock> {
        if counters.values().all(|counter| *counter > 0) { Ok(Clock(counters)) } else { Err(InvalidClock) }
    }
}

impl Clock {
    /// The highest counter known of a history, 0 if none is.
    pub fn counter(&self, history: &History) -> u64 {
        self.0.get(history).copied().unwrap_or(0)
    }

    pub fn covers(&self, dot: &Dot) -> bool {
        self.counter(&dot.history) >= dot.counter
    }

    /// Whether every dot of `other` is in this clock too.
    pub fn covers_all(&self, other: &Clock) -> bool {
        other.0.iter().all(|(history, counter)| self.counter(history) >= *counter)
    }

    /// Takes in all dots of `other`.
    pub fn merge(&mut self, other: &Clock) {
        for (history, counter) in &other.0 {
            self.advance(*history, *counter);
        }
    }

    /// Takes in the history's dots up to `counter`. None are none: equal sets of dots are equal clocks.
    pub fn advance(&mut self, history: History, counter: u64) {
        if counter > self.counter(&history) {
            self.0.insert(history, counter);
        }
    }

    pub fn entries(&self) -> impl Iterator<Item = (&History, u64)> {
        self.0.iter().map(|(history, counter)| (history, *counter))
    }

    /// Number of histories: what a clock's size is made of.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(History, u64)> for Clock {
    fn from_iter<I: IntoIterator<Item = (History, u64)>>(entries: I) -> Self {
        let mut clock = Clock::default();
        for (history, counter) in entries {
            clock.advance(history, counter);
        }
        clock
    }
}

/// `a/b:3 c/d:1`, a history a word; `-` for the empty clock.
impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("-");
        }
        for (index, (history, counter)) in self.entries().enumerate() {
            let separator = if index == 0 { "" } else { " " };
            write!(f, "{separator}{}/{}:{counter}", history.directory, history.birth)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(directory: u64, birth: u64) -> History {
        History { directory: DirectoryId(directory), birth: Birth(birth) }
    }

    #[test]
    fn a_clock_covers_every_dot_up_to_its_counter() {
        let clock: Clock = [(history(1, 1), 3)].into_iter().collect();
        assert!(clock.covers(&Dot { history: history(1, 1), counter: 3 }));
        assert!(!clock.covers(&Dot { history: history(1, 1), counter: 4 }));
        assert!(!clock.covers(&Dot { history: history(1, 2), counter: 1 }), "another birth is another history");
    }

    #[test]
    fn merged_clocks_cover_both() {
        let a: Clock = [(history(1, 1), 3), (history(2, 1), 1)].into_iter().collect();
        let b: Clock = [(history(1, 1), 2), (history(3, 1), 5)].into_iter().collect();
        let mut both = a.clone();
        both.merge(&b);
        assert!(both.covers_all(&a) && both.covers_all(&b));
        assert!(!a.covers_all(&b) && !b.covers_all(&a));
        assert_eq!(both.len(), 3);
    }
}
