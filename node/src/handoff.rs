//! Hinted handoff: bringing copies that this node holds for others home (Dynamo, section 4.6).
//!
//! For each target with markers, page by page in the order of keys: offer the keys with their clocks, send the objects
//! that the target lacks, and tell the own store what the target has durably confirmed. The store drops a marker, and at
//! last the copy, only if the confirmed clock covers what it holds then (R9, R10). Stopping anywhere is safe: markers are
//! durable, and a confirmation that is lost is asked for again.
//!
//! Objects move one at a time within a budget of bytes a second, on the bulk connection.

use std::sync::Arc;
use std::time::{Duration, Instant};

use starling_core::clock::Clock;
use starling_core::ids::NodeId;
use starling_core::name::ObjectKey;
use starling_core::report::{Failure, Role};
use starling_proto::hello::Class;
use starling_proto::peer::{Offer, PeerServiceClient, Store};
use starling_storage::Hint;

use crate::link::Link;
use crate::node::Node;

/// Hints offered at once.
const PAGE: usize = 128;
/// Between two looks for hints to deliver.
const INTERVAL: Duration = Duration::from_millis(250);
const CALL_LIMIT: Duration = Duration::from_secs(5);

impl Node {
    /// Delivers hints for as long as the node runs.
    pub async fn hand_off(self: Arc<Self>) {
        while !self.stopping.is_cancelled() {
            for target in self.store.hints().into_keys() {
                if let Err(failure) = self.hand_off_to(target).await {
                    tracing::debug!(%target, %failure, "handoff is put off");
                }
            }
            tokio::select! {
                () = self.stopping.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    async fn hand_off_to(&self, target: NodeId) -> Result<(), Failure> {
        if !self.view().is_alive(target) || self.serving_layout().is_err() {
            return Ok(());
        }
        let link = self.peers.get(target, Class::Bulk).ok_or(Failure::Unreachable)?;
        let mut after: Option<ObjectKey> = None;
        while !self.stopping.is_cancelled() {
            let from = after.clone();
            let page = self.read_store(move |store| store.hints_for(target, from.as_ref(), PAGE)).await;
            let page = page.map_err(|_| Failure::NoAnswer)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.key.clone());
            self.deliver(&link, page).await?;
        }
        Ok(())
    }

    async fn deliver(&self, link: &Link, page: Vec<Hint>) -> Result<(), Failure> {
        let layout = self.serving_layout().map_err(|not| Failure::Refused(not.refusal))?.version();
        let hints = page.iter().map(|hint| (hint.key.clone(), hint.clock.clone())).collect();
        let offer = Offer { layout, hints };
        let call = |client: Arc<PeerServiceClient>, context| async move { client.offer(context, offer).await };
        let reply = link.call(CALL_LIMIT, call).await?.map_err(|_| Failure::NoAnswer)?;
        for (hint, wanted) in page.into_iter().zip(reply.wanted) {
            let confirmed = if wanted { self.send_home(link, &hint.key).await? } else { Some(hint.clock) };
            if let Some(clock) = confirmed {
                drop(self.store.confirm(hint.key, link.node, clock).await);
            }
        }
        Ok(())
    }

    /// Sends the present copy; returns the clock that the target has durably taken in, or none if there is no copy.
    async fn send_home(&self, link: &Link, key: &ObjectKey) -> Result<Option<Clock>, Failure> {
        let layout = self.serving_layout().map_err(|not| Failure::Refused(not.refusal))?.version();
        let asked = key.clone();
        let held = self.read_store(move |store| store.get(&asked)).await.map_err(|_| Failure::NoAnswer)?;
        let Some(object) = held else { return Ok(None) };
        let (clock, bytes) = (object.clock().clone(), object.value_bytes());
        let begun = Instant::now();
        link.store(Store { layout, key: key.clone(), object, role: Role::Primary }, CALL_LIMIT).await?;
        self.counters.hints_delivered.add(1);
        self.pace(begun, bytes).await;
        Ok(Some(clock))
    }

    /// Waits until `bytes` have had their share of time.
    async fn pace(&self, begun: Instant, bytes: usize) {
        let share = Duration::from_secs_f64(bytes as f64 / self.config.handoff_rate as f64);
        tokio::time::sleep_until((begun + share).into()).await;
    }
}
