//! What a put or a delete left.

use std::fmt::Write as _;

use serde::Serialize;
use starling_client::Stored;
use starling_core::name::ObjectKey;

use crate::names::Names;
use crate::output::bytes::Blob;
use crate::output::paper::{Paper, Tone};
use crate::output::units::plural;
use crate::report::Report;
use crate::report::explain::{self, Explain, QuorumShape, TallyShape};

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WriteReport {
    pub bucket: String,
    pub key: Blob,
    /// `put` or `delete`.
    pub done: &'static str,
    /// Of the key at its coordinator after the write, this one included.
    pub siblings: usize,
    /// If the write stands alone, a context for the same writer's next one.
    pub context: Option<String>,
    /// An earlier attempt had carried the write out.
    pub repeated: bool,
    pub request: String,
    pub quorum: QuorumShape,
    pub acknowledged: TallyShape,
    /// `host:port` of the node that served the request.
    pub via: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explain: Option<Explain>,
}

impl WriteReport {
    pub fn new(done: &'static str, place: &ObjectKey, stored: &Stored) -> WriteReport {
        WriteReport {
            bucket: place.bucket().to_string(),
            key: Blob(place.key().clone()),
            done,
            siblings: stored.siblings(),
            context: stored.context().map(|context| context.to_string()),
            repeated: stored.was_repeated(),
            request: stored.request().to_string(),
            quorum: stored.quorum().into(),
            acknowledged: stored.acknowledged().into(),
            via: stored.via().to_owned(),
            explain: None,
        }
    }

    pub fn with_explain(self, stored: &Stored, names: &Names) -> WriteReport {
        let explain = Explain { quorum: Some(self.quorum), replicas: names.lines(stored.replicas()) };
        WriteReport { explain: Some(explain), ..self }
    }

    fn summary(&self) -> String {
        let verb = match (self.done, self.repeated) {
            ("delete", false) => "deleted",
            ("delete", true) => "had been deleted by an earlier attempt",
            (_, false) => "stored",
            (_, true) => "had been stored by an earlier attempt",
        };
        let TallyShape { primaries, fallbacks } = self.acknowledged;
        let on = match fallbacks {
            0 => String::new(),
            some => format!(", {} of them in place of a primary", some),
        };
        let replicas = plural((primaries + fallbacks) as u64, "replica");
        format!("{verb}, durable on {replicas}{on}\n")
    }
}

impl Report for WriteReport {
    fn human(&self, paper: &Paper) -> String {
        let mut text = self.summary();
        if self.siblings > 1 {
            let siblings = plural(self.siblings as u64, "sibling");
            let remark = format!(
                "the key has {siblings} now: a put with --resolve, or with a read's --context, replaces what it has seen"
            );
            let _ = writeln!(text, "{}", paper.wrap(&remark));
        }
        if let Some(context) = &self.context {
            let _ = writeln!(text, "{} {context}", paper.ink("context", Tone::Faint));
        }
        if let Some(explain) = &self.explain {
            let _ = write!(text, "\n{}", explain::text(explain, &self.via, paper));
        }
        text
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::output::json_line;

    pub fn report(siblings: usize) -> WriteReport {
        WriteReport {
            bucket: "carts".to_owned(),
            key: Blob("alice".into()),
            done: "put",
            siblings,
            context: (siblings == 1).then(|| "AQI".to_owned()),
            repeated: false,
            request: "07".to_owned(),
            quorum: QuorumShape { replicas: 2, primaries: 0 },
            acknowledged: TallyShape { primaries: 1, fallbacks: 1 },
            via: "127.0.0.1:7401".to_owned(),
            explain: None,
        }
    }

    #[test]
    fn a_write_tells_how_durable_it_is() {
        let expected = "stored, durable on 2 replicas, 1 of them in place of a primary\ncontext AQI\n";
        assert_eq!(report(1).human(&Paper::plain()), expected);
        assert!(report(2).human(&Paper::plain()).contains("the key has 2 siblings now"));
        let repeated = WriteReport { done: "delete", repeated: true, ..report(1) };
        assert!(repeated.human(&Paper::plain()).starts_with("had been deleted by an earlier attempt"));
    }

    #[test]
    fn a_write_in_json() {
        assert_eq!(
            json_line(&report(1)),
            concat!(
                r#"{"bucket":"carts","key":{"utf8":"alice"},"done":"put","siblings":1,"context":"AQI","#,
                r#""repeated":false,"request":"07","quorum":{"replicas":2,"primaries":0},"#,
                r#""acknowledged":{"primaries":1,"fallbacks":1},"via":"127.0.0.1:7401"}"#
            )
        );
    }
}
