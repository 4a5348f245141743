//! Listings of keys and buckets, from enough replicas of every partition that none is missed.
//!
//! Each partition is read at a majority of its primaries, so that whatever was acknowledged by a majority of them is seen.
//! Every node lists all partitions it was asked for at once, in one order of keys; the pages are merged up to the least
//! key that a node which has more has got to. What was deleted is told from what is live by merging the outlines.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use starling_core::fault::{self, Fault};
use starling_core::ids::NodeId;
use starling_core::layout::Layout;
use starling_core::name::BucketName;
use starling_core::object::Object;
use starling_core::quorum::ReplicaCount;
use starling_core::report::{Failure, Refusal};
use starling_core::token::Partition;
use starling_core::wall::WallTime;
use starling_proto::data::{Keys, KeysPage, MAX_PAGE, RequestError};
use starling_proto::hello::Class;
use starling_proto::peer::{List, ListReply, PeerServiceClient};
use starling_storage::{Listed, Store, StoreError};

use crate::coordinator::{Request, own_failure};
use crate::link::as_failure;
use crate::node::Node;

/// Most buckets that are listed.
const MAX_BUCKETS: usize = 10_000;
/// A node that has said nothing for this long since the last answer is not waited for where the others suffice.
const STRAGGLERS: Duration = Duration::from_millis(250);

/// This node's part of a listing: the first keys of all the partitions together. Blocks on the disk.
///
/// The partitions are merged as they are read, a few records of each at a time, so that a page costs little more than what
/// is on it, however many partitions there are.
pub fn list_own(store: &Store, request: &List) -> Result<ListReply, StoreError> {
    if request.partitions.iter().any(|partition| store.is_filling(*partition)) {
        return Err(StoreError::Refused(Refusal::Filling));
    }
    let limit = request.limit.clamp(1, MAX_PAGE);
    let at_once = (limit / request.partitions.len().max(1)).clamp(4, limit.max(4));
    let left_out = usize::from(fault::is_on(Fault::ListTooLittle));
    let cursors: Result<Vec<Cursor>, StoreError> = request
        .partitions
        .iter()
        .skip(left_out)
        .map(|partition| Cursor::open(store, request, *partition, at_once))
        .collect();
    let mut cursors = cursors?;
    let mut nearest: BinaryHeap<Reverse<(Bytes, usize)>> =
        cursors.iter().enumerate().filter_map(|(index, cursor)| Some(Reverse((cursor.peek()?, index)))).collect();
    let mut keys = Vec::new();
    while let Some(Reverse((_, index))) = nearest.pop() {
        // One key more than asked for tells that there are more.
        if keys.len() == limit {
            return Ok(ListReply { keys, more: true });
        }
        let cursor = &mut cursors[index];
        keys.extend(cursor.next(store, request)?.map(|listed| (listed.key, listed.outline)));
        nearest.extend(cursor.peek().map(|key| Reverse((key, index))));
    }
    Ok(ListReply { keys, more: false })
}

/// A place in one partition's listing.
struct Cursor {
    partition: Partition,
    /// Records read ahead at once.
    at_once: usize,
    ahead: VecDeque<Listed>,
    exhausted: bool,
}

impl Cursor {
    fn open(store: &Store, request: &List, partition: Partition, at_once: usize) -> Result<Cursor, StoreError> {
        let mut cursor = Cursor { partition, at_once, ahead: VecDeque::new(), exhausted: false };
        cursor.read_on(store, request, request.after.as_deref())?;
        Ok(cursor)
    }

    fn peek(&self) -> Option<Bytes> {
        self.ahead.front().map(|listed| listed.key.clone())
    }

    fn next(&mut self, store: &Store, request: &List) -> Result<Option<Listed>, StoreError> {
        let next = self.ahead.pop_front();
        if let (Some(last), true) = (&next, self.ahead.is_empty() && !self.exhausted) {
            self.read_on(store, request, Some(&last.key.clone()))?;
        }
        Ok(next)
    }

    fn read_on(&mut self, store: &Store, request: &List, after: Option<&[u8]>) -> Result<(), StoreError> {
        let found = store.list(self.partition, &request.bucket, &request.prefix, after, self.at_once)?;
        self.exhausted = found.len() < self.at_once;
        self.ahead.extend(found);
        Ok(())
    }
}

/// The buckets of which this node holds records. Blocks on the disk.
pub fn own_buckets(store: &Store, layout: &Layout) -> Result<Vec<BucketName>, StoreError> {
    if store.filling_count() > 0 {
        return Err(StoreError::Refused(Refusal::Filling));
    }
    let mut buckets = BTreeSet::new();
    for partition in layout.partitions().all() {
        // One more tells that there are too many.
        buckets.extend(store.buckets(partition, MAX_BUCKETS + 1)?);
    }
    Ok(buckets.into_iter().take(MAX_BUCKETS + 1).collect())
}

impl Node {
    /// A page of a bucket's live keys; listed once more by each ring that comes meanwhile.
    pub async fn list_keys(self: Arc<Self>, mut request: Request, keys: Keys) -> Result<KeysPage, RequestError> {
        loop {
            let gap = match Arc::clone(&self).list_keys_by(&request, &keys).await {
                Ok(page) => return Ok(page),
                Err(gap) => gap,
            };
            request = self.newer_than_gap(&request, &gap).await.ok_or_else(|| incomplete(request.ring.read(), &gap))?;
        }
    }

    async fn list_keys_by(self: Arc<Self>, request: &Request, keys: &Keys) -> Result<KeysPage, Gap> {
        let layout = request.ring.read();
        let limit = keys.limit.clamp(1, MAX_PAGE);
        let asked = layout.members().iter().map(|member| {
            let list = List {
                epoch: request.ring.epoch(),
                bucket: keys.bucket.clone(),
                partitions: partitions_of(layout, member.node, &keys.bucket),
                prefix: keys.prefix.clone(),
                after: keys.after.clone(),
                limit,
            };
            let (node, request) = (Arc::clone(&self), request.clone());
            async move { (member.node, node.list_at(member.node, list, &request).await) }
        });
        let listed = gather(asked.collect(), layout, layout.replicas_of(&keys.bucket)).await?;
        Ok(merge_pages(layout, keys, limit, listed, self.wall()))
    }

    /// All buckets; listed once more by each ring that comes meanwhile.
    pub async fn list_buckets(self: Arc<Self>, mut request: Request) -> Result<Vec<BucketName>, RequestError> {
        loop {
            let gap = match Arc::clone(&self).list_buckets_by(&request).await {
                Ok(all) if all.len() > MAX_BUCKETS => {
                    let reason = format!("there are more than {MAX_BUCKETS} buckets, too many to list");
                    return Err(RequestError::Invalid(reason));
                }
                Ok(all) => return Ok(all.into_iter().collect()),
                Err(gap) => gap,
            };
            request = self.newer_than_gap(&request, &gap).await.ok_or_else(|| incomplete(request.ring.read(), &gap))?;
        }
    }

    async fn list_buckets_by(self: Arc<Self>, request: &Request) -> Result<BTreeSet<BucketName>, Gap> {
        let layout = request.ring.read();
        let asked = layout.members().iter().map(|member| {
            let (node, request) = (Arc::clone(&self), request.clone());
            async move { (member.node, node.buckets_at(member.node, &request).await) }
        });
        let listed = gather(asked.collect(), layout, layout.replicas().at_most(layout.members().len())).await?;
        Ok(listed.into_values().flatten().collect())
    }

    /// The request by the ring that has come since, if somebody has refused for being in another.
    async fn newer_than_gap(&self, request: &Request, gap: &Gap) -> Option<Request> {
        gap.iter().for_each(|(node, failure)| self.heed_failure(*node, *failure));
        let other = Failure::Refused(Refusal::OtherLayout);
        let refused = gap.values().any(|failure| *failure == other);
        self.newer(request, refused.then_some(RequestError::Refused(Refusal::OtherLayout)).as_ref()).await
    }

    async fn list_at(&self, at: NodeId, list: List, request: &Request) -> Result<ListReply, Failure> {
        if at == self.id() {
            return self.read_in(list.epoch, move |store| list_own(store, &list)).await.map_err(own_failure);
        }
        let link = self.peers.get(at, Class::Bulk).ok_or(Failure::Unreachable)?;
        let call = |client: Arc<PeerServiceClient>, context| async move { client.list(context, list).await };
        link.call(request.trace, within(request), call).await?.map_err(as_failure)
    }

    async fn buckets_at(&self, at: NodeId, request: &Request) -> Result<Vec<BucketName>, Failure> {
        if at == self.id() {
            let layout = Arc::clone(request.ring.read());
            let own = self.read_in(request.ring.epoch(), move |store| own_buckets(store, &layout)).await;
            return own.map_err(own_failure);
        }
        let link = self.peers.get(at, Class::Bulk).ok_or(Failure::Unreachable)?;
        let epoch = request.ring.epoch();
        let call = |client: Arc<PeerServiceClient>, context| async move { client.buckets(context, epoch).await };
        link.call(request.trace, within(request), call).await?.map_err(as_failure)
    }
}

/// A fifth of the time is kept for the answer's way back.
fn within(request: &Request) -> Duration {
    request.time_left().mul_f64(0.8)
}

fn partitions_of(layout: &Layout, node: NodeId, bucket: &BucketName) -> Vec<Partition> {
    let copies = layout.replicas_of(bucket);
    layout.partitions().all().filter(|p| layout.primaries(*p, copies).any(|primary| primary == node)).collect()
}

/// Of some partition fewer than a majority of primaries has answered: who failed, and why.
type Gap = BTreeMap<NodeId, Failure>;

/// Waits for everybody's answer, but once every partition is covered no longer than for the merely slow.
///
/// # Errors
/// The [`Gap`] that is left.
async fn gather<T>(
    mut asked: FuturesUnordered<impl Future<Output = (NodeId, Result<T, Failure>)>>,
    layout: &Layout,
    copies: ReplicaCount,
) -> Result<BTreeMap<NodeId, T>, Gap> {
    let (mut listed, mut failed) = (BTreeMap::new(), BTreeMap::new());
    loop {
        let covered = is_covered(layout, copies, |node| listed.contains_key(&node));
        let (node, reply) = tokio::select! {
            next = asked.next() => match next {
                Some(reply) => reply,
                None if covered => return Ok(listed),
                None => return Err(failed),
            },
            () = tokio::time::sleep(STRAGGLERS), if covered => return Ok(listed),
        };
        match reply {
            Ok(reply) => drop(listed.insert(node, reply)),
            Err(failure) => drop(failed.insert(node, failure)),
        }
    }
}

/// Of every partition a majority of primaries has answered.
fn is_covered(layout: &Layout, copies: ReplicaCount, has_answered: impl Fn(NodeId) -> bool) -> bool {
    layout.partitions().all().all(|partition| {
        let answered = layout.primaries(partition, copies).filter(|node| has_answered(*node)).count();
        answered >= usize::from(copies.majority())
    })
}

fn incomplete(layout: &Layout, failed: &Gap) -> RequestError {
    let name = |node: &NodeId| layout.member(*node).map_or_else(|| node.to_string(), |member| member.name.to_string());
    let reasons: Vec<String> = failed.iter().map(|(node, failure)| format!("{} {failure}", name(node))).collect();
    RequestError::Incomplete(reasons.join("; "))
}

fn merge_pages(
    layout: &Layout,
    request: &Keys,
    limit: usize,
    listed: BTreeMap<NodeId, ListReply>,
    now: WallTime,
) -> KeysPage {
    // Behind the last key of a node that has more, its word is missing.
    let cut_short = listed.values().filter(|reply| reply.more).filter_map(|reply| reply.keys.last());
    let horizon: Option<Bytes> = cut_short.map(|(key, _)| key.clone()).min();
    let mut merged: BTreeMap<Bytes, Object> = BTreeMap::new();
    for (key, outline) in listed.into_values().flat_map(|reply| reply.keys) {
        if horizon.as_ref().is_none_or(|horizon| key <= *horizon) {
            merged.entry(key).or_default().merge(&outline);
        }
    }
    let mode = layout.rules(&request.bucket).mode;
    let live: Vec<Bytes> =
        merged.into_iter().filter(|(_, object)| !object.present(mode, now).is_empty()).map(|(key, _)| key).collect();
    let next = if live.len() > limit { live.get(limit - 1).cloned() } else { horizon };
    KeysPage { keys: live.into_iter().take(limit).collect(), next }
}
