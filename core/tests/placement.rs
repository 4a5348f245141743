//! From layout to layout: where replicas go when members come, leave and change, and how few of them move.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use starling_core::ids::{ClusterId, DirectoryId, NodeId};
use starling_core::layout::{FirstLayout, Layout, Member, NextLayout};
use starling_core::token::{Partition, PartitionCount};
use support::{cases, copies};

fn member(number: u64, zone: u8, weight: u32) -> Member {
    Member {
        node: NodeId(number),
        directory: DirectoryId(number),
        name: format!("n{number}").parse().expect("a name"),
        zone: format!("z{zone}").parse().expect("a zone"),
        weight,
        address: format!("127.0.0.1:{number}"),
    }
}

#[derive(Debug, Clone)]
enum Change {
    Join { zone: u8, weight: u32 },
    Leave(prop::sample::Index),
    Weigh(prop::sample::Index, u32),
    Rezone(prop::sample::Index, u8),
    Replicas(u8),
}

fn changes() -> impl Strategy<Value = Change> {
    let which = any::<prop::sample::Index>;
    prop_oneof![
        4 => (0u8..7, 1u32..5).prop_map(|(zone, weight)| Change::Join { zone, weight }),
        4 => which().prop_map(Change::Leave),
        2 => (which(), 1u32..5).prop_map(|(which, weight)| Change::Weigh(which, weight)),
        1 => (which(), 0u8..7).prop_map(|(which, zone)| Change::Rezone(which, zone)),
        1 => (1u8..=7).prop_map(Change::Replicas),
    ]
}

/// A cluster, and what is made of it: several changes in each commit.
#[derive(Debug, Clone)]
struct Life {
    members: Vec<(u8, u32)>,
    zones: u8,
    partitions: u32,
    replicas: u8,
    commits: Vec<Vec<Change>>,
}

fn lives(members: std::ops::Range<usize>) -> impl Strategy<Value = Life> {
    let commits = prop::collection::vec(prop::collection::vec(changes(), 1..5), 1..6);
    let members = prop::collection::vec((0u8..7, 1u32..5), members);
    let partitions = prop::sample::select(vec![8u32, 64, 256]);
    (members, 1u8..=7, partitions, 1u8..=7, commits).prop_map(|(members, zones, partitions, replicas, commits)| Life {
        members,
        zones,
        partitions,
        replicas,
        commits,
    })
}

impl Life {
    fn layouts(&self) -> Vec<Layout> {
        let mut joined = 0;
        let mut next = |zone: u8, weight| {
            joined += 1;
            member(joined, zone % self.zones, weight)
        };
        let mut members: Vec<Member> = self.members.iter().map(|(zone, weight)| next(*zone, *weight)).collect();
        let mut replicas = copies(self.replicas.into());
        let first = FirstLayout {
            cluster: ClusterId(1),
            partitions: PartitionCount::try_from(self.partitions).expect("a power of two"),
            replicas,
            members: members.clone(),
            buckets: BTreeMap::new(),
        };
        let mut layouts = vec![Layout::first(first).expect("it is possible")];
        for change in &self.commits {
            for change in change {
                match change {
                    Change::Join { zone, weight } => members.push(next(*zone, *weight)),
                    Change::Leave(which) if members.len() > 1 => drop(members.remove(which.index(members.len()))),
                    Change::Leave(_) => {}
                    Change::Weigh(which, weight) => {
                        let which = which.index(members.len());
                        members[which].weight = *weight;
                    }
                    Change::Rezone(which, zone) => {
                        let which = which.index(members.len());
                        members[which].zone = format!("z{}", zone % self.zones).parse().expect("a zone");
                    }
                    Change::Replicas(count) => replicas = copies((*count).into()),
                }
            }
            let input = NextLayout { replicas, members: members.clone(), buckets: BTreeMap::new() };
            layouts.push(layouts[layouts.len() - 1].successor(input).expect("it is possible"));
        }
        layouts
    }
}

fn primaries(layout: &Layout, partition: Partition) -> Vec<NodeId> {
    layout.primaries(partition, layout.replicas()).collect()
}

fn shares(layout: &Layout) -> BTreeMap<NodeId, u32> {
    layout.members().iter().map(|member| member.node).zip(layout.shares()).collect()
}

/// The same members, as if they had never been others.
fn from_nothing(layout: &Layout) -> Layout {
    Layout::first(FirstLayout {
        cluster: layout.cluster(),
        partitions: layout.partitions(),
        replicas: layout.replicas(),
        members: layout.members().to_vec(),
        buckets: layout.buckets().clone(),
    })
    .expect("it was possible before")
}

/// Replicas that a node takes which did not have it before.
fn moved(before: &Layout, after: &Layout) -> u32 {
    let gained = |partition| {
        let had: BTreeSet<NodeId> = primaries(before, partition).into_iter().collect();
        primaries(after, partition).into_iter().filter(|node| !had.contains(node)).count() as u32
    };
    after.partitions().all().map(gained).sum()
}

/// What has to move at the least: what each node holds more of than before.
fn unavoidable(before: &Layout, after: &Layout) -> u32 {
    let had = shares(before);
    let more = |(node, holds): (NodeId, u32)| holds.saturating_sub(had.get(&node).copied().unwrap_or(0));
    shares(after).into_iter().map(more).sum()
}

fn check(layout: &Layout) -> Result<(), TestCaseError> {
    let zone_of: BTreeMap<NodeId, _> = layout.members().iter().map(|member| (member.node, &member.zone)).collect();
    let zones: BTreeSet<_> = zone_of.values().collect();
    let copies = layout.replicas().get().min(layout.members().len());
    for partition in layout.partitions().all() {
        let nodes: BTreeSet<NodeId> = primaries(layout, partition).into_iter().collect();
        prop_assert_eq!(nodes.len(), copies, "distinct nodes");
        let spread: BTreeSet<_> = nodes.iter().map(|node| zone_of[node]).collect();
        prop_assert_eq!(spread.len(), copies.min(zones.len()), "distinct zones, as far as there are");
    }
    for (node, fresh) in shares(&from_nothing(layout)) {
        let held = shares(layout)[&node];
        prop_assert!(held.abs_diff(fresh) <= 1, "{node} holds {held}, where a fresh start would give it {fresh}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn every_layout_of_a_cluster_keeps_the_promises_of_placement(life in lives(1..24)) {
        for layout in life.layouts() {
            check(&layout)?;
        }
    }

    #[test]
    fn no_replica_moves_where_nothing_changes(life in lives(1..24)) {
        for layout in life.layouts() {
            let same = NextLayout {
                replicas: layout.replicas(),
                members: layout.members().to_vec(),
                buckets: layout.buckets().clone(),
            };
            let next = layout.successor(same).expect("it is possible");
            prop_assert_eq!(moved(&layout, &next), 0);
            prop_assert_eq!(next.version().0, layout.version().0 + 1);
        }
    }
}

proptest! {
    #![proptest_config(cases(12))]

    #[test]
    fn large_clusters_keep_them_too(life in lives(24..200)) {
        for layout in life.layouts() {
            check(&layout)?;
        }
    }
}

/// Over many lives, how much more moves than has to.
#[test]
fn hardly_anything_moves_that_need_not() {
    let mut runner = proptest::test_runner::TestRunner::new(cases(1));
    let (mut moves, mut least, mut worst) = (0, 0, 1.0_f64);
    for _ in 0..200 {
        let life = lives(3..40).new_tree(&mut runner).expect("a life").current();
        for pair in life.layouts().windows(2) {
            let (moved, unavoidable) = (moved(&pair[0], &pair[1]), unavoidable(&pair[0], &pair[1]));
            moves += moved;
            least += unavoidable;
            if unavoidable >= 64 {
                worst = worst.max(f64::from(moved) / f64::from(unavoidable));
            }
        }
    }
    let beyond = f64::from(moves) / f64::from(least) - 1.0;
    println!(
        "{moves} replicas moved, {least} at the least: {:.2} % beyond; at the worst {worst:.2} times",
        beyond * 100.0
    );
    assert!(beyond < 0.10, "{moves} replicas moved, where {least} had to");
}
