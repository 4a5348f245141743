//! The witness's account of every key: the dots that exist, and what became of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use starling_core::clock::{Clock, Dot, History};
use starling_core::ids::{DirectoryId, RequestId};
use starling_core::mark::OwnMark;
use starling_core::name::ObjectKey;
use starling_core::object::{Object, Sibling, Value};
use starling_core::request::ValueHash;
use starling_core::wall::WallTime;
use starling_proto::data::Got;

use super::Invariant;
use crate::kernel::time::{self, Moment};
use crate::names::{self, Names};

/// What a write may supersede.
#[derive(Debug, Clone)]
pub enum Seen {
    /// What its context covers, and nothing else.
    Just(Clock),
    /// A delete without a context, or a write of a last-write-wins bucket.
    WhatItsCoordinatorHolds,
}

struct Request {
    seen: Seen,
    /// As the transcript names what is written.
    label: String,
    /// How often somebody was asked for it: by its client, or by who forwarded it.
    asked: usize,
}

pub struct Accounts {
    names: Arc<Names>,
    keys: BTreeMap<ObjectKey, Account>,
    requests: BTreeMap<RequestId, Request>,
    /// The highest counter that the owner of a history has made durable.
    durable: BTreeMap<History, u64>,
    blindly_deleted: BTreeSet<ObjectKey>,
}

#[derive(Default)]
struct Account {
    dots: BTreeMap<Dot, Minted>,
    /// Those of them that no write has superseded.
    alive: BTreeSet<Dot>,
    /// What tombstones have covered that were deleted, and by whom.
    reaped: Clock,
    reaped_by: BTreeSet<usize>,
    /// Acknowledged writes, with the number of disks that took them.
    acknowledged: BTreeMap<RequestId, usize>,
}

/// What a write leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Deletion,
    Value { until: Option<WallTime> },
}

impl Kind {
    fn of(value: &Value) -> Kind {
        match value {
            Value::Tombstone => Kind::Deletion,
            Value::Live(_) | Value::Expiring { .. } => Kind::Value { until: value.until() },
        }
    }

    fn is_live(self, now: WallTime) -> bool {
        match self {
            Kind::Deletion => false,
            Kind::Value { until } => until.is_none_or(|until| now < until),
        }
    }
}

struct Minted {
    value_hash: ValueHash,
    request: RequestId,
    value: Kind,
    at: Moment,
    /// Nodes that held it when their disks were lost.
    lost_with: BTreeSet<usize>,
}

impl Accounts {
    pub fn new(names: Arc<Names>) -> Accounts {
        Accounts {
            names,
            keys: BTreeMap::new(),
            requests: BTreeMap::new(),
            durable: BTreeMap::new(),
            blindly_deleted: BTreeSet::new(),
        }
    }

    pub fn asked(&mut self, request: RequestId, seen: Seen, value: &Value) {
        let label = || match value {
            Value::Live(_) | Value::Expiring { .. } => names::value(value),
            Value::Tombstone => format!("a delete ({})", names::request(request)),
        };
        // A delete that was forwarded has a context by then, which its client did not give it.
        let known = self.requests.entry(request).or_insert_with(|| Request { seen, label: label(), asked: 0 });
        known.asked += 1;
    }

    /// More than one node may have carried it out.
    pub fn was_asked_again(&self, request: RequestId) -> bool {
        self.requests.get(&request).is_some_and(|request| request.asked > 1)
    }

    /// What a request writes.
    pub fn label(&self, request: RequestId) -> String {
        self.requests.get(&request).map_or_else(|| names::request(request), |request| request.label.clone())
    }

    /// Somebody may delete what it does not know.
    pub fn note_blind_delete(&mut self, key: &ObjectKey) {
        self.blindly_deleted.insert(key.clone());
    }

    pub fn had_blind_delete(&self, key: &ObjectKey) -> bool {
        self.blindly_deleted.contains(key)
    }

    pub fn carried_out(&self, key: &ObjectKey, request: RequestId) -> Option<Moment> {
        let dots = self.keys.get(key)?.dots.values();
        dots.filter(|minted| minted.request == request).map(|minted| minted.at).max()
    }

    /// How often a write was carried out: more than once, where a late try was not recognised.
    pub fn carried_out_times(&self, key: &ObjectKey, request: RequestId) -> usize {
        let dots = self.keys.get(key).into_iter().flat_map(|account| account.dots.values());
        dots.filter(|minted| minted.request == request).count()
    }

    pub fn knows(&self, key: &ObjectKey, dot: &Dot) -> bool {
        self.keys.get(key).is_some_and(|account| account.dots.contains_key(dot))
    }

    /// A new dot, durable at its owner together with that clock. False if nobody has asked for it.
    pub fn mint(&mut self, key: &ObjectKey, sibling: &Sibling, clock: &Clock) -> bool {
        let Some(Request { seen, .. }) = self.requests.get(&sibling.request) else { return false };
        let account = self.keys.entry(key.clone()).or_default();
        let superseded = match seen {
            Seen::Just(seen) => seen,
            Seen::WhatItsCoordinatorHolds => clock,
        };
        account.alive.retain(|dot| !superseded.covers(dot));
        let minted = Minted {
            value_hash: sibling.value_hash,
            request: sibling.request,
            value: Kind::of(&sibling.value),
            at: time::now(),
            lost_with: BTreeSet::new(),
        };
        account.dots.insert(sibling.dot, minted);
        account.alive.insert(sibling.dot);
        let highest = self.durable.entry(sibling.dot.history).or_insert(0);
        *highest = sibling.dot.counter.max(*highest);
        true
    }

    pub fn minted_up_to(&mut self, directory: DirectoryId, mark: &OwnMark) {
        let highest = self.durable.entry(History { directory, birth: mark.birth }).or_insert(0);
        *highest = mark.counter.max(*highest);
    }

    pub fn has_minted_beyond(&self, directory: DirectoryId, mark: &OwnMark) -> bool {
        let highest = self.durable.get(&History { directory, birth: mark.birth });
        highest.is_some_and(|highest| *highest > mark.counter)
    }

    pub fn acknowledge(&mut self, key: &ObjectKey, request: RequestId, w: usize) {
        self.keys.entry(key.clone()).or_default().acknowledged.insert(request, w);
    }

    pub fn acknowledged(&self, key: &ObjectKey) -> Vec<(RequestId, usize)> {
        let all = self.keys.get(key).map(|account| &account.acknowledged);
        all.into_iter().flatten().map(|(request, w)| (*request, *w)).collect()
    }

    /// The dots that a request has left; none if none of them was ever seen.
    pub fn dots_of(&self, key: &ObjectKey, request: RequestId) -> Option<Vec<Dot>> {
        let account = self.keys.get(key)?;
        let dots = account.dots.iter().filter(|(_, minted)| minted.request == request).map(|(dot, _)| *dot);
        Some(dots.collect::<Vec<Dot>>()).filter(|dots| !dots.is_empty())
    }

    /// A disk that held this state of a key is lost.
    pub fn note_loss(&mut self, node: usize, key: &ObjectKey, clock: &Clock) {
        let dots = self.keys.get_mut(key).map(|account| account.dots.iter_mut());
        for (_, minted) in dots.into_iter().flatten().filter(|(dot, _)| clock.covers(dot)) {
            minted.lost_with.insert(node);
        }
    }

    /// The nodes that held one of these dots when their disks were lost.
    pub fn lost_with(&self, key: &ObjectKey, dots: &[Dot]) -> BTreeSet<usize> {
        let account = self.keys.get(key);
        let minted = dots.iter().filter_map(|dot| account?.dots.get(dot));
        minted.flat_map(|minted| minted.lost_with.iter().copied()).collect()
    }

    /// A node has deleted a tombstone with that clock.
    pub fn note_reaped(&mut self, node: usize, key: &ObjectKey, clock: &Clock) {
        let account = self.keys.entry(key.clone()).or_default();
        account.reaped.merge(clock);
        account.reaped_by.insert(node);
    }

    pub fn has_reaped(&self, node: usize, key: &ObjectKey) -> bool {
        self.keys.get(key).is_some_and(|account| account.reaped_by.contains(&node))
    }

    /// What tombstones of a key have covered that are gone.
    pub fn reaped(&self, key: &ObjectKey) -> Clock {
        self.keys.get(key).map(|account| account.reaped.clone()).unwrap_or_default()
    }

    /// What is wrong with a state of a key.
    pub fn contradictions(&self, key: &ObjectKey, object: &Object) -> Vec<(Invariant, String)> {
        let mut found = Vec::new();
        if let Some(what) = self.ahead(object.clock()) {
            found.push((Invariant::NothingInvented, what));
        }
        let Some(account) = self.keys.get(key) else { return found };
        let has = |dot: &Dot| object.siblings().iter().any(|sibling| sibling.dot == *dot);
        for sibling in object.siblings() {
            if let Some(minted) = account.dots.get(&sibling.dot)
                && ((minted.value_hash, minted.request) != (sibling.value_hash, sibling.request)
                    || minted.value != Kind::of(&sibling.value))
            {
                let what = format!(
                    "{} is {} here, and was {}",
                    self.names.dot(&sibling.dot),
                    self.label(sibling.request),
                    self.label(minted.request)
                );
                found.push((Invariant::OneValue, what));
            }
            if sibling.value.hash() != sibling.value_hash {
                let what = format!("{} is there without its value", self.names.dot(&sibling.dot));
                found.push((Invariant::OneValue, what));
            }
        }
        if let Some(lost) = account.alive.iter().find(|dot| object.clock().covers(dot) && !has(dot)) {
            let what = format!(
                "its clock covers {}, which is not there, and which no write has superseded",
                self.names.dot(lost)
            );
            found.push((Invariant::NothingVanishes, what));
        }
        found
    }

    /// A write that nobody has superseded, that a client is told to have seen, and is not shown, although it is live by all
    /// clocks, the latest of which shows `now`.
    pub fn hidden_by(&self, key: &ObjectKey, got: &Got, now: WallTime) -> Option<String> {
        let account = self.keys.get(key)?;
        let shown: BTreeSet<Dot> = got.siblings.iter().map(|sibling| sibling.dot).collect();
        let hidden = |dot: &&Dot| got.clock.covers(dot) && !shown.contains(dot) && account.dots[dot].value.is_live(now);
        let lost = account.alive.iter().filter(hidden).find(|dot| !account.shows_otherwise(dot, &shown))?;
        Some(format!("its context covers {}, which it does not show", self.names.dot(lost)))
    }

    /// A write of somebody else that nobody has superseded, that the context of a write's answer covers.
    pub fn covers_too_much(&self, key: &ObjectKey, request: RequestId, clock: &Clock) -> Option<String> {
        let account = self.keys.get(key)?;
        let foreign = |dot: &&Dot| clock.covers(dot) && account.dots[dot].request != request;
        let unseen = account.alive.iter().find(foreign)?;
        let dot = self.names.dot(unseen);
        Some(format!("the context that a write returns covers {dot}, which its writer has not seen"))
    }

    /// What is wrong with a clock that counts a history further than its owner.
    pub fn ahead(&self, clock: &Clock) -> Option<String> {
        let durable = |history: &History| self.durable.get(history).copied().unwrap_or(0);
        let (history, counter) = clock.entries().find(|(history, counter)| *counter > durable(history))?;
        Some(format!("it counts {} to {counter}, which its owner never made durable", self.names.history(history)))
    }
}

impl Account {
    /// A write that was tried twice shows itself by one of its dots, or was superseded by another (R7).
    fn shows_otherwise(&self, dot: &Dot, shown: &BTreeSet<Dot>) -> bool {
        let request = self.dots[dot].request;
        let others = self.dots.iter().filter(|(other, minted)| *other != dot && minted.request == request);
        others.into_iter().any(|(other, _)| shown.contains(other) || !self.alive.contains(other))
    }
}
