//! What clients do in a test, written down for the checker.
//!
//! A [`Recorder`] is one history. [`Recorder::session`] wraps a client: its buckets have the client's verbs, which return
//! what the client's return, and everything is recorded besides. Attempts that bring one request id are one operation,
//! whoever makes them. How the history is judged: `judge.rs`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use starling_checker::{
    Acknowledgement, Asked, Change, ContextId, Deed, LostDisk, Operation, Read, ReadOutcome, Session as SessionNumber,
    Since, ValueId, Write, WriteOutcome,
};
use starling_client::{Client, ClientError, Fetched, Stored};
use starling_core::ids::{NodeId, RequestId};
use starling_core::layout::Layout;
use starling_core::name::ObjectKey;
use starling_core::quorum::{Level, Quorum};
use starling_core::report::{Outcome, ReplicaReport};
use starling_proto::data::{Put, RequestError, Written};

use crate::Cluster;
use crate::recorded::Bucket;

/// Of a write that may have been carried out nobody knows how often.
const ANY_NUMBER: u32 = u32::MAX;

/// A history that sessions write together. Clones are the same one.
#[derive(Clone)]
pub struct Recorder(Arc<Records>);

struct Records {
    /// The clock of all sessions.
    begun: Instant,
    sessions: AtomicU32,
    log: Mutex<Log>,
}

#[derive(Clone, Default)]
pub(crate) struct Log {
    pub recorded: Vec<Recorded>,
    /// What was written, for people.
    pub values: BTreeMap<ValueId, Bytes>,
    pub lost: Vec<LostDisk>,
    pub forgets_deletes: bool,
}

/// An attempt at something, from outside: a client's own attempts are one.
#[derive(Clone)]
pub(crate) struct Recorded {
    /// None of a read.
    pub request: Option<RequestId>,
    pub operation: Operation,
}

impl Default for Recorder {
    fn default() -> Recorder {
        Recorder(Arc::new(Records { begun: Instant::now(), sessions: AtomicU32::new(0), log: Mutex::default() }))
    }
}

impl Recorder {
    /// Records what is done through this client from now on, as a session of its own.
    pub fn session(&self, client: &Client) -> Session {
        let number = SessionNumber(self.0.sessions.fetch_add(1, Ordering::Relaxed));
        Session { recorder: self.clone(), number, client: client.clone() }
    }

    /// The nodes forget deletions while the test goes on.
    pub fn may_forget_deletes(&self) {
        self.change(|log| log.forgets_deletes = true);
    }

    /// The disk of this node is gone, or back at an earlier state, and the node stays away from now on.
    pub fn lost_disk(&self, cluster: &Cluster, client: &Client, index: usize) {
        self.note_loss(cluster, client, index, Since::Away);
    }

    /// The disk of this node is gone, or back at an earlier state; the node is to fill up again.
    pub fn replaced_disk(&self, cluster: &Cluster, client: &Client, index: usize) {
        self.note_loss(cluster, client, index, Since::Filled);
    }

    fn note_loss(&self, cluster: &Cluster, client: &Client, index: usize, since: Since) {
        let lost = LostDisk { node: cluster.id_of(client, index), at: self.now(), since };
        self.change(|log| log.lost.push(lost));
    }

    fn lost(&self) -> Vec<LostDisk> {
        self.change(|log| log.lost.clone())
    }

    pub(crate) fn log(&self) -> Log {
        self.change(|log| log.clone())
    }

    fn now(&self) -> u64 {
        u64::try_from(self.0.begun.elapsed().as_nanos()).expect("no test takes five centuries")
    }

    fn change<T>(&self, act: impl FnOnce(&mut Log) -> T) -> T {
        act(&mut self.0.log.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A client that is recorded. Clones are the same session.
#[derive(Clone)]
pub struct Session {
    recorder: Recorder,
    number: SessionNumber,
    client: Client,
}

/// What a request asks of replicas.
#[derive(Clone, Copy, Default)]
pub(crate) struct Levels {
    pub all: Level,
    pub primaries: Level,
}

impl Session {
    pub fn bucket(&self, name: &str) -> Bucket {
        Bucket::new(self.clone(), self.client.bucket(name).unwrap())
    }

    /// Sends a write to one node and nobody else. `index` is its number.
    pub async fn put_at(&self, cluster: &Cluster, index: usize, put: Put) -> Result<Written, RequestError> {
        let (direct, address) = (cluster.direct(index).await, cluster.address(index));
        let context = put.context.as_ref();
        let value = put.value.bytes();
        let levels = Levels { all: put.w, primaries: put.pw };
        let pending = self.begin_write(put.key.clone(), put.request, value, context, levels);
        let outcome = direct.put(put).await;
        pending.end_direct(address, &outcome);
        outcome
    }

    pub(crate) fn begin_write(
        &self,
        key: ObjectKey,
        request: RequestId,
        value: Option<&Bytes>,
        context: Option<&Bytes>,
        levels: Levels,
    ) -> PendingWrite {
        let layout = self.client.layout();
        let copies = layout.replicas_of(key.bucket());
        // What asks for the impossible is refused; it asked for nothing that could be promised.
        let asked = Quorum::of_write(levels.all, levels.primaries, copies)
            .map_or(Asked { replicas: 0, primaries: 0, copies: 0 }, |quorum| Asked::new(quorum, copies));
        let context = context.map(|context| ContextId::of(context));
        let change = match value {
            Some(value) => Change::Put { value: self.learn(value), context },
            None => Change::Delete { context },
        };
        let write = Write { change, asked, tries: ANY_NUMBER, over_by: None, outcome: WriteOutcome::Unknown };
        PendingWrite { session: self.clone(), layout, key, request, invoked: self.recorder.now(), write }
    }

    pub(crate) async fn read(
        &self,
        key: ObjectKey,
        levels: Levels,
        waits_for_repair: bool,
        request: impl Future<Output = Result<Fetched, ClientError>>,
    ) -> Result<Fetched, ClientError> {
        let invoked = self.recorder.now();
        let fetched = request.await;
        let copies = self.client.layout().replicas_of(key.bucket());
        let Ok(quorum) = Quorum::of_read(levels.all, levels.primaries, copies) else { return fetched };
        let outcome = fetched.as_ref().map_or(ReadOutcome::Failed, |fetched| ReadOutcome::Found(found(fetched)));
        let read = Read { asked: Asked::new(quorum, copies), waits_for_repair, outcome };
        self.note(None, key, invoked, Deed::Read(read));
        fetched
    }

    fn learn(&self, value: &Bytes) -> ValueId {
        let id = ValueId::of(value);
        self.recorder.change(|log| log.values.insert(id, value.clone()));
        id
    }

    fn note(&self, request: Option<RequestId>, key: ObjectKey, invoked: u64, deed: Deed) {
        let operation = Operation { session: self.number, key, invoked, ended: self.recorder.now(), deed };
        self.recorder.change(|log| log.recorded.push(Recorded { request, operation }));
    }
}

/// A write under way. One that is dropped before it has ended is recorded as what it is then: unknown.
pub(crate) struct PendingWrite {
    session: Session,
    layout: Arc<Layout>,
    key: ObjectKey,
    request: RequestId,
    invoked: u64,
    write: Write,
}

impl PendingWrite {
    pub fn end(mut self, outcome: &Result<Stored, ClientError>) {
        match outcome {
            Ok(stored) => {
                let context = stored.context();
                let context = context.as_ref().map(|context| context.as_bytes());
                self.acknowledge(context, stored.siblings(), stored.replicas());
                self.count_tries(stored.attempts(), stored.via());
            }
            Err(error) if is_nothing_done(error) => self.fail(),
            Err(_) => {}
        }
    }

    fn end_direct(mut self, address: &str, outcome: &Result<Written, RequestError>) {
        match outcome {
            Ok(written) => {
                self.acknowledge(written.context.as_ref(), written.siblings, &written.replicas);
                self.count_tries(1, address);
            }
            Err(RequestError::Invalid(_) | RequestError::Refused(_) | RequestError::NotServing(_)) => {
                self.fail();
            }
            Err(_) => {}
        }
    }

    fn fail(&mut self) {
        (self.write.outcome, self.write.tries) = (WriteOutcome::Failed, 0);
    }

    fn acknowledge(&mut self, context: Option<&Bytes>, siblings: usize, replicas: &[ReplicaReport]) {
        self.write.outcome = WriteOutcome::Acknowledged(Acknowledgement {
            context: context.map(|context| ContextId::of(context)),
            siblings,
            stored_by: stored_by(replicas),
        });
    }

    /// A primary coordinates itself, unless it is filling; any other node sends the write on, to one primary after another
    /// if they are silent. So only of a single attempt at a primary it is known that it was carried out just once.
    fn count_tries(&mut self, attempts: u32, via: &str) {
        let list = self.layout.preference_list(&self.key);
        let lost = self.session.recorder.lost();
        let may_be_filling = |node: &NodeId| lost.iter().any(|lost| lost.node == *node);
        let is_via = |node: &NodeId| self.layout.member(*node).is_some_and(|member| member.address == via);
        let is_primary = |node: &NodeId| is_via(node) && !may_be_filling(node);
        let at_primary = list.primaries().iter().any(is_primary);
        self.write.tries = if attempts == 1 && at_primary { 1 } else { ANY_NUMBER };
    }
}

impl Drop for PendingWrite {
    fn drop(&mut self) {
        let deed = Deed::Write(self.write.clone());
        self.session.note(Some(self.request), self.key.clone(), self.invoked, deed);
    }
}

/// What a client may believe of a write that was not acknowledged; any other may have been done.
fn is_nothing_done(error: &ClientError) -> bool {
    match error {
        ClientError::Invalid(_)
        | ClientError::Unavailable { .. }
        | ClientError::RetriesSpent { .. }
        // By the read of a delete without a context.
        | ClientError::ReadQuorumNotMet { .. } => true,
        ClientError::WriteQuorumNotMet { .. }
        | ClientError::DeadlinePassed { .. }
        | ClientError::OutcomeUnknown { .. }
        | ClientError::Incomplete(_)
        | ClientError::Internal { .. } => false,
    }
}

fn stored_by(replicas: &[ReplicaReport]) -> Vec<NodeId> {
    replicas.iter().filter(|report| report.outcome == Outcome::Stored).map(|report| report.node).collect()
}

fn found(fetched: &Fetched) -> starling_checker::Found {
    starling_checker::Found {
        values: fetched.values().map(|value| ValueId::of(value)).collect(),
        context: fetched.context().map(|context| ContextId::of(context.as_bytes())),
        clock: fetched.clock().clone(),
        deleted: fetched.is_deleted(),
    }
}
