//! Layouts and preference lists from the outside: who holds a key, who stands in, what a layout refuses, and the bytes
//! that nodes exchange and store.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use starling_core::codec;
use starling_core::ids::{ClusterId, DirectoryId, NodeId};
use starling_core::layout::{
    BucketRules, FirstLayout, Layout, LayoutChecksum, LayoutError, LayoutVersion, MAX_LAYOUT_BYTES, MAX_MEMBERS, Member,
};
use starling_core::name::{BucketName, ObjectKey};
use starling_core::object::SiblingMode;
use starling_core::put::Candidate;
use starling_core::quorum::ReplicaCount;
use starling_core::token::{Partition, PartitionCount, Token};
use support::{cases, copies, ms, name};

fn member(number: u64, zone: u64, weight: u32) -> Member {
    Member {
        node: NodeId(number),
        directory: DirectoryId(100 + number),
        name: format!("n{number}").parse().expect("a name"),
        zone: format!("z{zone}").parse().expect("a zone"),
        weight,
        address: format!("127.0.0.1:{}", 7400 + number),
    }
}

fn first(members: Vec<Member>) -> FirstLayout {
    FirstLayout {
        cluster: ClusterId(1),
        partitions: PartitionCount::try_from(8).expect("a power of two"),
        replicas: ReplicaCount::DEFAULT,
        members,
        buckets: BTreeMap::new(),
    }
}

fn bucket(name: &str) -> BucketName {
    name.parse().expect("a bucket's name")
}

fn key(in_bucket: &str, number: u64) -> ObjectKey {
    ObjectKey::new(bucket(in_bucket), format!("key {number}")).expect("a key")
}

/// Five nodes in three zones, one of them heavier, and a bucket of two copies.
fn small() -> Layout {
    let members = vec![member(1, 1, 1), member(2, 2, 1), member(3, 3, 1), member(4, 1, 2), member(5, 2, 1)];
    let sessions = BucketRules { replicas: Some(copies(2)), mode: SiblingMode::LastWriteWins };
    Layout::first(FirstLayout { buckets: [(bucket("sessions"), sessions)].into(), ..first(members) })
        .expect("it is possible")
}

fn layouts() -> impl Strategy<Value = Layout> {
    let members = prop::collection::vec((0u64..4, 1u32..5), 1..12);
    let partitions = prop::sample::select(vec![8u32, 32, 64]);
    (members, partitions, 1u8..=7).prop_flat_map(|(members, partitions, replicas)| {
        (Just(members), Just(partitions), Just(replicas), 1..=replicas).prop_map(
            |(members, partitions, replicas, fewer)| {
                let members = (1..).zip(members).map(|(number, (zone, weight))| member(number, zone, weight)).collect();
                let rules = BucketRules { replicas: Some(copies(fewer.into())), mode: SiblingMode::Keep };
                let partitions = PartitionCount::try_from(partitions).expect("a power of two");
                let buckets = [(bucket("fewer"), rules)].into();
                let input = FirstLayout { partitions, replicas: copies(replicas.into()), buckets, ..first(members) };
                Layout::first(input).expect("it is possible")
            },
        )
    })
}

fn refusal(input: FirstLayout) -> LayoutError {
    Layout::first(input).expect_err("it is not possible")
}

proptest! {
    /// And what they compare is what buckets of so many replicas have on both.
    #[test]
    fn any_two_primaries_of_a_partition_compare_it_once(layout in layouts()) {
        let mut compared = BTreeSet::new();
        for asker in layout.members() {
            for (peer, partitions) in layout.compared_by(asker.node) {
                for (partition, least) in partitions {
                    let primaries: Vec<NodeId> = layout.primaries(partition, layout.replicas()).collect();
                    let place = |node| primaries.iter().position(|primary| *primary == node).expect("a primary");
                    prop_assert_eq!(usize::from(least.0), place(asker.node).max(place(peer)) + 1);
                    prop_assert!(compared.insert((partition, asker.node.min(peer), asker.node.max(peer))));
                }
            }
        }
        let copies = layout.replicas().at_most(layout.members().len()).get();
        prop_assert_eq!(compared.len(), copies * (copies - 1) / 2 * layout.partitions().get() as usize);
    }
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn a_preference_list_names_every_member_once_primaries_first(
        layout in layouts(), numbers in prop::collection::vec(any::<u64>(), 8)
    ) {
        let everybody: BTreeSet<NodeId> = layout.members().iter().map(|member| member.node).collect();
        for number in numbers {
            let key = key("any", number);
            let list = layout.preference_list(&key);
            prop_assert_eq!(list.partition(), layout.partition_of(&key));
            let holders: Vec<NodeId> = layout.primaries(list.partition(), layout.replicas_of(key.bucket())).collect();
            prop_assert_eq!(list.primaries(), holders);
            prop_assert_eq!(list.primaries().len(), layout.replicas().get().min(everybody.len()));
            let named: Vec<NodeId> = list.primaries().iter().chain(list.fallbacks()).copied().collect();
            prop_assert_eq!(named.len(), everybody.len());
            prop_assert_eq!(&named.into_iter().collect::<BTreeSet<_>>(), &everybody);
            prop_assert!(everybody.iter().all(|node| list.is_primary(*node) == list.primaries().contains(node)));
        }
    }

    #[test]
    fn a_bucket_of_fewer_copies_uses_the_first_of_the_same_primaries_and_falls_back_to_the_others(
        layout in layouts(), number in any::<u64>()
    ) {
        let fewer = layout.preference_list(&key("fewer", number));
        let copies = layout.replicas_of(&bucket("fewer"));
        prop_assert_eq!(fewer.primaries().len(), copies.get());
        let all: Vec<NodeId> = layout.primaries(fewer.partition(), layout.replicas()).collect();
        let (kept, left_out) = all.split_at(copies.get());
        prop_assert_eq!(fewer.primaries(), kept);
        let first_fallbacks = &fewer.fallbacks()[..left_out.len()];
        prop_assert_eq!(first_fallbacks, left_out, "whoever holds the partition anyway comes first");
    }

    #[test]
    fn fallbacks_follow_the_ring_clockwise(layout in layouts(), number in any::<u64>()) {
        let list = layout.preference_list(&key("any", number));
        let partitions = layout.partitions().get();
        let mut met: Vec<NodeId> = Vec::new();
        for step in 0..partitions {
            let partition = Partition(((u32::from(list.partition().0) + step) % partitions) as u16);
            for node in layout.primaries(partition, layout.replicas()) {
                if !met.contains(&node) {
                    met.push(node);
                }
            }
        }
        let walked: Vec<NodeId> = list.primaries().iter().chain(list.fallbacks()).copied().collect();
        prop_assert_eq!(&walked[..met.len()], met);
    }

    #[test]
    fn the_same_members_make_the_same_layout_in_whatever_order_they_are_named(
        layout in layouts(), seed in any::<u64>()
    ) {
        let mut members = layout.members().to_vec();
        members.sort_by_key(|member| member.node.0.wrapping_mul(seed | 1));
        let again = Layout::first(FirstLayout {
            partitions: layout.partitions(),
            replicas: layout.replicas(),
            buckets: layout.buckets().clone(),
            ..first(members)
        }).expect("it was possible before");
        prop_assert_eq!(again.checksum(), layout.checksum());
        prop_assert_eq!(again, layout);
    }

    #[test]
    fn a_layout_survives_its_encoding(layout in layouts()) {
        let decoded: Layout = codec::decode(&codec::encode(&layout), MAX_LAYOUT_BYTES, "a layout")
            .map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(decoded.checksum(), layout.checksum());
        prop_assert_eq!(decoded, layout);
    }

    #[test]
    fn a_token_belongs_to_the_slice_that_its_highest_bits_name(token in any::<u64>(), power in 3u32..=15) {
        let partitions = PartitionCount::try_from(1 << power).expect("a power of two");
        prop_assert_eq!(u64::from(partitions.partition_of(Token(token)).0), token >> (64 - power));
    }
}

/// Nodes store a layout's bytes and agree on it by their checksum. If this fails and the ring below does not, the
/// encoding has changed, and no existing cluster can be read. If both fail, placement has: clusters keep the layout they
/// have, but two builds no longer plan the same one.
#[test]
fn a_small_layout_is_frozen_to_the_byte() {
    let layout = small();
    let bytes = codec::encode(&layout);
    assert_eq!(bytes.len(), 172);
    assert_eq!(layout.checksum().to_string(), "10682846d7cb7ae9");
    assert_eq!(layout.checksum().0, xxhash_rust::xxh3::xxh3_64(&bytes));
}

#[test]
fn the_ring_of_a_small_layout_reads_like_this() {
    let layout = small();
    let told: Vec<String> = layout
        .partitions()
        .all()
        .map(|partition| layout.primaries(partition, layout.replicas()).map(name).collect::<Vec<_>>().join(" "))
        .collect();
    let expected = ["n3 n4 n2", "n3 n2 n1", "n4 n3 n5", "n5 n3 n1", "n3 n4 n2", "n4 n5 n3", "n1 n3 n5", "n4 n2 n3"];
    assert_eq!(told, expected);
    assert_eq!(layout.shares(), [3, 4, 8, 5, 4], "each zone has every partition; n4 weighs twice as much as n1");
    assert_eq!(layout.version(), LayoutVersion(1));
}

#[test]
fn a_preference_list_reads_like_this() {
    let tell = |in_bucket: &str| {
        let list = small().preference_list(&key(in_bucket, 1));
        let names = |nodes: &[NodeId]| nodes.iter().map(|node| name(*node)).collect::<Vec<_>>().join(" ");
        format!("{}: {}, then {}", list.partition(), names(list.primaries()), names(list.fallbacks()))
    };
    assert_eq!(tell("carts"), "0: n3 n4 n2, then n1 n5");
    assert_eq!(tell("sessions"), "5: n4 n5, then n3 n1 n2");
}

#[test]
fn a_preference_list_becomes_the_candidates_of_a_request() {
    let layout = small();
    let list = layout.preference_list(&key("carts", 1));
    let describe = |node| Candidate { node, believed_down: node == NodeId(3), slow_after: ms(node.0) };
    let (primaries, fallbacks) = list.candidates(describe);
    let nodes = |candidates: &[Candidate]| candidates.iter().map(|candidate| candidate.node).collect::<Vec<_>>();
    assert_eq!(nodes(&primaries), list.primaries());
    assert_eq!(nodes(&fallbacks), list.fallbacks());
    assert!(primaries.iter().chain(&fallbacks).all(|candidate| *candidate == describe(candidate.node)));
}

#[test]
fn rules_of_a_bucket_are_its_own_or_the_default() {
    let layout = small();
    assert_eq!(layout.rules(&bucket("sessions")).mode, SiblingMode::LastWriteWins);
    assert_eq!(layout.rules(&bucket("carts")), BucketRules::default());
    assert_eq!(layout.replicas_of(&bucket("sessions")), copies(2));
    assert_eq!(layout.replicas_of(&bucket("carts")), copies(3));
}

#[test]
fn members_are_found_by_id_and_by_name() {
    let layout = small();
    assert_eq!(layout.member(NodeId(4)).map(|member| member.weight), Some(2));
    assert_eq!(layout.member(NodeId(9)), None);
    assert_eq!(layout.member_named(&"n2".parse().unwrap()).map(|member| member.node), Some(NodeId(2)));
    assert_eq!(layout.member_named(&"n9".parse().unwrap()), None);
}

#[test]
fn one_node_alone_holds_everything() {
    let layout = Layout::first(first(vec![member(1, 1, 1)])).unwrap();
    let list = layout.preference_list(&key("any", 1));
    assert_eq!((list.primaries(), list.fallbacks()), ([NodeId(1)].as_slice(), [].as_slice()));
    assert_eq!(layout.replicas(), ReplicaCount::DEFAULT, "what is kept where there are members enough");
    assert_eq!(layout.replicas_of(&bucket("any")), copies(1));
}

#[test]
fn a_member_too_light_to_hold_anything_can_still_stand_in() {
    let members = vec![member(1, 1, 1000), member(2, 2, 1000), member(3, 3, 1000), member(4, 4, 1)];
    let layout = Layout::first(first(members)).unwrap();
    assert_eq!(layout.shares(), [8, 8, 8, 0]);
    assert_eq!(layout.preference_list(&key("any", 1)).fallbacks(), [NodeId(4)]);
}

#[test]
fn a_layout_needs_members_and_not_too_many() {
    assert_eq!(refusal(first(vec![])), LayoutError::NoMembers);
    let crowd: Vec<Member> = (0..=MAX_MEMBERS as u64).map(|number| member(number, 1, 1)).collect();
    assert_eq!(refusal(first(crowd)), LayoutError::TooManyMembers(MAX_MEMBERS + 1));
}

#[test]
fn members_that_cannot_be_told_apart_are_refused() {
    let namesake = Member { node: NodeId(2), directory: DirectoryId(2), ..member(1, 1, 1) };
    assert_eq!(refusal(first(vec![member(1, 1, 1), namesake])), LayoutError::DuplicateName("n1".parse().unwrap()));
    let same_node = Member { node: NodeId(1), ..member(2, 1, 1) };
    assert_eq!(refusal(first(vec![member(1, 1, 1), same_node])), LayoutError::DuplicateNode(NodeId(1)));
    let same_directory = Member { directory: DirectoryId(101), ..member(2, 1, 1) };
    assert_eq!(
        refusal(first(vec![member(1, 1, 1), same_directory])),
        LayoutError::DuplicateDirectory(DirectoryId(101))
    );
}

/// What a layout is made of, in its order on the wire.
type Parts = (
    LayoutVersion,
    ClusterId,
    Option<LayoutChecksum>,
    PartitionCount,
    ReplicaCount,
    Vec<Member>,
    Vec<Vec<u16>>,
    BTreeMap<BucketName, BucketRules>,
);

/// Decodes [`small`] with something about it changed.
fn tampered(change: impl FnOnce(&mut Parts)) -> Result<Layout, codec::DecodeError> {
    let mut parts: Parts = codec::decode(&codec::encode(&small()), MAX_LAYOUT_BYTES, "parts").expect("its parts");
    change(&mut parts);
    codec::decode(&codec::encode(&parts), MAX_LAYOUT_BYTES, "a layout")
}

#[test]
fn a_layout_that_contradicts_itself_is_not_decoded() {
    assert_eq!(tampered(|_| {}).unwrap(), small());
    assert!(tampered(|parts| parts.5.swap(0, 1)).is_err(), "members out of order");
    assert!(tampered(|parts| parts.5[1].name = parts.5[0].name.clone()).is_err(), "a namesake");
    assert!(tampered(|parts| drop(parts.6.pop())).is_err(), "a partition without primaries");
    assert!(tampered(|parts| parts.6[3][0] = 5).is_err(), "a primary that is no member");
    assert!(tampered(|parts| parts.6[3][0] = parts.6[3][1]).is_err(), "one member twice");
    assert!(tampered(|parts| parts.6[3].truncate(2)).is_err(), "too few primaries");
    assert!(tampered(|parts| parts.4 = copies(1)).is_err(), "too many primaries");
}

#[test]
fn a_weight_of_nothing_is_refused() {
    assert_eq!(refusal(first(vec![member(1, 1, 0)])), LayoutError::ZeroWeight("n1".parse().unwrap()));
}

#[test]
fn a_bucket_may_not_ask_for_more_copies_than_the_cluster_keeps() {
    let rules = BucketRules { replicas: Some(copies(4)), mode: SiblingMode::Keep };
    let input = FirstLayout { buckets: [(bucket("safe"), rules)].into(), ..first(vec![member(1, 1, 1)]) };
    let refused = refusal(input);
    assert_eq!(refused, LayoutError::TooManyReplicas { bucket: bucket("safe"), asked: copies(4), replicas: copies(3) });
    assert_eq!(refused.to_string(), "bucket `safe` asks for 4 replicas; the cluster keeps 3");
}
