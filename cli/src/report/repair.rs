//! What comparing replicas, and checking what they hold, came to.

use serde::Serialize;
use starling_proto::control::{Flaw, FlawKind, Repairing, VerifiedPage};

use crate::names::Names;
use crate::output::bytes::Blob;
use crate::output::paper::{Paper, Tone, finish};
use crate::output::units::{count, plural, size};
use crate::report::Report;
use crate::report::node::SilentShape;
use crate::report::ring::natural;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RepairReport {
    /// Nobody compares any more.
    pub over: bool,
    /// All that is to be compared was.
    pub complete: bool,
    pub compared: u64,
    pub comparisons: u64,
    pub differences: u64,
    /// Ascending by name.
    pub nodes: Vec<RepairShape>,
    pub silent: Vec<SilentShape>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RepairShape {
    pub node: String,
    pub compared: u64,
    pub comparisons: u64,
    pub differences: u64,
    pub failed: Vec<SilentShape>,
    #[serde(skip)]
    over: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    pub flawless: bool,
    pub nodes: Vec<VerifiedShape>,
    pub silent: Vec<SilentShape>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifiedShape {
    pub node: String,
    pub partitions: usize,
    pub records: u64,
    pub bytes: u64,
    pub flaws: Vec<FlawShape>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FlawShape {
    pub partition: u16,
    pub bucket: Option<String>,
    pub key: Option<Blob>,
    pub flaw: &'static str,
    pub reason: Option<String>,
}

impl RepairReport {
    pub fn new(mut nodes: Vec<RepairShape>, silent: Vec<SilentShape>) -> RepairReport {
        nodes.sort_by_key(|node| natural(&node.node));
        let is_whole = |node: &RepairShape| node.failed.is_empty() && node.compared == node.comparisons;
        RepairReport {
            over: nodes.iter().all(|node| node.over),
            complete: silent.is_empty() && nodes.iter().all(is_whole),
            compared: nodes.iter().map(|node| node.compared).sum(),
            comparisons: nodes.iter().map(|node| node.comparisons).sum(),
            differences: nodes.iter().map(|node| node.differences).sum(),
            nodes,
            silent,
        }
    }

    /// In a few words.
    pub fn progress(&self) -> String {
        format!(
            "{} of {} compared, {} found",
            count(self.compared),
            plural(self.comparisons, "partition"),
            plural(self.differences, "difference")
        )
    }
}

impl RepairShape {
    pub fn new(node: String, answer: Result<Repairing, String>, names: &Names) -> RepairShape {
        match answer {
            Ok(Repairing { compared, all, differences, failed, is_over }) => {
                let failed = failed.into_iter().map(|(peer, reason)| SilentShape { node: names.node(peer), reason });
                RepairShape { node, compared, comparisons: all, differences, failed: failed.collect(), over: is_over }
            }
            Err(reason) => RepairShape {
                failed: vec![SilentShape { node: node.clone(), reason }],
                node,
                compared: 0,
                comparisons: 0,
                differences: 0,
                over: true,
            },
        }
    }
}

impl VerifiedShape {
    pub fn new(node: String, page: &VerifiedPage) -> VerifiedShape {
        let VerifiedPage { partitions, records, bytes, flaws, .. } = page;
        let flaws = flaws.iter().map(FlawShape::new).collect();
        VerifiedShape { node, partitions: *partitions, records: *records, bytes: *bytes, flaws }
    }
}

impl FlawShape {
    fn new(flaw: &Flaw) -> FlawShape {
        let (word, reason) = match &flaw.kind {
            FlawKind::Unreadable(reason) => ("unreadable", Some(reason.clone())),
            FlawKind::WrongLeaf => ("wrong_leaf", None),
            FlawKind::LeafWithoutRecord => ("leaf_without_record", None),
            FlawKind::WrongSum => ("wrong_sum", None),
            FlawKind::Misplaced => ("misplaced", None),
        };
        FlawShape {
            partition: flaw.partition.0,
            bucket: flaw.key.as_ref().map(|key| key.bucket().to_string()),
            key: flaw.key.as_ref().map(|key| Blob(key.key().clone())),
            flaw: word,
            reason,
        }
    }

    fn text(&self) -> String {
        let what = match self.flaw {
            "unreadable" => "the record cannot be read",
            "wrong_leaf" => "the hash tree says otherwise",
            "leaf_without_record" => "the hash tree knows it, and there is no record",
            "wrong_sum" => "a sum of the hash tree is not that of its leaves",
            _ => "an entry lies under a key that makes no sense",
        };
        let of = match (&self.bucket, &self.key) {
            (Some(bucket), Some(key)) => format!("{bucket} {}: ", key.shell_word()),
            _ => String::new(),
        };
        let reason = self.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        format!("partition {}: {of}{what}{reason}", self.partition)
    }
}

fn silence(silent: &[SilentShape], paper: &Paper) -> String {
    let line = |node: &SilentShape| paper.labelled("silent:", Tone::Bad, &format!("{}: {}", node.node, node.reason));
    silent.iter().map(line).collect()
}

impl Report for RepairReport {
    fn human(&self, paper: &Paper) -> String {
        let mut table = paper.table(&["node", "compared", "differences"]);
        for node in &self.nodes {
            table.add_row([
                paper.cell(&node.node, Tone::Strong),
                paper.cell(&format!("{} of {}", count(node.compared), count(node.comparisons)), Tone::Plain),
                paper.cell(&count(node.differences), Tone::Plain),
            ]);
        }
        let mut text = finish(table, &[1, 2]);
        for node in &self.nodes {
            for failed in &node.failed {
                let line = format!("{} is not done with {}: {}", node.node, failed.node, failed.reason);
                text.push_str(&paper.labelled("failed:", Tone::Bad, &line));
            }
        }
        text.push_str(&silence(&self.silent, paper));
        if !self.over {
            text.push_str(&paper.labelled("next:", Tone::Faint, "it goes on by itself; with --wait you see its end"));
        }
        text
    }
}

impl Report for VerifyReport {
    fn human(&self, paper: &Paper) -> String {
        let mut table = paper.table(&["node", "partitions", "records", "bytes", "flaws"]);
        for node in &self.nodes {
            let tone = if node.flaws.is_empty() { Tone::Good } else { Tone::Bad };
            table.add_row([
                paper.cell(&node.node, Tone::Strong),
                paper.cell(&count(node.partitions as u64), Tone::Plain),
                paper.cell(&count(node.records), Tone::Plain),
                paper.cell(&size(node.bytes), Tone::Plain),
                paper.cell(&count(node.flaws.len() as u64), tone),
            ]);
        }
        let mut text = finish(table, &[1, 2, 3, 4]);
        for node in &self.nodes {
            for flaw in &node.flaws {
                text.push_str(&paper.labelled("flaw:", Tone::Bad, &format!("{}, {}", node.node, flaw.text())));
            }
        }
        text + &silence(&self.silent, paper)
    }
}

#[cfg(test)]
pub mod tests {
    use starling_core::ids::NodeId;
    use starling_core::name::ObjectKey;
    use starling_core::token::Partition;

    use super::*;
    use crate::report::explain::tests::names;

    pub fn repaired() -> RepairReport {
        let with = |failed: Option<u64>| Repairing {
            compared: if failed.is_some() { 3 } else { 8 },
            all: 8,
            differences: 2,
            failed: failed.map(|peer| (NodeId(peer), "could not be reached".to_owned())).into_iter().collect(),
            is_over: true,
        };
        let nodes = vec![
            RepairShape::new("n1".to_owned(), Ok(with(None)), &names()),
            RepairShape::new("n2".to_owned(), Ok(with(Some(3))), &names()),
        ];
        RepairReport::new(nodes, vec![SilentShape { node: "n3".to_owned(), reason: "did not answer".to_owned() }])
    }

    pub fn verified() -> VerifyReport {
        let key = ObjectKey::new("carts".parse().unwrap(), "alice").unwrap();
        let flaw = |key: Option<&ObjectKey>, kind| Flaw { partition: Partition(4), key: key.cloned(), kind };
        let flaws = vec![flaw(Some(&key), FlawKind::WrongLeaf), flaw(None, FlawKind::WrongSum)];
        let page = VerifiedPage { next: None, partitions: 8, records: 1234, bytes: 3 << 20, flaws };
        let nodes = vec![VerifiedShape::new("n1".to_owned(), &page)];
        VerifyReport { flawless: false, nodes, silent: Vec::new() }
    }

    #[test]
    fn a_repair_says_who_compared_what_and_what_was_in_the_way() {
        let expected = "\
node  compared  differences
n1      8 of 8            2
n2      3 of 8            2
failed: n2 is not done with n3: could not be reached
silent: n3: did not answer
";
        assert_eq!(repaired().human(&Paper::plain()), expected);
        assert!(repaired().over && !repaired().complete);
        assert_eq!(repaired().progress(), "11 of 16 partitions compared, 4 differences found");
    }

    #[test]
    fn every_flaw_is_told() {
        let expected = "\
node  partitions  records    bytes  flaws
n1             8    1,234  3.0 MiB      2
flaw: n1, partition 4: carts alice: the hash tree says otherwise
flaw: n1, partition 4: a sum of the hash tree is not that of its leaves
";
        assert_eq!(verified().human(&Paper::plain()), expected);
    }
}
