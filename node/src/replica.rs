//! The replica: what a node does for its peers. The peer service, method by method.
//!
//! A handler is dropped at its caller's deadline. A change that the store's writer has taken up by then goes on; one that
//! it has not is never begun.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use starling_core::choice::Ballot;
use starling_core::ids::{ClusterId, NodeId};
use starling_core::name::{BucketName, ObjectKey};
use starling_core::pacing::Part;
use starling_core::reaping::RoundsOver;
use starling_core::report::{Refusal, Role};
use starling_core::ring::{Decree, Epoch, Ring};
use starling_core::token::Partition;
use starling_core::transition::Progress;
use starling_core::tree::Answer;
use starling_proto::CallContext;
use starling_proto::data::{Put, RequestError, Written};
use starling_proto::peer::{
    Accept, Compare, Fetch, Fetched, List, ListReply, Offer, OfferReply, PeerError, PeerService, Prepare, PullPage,
    PulledPage, Read, ReadReply, Reap, Store, StoreRead, VoteRefused,
};
use starling_storage::StoreError;
use tracing::Instrument;

use crate::link::fits_a_frame;
use crate::listing;
use crate::node::Node;
use crate::reaping;

#[derive(Clone)]
pub struct Replica {
    node: Arc<Node>,
    /// Who is at the other end.
    from: NodeId,
    /// By which both went when they met. Who has gone on by another since may have another log, as long as this one.
    cluster: ClusterId,
}

impl Replica {
    pub fn new(node: &Arc<Node>, from: NodeId, cluster: ClusterId) -> Replica {
        Replica { node: Arc::clone(node), from, cluster }
    }

    /// The ring, if this node serves and is in the asker's epoch. One that is behind learns at once what the asker knows.
    async fn ring(&self, askers: Epoch) -> Result<Arc<Ring>, PeerError> {
        let ring = || self.node.serving_ring().map_err(|not| PeerError::Refused(not.refusal));
        if ring()?.epoch() < askers {
            self.catch_up().await;
        }
        let ring = ring()?;
        let is_same = ring.epoch() == askers && ring.cluster() == self.cluster;
        if is_same { Ok(ring) } else { Err(PeerError::Refused(Refusal::OtherLayout)) }
    }

    /// # Errors
    /// [`Refusal::OtherLayout`] if this node goes by another cluster id than when the two met.
    fn check_cluster(&self) -> Result<(), Refusal> {
        if self.node.store.cluster() == Some(self.cluster) { Ok(()) } else { Err(Refusal::OtherLayout) }
    }
}

impl Replica {
    /// A vote about an entry is given only by who knows the log before it.
    async fn learn_what_comes_before(&self, epoch: Epoch) {
        if self.node.store.ring().is_some_and(|ring| ring.epoch().0 + 1 < epoch.0) {
            self.catch_up().await;
        }
    }

    async fn catch_up(&self) {
        if let Err(error) = self.node.catch_up_with(self.from).await {
            tracing::debug!(peer = %self.from, %error, "cannot adopt what a peer goes by");
        }
    }
}

impl PeerService for Replica {
    async fn read(self, context: CallContext, request: Read) -> Result<ReadReply, PeerError> {
        let span = self.node.span_of("read", &context);
        async move {
            self.ring(request.epoch).await?;
            tracing::debug!(key = ?request.key, "reading a copy");
            let read = self.node.read_own(request.epoch, request.key.clone()).await;
            let (standing, object) = read.map_err(peer_error)?;
            if object.as_ref().is_some_and(|object| !fits_a_frame(&request.key, object)) {
                return Err(PeerError::Refused(Refusal::TooLarge));
            }
            Ok(ReadReply { standing, object })
        }
        .instrument(span)
        .await
    }

    async fn store(self, context: CallContext, request: Store) -> Result<(), PeerError> {
        self.store_read(context, StoreRead { store: request, over: RoundsOver(0) }).await
    }

    async fn forward(self, context: CallContext, put: Put) -> Result<Written, RequestError> {
        let span = tracing::info_span!(parent: self.node.span(), "forwarded put", request = %put.request,
            trace = %context.trace_id());
        async move {
            self.check_cluster().map_err(RequestError::Refused)?;
            let request = self.node.request(&context)?;
            self.node.coordinate_forwarded(request, put).await
        }
        .instrument(span)
        .await
    }

    async fn offer(self, context: CallContext, request: Offer) -> Result<OfferReply, PeerError> {
        self.ring(request.epoch).await?;
        let span = self.node.span_of("offer", &context);
        let Offer { epoch, hints } = request;
        let wanted = move |store: &starling_storage::Store| {
            let lacks = |(key, clock)| match store.get(&key) {
                Ok(own) => Ok(!own.is_some_and(|object| object.clock().covers_all(&clock))),
                // One bad record must not keep the others from coming home.
                Err(StoreError::Damaged(_)) => Ok(true),
                Err(error) => Err(error),
            };
            hints.into_iter().map(lacks).collect::<Result<Vec<bool>, StoreError>>()
        };
        let wanted = self.node.read_in(epoch, wanted).instrument(span.clone()).await;
        let wanted = wanted.map_err(|error| span.in_scope(|| peer_error(error)))?;
        Ok(OfferReply { wanted })
    }

    async fn list(self, context: CallContext, request: List) -> Result<ListReply, PeerError> {
        self.ring(request.epoch).await?;
        let (span, epoch) = (self.node.span_of("list", &context), request.epoch);
        let listed = self.node.read_in(epoch, move |store| listing::list_own(store, &request)).await;
        listed.map_err(|error| span.in_scope(|| peer_error(error)))
    }

    async fn buckets(self, context: CallContext, epoch: Epoch) -> Result<Vec<BucketName>, PeerError> {
        let ring = self.ring(epoch).await?;
        let span = self.node.span_of("buckets", &context);
        let listed = self.node.read_in(epoch, move |store| listing::own_buckets(store, ring.read())).await;
        listed.map_err(|error| span.in_scope(|| peer_error(error)))
    }

    async fn clock(self, _: CallContext) -> u64 {
        self.node.wall().0
    }

    async fn prepare(self, _: CallContext, request: Prepare) -> Result<Option<(Ballot, Decree)>, VoteRefused> {
        self.learn_what_comes_before(request.epoch).await;
        self.node.vote(move |store| store.promise(self.cluster, request.epoch, request.ballot)).await
    }

    async fn accept(self, _: CallContext, request: Accept) -> Result<(), VoteRefused> {
        self.learn_what_comes_before(request.epoch).await;
        self.node.vote(move |store| store.accept(self.cluster, request.epoch, request.ballot, request.decree)).await
    }

    async fn progress(self, _: CallContext) -> Result<Progress, PeerError> {
        self.check_cluster().map_err(PeerError::Refused)?;
        self.node.store.progress().map_err(peer_error)
    }

    async fn pull(self, context: CallContext, request: PullPage) -> Result<PulledPage, PeerError> {
        self.ring(request.epoch).await?;
        let span = self.node.span_of("pull", &context);
        self.node.page_for(self.from, request).instrument(span).await
    }

    async fn compare(self, context: CallContext, request: Compare) -> Result<Vec<Answer>, PeerError> {
        self.ring(request.epoch).await?;
        let span = self.node.span_of("compare", &context);
        self.node.answers_to(request).instrument(span).await
    }

    async fn fetch(self, context: CallContext, request: Fetch) -> Result<Fetched, PeerError> {
        self.ring(request.epoch).await?;
        let span = self.node.span_of("fetch", &context);
        self.node.copies_for(request).instrument(span).await
    }

    async fn store_read(self, context: CallContext, request: StoreRead) -> Result<(), PeerError> {
        let span = self.node.span_of("store", &context);
        async move {
            let StoreRead { store: Store { epoch, key, object, role }, over } = request;
            self.ring(epoch).await?;
            tracing::debug!(?key, ?role, "storing a copy");
            let began = Instant::now();
            self.node.store.merge(epoch, over, key, object, role).await.map_err(peer_error)?;
            self.node.handoff.note(Part::Write, began);
            if matches!(role, Role::Fallback { .. }) {
                self.node.counters.hints_taken.add(1);
            }
            Ok(())
        }
        .instrument(span)
        .await
    }

    async fn rounds_over(self, _: CallContext, epoch: Epoch) -> Result<BTreeMap<Partition, RoundsOver>, PeerError> {
        self.ring(epoch).await?;
        Ok(self.node.store.fences().all(epoch))
    }

    async fn reap(self, context: CallContext, request: Reap) -> Result<BTreeSet<ObjectKey>, PeerError> {
        let ring = self.ring(reaping::epoch_of(&request)).await?;
        let span = self.node.span_of("reap", &context);
        self.node.take_part_in_reaping(&ring, request).instrument(span).await.map_err(peer_error)
    }
}

fn peer_error(error: StoreError) -> PeerError {
    match error {
        StoreError::Refused(refusal) => PeerError::Refused(refusal),
        StoreError::Unknown => PeerError::Unknown,
        StoreError::Write(refused) => PeerError::Internal(refused.to_string()),
        StoreError::Damaged(reason) => {
            tracing::error!(reason, "a peer's request met damage");
            PeerError::Refused(Refusal::Damaged)
        }
    }
}
