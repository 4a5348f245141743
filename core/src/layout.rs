//! The layout: which nodes hold which partition. An immutable, versioned value that every node stores and serves.
//!
//! Failure never changes it; only an operator's commit does. Version 1 is made by `cluster init`; each later version
//! names its parent's checksum, so that the chain can be verified.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::codec;
use crate::ids::{ClusterId, DirectoryId, NodeId};
use crate::name::{BucketName, NodeName, ObjectKey, Zone};
use crate::object::SiblingMode;
use crate::placement;
use crate::preference::PreferenceList;
use crate::quorum::ReplicaCount;
use crate::token::{Partition, PartitionCount, Token};

/// Longest encoded layout that is decoded: 32768 partitions of 7 replicas, a thousand members and their buckets fit.
pub const MAX_LAYOUT_BYTES: usize = 4 * 1024 * 1024;
/// Most members of a layout.
pub const MAX_MEMBERS: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LayoutVersion(pub u64);

impl fmt::Display for LayoutVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// XXH3-64 of a layout's encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutChecksum(pub u64);

impl fmt::Display for LayoutChecksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A node as the layout knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub node: NodeId,
    pub directory: DirectoryId,
    pub name: NodeName,
    pub zone: Zone,
    /// Share of the data relative to the other members'; at least 1.
    pub weight: u32,
    /// `host:port` at which other nodes and clients reach it. Gossip may know a newer one.
    pub address: String,
}

/// What of a bucket changes placement or meaning, and so is part of the layout (R1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BucketRules {
    /// Fewer replicas than the cluster's, if set.
    pub replicas: Option<ReplicaCount>,
    pub mode: SiblingMode,
}

/// Why a layout cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    #[error("a layout needs at least one member")]
    NoMembers,
    #[error("a layout holds at most {MAX_MEMBERS} members; {0} were named")]
    TooManyMembers(usize),
    #[error("two members are named `{0}`")]
    DuplicateName(NodeName),
    #[error("two members have the node id {0}: one data directory is a copy of the other's")]
    DuplicateNode(NodeId),
    #[error("two members have the directory id {0}: one data directory is a copy of the other's")]
    DuplicateDirectory(DirectoryId),
    #[error("member `{0}` has weight 0")]
    ZeroWeight(NodeName),
    #[error("bucket `{bucket}` asks for {asked} replicas; the cluster keeps {replicas}")]
    TooManyReplicas { bucket: BucketName, asked: ReplicaCount, replicas: ReplicaCount },
    #[error("the members are out of order")]
    MembersOutOfOrder,
    #[error("there are primaries for {found} partitions of {}", expected.get())]
    PartitionsMissing { found: usize, expected: PartitionCount },
    #[error("partition {0} has not as many distinct members for primaries as there are replicas")]
    Primaries(Partition),
}

/// What `cluster init` decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstLayout {
    pub cluster: ClusterId,
    pub partitions: PartitionCount,
    pub replicas: ReplicaCount,
    pub members: Vec<Member>,
    pub buckets: BTreeMap<BucketName, BucketRules>,
}

/// What a commit decides: all members as they shall be, those that stay included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextLayout {
    pub replicas: ReplicaCount,
    pub members: Vec<Member>,
    pub buckets: BTreeMap<BucketName, BucketRules>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "UncheckedLayout")]
pub struct Layout {
    version: LayoutVersion,
    cluster: ClusterId,
    /// The checksum of the version before; none for version 1.
    parent: Option<LayoutChecksum>,
    partitions: PartitionCount,
    replicas: ReplicaCount,
    /// Ascending by node id.
    members: Vec<Member>,
    /// Per partition its primaries, in order of preference, as indexes into `members`.
    primaries: Vec<Vec<u16>>,
    buckets: BTreeMap<BucketName, BucketRules>,
}

/// A layout as it is decoded. It is adopted for good, so what contradicts itself has to be refused before that.
#[derive(Deserialize)]
struct UncheckedLayout {
    version: LayoutVersion,
    cluster: ClusterId,
    parent: Option<LayoutChecksum>,
    partitions: PartitionCount,
    replicas: ReplicaCount,
    members: Vec<Member>,
    primaries: Vec<Vec<u16>>,
    buckets: BTreeMap<BucketName, BucketRules>,
}

impl TryFrom<UncheckedLayout> for Layout {
    type Error = LayoutError;

    fn try_from(unchecked: UncheckedLayout) -> Result<Self, LayoutError> {
        let UncheckedLayout { version, cluster, parent, partitions, replicas, members, primaries, buckets } = unchecked;
        check_members(&members)?;
        check_buckets(&buckets, replicas)?;
        if !members.is_sorted_by_key(|member| member.node) {
            return Err(LayoutError::MembersOutOfOrder);
        }
        if primaries.len() != partitions.get() as usize {
            return Err(LayoutError::PartitionsMissing { found: primaries.len(), expected: partitions });
        }
        let copies = replicas.at_most(members.len()).get();
        for (partition, primaries) in partitions.all().zip(&primaries) {
            let distinct: BTreeSet<&u16> =
                primaries.iter().filter(|index| usize::from(**index) < members.len()).collect();
            if distinct.len() != copies || primaries.len() != copies {
                return Err(LayoutError::Primaries(partition));
            }
        }
        Ok(Layout { version, cluster, parent, partitions, replicas, members, primaries, buckets })
    }
}

impl Layout {
    /// Version 1. Deterministic: the same input gives the same layout on every machine.
    ///
    /// # Errors
    /// [`LayoutError`] if the members or the buckets' rules contradict each other.
    pub fn first(input: FirstLayout) -> Result<Layout, LayoutError> {
        let FirstLayout { cluster, partitions, replicas, mut members, buckets } = input;
        check_members(&members)?;
        check_buckets(&buckets, replicas)?;
        members.sort_by_key(|member| member.node);
        let primaries = placement::place(&members, partitions, replicas);
        Ok(Layout {
            version: LayoutVersion(1),
            cluster,
            parent: None,
            partitions,
            replicas,
            members,
            primaries,
            buckets,
        })
    }

    /// The version after this one. Deterministic: the same input gives the same layout on every machine. Replicas stay where
    /// they are as far as members, zones and weights allow.
    ///
    /// # Errors
    /// [`LayoutError`] if the members or the buckets' rules contradict each other.
    pub fn successor(&self, input: NextLayout) -> Result<Layout, LayoutError> {
        let NextLayout { replicas, mut members, buckets } = input;
        check_members(&members)?;
        check_buckets(&buckets, replicas)?;
        members.sort_by_key(|member| member.node);
        let index_of = |node: NodeId| members.binary_search_by_key(&node, |member| member.node).ok();
        let stays: Vec<Option<u16>> = self
            .members
            .iter()
            .map(|member| index_of(member.node).and_then(|index| u16::try_from(index).ok()))
            .collect();
        let kept = |primaries: &Vec<u16>| primaries.iter().filter_map(|index| stays[usize::from(*index)]).collect();
        let previous: Vec<Vec<u16>> = self.primaries.iter().map(kept).collect();
        let primaries = placement::rebalance(&previous, &members, self.partitions, replicas);
        Ok(Layout {
            version: LayoutVersion(self.version.0 + 1),
            cluster: self.cluster,
            parent: Some(self.checksum()),
            partitions: self.partitions,
            replicas,
            members,
            primaries,
            buckets,
        })
    }

    /// The same layout, of another cluster.
    #[must_use]
    pub fn in_cluster(self, cluster: ClusterId) -> Layout {
        Layout { cluster, ..self }
    }

    pub fn version(&self) -> LayoutVersion {
        self.version
    }

    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The checksum of the version before; none for version 1.
    pub fn parent(&self) -> Option<LayoutChecksum> {
        self.parent
    }

    pub fn partitions(&self) -> PartitionCount {
        self.partitions
    }

    /// How many replicas the cluster keeps where it has that many members.
    pub fn replicas(&self) -> ReplicaCount {
        self.replicas
    }

    pub fn members(&self) -> &[Member] {
        &self.members
    }

    pub fn buckets(&self) -> &BTreeMap<BucketName, BucketRules> {
        &self.buckets
    }

    pub fn member(&self, node: NodeId) -> Option<&Member> {
        let index = self.members.binary_search_by_key(&node, |member| member.node).ok()?;
        self.members.get(index)
    }

    pub fn member_named(&self, name: &NodeName) -> Option<&Member> {
        self.members.iter().find(|member| member.name == *name)
    }

    pub fn checksum(&self) -> LayoutChecksum {
        LayoutChecksum(xxh3_64(&codec::encode(self)))
    }

    pub fn rules(&self, bucket: &BucketName) -> BucketRules {
        self.buckets.get(bucket).copied().unwrap_or_default()
    }

    /// How many replicas this bucket's objects have: what was asked for, as far as there are members.
    pub fn replicas_of(&self, bucket: &BucketName) -> ReplicaCount {
        let asked = self.rules(bucket).replicas.unwrap_or(self.replicas);
        asked.at_most(self.members.len())
    }

    pub fn partition_of(&self, key: &ObjectKey) -> Partition {
        self.partitions.partition_of(Token::of(key))
    }

    /// The partition's primaries for objects of `replicas` copies, first choice first.
    pub fn primaries(&self, partition: Partition, replicas: ReplicaCount) -> impl Iterator<Item = NodeId> {
        self.members_of(partition).take(replicas.get())
    }

    /// The primaries of objects that have the fewest copies of all buckets.
    pub fn fewest_primaries(&self, partition: Partition) -> impl Iterator<Item = NodeId> {
        let fewest = self.buckets.keys().map(|bucket| self.replicas_of(bucket)).min();
        self.primaries(partition, fewest.unwrap_or(self.replicas))
    }

    /// The primaries of a key, first choice first.
    pub fn primaries_of(&self, key: &ObjectKey) -> Vec<NodeId> {
        self.primaries(self.partition_of(key), self.replicas_of(key.bucket())).collect()
    }

    /// The primaries of a key, then every other member in the order in which the ring is walked.
    pub fn preference_list(&self, key: &ObjectKey) -> PreferenceList {
        let (partition, primaries) = (self.partition_of(key), self.primaries_of(key));
        let fallbacks = self.walk_from(partition, &primaries);
        PreferenceList::new(partition, primaries, fallbacks)
    }

    /// How many partition replicas each member holds, in the order of [`Layout::members`].
    pub fn shares(&self) -> Vec<u32> {
        let mut shares = vec![0; self.members.len()];
        for index in self.primaries.iter().flatten() {
            shares[usize::from(*index)] += 1;
        }
        shares
    }

    fn members_of(&self, partition: Partition) -> impl Iterator<Item = NodeId> {
        self.primaries[usize::from(partition.0)].iter().map(|index| self.members[usize::from(*index)].node)
    }

    fn walk_from(&self, start: Partition, primaries: &[NodeId]) -> Vec<NodeId> {
        let mut met: BTreeSet<NodeId> = primaries.iter().copied().collect();
        let clockwise = self.partitions.all().cycle().skip(usize::from(start.0)).take(self.primaries.len());
        let others = self.members.len() - primaries.len();
        let mut fallbacks: Vec<NodeId> = clockwise
            .flat_map(|partition| self.members_of(partition))
            .filter(|node| met.insert(*node))
            .take(others)
            .collect();
        // A member so light that it holds no partition can still stand in.
        fallbacks.extend(self.members.iter().map(|member| member.node).filter(|node| met.insert(*node)));
        fallbacks
    }
}

fn check_members(members: &[Member]) -> Result<(), LayoutError> {
    if members.is_empty() {
        return Err(LayoutError::NoMembers);
    }
    if members.len() > MAX_MEMBERS {
        return Err(LayoutError::TooManyMembers(members.len()));
    }
    let (mut names, mut nodes, mut directories) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for member in members {
        if !names.insert(&member.name) {
            return Err(LayoutError::DuplicateName(member.name.clone()));
        }
        if !nodes.insert(member.node) {
            return Err(LayoutError::DuplicateNode(member.node));
        }
        if !directories.insert(member.directory) {
            return Err(LayoutError::DuplicateDirectory(member.directory));
        }
        if member.weight == 0 {
            return Err(LayoutError::ZeroWeight(member.name.clone()));
        }
    }
    Ok(())
}

fn check_buckets(buckets: &BTreeMap<BucketName, BucketRules>, replicas: ReplicaCount) -> Result<(), LayoutError> {
    for (bucket, rules) in buckets {
        if let Some(asked) = rules.replicas.filter(|asked| *asked > replicas) {
            return Err(LayoutError::TooManyReplicas { bucket: bucket.clone(), asked, replicas });
        }
    }
    Ok(())
}
