//! Listings of keys and buckets, from enough replicas of every partition that none is missed.
//!
//! Each partition is read at a majority of its primaries, so that whatever was acknowledged by a majority of them is seen.
//! Every node lists all partitions it was asked for at once, in one order of keys; the pages are merged up to the least
//! key that a node which has more has got to. What was deleted is told from what is live by merging the outlines.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use starling_core::ids::NodeId;
use starling_core::layout::Layout;
use starling_core::name::BucketName;
use starling_core::object::Object;
use starling_core::report::Failure;
use starling_core::token::Partition;
use starling_proto::data::{Keys, KeysPage, MAX_PAGE, RequestError};
use starling_proto::hello::Class;
use starling_proto::peer::{List, ListReply, PeerServiceClient};
use starling_storage::{Store, StoreError};

use crate::node::Node;

/// Most buckets that are listed.
const MAX_BUCKETS: usize = 10_000;

/// This node's part of a listing: the first keys of all the partitions together. Blocks on the disk.
pub fn list_own(store: &Store, request: &List) -> Result<ListReply, StoreError> {
    let limit = request.limit.min(MAX_PAGE);
    let mut found: BTreeMap<Bytes, Object> = BTreeMap::new();
    for partition in &request.partitions {
        // One key more than asked for tells whether there are more.
        let listed = store.list(*partition, &request.bucket, &request.prefix, request.after.as_deref(), limit + 1)?;
        found.extend(listed.into_iter().map(|listed| (listed.key, listed.outline)));
        while found.len() > limit + 1 {
            found.pop_last();
        }
    }
    let more = found.len() > limit;
    Ok(ListReply { keys: found.into_iter().take(limit).collect(), more })
}

/// The buckets of which this node holds records. Blocks on the disk.
pub fn own_buckets(store: &Store, layout: &Layout) -> Result<Vec<BucketName>, StoreError> {
    let mut buckets = BTreeSet::new();
    for partition in layout.partitions().all() {
        buckets.extend(store.buckets(partition, MAX_BUCKETS)?);
    }
    Ok(buckets.into_iter().take(MAX_BUCKETS).collect())
}

impl Node {
    /// A page of a bucket's live keys.
    pub async fn list_keys(self: Arc<Self>, request: Keys, deadline: Instant) -> Result<KeysPage, RequestError> {
        let layout = self.serving_layout()?;
        let limit = request.limit.clamp(1, MAX_PAGE);
        let asked = layout.members().iter().map(|member| {
            let partitions = partitions_of(&layout, member.node, &request.bucket);
            let list = List {
                layout: layout.version(),
                bucket: request.bucket.clone(),
                partitions,
                prefix: request.prefix.clone(),
                after: request.after.clone(),
                limit,
            };
            let node = Arc::clone(&self);
            async move { (member.node, node.list_at(member.node, list, deadline).await) }
        });
        let replies = futures::future::join_all(asked).await;
        let (listed, failed) = split(replies);
        check_coverage(&layout, &request.bucket, &failed)?;
        Ok(merge_pages(&layout, &request, limit, listed))
    }

    /// All buckets.
    pub async fn list_buckets(self: Arc<Self>, deadline: Instant) -> Result<Vec<BucketName>, RequestError> {
        let layout = self.serving_layout()?;
        let asked = layout.members().iter().map(|member| {
            let (node, layout) = (Arc::clone(&self), Arc::clone(&layout));
            async move { (member.node, node.buckets_at(member.node, layout, deadline).await) }
        });
        let (listed, failed) = split(futures::future::join_all(asked).await);
        let any: BucketName = "any".parse().expect("a valid name");
        check_coverage(&layout, &any, &failed)?;
        let all: BTreeSet<BucketName> = listed.into_values().flatten().collect();
        Ok(all.into_iter().collect())
    }

    async fn list_at(&self, at: NodeId, list: List, deadline: Instant) -> Result<ListReply, Failure> {
        if at == self.id() {
            return self.read_store(move |store| list_own(store, &list)).await.map_err(|_| Failure::NoAnswer);
        }
        let link = self.peers.get(at, Class::Bulk).ok_or(Failure::Unreachable)?;
        let call = |client: Arc<PeerServiceClient>, context| async move { client.list(context, list).await };
        link.call(within(deadline), call).await?.map_err(|_| Failure::NoAnswer)
    }

    async fn buckets_at(&self, at: NodeId, layout: Arc<Layout>, deadline: Instant) -> Result<Vec<BucketName>, Failure> {
        if at == self.id() {
            let own = self.read_store(move |store| own_buckets(store, &layout)).await;
            return own.map_err(|_| Failure::NoAnswer);
        }
        let link = self.peers.get(at, Class::Bulk).ok_or(Failure::Unreachable)?;
        let version = layout.version();
        let call = |client: Arc<PeerServiceClient>, context| async move { client.buckets(context, version).await };
        link.call(within(deadline), call).await?.map_err(|_| Failure::NoAnswer)
    }
}

/// A fifth of the time is kept for the answer's way back.
fn within(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).mul_f64(0.8)
}

fn partitions_of(layout: &Layout, node: NodeId, bucket: &BucketName) -> Vec<Partition> {
    let copies = layout.replicas_of(bucket);
    layout.partitions().all().filter(|p| layout.primaries(*p, copies).any(|primary| primary == node)).collect()
}

fn split<T>(replies: Vec<(NodeId, Result<T, Failure>)>) -> (BTreeMap<NodeId, T>, BTreeMap<NodeId, Failure>) {
    let (mut listed, mut failed) = (BTreeMap::new(), BTreeMap::new());
    for (node, reply) in replies {
        match reply {
            Ok(reply) => drop(listed.insert(node, reply)),
            Err(failure) => drop(failed.insert(node, failure)),
        }
    }
    (listed, failed)
}

/// # Errors
/// [`RequestError::Incomplete`] if of some partition fewer than a majority of primaries has answered.
fn check_coverage(
    layout: &Layout,
    bucket: &BucketName,
    failed: &BTreeMap<NodeId, Failure>,
) -> Result<(), RequestError> {
    let copies = layout.replicas_of(bucket);
    let missing = |partition: &Partition| {
        let answered = layout.primaries(*partition, copies).filter(|node| !failed.contains_key(node)).count();
        answered < usize::from(copies.majority())
    };
    if !layout.partitions().all().any(|partition| missing(&partition)) {
        return Ok(());
    }
    let name = |node: &NodeId| layout.member(*node).map_or_else(|| node.to_string(), |member| member.name.to_string());
    let reasons: Vec<String> = failed.iter().map(|(node, failure)| format!("{} {failure}", name(node))).collect();
    Err(RequestError::Incomplete(reasons.join("; ")))
}

fn merge_pages(layout: &Layout, request: &Keys, limit: usize, listed: BTreeMap<NodeId, ListReply>) -> KeysPage {
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
        merged.into_iter().filter(|(_, object)| !object.present(mode).is_empty()).map(|(key, _)| key).collect();
    let next = if live.len() > limit { live.get(limit - 1).cloned() } else { horizon };
    KeysPage { keys: live.into_iter().take(limit).collect(), next }
}
