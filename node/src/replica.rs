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

use crate::listing;
use crate::node::{Node, wall_clock};

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
    async fn read(self, _: CallContext, request: Read) -> Result<ReadReply, PeerError> {
        self.layout(request.layout)?;
        let object = self.node.read_store(move |store| store.get(&request.key)).await.map_err(peer_error)?;
        Ok(ReadReply { standing: Standing::Complete, object })
    }

    async fn store(self, _: CallContext, request: Store) -> Result<(), PeerError> {
        self.layout(request.layout)?;
        self.node.store.merge(request.key, request.object, request.role).await.map_err(peer_error)?;
        if matches!(request.role, Role::Fallback { .. }) {
            self.node.counters.hints_taken.add(1);
        }
        Ok(())
    }

    async fn forward(self, context: CallContext, request: Put) -> Result<Written, RequestError> {
        self.node.coordinate_forwarded(request, context.deadline).await
    }

    async fn offer(self, _: CallContext, request: Offer) -> Result<OfferReply, PeerError> {
        self.layout(request.layout)?;
        let wanted = move |store: &starling_storage::Store| {
            let lacks = |(key, clock)| {
                let own = store.get(&key)?;
                Ok(!own.is_some_and(|object| object.clock().covers_all(&clock)))
            };
            request.hints.into_iter().map(lacks).collect::<Result<Vec<bool>, StoreError>>()
        };
        let wanted = self.node.read_store(wanted).await.map_err(peer_error)?;
        Ok(OfferReply { wanted })
    }

    async fn list(self, _: CallContext, request: List) -> Result<ListReply, PeerError> {
        self.layout(request.layout)?;
        self.node.read_store(move |store| listing::list_own(store, &request)).await.map_err(peer_error)
    }

    async fn buckets(self, _: CallContext, layout: LayoutVersion) -> Result<Vec<BucketName>, PeerError> {
        let layout = self.layout(layout)?;
        self.node.read_store(move |store| listing::own_buckets(store, &layout)).await.map_err(peer_error)
    }

    async fn clock(self, _: CallContext) -> u64 {
        wall_clock()
    }
}

fn peer_error(error: StoreError) -> PeerError {
    match error {
        StoreError::Refused(refusal) => PeerError::Refused(refusal),
        StoreError::Unknown => PeerError::Unknown,
        StoreError::Write(refused) => PeerError::Internal(refused.to_string()),
        StoreError::Engine(reason) => PeerError::Internal(reason),
    }
}
