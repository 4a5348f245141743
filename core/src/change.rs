//! What an operator asks of the ring, and the decree that it comes to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{ClusterId, NodeId};
use crate::layout::{BucketRules, LayoutError, Member, NextLayout};
use crate::name::{BucketName, NodeName, Zone};
use crate::object::SiblingMode;
use crate::quorum::ReplicaCount;
use crate::ring::{Decree, InvalidDecree, Ring};

/// One thing that shall be otherwise. Several can be staged and are committed together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// The node shall be a member.
    Join {
        name: NodeName,
        weight: u32,
    },
    /// The member shall hand its data over and be one no more.
    Leave(NodeName),
    /// The member is dead, and its disk with it: nobody waits for it, and it cannot come back.
    Remove(NodeName),
    Weigh {
        name: NodeName,
        weight: u32,
    },
    Rezone {
        name: NodeName,
        zone: Zone,
    },
    /// How many replicas the cluster keeps.
    Replicas(ReplicaCount),
    /// How many replicas the objects of a bucket have, and what becomes of concurrent writes (R1).
    Bucket {
        bucket: BucketName,
        rules: BucketRules,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Join { name, weight: 1 } => write!(f, "{name} joins"),
            Change::Join { name, weight } => write!(f, "{name} joins with weight {weight}"),
            Change::Leave(name) => write!(f, "{name} leaves"),
            Change::Remove(name) => write!(f, "{name} is removed as dead"),
            Change::Weigh { name, weight } => write!(f, "{name} has weight {weight}"),
            Change::Rezone { name, zone } => write!(f, "{name} is in zone {zone}"),
            Change::Replicas(replicas) => write!(f, "the cluster keeps {replicas} replicas"),
            Change::Bucket { bucket, rules: BucketRules { replicas, mode } } => {
                match replicas {
                    Some(replicas) if replicas.get() == 1 => write!(f, "bucket {bucket} has 1 replica")?,
                    Some(replicas) => write!(f, "bucket {bucket} has {replicas} replicas")?,
                    None => write!(f, "bucket {bucket} has as many replicas as the cluster keeps")?,
                }
                f.write_str(match mode {
                    SiblingMode::Keep => " and keeps siblings",
                    SiblingMode::LastWriteWins => ", and the last write wins",
                })
            }
        }
    }
}

/// Why changes do not come to a decree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    #[error("nothing would change")]
    Nothing,
    #[error("no member is named `{0}`")]
    NoMember(NodeName),
    #[error("`{0}` is a member already")]
    Member(NodeName),
    #[error("a node named `{0}` has left and may still hold copies: let it bring them home, or remove it first")]
    BringsHome(NodeName),
    #[error("nothing is known of a node named `{0}` that could join")]
    Unknown(NodeName),
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error(transparent)]
    Decree(#[from] InvalidDecree),
}

impl Ring {
    /// The decree that these changes come to, one after another. `joining` tells what is known of those who join.
    ///
    /// # Errors
    /// [`ChangeError`] if they contradict each other or the ring.
    pub fn decree_of(&self, changes: &[Change], joining: &BTreeMap<NodeName, Member>) -> Result<Decree, ChangeError> {
        let newest = self.newest();
        let mut next = Draft {
            layout: NextLayout {
                replicas: newest.replicas(),
                members: newest.members().to_vec(),
                buckets: newest.buckets().clone(),
            },
            dead: BTreeSet::new(),
        };
        for member in &mut next.layout.members {
            // Another directory may stand for it by now.
            member.directory = self.directory_of(member.node).unwrap_or(member.directory);
        }
        for change in changes {
            next.make(change, joining, self)?;
        }
        let Draft { layout, dead } = next;
        let is_same = layout.replicas == newest.replicas()
            && layout.members == newest.members()
            && layout.buckets == *newest.buckets();
        if is_same && dead.is_empty() {
            return Err(ChangeError::Nothing);
        }
        let decree = Decree::Begin { layout: newest.successor(layout)?, dead };
        self.after(&self.entry(decree.clone()))?;
        Ok(decree)
    }

    /// The decree by which these members are given up, with all that they hold, although nothing can be chosen without
    /// them. Those who are left are a cluster of that id from then on.
    ///
    /// # Errors
    /// [`ChangeError`] if they contradict each other or the ring.
    pub fn force_of(&self, dead: &BTreeSet<NodeName>, cluster: ClusterId) -> Result<Decree, ChangeError> {
        let changes: Vec<Change> = dead.iter().cloned().map(Change::Remove).collect();
        let decree = match self.decree_of(&changes, &BTreeMap::new())? {
            Decree::Begin { layout, dead } => Decree::Force { layout: layout.in_cluster(cluster), dead },
            other => other,
        };
        self.after(&self.entry(decree.clone()))?;
        Ok(decree)
    }
}

/// What is being made of the newest layout.
struct Draft {
    layout: NextLayout,
    dead: BTreeSet<NodeId>,
}

impl Draft {
    fn make(&mut self, change: &Change, joining: &BTreeMap<NodeName, Member>, ring: &Ring) -> Result<(), ChangeError> {
        match change {
            Change::Join { name, weight } => {
                if self.layout.members.iter().any(|member| member.name == *name) {
                    return Err(ChangeError::Member(name.clone()));
                }
                if ring.bringing_home().values().any(|left| left == name) {
                    return Err(ChangeError::BringsHome(name.clone()));
                }
                let joining = joining.get(name).ok_or_else(|| ChangeError::Unknown(name.clone()))?;
                self.layout.members.push(Member { weight: *weight, ..joining.clone() });
            }
            Change::Leave(name) => {
                self.take_out(name)?;
            }
            Change::Remove(name) => {
                // One that is leaving, or has left and not brought home all that it held, can still be declared dead.
                let leaving = ring.members().into_values().find(|member| member.name == *name).map(|m| m.node);
                let has_left = || ring.bringing_home().iter().find(|(_, known)| *known == name).map(|(node, _)| *node);
                let dead = self.take_out(name).or_else(|error| leaving.or_else(has_left).ok_or(error))?;
                self.dead.insert(dead);
            }
            Change::Weigh { name, weight } => self.member(name)?.weight = *weight,
            Change::Rezone { name, zone } => self.member(name)?.zone = zone.clone(),
            Change::Replicas(replicas) => self.layout.replicas = *replicas,
            Change::Bucket { bucket, rules } => {
                self.layout.buckets.insert(bucket.clone(), *rules);
            }
        }
        Ok(())
    }

    fn member(&mut self, name: &NodeName) -> Result<&mut Member, ChangeError> {
        let member = self.layout.members.iter_mut().find(|member| member.name == *name);
        member.ok_or_else(|| ChangeError::NoMember(name.clone()))
    }

    fn take_out(&mut self, name: &NodeName) -> Result<NodeId, ChangeError> {
        let node = self.member(name)?.node;
        self.layout.members.retain(|member| member.node != node);
        Ok(node)
    }
}
