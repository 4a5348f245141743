//! How an import went, and what a verification of one found.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::failure::Kind;
use crate::output::bytes::Blob;
use crate::output::paper::{Paper, Tone};
use crate::output::units::{count, latency, plural, size};
use crate::report::Report;

/// How many failures a person is shown. JSON has all that were kept.
const SHOWN: usize = 20;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ImportReport {
    pub bucket: String,
    pub file: String,
    /// False if it was interrupted: the same command goes on.
    pub complete: bool,
    /// Taken from the file this time: `stored`, `repeated`, `unchanged`, and those of `failed` that are not `carried`.
    pub records: u64,
    /// Not taken, since an interrupted import had settled them well.
    pub skipped: u64,
    pub stored: u64,
    /// An earlier attempt had stored them.
    pub repeated: u64,
    /// Of `--replace`: they were there as they are.
    pub unchanged: u64,
    /// Stored beside what was there: the key has siblings now.
    pub with_siblings: u64,
    /// In this run, and in those that it went on from.
    pub failed: u64,
    /// Those of `failed` that an earlier run met, and this one did not try again.
    pub carried: u64,
    pub failures: Vec<RecordFailure>,
    /// Of the values stored.
    pub bytes: u64,
    pub elapsed_ms: u64,
    /// Records a second.
    pub per_second: u64,
    /// What was counted is of no use: the file is another one by now.
    #[serde(skip)]
    pub outdated: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    pub bucket: String,
    pub file: String,
    /// False if it was interrupted.
    pub complete: bool,
    /// Read from the file: `matching`, `different`, `missing` and `failed`.
    pub records: u64,
    /// The key's only value is the record.
    pub matching: u64,
    /// The key has another value, or others beside the record.
    pub different: u64,
    pub missing: u64,
    /// Malformed, or not to be read.
    pub failed: u64,
    /// Of all that is not as it should be, the first.
    pub failures: Vec<RecordFailure>,
    pub elapsed_ms: u64,
    /// Records a second.
    pub per_second: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordFailure {
    /// Counted from 1.
    pub record: u64,
    /// Where it begins in the file, counted from 1.
    pub line: u64,
    /// If it has one.
    pub key: Option<Blob>,
    pub kind: Problem,
    pub message: String,
    /// The same command tries it again, which may help.
    pub again: bool,
}

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    /// It is no record.
    Malformed,
    Different,
    Missing,
    /// Its last attempt's failure.
    #[serde(untagged)]
    Request(Kind),
}

impl ImportReport {
    /// Some of those that failed may succeed another time.
    pub fn again(&self) -> bool {
        self.failures.iter().any(|failure| failure.again)
    }

    fn counts(&self) -> String {
        listed(&[
            (self.stored, "stored", true),
            (self.repeated, "had been stored before", false),
            (self.unchanged, "unchanged", false),
            (self.failed, "failed", false),
        ])
    }

    fn remarks(&self) -> String {
        let mut text = String::new();
        if self.skipped > 0 {
            text.push_str(&format!(
                "went on after {} that an earlier run had settled\n",
                plural(self.skipped, "record")
            ));
        }
        if self.carried > 0 {
            text.push_str(&format!("{} of those that failed did so in an earlier run\n", count(self.carried)));
        }
        if self.with_siblings > 0 {
            let has = if self.with_siblings == 1 { "has" } else { "have" };
            text.push_str(&format!(
                "{} existed and {has} siblings now: import with --replace to overwrite\n",
                plural(self.with_siblings, "key")
            ));
        }
        if self.repeated > 0 && self.skipped == 0 {
            text.push_str("what had been stored before was left as it is now: --replace writes it anew\n");
        }
        text
    }
}

impl VerifyReport {
    /// How many are not as they should be.
    pub fn wrong(&self) -> u64 {
        self.different + self.missing
    }

    fn counts(&self) -> String {
        listed(&[
            (self.matching, "as in the file", true),
            (self.different, "different", true),
            (self.missing, "missing", true),
            (self.failed, "failed", false),
        ])
    }
}

/// `2 stored, 1 failed`. What is none is left out, unless it is `always` said.
fn listed(counts: &[(u64, &str, bool)]) -> String {
    let said = counts.iter().filter(|(number, _, always)| *number > 0 || *always);
    let parts: Vec<String> = said.map(|(number, what, _)| format!("{} {what}", count(*number))).collect();
    parts.join(", ")
}

fn rate(elapsed_ms: u64, per_second: u64) -> String {
    if elapsed_ms == 0 {
        return "in less than 1 ms".to_owned();
    }
    format!("in {} ({}/s)", latency(Duration::from_millis(elapsed_ms)), plural(per_second, "record"))
}

/// The first failures, and how many there are beside them out of `all`.
fn failure_lines(failures: &[RecordFailure], all: u64, paper: &Paper) -> String {
    let line = |failure: &RecordFailure| {
        let key = failure.key.as_ref().map(|key| format!(", key {}", shortened(&key.line()))).unwrap_or_default();
        let place = format!("record {} (line {}{key}):", count(failure.record), count(failure.line));
        format!("  {} {}\n", paper.ink(&place, Tone::Bad), failure.message)
    };
    let shown = failures.len().min(SHOWN);
    let mut text: String = failures[..shown].iter().map(line).collect();
    let more = all.saturating_sub(shown as u64);
    if more > 0 {
        let how = if failures.len() as u64 == all { "all".to_owned() } else { count(failures.len() as u64) };
        text.push_str(&format!("  and {} more; -o json lists {how}\n", count(more)));
    }
    text
}

/// A key can be a kilobyte.
fn shortened(key: &str) -> String {
    const MOST: usize = 60;
    if key.chars().count() <= MOST { key.to_owned() } else { key.chars().take(MOST).chain(['…']).collect() }
}

impl Report for ImportReport {
    fn human(&self, paper: &Paper) -> String {
        let mut text = format!(
            "{}: {}; {} {}\n",
            plural(self.records, "record"),
            self.counts(),
            size(self.bytes),
            rate(self.elapsed_ms, self.per_second)
        );
        text.push_str(&paper.wrap(&self.remarks()));
        text.push_str(&failure_lines(&self.failures, self.failed, paper));
        match (self.outdated, self.complete) {
            (true, _) => {}
            (false, false) => text.push_str("not all of the file was imported: the same command goes on from here\n"),
            (false, true) if self.again() => text.push_str("the same command tries the failed ones again\n"),
            (false, true) => {}
        }
        text
    }
}

impl Report for VerifyReport {
    fn human(&self, paper: &Paper) -> String {
        let records = plural(self.records, "record");
        let mut text = format!("{records}: {}; {}\n", self.counts(), rate(self.elapsed_ms, self.per_second));
        text.push_str(&failure_lines(&self.failures, self.wrong() + self.failed, paper));
        if !self.complete {
            text.push_str("not all of the file was compared\n");
        }
        text
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::output::json_line;

    pub fn report() -> ImportReport {
        let malformed = RecordFailure {
            record: 3,
            line: 4,
            key: None,
            kind: Problem::Malformed,
            message: "not a JSON object".to_owned(),
            again: false,
        };
        let refused = RecordFailure {
            record: 8,
            line: 9,
            key: Some(Blob("bash".into())),
            kind: Problem::Request(Kind::Refused),
            message: "too many siblings".to_owned(),
            again: true,
        };
        ImportReport {
            bucket: "packages".to_owned(),
            file: "p.jsonl".to_owned(),
            complete: true,
            records: 63_439,
            stored: 63_438,
            failed: 2,
            carried: 1,
            failures: vec![malformed, refused],
            bytes: 3 << 20,
            elapsed_ms: 12_300,
            per_second: 5_157,
            ..ImportReport::default()
        }
    }

    pub fn verification() -> VerifyReport {
        let different = RecordFailure {
            record: 2,
            line: 2,
            key: Some(Blob("bash".into())),
            kind: Problem::Different,
            message: "another value is stored".to_owned(),
            again: true,
        };
        VerifyReport {
            bucket: "packages".to_owned(),
            file: "p.jsonl".to_owned(),
            complete: true,
            records: 63_440,
            matching: 63_439,
            different: 1,
            failures: vec![different],
            elapsed_ms: 12_300,
            per_second: 5_157,
            ..VerifyReport::default()
        }
    }

    #[test]
    fn an_import_lists_what_failed() {
        let expected = "\
63,439 records: 63,438 stored, 2 failed; 3.0 MiB in 12.30 s (5,157 records/s)
1 of those that failed did so in an earlier run
  record 3 (line 4): not a JSON object
  record 8 (line 9, key bash): too many siblings
the same command tries the failed ones again
";
        assert_eq!(report().human(&Paper::plain()), expected);
    }

    #[test]
    fn a_person_is_told_where_the_rest_of_many_failures_is() {
        let failures = vec![report().failures[1].clone(); 25];
        let text = ImportReport { failed: 25, failures, ..report() }.human(&Paper::plain());
        assert!(text.contains("  and 5 more; -o json lists all\n"), "{text}");
        let failures = vec![verification().failures[0].clone(); 25];
        let text = VerifyReport { different: 3_000, failures, ..verification() }.human(&Paper::plain());
        assert!(text.contains("  and 2,980 more; -o json lists 25\n"), "{text}");
    }

    #[test]
    fn what_was_there_before_is_told() {
        let again = ImportReport { repeated: 5, with_siblings: 2, failures: Vec::new(), failed: 0, ..report() };
        let text = again.human(&Paper::plain());
        assert!(text.contains("2 keys existed and have siblings now: import with --replace to overwrite\n"), "{text}");
        assert!(text.contains("--replace writes it anew"), "{text}");
        let interrupted = ImportReport { complete: false, skipped: 7, ..again };
        let text = interrupted.human(&Paper::plain());
        assert!(text.contains("went on after 7 records") && text.ends_with("goes on from here\n"), "{text}");
        let text = ImportReport { outdated: true, ..interrupted }.human(&Paper::plain());
        assert!(!text.contains("goes on from here"), "{text}");
    }

    #[test]
    fn one_is_told_as_one_and_no_time_as_next_to_none() {
        let one = ImportReport { with_siblings: 1, per_second: 1, ..report() }.human(&Paper::plain());
        assert!(one.contains("1 key existed and has siblings now") && one.contains("(1 record/s)"), "{one}");
        let none = ImportReport { elapsed_ms: 0, per_second: 2_000, ..report() }.human(&Paper::plain());
        assert!(none.contains("3.0 MiB in less than 1 ms\n"), "{none}");
    }

    #[test]
    fn a_verification_says_what_is_not_as_in_the_file() {
        let expected = "\
63,440 records: 63,439 as in the file, 1 different, 0 missing; in 12.30 s (5,157 records/s)
  record 2 (line 2, key bash): another value is stored
";
        assert_eq!(verification().human(&Paper::plain()), expected);
    }

    #[test]
    fn an_import_in_json() {
        assert_eq!(
            json_line(&report()),
            concat!(
                r#"{"bucket":"packages","file":"p.jsonl","complete":true,"records":63439,"skipped":0,"stored":63438,"#,
                r#""repeated":0,"unchanged":0,"with_siblings":0,"failed":2,"carried":1,"failures":[{"record":3,"line":4,"#,
                r#""key":null,"kind":"malformed","message":"not a JSON object","again":false},{"record":8,"line":9,"#,
                r#""key":{"utf8":"bash"},"kind":"refused","message":"too many siblings","again":true}],"#,
                r#""bytes":3145728,"elapsed_ms":12300,"per_second":5157}"#
            )
        );
    }

    #[test]
    fn a_verification_in_json() {
        assert_eq!(
            json_line(&verification()),
            concat!(
                r#"{"bucket":"packages","file":"p.jsonl","complete":true,"records":63440,"matching":63439,"different":1,"#,
                r#""missing":0,"failed":0,"failures":[{"record":2,"line":2,"key":{"utf8":"bash"},"kind":"different","#,
                r#""message":"another value is stored","again":true}],"elapsed_ms":12300,"per_second":5157}"#
            )
        );
    }
}
