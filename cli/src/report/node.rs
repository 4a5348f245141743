//! One node at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use starling_proto::control::NodeStatus;

use crate::names::Names;
use crate::output::paper::{Paper, Tone, finish, pairs};
use crate::output::units::{age, count, plural, size};
use crate::report::Report;
use crate::report::cluster::{millis, state};
use crate::report::ring::natural;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InfoReport {
    pub nodes: Vec<InfoShape>,
    pub silent: Vec<SilentShape>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InfoShape {
    pub node: String,
    pub id: String,
    pub zone: String,
    pub address: String,
    pub state: &'static str,
    pub reason: Option<String>,
    pub cluster: Option<String>,
    pub layout: Option<u64>,
    pub directory: String,
    pub start: u64,
    pub build: String,
    pub uptime_ms: u64,
    pub partitions: usize,
    pub disk_used_bytes: u64,
    pub disk_free_bytes: Option<u64>,
    pub resident_bytes: Option<u64>,
    pub hints: u64,
    /// Members to which it has a standing connection.
    pub connected: Vec<String>,
    pub counters: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HintsReport {
    pub total: u64,
    pub hints: Vec<HintShape>,
    pub silent: Vec<SilentShape>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HintShape {
    pub node: String,
    pub target: String,
    pub count: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SilentShape {
    pub node: String,
    pub reason: String,
}

impl InfoReport {
    pub fn new(answers: &[NodeStatus], silent: Vec<SilentShape>, names: &Names) -> InfoReport {
        let mut nodes: Vec<InfoShape> = answers.iter().map(|status| InfoShape::new(status, names)).collect();
        nodes.sort_by_key(|node| natural(&node.node));
        InfoReport { nodes, silent }
    }
}

impl InfoShape {
    fn new(status: &NodeStatus, names: &Names) -> InfoShape {
        let mut connected: Vec<String> = status.connected.iter().map(|node| names.node(*node)).collect();
        connected.sort_by_key(|name| natural(name));
        let (state, reason) = state(status);
        InfoShape {
            node: status.name.to_string(),
            id: status.node.to_string(),
            zone: status.zone.to_string(),
            address: status.address.clone(),
            state,
            reason,
            cluster: status.cluster.map(|cluster| cluster.to_string()),
            layout: status.layout.map(|version| version.0),
            directory: status.run.directory.to_string(),
            start: status.run.counter,
            build: status.build.clone(),
            uptime_ms: millis(status.uptime),
            partitions: status.partitions,
            disk_used_bytes: status.disk_used_bytes,
            disk_free_bytes: status.disk_free_bytes,
            resident_bytes: status.resident_bytes,
            hints: status.hints.iter().map(|hints| hints.count).sum(),
            connected,
            counters: status.counters.clone(),
        }
    }

    fn text(&self, paper: &Paper) -> String {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let state = match &self.reason {
            Some(reason) => format!("{}: {reason}", self.state),
            None => self.state.to_owned(),
        };
        let free = self.disk_free_bytes.map(|free| format!(", {} free", size(free))).unwrap_or_default();
        let mut lines = vec![
            ("state", state),
            ("address", self.address.clone()),
            ("zone", self.zone.clone()),
            ("node id", self.id.clone()),
            ("directory", format!("{}, start {}", self.directory, self.start)),
            ("cluster", or_dash(self.cluster.clone())),
            ("layout", or_dash(self.layout.map(|version| version.to_string()))),
            ("partitions", format!("primary of {}", count(self.partitions as u64))),
            ("hints", count(self.hints)),
            ("connected", if self.connected.is_empty() { "-".to_owned() } else { self.connected.join(", ") }),
            ("disk", format!("{}{free}", size(self.disk_used_bytes))),
            ("memory", or_dash(self.resident_bytes.map(size))),
            ("up for", age(Duration::from_millis(self.uptime_ms))),
            ("build", self.build.clone()),
        ];
        lines.extend(self.counters.iter().map(|(name, number)| (name.as_str(), count(*number))));
        format!("{}\n{}", paper.ink(&self.node, Tone::Strong), pairs(paper, &lines))
    }
}

impl Report for InfoReport {
    fn human(&self, paper: &Paper) -> String {
        let blocks: Vec<String> = self.nodes.iter().map(|node| node.text(paper)).collect();
        blocks.join("\n") + &silent_lines(&self.silent, paper)
    }
}

impl HintsReport {
    pub fn new(answers: &[NodeStatus], silent: Vec<SilentShape>, names: &Names) -> HintsReport {
        let of_node = |status: &NodeStatus| {
            let node = status.name.to_string();
            let shape = |hints: &starling_proto::control::HintsFor| HintShape {
                node: node.clone(),
                target: names.node(hints.target),
                count: hints.count,
            };
            status.hints.iter().filter(|hints| hints.count > 0).map(shape).collect::<Vec<_>>()
        };
        let mut hints: Vec<HintShape> = answers.iter().flat_map(of_node).collect();
        hints.sort_by_key(|hint| (natural(&hint.node), natural(&hint.target)));
        HintsReport { total: hints.iter().map(|hint| hint.count).sum(), hints, silent }
    }
}

impl Report for HintsReport {
    fn human(&self, paper: &Paper) -> String {
        let text = if self.hints.is_empty() {
            "no hints: nobody keeps writes for anybody\n".to_owned()
        } else {
            let mut table = paper.table(&["node", "keeps for", "hints"]);
            for hint in &self.hints {
                table.add_row([
                    paper.cell(&hint.node, Tone::Strong),
                    paper.cell(&hint.target, Tone::Plain),
                    paper.cell(&count(hint.count), Tone::Warn),
                ]);
            }
            format!("{}{} in all\n", finish(table, &[2]), plural(self.total, "hint"))
        };
        text + &silent_lines(&self.silent, paper)
    }
}

fn silent_lines(silent: &[SilentShape], paper: &Paper) -> String {
    silent
        .iter()
        .map(|node| format!("{} {}\n", paper.ink(&format!("{}:", node.node), Tone::Bad), node.reason))
        .collect()
}

#[cfg(test)]
pub mod tests {
    use starling_proto::control::NodeStanding;

    use super::*;
    use crate::output::json_line;
    use crate::report::cluster::tests::status;
    use crate::report::explain::tests::names;

    fn silent() -> Vec<SilentShape> {
        vec![SilentShape { node: "n2".to_owned(), reason: "could not be reached".to_owned() }]
    }

    pub fn hints() -> HintsReport {
        HintsReport::new(&[status(1, NodeStanding::Serving)], silent(), &names())
    }

    pub fn info() -> InfoReport {
        InfoReport::new(&[status(1, NodeStanding::Excluded("an old copy".to_owned()))], Vec::new(), &names())
    }

    #[test]
    fn hints_say_who_keeps_how_many_for_whom() {
        let report = hints();
        let expected = "\
node  keeps for  hints
n1    n2         1,234
1,234 hints in all
n2: could not be reached
";
        assert_eq!(report.human(&Paper::plain()), expected);
        let expected = r#"{"total":1234,"hints":[{"node":"n1","target":"n2","count":1234}],"silent":[{"node":"n2","reason":"could not be reached"}]}"#;
        assert_eq!(json_line(&report), expected);
        let none = HintsReport { total: 0, hints: Vec::new(), silent: Vec::new() };
        assert_eq!(none.human(&Paper::plain()), "no hints: nobody keeps writes for anybody\n");
    }

    #[test]
    fn a_node_tells_everything_it_knows_of_itself() {
        let report = info();
        let text = report.human(&Paper::plain());
        assert!(text.starts_with("n1\nstate       excluded: an old copy\naddress     127.0.0.1:7401\n"), "{text}");
        assert!(text.contains("disk        2.0 MiB, 5.0 GiB free\n") && text.ends_with("reads       7\n"), "{text}");
        assert_eq!(
            json_line(&report),
            concat!(
                r#"{"nodes":[{"node":"n1","id":"0000000000000001","zone":"z1","address":"127.0.0.1:7401","#,
                r#""state":"excluded","reason":"an old copy","cluster":null,"layout":1,"directory":"000000000000000b","#,
                r#""start":2,"build":"0.1.0 (abc)","uptime_ms":75000,"partitions":5,"disk_used_bytes":2097152,"#,
                r#""disk_free_bytes":5368709120,"resident_bytes":47185920,"hints":1234,"connected":["n3"],"counters":{"reads":7}}],"silent":[]}"#
            )
        );
    }
}
