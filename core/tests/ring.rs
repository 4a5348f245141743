//! How the ring changes, decree by decree.
#![allow(clippy::unwrap_used, reason = "a helper fails as its test does")]

use std::collections::{BTreeMap, BTreeSet};

use starling_core::choice::{Ballot, Vote};
use starling_core::codec;
use starling_core::ids::{ClusterId, DirectoryId, NodeId};
use starling_core::layout::{FirstLayout, Layout, LayoutVersion, Member, NextLayout};
use starling_core::name::ObjectKey;
use starling_core::quorum::ReplicaCount;
use starling_core::ring::{Decree, Departure, Entry, Epoch, InvalidDecree, Phase, Ring};
use starling_core::token::{Partition, PartitionCount};
use starling_core::transition::{Lack, Progress, Pull, Waiting};

fn member(number: u64) -> Member {
    Member {
        node: NodeId(number),
        directory: DirectoryId(100 + number),
        name: format!("n{number}").parse().unwrap(),
        zone: "z".parse().unwrap(),
        weight: 1,
        address: format!("127.0.0.1:{number}"),
    }
}

fn nodes(numbers: &[u64]) -> BTreeSet<NodeId> {
    numbers.iter().copied().map(NodeId).collect()
}

/// A ring of these members, with three replicas.
fn ring_of(numbers: &[u64]) -> Ring {
    let first = FirstLayout {
        cluster: ClusterId(7),
        partitions: PartitionCount::try_from(8).unwrap(),
        replicas: ReplicaCount::DEFAULT,
        members: numbers.iter().copied().map(member).collect(),
        buckets: BTreeMap::new(),
    };
    Ring::first(Layout::first(first).unwrap()).unwrap()
}

fn next_of(ring: &Ring, numbers: &[u64]) -> Layout {
    let members = numbers.iter().copied().map(member).collect();
    let next = NextLayout { replicas: ReplicaCount::DEFAULT, members, buckets: BTreeMap::new() };
    ring.newest().successor(next).unwrap()
}

fn decreed(ring: &Ring, decree: Decree) -> Result<Ring, InvalidDecree> {
    ring.after(&ring.entry(decree))
}

fn begun(ring: &Ring, numbers: &[u64], dead: &[u64]) -> Result<Ring, InvalidDecree> {
    decreed(ring, Decree::Begin { layout: next_of(ring, numbers), dead: nodes(dead) })
}

fn switched(ring: &Ring) -> Ring {
    decreed(ring, Decree::Switch(ring.newest().version())).unwrap()
}

fn ended(ring: &Ring) -> Ring {
    decreed(ring, Decree::End(ring.newest().version())).unwrap()
}

fn versions<'a>(layouts: impl IntoIterator<Item = &'a std::sync::Arc<Layout>>) -> Vec<u64> {
    layouts.into_iter().map(|layout| layout.version().0).collect()
}

#[test]
fn a_layout_is_written_before_it_is_read_and_the_old_one_goes_last() {
    let first = ring_of(&[1, 2, 3]);
    assert_eq!((first.epoch(), first.phase(), versions(first.written())), (Epoch(1), Phase::Settled, vec![1]));
    let dual = begun(&first, &[1, 2, 3, 4], &[]).unwrap();
    assert_eq!((dual.phase(), versions(dual.written()), dual.read().version().0), (Phase::Dual, vec![1, 2], 1));
    let switch = switched(&dual);
    assert_eq!((switch.phase(), versions(switch.written()), switch.read().version().0), (Phase::Switch, vec![1, 2], 2));
    let settled = ended(&switch);
    assert_eq!((settled.epoch(), settled.phase(), versions(settled.written())), (Epoch(4), Phase::Settled, vec![2]));
    assert_eq!(settled.departure_of(NodeId(1)), None);
}

#[test]
fn a_decree_follows_only_where_it_belongs() {
    let ring = ring_of(&[1, 2, 3]);
    let entry = ring.entry(Decree::Begin { layout: next_of(&ring, &[1, 2, 3, 4]), dead: nodes(&[]) });
    let late = Entry { epoch: Epoch(3), ..entry.clone() };
    assert_eq!(ring.after(&late), Err(InvalidDecree::OutOfOrder { at: Epoch(1), found: Epoch(3) }));
    let foreign = Entry { parent: None, ..entry };
    assert_eq!(ring.after(&foreign), Err(InvalidDecree::OtherLog(Epoch(2))));
    let version = LayoutVersion(2);
    assert_eq!(decreed(&ring, Decree::Switch(version)), Err(InvalidDecree::NotComing(version)));
    assert_eq!(decreed(&ring, Decree::End(LayoutVersion(1))), Err(InvalidDecree::NothingToEnd(LayoutVersion(1))));
    let dual = begun(&ring, &[1, 2, 3, 4], &[]).unwrap();
    assert_eq!(decreed(&dual, Decree::End(version)), Err(InvalidDecree::NothingToEnd(version)), "nobody reads it yet");
    let skipped = next_of(&dual, &[1, 2]);
    let refused = decreed(&ring, Decree::Begin { layout: skipped, dead: nodes(&[]) });
    assert_eq!(refused, Err(InvalidDecree::NotASuccessor { newest: LayoutVersion(1), found: LayoutVersion(3) }));
    let switch = decreed(&dual, Decree::Switch(version)).unwrap();
    assert_eq!(decreed(&switch, Decree::Switch(version)), Err(InvalidDecree::NotComing(version)), "once");
}

#[test]
fn while_a_layout_is_coming_only_the_dead_are_taken_out() {
    let dual = begun(&ring_of(&[1, 2, 3]), &[1, 2, 3, 4], &[]).unwrap();
    assert_eq!(begun(&dual, &[1, 2, 3, 4, 5], &[]), Err(InvalidDecree::UnderWay(LayoutVersion(2))));
    let without = begun(&dual, &[1, 2, 3], &[4]).unwrap();
    assert_eq!((without.phase(), versions(without.written())), (Phase::Dual, vec![1, 3]), "version 2 is given up");
    assert_eq!(without.departure_of(NodeId(4)), Some(Departure::Removed));
    assert!(!without.is_member(NodeId(4)) && without.is_retired(DirectoryId(104)));
}

#[test]
fn a_majority_is_of_those_who_choose_whoever_else_there_is() {
    let dual = begun(&ring_of(&[1, 2, 3]), &[1, 2, 3, 4, 5], &[]).unwrap();
    assert!(dual.has_majority_in(&nodes(&[1, 3])));
    assert!(!dual.has_majority_in(&nodes(&[1, 4, 5])), "joiners do not choose");
    assert!(!begun(&ring_of(&[1, 2, 3, 4]), &[1, 2, 3, 4, 5], &[]).unwrap().has_majority_in(&nodes(&[1, 2])));
}

#[test]
fn no_directory_stands_for_a_member_that_is_declared_dead() {
    let dual = begun(&ring_of(&[1, 2, 3]), &[2, 3], &[1]).unwrap();
    let wiped = Decree::Register { node: NodeId(1), directory: DirectoryId(201) };
    assert_eq!(decreed(&dual, wiped), Err(InvalidDecree::DeclaredDead(NodeId(1))));
}

#[test]
fn what_is_read_already_is_not_given_up_and_the_oldest_is_written_to_the_end() {
    let switch = switched(&begun(&ring_of(&[1, 2, 3]), &[1, 2, 4], &[]).unwrap());
    let dual = begun(&switch, &[1, 4, 5], &[2]).unwrap();
    assert_eq!((versions(dual.written()), dual.read().version().0), (vec![1, 2, 3], 2));
    let settled = ended(&switched(&dual));
    assert_eq!(versions(settled.written()), vec![3]);
    assert_eq!(settled.departure_of(NodeId(2)), Some(Departure::Removed));
    assert_eq!(settled.departure_of(NodeId(3)), Some(Departure::Left));
}

#[test]
fn joiners_have_no_voice_before_they_are_settled_and_the_dead_have_none() {
    let first = ring_of(&[1, 2, 3]);
    assert_eq!(first.acceptors(), nodes(&[1, 2, 3]));
    let dual = begun(&first, &[1, 2, 4, 5, 6], &[3]).unwrap();
    assert_eq!(dual.acceptors(), nodes(&[1, 2]));
    assert_eq!(switched(&dual).acceptors(), nodes(&[1, 2]));
    assert_eq!(ended(&switched(&dual)).acceptors(), nodes(&[1, 2, 4, 5, 6]));
}

fn forced(ring: &Ring, numbers: &[u64], dead: &[u64], cluster: u64) -> Result<Ring, InvalidDecree> {
    let layout = next_of(ring, numbers).in_cluster(ClusterId(cluster));
    decreed(ring, Decree::Force { layout, dead: nodes(dead) })
}

#[test]
fn those_who_go_on_without_a_majority_are_another_cluster_and_may_copy_and_choose() {
    let first = ring_of(&[1, 2, 3, 4, 5]);
    assert_eq!(first.survivors(&nodes(&[3, 4, 5])), nodes(&[1, 2]));
    let dual = forced(&first, &[1, 2], &[3, 4, 5], 8).unwrap();
    assert_eq!((dual.cluster(), dual.read().cluster()), (ClusterId(8), ClusterId(7)), "from the start");
    assert!(dual.goes_or_went_by(ClusterId(7)) && dual.goes_or_went_by(ClusterId(8)));
    assert!(!dual.goes_or_went_by(ClusterId(9)));
    assert_eq!((first.origin(), dual.origin()), (ClusterId(7), ClusterId(7)), "contexts stay valid");
    assert_eq!((dual.phase(), dual.acceptors()), (Phase::Dual, nodes(&[1, 2])));
    assert!(dual.in_transition().is_subset(&nodes(&[1, 2])), "nobody waits for the dead");
    let settled = ended(&switched(&dual));
    assert_eq!(settled.departure_of(NodeId(4)), Some(Departure::Removed));
    assert!(settled.may_reap());
    let joined = begun(&settled, &[1, 2, 6], &[]).unwrap();
    assert_eq!(joined.cluster(), ClusterId(8));
}

#[test]
fn a_cluster_that_goes_on_by_force_takes_an_id_it_never_had_and_gives_somebody_up() {
    let first = ring_of(&[1, 2, 3]);
    assert_eq!(forced(&first, &[1], &[2, 3], 7), Err(InvalidDecree::KnownCluster(ClusterId(7))));
    assert_eq!(forced(&first, &[1, 2, 3], &[], 8), Err(InvalidDecree::NobodyDead));
    let again = forced(&first, &[1, 2], &[3], 8).unwrap();
    assert_eq!(forced(&again, &[1], &[2], 7), Err(InvalidDecree::KnownCluster(ClusterId(7))), "it went by that");
    let regular = Decree::Begin { layout: next_of(&first, &[1, 2]).in_cluster(ClusterId(8)), dead: nodes(&[3]) };
    let refused = InvalidDecree::OtherCluster { ours: ClusterId(7), found: ClusterId(8) };
    assert_eq!(decreed(&first, regular), Err(refused));
}

#[test]
fn while_a_layout_is_coming_its_joiners_have_to_agree_as_well() {
    let dual = begun(&ring_of(&[1, 2, 3]), &[1, 2, 3, 4], &[]).unwrap();
    assert_eq!(dual.survivors(&nodes(&[2, 3])), nodes(&[1, 4]));
    let without = forced(&dual, &[1, 4], &[2, 3], 8).unwrap();
    assert_eq!((versions(without.written()), without.acceptors()), (vec![1, 3], nodes(&[1])));
    let by_force = Ballot { round: u64::MAX, proposer: NodeId(4), nonce: 0 };
    let regular = Ballot { round: 1, ..by_force };
    assert!(dual.has_vote(NodeId(4), by_force) && !dual.has_vote(NodeId(4), regular));
    assert!(dual.has_vote(NodeId(1), by_force) && dual.has_vote(NodeId(1), regular));
}

#[test]
fn whoever_has_departed_does_not_come_back() {
    let dual = begun(&ring_of(&[1, 2, 3]), &[1, 2, 4], &[]).unwrap();
    assert_eq!(dual.departure_of(NodeId(3)), None, "it is needed until the end");
    let settled = ended(&switched(&dual));
    assert_eq!(settled.departure_of(NodeId(3)), Some(Departure::Left));
    assert_eq!(begun(&settled, &[1, 2, 3, 4], &[]), Err(InvalidDecree::Departed("n3".parse().unwrap())));
    let emptied = decreed(&settled, Decree::Emptied(NodeId(3))).unwrap();
    assert_eq!(begun(&emptied, &[1, 2, 4], &[3]), Err(InvalidDecree::NoMember(NodeId(3))));
    assert_eq!(begun(&settled, &[1, 2, 4], &[4]), Err(InvalidDecree::DeadMember("n4".parse().unwrap())));
}

#[test]
fn nothing_is_reaped_until_whoever_has_left_holds_nothing() {
    let ring = ring_of(&[1, 2, 3]);
    assert!(ring.may_reap());
    let dual = begun(&ring, &[1, 2, 4], &[]).unwrap();
    assert!(!dual.may_reap() && !switched(&dual).may_reap(), "it changes");
    let settled = ended(&switched(&dual));
    assert_eq!(settled.bringing_home().values().map(ToString::to_string).collect::<Vec<_>>(), ["n3"]);
    assert!(!settled.may_reap());
    let emptied = decreed(&settled, Decree::Emptied(NodeId(3))).unwrap();
    assert!(emptied.may_reap());
    assert_eq!(emptied.departure_of(NodeId(3)), Some(Departure::Left));
    let again = InvalidDecree::NothingToBringHome(NodeId(3));
    assert_eq!(decreed(&emptied, Decree::Emptied(NodeId(3))), Err(again));
    let member = InvalidDecree::NothingToBringHome(NodeId(1));
    assert_eq!(decreed(&emptied, Decree::Emptied(NodeId(1))), Err(member));
}

#[test]
fn whoever_has_left_and_is_gone_for_good_can_be_declared_dead() {
    let settled = ended(&switched(&begun(&ring_of(&[1, 2, 3]), &[1, 2, 4], &[]).unwrap()));
    let without = begun(&settled, &[1, 2, 4], &[3]).unwrap();
    assert_eq!(without.departure_of(NodeId(3)), Some(Departure::Removed));
    assert!(ended(&switched(&without)).may_reap());
}

#[test]
fn another_directory_can_stand_for_a_member_and_the_old_one_never_again() {
    let ring = ring_of(&[1, 2, 3]);
    let register =
        |ring: &Ring, directory| decreed(ring, Decree::Register { node: NodeId(2), directory: DirectoryId(directory) });
    let registered = register(&ring, 202).unwrap();
    assert_eq!(registered.directory_of(NodeId(2)), Some(DirectoryId(202)));
    assert!(registered.is_retired(DirectoryId(102)));
    assert_eq!(register(&registered, 102), Err(InvalidDecree::DirectoryTaken(DirectoryId(102))));
    assert_eq!(register(&registered, 101), Err(InvalidDecree::DirectoryTaken(DirectoryId(101))));
    let outdated = begun(&registered, &[1, 2, 3, 4], &[]);
    assert_eq!(outdated, Err(InvalidDecree::OtherDirectory("n2".parse().unwrap())));
}

#[test]
fn every_joiner_copies_from_all_old_primaries_that_live() {
    let dual = begun(&ring_of(&[1, 2, 3]), &[1, 2, 4], &[3]).unwrap();
    let sources: BTreeSet<NodeId> = dual.pulls_of(NodeId(4)).into_iter().map(|pull| pull.source).collect();
    assert_eq!(sources, nodes(&[1, 2]), "not from the dead");
    assert_eq!(dual.pulls_of(NodeId(4)).len(), 8 * 2);
    assert_eq!(dual.pulls_of(NodeId(1)), BTreeSet::new());
    assert_eq!(dual.in_transition(), nodes(&[4]));
}

#[test]
fn where_replicas_become_fewer_those_who_stay_copy_from_each_other() {
    let ring = ring_of(&[1, 2, 3]);
    let members = [1, 2, 3].map(member).to_vec();
    let next = NextLayout { replicas: ReplicaCount::try_from(2).unwrap(), members, buckets: BTreeMap::new() };
    let layout = ring.newest().successor(next).unwrap();
    let dual = decreed(&ring, Decree::Begin { layout, dead: nodes(&[]) }).unwrap();
    let all: usize = [1, 2, 3].iter().map(|node| dual.pulls_of(NodeId(*node)).len()).sum();
    assert_eq!(all, 8 * 2 * 2);
}

#[test]
fn the_ring_waits_for_everybody_by_the_directory_that_is_registered() {
    let dual = begun(&ring_of(&[1, 2, 3]), &[1, 2, 4], &[]).unwrap();
    let said = |directory, adopted, copied: Option<u64>| Progress {
        directory: DirectoryId(directory),
        adopted: Epoch(adopted),
        copied: copied.map(LayoutVersion),
    };
    let lack = |progress: Option<Progress>| {
        let progress = progress.into_iter().map(|progress| (NodeId(4), progress)).collect();
        dual.next_decree(&progress).map_err(|Waiting(for_whom)| for_whom[&NodeId(4)])
    };
    assert_eq!(lack(None), Err(Lack::NoAnswer));
    assert_eq!(lack(Some(said(104, 2, None))), Err(Lack::NotCopied));
    assert_eq!(lack(Some(said(104, 2, Some(1)))), Err(Lack::NotCopied), "another layout's copy");
    assert_eq!(lack(Some(said(999, 2, Some(2)))), Err(Lack::OtherDirectory));
    assert_eq!(lack(Some(said(104, 2, Some(2)))), Ok(Some(Decree::Switch(LayoutVersion(2)))));

    let switch = switched(&dual);
    let all = |third| (1..=3).map(|n| (NodeId(n), said(100 + n, if n == 3 { third } else { 3 }, None))).collect();
    assert_eq!(switch.next_decree(&all(2)), Err(Waiting([(NodeId(3), Lack::NotAdopted)].into())));
    assert_eq!(switch.next_decree(&all(3)), Ok(Some(Decree::End(LayoutVersion(2)))));
    assert_eq!(ended(&switch).next_decree(&all(3)), Ok(None));
}

#[test]
fn a_copy_counts_in_each_layout() {
    let dual = begun(&ring_of(&[1, 2, 3]), &[1, 4, 5], &[]).unwrap();
    let key = ObjectKey::new("b".parse().unwrap(), "k").unwrap();
    let preference = dual.preference(&key);
    assert_eq!(preference.primaries().written().len(), 2);
    let owed = |node| preference.primaries().owed_by(NodeId(node));
    assert_eq!(owed(1), nodes(&[]), "a primary in both");
    assert_eq!(owed(9), nodes(&[1, 2, 3, 4, 5]), "a primary in none");
    let joiners: BTreeSet<NodeId> = owed(2).into_iter().chain(owed(3)).collect();
    assert_eq!(joiners, nodes(&[4, 5]), "each leaver its successor");
    let leavers: BTreeSet<NodeId> = owed(4).into_iter().chain(owed(5)).collect();
    assert_eq!(leavers, nodes(&[2, 3]));
    assert_eq!(preference.fallbacks(), &[] as &[NodeId], "the members of both are primaries");
}

fn hex(value: &impl serde::Serialize) -> String {
    codec::encode(value).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// On disk and on the wire: if this fails, the code is wrong, not the test.
#[test]
fn entries_of_the_log_are_frozen() {
    let ring = ring_of(&[1]);
    assert_eq!(ring.tip().to_string(), "ea3af909be084e69");
    let entry = |decree| hex(&ring.entry(decree));
    assert_eq!(entry(Decree::Switch(LayoutVersion(3))), "0201fd694e08be09f93aea0103");
    assert_eq!(entry(Decree::End(LayoutVersion(3))), "0201fd694e08be09f93aea0203");
    let register = Decree::Register { node: NodeId(5), directory: DirectoryId(6) };
    assert_eq!(entry(register), "0201fd694e08be09f93aea030506");
    // What a layout looks like is frozen elsewhere.
    let layout = next_of(&ring, &[1]);
    let begin = Decree::Begin { layout: layout.clone(), dead: nodes(&[9]) };
    assert_eq!(entry(begin), format!("0201fd694e08be09f93aea00{}0109", hex(&layout)));
    assert_eq!(entry(Decree::Emptied(NodeId(5))), "0201fd694e08be09f93aea0405");
    let force = Decree::Force { layout: layout.clone(), dead: nodes(&[9]) };
    assert_eq!(entry(force), format!("0201fd694e08be09f93aea05{}0109", hex(&layout)));
}

/// As above.
#[test]
fn votes_and_progress_are_frozen() {
    let ballot = Ballot { round: 3, proposer: NodeId(4), nonce: 5 };
    let mut vote = Vote::default();
    assert_eq!(hex(&vote), "0000");
    vote.accept(ballot, 7u8).unwrap();
    vote.promise(Ballot { round: 6, ..ballot }).unwrap();
    assert_eq!(hex(&vote), "010604050103040507");
    let progress = Progress { directory: DirectoryId(1), adopted: Epoch(2), copied: Some(LayoutVersion(3)) };
    assert_eq!(hex(&progress), "01020103");
    assert_eq!(hex(&Pull { partition: Partition(2), source: NodeId(3) }), "0203");
}
