//! The replica: what a node does for its peers. The peer service, method by method.
//!
//! A handler is dropped at its caller's deadline. A change that the store's writer has taken up by then goes on; one that
//! it has not is never begun.

use std::sync::Arc;

use starling_core::get::Standing;
use starling_core::layout::{Layout, LayoutVersion};
use starling_core::name::BucketName;
use starling_core::report::{Refusal, Role};
use starling_proto::CallContext;
use starling_proto::data::{Put, RequestError, Written};
use starling_proto::peer::{List, ListReply, Offer, OfferReply, PeerError, PeerService, Read, ReadReply, Store};
use starling_storage::StoreError;
use tracing::Instrument;

use crate::link::fits_a_frame;
use crate::listing;
use crate::node::Node;

#[derive(Clone)]
pub struct Replica {
    node: Arc<Node>,
}

impl Replica {
    pub fn new(node: &Arc<Node>) -> Replica {
        Replica { node: Arc::clone(node) }
    }

    /// The layout, if this node serves and the asker has the same.
    fn layout(&self, askers: LayoutVersion) -> Result<Arc<Layout>, PeerError> {
        let layout = self.node.serving_layout().map_err(|not| PeerError::Refused(not.refusal))?;
        if layout.version() == askers { Ok(layout) } else { Err(PeerError::Refused(Refusal::OtherLayout)) }
    }
}

impl PeerService for Replica {
    async fn read(self, context: CallContext, request: Read) -> Result<ReadReply, PeerError> {
        let span = self.node.span_of("read", &context);
        async move {
            self.layout(request.layout)?;
            tracing::debug!(key = ?request.key, "reading a copy");
            let asked = request.key.clone();
            let object = self.node.read_store(move |store| store.get(&asked)).await.map_err(peer_error)?;
            if object.as_ref().is_some_and(|object| !fits_a_frame(&request.key, object)) {
                return Err(PeerError::Refused(Refusal::TooLarge));
            }
            Ok(ReadReply { standing: Standing::Complete, object })
        }
        .instrument(span)
        .await
    }

    async fn store(self, context: CallContext, request: Store) -> Result<(), PeerError> {
        let span = self.node.span_of("store", &context);
        async move {
            self.layout(request.layout)?;
            tracing::debug!(key = ?request.key, role = ?request.role, "storing a copy");
            self.node.store.merge(request.key, request.object, request.role).await.map_err(peer_error)?;
            if matches!(request.role, Role::Fallback { .. }) {
                self.node.counters.hints_taken.add(1);
            }
            Ok(())
        }
        .instrument(span)
        .await
    }

    async fn forward(self, context: CallContext, put: Put) -> Result<Written, RequestError> {
        let span = tracing::info_span!(parent: self.node.span(), "forwarded put", request = %put.request,
            trace = %context.trace_id());
        async move {
            let request = self.node.request(&context)?;
            self.node.coordinate_forwarded(request, put).await
        }
        .instrument(span)
        .await
    }

    async fn offer(self, context: CallContext, request: Offer) -> Result<OfferReply, PeerError> {
        self.layout(request.layout)?;
        let span = self.node.span_of("offer", &context);
        let wanted = move |store: &starling_storage::Store| {
            let lacks = |(key, clock)| match store.get(&key) {
                Ok(own) => Ok(!own.is_some_and(|object| object.clock().covers_all(&clock))),
                // One bad record must not keep the others from coming home.
                Err(StoreError::Damaged(_)) => Ok(true),
                Err(error) => Err(error),
            };
            request.hints.into_iter().map(lacks).collect::<Result<Vec<bool>, StoreError>>()
        };
        let wanted = self.node.read_store(wanted).instrument(span.clone()).await;
        let wanted = wanted.map_err(|error| span.in_scope(|| peer_error(error)))?;
        Ok(OfferReply { wanted })
    }

    async fn list(self, context: CallContext, request: List) -> Result<ListReply, PeerError> {
        self.layout(request.layout)?;
        let span = self.node.span_of("list", &context);
        let listed = self.node.read_store(move |store| listing::list_own(store, &request)).await;
        listed.map_err(|error| span.in_scope(|| peer_error(error)))
    }

    async fn buckets(self, context: CallContext, layout: LayoutVersion) -> Result<Vec<BucketName>, PeerError> {
        let layout = self.layout(layout)?;
        let span = self.node.span_of("buckets", &context);
        let listed = self.node.read_store(move |store| listing::own_buckets(store, &layout)).await;
        listed.map_err(|error| span.in_scope(|| peer_error(error)))
    }

    async fn clock(self, _: CallContext) -> u64 {
        self.node.wall_millis()
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
