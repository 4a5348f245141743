//! What happens in a run, worked out from the seed before it begins: how large the cluster is, who uses it, how the
//! network is, and what breaks when. A plan can be made smaller; what is left of it happens as before.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use rand::RngExt as _;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use starling_core::name::ObjectKey;
use starling_core::settings::Setting;

use crate::kernel::entropy::{Stream, stream};
use crate::kernel::network::{HostId, Weather, Wire};
use crate::kernel::time::Moment;
use crate::names;
use crate::witness::Clocks;
use crate::workload;

/// How long the cluster has to be made, where nothing is in the way.
const TO_BE_MADE: Duration = Duration::from_secs(4);
/// And where something is, in the first [`TROUBLED_START`] of it.
const TO_BE_MADE_IN_TROUBLE: Duration = Duration::from_secs(45);
const TROUBLED_START: Duration = Duration::from_secs(8);

#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    pub nodes: usize,
    /// Of them, those of whom the cluster is made. The others may join.
    pub members: usize,
    pub clients: usize,
    /// Of each client, at most.
    pub operations: usize,
    /// Clients that do something, and how much of what they would do: fewer in a run that was made smaller.
    pub active_clients: usize,
    pub active_operations: usize,
    pub keys: Vec<ObjectKey>,
    /// Clients may not let a key have more siblings.
    pub max_siblings: usize,
    pub weather: Weather,
    /// From the first operation to the final heal.
    pub load: Duration,
    /// What comes before it: the cluster is made.
    pub start: Duration,
    pub episodes: Vec<Episode>,
}

/// Something that goes wrong, from when, and for how long.
#[derive(Debug, Clone, PartialEq)]
pub struct Episode {
    /// Among all that were planned.
    pub number: usize,
    pub from: Moment,
    pub lasts: Duration,
    pub trouble: Trouble,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Trouble {
    /// One that comes and goes is mended for the second half of each `period`.
    Partition {
        shape: Shape,
        cuts: BTreeSet<Wire>,
        period: Option<Duration>,
    },
    /// kill -9: what the process had written is with the operating system.
    Kill {
        node: HostId,
    },
    /// Of the unsynced end of the log this share is left.
    PowerCut {
        nodes: BTreeSet<HostId>,
        left: f64,
    },
    Pause {
        node: HostId,
    },
    /// SIGTERM, and a start afterwards.
    Restart {
        node: HostId,
    },
    Weather {
        wires: BTreeSet<Wire>,
        weather: Weather,
    },
    Resets {
        between: (HostId, HostId),
    },
    SlowDisk {
        node: HostId,
        factor: u32,
    },
    FailingSync {
        node: HostId,
        left: f64,
    },
    FullDisk {
        node: HostId,
    },
    /// The wall clock jumps by that many milliseconds, and back at the end.
    ClockJump {
        node: HostId,
        millis: i64,
    },
    /// The wall clock gains that many milliseconds a second.
    ClockDrift {
        node: HostId,
        millis: i64,
    },
    /// The operator asks for a change of the ring.
    Move {
        joins: BTreeSet<HostId>,
        leaves: BTreeSet<HostId>,
    },
    /// The operator asks that a bucket has that many copies of each object.
    Copies {
        bucket: &'static str,
        copies: u8,
    },
    /// The operator asks for another weight of a member.
    Weigh {
        node: HostId,
        weight: u32,
    },
    /// Somebody sets something of a bucket that the clients do not use, or clears it, on that node.
    Set {
        node: HostId,
        setting: Setting,
        text: Option<&'static str>,
    },
    /// The disk is taken away for good; the node starts on an empty one.
    Wipe {
        node: HostId,
    },
    /// An entry of the disk cannot be read any more: of all records the one at that share of them.
    Rot {
        node: HostId,
        at: f64,
    },
    /// A copy is made of the disk when the episode begins, and put in its place at the end. `clean` copies are made while
    /// the node is stopped, others while it runs.
    OldCopy {
        node: HostId,
        clean: bool,
    },
}

/// The shapes in which networks have been seen to break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    OneNode,
    Halves,
    /// Everybody sees a majority, and no two the same.
    MajorityRing,
    /// Two halves that only one node sees both of.
    Bridge,
    OneWay,
    /// Clients on one side, some nodes on the other.
    FromClients,
    /// The clients and one node on one side, all other nodes on the other.
    AloneWithClients,
    /// One node hears no other, and is heard by all.
    Deaf,
}

impl Episode {
    /// When it is there, counted from its beginning: once, unless it comes and goes.
    pub fn spells(&self) -> Vec<(Duration, Duration)> {
        let Trouble::Partition { period: Some(period), .. } = self.trouble else {
            return vec![(Duration::ZERO, self.lasts)];
        };
        let count = (self.lasts.as_millis() / period.as_millis()).max(1);
        (0..u32::try_from(count).unwrap_or(u32::MAX)).map(|n| (period * n, period * n + period / 2)).collect()
    }
}

impl Trouble {
    /// Under which it is counted.
    pub fn name(&self) -> &'static str {
        match self {
            Trouble::Partition { shape: Shape::OneNode, .. } => "partition: one node",
            Trouble::Partition { shape: Shape::Halves, .. } => "partition: halves",
            Trouble::Partition { shape: Shape::MajorityRing, .. } => "partition: majority ring",
            Trouble::Partition { shape: Shape::Bridge, .. } => "partition: bridge",
            Trouble::Partition { shape: Shape::OneWay, .. } => "partition: one way",
            Trouble::Partition { shape: Shape::FromClients, .. } => "partition: from clients",
            Trouble::Partition { shape: Shape::AloneWithClients, .. } => "partition: alone with clients",
            Trouble::Partition { shape: Shape::Deaf, .. } => "partition: deaf node",
            Trouble::Kill { .. } => "kill -9",
            Trouble::PowerCut { .. } => "power cut",
            Trouble::Pause { .. } => "pause",
            Trouble::Restart { .. } => "restart",
            Trouble::Weather { .. } => "delay, loss, reordering",
            Trouble::Resets { .. } => "broken connections",
            Trouble::SlowDisk { .. } => "slow disk",
            Trouble::FailingSync { .. } => "failing sync",
            Trouble::FullDisk { .. } => "full disk",
            Trouble::ClockJump { .. } => "clock jump",
            Trouble::ClockDrift { .. } => "clock drift",
            Trouble::Move { joins, leaves } => match (joins.is_empty(), leaves.is_empty()) {
                (false, true) => "nodes join",
                (true, _) => "nodes leave",
                (false, false) => "nodes join and leave",
            },
            Trouble::Copies { .. } => "copies of a bucket",
            Trouble::Weigh { .. } => "weight of a member",
            Trouble::Set { .. } => "setting of a bucket",
            Trouble::Wipe { .. } => "wiped disk",
            Trouble::Rot { .. } => "damaged disk",
            Trouble::OldCopy { clean: true, .. } => "old copy of a stopped directory",
            Trouble::OldCopy { clean: false, .. } => "old copy of a running directory",
        }
    }

    /// The ring is changed by it, if it comes to that.
    pub fn moves_the_ring(&self) -> bool {
        matches!(self, Trouble::Move { .. } | Trouble::Copies { .. } | Trouble::Weigh { .. })
    }

    /// A disk that took writes is lost by it.
    pub fn loses_a_disk(&self) -> bool {
        matches!(self, Trouble::Wipe { .. } | Trouble::Rot { .. } | Trouble::OldCopy { .. })
    }
}

impl Plan {
    pub fn of(seed: u64) -> Plan {
        let mut chance = stream(seed, "plan");
        let nodes = *[3, 4, 5, 5, 5, 6].choose(&mut chance).expect("not empty");
        let members = nodes;
        let mut moving = stream(seed, "moves");
        let nodes = if moving.random_bool(0.4) { members + moving.random_range(1..=2) } else { members };
        let clients = chance.random_range(2..=5);
        let operations = chance.random_range(20..=120);
        let troubled = chance.random_bool(0.15);
        let mut plan = Plan {
            seed,
            nodes,
            members,
            clients,
            operations,
            active_clients: clients,
            active_operations: operations,
            keys: (0..chance.random_range(1..=6)).map(|number| workload::key(number, &mut chance)).collect(),
            max_siblings: if chance.random_bool(0.2) { 3 } else { 100 },
            weather: weather(&mut chance),
            load: Duration::from_millis(chance.random_range(8_000..=30_000)),
            start: if troubled { TO_BE_MADE_IN_TROUBLE } else { TO_BE_MADE },
            episodes: Vec::new(),
        };
        if troubled {
            let early = (0..chance.random_range(1..=2)).map(|_| plan.early_episode(&mut chance)).collect();
            plan.episodes = early;
        }
        let mut lost = false;
        for _ in 0..chance.random_range(1..=8) {
            let (episode, companion) = plan.episode(&mut chance);
            // A second lost disk could take all copies of a write with it.
            if episode.trouble.loses_a_disk() && std::mem::replace(&mut lost, true) {
                continue;
            }
            plan.episodes.extend([Some(episode), companion].into_iter().flatten());
        }
        let moves = plan.moves(&mut moving);
        plan.episodes.extend(moves);
        let other_rules = plan.other_rules(&mut stream(seed, "rules"));
        plan.episodes.extend(other_rules);
        let settings = plan.settings(&mut stream(seed, "settings"));
        plan.episodes.extend(settings);
        plan.episodes.sort_by_key(|episode| episode.from);
        plan.episodes.iter_mut().enumerate().for_each(|(number, episode)| episode.number = number);
        plan
    }

    pub fn host_of_client(&self, client: usize) -> HostId {
        HostId(self.nodes + client)
    }

    /// Whoever administers the cluster has a machine too.
    pub fn operator(&self) -> HostId {
        HostId(self.nodes + self.clients)
    }

    pub fn hosts(&self) -> usize {
        self.nodes + self.clients + 1
    }

    /// Where clients begin to look for the cluster.
    pub fn seeds(&self) -> Vec<String> {
        (0..self.nodes).map(|node| HostId(node).address().to_string()).collect()
    }

    pub fn load_begins(&self) -> Moment {
        Moment::after(self.start)
    }

    pub fn load_ends(&self) -> Moment {
        self.load_begins() + self.load
    }

    /// Between how many copies a key has, where there are enough nodes.
    pub fn copies(&self, key: &ObjectKey) -> RangeInclusive<usize> {
        let asked = self.episodes.iter().filter_map(|episode| match episode.trouble {
            Trouble::Copies { bucket, copies } if bucket == workload::bucket(key) => Some(usize::from(copies)),
            _ => None,
        });
        let first = workload::copies(workload::bucket(key));
        asked.fold(first..=first, |range, copies| *range.start().min(&copies)..=*range.end().max(&copies))
    }

    pub fn moves_the_ring(&self) -> bool {
        self.episodes.iter().any(|episode| episode.trouble.moves_the_ring())
    }

    /// How wrong the clocks may be.
    pub fn clocks(&self) -> Clocks {
        let (mut ahead, mut behind) = (BTreeMap::<usize, u64>::new(), BTreeMap::<usize, u64>::new());
        for episode in &self.episodes {
            let (node, millis) = match episode.trouble {
                Trouble::ClockJump { node, millis } => (node, millis),
                Trouble::ClockDrift { node, millis } => (node, (millis as f64 * episode.lasts.as_secs_f64()) as i64),
                _ => continue,
            };
            let errors = if millis > 0 { &mut ahead } else { &mut behind };
            *errors.entry(node.0).or_default() += millis.unsigned_abs();
        }
        let most = |errors: &BTreeMap<usize, u64>| Duration::from_millis(errors.values().copied().max().unwrap_or(0));
        Clocks { apart: most(&ahead) + most(&behind), ahead: ahead.into_keys().collect() }
    }

    /// What is planned, for people.
    pub fn describe(&self) -> String {
        let Plan { seed, nodes, load, .. } = self;
        let (clients, operations) = (self.active_clients, self.active_operations);
        let keys: Vec<String> = self.keys.iter().map(names::key).collect();
        let mut text = format!(
            "seed {seed}: {nodes} nodes{spare}, {clients} clients of up to {operations} operations, {:.1} s of load on {}\n",
            load.as_secs_f64(),
            keys.join(" "),
            spare = if self.members < *nodes { format!(", {} of them members", self.members) } else { String::new() },
        );
        for Episode { number, from, lasts, trouble } in &self.episodes {
            let until = *from + *lasts;
            let what = self.describe_trouble(trouble);
            text.push_str(&format!("  trouble {number}, {from} s to {until} s: {what}\n"));
        }
        text
    }

    /// A trouble with whom it strikes.
    pub fn describe_trouble(&self, trouble: &Trouble) -> String {
        let node = |node: &HostId| names::host(*node, self.nodes, self.clients);
        let what = match trouble {
            Trouble::Partition { cuts, .. } => self.describe_wires(cuts),
            Trouble::Kill { node: of }
            | Trouble::Pause { node: of }
            | Trouble::Restart { node: of }
            | Trouble::FullDisk { node: of }
            | Trouble::Wipe { node: of }
            | Trouble::Rot { node: of, .. }
            | Trouble::OldCopy { node: of, .. } => node(of),
            Trouble::PowerCut { nodes, left } => {
                let nodes: Vec<String> = nodes.iter().map(node).collect();
                format!("{}, {:.0} % of the unsynced log left", nodes.join(" "), left * 100.0)
            }
            Trouble::FailingSync { node: of, left } => {
                format!("{}, {:.0} % of the unsynced log left", node(of), left * 100.0)
            }
            Trouble::Weather { wires, weather } => {
                let Weather { delay, jitter, loss } = weather;
                let wires = self.describe_wires(wires);
                format!("{wires}: {delay:?} and about {jitter:?} more, {:.0} % lost", loss * 100.0)
            }
            Trouble::Move { joins, leaves } => {
                let all = |nodes: &BTreeSet<HostId>, does: &str| {
                    nodes.iter().map(|of| format!("{} {does}", node(of))).collect::<Vec<_>>()
                };
                [all(joins, "joins"), all(leaves, "leaves")].concat().join(", ")
            }
            Trouble::Copies { bucket, copies } => format!("{copies} of each object in {bucket}"),
            Trouble::Weigh { node: of, weight } => format!("{weight} for {}", node(of)),
            Trouble::Set { node: of, setting, text } => {
                format!("{}={} on {}", setting.name(), text.unwrap_or("default"), node(of))
            }
            Trouble::Resets { between: (a, b) } => format!("{} and {}", node(a), node(b)),
            Trouble::SlowDisk { node: of, factor } => format!("{}, {factor} times as slow", node(of)),
            Trouble::ClockJump { node: of, millis } => format!("{}, by {millis} ms", node(of)),
            Trouble::ClockDrift { node: of, millis } => format!("{}, by {millis} ms a second", node(of)),
        };
        format!("{}: {what}", trouble.name())
    }

    fn describe_wires(&self, wires: &BTreeSet<Wire>) -> String {
        let host = |host: &HostId| names::host(*host, self.nodes, self.clients);
        let mut ways: Vec<String> = Vec::new();
        for (from, to) in wires {
            match (wires.contains(&(*to, *from)), from < to) {
                (true, true) => ways.push(format!("{}↔{}", host(from), host(to))),
                (true, false) => {}
                (false, _) => ways.push(format!("{}→{}", host(from), host(to))),
            }
        }
        let all = self.nodes + self.clients;
        if ways.len() == all * (all - 1) / 2 { "everybody".to_owned() } else { ways.join(" ") }
    }

    /// And now and then another that strikes the same node, so that two of its defences are down at once.
    fn episode(&self, chance: &mut Stream) -> (Episode, Option<Episode>) {
        let load = self.load.as_millis() as u64;
        let from = chance.random_range(0..load.saturating_sub(2_000).max(1));
        let left = load - from;
        let trouble = self.trouble(chance);
        let lasts = match trouble {
            // Before the end, so that there is time to go wrong after it.
            Trouble::OldCopy { .. } => chance.random_range(left / 5..=left * 3 / 5),
            // What comes and goes is given the time for it.
            Trouble::Partition { period: Some(_), .. } => left.clamp(500, 14_000),
            _ => chance.random_range(200..=left.clamp(500, 14_000)),
        };
        let from = self.load_begins() + Duration::from_millis(from);
        let lasts = Duration::from_millis(lasts);
        let companion = self.companion(&trouble, chance).map(|trouble| Episode { number: 0, from, lasts, trouble });
        (Episode { number: 0, from, lasts, trouble }, companion)
    }

    fn companion(&self, trouble: &Trouble, chance: &mut Stream) -> Option<Trouble> {
        let Trouble::Partition { shape: Shape::Deaf, cuts, .. } = trouble else { return None };
        let (_, node) = *cuts.first()?;
        // Whatever it sends on is done, and nobody tells it; and itself it cannot write.
        Some(match chance.random_range(0..3) {
            0 => Trouble::ClockJump { node, millis: chance.random_range(10_000..=60_000) },
            _ => Trouble::FullDisk { node },
        })
    }

    /// One that may be there while the cluster is made. None of them takes a disk away: a cluster that has not begun knows
    /// nobody by the disk.
    fn early_episode(&self, chance: &mut Stream) -> Episode {
        let most = TROUBLED_START.as_millis() as u64;
        let from = chance.random_range(0..most / 2);
        let lasts = chance.random_range(200..=most / 2);
        let trouble = loop {
            let trouble = self.trouble(chance);
            if !trouble.loses_a_disk() {
                break trouble;
            }
        };
        Episode {
            number: 0,
            from: Moment::after(Duration::from_millis(from)),
            lasts: Duration::from_millis(lasts),
            trouble,
        }
    }

    /// Where there are nodes that can join, they do, and others leave, but for three.
    fn moves(&self, chance: &mut Stream) -> Vec<Episode> {
        let mut spare: Vec<HostId> = (self.members..self.nodes).map(HostId).collect();
        let mut members: Vec<HostId> = (0..self.members).map(HostId).collect();
        let mut moves = Vec::new();
        if spare.is_empty() {
            return moves;
        }
        for from in self.moments(chance.random_range(1..=3), chance) {
            let join = chance.random_range(0..=spare.len());
            let joins: BTreeSet<HostId> = spare.drain(..join).collect();
            members.shuffle(chance);
            let most = (members.len() + joins.len()).saturating_sub(3).min(members.len()).min(2);
            let leaves: BTreeSet<HostId> = members.drain(..chance.random_range(0..=most)).collect();
            members.extend(&joins);
            if joins.is_empty() && leaves.is_empty() {
                continue;
            }
            // What has been begun goes on to the end.
            moves.push(self.until_the_end(from, Trouble::Move { joins, leaves }));
        }
        moves
    }

    /// Other numbers of copies and other weights, in some runs. What has been asked for goes on to the end.
    fn other_rules(&self, chance: &mut Stream) -> Vec<Episode> {
        if !chance.random_bool(0.25) {
            return Vec::new();
        }
        let leaves = |node: &HostId| {
            let leaves =
                |episode: &Episode| matches!(&episode.trouble, Trouble::Move { leaves, .. } if leaves.contains(node));
            self.episodes.iter().any(leaves)
        };
        let stay: Vec<HostId> = (0..self.members).map(HostId).filter(|node| !leaves(node)).collect();
        let mut copies: BTreeMap<&'static str, usize> =
            workload::BUCKETS.into_iter().map(|bucket| (bucket, workload::copies(bucket))).collect();
        self.moments(chance.random_range(1..=2), chance)
            .into_iter()
            .filter_map(|from| {
                let trouble = if chance.random_bool(0.7) {
                    let bucket = *workload::BUCKETS.choose(chance)?;
                    let now = copies.get_mut(bucket)?;
                    *now = if *now == 3 { 2 } else { 3 };
                    Trouble::Copies { bucket, copies: u8::try_from(*now).ok()? }
                } else {
                    Trouble::Weigh { node: *stay.choose(chance)?, weight: chance.random_range(2..=4) }
                };
                Some(self.until_the_end(from, trouble))
            })
            .collect()
    }

    /// Plain settings, in some runs.
    fn settings(&self, chance: &mut Stream) -> Vec<Episode> {
        const TEXTS: [(Setting, Option<&str>); 7] = [
            (Setting::R, Some("one")),
            (Setting::R, Some("all")),
            (Setting::R, None),
            (Setting::W, Some("2")),
            (Setting::Ttl, Some("60000")),
            (Setting::MaxSiblings, Some("50")),
            (Setting::MaxObjectSize, Some("9999")),
        ];
        if !chance.random_bool(0.3) {
            return Vec::new();
        }
        let moments = self.moments(chance.random_range(1..=5), chance);
        let set = moments.into_iter().filter_map(|from| {
            let (setting, text) = *TEXTS.choose(chance)?;
            let node = HostId(chance.random_range(0..self.members));
            Some(self.until_the_end(from, Trouble::Set { node, setting, text }))
        });
        set.collect()
    }

    /// In the first half of the load, ascending.
    fn moments(&self, count: usize, chance: &mut Stream) -> Vec<Duration> {
        let half = self.load.as_millis() as u64 / 2;
        let mut moments: Vec<u64> = (0..count).map(|_| chance.random_range(0..half)).collect();
        moments.sort_unstable();
        moments.into_iter().map(Duration::from_millis).collect()
    }

    fn until_the_end(&self, from: Duration, trouble: Trouble) -> Episode {
        Episode { number: 0, from: self.load_begins() + from, lasts: self.load - from, trouble }
    }

    fn trouble(&self, chance: &mut Stream) -> Trouble {
        let node = HostId(chance.random_range(0..self.nodes));
        // Who is none of the cluster yet has nothing to lose.
        let member = HostId(node.0 % self.members);
        match chance.random_range(0..100) {
            0..30 => self.partition(chance),
            30..36 => Trouble::Kill { node },
            36..48 => Trouble::PowerCut { nodes: self.some_nodes(chance), left: chance.random_range(0.0..=1.0) },
            48..56 => Trouble::Pause { node },
            56..62 => Trouble::Restart { node },
            62..70 => Trouble::Weather { wires: self.some_wires(chance), weather: storm(chance) },
            70..73 => Trouble::Resets { between: self.pair(chance) },
            73..78 => Trouble::SlowDisk { node, factor: chance.random_range(10..=400) },
            78..82 => Trouble::FailingSync { node, left: chance.random_range(0.0..=1.0) },
            82..85 => Trouble::FullDisk { node },
            85..87 => Trouble::ClockJump { node, millis: chance.random_range(-60_000..=60_000) },
            87..89 => Trouble::ClockDrift { node, millis: chance.random_range(-300..=300) },
            89..91 => Trouble::Wipe { node: member },
            91..93 => Trouble::Rot { node: member, at: chance.random_range(0.0..1.0) },
            _ => Trouble::OldCopy { node: member, clean: chance.random_bool(0.6) },
        }
    }

    fn partition(&self, chance: &mut Stream) -> Trouble {
        let shapes = [
            Shape::OneNode,
            Shape::Halves,
            Shape::MajorityRing,
            Shape::Bridge,
            Shape::OneWay,
            Shape::FromClients,
            Shape::AloneWithClients,
            Shape::AloneWithClients,
            Shape::Deaf,
            Shape::Deaf,
        ];
        let shape = *shapes.choose(chance).expect("not empty");
        let mut nodes: Vec<HostId> = (0..self.nodes).map(HostId).collect();
        nodes.shuffle(chance);
        let clients: Vec<HostId> = (0..self.clients).map(|client| self.host_of_client(client)).collect();
        let cuts = match shape {
            Shape::OneNode => between(&nodes[..1], &nodes[1..]),
            Shape::Halves => between(&nodes[..self.nodes / 2], &nodes[self.nodes / 2..]),
            Shape::Bridge => between(&nodes[..self.nodes / 2], &nodes[self.nodes / 2 + 1..]),
            Shape::MajorityRing => ring(&nodes),
            Shape::OneWay => {
                let split = chance.random_range(1..self.nodes);
                one_way(&nodes[..split], &nodes[split..])
            }
            Shape::Deaf => one_way(&nodes[1..], &nodes[..1]),
            Shape::FromClients => between(&nodes[..chance.random_range(1..=self.nodes)], &clients),
            Shape::AloneWithClients => {
                let there: Vec<HostId> = clients.iter().copied().chain([nodes[0]]).collect();
                between(&there, &nodes[1..])
            }
        };
        // Sometimes the clients are on one of the sides.
        let with_clients = matches!(shape, Shape::OneNode | Shape::Halves) && chance.random_bool(0.5);
        let far: &[HostId] = if with_clients { &nodes[..1] } else { &[] };
        // A node that is alone with the clients again and again mints as a fallback again and again.
        let often = match shape {
            Shape::AloneWithClients => 0.7,
            // Connections that bring no answers are given up soon.
            Shape::Deaf => 1.0,
            _ => 0.3,
        };
        let period = chance.random_bool(often).then(|| Duration::from_millis(chance.random_range(2_000..=6_000)));
        Trouble::Partition { shape, cuts: cuts.into_iter().chain(between(far, &clients)).collect(), period }
    }

    fn some_nodes(&self, chance: &mut Stream) -> BTreeSet<HostId> {
        let count = if chance.random_bool(0.2) { self.nodes } else { chance.random_range(1..=2) };
        let mut nodes: Vec<HostId> = (0..self.nodes).map(HostId).collect();
        nodes.shuffle(chance);
        nodes.into_iter().take(count).collect()
    }

    fn some_wires(&self, chance: &mut Stream) -> BTreeSet<Wire> {
        let hosts: Vec<HostId> = (0..self.nodes + self.clients).map(HostId).collect();
        let node = HostId(chance.random_range(0..self.nodes));
        match chance.random_range(0..3) {
            0 => between(&[node], &hosts).into_iter().collect(),
            1 => between(&hosts, &hosts).into_iter().collect(),
            _ => one_way(&[node], &hosts).into_iter().collect(),
        }
    }

    fn pair(&self, chance: &mut Stream) -> (HostId, HostId) {
        let a = chance.random_range(0..self.nodes);
        let b = (a + chance.random_range(1..self.nodes)) % self.nodes;
        (HostId(a), HostId(b))
    }
}

/// Both ways between the two groups.
fn between(these: &[HostId], those: &[HostId]) -> Vec<Wire> {
    one_way(these, those).into_iter().chain(one_way(those, these)).collect()
}

fn one_way(from: &[HostId], to: &[HostId]) -> Vec<Wire> {
    let pairs = from.iter().flat_map(|from| to.iter().map(|to| (*from, *to)));
    pairs.filter(|(from, to)| from != to).collect()
}

/// Each node is cut from the one that is farthest around the ring; of three nodes two are cut from each other.
fn ring(nodes: &[HostId]) -> Vec<Wire> {
    let count = nodes.len();
    let far = |index: usize| (index + count / 2) % count;
    let each = if count < 4 { 1 } else { count };
    (0..each).flat_map(|index| between(&nodes[index..=index], &nodes[far(index)..=far(index)])).collect()
}

/// Most runs have a good network, some a slow or a lossy one all the time.
fn weather(chance: &mut Stream) -> Weather {
    match chance.random_range(0..10) {
        0..6 => Weather::FAIR,
        6..8 => Weather { delay: Duration::from_millis(10), jitter: Duration::from_millis(10), ..Weather::FAIR },
        8 => Weather { loss: 0.02, ..Weather::FAIR },
        _ => Weather { jitter: Duration::from_millis(20), ..Weather::FAIR },
    }
}

fn storm(chance: &mut Stream) -> Weather {
    Weather {
        delay: Duration::from_millis(chance.random_range(0..400)),
        jitter: Duration::from_millis(chance.random_range(0..200)),
        loss: chance.random_range(0.0..0.4),
    }
}
