//! What operators ask for, and what it comes to.
#![allow(clippy::unwrap_used, reason = "a helper fails as its test does")]

use std::collections::{BTreeMap, BTreeSet};

use starling_core::change::{Change, ChangeError};
use starling_core::codec;
use starling_core::ids::{ClusterId, DirectoryId, NodeId};
use starling_core::layout::{BucketRules, FirstLayout, Layout, LayoutError, Member};
use starling_core::name::NodeName;
use starling_core::object::SiblingMode;
use starling_core::quorum::ReplicaCount;
use starling_core::ring::{Decree, InvalidDecree, Ring};
use starling_core::token::PartitionCount;

fn name(number: u64) -> NodeName {
    format!("n{number}").parse().unwrap()
}

fn member(number: u64) -> Member {
    Member {
        node: NodeId(number),
        directory: DirectoryId(100 + number),
        name: name(number),
        zone: "z".parse().unwrap(),
        weight: 1,
        address: format!("127.0.0.1:{number}"),
    }
}

fn ring() -> Ring {
    let first = FirstLayout {
        cluster: ClusterId(7),
        partitions: PartitionCount::try_from(8).unwrap(),
        replicas: ReplicaCount::DEFAULT,
        members: (1..=3).map(member).collect(),
        buckets: BTreeMap::new(),
    };
    Ring::first(Layout::first(first).unwrap()).unwrap()
}

/// What comes out, where n4 and n5 could join.
fn decree(ring: &Ring, changes: &[Change]) -> Result<(Layout, BTreeSet<NodeId>), ChangeError> {
    let joining = [4, 5].map(|number| (name(number), member(number))).into();
    match ring.decree_of(changes, &joining)? {
        Decree::Begin { layout, dead } => Ok((layout, dead)),
        other => panic!("{other:?}"),
    }
}

fn members(layout: &Layout) -> Vec<u64> {
    layout.members().iter().map(|member| member.node.0).collect()
}

fn join(number: u64) -> Change {
    Change::Join { name: name(number), weight: 1 }
}

#[test]
fn changes_are_made_one_after_another_and_come_to_one_layout() {
    let changes = [
        join(4),
        Change::Join { name: name(5), weight: 2 },
        Change::Leave(name(1)),
        Change::Remove(name(2)),
        Change::Weigh { name: name(3), weight: 4 },
        Change::Rezone { name: name(4), zone: "far".parse().unwrap() },
        Change::Replicas(ReplicaCount::try_from(2).unwrap()),
    ];
    let (layout, dead) = decree(&ring(), &changes).unwrap();
    assert_eq!((members(&layout), dead), (vec![3, 4, 5], [NodeId(2)].into()));
    let weights: Vec<u32> = layout.members().iter().map(|member| member.weight).collect();
    assert_eq!(weights, [4, 1, 2]);
    assert_eq!(layout.members()[1].zone.to_string(), "far");
    assert_eq!((layout.version().0, layout.replicas().get()), (2, 2));
}

#[test]
fn what_cannot_be_is_refused_with_the_reason() {
    let ring = ring();
    assert_eq!(decree(&ring, &[]), Err(ChangeError::Nothing));
    assert_eq!(decree(&ring, &[Change::Weigh { name: name(1), weight: 1 }]), Err(ChangeError::Nothing));
    assert_eq!(decree(&ring, &[join(1)]), Err(ChangeError::Member(name(1))));
    assert_eq!(decree(&ring, &[join(9)]), Err(ChangeError::Unknown(name(9))));
    assert_eq!(decree(&ring, &[Change::Leave(name(4))]), Err(ChangeError::NoMember(name(4))));
    let all = [1, 2, 3].map(|number| Change::Leave(name(number)));
    assert_eq!(decree(&ring, &all), Err(ChangeError::Layout(LayoutError::NoMembers)));
    let weightless = decree(&ring, &[Change::Weigh { name: name(1), weight: 0 }]);
    assert_eq!(weightless, Err(ChangeError::Layout(LayoutError::ZeroWeight(name(1)))));
}

#[test]
fn while_a_change_is_under_way_the_dead_can_be_taken_out_even_those_who_leave() {
    let ring = ring();
    let (layout, dead) = decree(&ring, &[join(4), Change::Leave(name(3))]).unwrap();
    let dual = ring.after(&ring.entry(Decree::Begin { layout, dead })).unwrap();
    assert!(matches!(decree(&dual, &[join(5)]), Err(ChangeError::Decree(InvalidDecree::UnderWay(_)))));
    let (layout, dead) = decree(&dual, &[Change::Remove(name(3))]).unwrap();
    assert_eq!((members(&layout), dead), (vec![1, 2, 4], [NodeId(3)].into()));
    let (layout, dead) = decree(&dual, &[Change::Remove(name(4)), join(5)]).unwrap();
    assert_eq!((members(&layout), dead), (vec![1, 2, 5], [NodeId(4)].into()), "replaced");
}

#[test]
fn a_member_is_named_with_the_directory_that_is_registered_by_now() {
    let ring = ring();
    let register = Decree::Register { node: NodeId(2), directory: DirectoryId(202) };
    let registered = ring.after(&ring.entry(register)).unwrap();
    let (layout, _) = decree(&registered, &[join(4)]).unwrap();
    assert_eq!(layout.members()[1].directory, DirectoryId(202));
}

/// On disk and on the wire: if this fails, the code is wrong, not the test.
#[test]
fn changes_are_frozen() {
    let hex = |change: &Change| codec::encode(change).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex(&Change::Join { name: name(1), weight: 2 }), "00026e3102");
    assert_eq!(hex(&Change::Leave(name(1))), "01026e31");
    assert_eq!(hex(&Change::Remove(name(1))), "02026e31");
    assert_eq!(hex(&Change::Weigh { name: name(1), weight: 3 }), "03026e3103");
    assert_eq!(hex(&Change::Rezone { name: name(1), zone: "z".parse().unwrap() }), "04026e31017a");
    assert_eq!(hex(&Change::Replicas(ReplicaCount::DEFAULT)), "0503");
    let rules = BucketRules { replicas: Some(ReplicaCount::DEFAULT), mode: SiblingMode::LastWriteWins };
    assert_eq!(hex(&Change::Bucket { bucket: "b".parse().unwrap(), rules }), "060162010301");
}

#[test]
fn a_node_that_has_left_and_is_gone_for_good_can_be_removed_by_its_name() {
    let ring = ring();
    let (layout, dead) = decree(&ring, &[Change::Leave(name(3))]).unwrap();
    let version = layout.version();
    let decrees = [Decree::Begin { layout, dead }, Decree::Switch(version), Decree::End(version)];
    let left = decrees.into_iter().fold(ring, |ring, decree| ring.after(&ring.entry(decree)).unwrap());
    assert_eq!(decree(&left, &[Change::Remove(name(3))]).unwrap().1, BTreeSet::from([NodeId(3)]));
    let joining = [(name(3), Member { node: NodeId(33), directory: DirectoryId(133), ..member(3) })].into();
    let again = left.decree_of(&[Change::Join { name: name(3), weight: 1 }], &joining);
    assert_eq!(again, Err(ChangeError::BringsHome(name(3))), "whom a removal would name has to be clear");
    let emptied = left.after(&left.entry(Decree::Emptied(NodeId(3)))).unwrap();
    assert_eq!(decree(&emptied, &[Change::Remove(name(3))]), Err(ChangeError::NoMember(name(3))));
}

#[test]
fn what_was_brought_home_meanwhile_leaves_a_plan_as_it_was() {
    let settle = |ring: &Ring, layout: &Layout, dead: &BTreeSet<NodeId>| {
        let begin = Decree::Begin { layout: layout.clone(), dead: dead.clone() };
        [begin, Decree::Switch(layout.version()), Decree::End(layout.version())]
            .into_iter()
            .fold(ring.clone(), |ring, decree| ring.after(&ring.entry(decree)).unwrap())
    };
    let (four, none) = decree(&ring(), &[join(4)]).unwrap();
    let four = settle(&ring(), &four, &none);
    let (three, none) = decree(&four, &[Change::Leave(name(4))]).unwrap();
    let left = settle(&four, &three, &none);
    let emptied = left.after(&left.entry(Decree::Emptied(NodeId(4)))).unwrap();
    let weigh = [Change::Weigh { name: name(1), weight: 2 }];
    assert_eq!(decree(&left, &weigh), decree(&emptied, &weigh));
}

#[test]
fn members_can_be_given_up_by_force_and_those_who_are_left_are_another_cluster() {
    let dead = |numbers: &[u64]| numbers.iter().copied().map(name).collect::<BTreeSet<_>>();
    let ring = ring();
    let Decree::Force { layout, dead: gone } = ring.force_of(&dead(&[2, 3]), ClusterId(8)).unwrap() else {
        panic!("members are given up by force")
    };
    assert_eq!((members(&layout), layout.cluster()), (vec![1], ClusterId(8)));
    assert_eq!(gone, [NodeId(2), NodeId(3)].into());
    let known = ring.force_of(&dead(&[2, 3]), ClusterId(7));
    assert_eq!(known, Err(ChangeError::Decree(InvalidDecree::KnownCluster(ClusterId(7)))));
    assert_eq!(ring.force_of(&dead(&[9]), ClusterId(8)), Err(ChangeError::NoMember(name(9))));
    assert_eq!(ring.force_of(&dead(&[]), ClusterId(8)), Err(ChangeError::Nothing));
    assert_eq!(ring.force_of(&dead(&[1, 2, 3]), ClusterId(8)), Err(ChangeError::Layout(LayoutError::NoMembers)));
}
