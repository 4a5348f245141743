//! The simulation on trial: is every build that is broken on purpose found out?

use std::collections::BTreeMap;

use starling_core::fault::Fault;

use crate::arguments::{Single, Trial};
use crate::campaign::{jobs, run_seeds};

/// Those that the models of the machines find which would make the mistake, and why runs are not searched for them.
const FOUND_BY_MODELS: [(Fault, &str); 5] = [
    (Fault::ForgetfulAcceptor, "too rare for runs"),
    (Fault::PullTooEarly, "too rare for runs"),
    (Fault::ForgetBindingAnswer, "too rare for runs"),
    (Fault::ExpireByOneClock, "too rare for runs"),
    (Fault::MergeWithoutValues, "too rare for runs"),
];

/// True if every fault is found.
///
/// # Errors
/// If runs cannot be started.
pub fn run(arguments: &Trial) -> anyhow::Result<bool> {
    println!("| fault | what is done wrong | seeds | each | found by |\n| --- | --- | --- | --- | --- |");
    let mut all = true;
    let wanted = |fault: &Fault| arguments.fault.map_or(!is_left_to_models(*fault), |only| only == *fault);
    for fault in Fault::ALL.into_iter().filter(wanted) {
        let mut searches = Vec::new();
        let mut by: BTreeMap<String, usize> = BTreeMap::new();
        for search in 0..arguments.searches {
            // Far from each other, and from the seeds of a campaign.
            let begins = arguments.begin.iter().find(|(of, _)| *of == fault).map_or(arguments.first, |(_, seed)| *seed);
            let first = begins + search * 100_000;
            let (needed, caught_by) = search_from(first, arguments, fault)?;
            searches.push(needed);
            caught_by.into_iter().for_each(|name| *by.entry(name).or_default() += 1);
        }
        all &= searches.iter().all(Option::is_some);
        println!("{}", Row { fault, searches, by });
    }
    if arguments.fault.is_none() {
        for (fault, why) in FOUND_BY_MODELS {
            let mistake = fault.mistake();
            println!("| {fault} | {mistake} | – | – | `core/tests/deliberate_faults.rs`: {why} |");
        }
    }
    Ok(all)
}

fn is_left_to_models(fault: Fault) -> bool {
    FOUND_BY_MODELS.iter().any(|(left, _)| *left == fault)
}

/// How many seeds it takes, counted from the first, and what finds it.
fn search_from(first: u64, arguments: &Trial, fault: Fault) -> anyhow::Result<(Option<u64>, Vec<String>)> {
    let seeds: Vec<u64> = (first..first + arguments.seeds).collect();
    let done = run_seeds(&seeds, Some(fault), jobs(arguments.jobs), true, |_| Ok(()))?;
    let found = done.into_iter().filter(|summary| !summary.passed).min_by_key(|summary| summary.seed);
    let Some(found) = found else { return Ok((None, Vec::new())) };
    let (seed, caught_by) = (found.seed, found.caught_by.join(", "));
    anyhow::ensure!(!found.crashed, "seed {seed} with {fault} has crashed instead of being judged: {caught_by}");
    // What fails without the fault as well says nothing of the fault.
    let control = Single::of(seed, None).elsewhere()?;
    anyhow::ensure!(control.passed, "seed {seed} fails without {fault} as well: {}", control.caught_by.join(", "));
    Ok((Some(seed - first + 1), found.caught_by))
}

struct Row {
    fault: Fault,
    searches: Vec<Option<u64>>,
    by: BTreeMap<String, usize>,
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut sorted = self.searches.clone();
        // What was not found took longest.
        sorted.sort_by_key(|needed| needed.unwrap_or(u64::MAX));
        let text = |needed: &Option<u64>| needed.map_or("-".to_owned(), |needed| needed.to_string());
        let each: Vec<String> = self.searches.iter().map(text).collect();
        let by: Vec<&str> = self.by.keys().map(String::as_str).collect();
        let median = sorted.get(sorted.len() / 2).map(text).unwrap_or_default();
        let (fault, mistake) = (self.fault, self.fault.mistake());
        write!(f, "| {fault} | {mistake} | {median} | {} | {} |", each.join(", "), by.join(", "))
    }
}
