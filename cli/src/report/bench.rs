//! What a benchmark measured.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::failure::Kind;
use crate::output::paper::{Paper, Tone, finish};
use crate::output::units::{count, latency, plural, size};
use crate::report::Report;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BenchReport {
    pub bucket: String,
    pub workload: &'static str,
    pub clients: usize,
    pub keys: usize,
    pub value_size_bytes: u64,
    /// As asked for, as are the others.
    pub r: String,
    pub pr: String,
    pub w: String,
    pub pw: String,
    pub elapsed_ms: u64,
    pub interrupted: bool,
    pub operations: Vec<OperationShape>,
    /// By kind.
    pub errors: Vec<ErrorShape>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OperationShape {
    pub operation: &'static str,
    pub count: u64,
    pub per_second: f64,
    pub errors: u64,
    pub latency_us: LatencyShape,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LatencyShape {
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErrorShape {
    pub kind: Kind,
    pub count: u64,
    pub example: String,
}

impl OperationShape {
    pub fn new(operation: &'static str, micros: &Histogram<u64>, errors: u64, elapsed: Duration) -> OperationShape {
        let per_second = micros.len() as f64 / elapsed.as_secs_f64().max(1e-9);
        OperationShape {
            operation,
            count: micros.len(),
            per_second: (per_second * 10.0).round() / 10.0,
            errors,
            latency_us: LatencyShape {
                p50: micros.value_at_quantile(0.5),
                p90: micros.value_at_quantile(0.9),
                p99: micros.value_at_quantile(0.99),
                p999: micros.value_at_quantile(0.999),
                max: micros.max(),
            },
        }
    }
}

impl BenchReport {
    /// How many primaries is said only where it was asked for.
    fn levels(&self) -> String {
        let levels = [("r", &self.r), ("pr", &self.pr), ("w", &self.w), ("pw", &self.pw)];
        let said = levels.iter().filter(|(name, level)| !name.starts_with('p') || *level != "default");
        said.map(|(name, level)| format!("{name}={level}")).collect::<Vec<_>>().join(", ")
    }
}

impl Report for BenchReport {
    fn human(&self, paper: &Paper) -> String {
        let heading = format!(
            "{}: {}, {} of {}, {}, {}\n",
            self.workload,
            plural(self.clients as u64, "client"),
            plural(self.keys as u64, "key"),
            size(self.value_size_bytes),
            self.levels(),
            latency(Duration::from_millis(self.elapsed_ms)),
        );
        let mut table = paper.table(&["", "ops/s", "ops", "errors", "p50", "p90", "p99", "p99.9", "max"]);
        for operation in &self.operations {
            let shown = |micros| latency(Duration::from_micros(micros));
            let LatencyShape { p50, p90, p99, p999, max } = operation.latency_us;
            let numbers = [
                (count(operation.per_second.round() as u64), Tone::Strong),
                (count(operation.count), Tone::Plain),
                (count(operation.errors), if operation.errors > 0 { Tone::Bad } else { Tone::Plain }),
            ];
            let latencies = [p50, p90, p99, p999, max].map(|micros| (shown(micros), Tone::Plain));
            let mut row = vec![paper.cell(operation.operation, Tone::Strong)];
            row.extend(numbers.iter().chain(&latencies).map(|(text, tone)| paper.cell(text, *tone)));
            table.add_row(row);
        }
        let error = |error: &ErrorShape| {
            let kind = paper.ink(&error.kind.to_string(), Tone::Bad);
            format!("  {} × {kind}, for example: {}\n", count(error.count), error.example)
        };
        let errors: String = self.errors.iter().map(error).collect();
        format!("{heading}\n{}{errors}", finish(table, &[1, 2, 3, 4, 5, 6, 7, 8]))
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::output::json_line;

    pub fn report() -> BenchReport {
        let mut micros = Histogram::<u64>::new(3).unwrap();
        (1..=1000u64).for_each(|value| micros.record(value).unwrap());
        let operations = vec![OperationShape::new("put", &micros, 2, Duration::from_secs(2))];
        let errors = vec![ErrorShape { kind: Kind::Unreachable, count: 2, example: "nobody".to_owned() }];
        BenchReport {
            bucket: "bench".to_owned(),
            workload: "put",
            clients: 16,
            keys: 1_000,
            value_size_bytes: 100,
            r: "default".to_owned(),
            pr: "default".to_owned(),
            w: "quorum".to_owned(),
            pw: "1".to_owned(),
            elapsed_ms: 2_000,
            interrupted: false,
            operations,
            errors,
        }
    }

    #[test]
    fn a_benchmark_shows_rates_and_percentiles_in_80_columns() {
        let expected = "\
put: 16 clients, 1,000 keys of 100 B, r=default, w=quorum, pw=1, 2.00 s

     ops/s    ops  errors     p50     p90     p99   p99.9     max
put    500  1,000       2  500 µs  900 µs  990 µs  999 µs  1.0 ms
  2 × unreachable, for example: nobody
";
        assert_eq!(report().human(&Paper::plain()), expected);
    }

    #[test]
    fn a_benchmark_in_json() {
        assert_eq!(
            json_line(&report()),
            concat!(
                r#"{"bucket":"bench","workload":"put","clients":16,"keys":1000,"value_size_bytes":100,"r":"default","#,
                r#""pr":"default","w":"quorum","pw":"1","elapsed_ms":2000,"interrupted":false,"operations":[{"operation":"put","count":1000,"#,
                r#""per_second":500.0,"errors":2,"latency_us":{"p50":500,"p90":900,"p99":990,"p999":999,"max":1000}}],"#,
                r#""errors":[{"kind":"unreachable","count":2,"example":"nobody"}]}"#
            )
        );
    }
}
