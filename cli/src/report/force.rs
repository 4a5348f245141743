//! Members that are given up by force.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;
use starling_core::ids::ClusterId;
use starling_core::name::NodeName;
use starling_proto::control::{Forced, Plan};

use crate::output::paper::{Paper, Tone};
use crate::output::units::age;
use crate::report::Report;
use crate::report::plan::{PlanReport, lost_partitions};

/// What it would come to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ForcePlanReport {
    pub cluster: String,
    pub gives_up: Vec<String>,
    pub left: Vec<String>,
    pub partitions: u32,
    pub lost_partitions: u32,
    pub moves: u32,
    pub bytes: Option<u64>,
    pub warnings: Vec<String>,
    #[serde(skip)]
    plan: PlanReport,
}

/// What was agreed upon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ForceReport {
    pub version: u64,
    pub cluster: String,
    pub cluster_before: String,
    pub gave_up: Vec<String>,
    pub settled: bool,
    pub took_ms: u64,
}

impl ForcePlanReport {
    pub fn new(cluster: ClusterId, plan: &Plan, report: PlanReport) -> ForcePlanReport {
        let names_of = |change: &str| {
            report.members.iter().filter(|member| member.change == change).map(|m| m.node.clone()).collect()
        };
        let gives_up: Vec<String> = names_of("removed");
        let mut warnings = report.warnings.clone();
        warnings.push(
            "if one of them comes back it is refused; if they go on somewhere out of reach, they are another cluster, and \
             what is written there does not come here"
                .to_owned(),
        );
        ForcePlanReport {
            cluster: cluster.to_string(),
            gives_up,
            left: names_of("stays"),
            partitions: plan.before.partitions().get(),
            lost_partitions: lost_partitions(&plan.before, &plan.dead, plan.before.replicas()),
            moves: report.moves,
            bytes: report.bytes,
            warnings,
            plan: report,
        }
    }
}

impl ForceReport {
    pub fn new(
        forced: &Forced,
        before: ClusterId,
        dead: &BTreeSet<NodeName>,
        settled: bool,
        took_ms: u64,
    ) -> ForceReport {
        ForceReport {
            version: forced.version.0,
            cluster: forced.cluster.to_string(),
            cluster_before: before.to_string(),
            gave_up: dead.iter().map(ToString::to_string).collect(),
            settled,
            took_ms,
        }
    }
}

impl Report for ForcePlanReport {
    fn human(&self, paper: &Paper) -> String {
        let (gone, left) = (self.gives_up.join(", "), self.left.join(", "));
        let heading = format!("cluster {} would give up {gone}, and go on with {left}", self.cluster);
        let mut text = paper.wrap(&heading) + "\n\n";
        let _ = write!(text, "{}\n{}\n", self.plan.table(paper), paper.wrap(&self.plan.sum()));
        for warning in &self.warnings {
            text.push_str(&paper.labelled("warning:", Tone::Bad, warning));
        }
        text
    }
}

impl Report for ForceReport {
    fn human(&self, paper: &Paper) -> String {
        let gone = self.gave_up.join(", ");
        let mut text = paper.wrap(&format!(
            "{gone} given up: cluster {} goes on as {}, with layout {}",
            self.cluster_before, self.cluster, self.version
        )) + "\n";
        if self.settled {
            let took = age(Duration::from_millis(self.took_ms));
            let _ = writeln!(text, "and in effect, after {took}");
        } else {
            let next = "`starling cluster transfers --watch` follows the copying; it goes on by itself";
            text.push_str(&paper.labelled("next:", Tone::Faint, next));
        }
        text
    }
}

#[cfg(test)]
pub mod tests {
    use starling_core::ids::NodeId;
    use starling_core::layout::{LayoutVersion, NextLayout};

    use super::*;
    use crate::report::plan::tests::said;
    use crate::report::tests::layout;

    /// n3 to n5 of five members are given up.
    pub fn plan() -> ForcePlanReport {
        let before = layout();
        let (replicas, buckets) = (before.replicas(), before.buckets().clone());
        let dead: BTreeSet<NodeId> = [3, 4, 5].map(NodeId).into();
        let members = before.members().iter().filter(|member| !dead.contains(&member.node)).cloned().collect();
        let after = before.successor(NextLayout { replicas, members, buckets }).unwrap();
        let plan = Plan { changes: Vec::new(), before, after, dead };
        let said = [1, 2, 3, 4, 5].map(|number| said(number, number < 3));
        ForcePlanReport::new(ClusterId(0xc1), &plan, PlanReport::new("n1".to_owned(), &plan, &said))
    }

    pub fn done() -> ForceReport {
        let forced = Forced { version: LayoutVersion(2), cluster: ClusterId(0xc2) };
        let dead = ["n3", "n4", "n5"].map(|name| name.parse().unwrap()).into();
        ForceReport::new(&forced, ClusterId(0xc1), &dead, false, 30)
    }

    #[test]
    fn what_is_lost_stands_before_what_is_left_to_do() {
        let expected = "\
cluster 00000000000000c1 would give up n3, n4, n5, and go on with n1, n2

node           zone  share            gains  gives  takes in
n1             z1    16.7%  →  50.0%      4      -   1.6 MiB
n2             z2    16.7%  →  50.0%      4      -   1.6 MiB
n3    removed  z3    33.3%  →   0.0%      -      8         -
n4    removed  z1    16.7%  →   0.0%      -      4         -
n5    removed  z2    16.7%  →   0.0%      -      4         -

8 of 16 replicas of partitions move (50%), about 3.2 MiB; at the nodes' handoff_rate that takes 1s, or longer.
warning: nobody who is left has a copy of 2 partitions: what was in them is lost
warning: n3 is declared dead: what only its disk has is lost, and it can never come back under its id
warning: n4 is declared dead: what only its disk has is lost, and it can never come back under its id
warning: n5 is declared dead: what only its disk has is lost, and it can never come back under its id
warning: 2 members are fewer than the 3 replicas that the cluster keeps: there are as many copies as members
warning: if one of them comes back it is refused; if they go on somewhere out of reach, they are another cluster, \
                        and what is written there does not come here
";
        assert_eq!(plan().human(&Paper::plain()), expected);
    }

    #[test]
    fn the_ids_before_and_after_are_named() {
        let expected = "\
n3, n4, n5 given up: cluster 00000000000000c1 goes on as 00000000000000c2, with layout 2
next: `starling cluster transfers --watch` follows the copying; it goes on by itself
";
        assert_eq!(done().human(&Paper::plain()), expected);
        let settled = ForceReport { settled: true, took_ms: 65_000, ..done() };
        assert!(settled.human(&Paper::plain()).ends_with("and in effect, after 1m 5s\n"));
    }
}
