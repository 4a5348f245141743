//! The API: the data service, as clients call it. Checks what came in, then hands it to a coordinator: the write path
//! goes on in [`crate::coordinator`].

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use starling_core::context::{Context, InvalidContext};
use starling_core::ids::NodeId;
use starling_core::layout::Layout;
use starling_core::name::{BucketName, ObjectKey};
use starling_core::object::{Object, Seen, Sibling, SiblingMode, Value};
use starling_core::report::{Failure, Refusal};
use starling_core::ring::Ring;
use starling_core::token::Token;
use starling_core::wall::{Lifetime, WallTime};
use starling_proto::CallContext;
use starling_proto::data::{
    DataService, Get, Got, GotLasting, Holding, Keys, KeysPage, LiveSibling, Location, Put, PutFor, ReplicaView,
    RequestError, Written,
};
use starling_proto::hello::Class;
use starling_proto::peer::{PeerError, Read};
use starling_storage::StoreError;
use tracing::Instrument;

use crate::coordinator::Request;
use crate::link::fits_a_frame;
use crate::node::{Node, NotServing};

#[derive(Clone)]
pub struct Api {
    node: Arc<Node>,
}

impl Api {
    pub fn new(node: &Arc<Node>) -> Api {
        Api { node: Arc::clone(node) }
    }

    async fn write(self, context: CallContext, put: Put) -> Result<Written, RequestError> {
        let (request_id, trace) = (put.request, *context.trace_id());
        let span = tracing::info_span!(parent: self.node.span(), "put", request = %request_id, %trace);
        let limits = self.node.request(&context)?;
        self.node.put(limits, put).instrument(span).await
    }
}

impl DataService for Api {
    async fn get(self, context: CallContext, request: Get) -> Result<Got, RequestError> {
        Ok(self.get_lasting(context, request).await?.got)
    }

    async fn get_lasting(self, context: CallContext, request: Get) -> Result<GotLasting, RequestError> {
        let span = tracing::info_span!(parent: self.node.span(), "get", trace = %context.trace_id());
        let limits = self.node.request(&context)?;
        self.node.get(limits, request).instrument(span).await
    }

    async fn put_for(self, context: CallContext, request: PutFor) -> Result<Written, RequestError> {
        let lifetime = Lifetime::try_from(request.lifetime).map_err(|error| invalid(&error))?;
        let put = self.node.expiring(request.put, lifetime)?;
        self.write(context, put).await
    }

    async fn put_for_good(self, context: CallContext, request: Put) -> Result<Written, RequestError> {
        live(&request)?;
        self.write(context, request).await
    }

    async fn put(self, context: CallContext, request: Put) -> Result<Written, RequestError> {
        let put = match (&request.value, self.node.settings_of(&request.key).ttl) {
            (Value::Live(_), Some(lifetime)) => self.node.expiring(request, lifetime)?,
            (Value::Live(_), None) | (Value::Tombstone, _) => request,
            // By whose clock, nobody could tell.
            (Value::Expiring { .. }, _) => {
                return Err(RequestError::Invalid("a put says how long, not until when".to_owned()));
            }
        };
        self.write(context, put).await
    }

    async fn get_own(self, context: CallContext, key: ObjectKey) -> Result<Got, RequestError> {
        Ok(self.get_own_lasting(context, key).await?.got)
    }

    async fn get_own_lasting(self, context: CallContext, key: ObjectKey) -> Result<GotLasting, RequestError> {
        let span = self.node.span_of("get_own", &context);
        let ring = self.node.serving_ring()?;
        let asked = key.clone();
        let own = self.node.read_store(move |store| store.get(&asked)).instrument(span).await;
        let object = own.map_err(request_error)?;
        present(&ring, &key, &object.unwrap_or_default(), self.node.wall())
    }

    async fn keys(self, context: CallContext, request: Keys) -> Result<KeysPage, RequestError> {
        let limits = self.node.request(&context)?;
        let span = self.node.span_of("keys", &context);
        self.node.list_keys(limits, request).instrument(span).await
    }

    async fn buckets(self, context: CallContext) -> Result<Vec<BucketName>, RequestError> {
        let limits = self.node.request(&context)?;
        let span = self.node.span_of("buckets", &context);
        self.node.list_buckets(limits).instrument(span).await
    }

    async fn locate(self, context: CallContext, key: ObjectKey) -> Result<Location, RequestError> {
        let limits = self.node.request(&context)?;
        let span = self.node.span_of("locate", &context);
        self.node.locate(limits, key).instrument(span).await
    }

    async fn layout(self, _: CallContext) -> Result<Layout, RequestError> {
        Ok(Layout::clone(self.node.serving_ring()?.read()))
    }
}

impl Node {
    /// A request as its call describes it: with the client's deadline, but no later than this node's own limit.
    ///
    /// # Errors
    /// [`NotServing`].
    pub fn request(&self, context: &CallContext) -> Result<Request, NotServing> {
        let ring = self.serving_ring()?;
        let deadline = context.deadline.min(Instant::now() + self.config.request_timeout);
        Ok(Request { ring, fences: self.store.fences(), deadline, trace: *context.trace_id() })
    }

    /// The put that it is for everybody from now on: they go by one time at which the value expires (R12).
    ///
    /// # Errors
    /// [`Refusal::ClockDrift`] if this node's clock is apart from others': a value must not be over before it was written,
    /// nor live on and on.
    fn expiring(&self, put: Put, lifetime: Lifetime) -> Result<Put, RequestError> {
        let apart = self.clocks_apart().unwrap_or_default();
        if apart.ahead.max(apart.behind) > self.config.max_clock_drift {
            return Err(RequestError::Refused(Refusal::ClockDrift));
        }
        let (bytes, until) = (live(&put)?.clone(), self.wall().after(lifetime.get()));
        Ok(Put { value: Value::Expiring { bytes, until }, ..put })
    }

    /// Reads, and once more by each ring that comes while it does.
    async fn get(self: Arc<Self>, mut request: Request, get: Get) -> Result<GotLasting, RequestError> {
        loop {
            let got = Arc::clone(&self).get_by(request.clone(), get.clone()).await;
            match self.newer(&request, got.as_ref().err()).await {
                Some(newer) => request = newer,
                None => return got,
            }
        }
    }

    /// Reads by the request's ring.
    async fn get_by(self: Arc<Self>, request: Request, get: Get) -> Result<GotLasting, RequestError> {
        let (ring, key) = (Arc::clone(&request.ring), get.key.clone());
        let (answer, quorum) = Arc::clone(&self).coordinate_get(request, get).await?;
        if !answer.met {
            self.counters.quorums_missed.add(1);
            let (counted, replicas) = (answer.counted, answer.replicas);
            return Err(RequestError::ReadQuorumNotMet { quorum, counted, replicas });
        }
        let GotLasting { got, until } = present(&ring, &key, &answer.object, self.wall())?;
        Ok(GotLasting { got: Got { quorum: Some(quorum), replicas: answer.replicas, ..got }, until })
    }

    async fn put(self: Arc<Self>, request: Request, mut put: Put) -> Result<Written, RequestError> {
        seen_by_writer(&request.ring, &put)?;
        if is_blind_delete(&put) {
            put.context = Arc::clone(&self).context_of_present(request.clone(), &put).await?;
        }
        self.write(request, put).await
    }

    /// What a delete without a context deletes: what a read finds now.
    async fn context_of_present(
        self: Arc<Self>,
        request: Request,
        delete: &Put,
    ) -> Result<Option<Bytes>, RequestError> {
        let read = Get { key: delete.key.clone(), r: delete.r, pr: Default::default(), wait_for_repair: false };
        Ok(self.get(request, read).await?.got.context)
    }

    async fn locate(self: Arc<Self>, request: Request, key: ObjectKey) -> Result<Location, RequestError> {
        let preference = request.ring.read().preference_list(&key);
        let mode = request.ring.read().rules(key.bucket()).mode;
        let nodes: Vec<_> = preference.primaries().iter().chain(preference.fallbacks()).copied().collect();
        let views = nodes.into_iter().map(|node| {
            let (this, request, key) = (Arc::clone(&self), &request, key.clone());
            async move {
                let alive = node == this.id() || this.view().is_alive(node);
                let holds = this.holding_of(node, request, key, mode).await;
                ReplicaView { node, alive, holds }
            }
        });
        let replicas = futures::future::join_all(views).await;
        Ok(Location { token: Token::of(&key), preference, mode, replicas })
    }

    async fn holding_of(&self, node: NodeId, request: &Request, key: ObjectKey, mode: SiblingMode) -> Holding {
        let within = request.time_left().min(self.config.replica_timeout);
        let read = Read { epoch: request.ring.epoch(), key };
        let object = if node == self.id() {
            self.read_store(move |store| store.get(&read.key)).await.map_err(|error| error.to_string())
        } else {
            match self.peers.get(node, Class::Peer) {
                Some(link) => {
                    let read = link.read(read, request.trace, within).await;
                    read.map(|(_, object)| object).map_err(|failure| failure.to_string())
                }
                None => Err(Failure::Unreachable.to_string()),
            }
        };
        match object {
            Ok(Some(object)) => {
                let siblings = object.present(mode, self.wall()).len();
                Holding::Copy { clock: object.clock().clone(), siblings }
            }
            Ok(None) => Holding::Nothing,
            Err(reason) => Holding::Unknown(reason),
        }
    }
}

/// What a write's context stands for; nothing without one.
pub fn seen_by_writer(ring: &Ring, put: &Put) -> Result<Seen, RequestError> {
    let invalid = |error: InvalidContext| RequestError::Invalid(error.to_string());
    match &put.context {
        None => Ok(Seen::default()),
        Some(bytes) => {
            let context = Context::decode(bytes).map_err(invalid)?;
            context.seen_of(ring.origin(), Token::of(&put.key)).map_err(invalid)
        }
    }
}

/// The value of a put that is one: not of a delete.
fn live(put: &Put) -> Result<&Bytes, RequestError> {
    match &put.value {
        Value::Live(bytes) => Ok(bytes),
        Value::Tombstone | Value::Expiring { .. } => {
            Err(RequestError::Invalid("only a value that is put can be told how long to live".to_owned()))
        }
    }
}

fn invalid(error: &dyn std::error::Error) -> RequestError {
    RequestError::Invalid(error.to_string())
}

/// An object as its bucket's readers see it at that time.
///
/// # Errors
/// [`Refusal::TooLarge`] if that does not fit a frame.
fn present(ring: &Ring, key: &ObjectKey, object: &Object, now: WallTime) -> Result<GotLasting, RequestError> {
    if !fits_a_frame(key, object) {
        return Err(RequestError::Refused(Refusal::TooLarge));
    }
    let mode: SiblingMode = ring.read().rules(key.bucket()).mode;
    let live = object.present(mode, now);
    let until = live.iter().map(|sibling| sibling.value.until()).collect();
    let shown = |sibling: &&Sibling| {
        let value = sibling.value.bytes()?.clone();
        Some(LiveSibling { value, dot: sibling.dot, stamp: sibling.stamp })
    };
    let got = Got {
        siblings: live.iter().filter_map(shown).collect(),
        context: (!object.is_unwritten()).then(|| context_of(ring, key, object)),
        deleted: object.is_deleted(mode, now),
        clock: object.clock().clone(),
        quorum: None,
        replicas: Vec::new(),
    };
    Ok(GotLasting { got, until })
}

/// The context that covers all of an object.
pub fn context_of(ring: &Ring, key: &ObjectKey, object: &Object) -> Bytes {
    Context::new(ring.origin(), Token::of(key), object.seen()).encode()
}

fn is_blind_delete(request: &Put) -> bool {
    request.context.is_none() && request.value == Value::Tombstone
}

impl From<NotServing> for RequestError {
    fn from(not: NotServing) -> RequestError {
        RequestError::NotServing(not.reason)
    }
}

impl From<NotServing> for PeerError {
    fn from(not: NotServing) -> Self {
        PeerError::Refused(not.refusal)
    }
}

/// A store's error as a client sees it who asked for that node's own copy.
fn request_error(error: StoreError) -> RequestError {
    match error {
        StoreError::Refused(refusal) => RequestError::Refused(refusal),
        StoreError::Write(refused) => RequestError::Invalid(refused.to_string()),
        StoreError::Unknown | StoreError::Damaged(_) => RequestError::Internal(error.to_string()),
    }
}
