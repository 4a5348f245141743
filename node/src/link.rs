//! One connection to one peer: dialled, kept, redialled; and the calls made over it.
//!
//! A call is tried only on a standing connection. Without one it fails at once as unreachable, so nobody waits for a dead
//! node; the link redials in the background, with jitter, and at once when gossip has news of the peer.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use starling_core::get::Standing;
use starling_core::ids::NodeId;
use starling_core::name::ObjectKey;
use starling_core::object::Object;
use starling_core::reaping::RoundsOver;
use starling_core::report::{Failure, Refusal};
use starling_proto::connection::MAX_CALLS_PER_CONNECTION;
use starling_proto::hello::Class;
use starling_proto::peer::{PeerError, PeerServiceClient, Read, Store, StoreRead};
use starling_proto::{CallContext, RpcError, TraceId, call_for};
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::latency::Latency;

pub struct Link {
    pub node: NodeId,
    pub class: Class,
    client: ArcSwapOption<PeerServiceClient>,
    /// Calls in flight; further ones are refused here rather than queued.
    room: Semaphore,
    pub reads: Latency,
    pub writes: Latency,
    /// The peer's clock minus ours, in milliseconds; [`UNKNOWN_OFFSET`] before the first measurement.
    clock_offset: AtomicI64,
    /// Wakes the dialler before its back-off is over.
    pub redial: Notify,
    /// True once dialling has succeeded or failed for the first time.
    pub tried: watch::Sender<bool>,
    /// Cancelled when the peer is no member any more.
    pub dropped: CancellationToken,
}

const UNKNOWN_OFFSET: i64 = i64::MAX;

impl Link {
    pub fn new(node: NodeId, class: Class) -> Link {
        Link {
            node,
            class,
            client: ArcSwapOption::empty(),
            room: Semaphore::new(MAX_CALLS_PER_CONNECTION),
            reads: Latency::default(),
            writes: Latency::default(),
            clock_offset: AtomicI64::new(UNKNOWN_OFFSET),
            redial: Notify::new(),
            tried: watch::Sender::new(false),
            dropped: CancellationToken::new(),
        }
    }

    pub fn connect(&self, client: PeerServiceClient) {
        self.client.store(Some(Arc::new(client)));
    }

    pub fn disconnect(&self) {
        self.client.store(None);
    }

    pub fn is_connected(&self) -> bool {
        self.client.load().is_some()
    }

    /// The peer's copy of a key.
    pub async fn read(
        &self,
        request: Read,
        trace: TraceId,
        within: Duration,
    ) -> Result<(Standing, Option<Object>), Failure> {
        let call = |client: Arc<PeerServiceClient>, context| async move { client.read(context, request).await };
        let reply = self.timed(&self.reads, trace, within, call).await?;
        reply.map(|reply| (reply.standing, reply.object)).map_err(as_failure)
    }

    /// Sends an object to be merged there; success means durable.
    /// `over`: the rounds of reaping of its partition that were over before it was read.
    pub async fn store(
        &self,
        request: Store,
        over: RoundsOver,
        trace: TraceId,
        within: Duration,
    ) -> Result<(), Failure> {
        if !fits_a_frame(&request.key, &request.object) {
            return Err(Failure::Refused(Refusal::TooLarge));
        }
        let call = |client: Arc<PeerServiceClient>, context| async move {
            // There are rounds only where every member knows of them.
            match over {
                RoundsOver(0) => client.store(context, request).await,
                over => client.store_read(context, StoreRead { store: request, over }).await,
            }
        };
        self.timed(&self.writes, trace, within, call).await?.map_err(as_failure)
    }

    /// After this long an answer of any kind is late.
    pub fn pace(&self) -> Duration {
        let measured = [self.reads.measured(), self.writes.measured()];
        measured.into_iter().flatten().max().unwrap_or(Latency::LEAST)
    }

    /// Measures how far apart the two clocks are; `wall` reads ours, in milliseconds.
    pub async fn compare_clocks(&self, wall: impl Fn() -> u64, within: Duration) {
        let before = wall();
        let call = |client: Arc<PeerServiceClient>, context| async move { client.clock(context).await };
        if let Ok(theirs) = self.call(new_trace(), within, call).await {
            let ours = before + wall().saturating_sub(before) / 2;
            let offset = i128::from(theirs) - i128::from(ours);
            let offset = i64::try_from(offset).unwrap_or(UNKNOWN_OFFSET - 1);
            self.clock_offset.store(offset, Ordering::Relaxed);
        }
    }

    /// The peer's clock minus ours in milliseconds, if it was ever measured.
    pub fn clock_offset(&self) -> Option<i64> {
        Some(self.clock_offset.load(Ordering::Relaxed)).filter(|offset| *offset != UNKNOWN_OFFSET)
    }

    /// Any call on the standing connection.
    pub async fn call<T, F>(
        &self,
        trace: TraceId,
        within: Duration,
        call: impl FnOnce(Arc<PeerServiceClient>, CallContext) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, RpcError>>,
    {
        let client = self.client.load_full().ok_or(Failure::Unreachable)?;
        let _room = self.room.try_acquire().map_err(|_| Failure::Refused(Refusal::Overloaded))?;
        // tarpc's own deadline covers the answer; this one covers the wait for room in its queue as well.
        match tokio::time::timeout(within, call(client, call_for(trace, within))).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => Err(broken(&error)),
            Err(_elapsed) => Err(Failure::NoAnswer),
        }
    }

    async fn timed<T, F>(
        &self,
        latency: &Latency,
        trace: TraceId,
        within: Duration,
        call: impl FnOnce(Arc<PeerServiceClient>, CallContext) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, RpcError>>,
    {
        let begun = Instant::now();
        let reply = self.call(trace, within, call).await?;
        latency.note(begun.elapsed());
        Ok(reply)
    }
}

/// A trace for what this node does of its own accord.
pub fn new_trace() -> TraceId {
    TraceId::random(&mut rand::rng())
}

/// Pages for objects beyond a frame are not built: such an object stays where it is, and says so.
pub fn fits_a_frame(key: &ObjectKey, object: &Object) -> bool {
    use starling_proto::connection::{FRAME_MARGIN_BYTES, MAX_FRAME_BYTES};
    key.key().len() + object.value_bytes() <= MAX_FRAME_BYTES - FRAME_MARGIN_BYTES
}

pub fn as_failure(error: PeerError) -> Failure {
    match error {
        PeerError::Refused(refusal) => Failure::Refused(refusal),
        PeerError::Unknown => Failure::SyncFailed,
        PeerError::Internal(reason) => {
            tracing::warn!(reason, "a peer could not answer");
            Failure::Refused(Refusal::Damaged)
        }
    }
}

fn broken(error: &RpcError) -> Failure {
    match error {
        RpcError::DeadlineExceeded => Failure::NoAnswer,
        // All that tarpc answers for a service is that it works on as many requests as it may.
        RpcError::Server(_) => Failure::Refused(Refusal::Overloaded),
        RpcError::Shutdown | RpcError::Send(_) | RpcError::Channel(_) => Failure::Disconnected,
    }
}
