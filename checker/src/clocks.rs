//! Clocks in little room: histories are numbered once, for the whole of what is checked.

use std::collections::BTreeMap;
use std::fmt;

use starling_core::clock::{Clock, History};

/// A clock as counters of numbered histories, ascending.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct SmallClock(Box<[(u32, u64)]>);

#[derive(Debug, Default)]
pub(crate) struct Histories {
    numbers: BTreeMap<History, u32>,
}

impl Histories {
    pub fn shrink(&mut self, clock: &Clock) -> SmallClock {
        let mut counters: Vec<_> = clock.entries().map(|(history, counter)| (self.number(history), counter)).collect();
        counters.sort_unstable();
        SmallClock(counters.into())
    }

    /// As a reader's clocks are told; a history that no reader has seen goes by its birth.
    pub fn tell(&self, clock: &Clock) -> String {
        let told = |(history, counter): (&History, u64)| match self.numbers.get(history) {
            Some(number) => (*number, format!("h{number}:{counter}")),
            None => (u32::MAX, format!("h{}:{counter}", history.birth)),
        };
        let mut told: Vec<(u32, String)> = clock.entries().map(told).collect();
        told.sort();
        let words: Vec<String> = told.into_iter().map(|(_, word)| word).collect();
        if words.is_empty() { "-".to_owned() } else { words.join(" ") }
    }

    fn number(&mut self, history: &History) -> u32 {
        // Four billion histories would need a terabyte to be recorded.
        let next = u32::try_from(self.numbers.len()).expect("there is no room for so many histories");
        *self.numbers.entry(*history).or_insert(next)
    }
}

impl SmallClock {
    pub fn entries(&self) -> impl Iterator<Item = (u32, u64)> {
        self.0.iter().copied()
    }

    /// The highest counter known of a history, 0 if none is.
    pub fn counter(&self, history: u32) -> u64 {
        self.0.binary_search_by_key(&history, |(known, _)| *known).map_or(0, |at| self.0[at].1)
    }
}

/// `h0:3 h1:1`, a history a word; `-` for the empty clock. Identifiers of 33 digits would hide what differs.
impl fmt::Display for SmallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("-");
        }
        for (index, (history, counter)) in self.entries().enumerate() {
            let separator = if index == 0 { "" } else { " " };
            write!(f, "{separator}h{history}:{counter}")?;
        }
        Ok(())
    }
}
