use starling_core::ids::{DirectoryId, Run as NodeRun};
use tokio::time::Instant;

use super::*;
use crate::announcement::{HintTargets, ShortText, Standing};

const PATIENCE: Duration = Duration::from_secs(2);
const ROUND: Duration = Duration::from_millis(250);

/// Chitchat's side of the table: runs, what they announce, and who is alive.
struct Table {
    translator: Translator,
    now: Instant,
    runs: BTreeMap<ChitchatId, (NodeState, bool)>,
}

impl Table {
    /// Node 1 looks, and knows itself.
    fn of_node_1() -> Table {
        let now = Instant::now();
        let own = id(1, 5, 7001);
        let translator = Translator::new(own.clone(), PATIENCE, now);
        let mut table = Table { translator, now, runs: BTreeMap::new() };
        table.hear(&own, Some("n1"), true);
        table
    }

    fn hear(&mut self, id: &ChitchatId, name: Option<&str>, alive: bool) {
        let mut state = NodeState::for_test();
        for (key, value) in name.map(announcement).iter().flat_map(encoding::encode) {
            state.set(key, value);
        }
        self.runs.insert(id.clone(), (state, alive));
    }

    fn call(&mut self, id: &ChitchatId, alive: bool) {
        self.runs.get_mut(id).unwrap().1 = alive;
    }

    fn look_after(&mut self, elapsed: Duration) -> View {
        self.now += elapsed;
        let sightings = self.runs.iter().map(|(id, (state, alive))| Sighting { id, state, alive: *alive });
        self.translator.look(self.now, sightings)
    }

    /// Looks every round for as long.
    fn watch(&mut self, duration: Duration) -> View {
        let end = self.now + duration - ROUND;
        while self.now < end {
            self.look_after(ROUND);
        }
        self.look_after(ROUND)
    }
}

fn id(node: u64, generation: u64, port: u16) -> ChitchatId {
    ChitchatId::new(NodeId(node).to_string(), generation, ([127, 0, 0, 1], port).into())
}

fn announcement(name: &str) -> Announcement {
    Announcement {
        name: name.parse().unwrap(),
        zone: "z1".parse().unwrap(),
        run: NodeRun { directory: DirectoryId(1), counter: 1, nonce: 1 },
        address: format!("{name}:7400").parse().unwrap(),
        protocol: 1..=1,
        features: 0,
        build: ShortText::new("test"),
        cluster: None,
        layout: None,
        log: None,
        hints_for: HintTargets::none(),
        is_filling: false,
        settings: None,
        standing: Standing::Serving,
    }
}

#[test]
fn a_node_sees_itself_first_of_all() {
    let mut table = Table::of_node_1();
    let view = table.look_after(ROUND);
    assert!(view.is_alive(NodeId(1)));
    assert_eq!(view.peer(NodeId(1)).unwrap().announcement.name.as_str(), "n1");
    assert!(!view.is_alive(NodeId(2)), "never heard of");
}

#[test]
fn nothing_changes_as_long_as_nothing_happens() {
    let mut table = Table::of_node_1();
    table.hear(&id(2, 1, 7002), Some("n2"), true);
    let before = table.look_after(ROUND);
    let after = table.watch(PATIENCE * 20);
    assert_eq!(before, after);
    let same = |node| Arc::ptr_eq(&before.peers[&node].announcement, &after.peers[&node].announcement);
    assert!(same(NodeId(1)) && same(NodeId(2)), "an announcement is read once");
}

#[test]
fn a_node_that_falls_silent_is_dead_since_then() {
    let mut table = Table::of_node_1();
    let n2 = id(2, 1, 7002);
    table.hear(&n2, Some("n2"), true);
    table.look_after(ROUND);
    table.call(&n2, false);
    let view = table.look_after(ROUND);
    assert!(!view.is_alive(NodeId(2)));
    assert_eq!(view.peers[&NodeId(2)].since, table.now);
    assert_eq!(view.live().count(), 1);
}

#[test]
fn what_chitchat_forgets_leaves_the_view() {
    let mut table = Table::of_node_1();
    let n2 = id(2, 1, 7002);
    table.hear(&n2, Some("n2"), false);
    assert!(table.look_after(ROUND).peer(NodeId(2)).is_some());
    table.runs.remove(&n2);
    assert!(table.look_after(ROUND).peer(NodeId(2)).is_none());
}

#[test]
fn a_restart_replaces_the_run_before_it_and_is_no_conflict() {
    let mut table = Table::of_node_1();
    let (before, after) = (id(2, 8, 7002), id(2, 9, 7002));
    table.hear(&before, Some("n2"), true);
    table.look_after(ROUND);
    table.hear(&after, Some("n2"), true);
    let view = table.watch(PATIENCE);
    assert_eq!(view.peers[&NodeId(2)].seen.generation, 9, "the former run is not given up yet");
    table.call(&before, false);
    let view = table.watch(PATIENCE * RESTART * 2);
    assert_eq!(view.peers[&NodeId(2)].seen.generation, 9);
    assert_eq!(view.conflicts, []);
}

#[test]
fn of_dead_runs_the_latest_counts() {
    let mut table = Table::of_node_1();
    table.hear(&id(2, 8, 7002), Some("n2"), false);
    table.hear(&id(2, 9, 7002), Some("n2"), false);
    assert_eq!(table.look_after(ROUND).peers[&NodeId(2)].seen.generation, 9);
}

#[test]
fn a_live_run_counts_before_a_dead_one_of_a_higher_generation() {
    let mut table = Table::of_node_1();
    table.hear(&id(2, 1, 7002), Some("n2"), true);
    table.hear(&id(2, 9, 7002), Some("n2"), false);
    let view = table.look_after(ROUND);
    assert!(view.is_alive(NodeId(2)));
    assert_eq!(view.peers[&NodeId(2)].seen.generation, 1);
}

#[test]
fn two_live_runs_of_one_generation_are_a_conflict_at_once() {
    let mut table = Table::of_node_1();
    table.hear(&id(2, 8, 7002), Some("n2"), true);
    table.hear(&id(2, 8, 7003), Some("n2"), true);
    let view = table.look_after(ROUND);
    let run = |port| RunSeen { generation: 8, gossip: ([127, 0, 0, 1], port).into() };
    assert_eq!(view.conflicts, [Conflict::Runs { node: NodeId(2), runs: vec![run(7002), run(7003)] }]);
}

#[test]
fn a_former_run_that_does_not_die_is_a_conflict_after_a_while() {
    let mut table = Table::of_node_1();
    table.hear(&id(2, 8, 7002), Some("n2"), true);
    table.hear(&id(2, 9, 7003), Some("n2"), true);
    assert_eq!(table.watch(PATIENCE * RESTART).conflicts, []);
    let view = table.watch(PATIENCE);
    assert!(matches!(view.conflicts[..], [Conflict::Runs { node: NodeId(2), .. }]), "{:?}", view.conflicts);
}

#[test]
fn a_copy_of_this_node_does_not_replace_it_in_its_own_view() {
    let mut table = Table::of_node_1();
    table.hear(&id(1, 6, 7009), Some("n1"), true);
    let view = table.watch(PATIENCE * (RESTART + 1));
    assert_eq!(view.peers[&NodeId(1)].seen.generation, 5);
    assert!(matches!(view.conflicts[..], [Conflict::Runs { node: NodeId(1), .. }]));
}

#[test]
fn two_live_nodes_of_one_name_are_a_conflict_and_a_dead_one_is_not() {
    let mut table = Table::of_node_1();
    let wiped = id(2, 8, 7002);
    table.hear(&wiped, Some("n2"), true);
    table.hear(&id(3, 1, 7003), Some("n2"), true);
    let view = table.look_after(ROUND);
    let name: starling_core::name::NodeName = "n2".parse().unwrap();
    assert_eq!(view.conflicts, [Conflict::Name { name: name.clone(), nodes: vec![NodeId(2), NodeId(3)] }]);
    table.call(&wiped, false);
    let view = table.look_after(ROUND);
    assert_eq!(view.conflicts, []);
    assert_eq!(view.by_name(&name).unwrap().node, NodeId(3));
}

#[test]
fn an_announcement_on_its_way_is_no_peer_yet() {
    let mut table = Table::of_node_1();
    let n2 = id(2, 1, 7002);
    table.hear(&n2, None, true);
    let view = table.look_after(ROUND);
    assert!(view.peer(NodeId(2)).is_none());
    assert_eq!(view.unreadable[&NodeId(2)], Unreadable::Missing("v1.name"));
    table.hear(&n2, Some("n2"), true);
    let view = table.look_after(ROUND);
    assert!(view.is_alive(NodeId(2)) && view.unreadable.is_empty());
}

#[test]
fn a_peer_that_makes_no_sense_is_named_and_passed_over() {
    let mut table = Table::of_node_1();
    let n2 = id(2, 1, 7002);
    table.hear(&n2, Some("n2"), true);
    table.runs.get_mut(&n2).unwrap().0.set("v1.standing", "dancing");
    let view = table.look_after(ROUND);
    assert!(view.peer(NodeId(2)).is_none());
    let value = ShortText::new("dancing");
    assert_eq!(view.unreadable[&NodeId(2)], Unreadable::Malformed { key: "v1.standing", value });
}

#[test]
fn a_stranger_is_neither_peer_nor_problem() {
    let mut table = Table::of_node_1();
    let address = ([127, 0, 0, 1], 7002).into();
    for stranger in ["n2", "2", "+000000000000002", "00000000000000002"] {
        table.hear(&ChitchatId::new(stranger, 1, address), Some("n2"), true);
    }
    let view = table.look_after(ROUND);
    assert_eq!(view.peers.len(), 1);
    assert!(view.unreadable.is_empty() && view.conflicts.is_empty());
}

#[test]
fn live_holders_of_hints_are_found_and_a_node_holds_none_for_itself() {
    let mut table = Table::of_node_1();
    let (n2, n3, n4) = (id(2, 1, 7002), id(3, 1, 7003), id(4, 1, 7004));
    for (holder, name, hints) in [(&n2, "n2", "0000000000000005"), (&n3, "n3", "*"), (&n4, "n4", "*")] {
        table.hear(holder, Some(name), true);
        table.runs.get_mut(holder).unwrap().0.set("v1.hints", hints);
    }
    table.call(&n4, false);
    let view = table.look_after(ROUND);
    assert_eq!(view.holders_of_hints_for(NodeId(5)), [NodeId(2), NodeId(3)]);
    assert_eq!(view.holders_of_hints_for(NodeId(3)), []);
}

#[test]
fn after_a_pause_of_this_process_nobody_is_called_dead_in_haste() {
    let mut table = Table::of_node_1();
    let (n2, n3) = (id(2, 1, 7002), id(3, 1, 7003));
    table.hear(&n2, Some("n2"), true);
    table.hear(&n3, Some("n3"), true);
    table.look_after(ROUND);
    // It wakes up, and chitchat has heard of nobody for a while.
    table.call(&n2, false);
    table.call(&n3, false);
    let view = table.look_after(PATIENCE * 3);
    assert!(view.is_alive(NodeId(2)) && view.is_alive(NodeId(3)));
    table.call(&n2, true);
    let view = table.watch(PATIENCE);
    assert!(view.is_alive(NodeId(2)), "it was there all the time");
    assert!(!view.is_alive(NodeId(3)), "it died meanwhile");
}

#[test]
fn a_process_that_pauses_all_the_time_notices_the_dead_all_the_same() {
    let mut table = Table::of_node_1();
    let n2 = id(2, 1, 7002);
    table.hear(&n2, Some("n2"), true);
    table.look_after(ROUND);
    table.call(&n2, false);
    table.look_after(PATIENCE);
    assert!(!table.look_after(PATIENCE).is_alive(NodeId(2)));
}
