//! The preference list of a key (Dynamo, section 4.3): its primaries, then everybody who may stand in for them.

use serde::{Deserialize, Serialize};

use crate::attempt::Candidate;
use crate::ids::NodeId;
use crate::token::Partition;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreferenceList {
    partition: Partition,
    primaries: Vec<NodeId>,
    fallbacks: Vec<NodeId>,
}

impl PreferenceList {
    pub(crate) fn new(partition: Partition, primaries: Vec<NodeId>, fallbacks: Vec<NodeId>) -> PreferenceList {
        PreferenceList { partition, primaries, fallbacks }
    }

    pub fn partition(&self) -> Partition {
        self.partition
    }

    pub fn primaries(&self) -> &[NodeId] {
        &self.primaries
    }

    pub fn fallbacks(&self) -> &[NodeId] {
        &self.fallbacks
    }

    /// Primaries and fallbacks, each with what `describe` knows of the node.
    pub fn candidates(&self, describe: impl Fn(NodeId) -> Candidate) -> (Vec<Candidate>, Vec<Candidate>) {
        let of = |nodes: &[NodeId]| nodes.iter().map(|node| describe(*node)).collect();
        (of(&self.primaries), of(&self.fallbacks))
    }

    pub fn is_primary(&self, node: NodeId) -> bool {
        self.primaries.contains(&node)
    }
}
