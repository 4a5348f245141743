//! What people call the nodes, where requests speak of ids.

use std::collections::BTreeMap;

use starling_core::ids::{DirectoryId, NodeId};
use starling_core::layout::Layout;
use starling_core::report::ReplicaReport;
use starling_proto::control::{ClusterView, PeerView};

use crate::report::explain::ReplicaLine;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    nodes: BTreeMap<NodeId, String>,
    directories: BTreeMap<DirectoryId, String>,
}

impl Names {
    pub fn of_layout(layout: &Layout) -> Names {
        let mut names = Names::default();
        names.learn(layout);
        names
    }

    pub fn learn(&mut self, layout: &Layout) {
        for member in layout.members() {
            self.nodes.insert(member.node, member.name.to_string());
            self.directories.insert(member.directory, member.name.to_string());
        }
    }

    /// Of everybody that a node knows, members or not.
    pub fn of_view(view: &ClusterView) -> Names {
        let mut names = view.layout.as_ref().map(Names::of_layout).unwrap_or_default();
        for peer in &view.peers {
            names.nodes.entry(peer.node).or_insert_with(|| peer.name.to_string());
        }
        names
    }

    /// Of nodes, members or not.
    pub fn of_peers(peers: &[PeerView]) -> Names {
        let nodes = peers.iter().map(|peer| (peer.node, peer.name.to_string())).collect();
        Names { nodes, ..Names::default() }
    }

    /// The node's name; its id if nobody knows a name.
    pub fn node(&self, node: NodeId) -> String {
        self.nodes.get(&node).cloned().unwrap_or_else(|| node.to_string())
    }

    /// The node that a directory belonged to when the layout was made. None of one that has come in the place of a lost one
    /// since, or whose node has left.
    pub fn directory(&self, directory: DirectoryId) -> Option<String> {
        self.directories.get(&directory).cloned()
    }

    pub fn lines(&self, reports: &[ReplicaReport]) -> Vec<ReplicaLine> {
        reports.iter().map(|report| ReplicaLine::new(report, self)).collect()
    }
}
