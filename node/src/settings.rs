//! Plain settings among nodes: any node takes a change, and the others come to know of it.
//!
//! Gossip says a checksum of what each node goes by. Whoever hears another than its own fetches and merges what is behind
//! it, once for each checksum; so do all, and since merging is commutative, associative and idempotent they end up with the
//! same.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use starling_core::ids::NodeId;
use starling_core::settings::{Registers, SettingsChecksum};
use starling_proto::call_within;
use starling_proto::control::{ControlError, NodeStanding, Set};
use starling_storage::SetError;

use crate::node::Node;

const CALL_LIMIT: Duration = Duration::from_secs(2);
/// How often a node looks again at what it could not fetch, if gossip has no news.
const INTERVAL: Duration = Duration::from_secs(1);

/// The last of each peer's settings that was merged here.
type Merged = BTreeMap<NodeId, SettingsChecksum>;

impl Node {
    /// Changes settings of a bucket on this node, from where they spread; tells what is set of that bucket then.
    ///
    /// # Errors
    /// [`ControlError::Invalid`] if they make no sense or this node does not serve, [`ControlError::Internal`] if they may
    /// not be durable.
    pub async fn set(&self, Set { bucket, changes }: Set) -> Result<Registers, ControlError> {
        self.serving_ring().map_err(|not| ControlError::Invalid(not.reason))?;
        let (named, now) = (bucket.clone(), self.wall());
        let settings = self.change_store(move |store| store.set(&named, &changes, now)).await;
        let settings = settings.map_err(|error| match error {
            SetError::Invalid(error) => ControlError::Invalid(error.to_string()),
            SetError::Store(error) => ControlError::Internal(error.to_string()),
        })?;
        tracing::info!(bucket = %bucket.as_str(), checksum = %settings.checksum(), "settings of a bucket were changed here");
        Ok(settings.registers(&bucket).cloned().unwrap_or_default())
    }

    /// Takes in what others set, for as long as the node runs.
    pub async fn follow_settings(self: Arc<Self>) {
        let (mut gossip, mut merged) = (self.gossip.clone(), Merged::new());
        loop {
            gossip.mark_unchanged();
            for (peer, checksum, address) in self.others_settings(&mut merged) {
                match self.merge_settings_of(&address).await {
                    Ok(()) => drop(merged.insert(peer, checksum)),
                    Err(error) => tracing::debug!(%peer, %error, "cannot take in a peer's settings"),
                }
            }
            tokio::select! {
                () = self.stopping.cancelled() => return,
                Ok(()) = gossip.changed() => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    /// Peers of this cluster that go by something else than this node, and than what was merged of theirs.
    fn others_settings(&self, merged: &mut Merged) -> Vec<(NodeId, SettingsChecksum, String)> {
        if self.standing() != NodeStanding::Serving {
            return Vec::new();
        }
        let (own, cluster, view) = (self.store.settings().checksum(), self.store.layout(), self.view());
        let cluster = cluster.map(|layout| layout.cluster());
        merged.retain(|peer, _| view.peer(*peer).is_some());
        let of_ours = view.live().filter(|peer| peer.announcement.cluster == cluster);
        let told = of_ours.filter_map(|peer| Some((peer.node, peer.announcement.settings?, peer)));
        let others = told.filter(|(node, theirs, _)| *theirs != own && merged.get(node) != Some(theirs));
        others.map(|(node, theirs, peer)| (node, theirs, peer.announcement.address.as_str().to_owned())).collect()
    }

    async fn merge_settings_of(&self, address: &str) -> anyhow::Result<()> {
        let control = self.control_of(address).await?;
        let theirs = control.settings(call_within(CALL_LIMIT)).await?;
        Ok(self.change_store(move |store| store.learn_settings(&theirs)).await?)
    }
}
