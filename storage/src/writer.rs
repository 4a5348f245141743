//! The single writer of a store shard, with its group commit.
//!
//! It drains its queue, reads the records that the jobs touch, folds the jobs onto them, commits one batch with one sync,
//! and only then answers. Nothing else changes records, so nothing needs a lock, and a busy node pays one sync for many
//! writes. A job whose asker is gone, or whose deadline has passed, by the time it is taken up is dropped, not done.
//!
//! A failed sync makes the whole batch unknown and ends the store (R13).

use std::sync::Arc;
use std::time::Instant;

use starling_core::clock::Clock;
use starling_core::coordinate::{Write, WriteRefused};
use starling_core::ids::NodeId;
use starling_core::name::ObjectKey;
use starling_core::object::Object;
use starling_core::report::{Refusal, Role};
use tokio::sync::{mpsc, oneshot};

use crate::error::StoreError;
use crate::fold::{Confirmed, Fold, Minted, Place, Surroundings};
use crate::store::Shared;

/// Bytes of user data after which a batch is closed.
const BATCH_BYTES: usize = 8 << 20;
/// Jobs after which a batch is closed.
const BATCH_JOBS: usize = 1024;

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// One change of one record.
pub(crate) enum Job {
    Coordinate { key: ObjectKey, write: Write, deadline: Option<Instant>, reply: Reply<Minted> },
    Merge { key: ObjectKey, object: Object, role: Role, reply: Reply<()> },
    Confirm { key: ObjectKey, by: NodeId, clock: Clock, reply: Reply<Confirmed> },
}

impl Job {
    pub fn key(&self) -> &ObjectKey {
        match self {
            Job::Coordinate { key, .. } | Job::Merge { key, .. } | Job::Confirm { key, .. } => key,
        }
    }

    fn is_abandoned(&self) -> bool {
        match self {
            Job::Coordinate { reply, .. } => reply.is_closed(),
            Job::Merge { reply, .. } => reply.is_closed(),
            Job::Confirm { reply, .. } => reply.is_closed(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Job::Coordinate { write, .. } => write.value.size(),
            Job::Merge { object, .. } => object.value_bytes(),
            Job::Confirm { .. } => 0,
        }
    }

    /// Its asker waits, but no longer than that: what is begun later comes to others as news of a write that had failed.
    fn is_late(&self, now: Instant) -> bool {
        match self {
            Job::Coordinate { deadline, .. } => deadline.is_some_and(|deadline| deadline <= now),
            Job::Merge { .. } | Job::Confirm { .. } => false,
        }
    }

    fn refuse(self, error: StoreError) {
        match self {
            Job::Coordinate { reply, .. } => drop(reply.send(Err(error))),
            Job::Merge { reply, .. } => drop(reply.send(Err(error))),
            Job::Confirm { reply, .. } => drop(reply.send(Err(error))),
        }
    }

    /// Applies the job to the batch. The outcome is told only once the batch is durable.
    fn apply(self, place: &Place, fold: &mut Fold) -> Outcome {
        match self {
            Job::Coordinate { write, reply, .. } => Outcome::Minted(fold.coordinate(place, write), reply),
            Job::Merge { object, role, reply, .. } => Outcome::Merged(fold.merge(place, &object, role), reply),
            Job::Confirm { by, clock, reply, .. } => Outcome::Confirmed(fold.confirm(place, by, &clock), reply),
        }
    }
}

/// What a job will be answered, if its batch becomes durable.
enum Outcome {
    Minted(Result<Minted, StoreError>, Reply<Minted>),
    Merged(Result<(), StoreError>, Reply<()>),
    Confirmed(Result<Confirmed, StoreError>, Reply<Confirmed>),
}

impl Outcome {
    fn directory_copied(&self) -> Option<&WriteRefused> {
        let error = match self {
            Outcome::Minted(result, _) => result.as_ref().err(),
            Outcome::Merged(result, _) => result.as_ref().err(),
            Outcome::Confirmed(result, _) => result.as_ref().err(),
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
        }
    }
}

/// The writer's loop; ends when the queue is closed and empty.
pub(crate) fn run(shared: &Arc<Shared>, mut queue: mpsc::Receiver<Job>) {
    while let Some(first) = queue.blocking_recv() {
        carry_out(shared, fill_batch(first, &mut queue));
    }
}

fn fill_batch(first: Job, queue: &mut mpsc::Receiver<Job>) -> Vec<Job> {
    let mut bytes = first.bytes();
    let mut jobs = vec![first];
    while jobs.len() < BATCH_JOBS && bytes < BATCH_BYTES {
        let Ok(job) = queue.try_recv() else { break };
        bytes += job.bytes();
        jobs.push(job);
    }
    jobs
}

fn carry_out(shared: &Shared, jobs: Vec<Job>) {
    let now = Instant::now();
    let jobs = jobs.into_iter().filter(|job| !job.is_abandoned());
    let (late, jobs): (Vec<Job>, Vec<Job>) = jobs.partition(|job| job.is_late(now));
    refuse_all(late, Refusal::DeadlinePassed);
    let Some(layout) = shared.layout() else { return refuse_all(jobs, Refusal::NotAMember) };
    if let Err(refusal) = shared.check_health() {
        return refuse_all(jobs, refusal);
    }
    let hints = shared.hints();
    let around = Surroundings {
        node: shared.identity.node,
        layout: &layout,
        minter: shared.minter(),
        limits: shared.limits,
        disk_is_full: shared.disk_is_full(),
        hints: &hints,
    };
    let jobs: Vec<(Place, Job)> = jobs.into_iter().map(|job| (Place::of(job.key(), &around), job)).collect();
    let mut fold = Fold::read(&*shared.engine, &around, jobs.iter().map(|(place, _)| place));
    let outcomes: Vec<Outcome> = jobs.into_iter().map(|(place, job)| job.apply(&place, &mut fold)).collect();
    let befell = commit(shared, fold, &outcomes).err();
    outcomes.into_iter().for_each(|outcome| outcome.tell(befell.as_ref()));
}

fn commit(shared: &Shared, fold: Fold, outcomes: &[Outcome]) -> Result<(), StoreError> {
    if let Some(copied) = outcomes.iter().find_map(Outcome::directory_copied) {
        // Another process mints under this directory's name. Nothing of this batch may join in.
        shared.retire(&copied.to_string());
        return Err(StoreError::Refused(Refusal::NotAMember));
    }
    let (batch, hints_changed) = fold.finish();
    if !batch.is_empty() {
        shared.commit(batch).map_err(|_failed| StoreError::Unknown)?;
    }
    shared.count_hints(&hints_changed);
    Ok(())
}

fn refuse_all(jobs: Vec<Job>, refusal: Refusal) {
    jobs.into_iter().for_each(|job| job.refuse(StoreError::Refused(refusal)));
}
