//! How an import went.
//!
//! ```text
//! {bucket, file, complete, records, skipped, stored, repeated, unchanged, with_siblings, failed,
//!  failures: [{record, line, key, kind, message}], bytes, elapsed_ms, per_second}
//! ```
//!
//! `records` were taken from the file this time, after `skipped` ones that an interrupted import had settled; `stored`,
//! `repeated` (an earlier attempt had stored them), `unchanged` (of `--replace`) and `failed` add up to it. At most
//! [`LISTED`] failures are listed. `complete` is false if the import was interrupted: the same command goes on.

use std::time::Duration;

use serde::Serialize;

use crate::output::bytes::Blob;
use crate::output::paper::{Paper, Tone};
use crate::output::units::{count, latency, plural, size};
use crate::report::Report;

/// Most failures that are listed one by one.
pub const LISTED: usize = 20;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ImportReport {
    pub bucket: String,
    pub file: String,
    pub complete: bool,
    pub records: u64,
    pub skipped: u64,
    pub stored: u64,
    pub repeated: u64,
    pub unchanged: u64,
    /// Stored beside what was there: the key has siblings now.
    pub with_siblings: u64,
    pub failed: u64,
    pub failures: Vec<RecordFailure>,
    /// Of the values stored.
    pub bytes: u64,
    pub elapsed_ms: u64,
    /// Records a second.
    pub per_second: u64,
    /// Some of those that failed may succeed another time.
    #[serde(skip)]
    pub again: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecordFailure {
    /// Counted from 1.
    pub record: u64,
    /// Where it begins in the file, counted from 1.
    pub line: u64,
    /// If it has one.
    pub key: Option<Blob>,
    /// `malformed`, or the kind of the last attempt's failure.
    pub kind: String,
    pub message: String,
}

impl ImportReport {
    fn counts(&self) -> String {
        let mut parts = vec![format!("{} stored", count(self.stored))];
        let further =
            [(self.repeated, "had been stored before"), (self.unchanged, "unchanged"), (self.failed, "failed")];
        parts.extend(
            further.iter().filter(|(number, _)| *number > 0).map(|(number, what)| format!("{} {what}", count(*number))),
        );
        parts.join(", ")
    }

    fn remarks(&self) -> String {
        let mut text = String::new();
        if self.skipped > 0 {
            text.push_str(&format!(
                "went on after {} that an earlier run had settled\n",
                plural(self.skipped, "record")
            ));
        }
        if self.with_siblings > 0 {
            text.push_str(&format!(
                "{} existed and have siblings now: import with --replace to overwrite\n",
                plural(self.with_siblings, "key")
            ));
        }
        if self.repeated > 0 && self.skipped == 0 {
            text.push_str("what had been stored before was left as it is now: --replace writes it anew\n");
        }
        text
    }

    fn failure_lines(&self, paper: &Paper) -> String {
        let line = |failure: &RecordFailure| {
            let key = failure.key.as_ref().map(|key| format!(", key {}", shortened(&key.line()))).unwrap_or_default();
            let place = format!("record {} (line {}{key}):", count(failure.record), count(failure.line));
            format!("  {} {}\n", paper.ink(&place, Tone::Bad), failure.message)
        };
        let mut text: String = self.failures.iter().map(line).collect();
        let more = self.failed.saturating_sub(self.failures.len() as u64);
        if more > 0 {
            text.push_str(&format!("  and {} more\n", count(more)));
        }
        text
    }
}

/// A key can be a kilobyte.
fn shortened(key: &str) -> String {
    const MOST: usize = 60;
    if key.chars().count() <= MOST { key.to_owned() } else { key.chars().take(MOST).chain(['…']).collect() }
}

impl Report for ImportReport {
    fn human(&self, paper: &Paper) -> String {
        let took = latency(Duration::from_millis(self.elapsed_ms));
        let mut text = format!(
            "{}: {}; {} in {took} ({} records/s)\n",
            plural(self.records, "record"),
            self.counts(),
            size(self.bytes),
            count(self.per_second)
        );
        text.push_str(&paper.wrap(&self.remarks()));
        text.push_str(&self.failure_lines(paper));
        if !self.complete {
            text.push_str("not all of the file was imported: the same command goes on from here\n");
        } else if self.again {
            text.push_str("the same command tries the failed ones again\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::json_line;

    fn report() -> ImportReport {
        let failure = RecordFailure {
            record: 3,
            line: 4,
            key: Some(Blob("bash".into())),
            kind: "refused".to_owned(),
            message: "too many siblings".to_owned(),
        };
        ImportReport {
            bucket: "packages".to_owned(),
            file: "p.jsonl".to_owned(),
            complete: true,
            records: 63_440,
            stored: 63_438,
            failed: 2,
            again: true,
            failures: vec![failure],
            bytes: 3 << 20,
            elapsed_ms: 12_300,
            per_second: 5_157,
            ..ImportReport::default()
        }
    }

    #[test]
    fn an_import_lists_what_failed() {
        let expected = "\
63,440 records: 63,438 stored, 2 failed; 3.0 MiB in 12.30 s (5,157 records/s)
  record 3 (line 4, key bash): too many siblings
  and 1 more
the same command tries the failed ones again
";
        assert_eq!(report().human(&Paper::plain()), expected);
    }

    #[test]
    fn what_was_there_before_is_told() {
        let again =
            ImportReport { repeated: 5, with_siblings: 2, failures: Vec::new(), failed: 0, again: false, ..report() };
        let text = again.human(&Paper::plain());
        assert!(text.contains("2 keys existed and have siblings now: import with --replace to overwrite\n"), "{text}");
        assert!(text.contains("--replace writes it anew"), "{text}");
        let interrupted = ImportReport { complete: false, skipped: 7, ..again };
        let text = interrupted.human(&Paper::plain());
        assert!(text.contains("went on after 7 records") && text.ends_with("goes on from here\n"), "{text}");
    }

    #[test]
    fn an_import_in_json() {
        assert_eq!(
            json_line(&report()),
            concat!(
                r#"{"bucket":"packages","file":"p.jsonl","complete":true,"records":63440,"skipped":0,"stored":63438,"#,
                r#""repeated":0,"unchanged":0,"with_siblings":0,"failed":2,"failures":[{"record":3,"line":4,"#,
                r#""key":{"utf8":"bash"},"kind":"refused","message":"too many siblings"}],"bytes":3145728,"#,
                r#""elapsed_ms":12300,"per_second":5157}"#
            )
        );
    }
}
