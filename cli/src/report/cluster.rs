//! How every node of a cluster is.

use std::time::Duration;

use serde::Serialize;
use starling_core::layout::Layout;
use starling_proto::control::{ClusterView, NodeStanding, NodeStatus, PeerView};

use crate::output::paper::{Paper, Tone, finish};
use crate::output::units::{age, count, plural, size};
use crate::report::Report;
use crate::report::ring::{natural, share};

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StatusReport {
    pub seen_by: String,
    pub cluster: Option<String>,
    pub layout: Option<u64>,
    pub members: Option<usize>,
    pub partitions: Option<u32>,
    pub replicas: Option<usize>,
    /// Members and strangers, ascending by name.
    pub nodes: Vec<NodeShape>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeShape {
    pub node: String,
    pub id: String,
    pub zone: String,
    pub address: String,
    pub member: bool,
    pub alive: bool,
    pub state: &'static str,
    pub reason: Option<String>,
    pub share: Option<f64>,
    pub partitions: Option<usize>,
    /// Writes it keeps for others.
    pub hints: Option<u64>,
    pub disk_used_bytes: Option<u64>,
    pub resident_bytes: Option<u64>,
    pub uptime_ms: Option<u64>,
    pub build: Option<String>,
    pub layout: Option<u64>,
}

/// The state of a node that is no member any more.
pub const LEFT: &str = "left";

/// What a node said of itself, or why nothing.
pub type Answer = Result<NodeStatus, String>;

impl StatusReport {
    /// From what one node sees, and each node's own answer, in the order of [`ClusterView::peers`] and then of the members
    /// that it does not see.
    pub fn new(view: &ClusterView, answers: Vec<(PeerView, Answer)>) -> StatusReport {
        let layout = view.layout.as_ref();
        let mut nodes: Vec<NodeShape> =
            answers.iter().map(|(peer, answer)| NodeShape::new(peer, answer, layout)).collect();
        nodes.sort_by_key(|node| natural(&node.node));
        // While a layout is coming that goes by another id the one that is read has the old one.
        let own = answers.iter().find(|(peer, _)| peer.name == view.seen_by).and_then(|(_, own)| own.as_ref().ok());
        let cluster = layout.map(|layout| own.and_then(|own| own.cluster).unwrap_or(layout.cluster()));
        StatusReport {
            seen_by: view.seen_by.to_string(),
            cluster: cluster.map(|cluster| cluster.to_string()),
            layout: layout.map(|layout| layout.version().0),
            members: layout.map(|layout| layout.members().len()),
            partitions: layout.map(|layout| layout.partitions().get()),
            replicas: layout.map(|layout| layout.replicas().get()),
            nodes,
        }
    }

    fn heading(&self) -> String {
        let (Some(cluster), Some(layout), Some(members)) = (&self.cluster, self.layout, self.members) else {
            return format!("no cluster yet: {} seen by {}\n", plural(self.nodes.len() as u64, "node"), self.seen_by);
        };
        format!(
            "cluster {cluster}, layout {layout}, seen by {}\n{}, {}, {}\n",
            self.seen_by,
            plural(members as u64, "member"),
            plural(u64::from(self.partitions.unwrap_or(0)), "partition"),
            plural(self.replicas.unwrap_or(0) as u64, "replica"),
        )
    }

    fn remarks(&self, paper: &Paper) -> String {
        let mut text = String::new();
        if self.cluster.is_none() {
            text.push_str("\nnext: `starling cluster init` makes these nodes a cluster\n");
        }
        for node in self.nodes.iter().filter(|node| node.reason.is_some()) {
            let reason = node.reason.as_deref().unwrap_or_default();
            text.push_str(&format!("\n{}\n", paper.wrap(&format!("{}: {reason}", node.node))));
        }
        text
    }
}

impl NodeShape {
    fn new(peer: &PeerView, answer: &Answer, layout: Option<&Layout>) -> NodeShape {
        let member = layout.and_then(|layout| layout.member(peer.node));
        let status = answer.as_ref().ok();
        let (state, reason) = match answer {
            Ok(status) => state(status),
            Err(reason) => ("silent", Some(reason.clone())),
        };
        NodeShape {
            node: peer.name.to_string(),
            id: peer.node.to_string(),
            zone: peer.zone.to_string(),
            address: peer.address.clone(),
            member: member.is_some(),
            alive: peer.alive,
            state,
            reason,
            share: layout.zip(member).map(|(layout, member)| share_of(layout, member.node)),
            partitions: status.map(|status| status.partitions),
            hints: status.map(|status| status.hints.iter().map(|hints| hints.count).sum()),
            disk_used_bytes: status.map(|status| status.disk_used_bytes),
            resident_bytes: status.and_then(|status| status.resident_bytes),
            uptime_ms: status.map(|status| millis(status.uptime)),
            build: status.map(|status| status.build.clone()),
            layout: status.map_or(peer.layout, |status| status.layout).map(|version| version.0),
        }
    }

    fn state_tone(&self) -> Tone {
        match self.state {
            "serving" => Tone::Good,
            "uninitialised" | "stopping" | "filling" => Tone::Warn,
            _ => Tone::Bad,
        }
    }

    /// One word for the table.
    fn state_text(&self) -> String {
        match (self.state, self.alive, self.member) {
            ("silent", false, _) => "down".to_owned(),
            ("silent", true, _) => "silent".to_owned(),
            ("uninitialised", ..) => "new".to_owned(),
            ("serving", false, _) => "up, unseen".to_owned(),
            (state, ..) => state.to_owned(),
        }
    }
}

/// How a node stands, in a word, and the reason.
pub fn state(status: &NodeStatus) -> (&'static str, Option<String>) {
    match &status.standing {
        NodeStanding::Uninitialised => ("uninitialised", None),
        NodeStanding::Serving if is_filling(status) => ("filling", None),
        NodeStanding::Serving => ("serving", None),
        NodeStanding::Excluded(reason) => ("excluded", Some(reason.clone())),
        NodeStanding::Failed(reason) => ("failed", Some(reason.clone())),
        NodeStanding::Stopping => ("stopping", None),
        NodeStanding::Left => (LEFT, None),
    }
}

/// It serves, and counts in reads of some partitions only.
fn is_filling(status: &NodeStatus) -> bool {
    status.counters.get("filling_partitions").is_some_and(|partitions| *partitions > 0)
}

pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn share_of(layout: &Layout, node: starling_core::ids::NodeId) -> f64 {
    let mut held = layout.members().iter().zip(layout.shares());
    share(held.find(|(member, _)| member.node == node).map_or(0, |(_, held)| held), layout)
}

impl Report for StatusReport {
    fn human(&self, paper: &Paper) -> String {
        let mut table =
            paper.table(&["node", "zone", "address", "state", "share", "hints", "disk", "memory", "up for"]);
        let dash = || "-".to_owned();
        for node in &self.nodes {
            let share = node.share.map_or_else(dash, |share| format!("{:.1}%", share * 100.0));
            let uptime = node.uptime_ms.map_or_else(dash, |ms| age(Duration::from_millis(ms)));
            let hints = node.hints.map_or_else(dash, count);
            table.add_row([
                paper.cell(&node.node, Tone::Strong),
                paper.cell(&node.zone, Tone::Plain),
                paper.cell(&node.address, Tone::Plain),
                paper.cell(&node.state_text(), node.state_tone()),
                paper.cell(&share, Tone::Plain),
                paper.cell(&hints, if node.hints.unwrap_or(0) > 0 { Tone::Warn } else { Tone::Plain }),
                paper.cell(&node.disk_used_bytes.map_or_else(dash, size), Tone::Plain),
                paper.cell(&node.resident_bytes.map_or_else(dash, size), Tone::Plain),
                paper.cell(&uptime, Tone::Plain),
            ]);
        }
        format!("{}\n{}{}", self.heading(), finish(table, &[4, 5, 6, 7, 8]), self.remarks(paper))
    }
}

#[cfg(test)]
pub mod tests {
    use starling_core::ids::{DirectoryId, NodeId, Run};
    use starling_core::layout::LayoutVersion;
    use starling_proto::control::HintsFor;

    use super::*;
    use crate::output::json_line;
    use crate::report::tests::layout;

    pub fn peer(number: u64, alive: bool) -> PeerView {
        PeerView {
            name: format!("n{number}").parse().unwrap(),
            node: NodeId(number),
            zone: "z1".parse().unwrap(),
            address: format!("127.0.0.1:740{number}"),
            alive,
            standing: "serving".to_owned(),
            cluster: None,
            layout: Some(LayoutVersion(1)),
            build: "0.1.0".to_owned(),
            hints_for: Vec::new(),
        }
    }

    pub fn status(number: u64, standing: NodeStanding) -> NodeStatus {
        NodeStatus {
            name: format!("n{number}").parse().unwrap(),
            node: NodeId(number),
            run: Run { directory: DirectoryId(10 + number), counter: 2, nonce: 3 },
            zone: "z1".parse().unwrap(),
            address: format!("127.0.0.1:740{number}"),
            standing,
            cluster: None,
            layout: Some(LayoutVersion(1)),
            build: "0.1.0 (abc)".to_owned(),
            uptime: Duration::from_secs(75),
            partitions: 5,
            disk_used_bytes: 2 << 20,
            disk_free_bytes: Some(5 << 30),
            resident_bytes: Some(45 << 20),
            hints: vec![HintsFor { target: NodeId(2), count: 1_234 }],
            connected: vec![NodeId(3)],
            counters: [("reads".to_owned(), 7)].into(),
        }
    }

    pub fn report() -> StatusReport {
        let answers = vec![
            (peer(1, true), Ok(status(1, NodeStanding::Serving))),
            (peer(2, false), Err("could not be reached".to_owned())),
        ];
        let peers = answers.iter().map(|(peer, _)| peer.clone()).collect();
        let view = ClusterView { seen_by: "n1".parse().unwrap(), layout: Some(layout()), peers };
        StatusReport::new(&view, answers)
    }

    #[test]
    fn a_person_sees_who_is_down_and_why() {
        let expected = "\
cluster 00000000000000c1, layout 1, seen by n1
5 members, 8 partitions, 3 replicas

node  zone  address         state    share  hints     disk    memory  up for
n1    z1    127.0.0.1:7401  serving  16.7%  1,234  2.0 MiB  45.0 MiB  1m 15s
n2    z1    127.0.0.1:7402  down     16.7%      -        -         -       -

n2: could not be reached
";
        assert_eq!(report().human(&Paper::plain()), expected);
    }

    #[test]
    fn without_a_cluster_the_next_step_is_named() {
        let answers = vec![(peer(1, true), Ok(status(1, NodeStanding::Uninitialised)))];
        let view = ClusterView { seen_by: "n1".parse().unwrap(), layout: None, peers: Vec::new() };
        let text = StatusReport::new(&view, answers).human(&Paper::plain());
        assert!(text.starts_with("no cluster yet: 1 node seen by n1\n"), "{text}");
        assert!(text.ends_with("next: `starling cluster init` makes these nodes a cluster\n"), "{text}");
    }

    #[test]
    fn a_status_in_json() {
        let text = json_line(&report());
        let first = concat!(
            r#"{"seen_by":"n1","cluster":"00000000000000c1","layout":1,"members":5,"partitions":8,"replicas":3,"nodes":["#,
            r#"{"node":"n1","id":"0000000000000001","zone":"z1","address":"127.0.0.1:7401","member":true,"alive":true,"#,
            r#""state":"serving","reason":null,"share":0.1667,"partitions":5,"hints":1234,"disk_used_bytes":2097152,"#,
            r#""resident_bytes":47185920,"uptime_ms":75000,"build":"0.1.0 (abc)","layout":1},"#
        );
        assert!(text.starts_with(first), "{text}");
        assert!(text.contains(r#""state":"silent","reason":"could not be reached""#), "{text}");
    }
}
