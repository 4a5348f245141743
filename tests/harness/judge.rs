//! The end of a test: what is left in the cluster is looked at, and the checker says whether promises were kept.
//!
//! A verdict is only worth something if it had something to look at, so a test names the assertions that it is about. One
//! of them that was never put to the test fails it, and so does one that something was excused from.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use futures::{StreamExt as _, stream};
use starling_checker::{Assertion, FinalState, HeldHints, History, OwnCopy, Replica, Since, Tested, ValueId, Verdict};
use starling_client::Client;
use starling_core::ids::NodeId;
use starling_core::name::ObjectKey;
use starling_core::quorum::Level;
use starling_proto::control::NodeStatus;

use crate::attempts::joined;
use crate::patience::{patience, until};
use crate::recorder::{Log, Recorder};
use crate::{Cluster, eventually};

/// Keys that are looked at side by side.
const LOOKERS: usize = 24;

/// How replicas that differ may come to agree before they are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repair {
    /// Every key is read, and the read waits for its repair.
    ByReads,
    /// By what the cluster does of itself, and what the test has read.
    Nothing,
}

impl Recorder {
    /// Heals the cluster, waits until it has converged with the help of a read of each key, and has what was recorded
    /// judged. Nodes whose disks are lost stay as they are; paused ones have to be resumed already.
    ///
    /// # Panics
    /// With the verdict, if a promise was broken, or nothing was shown of what the test is `about`.
    pub async fn judge(&self, cluster: &mut Cluster, about: &[Assertion]) -> Verdict {
        self.heal(cluster).await;
        Judge::new(self, cluster).await.judge(Repair::ByReads, about).await
    }

    /// As [`Recorder::judge`], without a read that could repair anything: what handoff, or the test's own reads, have not
    /// brought home is missing.
    pub async fn judge_unread(&self, cluster: &mut Cluster, about: &[Assertion]) -> Verdict {
        self.heal(cluster).await;
        Judge::new(self, cluster).await.judge(Repair::Nothing, about).await
    }

    async fn heal(&self, cluster: &mut Cluster) {
        let client = cluster.client().await;
        let lost = lost_nodes(&self.log());
        for index in cluster.down() {
            if !lost.contains(&cluster.id_of(&client, index)) {
                cluster.restart(index).await;
            }
        }
    }
}

struct Judge<'a> {
    recorder: &'a Recorder,
    cluster: &'a Cluster,
    client: Client,
    /// Nothing is expected of these nodes.
    away: BTreeSet<NodeId>,
    /// What has not converged by then is judged as it is.
    deadline: Instant,
}

impl<'a> Judge<'a> {
    async fn new(recorder: &'a Recorder, cluster: &'a Cluster) -> Judge<'a> {
        let client = cluster.client().await;
        let away = lost_nodes(&recorder.log());
        Judge { recorder, cluster, client, away, deadline: Instant::now() + patience() }
    }

    async fn judge(&self, repair: Repair, about: &[Assertion]) -> Verdict {
        let end = self.final_state(repair).await;
        let log = self.recorder.log();
        let verdict = self.history(&log).check(Some(&end)).unwrap_or_else(|invalid| panic!("{invalid}"));
        assert!(verdict.passed(), "{verdict}");
        let shown = |assertion: &Assertion| {
            let Tested { times, excused, .. } = verdict.of(*assertion);
            times > 0 && excused == 0
        };
        let missing: Vec<String> =
            about.iter().filter(|assertion| !shown(assertion)).map(ToString::to_string).collect();
        assert!(!about.is_empty() && missing.is_empty(), "nothing was shown of {missing:?}: {verdict}");
        verdict
    }

    fn history(&self, log: &Log) -> History {
        let mut history = History::default();
        if log.forgets_deletes {
            history.may_forget_deletes();
        }
        let layout = self.client.layout();
        for (bucket, rules) in layout.buckets() {
            history.set_mode(bucket.clone(), rules.mode);
        }
        for member in layout.members() {
            history.name_node(member.node, member.name.to_string());
        }
        for (value, bytes) in &log.values {
            history.name_value(*value, bytes.escape_ascii().to_string());
        }
        for operation in joined(&log.recorded) {
            history.record(operation).expect("time goes forward");
        }
        history
    }

    async fn final_state(&self, repair: Repair) -> FinalState {
        // First what handoff brings home: copies are looked at once it has.
        self.hints().await;
        let log = self.recorder.log();
        let keys: BTreeSet<ObjectKey> = log.recorded.iter().map(|recorded| recorded.operation.key.clone()).collect();
        let settled = stream::iter(keys).map(|key| async move {
            let replicas = self.settled(repair, &key).await;
            (key, replicas)
        });
        let replicas: BTreeMap<_, _> = settled.buffer_unordered(LOOKERS).collect().await;
        FinalState { replicas, hints: self.hints().await, lost_disks: log.lost, ..FinalState::default() }
    }

    /// The replicas of a key once they agree, or as they are at the deadline.
    async fn settled(&self, repair: Repair, key: &ObjectKey) -> Vec<Replica> {
        let look = || async {
            if repair == Repair::ByReads {
                self.repair(key).await;
            }
            let replicas = self.replicas(key).await;
            if agree(&replicas) { Ok(replicas) } else { Err(replicas) }
        };
        until(self.deadline, look).await.unwrap_or_else(|differing| differing)
    }

    /// Reads from all primaries that are left. It is not recorded: what a test says of reads, its own have to show.
    async fn repair(&self, key: &ObjectKey) {
        let list = self.client.layout().preference_list(key);
        let left = list.primaries().iter().filter(|primary| !self.away.contains(primary)).count();
        let all = Level::Count(u8::try_from(left).expect("a key has at most seven primaries"));
        let bucket = self.client.bucket(key.bucket().as_str()).unwrap();
        eventually("a read meets all primaries", || async {
            let read = bucket.get(key.key().clone()).r(all).pr(all).wait_for_repair(true).await;
            read.map(drop).map_err(|error| error.to_string())
        })
        .await;
    }

    /// What every node that is not away holds of a key itself.
    async fn replicas(&self, key: &ObjectKey) -> Vec<Replica> {
        let list = self.client.layout().preference_list(key);
        let owed = self.is_owed(list.primaries());
        let mut replicas = Vec::new();
        for index in self.cluster.running() {
            let node = self.cluster.id_of(&self.client, index);
            let is_primary = list.is_primary(node);
            let holds = self.own_copy(index, key).await;
            // What it holds in place of a node that is away, it has to keep.
            if is_primary || !owed {
                replicas.push(Replica { node, is_primary, holds });
            }
        }
        replicas
    }

    fn is_owed(&self, primaries: &[NodeId]) -> bool {
        primaries.iter().any(|primary| self.away.contains(primary))
    }

    async fn own_copy(&self, index: usize, key: &ObjectKey) -> Option<OwnCopy> {
        let address = self.cluster.address(index);
        let own = eventually("a node shows its own copy", || async {
            let own = self.client.get_replica(address, key.bucket().as_str(), key.key().clone()).await;
            own.map_err(|error| error.to_string())
        })
        .await;
        let copy =
            OwnCopy { clock: own.clock().clone(), values: own.values().map(|value| ValueId::of(value)).collect() };
        (!own.clock().is_empty()).then_some(copy)
    }

    /// Who holds hints for whom, zeros among them, once there are none for nodes that are here.
    async fn hints(&self) -> Vec<HeldHints> {
        let look = || async {
            let mut held = Vec::new();
            for index in self.cluster.running() {
                let status = eventually("a node tells its hints", || self.cluster.status(index)).await;
                held.extend(self.held_by(&status));
            }
            let due = held.iter().any(|hints| hints.count > 0 && !self.away.contains(&hints.target));
            if due { Err(held) } else { Ok(held) }
        };
        until(self.deadline, look).await.unwrap_or_else(|left| left)
    }

    fn held_by(&self, status: &NodeStatus) -> Vec<HeldHints> {
        let layout = self.client.layout();
        let others = layout.members().iter().map(|member| member.node).filter(|target| *target != status.node);
        let count =
            |target: NodeId| status.hints.iter().filter(move |hints| hints.target == target).map(|hints| hints.count);
        others.map(|target| HeldHints { holder: status.node, target, count: count(target).sum() }).collect()
    }
}

fn lost_nodes(log: &Log) -> BTreeSet<NodeId> {
    log.lost.iter().filter(|lost| lost.since == Since::Away).map(|lost| lost.node).collect()
}

fn agree(replicas: &[Replica]) -> bool {
    let content = |replica: &Replica| {
        let holds = replica.holds.as_ref();
        holds.map(|copy| (copy.clock.clone(), copy.values.iter().copied().collect::<BTreeSet<_>>()))
    };
    let (primaries, others): (Vec<&Replica>, Vec<&Replica>) = replicas.iter().partition(|replica| replica.is_primary);
    primaries.windows(2).all(|pair| content(pair[0]) == content(pair[1]))
        && others.iter().all(|other| other.holds.is_none())
}
