//! Clocks in little room: histories are numbered once, for the whole of what is checked.

use std::collections::BTreeMap;
use std::fmt;

use starling_core::clock::{Clock, History};
use starling_core::ids::DirectoryId;

/// A clock as counters of numbered histories, ascending.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct SmallClock(Box<[(u32, u64)]>);

#[derive(Debug, Default)]
pub(crate) struct Histories {
    numbers: BTreeMap<History, u32>,
    directories: BTreeMap<DirectoryId, String>,
    /// By number.
    names: Vec<String>,
}

impl Histories {
    pub fn name_directory(&mut self, directory: DirectoryId, name: String) {
        self.directories.insert(directory, name);
    }

    pub fn shrink(&mut self, clock: &Clock) -> SmallClock {
        let mut counters: Vec<_> = clock.entries().map(|(history, counter)| (self.number(history), counter)).collect();
        counters.sort_unstable();
        SmallClock(counters.into())
    }

    /// As a reader's clocks are told; a history that no reader has seen goes by its birth.
    pub fn tell(&self, clock: &Clock) -> String {
        let told = |(history, counter): (&History, u64)| match self.numbers.get(history) {
            Some(number) => (*number, format!("{}:{counter}", self.name(*number))),
            None => (u32::MAX, format!("{}:{counter}", self.named(history, &history.birth))),
        };
        let mut told: Vec<(u32, String)> = clock.entries().map(told).collect();
        told.sort();
        words(told.into_iter().map(|(_, word)| word))
    }

    pub fn tell_small(&self, clock: &SmallClock) -> String {
        words(clock.entries().map(|(history, counter)| format!("{}:{counter}", self.name(history))))
    }

    fn name(&self, number: u32) -> &str {
        &self.names[number as usize]
    }

    /// By its directory, if that has a name, and as much of its birth as tells the few births of a key apart. Identifiers
    /// of 33 digits would hide what differs.
    fn named(&self, history: &History, otherwise: &dyn fmt::Display) -> String {
        match self.directories.get(&history.directory) {
            Some(directory) => format!("{directory}/{:04x}", history.birth.0 >> 48),
            None => format!("h{otherwise}"),
        }
    }

    fn number(&mut self, history: &History) -> u32 {
        // Four billion histories would need a terabyte to be recorded.
        let next = u32::try_from(self.numbers.len()).expect("there is no room for so many histories");
        let number = *self.numbers.entry(*history).or_insert(next);
        if number == next {
            self.names.push(self.named(history, &number));
        }
        number
    }
}

/// A history a word; `-` for the empty clock.
fn words(words: impl Iterator<Item = String>) -> String {
    let words: Vec<String> = words.collect();
    if words.is_empty() { "-".to_owned() } else { words.join(" ") }
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
