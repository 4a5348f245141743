//! What staged changes of the ring come to, before and after.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;
use starling_core::change::Change;
use starling_core::ids::NodeId;
use starling_core::layout::{Layout, Member};
use starling_core::name::{NodeName, Zone};
use starling_core::quorum::ReplicaCount;
use starling_core::token::Partition;
use starling_proto::control::Plan;

use crate::commands::cluster::{Moving, Said};
use crate::output::paper::{Paper, Tone, finish};
use crate::output::units::{age, count, plural, size};
use crate::report::Report;
use crate::report::cluster::millis;
use crate::report::ring::{natural, share};

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlanReport {
    pub staged_on: String,
    pub plan: String,
    pub version_before: u64,
    pub version: u64,
    pub changes: Vec<String>,
    /// Of both layouts, ascending by name.
    pub members: Vec<MemberPlan>,
    pub replicas: u32,
    pub moves: u32,
    /// About so many; none if nobody said how much it holds.
    pub bytes: Option<u64>,
    pub least_ms: Option<u64>,
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MemberPlan {
    pub node: String,
    pub id: String,
    pub change: &'static str,
    pub zone_before: Option<String>,
    pub zone: Option<String>,
    pub weight_before: Option<u32>,
    pub weight: Option<u32>,
    pub share_before: f64,
    pub share: f64,
    pub gains: u32,
    pub gives: u32,
    pub bytes: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnstageReport {
    pub staged_on: String,
    pub unstaged: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CommitReport {
    pub version: u64,
    pub changes: Vec<String>,
    pub settled: bool,
    pub took_ms: u64,
}

impl PlanReport {
    /// `said` is what each node says of itself: from it the bytes are estimated.
    pub fn new(staged_on: String, plan: &Plan, said: &[Said]) -> PlanReport {
        let (before, after) = (&plan.before, &plan.after);
        let facts = Facts::new(before, said);
        let (old, new) = (held(before), held(after));
        let moves: u32 = new.values().map(|held| held.gains(&old)).sum();
        let names: BTreeMap<NodeId, &Member> =
            before.members().iter().chain(after.members()).map(|member| (member.node, member)).collect();
        let row = |(node, member): (&NodeId, &&Member)| {
            let gains = new.get(node).map_or(0, |held| held.gains(&old));
            let gives = old.get(node).map_or(0, |held| held.gains(&new));
            MemberPlan {
                node: member.name.to_string(),
                id: node.to_string(),
                change: change_of(*node, plan),
                zone_before: before.member(*node).map(|member| member.zone.to_string()),
                zone: after.member(*node).map(|member| member.zone.to_string()),
                weight_before: before.member(*node).map(|member| member.weight),
                weight: after.member(*node).map(|member| member.weight),
                share_before: share(old.get(node).map_or(0, Held::count), before),
                share: share(new.get(node).map_or(0, Held::count), after),
                gains,
                gives,
                bytes: facts.bytes_of(gains),
            }
        };
        let mut members: Vec<MemberPlan> = names.iter().map(row).collect();
        members.sort_by_key(|member| natural(&member.node));
        PlanReport {
            staged_on,
            plan: after.checksum().to_string(),
            version_before: before.version().0,
            version: after.version().0,
            changes: plan.changes.iter().map(ToString::to_string).collect(),
            replicas: after.shares().iter().sum(),
            moves,
            bytes: facts.bytes_of(moves),
            least_ms: facts.least_time(new.values().map(|held| (held.node, held.gains(&old)))).map(millis),
            warnings: warnings(plan, &facts, &members),
            members,
        }
    }

    pub(super) fn table(&self, paper: &Paper) -> String {
        let weighted = self.members.iter().any(|m| m.weight_before.unwrap_or(1) != 1 || m.weight.unwrap_or(1) != 1);
        let mut header = vec!["node", "", "zone", "share", "", "gains", "gives", "takes in"];
        header.extend(weighted.then_some("weight"));
        let mut table = paper.table(&header);
        for member in &self.members {
            let was_and_is = |was: &Option<String>, is: &Option<String>| match (was, is) {
                (Some(was), Some(is)) if was != is => format!("{was} → {is}"),
                (was, is) => is.as_ref().or(was.as_ref()).cloned().unwrap_or_default(),
            };
            let percent = |share: f64| format!("{:.1}%", share * 100.0);
            let dashed = |number: u32| if number == 0 { "-".to_owned() } else { count(u64::from(number)) };
            let takes_in = member.bytes.filter(|_| member.gains > 0).map_or("-".to_owned(), size);
            let mut row = vec![
                paper.cell(&member.node, Tone::Strong),
                paper.cell(if member.change == "stays" { "" } else { member.change }, member.tone()),
                paper.cell(&was_and_is(&member.zone_before, &member.zone), Tone::Plain),
                paper.cell(&percent(member.share_before), Tone::Faint),
                paper.cell(&format!("→ {:>6}", percent(member.share)), Tone::Plain),
                paper.cell(&dashed(member.gains), Tone::Plain),
                paper.cell(&dashed(member.gives), Tone::Plain),
                paper.cell(&takes_in, Tone::Plain),
            ];
            let weight = |weight: Option<u32>| weight.map(|weight| weight.to_string());
            let weights = was_and_is(&weight(member.weight_before), &weight(member.weight));
            row.extend(weighted.then(|| paper.cell(&weights, Tone::Plain)));
            table.add_row(row);
        }
        finish(table, &[3, 5, 6, 7])
    }

    pub(super) fn sum(&self) -> String {
        if self.moves == 0 {
            return "Nothing moves.".to_owned();
        }
        let part = f64::from(self.moves) / f64::from(self.replicas.max(1)) * 100.0;
        let (moves, of) = (count(u64::from(self.moves)), count(u64::from(self.replicas)));
        let mut text = format!("{moves} of {of} replicas of partitions move ({part:.0}%)");
        if let Some(bytes) = self.bytes {
            let _ = write!(text, ", about {}", size(bytes));
        }
        if let Some(ms) = self.least_ms.filter(|ms| *ms >= 1000) {
            let least = age(Duration::from_millis(ms));
            let _ = write!(text, "; at the nodes' handoff_rate that takes {least}, or longer");
        }
        text + "."
    }
}

impl MemberPlan {
    fn tone(&self) -> Tone {
        match self.change {
            "joins" => Tone::Good,
            "leaves" => Tone::Warn,
            "removed" => Tone::Bad,
            _ => Tone::Plain,
        }
    }
}

/// The partitions of which a node is a primary.
struct Held {
    node: NodeId,
    partitions: BTreeSet<u16>,
}

impl Held {
    fn count(&self) -> u32 {
        u32::try_from(self.partitions.len()).unwrap_or(u32::MAX)
    }

    /// How many of these the same node does not hold there.
    fn gains(&self, there: &BTreeMap<NodeId, Held>) -> u32 {
        let is_new = |partition: &&u16| there.get(&self.node).is_none_or(|held| !held.partitions.contains(partition));
        u32::try_from(self.partitions.iter().filter(is_new).count()).unwrap_or(u32::MAX)
    }
}

fn held(layout: &Layout) -> BTreeMap<NodeId, Held> {
    let mut held: BTreeMap<NodeId, Held> = BTreeMap::new();
    for partition in layout.partitions().all() {
        for node in layout.primaries(partition, layout.replicas()) {
            let of_node = held.entry(node).or_insert_with(|| Held { node, partitions: BTreeSet::new() });
            of_node.partitions.insert(partition.0);
        }
    }
    held
}

/// What nodes say of themselves, as far as a plan depends on it.
struct Facts {
    /// Of one replica of a partition, on the average of all nodes that answered.
    bytes_a_replica: Option<f64>,
    rates: BTreeMap<NodeId, u64>,
    free: BTreeMap<NodeId, u64>,
    down: BTreeSet<NodeId>,
}

impl Facts {
    fn new(before: &Layout, said: &[Said]) -> Facts {
        let (mut used, mut replicas) = (0, 0);
        let (mut rates, mut free) = (BTreeMap::new(), BTreeMap::new());
        for Moving { status, transfers, .. } in said.iter().filter_map(|(_, said)| said.as_ref()) {
            if before.member(status.node).is_some() {
                used += status.disk_used_bytes;
                replicas += status.partitions;
            }
            rates.insert(status.node, transfers.most_bytes_a_second);
            free.extend(status.disk_free_bytes.map(|bytes| (status.node, bytes)));
        }
        let down = said.iter().filter(|(_, said)| said.is_none()).map(|(peer, _)| peer.node).collect();
        Facts { bytes_a_replica: (replicas > 0).then(|| used as f64 / replicas as f64), rates, free, down }
    }

    fn bytes_of(&self, replicas: u32) -> Option<u64> {
        self.bytes_a_replica.map(|bytes| (bytes * f64::from(replicas)) as u64)
    }

    /// All nodes copy at once: the one that gains most for what it may take decides.
    fn least_time(&self, gains: impl Iterator<Item = (NodeId, u32)>) -> Option<Duration> {
        let seconds = |(node, gains): (NodeId, u32)| {
            let rate = *self.rates.get(&node)?;
            Some(self.bytes_of(gains)? as f64 / rate.max(1) as f64)
        };
        gains.filter_map(seconds).max_by(f64::total_cmp).map(Duration::from_secs_f64)
    }
}

fn change_of(node: NodeId, plan: &Plan) -> &'static str {
    match (plan.before.member(node), plan.after.member(node)) {
        (None, Some(_)) => "joins",
        (Some(_), Some(_)) => "stays",
        _ if plan.dead.contains(&node) => "removed",
        _ => "leaves",
    }
}

fn warnings(plan: &Plan, facts: &Facts, members: &[MemberPlan]) -> Vec<String> {
    let after = &plan.after;
    let mut warnings = losses(plan);
    let dead = |name: &str| {
        format!("{name} is declared dead: what only its disk has is lost, and it can never come back under its id")
    };
    let removed = members.iter().filter(|member| member.change == "removed");
    warnings.extend(removed.map(|member| dead(&member.node)));
    // One that has left already may still have something to bring home.
    let is_shown = |name: &NodeName| members.iter().any(|member| member.node == name.as_str());
    for change in &plan.changes {
        if let Change::Remove(name) = change
            && !is_shown(name)
        {
            warnings.push(dead(name.as_str()));
        }
    }
    let waited_for = plan.before.members().iter().filter(|member| !plan.dead.contains(&member.node));
    for member in waited_for.filter(|member| facts.down.contains(&member.node)) {
        warnings.push(format!(
            "{0} does not answer: the change is chosen all the same, and waits for {0} until it is back or removed",
            member.name
        ));
    }
    if after.members().len() < after.replicas().get() {
        warnings.push(format!(
            "{} are fewer than the {} replicas that the cluster keeps: there are as many copies as members",
            plural(after.members().len() as u64, "member"),
            after.replicas()
        ));
    }
    warnings.extend(crowded_zones(after));
    for member in members {
        let id = after.members().iter().find(|known| known.name.as_str() == member.node).map(|known| known.node);
        let free = id.and_then(|id| facts.free.get(&id));
        if let (Some(bytes), Some(free)) = (member.bytes, free)
            && member.gains > 0
            && bytes > *free
        {
            let (bytes, free) = (size(bytes), size(*free));
            warnings.push(format!("{} takes in about {bytes} and has {free} free", member.node));
        }
    }
    for change in &plan.changes {
        if let Change::Bucket { bucket, .. } = change {
            warnings.push(format!("copies that bucket {bucket} gains or loses by its rules are not counted here"));
        }
    }
    warnings
}

/// Of which partitions all copies are with members that are declared dead.
fn losses(plan: &Plan) -> Vec<String> {
    let before = &plan.before;
    let all = lost_partitions(before, &plan.dead, before.replicas());
    let lost = |of: &str, count: u32| {
        let partitions = plural(u64::from(count), "partition");
        format!("nobody who is left has a copy of {partitions}{of}: what was in them is lost")
    };
    let mut losses: Vec<String> = (all > 0).then(|| lost("", all)).into_iter().collect();
    for bucket in before.buckets().keys() {
        let count = lost_partitions(before, &plan.dead, before.replicas_of(bucket));
        if count > all {
            losses.push(lost(&format!(" of bucket {bucket}"), count));
        }
    }
    losses
}

/// Of how many partitions all primaries of so many copies are dead.
pub(super) fn lost_partitions(layout: &Layout, dead: &BTreeSet<NodeId>, replicas: ReplicaCount) -> u32 {
    let is_lost = |partition: &Partition| layout.primaries(*partition, replicas).all(|node| dead.contains(&node));
    u32::try_from(layout.partitions().all().filter(is_lost).count()).unwrap_or(u32::MAX)
}

/// Whether zones are fewer than replicas, or too small for each replica to have one of its own.
fn crowded_zones(layout: &Layout) -> Option<String> {
    let zone_of = |node| layout.member(node).map(|member: &Member| &member.zone);
    let zones: BTreeSet<&Zone> = layout.members().iter().map(|member| &member.zone).collect();
    let copies = layout.replicas().at_most(layout.members().len()).get();
    // A cluster that was given no zones has not asked for this.
    if zones.len() < 2 {
        return None;
    }
    let is_crowded = |partition: &Partition| {
        let met: BTreeSet<&Zone> = layout.primaries(*partition, layout.replicas()).filter_map(zone_of).collect();
        met.len() < copies
    };
    let crowded = layout.partitions().all().filter(is_crowded).count() as u64;
    (crowded > 0).then(|| {
        let (crowded, zones) = (plural(crowded, "partition"), plural(zones.len() as u64, "zone"));
        format!("{crowded} will have two of {copies} replicas in one zone: there are {zones}")
    })
}

impl Report for PlanReport {
    fn human(&self, paper: &Paper) -> String {
        let mut text = format!("plan {}, layout {} → {}\n", self.plan, self.version_before, self.version);
        for change in &self.changes {
            let _ = writeln!(text, "  {change}");
        }
        let _ = write!(text, "\n{}\n{}\n", self.table(paper), paper.wrap(&self.sum()));
        for warning in &self.warnings {
            text.push_str(&paper.labelled("warning:", Tone::Warn, warning));
        }
        let next = format!(
            "`starling cluster commit` has it chosen, `starling cluster unstage` forgets it; it is staged on {}",
            self.staged_on
        );
        text + &paper.labelled("next:", Tone::Faint, &next)
    }
}

impl Report for UnstageReport {
    fn human(&self, _paper: &Paper) -> String {
        let line = |change: &String| format!("forgot that {change}\n");
        self.unstaged.iter().map(line).collect()
    }
}

impl Report for CommitReport {
    fn human(&self, paper: &Paper) -> String {
        let mut text = format!("layout {} is chosen: {}\n", self.version, self.changes.join(", "));
        if self.settled {
            let took = age(Duration::from_millis(self.took_ms));
            let _ = writeln!(text, "and in effect, after {took}; whoever has left can be stopped");
        } else {
            let next = "`starling cluster transfers --watch` follows it; it goes on by itself";
            text.push_str(&paper.labelled("next:", Tone::Faint, next));
        }
        text
    }
}

#[cfg(test)]
pub mod tests {
    use starling_core::ids::DirectoryId;
    use starling_core::layout::NextLayout;
    use starling_proto::control::{FillingUp, NodeStanding, Transfers};

    use super::*;
    use crate::report::cluster::tests::{peer, status};
    use crate::report::tests::layout;

    /// n6 joins, n5 is dead, n1 is to have twice its share, and n2 is down.
    pub fn report() -> PlanReport {
        let before = layout();
        let mut members = before.members().to_vec();
        members.retain(|member| member.node != NodeId(5));
        members[0].weight = 2;
        let (node, directory, name) = (NodeId(6), DirectoryId(16), "n6".parse().unwrap());
        members.push(Member { node, directory, name, weight: 1, ..before.members()[4].clone() });
        let (replicas, buckets) = (before.replicas(), before.buckets().clone());
        let after = before.successor(NextLayout { replicas, members, buckets }).unwrap();
        let changes = vec![
            Change::Join { name: "n6".parse().unwrap(), weight: 1 },
            Change::Remove("n5".parse().unwrap()),
            Change::Weigh { name: "n1".parse().unwrap(), weight: 2 },
        ];
        let plan = Plan { changes, before, after, dead: [NodeId(5)].into() };
        PlanReport::new("n1".to_owned(), &plan, &[1, 2, 3, 4, 6].map(|number| said(number, number != 2)))
    }

    /// What a node says of itself, if it is up.
    pub fn said(number: u64, is_up: bool) -> Said {
        let transfers = Transfers { epoch: None, copying: None, held: 0, most_bytes_a_second: 1 << 20 };
        let status = status(number, NodeStanding::Serving);
        let answers = is_up.then_some(Moving { status, transfers, filling: FillingUp::default() });
        (peer(number, is_up), answers)
    }

    pub fn chosen() -> CommitReport {
        let changes = vec!["n6 joins".to_owned(), "n5 leaves".to_owned()];
        CommitReport { version: 2, changes, settled: false, took_ms: 20 }
    }

    pub fn forgotten() -> UnstageReport {
        UnstageReport { staged_on: "n1".to_owned(), unstaged: vec!["n6 joins".to_owned()] }
    }

    #[test]
    fn a_person_sees_who_gains_and_gives_what_and_what_to_mind() {
        let expected = "\
plan 7995ab9b21462a70, layout 1 → 2
  n6 joins
  n5 is removed as dead
  n1 has weight 2

node           zone  share            gains  gives   takes in  weight
n1             z1    16.7%  →  20.8%      1      -  409.6 KiB  1 → 2
n2             z2    16.7%  →  16.7%      -      -          -  1
n3             z3    33.3%  →  33.3%      -      -          -  1
n4             z1    16.7%  →  12.5%      -      1          -  1
n5    removed  z2    16.7%  →   0.0%      -      4          -  1
n6    joins    z2     0.0%  →  16.7%      4      -    1.6 MiB  1

5 of 24 replicas of partitions move (21%), about 2.0 MiB; at the nodes' handoff_rate that takes 1s, or longer.
warning: n5 is declared dead: what only its disk has is lost, and it can never come back under its id
warning: n2 does not answer: the change is chosen all the same, and waits for n2 until it is back or removed
next: `starling cluster commit` has it chosen, `starling cluster unstage` forgets it; it is staged on n1
";
        assert_eq!(report().human(&Paper::plain()), expected);
    }

    #[test]
    fn who_has_left_already_is_declared_dead_with_a_warning() {
        let before = layout();
        let (replicas, buckets) = (before.replicas(), before.buckets().clone());
        let members = before.members().to_vec();
        let after = before.successor(NextLayout { replicas, members, buckets }).unwrap();
        let changes = vec![Change::Remove("n9".parse().unwrap())];
        let plan = Plan { changes, before, after, dead: [NodeId(9)].into() };
        let said = |number| (peer(number, true), None);
        let human = PlanReport::new("n1".to_owned(), &plan, &[1, 2, 3, 4, 5].map(said)).human(&Paper::plain());
        assert!(human.contains("warning: n9 is declared dead: what only its disk has is lost"), "{human}");
    }

    #[test]
    fn of_what_is_chosen_the_next_step_is_named() {
        let report = chosen();
        let expected = "\
layout 2 is chosen: n6 joins, n5 leaves
next: `starling cluster transfers --watch` follows it; it goes on by itself
";
        assert_eq!(report.human(&Paper::plain()), expected);
        let report = CommitReport { settled: true, took_ms: 65_000, ..report };
        let text = report.human(&Paper::plain());
        assert!(text.ends_with("and in effect, after 1m 5s; whoever has left can be stopped\n"), "{text}");
    }
}
