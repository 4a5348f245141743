//! Latencies and errors, collected from all clients.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::commands::bench::Workload;
use crate::failure::{Failure, Kind};
use crate::report::bench::{ErrorShape, OperationShape};

/// Significant digits of a latency.
const DIGITS: u8 = 3;
/// Longer ones are counted as this long: an hour.
const LONGEST_MICROS: u64 = 3_600_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Get,
    Put,
}

/// A client holds the lock for much less than an operation takes.
pub struct Measure(Mutex<Collected>);

struct Collected {
    gets: Taken,
    puts: Taken,
    errors: BTreeMap<Kind, (u64, String)>,
}

struct Taken {
    micros: Histogram<u64>,
    errors: u64,
}

/// What is shown meanwhile.
pub struct Live {
    pub operations: u64,
    pub errors: u64,
    pub p50: Duration,
    pub p99: Duration,
}

impl Measure {
    pub fn new() -> Measure {
        let taken = || Taken { micros: histogram(), errors: 0 };
        Measure(Mutex::new(Collected { gets: taken(), puts: taken(), errors: BTreeMap::new() }))
    }

    pub fn succeeded(&self, operation: Operation, took: Duration) {
        self.lock().of(operation).micros.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    pub fn failed(&self, operation: Operation, failure: Failure) {
        let mut collected = self.lock();
        collected.of(operation).errors += 1;
        // The first of its kind is the example.
        collected.errors.entry(failure.kind).or_insert((0, failure.message)).0 += 1;
    }

    pub fn live(&self) -> Live {
        let collected = self.lock();
        let mut all = collected.gets.micros.clone();
        // The same bounds on both sides: it cannot fail.
        let _ = all.add(&collected.puts.micros);
        let at = |quantile| Duration::from_micros(all.value_at_quantile(quantile));
        let errors = collected.gets.errors + collected.puts.errors;
        Live { operations: all.len(), errors, p50: at(0.5), p99: at(0.99) }
    }

    pub fn operations(&self, workload: Workload, elapsed: Duration) -> Vec<OperationShape> {
        let collected = self.lock();
        let shape = |name, taken: &Taken| OperationShape::new(name, &taken.micros, taken.errors, elapsed);
        let gets = workload.gets().then(|| shape("get", &collected.gets));
        let puts = workload.puts().then(|| shape("put", &collected.puts));
        gets.into_iter().chain(puts).collect()
    }

    pub fn errors(&self) -> Vec<ErrorShape> {
        let collected = self.lock();
        let shape = |(kind, (count, example)): (&Kind, &(u64, String))| ErrorShape {
            kind: *kind,
            count: *count,
            example: example.clone(),
        };
        collected.errors.iter().map(shape).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Collected> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collected {
    fn of(&mut self, operation: Operation) -> &mut Taken {
        match operation {
            Operation::Get => &mut self.gets,
            Operation::Put => &mut self.puts,
        }
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_MICROS, DIGITS).expect("three digits of these bounds are possible")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_and_errors_are_kept_apart_by_operation() {
        let measure = Measure::new();
        measure.succeeded(Operation::Get, Duration::from_micros(100));
        measure.succeeded(Operation::Put, Duration::from_micros(300));
        measure.failed(Operation::Put, Failure::new(Kind::Unreachable, "first"));
        measure.failed(Operation::Put, Failure::new(Kind::Unreachable, "second"));
        let operations = measure.operations(Workload::Mixed, Duration::from_secs(1));
        assert_eq!(
            operations.iter().map(|o| (o.operation, o.count, o.errors)).collect::<Vec<_>>(),
            [("get", 1, 0), ("put", 1, 2)]
        );
        assert_eq!(measure.operations(Workload::Get, Duration::from_secs(1)).len(), 1);
        let errors = measure.errors();
        assert_eq!((errors[0].kind, errors[0].count, errors[0].example.as_str()), (Kind::Unreachable, 2, "first"));
        assert!(measure.live().p99 >= Duration::from_micros(300));
        assert_eq!((measure.live().operations, measure.live().errors), (2, 2));
    }
}
