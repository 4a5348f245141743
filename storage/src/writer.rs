//! The single writer of a store shard, with its group commit.
//!
//! It drains its queue ([`Writer::next`]), reads the records that the jobs touch and folds the jobs onto them
//! ([`Writer::prepare`]), commits one batch with one sync, and only then answers ([`Writer::commit`]). Nothing else
//! changes records, so nothing needs a lock, and a busy node pays one sync for many writes. A job whose asker is gone, or
//! whose deadline has passed, by the time it is taken up is dropped, not done.
//!
//! A job is carried out only in the epoch in which it was asked for. When a new one is adopted a batch of the old may be
//! under way: [`Store::adopted`](crate::Store::adopted) tells when it is over.
//!
//! A failed sync makes the whole batch unknown and ends the store (R13).
//!
//! A writer does nothing of itself. A store that is opened as usual gives each of its writers a thread; a simulation, in
//! which no thread may run beside the others, takes the steps itself and decides how long a sync takes
//! ([`Store::open_driven`](crate::Store::open_driven)).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use starling_core::clock::Clock;
use starling_core::coordinate::{Write, WriteRefused};
use starling_core::fault::{self, Fault};
use starling_core::ids::NodeId;
use starling_core::name::ObjectKey;
use starling_core::object::Object;
use starling_core::reaping::{Expired, RoundId, RoundsOver, Standing};
use starling_core::report::{Refusal, Role};
use starling_core::ring::Epoch;
use tokio::sync::{mpsc, oneshot, watch};

use crate::engine::Batch;
use crate::error::StoreError;
use crate::fold::{Confirmed, Fold, Minted, Place, Surroundings};
use crate::shared::Shared;

/// Bytes of user data after which a batch is closed.
const BATCH_BYTES: usize = 8 << 20;
/// Jobs after which a batch is closed.
const BATCH_JOBS: usize = 1024;

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// One change of one record, asked for in an epoch.
pub(crate) struct Job {
    pub epoch: Epoch,
    pub key: ObjectKey,
    pub change: Change,
}

pub(crate) enum Change {
    Coordinate { write: Write, deadline: Option<Instant>, reply: Reply<Minted> },
    Merge { over: RoundsOver, object: Object, role: Role, reply: Reply<()> },
    Confirm { by: NodeId, clock: Clock, reply: Reply<Confirmed> },
    Readdress { reply: Reply<bool> },
    Copy { object: Object, reply: Reply<()> },
    Reap { step: Reap, reply: Reply<bool> },
}

/// A step of a round of reaping (R11).
pub(crate) enum Reap {
    Weigh { standing: Standing, tombstone: Object, expired: Expired },
    Mark { id: RoundId, tombstone: Object, expired: Expired },
    Forget { id: RoundId },
    PutBack { id: RoundId },
}

impl Job {
    fn is_abandoned(&self) -> bool {
        match &self.change {
            Change::Coordinate { reply, .. } => reply.is_closed(),
            Change::Merge { reply, .. } => reply.is_closed(),
            Change::Confirm { reply, .. } => reply.is_closed(),
            Change::Readdress { reply } => reply.is_closed(),
            Change::Copy { reply, .. } => reply.is_closed(),
            Change::Reap { reply, .. } => reply.is_closed(),
        }
    }

    fn bytes(&self) -> usize {
        match &self.change {
            Change::Coordinate { write, .. } => write.value.size(),
            Change::Merge { object, .. } | Change::Copy { object, .. } => object.value_bytes(),
            Change::Confirm { .. } | Change::Readdress { .. } | Change::Reap { .. } => 0,
        }
    }

    /// Its asker waits, but no longer than that: what is begun later comes to others as news of a write that had failed.
    fn is_late(&self, now: Instant) -> bool {
        match &self.change {
            Change::Coordinate { deadline, .. } => deadline.is_some_and(|deadline| deadline <= now),
            Change::Merge { .. }
            | Change::Confirm { .. }
            | Change::Readdress { .. }
            | Change::Copy { .. }
            | Change::Reap { .. } => false,
        }
    }

    fn refuse(self, error: StoreError) {
        match self.change {
            Change::Coordinate { reply, .. } => drop(reply.send(Err(error))),
            Change::Merge { reply, .. } => drop(reply.send(Err(error))),
            Change::Confirm { reply, .. } => drop(reply.send(Err(error))),
            Change::Readdress { reply } => drop(reply.send(Err(error))),
            Change::Copy { reply, .. } => drop(reply.send(Err(error))),
            Change::Reap { reply, .. } => drop(reply.send(Err(error))),
        }
    }

    /// Applies the job to the batch. The outcome is told only once the batch is durable.
    fn apply(self, place: &Place, fold: &mut Fold) -> Outcome {
        match self.change {
            Change::Coordinate { write, reply, .. } => {
                Outcome::Minted(fold.coordinate(place, self.key.bucket(), write), reply)
            }
            Change::Merge { over, object, role, reply } => {
                Outcome::Merged(fold.merge(place, over, &object, role), reply)
            }
            Change::Confirm { by, clock, reply } => Outcome::Confirmed(fold.confirm(place, by, &clock), reply),
            Change::Readdress { reply } => Outcome::YesOrNo(fold.readdress(place), reply),
            Change::Copy { object, reply } => Outcome::Merged(fold.copy(place, &object), reply),
            Change::Reap { step, reply } => Outcome::YesOrNo(fold.reap(place, &step), reply),
        }
    }
}

/// What a job will be answered, if its batch becomes durable.
enum Outcome {
    Minted(Result<Minted, StoreError>, Reply<Minted>),
    Merged(Result<(), StoreError>, Reply<()>),
    Confirmed(Result<Confirmed, StoreError>, Reply<Confirmed>),
    YesOrNo(Result<bool, StoreError>, Reply<bool>),
}

impl Outcome {
    fn directory_copied(&self) -> Option<&WriteRefused> {
        let error = match self {
            Outcome::Minted(result, _) => result.as_ref().err(),
            Outcome::Merged(result, _) => result.as_ref().err(),
            Outcome::Confirmed(result, _) => result.as_ref().err(),
            Outcome::YesOrNo(result, _) => result.as_ref().err(),
        };
        match error {
            Some(StoreError::Write(refused @ WriteRefused::DirectoryCopied(_))) => Some(refused),
            _ => None,
        }
    }

    /// As it was worked out, unless something befell the whole batch.
    fn tell(self, befell: Option<&StoreError>) {
        fn send<T>(result: Result<T, StoreError>, reply: Reply<T>, befell: Option<&StoreError>) {
            let result = result.and_then(|done| befell.map_or(Ok(done), |error| Err(error.clone())));
            // Nobody listening any more is no concern of the writer's.
            drop(reply.send(result));
        }
        match self {
            Outcome::Minted(result, reply) => send(result, reply, befell),
            Outcome::Merged(result, reply) => send(result, reply, befell),
            Outcome::Confirmed(result, reply) => send(result, reply, befell),
            Outcome::YesOrNo(result, reply) => send(result, reply, befell),
        }
    }
}

/// The writer of one shard. Whoever drives it goes round `next`, `prepare`, `commit` until there is nothing more to take.
pub struct Writer {
    shared: Arc<Shared>,
    shard: usize,
    queue: mpsc::Receiver<Job>,
    /// By it the store sees that this writer still works.
    _at_work: watch::Receiver<()>,
}

/// Changes that were taken from the queue together.
pub struct Jobs(Vec<Job>);

/// A batch that was worked out and is not durable yet, with the answers that depend on it.
pub struct Prepared {
    work: Work,
    outcomes: Vec<Outcome>,
}

/// What has to be done before the answers may be told.
enum Work {
    /// The batch, and by how much the number of markers for each target changes with it.
    Commit(Batch, BTreeMap<NodeId, i64>),
    /// What the batch has to be folded onto cannot be read.
    Nothing(StoreError),
    /// Another process mints under this directory's name. Nothing of this batch may join in.
    Retire(String),
}

impl Prepared {
    /// What will be committed; none if nothing changes.
    pub fn batch(&self) -> Option<&Batch> {
        match &self.work {
            Work::Commit(batch, _) => Some(batch).filter(|batch| !batch.is_empty()),
            Work::Nothing(_) | Work::Retire(_) => None,
        }
    }

    fn of(fold: Fold, outcomes: Vec<Outcome>) -> Prepared {
        let work = match outcomes.iter().find_map(Outcome::directory_copied) {
            Some(copied) => Work::Retire(copied.to_string()),
            None => match fold.finish() {
                Ok((batch, hints_changed)) => Work::Commit(batch, hints_changed),
                Err(unreadable) => Work::Nothing(unreadable),
            },
        };
        if fault::is_on(Fault::AcknowledgeBeforeSync) {
            outcomes.into_iter().for_each(|outcome| outcome.tell(None));
            return Prepared { work, outcomes: Vec::new() };
        }
        Prepared { work, outcomes }
    }

    /// Nothing is left to do.
    fn refused(jobs: Vec<Job>, refusal: Refusal) -> Prepared {
        refuse_all(jobs, refusal);
        Prepared { work: Work::Commit(Batch::default(), BTreeMap::new()), outcomes: Vec::new() }
    }
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        shard: usize,
        queue: mpsc::Receiver<Job>,
        at_work: watch::Receiver<()>,
    ) -> Writer {
        Writer { shared, shard, queue, _at_work: at_work }
    }

    /// Goes on until the queue is closed and empty. Blocks.
    pub(crate) fn run(mut self) {
        while let Some(first) = self.queue.blocking_recv() {
            let jobs = self.fill_batch(first);
            self.commit(self.prepare(jobs));
        }
    }

    /// Waits for a job and takes what else is queued; none once the store takes no more and nothing is left.
    pub async fn next(&mut self) -> Option<Jobs> {
        let first = self.queue.recv().await?;
        Some(self.fill_batch(first))
    }

    fn fill_batch(&mut self, first: Job) -> Jobs {
        let mut bytes = first.bytes();
        let mut jobs = vec![first];
        while jobs.len() < BATCH_JOBS && bytes < BATCH_BYTES {
            let Ok(job) = self.queue.try_recv() else { break };
            bytes += job.bytes();
            jobs.push(job);
        }
        Jobs(jobs)
    }

    /// Works out what the jobs make of the records; those that must not be begun any more are refused here. A writer's
    /// batches are prepared and committed one after another: each is folded onto what the one before has left.
    pub fn prepare(&self, Jobs(jobs): Jobs) -> Prepared {
        let now = Instant::now();
        let jobs = jobs.into_iter().filter(|job| !job.is_abandoned());
        let (late, jobs): (Vec<Job>, Vec<Job>) = jobs.partition(|job| job.is_late(now));
        refuse_all(late, Refusal::DeadlinePassed);
        let Some(ring) = self.shared.begin_batch(self.shard) else {
            return Prepared::refused(jobs, Refusal::NotAMember);
        };
        if let Err(refusal) = self.shared.check_health() {
            return Prepared::refused(jobs, refusal);
        }
        let (jobs, of_another): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(|job| job.epoch == ring.epoch());
        refuse_all(of_another, Refusal::OtherLayout);
        let (hints, reapings) = (self.shared.hints(), self.shared.reapings.load_full());
        let settings = self.shared.settings.load_full();
        let around = Surroundings {
            node: self.shared.identity.node,
            ring: &ring,
            minter: self.shared.minter(),
            limits: self.shared.limits,
            settings: &settings.settings,
            disk_is_full: self.shared.disk_is_full(),
            hints: &hints,
            reapings: &reapings,
        };
        let jobs: Vec<(Place, Job)> = jobs.into_iter().map(|job| (Place::of(&job.key, &around), job)).collect();
        let mut fold = Fold::read(&*self.shared.engine, &around, jobs.iter().map(|(place, _)| place));
        let outcomes: Vec<Outcome> = jobs.into_iter().map(|(place, job)| job.apply(&place, &mut fold)).collect();
        Prepared::of(fold, outcomes)
    }

    /// Makes the batch durable, then tells the answers. Blocks on the disk.
    pub fn commit(&self, Prepared { work, outcomes }: Prepared) {
        let befell = self.make_durable(work).err();
        self.shared.end_batch(self.shard);
        outcomes.into_iter().for_each(|outcome| outcome.tell(befell.as_ref()));
    }

    fn make_durable(&self, work: Work) -> Result<(), StoreError> {
        match work {
            Work::Commit(batch, hints_changed) => {
                if !batch.is_empty() {
                    self.shared.commit(batch).map_err(|_failed| StoreError::Unknown)?;
                }
                self.shared.count_hints(&hints_changed);
                Ok(())
            }
            Work::Nothing(unreadable) => Err(unreadable),
            Work::Retire(reason) => {
                self.shared.retire(&reason);
                Err(StoreError::Refused(Refusal::NotAMember))
            }
        }
    }
}

impl Drop for Writer {
    /// A writer that panics ends the store with it: half of the keys without one would look like a healthy node that is
    /// always stopping.
    fn drop(&mut self) {
        if thread::panicking() {
            self.shared.fail("a writer has panicked");
        }
    }
}

fn refuse_all(jobs: Vec<Job>, refusal: Refusal) {
    jobs.into_iter().for_each(|job| job.refuse(StoreError::Refused(refusal)));
}
