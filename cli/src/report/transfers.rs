//! What moves because the ring changes, and what that waits for.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;
use starling_core::ids::NodeId;
use starling_core::ring::Phase;
use starling_proto::control::{Copying, FillingUp, Transition};

use crate::commands::cluster::Said;
use crate::names::Names;
use crate::output::paper::{Paper, Tone, finish};
use crate::output::units::{age, count, plural, size};
use crate::report::Report;
use crate::report::cluster::{LEFT, millis, state};
use crate::report::ring::natural;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TransfersReport {
    pub phase: &'static str,
    pub epoch: u64,
    /// The layout that is read, and the one where this leads.
    pub read: u64,
    pub newest: u64,
    /// Who moves something, or is waited for; ascending by name.
    pub nodes: Vec<NodeTransfers>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeTransfers {
    pub node: String,
    pub state: &'static str,
    pub epoch: Option<u64>,
    pub waited_for: Option<String>,
    pub copying: Option<CopyingShape>,
    pub filling: Option<FillingShape>,
    pub held: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FillingShape {
    pub partitions: usize,
    /// With whom it has yet to be compared.
    pub left: Vec<LeftShape>,
    pub stalled: Vec<Stall>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftShape {
    pub source: String,
    pub partitions: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CopyingShape {
    pub pulls_done: usize,
    pub pulls: usize,
    pub keys: u64,
    pub bytes: u64,
    pub bytes_a_second: u64,
    pub left_ms: Option<u64>,
    pub stalled: Vec<Stall>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stall {
    pub source: String,
    pub reason: String,
}

impl TransfersReport {
    pub fn new(transition: &Transition, said: &[Said], names: &Names) -> TransfersReport {
        let Transition { epoch, phase, read, newest, waiting, .. } = transition;
        let lack_of = |node: NodeId| waiting.get(&node).map(ToString::to_string);
        let row = |(peer, said): &Said| NodeTransfers {
            node: peer.name.to_string(),
            state: said.as_ref().map_or("silent", |said| state(&said.status).0),
            epoch: said.as_ref().and_then(|said| said.transfers.epoch).map(|epoch| epoch.0),
            waited_for: lack_of(peer.node),
            copying: said.as_ref().and_then(|said| said.transfers.copying.as_ref()).map(|it| shape(it, names)),
            filling: said.as_ref().and_then(|said| FillingShape::new(&said.filling, names)),
            held: said.as_ref().map(|said| said.transfers.held),
        };
        let mut nodes: Vec<NodeTransfers> = said.iter().map(row).collect();
        let is_known = |node: NodeId| said.iter().any(|(peer, _)| peer.node == node);
        let unknown = waiting.keys().filter(|node| !is_known(**node)).map(|node| NodeTransfers {
            node: names.node(*node),
            state: "silent",
            epoch: None,
            waited_for: lack_of(*node),
            copying: None,
            filling: None,
            held: None,
        });
        nodes.extend(unknown);
        nodes.retain(|node| node.is_of_interest() || node.is_behind(epoch.0));
        nodes.sort_by_key(|node| natural(&node.node));
        TransfersReport { phase: phase_word(*phase), epoch: epoch.0, read: read.0, newest: newest.0, nodes }
    }

    /// Nothing moves, and nobody is waited for.
    pub fn is_over(&self) -> bool {
        let moves = |node: &NodeTransfers| node.held.unwrap_or(0) > 0 || node.filling.is_some();
        let done = |node: &NodeTransfers| !moves(node) && !node.is_behind(self.epoch);
        self.phase == phase_word(Phase::Settled) && self.nodes.iter().all(done)
    }

    /// What is left of the change to a layout, in a few words: also that a node does not know of it yet, or has left and
    /// holds something. None if that change is over.
    pub fn left_to_do(&self, version: u64, leavers: &[String]) -> Option<String> {
        if self.phase == phase_word(Phase::Settled) && self.read >= version {
            let rest = self.nodes.iter().find_map(|node| node.rest(self.epoch));
            // Only its own word says that it holds nothing.
            let is_heard = |leaver: &String| self.nodes.iter().any(|node| node.node == *leaver && node.has_left());
            let unheard = leavers.iter().find(|leaver| !is_heard(leaver));
            let unheard =
                unheard.map(|leaver| (leaver.as_str(), "has not said yet that it has left and holds nothing"));
            return rest.or(unheard).map(|(node, what)| format!("{node} {what}"));
        }
        let waited_for = self.nodes.iter().filter_map(|node| Some((node, node.waited_for.as_ref()?)));
        let told: Vec<String> =
            waited_for.map(|(node, why)| format!("{} {why}{}", node.node, node.progress())).collect();
        Some(if told.is_empty() { "the next phase is being chosen".to_owned() } else { told.join(", ") })
    }

    fn heading(&self) -> String {
        let (read, newest) = (self.read, self.newest);
        match self.phase {
            "dual" => format!(
                "layout {read} → {newest}, dual: writes go to both, reads to {read}, until the new primaries have copied\n"
            ),
            "switch" => format!(
                "layout {newest}, switch: it is read, and the one before is still written, until every node knows\n"
            ),
            _ => format!("layout {read} is settled\n"),
        }
    }

    fn stalls(&self, paper: &Paper) -> String {
        let mut text = String::new();
        for node in &self.nodes {
            for stall in node.copying.iter().flat_map(|copying| &copying.stalled) {
                let line = format!("{} cannot copy from {}: it {}", node.node, stall.source, stall.reason);
                text.push_str(&paper.labelled("stalled:", Tone::Bad, &line));
            }
            for stall in node.filling.iter().flat_map(|filling| &filling.stalled) {
                let line = format!("{} cannot fill up from {}: it {}", node.node, stall.source, stall.reason);
                text.push_str(&paper.labelled("stalled:", Tone::Bad, &line));
            }
        }
        text
    }
}

impl NodeTransfers {
    fn is_of_interest(&self) -> bool {
        let moves = self.copying.is_some() || self.filling.is_some() || self.held.unwrap_or(0) > 0;
        moves || self.waited_for.is_some() || self.has_left()
    }

    /// It answers, and has not learnt yet what others know.
    fn is_behind(&self, epoch: u64) -> bool {
        self.epoch.is_some_and(|own| own < epoch)
    }

    /// Why a change is not over yet for this node.
    fn rest(&self, epoch: u64) -> Option<(&str, &'static str)> {
        if self.is_behind(epoch) {
            return Some((&self.node, "does not know yet that it is over"));
        }
        let holds = self.has_left() && self.held.unwrap_or(0) > 0;
        holds.then_some((&self.node, "has left, and brings home what it holds"))
    }

    fn has_left(&self) -> bool {
        self.state == LEFT
    }

    fn progress(&self) -> String {
        self.copying.as_ref().map_or_else(String::new, |copying| {
            let left = copying.left_ms.map(|ms| format!(", {} left", age(Duration::from_millis(ms))));
            format!(" ({} of {}{})", copying.pulls_done, copying.pulls, left.unwrap_or_default())
        })
    }

    fn remark(&self, epoch: u64) -> String {
        match (&self.waited_for, self.has_left(), self.held) {
            (Some(lack), ..) => lack.clone(),
            _ if self.is_behind(epoch) => "does not know yet".to_owned(),
            _ if self.filling.is_some() => {
                let partitions = self.filling.as_ref().map_or(0, |filling| filling.partitions);
                format!("is filling up: {} left", plural(partitions as u64, "partition"))
            }
            (None, true, Some(0)) => "has left, and can be stopped".to_owned(),
            (None, true, _) => "has left, and brings home what it holds".to_owned(),
            (None, false, _) => String::new(),
        }
    }
}

impl FillingShape {
    /// None of a node that lacks nothing.
    fn new(filling: &FillingUp, names: &Names) -> Option<FillingShape> {
        let FillingUp { partitions, left, stalled } = filling;
        let left =
            left.iter().map(|(source, partitions)| LeftShape { source: names.node(*source), partitions: *partitions });
        (*partitions > 0).then(|| FillingShape {
            partitions: *partitions,
            left: left.collect(),
            stalled: stalls(stalled, names),
        })
    }
}

fn stalls(stalled: &BTreeMap<NodeId, String>, names: &Names) -> Vec<Stall> {
    stalled.iter().map(|(source, reason)| Stall { source: names.node(*source), reason: reason.clone() }).collect()
}

fn phase_word(phase: Phase) -> &'static str {
    match phase {
        Phase::Settled => "settled",
        Phase::Dual => "dual",
        Phase::Switch => "switch",
    }
}

fn shape(copying: &Copying, names: &Names) -> CopyingShape {
    let Copying { done, all, lasting, finished, keys, bytes, stalled } = copying;
    let seconds = lasting.as_secs_f64().max(0.001);
    let left = all.saturating_sub(*done);
    CopyingShape {
        pulls_done: *done,
        pulls: *all,
        keys: *keys,
        bytes: *bytes,
        bytes_a_second: (*bytes as f64 / seconds) as u64,
        // As fast as so far.
        left_ms: (*finished > 0 || left == 0).then(|| millis(lasting.mul_f64(left as f64 / (*finished).max(1) as f64))),
        stalled: stalls(stalled, names),
    }
}

impl Report for TransfersReport {
    fn human(&self, paper: &Paper) -> String {
        let mut text = paper.wrap(&self.heading());
        if self.nodes.is_empty() {
            return text + "nothing moves\n";
        }
        let mut table = paper.table(&["node", "copied", "keys", "bytes", "a second", "left", "holds", ""]);
        let dash = || "-".to_owned();
        for node in &self.nodes {
            let copying = node.copying.as_ref();
            let told = |tell: &dyn Fn(&CopyingShape) -> String| copying.map_or_else(dash, tell);
            let left = copying.and_then(|it| it.left_ms).map_or_else(dash, |ms| age(Duration::from_millis(ms)));
            let held = node.held.map_or_else(dash, count);
            table.add_row([
                paper.cell(&node.node, Tone::Strong),
                paper.cell(&told(&|it| format!("{} of {}", it.pulls_done, it.pulls)), Tone::Plain),
                paper.cell(&told(&|it| count(it.keys)), Tone::Plain),
                paper.cell(&told(&|it| size(it.bytes)), Tone::Plain),
                paper.cell(&told(&|it| size(it.bytes_a_second)), Tone::Plain),
                paper.cell(&left, Tone::Plain),
                paper.cell(&held, Tone::Plain),
                paper.cell(&node.remark(self.epoch), if node.waited_for.is_some() { Tone::Warn } else { Tone::Plain }),
            ]);
        }
        let _ = write!(text, "\n{}", finish(table, &[1, 2, 3, 4, 5, 6]));
        text.push_str(&self.stalls(paper));
        let held: u64 = self.nodes.iter().filter_map(|node| node.held).sum();
        if held > 0 {
            let keys = plural(held, "key");
            let line =
                format!("{keys} at least lie where they do not belong; handoff brings them home, and drops them");
            let _ = writeln!(text, "\n{}", paper.wrap(&line));
        }
        text
    }
}

#[cfg(test)]
pub mod tests {
    use starling_core::layout::LayoutVersion;
    use starling_core::ring::Epoch;
    use starling_core::transition::Lack;
    use starling_proto::control::{NodeStanding, Transfers};

    use super::*;
    use crate::commands::cluster::Moving;
    use crate::report::cluster::tests::{peer, status};

    fn transition(phase: Phase, waiting: &[(u64, Lack)]) -> Transition {
        let (read, newest) = (LayoutVersion(if phase == Phase::Dual { 1 } else { 2 }), LayoutVersion(2));
        let waiting = waiting.iter().map(|(node, lack)| (NodeId(*node), *lack)).collect();
        Transition { epoch: Epoch(2), phase, read, newest, waiting, pulled: (0, 0), held: 0 }
    }

    fn said(number: u64, standing: NodeStanding, transfers: Transfers) -> Said {
        let said = Moving { status: status(number, standing), transfers, filling: FillingUp::default() };
        (peer(number, true), Some(said))
    }

    /// It has lost its disk, and one of two others does not give what it has.
    fn filling(number: u64) -> Said {
        let left = [(NodeId(1), 3), (NodeId(2), 8)].into();
        let stalled = [(NodeId(2), "could not be reached".to_owned())].into();
        let (peer, said) = said(number, NodeStanding::Serving, holding(0));
        (peer, said.map(|said| Moving { filling: FillingUp { partitions: 8, left, stalled }, ..said }))
    }

    fn holding(held: u64) -> Transfers {
        Transfers { epoch: Some(Epoch(2)), copying: None, held, most_bytes_a_second: 1 << 20 }
    }

    fn copying() -> Transfers {
        let copying = Copying {
            done: 30,
            all: 120,
            lasting: Duration::from_secs(10),
            finished: 20,
            keys: 12_345,
            bytes: 20 << 20,
            stalled: [(NodeId(2), "could not be reached".to_owned())].into(),
        };
        Transfers { copying: Some(copying), ..holding(0) }
    }

    pub fn report() -> TransfersReport {
        let all = [
            said(1, NodeStanding::Serving, holding(7)),
            (peer(2, false), None),
            said(3, NodeStanding::Serving, holding(0)),
            said(4, NodeStanding::Serving, copying()),
            filling(5),
        ];
        let peers: Vec<_> = all.iter().map(|(peer, _)| peer.clone()).collect();
        let names = Names::of_peers(&peers);
        TransfersReport::new(&transition(Phase::Dual, &[(2, Lack::NoAnswer), (4, Lack::NotCopied)]), &all, &names)
    }

    #[test]
    fn a_person_sees_how_far_it_is_and_what_it_waits_for() {
        let expected = "\
layout 1 → 2, dual: writes go to both, reads to 1, until the new primaries have copied

node     copied    keys     bytes  a second  left  holds
n1            -       -         -         -     -      7
n2            -       -         -         -     -      -  does not answer
n4    30 of 120  12,345  20.0 MiB   2.0 MiB   45s      0  is copying
n5            -       -         -         -     -      0  is filling up: 8 partitions left
stalled: n4 cannot copy from n2: it could not be reached
stalled: n5 cannot fill up from n2: it could not be reached

7 keys at least lie where they do not belong; handoff brings them home, and drops them
";
        assert_eq!(report().human(&Paper::plain()), expected);
        assert_eq!(report().left_to_do(2, &[]).unwrap(), "n2 does not answer, n4 is copying (30 of 120, 45s left)");
    }

    #[test]
    fn a_change_is_over_once_the_leaver_holds_nothing() {
        let settled = transition(Phase::Settled, &[]);
        let with =
            |held| TransfersReport::new(&settled, &[said(4, NodeStanding::Left, holding(held))], &Names::default());
        assert!(!with(3).is_over());
        assert_eq!(with(3).left_to_do(2, &[]).unwrap(), "n4 has left, and brings home what it holds");
        let late = Transfers { epoch: Some(Epoch(1)), ..holding(0) };
        let late = TransfersReport::new(&settled, &[said(4, NodeStanding::Serving, late)], &Names::default());
        assert!(!late.is_over());
        assert_eq!(late.left_to_do(2, &[]).unwrap(), "n4 does not know yet that it is over");
        assert!(with(0).is_over());
        assert_eq!(with(0).left_to_do(2, &["n4".to_owned()]), None);
        let silent = TransfersReport::new(&settled, &[(peer(4, false), None)], &Names::default());
        let leavers = ["n4".to_owned()];
        assert_eq!(silent.left_to_do(2, &leavers).unwrap(), "n4 has not said yet that it has left and holds nothing");
        assert_eq!(with(0).left_to_do(3, &[]).unwrap(), "the next phase is being chosen");
        assert!(with(0).human(&Paper::plain()).contains("has left, and can be stopped"));
    }
}
