//! Scrubbing: reading all that is held, one partition after another, so that damage of the disk is met before somebody needs
//! what is damaged. What the disk itself cannot give back is noticed by the store (`registering.rs` sees to it); what can be
//! read and does not fit together is told in the log.

use std::sync::Arc;

use starling_core::token::Partition;
use starling_storage::Verified;

use crate::node::Node;

impl Node {
    /// Checks each partition once in `scrub_interval`, for as long as the node runs. It begins anywhere: a node that is
    /// started often gets to all of them too.
    pub async fn scrub(self: Arc<Self>) {
        let mut rings = self.ring.subscribe();
        let partitions = async {
            // The sender lives as long as the node.
            rings
                .wait_for(Option::is_some)
                .await
                .ok()
                .and_then(|ring| ring.as_ref().map(|ring| ring.read().partitions()))
        };
        let partitions = tokio::select! {
            () = self.stopping.cancelled() => return,
            Some(partitions) = partitions => partitions,
        };
        let first: usize = rand::random_range(0..partitions.get() as usize);
        let pause = self.config.scrub_interval / partitions.get();
        for partition in partitions.all().cycle().skip(first) {
            tokio::select! {
                () = self.stopping.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            if self.serving_ring().is_ok() {
                self.let_requests_pass().await;
                self.scrub_partition(partition).await;
            }
        }
    }

    async fn scrub_partition(&self, partition: Partition) {
        match self.read_store(move |store| store.verify(partition)).await {
            Ok(Verified { records, flaws, .. }) => {
                self.counters.records_scrubbed.add(records);
                if !flaws.is_empty() {
                    let count = flaws.len();
                    tracing::error!(%partition, count, "what is held does not fit together; see `starling node verify`");
                    tracing::debug!(?flaws, "what does not fit");
                }
            }
            Err(error) => tracing::error!(%partition, %error, "a partition cannot be checked"),
        }
    }
}
