//! Keys and buckets.

use serde::Serialize;

use crate::output::bytes::Blob;
use crate::output::paper::Paper;
use crate::report::Report;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeysReport {
    pub bucket: String,
    /// Ascending by bytes.
    pub keys: Vec<Blob>,
    /// For `--after`, if `--limit` ended the list.
    pub next: Option<Blob>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BucketsReport {
    pub buckets: Vec<String>,
}

impl Report for KeysReport {
    fn human(&self, _paper: &Paper) -> String {
        self.keys.iter().map(|key| key.line() + "\n").collect()
    }
}

impl Report for BucketsReport {
    fn human(&self, _paper: &Paper) -> String {
        self.buckets.iter().map(|bucket| format!("{bucket}\n")).collect()
    }
}

#[cfg(test)]
pub mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::output::json_line;

    pub fn keys() -> KeysReport {
        let keys = vec![Blob("alice".into()), Blob(Bytes::from_static(b"\xff"))];
        KeysReport { bucket: "carts".to_owned(), keys, next: Some(Blob("b".into())) }
    }

    pub fn buckets() -> BucketsReport {
        BucketsReport { buckets: vec!["a".to_owned(), "b".to_owned()] }
    }

    #[test]
    fn keys_stand_one_a_line_and_exactly_in_json() {
        let report = keys();
        assert_eq!(report.human(&Paper::plain()), "alice\n\\xff\n");
        let expected = r#"{"bucket":"carts","keys":[{"utf8":"alice"},{"base64":"/w=="}],"next":{"utf8":"b"}}"#;
        assert_eq!(json_line(&report), expected);
    }

    #[test]
    fn buckets_stand_one_a_line() {
        let report = buckets();
        assert_eq!(report.human(&Paper::plain()), "a\nb\n");
        assert_eq!(json_line(&report), r#"{"buckets":["a","b"]}"#);
    }
}
