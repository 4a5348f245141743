//! What commands print.
//!
//! Each command's result is a report: a value that can be written as JSON (`-o json`: one value on one line of standard
//! output) or for people (tables, colour on a terminal only). Both forms are made here and nowhere else, from plain values,
//! so that tests need no cluster. Golden tests beside each report pin its JSON.
//!
//! The shapes are promised in `docs/json.md`: fields are only ever added. `documented.rs` compares it with what is written
//! here, and fails if an example differs, or a field is not explained.
//!
//! A failure goes to standard error, so that standard output holds results only. A key that is not found is no failure:
//! `get` prints its shape with `"found": false` and exits with 3.

pub mod bench;
pub mod bucket;
pub mod cluster;
#[cfg(test)]
mod documented;
pub mod explain;
pub mod force;
pub mod get;
pub mod history;
pub mod import;
pub mod listing;
pub mod local;
pub mod locate;
pub mod node;
pub mod plan;
pub mod repair;
pub mod ring;
pub mod tombstones;
pub mod transfers;
pub mod write;

use serde::Serialize;
use starling_core::object::SiblingMode;

use crate::failure::Failure;
use crate::output::paper::{Paper, Tone};

/// A result that can be printed in both forms.
pub trait Report: Serialize {
    /// For people. Ends with a line break, unless it is empty.
    fn human(&self, paper: &Paper) -> String;
}

#[derive(Debug, Serialize)]
pub struct ErrorReport<'a> {
    pub error: &'a Failure,
}

impl Report for ErrorReport<'_> {
    fn human(&self, paper: &Paper) -> String {
        let Failure { message, hint, replicas, .. } = self.error;
        let mut text = paper.labelled("error:", Tone::Bad, message);
        if !replicas.is_empty() {
            text.push_str(&explain::table(replicas, paper));
        }
        if let Some(hint) = hint {
            text.push_str(&paper.labelled("next:", Tone::Warn, hint));
        }
        text
    }
}

/// A bucket's sibling mode in JSON.
pub fn mode_word(mode: SiblingMode) -> &'static str {
    match mode {
        SiblingMode::Keep => "siblings",
        SiblingMode::LastWriteWins => "last_write_wins",
    }
}

#[cfg(test)]
pub mod tests {
    use std::collections::BTreeMap;

    use starling_core::ids::{ClusterId, DirectoryId, NodeId};
    use starling_core::layout::{FirstLayout, Layout, Member};
    use starling_core::quorum::ReplicaCount;
    use starling_core::token::PartitionCount;

    use super::*;
    use crate::failure::Kind;
    use crate::output::json_line;

    /// Five members in three zones, 8 partitions.
    pub fn layout() -> Layout {
        let member = |number: u64| Member {
            node: NodeId(number),
            directory: DirectoryId(10 + number),
            name: format!("n{number}").parse().unwrap(),
            zone: format!("z{}", (number - 1) % 3 + 1).parse().unwrap(),
            weight: 1,
            address: format!("127.0.0.1:740{number}"),
        };
        Layout::first(FirstLayout {
            cluster: ClusterId(0xc1),
            partitions: PartitionCount::try_from(8).unwrap(),
            replicas: ReplicaCount::DEFAULT,
            members: (1..=5).map(member).collect(),
            buckets: BTreeMap::new(),
        })
        .unwrap()
    }

    pub fn failure() -> Failure {
        Failure::new(Kind::NoCluster, "n1 belongs to no cluster yet").hint("run `starling cluster init`")
    }

    #[test]
    fn a_failure_says_what_to_do_next() {
        let failure = failure();
        let report = ErrorReport { error: &failure };
        let expected = "error: n1 belongs to no cluster yet\nnext: run `starling cluster init`\n";
        assert_eq!(report.human(&Paper::plain()), expected);
        assert_eq!(
            json_line(&report),
            r#"{"error":{"kind":"no_cluster","message":"n1 belongs to no cluster yet","hint":"run `starling cluster init`"}}"#
        );
    }
}
