//! Which requests have to succeed, and which must not.
//!
//! While nothing is wrong, all. While one node alone is in trouble, whatever that is, those that can do without it: most
//! requests that their client may send to any node, with quorums that the other replicas can meet. Where more is wrong,
//! nothing is asked for but that requests end in time.

use std::collections::BTreeSet;
use std::time::Duration;

use starling_core::quorum::Level;

use crate::kernel::network::{HostId, Wire};
use crate::kernel::time::Moment;
use crate::plan::{Plan, Trouble};
use crate::workload::{self, Deed, Done, Levels, Way};

/// So long after a trouble's end everything is as if it had never been: nodes have started, found each other and redialled.
const RECOVERY: Duration = Duration::from_secs(12);

/// After connections are broken.
const REDIALLING: Duration = Duration::from_secs(3);

/// Why a request has to succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Duty {
    NothingIsWrong,
    OneNodeIsInTrouble(HostId),
    /// The other way around.
    ToBeRefused,
}

impl Duty {
    pub const NAMES: [&'static str; 3] = [
        "request that has to succeed, nothing being wrong",
        "request that has to succeed, one node being in trouble",
        "request that has to be refused",
    ];

    /// None if the request may fail.
    pub fn of(plan: &Plan, done: &Done) -> Option<Duty> {
        if done.way == Way::WithForeignContext {
            return Some(Duty::ToBeRefused);
        }
        let may_be_too_many = plan.max_siblings < 100 && matches!(done.deed, Deed::Write { .. });
        if may_be_too_many || plan.weather.loss > 0.0 {
            return None;
        }
        let mut struck = BTreeSet::new();
        for episode in &plan.episodes {
            let until = match episode.trouble {
                // They are dialled again at once.
                Trouble::Resets { .. } => episode.from + REDIALLING,
                _ => episode.from + episode.lasts + RECOVERY,
            };
            let is_over = until.0 < done.invoked && !episode.trouble.loses_a_disk();
            if is_over || done.ended < episode.from.0 {
                continue;
            }
            struck.extend(strikes(plan, &episode.trouble)?);
        }
        let mut struck = struck.into_iter();
        match (struck.next(), struck.next()) {
            (None, _) => Some(Duty::NothingIsWrong),
            (Some(node), None) => can_do_without(node, done).then_some(Duty::OneNodeIsInTrouble(node)),
            (Some(_), Some(_)) => None,
        }
    }

    pub fn name(self) -> &'static str {
        let [nothing_wrong, one_in_trouble, refused] = Duty::NAMES;
        match self {
            Duty::NothingIsWrong => nothing_wrong,
            Duty::OneNodeIsInTrouble(_) => one_in_trouble,
            Duty::ToBeRefused => refused,
        }
    }

    /// How it was neglected, if it was.
    pub fn neglect(self, done: &Done) -> Option<String> {
        let what = match done.deed {
            Deed::Read { .. } => "a read",
            Deed::Write { .. } => "a write",
        };
        let (session, key) = (done.session + 1, crate::names::key(&done.key));
        let request = format!("{what} of c{session} on {key}, begun at {} s,", Moment(done.invoked));
        match (self, has_succeeded(done)) {
            (Duty::NothingIsWrong | Duty::OneNodeIsInTrouble(_), true) | (Duty::ToBeRefused, false) => None,
            (Duty::NothingIsWrong, false) => Some(format!("{request} did not succeed, although nothing was wrong")),
            (Duty::OneNodeIsInTrouble(node), false) => {
                let node = node.0 + 1;
                Some(format!("{request} did not succeed, although nobody was in trouble but n{node}"))
            }
            (Duty::ToBeRefused, true) => Some(format!("{request} was done with the context of another key")),
        }
    }
}

/// The nodes that are in trouble by it; none if others are as well, or it cannot be told.
fn strikes(plan: &Plan, trouble: &Trouble) -> Option<BTreeSet<HostId>> {
    match trouble {
        Trouble::Kill { node }
        | Trouble::Pause { node }
        | Trouble::Restart { node }
        | Trouble::SlowDisk { node, .. }
        | Trouble::FailingSync { node, .. }
        | Trouble::FullDisk { node }
        | Trouble::ClockJump { node, .. }
        | Trouble::ClockDrift { node, .. }
        | Trouble::Wipe { node }
        | Trouble::OldCopy { node, .. } => Some(BTreeSet::from([*node])),
        Trouble::PowerCut { nodes, .. } => Some(nodes.clone()),
        Trouble::Partition { cuts: wires, .. } | Trouble::Weather { wires, .. } => only_node_of(plan, wires),
        Trouble::Resets { .. } => None,
    }
}

/// The one node to which all of these wires lead, or from which.
fn only_node_of(plan: &Plan, wires: &BTreeSet<Wire>) -> Option<BTreeSet<HostId>> {
    let is_on_all = |node: &HostId| wires.iter().all(|(from, to)| from == node || to == node);
    let nodes: BTreeSet<HostId> = (0..plan.nodes).map(HostId).filter(is_on_all).collect();
    (nodes.len() == 1).then_some(nodes)
}

/// Of three replicas two are left, of two one; a write may go to a fallback instead, a read not.
fn can_do_without(node: HostId, done: &Done) -> bool {
    let Levels { all, primaries } = done.asked;
    let of_three = workload::copies(&done.key) == 3;
    let is_left = |level: Level| match level {
        Level::Default | Level::One => true,
        Level::Quorum => of_three,
        Level::All | Level::Count(_) => false,
    };
    let (any, reads_first) = match &done.deed {
        Deed::Read { .. } => (all == Level::One || is_left(all) && of_three, false),
        Deed::Write { value, context, .. } => (all != Level::All, value.is_none() && context.is_none()),
    };
    done.way != Way::ToOne(node) && any && is_left(primaries) && (of_three || !reads_first)
}

fn has_succeeded(done: &Done) -> bool {
    match &done.deed {
        Deed::Read { found, .. } => found.is_some(),
        Deed::Write { outcome, .. } => matches!(outcome, workload::Written::Acknowledged { .. }),
    }
}
