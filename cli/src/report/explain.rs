//! What each replica did for one request.

use std::fmt::Write as _;

use serde::Serialize;
use starling_core::quorum::{Quorum, Tally};
use starling_core::report::{Failure as ReplicaFailure, Outcome, Repair, ReplicaReport, Role};

use crate::names::Names;
use crate::output::paper::{Paper, Tone, finish};
use crate::output::units::{latency, plural};

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explain {
    /// None if a single replica was asked for its own copy.
    pub quorum: Option<QuorumShape>,
    pub replicas: Vec<ReplicaLine>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct QuorumShape {
    pub replicas: usize,
    pub primaries: usize,
}

impl From<Quorum> for QuorumShape {
    fn from(quorum: Quorum) -> QuorumShape {
        QuorumShape { replicas: quorum.replicas(), primaries: quorum.primaries() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TallyShape {
    pub primaries: usize,
    pub fallbacks: usize,
}

impl From<Tally> for TallyShape {
    fn from(tally: Tally) -> TallyShape {
        TallyShape { primaries: tally.primaries, fallbacks: tally.fallbacks }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReplicaLine {
    pub node: String,
    /// `primary` or `fallback`.
    pub role: &'static str,
    /// Of a fallback: the primary in whose place it was asked.
    pub stands_in_for: Option<String>,
    /// Asked because another was slow.
    pub hedge: bool,
    /// `stored`, `found`, `not_found`, `failed` or `pending`.
    pub outcome: &'static str,
    /// Of `found`.
    pub siblings: Option<usize>,
    /// Of `failed`.
    pub failure: Option<FailureShape>,
    pub took_us: u64,
    /// `not_needed`, `sent`, `done` or `failed`.
    pub repair: &'static str,
    pub repair_failure: Option<FailureShape>,
    /// It keeps the write for the primary it stands in for, and hands it over when that returns.
    pub hint_left: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailureShape {
    /// `unreachable`, `no_answer`, `disconnected`, `refused` or `sync_failed`.
    pub kind: &'static str,
    pub message: String,
}

impl From<ReplicaFailure> for FailureShape {
    fn from(failure: ReplicaFailure) -> FailureShape {
        let kind = match failure {
            ReplicaFailure::Unreachable => "unreachable",
            ReplicaFailure::NoAnswer => "no_answer",
            ReplicaFailure::Disconnected => "disconnected",
            ReplicaFailure::Refused(_) => "refused",
            ReplicaFailure::SyncFailed => "sync_failed",
        };
        FailureShape { kind, message: failure.to_string() }
    }
}

impl ReplicaLine {
    pub fn new(report: &ReplicaReport, names: &Names) -> ReplicaLine {
        let (outcome, siblings, failure) = match report.outcome {
            Outcome::Pending => ("pending", None, None),
            Outcome::Stored => ("stored", None, None),
            Outcome::Found { siblings } => ("found", Some(siblings), None),
            Outcome::NotFound => ("not_found", None, None),
            Outcome::Failed(failure) => ("failed", None, Some(failure.into())),
        };
        let (repair, repair_failure) = match report.repair {
            Repair::NotNeeded => ("not_needed", None),
            Repair::Sent => ("sent", None),
            Repair::Done => ("done", None),
            Repair::Failed(failure) => ("failed", Some(failure.into())),
        };
        let stands_in_for = match report.role {
            Role::Primary => None,
            Role::Fallback { stands_in_for } => Some(names.node(stands_in_for)),
        };
        ReplicaLine {
            node: names.node(report.node),
            role: if stands_in_for.is_none() { "primary" } else { "fallback" },
            hint_left: stands_in_for.is_some() && report.outcome == Outcome::Stored,
            stands_in_for,
            hedge: report.hedge,
            outcome,
            siblings,
            failure,
            took_us: u64::try_from(report.took.as_micros()).unwrap_or(u64::MAX),
            repair,
            repair_failure,
        }
    }

    fn role_text(&self) -> String {
        self.stands_in_for.as_ref().map_or("primary".to_owned(), |primary| format!("fallback for {primary}"))
    }

    fn outcome_text(&self) -> (String, Tone) {
        let text = |text: &str| text.to_owned();
        match (self.outcome, &self.failure, self.siblings) {
            (_, Some(failure), _) => (failure.message.clone(), Tone::Bad),
            ("found", _, Some(0)) => (text("found, deleted or expired"), Tone::Good),
            ("found", _, Some(siblings)) => (format!("found, {}", plural(siblings as u64, "sibling")), Tone::Good),
            ("not_found", ..) => (text("not found"), Tone::Plain),
            ("pending", ..) => (text("had not answered yet"), Tone::Faint),
            (outcome, ..) => (text(outcome), Tone::Good),
        }
    }

    fn remarks(&self) -> String {
        let mut remarks = Vec::new();
        if self.hint_left {
            let primary = self.stands_in_for.as_deref().unwrap_or("its primary");
            remarks.push(format!("hint left for {primary}"));
        }
        if self.hedge {
            remarks.push("asked since another was slow".to_owned());
        }
        match (self.repair, &self.repair_failure) {
            (_, Some(failure)) => remarks.push(format!("repair failed: it {}", failure.message)),
            ("sent", _) => remarks.push("was behind, repair sent".to_owned()),
            ("done", _) => remarks.push("was behind, repaired".to_owned()),
            _ => {}
        }
        remarks.join("; ")
    }
}

/// A table of what each replica did.
pub fn table(lines: &[ReplicaLine], paper: &Paper) -> String {
    let remarked = lines.iter().any(|line| !line.remarks().is_empty());
    let header = ["node", "as", "answer", "after", "remarks"];
    let mut table = paper.table(&header[..if remarked { 5 } else { 4 }]);
    for line in lines {
        let (outcome, tone) = line.outcome_text();
        let took = latency(std::time::Duration::from_micros(line.took_us));
        let mut row = vec![
            paper.cell(&line.node, Tone::Strong),
            paper.cell(&line.role_text(), Tone::Plain),
            paper.cell(&outcome, tone),
            paper.cell(&took, Tone::Plain),
        ];
        if remarked {
            row.push(paper.cell(&line.remarks(), Tone::Plain));
        }
        table.add_row(row);
    }
    finish(table, &[3])
}

/// The whole explanation of a request, behind its result.
pub fn text(explain: &Explain, via: &str, paper: &Paper) -> String {
    let mut text = String::new();
    let wanted = match explain.quorum {
        None => String::new(),
        Some(QuorumShape { replicas, primaries: 0 }) => {
            format!(", which needed {}", plural(replicas as u64, "replica"))
        }
        Some(QuorumShape { replicas, primaries }) => {
            format!(", which needed {}, {primaries} of them primary", plural(replicas as u64, "replica"))
        }
    };
    let _ = writeln!(text, "{}", paper.ink(&format!("asked {via}{wanted}"), Tone::Faint));
    text.push_str(&table(&explain.replicas, paper));
    text
}

#[cfg(test)]
pub mod tests {
    use std::time::Duration;

    use starling_core::ids::NodeId;

    use super::*;
    use crate::output::json_line;

    pub fn report(node: u64, role: Role, outcome: Outcome) -> ReplicaReport {
        ReplicaReport {
            node: NodeId(node),
            role,
            hedge: false,
            outcome,
            took: Duration::from_micros(1_200 * node),
            repair: Repair::NotNeeded,
        }
    }

    pub fn names() -> Names {
        Names::of_layout(&crate::report::tests::layout())
    }

    pub fn a_write() -> Vec<ReplicaLine> {
        let silent = Outcome::Failed(ReplicaFailure::NoAnswer);
        names().lines(&[
            report(1, Role::Primary, Outcome::Stored),
            report(2, Role::Primary, silent),
            ReplicaReport { hedge: true, ..report(3, Role::Fallback { stands_in_for: NodeId(2) }, Outcome::Stored) },
        ])
    }

    #[test]
    fn a_table_tells_who_did_what_and_in_whose_place() {
        let expected = "\
node  as               answer           after  remarks
n1    primary          stored          1.2 ms
n2    primary          did not answer  2.4 ms
n3    fallback for n2  stored          3.6 ms  hint left for n2; asked since another was slow
";
        assert_eq!(table(&a_write(), &Paper::plain()), expected);
    }

    #[test]
    fn a_read_tells_of_repairs() {
        let behind = ReplicaReport { repair: Repair::Done, ..report(2, Role::Primary, Outcome::NotFound) };
        let lines = names().lines(&[report(1, Role::Primary, Outcome::Found { siblings: 2 }), behind]);
        let quorum = Some(QuorumShape { replicas: 2, primaries: 1 });
        let expected = "\
asked 127.0.0.1:1, which needed 2 replicas, 1 of them primary
node  as       answer              after  remarks
n1    primary  found, 2 siblings  1.2 ms
n2    primary  not found          2.4 ms  was behind, repaired
";
        let explain = Explain { quorum, replicas: lines };
        assert_eq!(text(&explain, "127.0.0.1:1", &Paper::plain()), expected);
    }

    #[test]
    fn a_replica_in_json() {
        let lines = a_write();
        assert_eq!(
            json_line(&lines[1]),
            concat!(
                r#"{"node":"n2","role":"primary","stands_in_for":null,"hedge":false,"outcome":"failed","siblings":null,"#,
                r#""failure":{"kind":"no_answer","message":"did not answer"},"took_us":2400,"#,
                r#""repair":"not_needed","repair_failure":null,"hint_left":false}"#
            )
        );
        assert!(
            json_line(&lines[2]).contains(r#""role":"fallback","stands_in_for":"n2","hedge":true,"outcome":"stored""#)
        );
    }
}
