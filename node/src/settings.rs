//! Plain settings among nodes: any node takes a change, and the others come to know of it.
//!
//! Gossip says a checksum of what each node goes by. Whoever hears another than its own fetches and merges what is behind
//! it, once for each checksum; so do all, and since merging is commutative, associative and idempotent they end up with the
//! same.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use starling_core::ids::{ClusterId, NodeId};
use starling_core::settings::{Registers, SettingsChecksum};
use starling_proto::call_within;
use starling_proto::control::{ControlError, NodeStanding, Set};
use starling_proto::hello::Features;
use starling_storage::SetError;

use crate::node::Node;

const CALL_LIMIT: Duration = Duration::from_secs(2);
/// How often a node looks again at what it could not fetch, if gossip has no news.
const INTERVAL: Duration = Duration::from_secs(1);

/// So many of the checksums that this node itself went by are remembered: who still says one of them has nothing to tell.
const OWN_REMEMBERED: usize = 16;

/// What needs no fetching.
#[derive(Default)]
struct Known {
    /// The last of each peer's settings that was merged here.
    merged: BTreeMap<NodeId, SettingsChecksum>,
    /// What this node itself went by, the newest last.
    own: VecDeque<SettingsChecksum>,
}

impl Known {
    fn note_own(&mut self, own: SettingsChecksum) {
        if self.own.back() != Some(&own) {
            self.own.push_back(own);
        }
        if self.own.len() > OWN_REMEMBERED {
            self.own.pop_front();
        }
    }

    fn is_news(&self, peer: NodeId, theirs: SettingsChecksum) -> bool {
        !self.own.contains(&theirs) && self.merged.get(&peer) != Some(&theirs)
    }
}

impl Node {
    /// Changes settings of a bucket on this node, from where they spread; tells what is set of that bucket then.
    ///
    /// # Errors
    /// [`ControlError::Invalid`] if they make no sense or this node does not serve, [`ControlError::Internal`] if they may
    /// not be durable.
    pub async fn set(&self, Set { bucket, changes }: Set) -> Result<Registers, ControlError> {
        self.serving_ring().map_err(|not| ControlError::Invalid(not.reason))?;
        let names: Vec<String> = changes.keys().cloned().collect();
        let (named, now) = (bucket.clone(), self.wall());
        let settings = self.change_store(move |store| store.set(&named, &changes, now)).await;
        let settings = settings.map_err(|error| match error {
            SetError::Invalid(error) => ControlError::Invalid(error.to_string()),
            SetError::Store(error) => ControlError::Internal(error.to_string()),
        })?;
        tracing::info!(bucket = %bucket.as_str(), settings = ?names, "settings of a bucket were changed here");
        Ok(settings.registers(&bucket).cloned().unwrap_or_default())
    }

    /// Takes in what others set, for as long as the node runs.
    pub async fn follow_settings(self: Arc<Self>) {
        let (mut gossip, mut known) = (self.gossip.clone(), Known::default());
        loop {
            gossip.mark_unchanged();
            for (peer, checksum, address) in self.news_of_settings(&mut known) {
                match self.merge_settings_of(&address).await {
                    Ok(()) => drop(known.merged.insert(peer, checksum)),
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

    /// Peers of this cluster that go by something else than this node ever did, and than what was merged of theirs.
    fn news_of_settings(&self, known: &mut Known) -> Vec<(NodeId, SettingsChecksum, String)> {
        if self.standing() != NodeStanding::Serving {
            return Vec::new();
        }
        let (cluster, view) = (self.store.cluster(), self.view());
        known.note_own(self.store.settings_checksum());
        known.merged.retain(|peer, _| view.peer(*peer).is_some());
        let of_ours = view.live().filter(|peer| peer.announcement.cluster == cluster);
        let told = of_ours.filter_map(|peer| Some((peer.node, peer.announcement.settings?, peer)));
        let news = told.filter(|(node, theirs, _)| known.is_news(*node, *theirs));
        news.map(|(node, theirs, peer)| (node, theirs, peer.announcement.address.as_str().to_owned())).collect()
    }

    async fn merge_settings_of(&self, address: &str) -> anyhow::Result<()> {
        let cluster = self.store.cluster();
        self.merge_settings_of_a_member(address, cluster.context("this node belongs to no cluster")?).await
    }

    /// Takes in what a member of that cluster goes by. A build that knows of no settings has none to give.
    ///
    /// # Errors
    /// Also if whoever answers there belongs to another cluster: what is merged is never got rid of again.
    pub(crate) async fn merge_settings_of_a_member(&self, address: &str, cluster: ClusterId) -> anyhow::Result<()> {
        let (control, welcome) = self.control_and_welcome_of(address).await?;
        anyhow::ensure!(welcome.cluster == Some(cluster), "somebody of another cluster answers at {address}");
        if !welcome.features.include(Features::SETTINGS) {
            return Ok(());
        }
        let theirs = control.settings(call_within(CALL_LIMIT)).await?;
        Ok(self.change_store(move |store| store.learn_settings(&theirs)).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_node_went_by_itself_and_what_it_has_merged_is_no_news() {
        let (peer, other) = (NodeId(1), NodeId(2));
        let mut known = Known::default();
        (0..20).for_each(|own| known.note_own(SettingsChecksum(own)));
        known.merged.insert(peer, SettingsChecksum(100));
        assert!(!known.is_news(peer, SettingsChecksum(19)) && !known.is_news(other, SettingsChecksum(10)));
        assert!(!known.is_news(peer, SettingsChecksum(100)) && known.is_news(other, SettingsChecksum(100)));
        assert_eq!(known.own.len(), OWN_REMEMBERED);
    }
}
