//! What is deleted or has expired, and is not forgotten yet, and what that waits for.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use starling_core::reaping::Stage;
use starling_proto::control::{HeldUp, ReapingRound, Tombstones};

use crate::names::Names;
use crate::output::paper::{Paper, Tone, finish};
use crate::output::units::{age, count, plural};
use crate::report::Report;
use crate::report::cluster::millis;
use crate::report::node::SilentShape;
use crate::report::ring::natural;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TombstonesReport {
    pub pending: u64,
    pub due: u64,
    /// Ascending by name.
    pub nodes: Vec<TombstonesShape>,
    /// Ascending by partition.
    pub rounds: Vec<RoundShape>,
    pub silent: Vec<SilentShape>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TombstonesShape {
    pub node: String,
    pub pending: u64,
    pub more: bool,
    pub due: u64,
    pub oldest_ms: Option<u64>,
    pub reaped: u64,
    pub held_up: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RoundShape {
    pub partition: u16,
    pub led_by: String,
    pub stage: &'static str,
    pub keys: usize,
    pub since_ms: u64,
    pub waits_for: Vec<WaitedFor>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WaitedFor {
    pub node: String,
    pub reason: Option<String>,
}

impl TombstonesReport {
    pub fn new(said: &[(String, Tombstones)], silent: Vec<SilentShape>, names: &Names) -> TombstonesReport {
        let mut nodes: Vec<TombstonesShape> =
            said.iter().map(|(node, said)| TombstonesShape::new(node, said)).collect();
        nodes.sort_by_key(|node| natural(&node.node));
        let of_node = |(node, said): &(String, Tombstones)| -> Vec<RoundShape> {
            said.rounds.iter().map(|round| RoundShape::new(node, round, names)).collect()
        };
        let mut rounds: Vec<RoundShape> = said.iter().flat_map(of_node).collect();
        rounds.sort_by_key(|round| round.partition);
        TombstonesReport {
            pending: nodes.iter().map(|node| node.pending).sum(),
            due: nodes.iter().map(|node| node.due).sum(),
            nodes,
            rounds,
            silent,
        }
    }
}

impl TombstonesShape {
    fn new(node: &str, said: &Tombstones) -> TombstonesShape {
        let Tombstones { pending, more, due, oldest, held_up, reaped, .. } = said;
        TombstonesShape {
            node: node.to_owned(),
            pending: *pending,
            more: *more,
            due: *due,
            oldest_ms: oldest.map(millis),
            reaped: *reaped,
            held_up: held_up.as_ref().map(reason),
        }
    }
}

impl RoundShape {
    fn new(led_by: &str, round: &ReapingRound, names: &Names) -> RoundShape {
        let ReapingRound { partition, stage, keys, since, waits_for, .. } = round;
        let waited_for = waits_for.iter();
        let waited_for = waited_for.map(|(node, reason)| WaitedFor { node: names.node(*node), reason: reason.clone() });
        RoundShape {
            partition: partition.0,
            led_by: led_by.to_owned(),
            stage: match stage {
                Stage::Asking => "asking",
                Stage::Marking => "marking",
                Stage::Ending | Stage::Over => "ending",
            },
            keys: *keys,
            since_ms: millis(*since),
            waits_for: waited_for.collect(),
        }
    }

    fn text(&self) -> String {
        let waited_for = self.waits_for.iter().map(|waited_for| match &waited_for.reason {
            Some(reason) => format!("{}, which {reason}", waited_for.node),
            None => waited_for.node.clone(),
        });
        format!(
            "partition {}, {} ({}), for {}: {}",
            self.partition,
            plural(self.keys as u64, "key"),
            self.stage,
            age(Duration::from_millis(self.since_ms)),
            waited_for.collect::<Vec<_>>().join("; ")
        )
    }
}

fn reason(held_up: &HeldUp) -> String {
    match held_up {
        HeldUp::RingChanges => "the ring is changing".to_owned(),
        HeldUp::Leavers(names) => {
            let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
            format!(
                "{} left and may hold copies yet: let it run until it has brought them home, or remove it if it is gone",
                names.join(", ")
            )
        }
        HeldUp::Clock => {
            "its clock was set lately, was not compared with enough peers' yet, or is ahead of them: what has expired stays".to_owned()
        }
        HeldUp::Filling(partitions) => format!("it is filling up: {} left", plural(*partitions as u64, "partition")),
    }
}

impl Report for TombstonesReport {
    fn human(&self, paper: &Paper) -> String {
        let mut table = paper.table(&["node", "pending", "due", "oldest", "reaped"]);
        for node in &self.nodes {
            let oldest = node.oldest_ms.map_or_else(|| "-".to_owned(), |ms| age(Duration::from_millis(ms)));
            let more = if node.more { "over " } else { "" };
            table.add_row([
                paper.cell(&node.node, Tone::Strong),
                paper.cell(&format!("{more}{}", count(node.pending)), Tone::Plain),
                paper.cell(&count(node.due), Tone::Plain),
                paper.cell(&oldest, Tone::Plain),
                paper.cell(&count(node.reaped), Tone::Plain),
            ]);
        }
        let mut text = finish(table, &[1, 2, 3, 4]);
        let mut held_up: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for node in &self.nodes {
            if let Some(reason) = &node.held_up {
                held_up.entry(reason).or_default().push(&node.node);
            }
        }
        for (reason, nodes) in held_up {
            text.push_str(&paper.labelled("held up:", Tone::Bad, &format!("{}: {reason}", nodes.join(", "))));
        }
        for round in self.rounds.iter().filter(|round| !round.waits_for.is_empty()) {
            text.push_str(&paper.labelled("waits:", Tone::Faint, &round.text()));
        }
        for node in &self.silent {
            text.push_str(&paper.labelled("silent:", Tone::Bad, &format!("{}: {}", node.node, node.reason)));
        }
        text
    }
}

#[cfg(test)]
pub mod tests {
    use starling_core::ids::NodeId;
    use starling_core::token::Partition;

    use super::*;
    use crate::report::explain::tests::names;

    pub fn report() -> TombstonesReport {
        let round = ReapingRound {
            partition: Partition(17),
            number: 3,
            stage: Stage::Asking,
            keys: 12,
            since: Duration::from_secs(75),
            waits_for: [(NodeId(3), Some("could not be reached".to_owned()))].into(),
        };
        let leads = Tombstones {
            pending: 1234,
            more: false,
            due: 12,
            oldest: Some(Duration::from_secs(3720)),
            held_up: None,
            rounds: vec![round],
            reaped: 40,
        };
        let idle = Tombstones { held_up: Some(HeldUp::Leavers(vec!["n4".parse().unwrap()])), ..Tombstones::default() };
        let silent = vec![SilentShape { node: "n3".to_owned(), reason: "could not be reached".to_owned() }];
        TombstonesReport::new(&[("n2".to_owned(), idle), ("n1".to_owned(), leads)], silent, &names())
    }

    #[test]
    fn what_is_deleted_says_what_it_waits_for() {
        let expected = "\
node  pending  due  oldest  reaped
n1      1,234   12   1h 2m      40
n2          0    0       -       0
held up: n2: n4 left and may hold copies yet: let it run until it has brought them home, or remove it if it is gone
waits: partition 17, 12 keys (asking), for 1m 15s: n3, which could not be reached
silent: n3: could not be reached
";
        assert_eq!(report().human(&Paper::plain()), expected);
    }
}
