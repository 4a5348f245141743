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

/// So long it may take to notice that a node is silent, and to do without it: longer than usual if it was slow of late.
const TO_NOTICE: Duration = Duration::from_secs(2);

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
            (Some(node), None) => {
                let is_noticed = done.timeout >= TO_NOTICE;
                let copies = *plan.copies(&done.key).start();
                (is_noticed && can_do_without(node, copies, done)).then_some(Duty::OneNodeIsInTrouble(node))
            }
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
        | Trouble::Rot { node, .. }
        | Trouble::OldCopy { node, .. } => Some(BTreeSet::from([*node])),
        Trouble::PowerCut { nodes, .. } => Some(nodes.clone()),
        Trouble::Partition { cuts: wires, .. } | Trouble::Weather { wires, .. } => only_node_of(plan, wires),
        Trouble::Set { .. } => Some(BTreeSet::new()),
        // A node that has left, or not joined yet, is not to be asked for anything; who that is takes its time.
        Trouble::Resets { .. } | Trouble::Move { .. } | Trouble::Copies { .. } | Trouble::Weigh { .. } => None,
    }
}

/// The one node to which all of these wires lead, or from which.
fn only_node_of(plan: &Plan, wires: &BTreeSet<Wire>) -> Option<BTreeSet<HostId>> {
    let is_on_all = |node: &HostId| wires.iter().all(|(from, to)| from == node || to == node);
    let nodes: BTreeSet<HostId> = (0..plan.nodes).map(HostId).filter(is_on_all).collect();
    (nodes.len() == 1).then_some(nodes)
}

/// Of three replicas two are left, of two one; a write may go to a fallback instead, a read not.
fn can_do_without(node: HostId, copies: usize, done: &Done) -> bool {
    let Levels { all, primaries } = done.asked;
    let of_three = copies == 3;
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

#[cfg(test)]
mod tests {
    use starling_core::name::ObjectKey;

    use super::*;
    use crate::kernel::network::Weather;
    use crate::plan::{Episode, Shape};

    const SECOND: u64 = 1_000_000_000;

    fn plan(troubles: impl IntoIterator<Item = (u64, u64, Trouble)>) -> Plan {
        let second = |seconds| Moment(seconds * SECOND);
        let episode = |(number, (from, until, trouble)): (usize, (u64, u64, Trouble))| Episode {
            number,
            from: second(from),
            lasts: Duration::from_secs(until - from),
            trouble,
        };
        Plan {
            seed: 1,
            nodes: 5,
            members: 5,
            clients: 2,
            operations: 10,
            active_clients: 2,
            active_operations: 10,
            keys: Vec::new(),
            max_siblings: 100,
            weather: Weather::FAIR,
            load: Duration::from_secs(60),
            start: Duration::from_secs(4),
            episodes: troubles.into_iter().enumerate().map(episode).collect(),
        }
    }

    fn node(number: usize) -> HostId {
        HostId(number - 1)
    }

    fn pause(from: u64, until: u64, number: usize) -> (u64, u64, Trouble) {
        (from, until, Trouble::Pause { node: node(number) })
    }

    fn key(bucket: &str) -> ObjectKey {
        ObjectKey::new(bucket.parse().expect("a valid name"), "key").expect("a valid key")
    }

    /// A read that failed within a second, with a majority asked.
    fn read(from: u64) -> Done {
        let asked = Levels { all: Level::Quorum, primaries: Level::Quorum };
        let (invoked, ended) = (from * SECOND, (from + 1) * SECOND);
        let deed = Deed::Read { waits_for_repair: false, found: None };
        let key = key(workload::CARTS);
        let timeout = TO_NOTICE;
        Done { session: 0, key, invoked, ended, timeout, due: ended, asked, way: Way::ByRoute, ttl: None, deed }
    }

    fn write(from: u64) -> Done {
        let (request, value, outcome) =
            (starling_core::ids::RequestId(1), Some("v".into()), workload::Written::Unknown);
        Done { deed: Deed::Write { request, value, context: None, outcome }, ..read(from) }
    }

    #[test]
    fn while_nothing_is_wrong_everything_has_to_succeed() {
        let calm = plan([pause(10, 12, 1), pause(10, 12, 2)]);
        assert_eq!(Duty::of(&calm, &read(5)), Some(Duty::NothingIsWrong));
        assert_eq!(Duty::of(&calm, &read(11)), None);
        assert_eq!(Duty::of(&calm, &read(23)), None, "they recover");
        assert_eq!(Duty::of(&calm, &read(25)), Some(Duty::NothingIsWrong));
        let lossy = Plan { weather: Weather { loss: 0.02, ..Weather::FAIR }, ..calm };
        assert_eq!(Duty::of(&lossy, &read(5)), None);
    }

    #[test]
    fn with_one_node_in_trouble_the_others_suffice() {
        let troubles = || [pause(10, 12, 3), (11, 20, Trouble::SlowDisk { node: node(3), factor: 100 })];
        let one = plan(troubles());
        let duty = Some(Duty::OneNodeIsInTrouble(node(3)));
        assert_eq!((Duty::of(&one, &read(11)), Duty::of(&one, &write(11))), (duty, duty));
        assert_eq!(Duty::of(&one, &Done { timeout: Duration::from_secs(1), ..read(11) }), None, "no time for another");
        let two = plan(troubles().into_iter().chain([pause(15, 16, 4)]));
        assert_eq!(Duty::of(&two, &read(15)), None);
        assert_eq!(Duty::of(&two, &read(11)), duty);
    }

    #[test]
    fn a_node_that_lost_its_disk_is_in_trouble_for_good() {
        let wiped = plan([(10, 11, Trouble::Wipe { node: node(2) }), pause(40, 41, 3)]);
        assert_eq!(Duty::of(&wiped, &read(35)), Some(Duty::OneNodeIsInTrouble(node(2))));
        assert_eq!(Duty::of(&wiped, &read(40)), None);
    }

    #[test]
    fn what_needs_the_node_may_fail() {
        let one = plan([pause(10, 12, 3)]);
        let duty = |done: Done| Duty::of(&one, &done).is_some();
        let all = Levels { all: Level::All, primaries: Level::Default };
        assert!(!duty(Done { asked: all, ..read(11) }) && !duty(Done { asked: all, ..write(11) }));
        let pair = key(workload::PAIRS);
        let sloppy = Levels { all: Level::Quorum, primaries: Level::Default };
        assert!(!duty(Done { key: pair.clone(), ..read(11) }), "one of two is left");
        assert!(!duty(Done { key: pair.clone(), ..write(11) }), "both primaries are wanted");
        assert!(duty(Done { key: pair, asked: sloppy, ..write(11) }), "a fallback stands in");
        assert!(!duty(Done { way: Way::ToOne(node(3)), ..write(11) }));
        assert!(duty(Done { way: Way::ToOne(node(1)), ..write(11) }));
    }

    #[test]
    fn wires_are_in_trouble_with_the_node_that_all_of_them_lead_to() {
        let cut = |pairs: &[(usize, usize)]| {
            let cuts = pairs.iter().map(|(from, to)| (node(*from), node(*to))).collect();
            plan([(10, 12, Trouble::Partition { shape: Shape::OneNode, cuts, period: None })])
        };
        let duty = |plan: Plan| Duty::of(&plan, &read(11));
        assert_eq!(duty(cut(&[(1, 2), (2, 1), (3, 2)])), Some(Duty::OneNodeIsInTrouble(node(2))));
        assert_eq!(duty(cut(&[(1, 2), (3, 4)])), None);
        assert_eq!(duty(cut(&[(1, 2), (2, 1)])), None, "either may be at fault");
    }

    #[test]
    fn a_failure_is_told_where_it_is_one() {
        assert!(Duty::NothingIsWrong.neglect(&read(5)).is_some() && Duty::ToBeRefused.neglect(&read(5)).is_none());
        let foreign = Done { way: Way::WithForeignContext, ..write(5) };
        assert_eq!(Duty::of(&plan([pause(4, 6, 1), pause(4, 6, 2)]), &foreign), Some(Duty::ToBeRefused));
    }
}
