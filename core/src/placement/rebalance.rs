//! From one placement to the next, with few moves.
//!
//! Each node gets the quota that a placement from nothing would give it, where shares are rounded so that more can stay.
//! All replicas stay where they are that may: on members, in zones that are allowed. What is left are vacancies, nodes that
//! hold more than their quota, and nodes that hold less. First every vacancy, then every replica too many, goes straight
//! to a node that lacks one. Where zones are in the way of that, a chain does it: one node takes the replica and gives
//! another away, and so on to a node that lacks one; the shortest that a breadth-first search finds. Only chains move more
//! than has to move. Should none be found, which nobody has met, all is placed anew.

use std::collections::VecDeque;

use super::{Draw, place, quotas_of, zones_of};
use crate::layout::Member;
use crate::quorum::ReplicaCount;
use crate::token::PartitionCount;

/// Searches for a chain, for each replica that has no place.
const CHAINS_EACH: usize = 4;

/// Per partition the indexes of its primaries in `members`, first choice first. `previous` are those of before, as far as
/// they are members still, by their indexes now.
pub(crate) fn rebalance(
    previous: &[Vec<u16>],
    members: &[Member],
    partitions: PartitionCount,
    replicas: ReplicaCount,
) -> Vec<Vec<u16>> {
    let mut table = Table::inherit(previous, members, partitions, replicas);
    table.fill_vacancies();
    table.relieve();
    table.chain();
    table.finished().unwrap_or_else(|| place(members, partitions, replicas))
}

struct Table {
    /// By member.
    zone_of: Vec<u16>,
    quota: Vec<u64>,
    /// The partitions that each member holds.
    held: Vec<Vec<u16>>,
    /// By partition; none of a replica that has no place yet.
    slots: Vec<Vec<Option<u16>>>,
    zones: usize,
    per_partition: usize,
    draw: Draw,
}

/// A replica without a place, or with one too many around it.
#[derive(Clone, Copy)]
enum Misplaced {
    Vacancy { partition: u16, slot: usize },
    Surplus { member: u16 },
}

impl Table {
    fn inherit(previous: &[Vec<u16>], members: &[Member], partitions: PartitionCount, replicas: ReplicaCount) -> Table {
        let per_partition = replicas.at_most(members.len()).get();
        let mut holds = vec![0; members.len()];
        previous.iter().flatten().for_each(|member| holds[usize::from(*member)] += 1);
        let (zone_of, zones) = zones_of(members);
        let mut table = Table {
            quota: quotas_of(members, u64::from(partitions.get()), per_partition as u64, &holds),
            held: vec![Vec::new(); members.len()],
            slots: Vec::with_capacity(previous.len()),
            zone_of,
            zones,
            per_partition,
            draw: Draw::new(0),
        };
        for primaries in previous {
            table.take_over(primaries, &mut holds);
        }
        table
    }

    /// Keeps what may stay of a partition's primaries. `holds` is what each member holds as far as it is known by now.
    fn take_over(&mut self, primaries: &[u16], holds: &mut [u64]) {
        let partition = u16::try_from(self.slots.len()).expect("at most 32768 partitions");
        let mut slots: Vec<Option<u16>> = primaries.iter().copied().map(Some).collect();
        while slots.len() > self.per_partition {
            let surplus = |slot: &Option<u16>| {
                let member = usize::from(slot.unwrap_or_default());
                let shared = self.count_in_zone(&slots, self.zone_of[member]) > 1;
                (shared, holds[member] as i64 - self.quota[member] as i64)
            };
            let Some(most) = (0..slots.len()).max_by_key(|index| surplus(&slots[*index])) else { break };
            if let Some(member) = slots.remove(most) {
                holds[usize::from(member)] -= 1;
            }
        }
        slots.resize(self.per_partition, None);
        for index in (0..slots.len()).rev() {
            let Some(member) = slots[index] else { continue };
            let shared = self.count_in_zone(&slots, self.zone_of[usize::from(member)]) > 1;
            let vacancies = slots.iter().filter(|slot| slot.is_none()).count();
            let is_needed = self.zones >= self.per_partition || self.uncovered(&slots) > vacancies;
            if shared && is_needed {
                slots[index] = None;
                holds[usize::from(member)] -= 1;
            }
        }
        slots.iter().flatten().for_each(|member| self.held[usize::from(*member)].push(partition));
        self.slots.push(slots);
    }

    fn count_in_zone(&self, slots: &[Option<u16>], zone: u16) -> usize {
        slots.iter().flatten().filter(|member| self.zone_of[usize::from(**member)] == zone).count()
    }

    /// Zones that hold no replica of a partition.
    fn uncovered(&self, slots: &[Option<u16>]) -> usize {
        let is_first = |index: &usize| {
            let zone = |slot: Option<u16>| slot.map(|member| self.zone_of[usize::from(member)]);
            let own = zone(slots[*index]);
            own.is_some() && slots[..*index].iter().all(|slot| zone(*slot) != own)
        };
        self.zones - (0..slots.len()).filter(is_first).count()
    }

    /// Whether the member may hold this replica, in the place of whoever holds it.
    fn fits(&self, partition: u16, slot: usize, member: u16) -> bool {
        let slots = &self.slots[usize::from(partition)];
        let others = || slots.iter().enumerate().filter(|(index, _)| *index != slot).map(|(_, other)| *other);
        if others().flatten().any(|other| other == member) {
            return false;
        }
        let zone = self.zone_of[usize::from(member)];
        if self.zones >= self.per_partition {
            return others().flatten().all(|other| self.zone_of[usize::from(other)] != zone);
        }
        let with: Vec<Option<u16>> = others().chain([Some(member)]).collect();
        self.uncovered(&with) <= with.iter().filter(|other| other.is_none()).count()
    }

    fn load(&self, member: u16) -> u64 {
        self.held[usize::from(member)].len() as u64
    }

    fn lacks(&self, member: u16) -> u64 {
        self.quota[usize::from(member)].saturating_sub(self.load(member))
    }

    fn surplus(&self, member: u16) -> u64 {
        self.load(member).saturating_sub(self.quota[usize::from(member)])
    }

    fn members(&self) -> impl Iterator<Item = u16> + use<> {
        0..u16::try_from(self.quota.len()).expect("at most 1024 members")
    }

    fn slot_of(&self, partition: u16, member: u16) -> Option<usize> {
        self.slots[usize::from(partition)].iter().position(|slot| *slot == Some(member))
    }

    /// One of those that lack a replica and may hold this one, drawn in proportion to what they lack.
    fn draw_taker(&mut self, partition: u16, slot: usize) -> Option<u16> {
        let takers: Vec<u16> =
            self.members().filter(|member| self.lacks(*member) > 0 && self.fits(partition, slot, *member)).collect();
        let lacks: Vec<u64> = takers.iter().map(|member| self.lacks(*member)).collect();
        (!takers.is_empty()).then(|| takers[self.draw.in_proportion(&lacks)])
    }

    fn put(&mut self, partition: u16, slot: usize, member: u16) {
        let held = &mut self.slots[usize::from(partition)][slot];
        let before = held.replace(member);
        if let Some(before) = before {
            self.held[usize::from(before)].retain(|held| *held != partition);
        }
        self.held[usize::from(member)].push(partition);
    }

    fn vacancies(&self) -> Vec<(u16, usize)> {
        let partitions = (0u16..).zip(&self.slots);
        let vacant = partitions.flat_map(|(partition, slots)| {
            slots.iter().enumerate().filter(|(_, slot)| slot.is_none()).map(move |(slot, _)| (partition, slot))
        });
        vacant.collect()
    }

    fn fill_vacancies(&mut self) {
        for (partition, slot) in self.vacancies() {
            if let Some(member) = self.draw_taker(partition, slot) {
                self.put(partition, slot, member);
            }
        }
    }

    /// Gives away what members hold above their quota.
    fn relieve(&mut self) {
        for member in self.members() {
            let mut partitions = self.held[usize::from(member)].clone();
            self.draw.shuffle(&mut partitions);
            for partition in partitions {
                if self.surplus(member) == 0 {
                    break;
                }
                let Some(slot) = self.slot_of(partition, member) else { continue };
                if let Some(taker) = self.draw_taker(partition, slot) {
                    self.put(partition, slot, taker);
                }
            }
        }
    }

    fn chain(&mut self) {
        let vacancies = self.vacancies().into_iter();
        let surplus = self.members().flat_map(|member| (0..self.surplus(member)).map(move |_| member));
        let misplaced: Vec<Misplaced> = vacancies
            .map(|(partition, slot)| Misplaced::Vacancy { partition, slot })
            .chain(surplus.map(|member| Misplaced::Surplus { member }))
            .collect();
        for replica in misplaced {
            for _ in 0..CHAINS_EACH {
                if self.is_settled(replica) || !self.try_chain(replica) {
                    break;
                }
            }
        }
    }

    fn is_settled(&self, replica: Misplaced) -> bool {
        match replica {
            Misplaced::Vacancy { partition, slot } => self.slots[usize::from(partition)][slot].is_some(),
            Misplaced::Surplus { member } => self.surplus(member) == 0,
        }
    }

    /// Finds the shortest chain to a member that lacks a replica and moves along it, from its end, as far as that goes.
    fn try_chain(&mut self, replica: Misplaced) -> bool {
        // By member, how it was reached: which replica it would take.
        let mut reached: Vec<Option<(u16, usize)>> = vec![None; self.quota.len()];
        let mut queue = VecDeque::new();
        match replica {
            Misplaced::Vacancy { partition, slot } => {
                for member in self.members().filter(|member| self.fits(partition, slot, *member)) {
                    reached[usize::from(member)] = Some((partition, slot));
                    queue.push_back(member);
                }
            }
            Misplaced::Surplus { member } => queue.push_back(member),
        }
        while let Some(giver) = queue.pop_front() {
            if self.lacks(giver) > 0 {
                self.move_along(&reached, giver);
                return true;
            }
            for partition in self.held[usize::from(giver)].clone() {
                let Some(slot) = self.slot_of(partition, giver) else { continue };
                for taker in self.members() {
                    let is_new = reached[usize::from(taker)].is_none() && taker != giver;
                    if is_new && self.fits(partition, slot, taker) {
                        reached[usize::from(taker)] = Some((partition, slot));
                        queue.push_back(taker);
                    }
                }
            }
        }
        false
    }

    fn move_along(&mut self, reached: &[Option<(u16, usize)>], end: u16) {
        let mut taker = end;
        // No longer than there are members: the way back to where it began comes by each once.
        for _ in 0..self.quota.len() {
            let Some((partition, slot)) = reached[usize::from(taker)] else { return };
            let giver = self.slots[usize::from(partition)][slot];
            if giver == Some(taker) || !self.fits(partition, slot, taker) {
                return;
            }
            self.put(partition, slot, taker);
            match giver {
                Some(giver) if self.surplus(giver) == 0 && self.lacks(giver) > 0 => taker = giver,
                Some(_) | None => return,
            }
        }
    }

    /// None if some quota is not met.
    fn finished(self) -> Option<Vec<Vec<u16>>> {
        let all_met = self.members().all(|member| self.load(member) == self.quota[usize::from(member)]);
        let placed: Option<Vec<Vec<u16>>> = self.slots.into_iter().map(|slots| slots.into_iter().collect()).collect();
        placed.filter(|_| all_met)
    }
}
