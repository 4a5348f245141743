//! Where replicas go: a pure, deterministic function from members to each partition's primaries.
//!
//! Three promises, for any members, weights and zones:
//!
//! 1. the replicas of a partition lie on distinct nodes;
//! 2. they lie in distinct zones where there are enough, otherwise in every zone there is;
//! 3. each node's number of partition replicas is its weight's share, rounded up or down, as far as 1 and 2 allow.
//!
//! It works in two steps. [`quotas`] gives each node the number of replicas it shall hold: shares by weight, with each
//! zone held to what promises 1 and 2 leave room for. Then the partitions are dealt one after another. With `left`
//! partitions to go, a zone that still has to take `rest` replicas takes `rest / left` of them now, rounded down or up,
//! so it can never get into a corner: the average it still owes stays between the same two whole numbers to the end. The
//! same argument holds for the nodes of a zone, whose average is at most one. Who is rounded up is drawn in proportion
//! to what each still owes, from a hash of the partition, so that replicas of one node are spread over all the others
//! and its failure loads them all alike.

mod rebalance;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::layout::Member;
use crate::name::Zone;
use crate::quorum::ReplicaCount;
use crate::token::PartitionCount;

pub(crate) use rebalance::rebalance;

/// Fixed-point scale of fractional shares.
const ONE: u128 = 1 << 48;

/// Per partition the indexes of its primaries in `members`, first choice first.
pub(crate) fn place(members: &[Member], partitions: PartitionCount, replicas: ReplicaCount) -> Vec<Vec<u16>> {
    let per_partition = replicas.at_most(members.len()).get() as u64;
    let quotas = quotas_of(members, u64::from(partitions.get()), per_partition, &vec![0; members.len()]);
    let mut zones = seats(members, &quotas);
    let mut dealt = Vec::new();
    for partition in partitions.all() {
        let left = u64::from(partitions.get()) - u64::from(partition.0);
        dealt.push(deal(&mut zones, left, per_partition, &mut Draw::new(partition.0)));
    }
    dealt
}

/// A node (index into the members) and how many replicas it still has to take.
struct Seat {
    member: u16,
    rest: u64,
}

struct ZoneSeats(Vec<Seat>);

impl ZoneSeats {
    fn rest(&self) -> u64 {
        self.0.iter().map(|seat| seat.rest).sum()
    }
}

/// Deals one partition's replicas, with `left` partitions to go, this one included.
fn deal(zones: &mut [ZoneSeats], left: u64, per_partition: u64, draw: &mut Draw) -> Vec<u16> {
    let rests: Vec<u64> = zones.iter().map(ZoneSeats::rest).collect();
    let takes = round_average(&rests, left, per_partition, draw);
    let mut primaries = Vec::new();
    for (zone, take) in zones.iter_mut().zip(takes) {
        let rests: Vec<u64> = zone.0.iter().map(|seat| seat.rest).collect();
        let chosen = round_average(&rests, left, take, draw);
        for (seat, taken) in zone.0.iter_mut().zip(chosen) {
            seat.rest -= taken;
            primaries.extend(std::iter::repeat_n(seat.member, usize::try_from(taken).expect("0 or 1")));
        }
    }
    draw.shuffle(&mut primaries);
    primaries
}

/// Splits `total` into whole numbers, each `rest / left` rounded down or up.
fn round_average(rests: &[u64], left: u64, total: u64, draw: &mut Draw) -> Vec<u64> {
    let mut takes: Vec<u64> = rests.iter().map(|rest| rest / left).collect();
    let mut fractions: Vec<u64> = rests.iter().map(|rest| rest % left).collect();
    let mut missing = total - takes.iter().sum::<u64>();
    while missing > 0 {
        let chosen = draw.in_proportion(&fractions);
        takes[chosen] += 1;
        fractions[chosen] = 0;
        missing -= 1;
    }
    takes
}

/// A small deterministic stream of numbers (XXH3 over a counter, seeded by the partition).
struct Draw {
    seed: u64,
    count: u64,
}

impl Draw {
    fn new(partition: u16) -> Draw {
        Draw { seed: u64::from(partition), count: 0 }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.count += 1;
        xxh3_64_with_seed(&self.count.to_le_bytes(), self.seed) % bound
    }

    /// An index, drawn with the probability of its weight. At least one weight is above 0.
    fn in_proportion(&mut self, weights: &[u64]) -> usize {
        let mut point = self.below(weights.iter().sum());
        for (index, weight) in weights.iter().enumerate() {
            if point < *weight {
                return index;
            }
            point -= weight;
        }
        unreachable!("the point lies below the sum of the weights")
    }

    fn shuffle(&mut self, items: &mut [u16]) {
        for end in (1..items.len()).rev() {
            let other = self.below(end as u64 + 1);
            items.swap(end, usize::try_from(other).expect("an index"));
        }
    }
}

/// The zone of each member, by number, and how many zones there are. They are numbered in the order of their names.
fn zones_of(members: &[Member]) -> (Vec<u16>, usize) {
    let names: BTreeSet<&Zone> = members.iter().map(|member| &member.zone).collect();
    let numbers: BTreeMap<&Zone, u16> = names.into_iter().zip(0..).collect();
    (members.iter().map(|member| numbers[&member.zone]).collect(), numbers.len())
}

/// Members, by zone.
fn by_zone(members: &[Member]) -> Vec<Vec<u16>> {
    let (zone_of, zones) = zones_of(members);
    let mut grouped = vec![Vec::new(); zones];
    for (member, zone) in (0..).zip(zone_of) {
        grouped[usize::from(zone)].push(member);
    }
    grouped
}

fn seats(members: &[Member], quotas: &[u64]) -> Vec<ZoneSeats> {
    let seat = |member: u16| Seat { member, rest: quotas[usize::from(member)] };
    by_zone(members).into_iter().map(|zone| ZoneSeats(zone.into_iter().map(seat).collect())).collect()
}

/// How many replicas each member takes. Where a share is rounded, it is rounded up for those who hold that much already.
fn quotas_of(members: &[Member], partitions: u64, per_partition: u64, holds: &[u64]) -> Vec<u64> {
    let weighed = |member: u16| (member, u64::from(members[usize::from(member)].weight));
    let zones: Vec<Vec<(u16, u64)>> =
        by_zone(members).into_iter().map(|zone| zone.into_iter().map(weighed).collect()).collect();
    let mut quotas_of = vec![0; members.len()];
    for (member, quota) in quotas(&zones, partitions, per_partition, holds).into_iter().flatten() {
        quotas_of[usize::from(member)] = quota;
    }
    quotas_of
}

/// How many replicas each node takes: (member, weight) in, (member, quota) out, grouped by zone.
fn quotas(zones: &[Vec<(u16, u64)>], partitions: u64, per_partition: u64, holds: &[u64]) -> Vec<Vec<(u16, u64)>> {
    let zone_count = zones.len() as u64;
    let bounds: Vec<Bounds> = zones
        .iter()
        .map(|nodes| {
            let nodes = nodes.len() as u64;
            if zone_count >= per_partition {
                Bounds { weight: 0, least: 0, most: partitions }
            } else {
                let most = nodes.min(per_partition + 1 - zone_count);
                Bounds { weight: 0, least: partitions, most: partitions * most }
            }
        })
        .zip(zones)
        .map(|(bounds, nodes)| Bounds { weight: nodes.iter().map(|(_, weight)| weight).sum(), ..bounds })
        .collect();
    let zone_shares = shares(&bounds, u128::from(partitions * per_partition) * ONE);

    let node_shares: Vec<Vec<u128>> = zones
        .iter()
        .zip(&zone_shares)
        .map(|(nodes, share)| {
            let bounds: Vec<Bounds> =
                nodes.iter().map(|(_, weight)| Bounds { weight: *weight, least: 0, most: partitions }).collect();
            shares(&bounds, *share)
        })
        .collect();
    round(zones, &node_shares, &bounds, partitions * per_partition, holds)
}

#[derive(Clone, Copy)]
struct Bounds {
    weight: u64,
    least: u64,
    most: u64,
}

/// Splits `total` (fixed-point) in proportion to the weights, each share within its bounds: whoever would break a bound
/// is held to it, and the others share the rest, until nobody does. Of the two kinds of break the one that weighs more
/// goes first, since mending it can undo the other.
fn shares(bounds: &[Bounds], total: u128) -> Vec<u128> {
    let mut held: Vec<Option<u128>> = vec![None; bounds.len()];
    loop {
        let fixed: u128 = held.iter().flatten().sum();
        let weight: u128 =
            bounds.iter().zip(&held).filter(|(_, held)| held.is_none()).map(|(b, _)| u128::from(b.weight)).sum();
        let open = total.saturating_sub(fixed);
        let proposed: Vec<u128> = bounds
            .iter()
            .zip(&held)
            .map(|(b, held)| held.unwrap_or_else(|| open * u128::from(b.weight) / weight.max(1)))
            .collect();
        let most = |b: &Bounds| u128::from(b.most) * ONE;
        let least = |b: &Bounds| u128::from(b.least) * ONE;
        let excess: u128 = bounds.iter().zip(&proposed).map(|(b, share)| share.saturating_sub(most(b))).sum();
        let lack: u128 = bounds.iter().zip(&proposed).map(|(b, share)| least(b).saturating_sub(*share)).sum();
        if excess == 0 && lack == 0 {
            return proposed;
        }
        for (index, (b, share)) in bounds.iter().zip(&proposed).enumerate() {
            if excess >= lack && *share > most(b) {
                held[index] = Some(most(b));
            } else if excess < lack && *share < least(b) {
                held[index] = Some(least(b));
            }
        }
    }
}

/// Rounds the shares to whole numbers that add up to `total`: all down first, then up those whose members hold more than
/// that, then the largest fractions. Zones that are short of their lower bound choose first; rounding down is all that can
/// have put them there.
fn round(
    zones: &[Vec<(u16, u64)>],
    shares: &[Vec<u128>],
    bounds: &[Bounds],
    total: u64,
    holds: &[u64],
) -> Vec<Vec<(u16, u64)>> {
    let whole = |share: &u128| u64::try_from(share / ONE).expect("a share is at most 7 * 32768");
    let mut quotas: Vec<Vec<u64>> = shares.iter().map(|nodes| nodes.iter().map(whole).collect()).collect();
    let mut by_fraction: Vec<(bool, u128, usize, usize)> = Vec::new();
    for (zone, nodes) in shares.iter().enumerate() {
        by_fraction.extend(nodes.iter().enumerate().map(|(node, share)| {
            let holds_more = holds[usize::from(zones[zone][node].0)] > whole(share);
            (holds_more && share % ONE > 0, share % ONE, zone, node)
        }));
    }
    by_fraction.sort_by_key(|(keeps, fraction, zone, node)| (Reverse(*keeps), Reverse(*fraction), *zone, *node));

    let mut missing = total - quotas.iter().flatten().sum::<u64>();
    for limit in [|zone: &Bounds| zone.least, |zone: &Bounds| zone.most] {
        for (_, _, zone, node) in &by_fraction {
            let untouched = quotas[*zone][*node] == whole(&shares[*zone][*node]);
            let room = quotas[*zone].iter().sum::<u64>() < limit(&bounds[*zone]);
            if missing > 0 && untouched && room {
                quotas[*zone][*node] += 1;
                missing -= 1;
            }
        }
    }
    let with_members = |(nodes, quotas): (&Vec<(u16, u64)>, Vec<u64>)| {
        nodes.iter().zip(quotas).map(|((member, _), quota)| (*member, quota)).collect()
    };
    zones.iter().zip(quotas).map(with_members).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::{DirectoryId, NodeId};

    fn member(index: usize, zone: usize, weight: u32) -> Member {
        Member {
            node: NodeId(index as u64),
            directory: DirectoryId(index as u64),
            name: format!("n{index}").parse().unwrap(),
            zone: format!("z{zone}").parse().unwrap(),
            weight,
            address: format!("127.0.0.1:{index}"),
        }
    }

    fn held(placed: &[Vec<u16>], members: usize) -> Vec<u64> {
        let mut held = vec![0; members];
        for index in placed.iter().flatten() {
            held[usize::from(*index)] += 1;
        }
        held
    }

    fn place_all(members: &[Member], q: u32, n: u8) -> Vec<Vec<u16>> {
        place(members, PartitionCount::try_from(q).unwrap(), ReplicaCount::try_from(n).unwrap())
    }

    proptest! {
        #[test]
        fn replicas_are_distinct_in_nodes_and_zones_and_add_up(
            shape in prop::collection::vec((0usize..6, 1u32..5), 1..20),
            q in prop::sample::select(vec![8u32, 64, 256]),
            n in 1u8..=7,
        ) {
            let members: Vec<Member> = shape.iter().enumerate().map(|(i, (z, w))| member(i, *z, *w)).collect();
            let zones: BTreeSet<_> = members.iter().map(|m| m.zone.clone()).collect();
            let copies = usize::from(n).min(members.len());
            for primaries in place_all(&members, q, n) {
                prop_assert_eq!(primaries.len(), copies);
                let nodes: BTreeSet<_> = primaries.iter().collect();
                prop_assert_eq!(nodes.len(), copies);
                let spread: BTreeSet<_> = primaries.iter().map(|i| &members[usize::from(*i)].zone).collect();
                prop_assert_eq!(spread.len(), copies.min(zones.len()));
            }
        }

        #[test]
        fn without_zones_in_the_way_every_node_holds_its_share_rounded(
            weights in prop::collection::vec(1u32..4, 4..24),
        ) {
            // Each node its own zone, and no weight so large that a node would need two replicas of a partition.
            let members: Vec<Member> = weights.iter().enumerate().map(|(i, w)| member(i, i, *w)).collect();
            let total: u64 = weights.iter().map(|w| u64::from(*w)).sum();
            prop_assume!(weights.iter().all(|w| u64::from(*w) * 3 <= total));
            for (held, weight) in held(&place_all(&members, 256, 3), members.len()).iter().zip(&weights) {
                let share = 768.0 * f64::from(*weight) / total as f64;
                prop_assert!((*held as f64 - share).abs() < 1.0, "{held} for a share of {share}");
            }
        }
    }

    #[test]
    fn five_nodes_in_three_zones_are_balanced_as_far_as_zones_allow() {
        let members: Vec<Member> = (0..5).map(|i| member(i, i % 3, 1)).collect();
        // Zones 0 and 1 have two nodes, zone 2 has one: every partition has one replica in each.
        assert_eq!(held(&place_all(&members, 256, 3), 5), [128, 128, 256, 128, 128]);
    }

    #[test]
    fn a_nodes_partitions_are_shared_with_all_others_alike() {
        let members: Vec<Member> = (0..10).map(|i| member(i, i, 1)).collect();
        let placed = place_all(&members, 256, 3);
        for other in 1..10u16 {
            let together = placed.iter().filter(|p| p.contains(&0) && p.contains(&other)).count();
            assert!((6..=30).contains(&together), "n0 and n{other} share {together} partitions, about 17 expected");
        }
        let leads = placed.iter().filter(|p| p[0] == 0).count();
        assert!((14..=38).contains(&leads), "n0 comes first in {leads} partitions, about 26 expected");
    }
}
