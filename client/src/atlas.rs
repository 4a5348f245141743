//! What a client knows of its cluster: the layout, and where the members are.
//!
//! A layout names each member's address as it was when the layout was made. A member that was restarted elsewhere is known
//! to gossip, and so to any node that is asked again.

use std::collections::BTreeMap;
use std::sync::Arc;

use starling_core::ids::NodeId;
use starling_core::layout::{Layout, Member};
use starling_core::name::ObjectKey;
use starling_proto::control::ClusterView;

pub(crate) struct Atlas {
    layout: Arc<Layout>,
    /// Of members that are not where the layout says.
    moved: BTreeMap<NodeId, String>,
}

impl Atlas {
    pub fn new(layout: Layout) -> Atlas {
        Atlas { layout: Arc::new(layout), moved: BTreeMap::new() }
    }

    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    pub fn address(&self, member: &Member) -> String {
        self.moved.get(&member.node).unwrap_or(&member.address).clone()
    }

    /// Of every member.
    pub fn addresses(&self) -> Vec<String> {
        self.layout.members().iter().map(|member| self.address(member)).collect()
    }

    /// Of a key's primaries, then of its fallbacks.
    pub fn preferred(&self, key: &ObjectKey) -> Vec<String> {
        let list = self.layout.preference_list(key);
        let nodes = list.primaries().iter().chain(list.fallbacks());
        nodes.filter_map(|node| self.layout.member(*node)).map(|member| self.address(member)).collect()
    }

    /// Takes in what a node sees. None if it has nothing to say here: it belongs to another cluster, or to none, or to an
    /// older layout. `is_ours`: it takes this cluster's clients for its own, whatever it goes by now.
    pub fn corrected(&self, view: &ClusterView, is_ours: bool) -> Option<Atlas> {
        let seen = view.layout.as_ref().filter(|seen| is_ours || seen.cluster() == self.layout.cluster())?;
        let layout = match seen.version().cmp(&self.layout.version()) {
            std::cmp::Ordering::Less => return None,
            std::cmp::Ordering::Equal => Arc::clone(&self.layout),
            std::cmp::Ordering::Greater => Arc::new(seen.clone()),
        };
        // A node under a member's name that is not that member, such as a wiped one, would not serve.
        let peers = view.peers.iter().filter(|peer| peer.alive);
        let elsewhere =
            peers.filter(|peer| layout.member(peer.node).is_some_and(|member| member.address != peer.address));
        let moved = elsewhere.map(|peer| (peer.node, peer.address.clone())).collect();
        Some(Atlas { layout, moved })
    }
}

#[cfg(test)]
mod tests {
    use starling_core::ids::{ClusterId, DirectoryId};
    use starling_core::layout::FirstLayout;
    use starling_core::quorum::ReplicaCount;
    use starling_core::token::PartitionCount;
    use starling_proto::control::PeerView;

    use super::*;

    fn layout(cluster: u64) -> Layout {
        let member = |number: u64| Member {
            node: NodeId(number),
            directory: DirectoryId(10 + number),
            name: format!("n{number}").parse().unwrap(),
            zone: "z".parse().unwrap(),
            weight: 1,
            address: format!("127.0.0.1:{number}"),
        };
        Layout::first(FirstLayout {
            cluster: ClusterId(cluster),
            partitions: PartitionCount::try_from(8).unwrap(),
            replicas: ReplicaCount::DEFAULT,
            members: (1..=3).map(member).collect(),
            buckets: BTreeMap::new(),
        })
        .unwrap()
    }

    fn peer(node: u64, address: &str, alive: bool) -> PeerView {
        PeerView {
            name: format!("n{node}").parse().unwrap(),
            node: NodeId(node),
            zone: "z".parse().unwrap(),
            address: address.to_owned(),
            alive,
            standing: String::new(),
            cluster: None,
            layout: None,
            build: String::new(),
            hints_for: Vec::new(),
        }
    }

    fn view(layout: Option<Layout>, peers: Vec<PeerView>) -> ClusterView {
        ClusterView { seen_by: "n1".parse().unwrap(), layout, peers }
    }

    #[test]
    fn a_member_that_was_restarted_elsewhere_is_found_there() {
        let peers = vec![peer(1, "127.0.0.1:1", true), peer(2, "10.0.0.2:2", true), peer(3, "10.0.0.3:3", false)];
        let atlas = Atlas::new(layout(1)).corrected(&view(Some(layout(1)), peers), false).unwrap();
        assert_eq!(
            atlas.addresses(),
            ["127.0.0.1:1", "10.0.0.2:2", "127.0.0.1:3"],
            "the dead may return where they were"
        );
        let key = ObjectKey::new("b".parse().unwrap(), "k").unwrap();
        assert!(atlas.preferred(&key).contains(&"10.0.0.2:2".to_owned()));
        let back = atlas.corrected(&view(Some(layout(1)), vec![peer(2, "127.0.0.1:2", true)]), false).unwrap();
        assert_eq!(back.addresses()[1], "127.0.0.1:2");
    }

    #[test]
    fn another_cluster_has_nothing_to_say() {
        let atlas = Atlas::new(layout(1));
        let other = view(Some(layout(2)), vec![peer(2, "10.0.0.2:2", true)]);
        assert!(atlas.corrected(&other, false).is_none());
        assert!(atlas.corrected(&view(None, Vec::new()), true).is_none());
        let became = atlas.corrected(&other, true).unwrap();
        assert_eq!(became.addresses()[1], "10.0.0.2:2");
    }
}
