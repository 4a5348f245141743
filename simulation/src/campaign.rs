//! Many seeds, each in a process of its own, as many at once as there are cores.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use starling_core::fault::Fault;

use crate::arguments::{Campaign, Single, Twice};
use crate::shrink::shrink;
use crate::summary::{Summary, Times};

/// So many seeds put everything to the test.
const MANY: usize = 200;

/// True if no seed has found anything.
///
/// # Errors
/// If runs cannot be started or the log cannot be written.
pub fn run(arguments: &Campaign) -> anyhow::Result<bool> {
    let mut log = Log::open(arguments)?;
    let known: BTreeSet<u64> = log.done.iter().map(|summary| summary.seed).collect();
    let seeds: Vec<u64> =
        (arguments.first..arguments.first + arguments.seeds).filter(|seed| !known.contains(seed)).collect();
    let began = Instant::now();
    let fresh = run_seeds(&seeds, arguments.fault, jobs(arguments.jobs), false, |summary| log.add(summary))?;
    print!("{}", Report { done: &log.done, fresh: fresh.len(), took: began.elapsed() });
    let first = log.done.iter().filter(|summary| !summary.passed).min_by_key(|summary| summary.seed);
    if let Some(first) = first {
        show_failure(first, arguments.fault)?;
        return Ok(false);
    }
    // A pass that has tested nothing is none. Fewer seeds may not meet everything.
    let is_idle = |times: &Times| times.tested == times.excused && log.done.len() >= MANY;
    let idle = tested(&log.done).into_iter().find(|(_, times)| is_idle(times));
    if let Some((what, _)) = idle {
        println!("\nnothing has put this to the test: {what}");
    }
    if let Some(fault) = arguments.fault {
        println!("\n{fault} was not found by any of these seeds");
    }
    Ok(idle.is_none())
}

/// # Errors
/// If runs cannot be started.
pub fn run_twice(arguments: &Twice) -> anyhow::Result<bool> {
    let seeds: Vec<u64> = (arguments.first..arguments.first + arguments.seeds).collect();
    let twice: Vec<u64> = seeds.iter().flat_map(|seed| [*seed, *seed]).collect();
    let done = run_seeds(&twice, None, jobs(None), false, |_| Ok(()))?;
    let mut runs: BTreeMap<u64, Vec<Summary>> = BTreeMap::new();
    for summary in done {
        runs.entry(summary.seed).or_default().push(summary);
    }
    let is_same = |twice: &[Summary]| matches!(twice, [first, second] if first == second && !first.crashed);
    let different: Vec<u64> = runs.iter().filter(|(_, twice)| !is_same(twice)).map(|(seed, _)| *seed).collect();
    match different.as_slice() {
        [] => println!("{} seeds, each run twice: the same to the last byte", seeds.len()),
        some => println!("these seeds gave different runs, or crashed: {some:?}"),
    }
    Ok(different.is_empty())
}

/// The first failing seed, made small, and how to see it.
fn show_failure(first: &Summary, fault: Option<Fault>) -> anyhow::Result<()> {
    println!("\nseed {} fails: {}", first.seed, first.caught_by.join(", "));
    println!("making it smaller …");
    let shrunk = shrink(first, &Single::of(first.seed, fault))?;
    let (clients, operations) = (shrunk.summary.clients, shrunk.summary.operations);
    let troubles: Vec<String> =
        counted(shrunk.summary.troubles.iter()).iter().map(|(name, count)| format!("{name} ({count})")).collect();
    let troubles = if troubles.is_empty() { "no troubles".to_owned() } else { troubles.join(", ") };
    println!("it still fails with {clients} clients of {operations} operations and {troubles}");
    let Single { seed, fault, reduction, .. } = &shrunk.single;
    let fault = fault.map(|fault| format!(" FAULT={fault}")).unwrap_or_default();
    let smaller = reduction.flags().join(" ");
    let key = shrunk.summary.key.as_ref().map(|key| format!(" KEY={key}")).unwrap_or_default();
    println!("see it told line by line:\n\n  make simulate SEED={seed} TRACE=1{key}{fault} SMALLER=\"{smaller}\"\n");
    Ok(())
}

/// Runs seeds until all are done, or, if so wanted, until one fails; tells each as it ends.
///
/// # Errors
/// If runs cannot be started, or `tell` fails.
pub fn run_seeds(
    seeds: &[u64],
    fault: Option<Fault>,
    jobs: usize,
    until_failure: bool,
    tell: impl FnMut(&Summary) -> anyhow::Result<()> + Send,
) -> anyhow::Result<Vec<Summary>> {
    let (next, tell, done) = (AtomicU64::new(0), Mutex::new(tell), Mutex::new(Vec::new()));
    let work = || -> anyhow::Result<()> {
        loop {
            let index = usize::try_from(next.fetch_add(1, Ordering::SeqCst)).unwrap_or(usize::MAX);
            let Some(seed) = seeds.get(index) else { return Ok(()) };
            let summary = Single::of(*seed, fault).elsewhere()?;
            if until_failure && !summary.passed {
                // Those that have begun come to their end; no other begins.
                next.store(seeds.len() as u64, Ordering::SeqCst);
            }
            tell.lock().unwrap_or_else(PoisonError::into_inner)(&summary)?;
            done.lock().unwrap_or_else(PoisonError::into_inner).push(summary);
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| anyhow::bail!("a worker panicked")))
    })?;
    Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner))
}

pub fn jobs(asked: Option<usize>) -> usize {
    asked.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, Into::into))
}

/// What is already known of a campaign, and where more is written down.
struct Log {
    done: Vec<Summary>,
    file: Option<std::fs::File>,
    wanted: std::ops::Range<u64>,
}

impl Log {
    fn open(arguments: &Campaign) -> anyhow::Result<Log> {
        let wanted = arguments.first..arguments.first + arguments.seeds;
        let Some(path) = &arguments.log else { return Ok(Log { done: Vec::new(), file: None, wanted }) };
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let done = text.lines().filter_map(|line| serde_json::from_str::<Summary>(line).ok());
        let done = done.filter(|summary| wanted.contains(&summary.seed)).collect();
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Log { done, file: Some(file), wanted })
    }

    fn add(&mut self, summary: &Summary) -> anyhow::Result<()> {
        if let Some(file) = &mut self.file {
            writeln!(file, "{}", serde_json::to_string(summary)?)?;
        }
        self.done.push(summary.clone());
        let all = self.wanted.end - self.wanted.start;
        if !summary.passed {
            println!("seed {} fails: {}", summary.seed, summary.caught_by.join(", "));
        } else if self.done.len().is_multiple_of(50) {
            println!("{} of {all} seeds", self.done.len());
        }
        Ok(())
    }
}

/// How often what was put to the test.
fn tested(done: &[Summary]) -> BTreeMap<&str, Times> {
    let mut sums: BTreeMap<&str, Times> = BTreeMap::new();
    for (what, times) in done.iter().flat_map(|summary| &summary.tested) {
        *sums.entry(what).or_default() += *times;
    }
    sums
}

/// Names, each with how often it is among these, the most frequent first.
fn counted<'a>(names: impl Iterator<Item = &'a String>) -> Vec<(&'a str, usize)> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    names.for_each(|name| *counts.entry(name).or_default() += 1);
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts
}

struct Report<'a> {
    done: &'a [Summary],
    fresh: usize,
    took: Duration,
}

impl std::fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let failed = self.done.iter().filter(|summary| !summary.passed).count();
        let hours = self.done.iter().map(|summary| summary.simulated.as_secs_f64()).sum::<f64>() / 3600.0;
        let minutes = self.took.as_secs_f64() / 60.0;
        let sum = |of: fn(&Summary) -> u64| self.done.iter().map(of).sum::<u64>();
        writeln!(f, "{} seeds, {failed} failing; {hours:.1} hours simulated", self.done.len())?;
        if self.fresh > 0 {
            writeln!(f, "{} of them now, {:.0} runs a minute", self.fresh, self.fresh as f64 / minutes)?;
        }
        writeln!(
            f,
            "{} writes acknowledged, {} unknown; {} reads; {} checks inside",
            sum(|summary| summary.acknowledged),
            sum(|summary| summary.unknown),
            sum(|summary| summary.reads),
            sum(|summary| summary.checks)
        )?;
        writeln!(f, "\n{:>9}{:>9}{:>9}", "tested", "violated", "excused")?;
        for (what, Times { tested, violated, excused }) in tested(self.done) {
            writeln!(f, "{tested:>9}{violated:>9}{excused:>9}  {what}")?;
        }
        writeln!(f, "\n{:>9}", "times")?;
        let troubles = counted(self.done.iter().flat_map(|summary| &summary.troubles));
        troubles.iter().try_for_each(|(trouble, count)| writeln!(f, "{count:>9}  {trouble}"))
    }
}
