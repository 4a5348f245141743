//! What a read found.

use std::fmt::Write as _;

use bytes::Bytes;
use serde::Serialize;
use starling_client::Fetched;
use starling_core::name::ObjectKey;

use crate::names::Names;
use crate::output::bytes::Blob;
use crate::output::paper::{Paper, Tone};
use crate::output::units::{moment, plural, size};
use crate::report::Report;
use crate::report::explain::{self, Explain};

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GetReport {
    pub bucket: String,
    pub key: Blob,
    pub found: bool,
    /// Absent because it was deleted, or has expired.
    pub deleted: bool,
    pub siblings: Vec<SiblingShape>,
    /// For the next write of this key; none if it was never written.
    pub context: Option<String>,
    /// `host:port` of the node that served the request.
    pub via: String,
    /// The member whose own copy this is, of `--replica`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replica: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explain: Option<Explain>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SiblingShape {
    pub value: Blob,
    /// The write that made it.
    pub dot: String,
    /// By its coordinator's clock, in UTC.
    pub written_at: String,
    /// In UTC; none if it stays until it is deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

impl GetReport {
    pub fn new(place: &ObjectKey, fetched: &Fetched, replica: Option<String>) -> GetReport {
        let sibling = |(at, sibling): (usize, &starling_proto::data::LiveSibling)| SiblingShape {
            value: Blob(sibling.value.clone()),
            dot: sibling.dot.to_string(),
            written_at: moment(sibling.stamp.wall()),
            expires_at: fetched.expires(at).map(moment),
        };
        GetReport {
            bucket: place.bucket().to_string(),
            key: Blob(place.key().clone()),
            found: fetched.is_found(),
            deleted: fetched.is_deleted(),
            siblings: fetched.siblings().iter().enumerate().map(sibling).collect(),
            context: fetched.context().map(|context| context.to_string()),
            via: fetched.via().to_owned(),
            replica,
            explain: None,
        }
    }

    pub fn with_explain(self, fetched: &Fetched, names: &Names) -> GetReport {
        let quorum = fetched.quorum().map(Into::into);
        GetReport { explain: Some(Explain { quorum, replicas: names.lines(fetched.replicas()) }), ..self }
    }

    pub fn absence(&self) -> String {
        let place = format!("{}/{}", self.bucket, self.key.line());
        let held = self.replica.as_ref().map(|node| format!(" on {node}")).unwrap_or_default();
        match &self.context {
            Some(_) if self.deleted => format!("{place}: not found{held}, it was deleted or has expired"),
            _ => format!("{place}: not found{held}"),
        }
    }

    fn siblings_text(&self, paper: &Paper) -> String {
        if let [only] = self.siblings.as_slice() {
            let expires = only.expires_at.as_ref().map(|at| format!("\n{} {at}\n", paper.ink("expires", Tone::Faint)));
            return lines(&only.value.block()) + &expires.unwrap_or_default();
        }
        let count = plural(self.siblings.len() as u64, "sibling");
        let mut text = format!("{count}, written concurrently and not resolved yet\n");
        for (index, sibling) in self.siblings.iter().enumerate() {
            let SiblingShape { value: Blob(bytes), written_at, expires_at, .. } = sibling;
            let expires = expires_at.as_ref().map(|at| format!("  expires {at}")).unwrap_or_default();
            let title = format!("sibling {}  {}  written {written_at}{expires}", index + 1, size(bytes.len() as u64));
            let _ = write!(text, "\n{}\n{}", paper.ink(&title, Tone::Strong), lines(&sibling.value.block()));
        }
        text
    }
}

impl Report for GetReport {
    fn human(&self, paper: &Paper) -> String {
        let mut text = if self.found { self.siblings_text(paper) } else { lines(&self.absence()) };
        if let Some(context) = &self.context {
            let _ = write!(text, "\n{} {context}\n", paper.ink("context", Tone::Faint));
        }
        if let Some(explain) = &self.explain {
            let _ = write!(text, "\n{}", explain::text(explain, &self.via, paper));
        }
        text
    }
}

fn lines(text: &str) -> String {
    if text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") }
}

/// The only value; how many there are if that is another number than one.
pub fn single(fetched: &Fetched) -> Result<&Bytes, usize> {
    match fetched.siblings() {
        [only] => Ok(&only.value),
        several => Err(several.len()),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::output::json_line;

    pub fn report(values: &[&'static str]) -> GetReport {
        let sibling = |value: &&'static str| SiblingShape {
            value: Blob(Bytes::from_static(value.as_bytes())),
            dot: "1/2:3".to_owned(),
            written_at: "2026-11-02T10:11:12.345Z".to_owned(),
            expires_at: None,
        };
        GetReport {
            bucket: "carts".to_owned(),
            key: Blob("alice".into()),
            found: !values.is_empty(),
            deleted: values.is_empty(),
            siblings: values.iter().map(sibling).collect(),
            context: Some("AQI".to_owned()),
            via: "127.0.0.1:7401".to_owned(),
            replica: None,
            explain: None,
        }
    }

    #[test]
    fn one_value_is_shown_as_it_is() {
        assert_eq!(report(&["3 apples"]).human(&Paper::plain()), "3 apples\n\ncontext AQI\n");
    }

    #[test]
    fn siblings_are_all_shown() {
        let expected = "\
2 siblings, written concurrently and not resolved yet

sibling 1  8 B  written 2026-11-02T10:11:12.345Z
3 apples

sibling 2  7 B  written 2026-11-02T10:11:12.345Z
4 pears

context AQI
";
        assert_eq!(report(&["3 apples", "4 pears"]).human(&Paper::plain()), expected);
    }

    #[test]
    fn what_expires_says_when() {
        let expiring = |values| {
            let mut report = report(values);
            report.siblings[0].expires_at = Some("2026-11-02T10:41:12.345Z".to_owned());
            report
        };
        let expected = "3 apples\n\nexpires 2026-11-02T10:41:12.345Z\n\ncontext AQI\n";
        assert_eq!(expiring(&["3 apples"]).human(&Paper::plain()), expected);
        let two = expiring(&["3 apples", "4 pears"]).human(&Paper::plain());
        assert!(two.contains("written 2026-11-02T10:11:12.345Z  expires 2026-11-02T10:41:12.345Z\n3 apples"), "{two}");
        let json = json_line(&expiring(&["3 apples"]));
        assert!(json.contains(r#""written_at":"2026-11-02T10:11:12.345Z","expires_at":"2026-11-02T10:41:12.345Z"}"#));
    }

    #[test]
    fn what_was_deleted_keeps_its_context() {
        assert_eq!(
            report(&[]).human(&Paper::plain()),
            "carts/alice: not found, it was deleted or has expired\n\ncontext AQI\n"
        );
    }

    #[test]
    fn a_read_in_json() {
        assert_eq!(
            json_line(&report(&["3 apples"])),
            concat!(
                r#"{"bucket":"carts","key":{"utf8":"alice"},"found":true,"deleted":false,"siblings":["#,
                r#"{"value":{"utf8":"3 apples"},"dot":"1/2:3","written_at":"2026-11-02T10:11:12.345Z"}],"#,
                r#""context":"AQI","via":"127.0.0.1:7401"}"#
            )
        );
    }
}
