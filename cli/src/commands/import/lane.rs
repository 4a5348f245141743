//! Writing records, or comparing them with what is stored: a lane works on one at a time, and tries again what may yet
//! succeed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use starling_client::{Bucket, ClientError, Context, Fetched};
use starling_core::ids::RequestId;
use starling_core::quorum::Level;
use tokio::sync::mpsc;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::commands::import::ImportArgs;
use crate::commands::import::ledger::Ledger;
use crate::commands::import::source::{Content, Record, Source};
use crate::failure::{Failure, Intent, Kind};
use crate::names::Names;
use crate::output::bytes::Blob;
use crate::output::units::plural;
use crate::report::import::{Problem, RecordFailure};
use crate::session::Session;

/// How often a record is tried, each time with the client's own retries within `--timeout`.
const ATTEMPTS: u32 = 6;
/// Before the second attempt; doubled before each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// What came of one record.
pub struct Settled {
    pub number: u64,
    /// Where the record ends in the file.
    pub end: u64,
    pub outcome: Outcome,
}

pub enum Outcome {
    Stored {
        bytes: u64,
        siblings: usize,
    },
    Repeated,
    /// It was there already, and nothing else was.
    Unchanged,
    /// It is there, as a verification wants it.
    Matching,
    Failed(RecordFailure, Option<Failure>),
}

/// Reads records and deals them to the lanes by key. Runs on a thread of its own, and ends early when told to stop, or when
/// a lane has ended. Returns how many records there are, if it came to the end of them.
pub fn deal(
    mut source: Source,
    ledger: &Ledger,
    lanes: &[mpsc::Sender<Record>],
    settled: &mpsc::Sender<Settled>,
    stop: &AtomicBool,
) -> Result<Option<u64>, Failure> {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let Some(record) = source.next()? else { return Ok(Some(number)) };
        number = record.number;
        if !ledger.wants(number) {
            continue;
        }
        let delivered = match &record.content {
            Ok(content) => {
                let lane = usize::try_from(xxh3_64(&content.key) % lanes.len() as u64).unwrap_or(0);
                lanes[lane].blocking_send(record).is_ok()
            }
            Err(reason) => settled.blocking_send(malformed(&record, reason)).is_ok(),
        };
        if !delivered {
            break;
        }
    }
    Ok(None)
}

/// What is malformed stays so: a corrected file is another file.
fn malformed(record: &Record, reason: &str) -> Settled {
    let failure = RecordFailure {
        record: record.number,
        line: record.line,
        key: None,
        kind: Problem::Malformed,
        message: reason.to_owned(),
        again: false,
    };
    Settled { number: record.number, end: record.end, outcome: Outcome::Failed(failure, None) }
}

pub struct Lane {
    bucket: Bucket,
    names: Names,
    work: Work,
    r: Level,
    pr: Level,
    timeout: Duration,
    settled: mpsc::Sender<Settled>,
    stop: Arc<AtomicBool>,
}

/// What is done with each record.
enum Work {
    Store { replace: bool, w: Level, pw: Level },
    Compare,
}

/// What a comparison found.
enum Found {
    Outcome(Outcome),
    Wrong(Problem, String),
}

impl Lane {
    pub fn new(
        args: &ImportArgs,
        session: &Session,
        settled: mpsc::Sender<Settled>,
        stop: Arc<AtomicBool>,
    ) -> Result<Lane, Failure> {
        let store = Work::Store { replace: args.replace, w: args.w, pw: args.pw };
        Ok(Lane {
            bucket: session.bucket(&args.bucket)?,
            names: session.names.clone(),
            work: if args.verify { Work::Compare } else { store },
            r: args.r,
            pr: args.pr,
            timeout: args.timeout,
            settled,
            stop,
        })
    }

    /// Until the records end. What is still queued after a stop is left for the next run.
    pub async fn run(self, mut records: mpsc::Receiver<Record>) {
        while let Some(record) = records.recv().await {
            let Record { number, line, end, content: Ok(content) } = record else { continue };
            let Some(outcome) = self.settle(number, line, &content).await else { continue };
            if self.settled.send(Settled { number, end, outcome }).await.is_err() {
                break;
            }
        }
    }

    /// None if it was told to stop before anything came of it.
    async fn settle(&self, number: u64, line: u64, content: &Content) -> Option<Outcome> {
        let mut pause = FIRST_PAUSE;
        // Once an attempt may have written the record, no later failure makes that certain again.
        let mut doubt: Option<Failure> = None;
        for attempt in 1..=ATTEMPTS {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            let failed = |kind, message| record_failure(number, line, content, kind, message);
            match self.attempt(content).await {
                Ok(Found::Outcome(outcome)) => return Some(outcome),
                Ok(Found::Wrong(problem, message)) => return Some(Outcome::Failed(failed(problem, message), None)),
                Err(failure) if attempt < ATTEMPTS && may_pass(failure.kind) => {
                    doubt = doubt.or((failure.kind == Kind::OutcomeUnknown).then_some(failure));
                    tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.5))).await;
                    pause *= 2;
                }
                Err(failure) => {
                    let failure = doubt.unwrap_or(failure);
                    let listed = failed(Problem::Request(failure.kind), failure.message.clone());
                    return Some(Outcome::Failed(listed, Some(failure)));
                }
            }
        }
        None
    }

    async fn attempt(&self, content: &Content) -> Result<Found, Failure> {
        match self.work {
            Work::Compare => Ok(compare(&self.read(content).await?, &content.value)),
            Work::Store { replace: false, w, pw } => self.write(content, None, w, pw).await.map(Found::Outcome),
            Work::Store { replace: true, w, pw } => {
                let read = self.read(content).await?;
                if matches!(read.siblings(), [only] if only.value == content.value) {
                    return Ok(Found::Outcome(Outcome::Unchanged));
                }
                self.write(content, read.context(), w, pw).await.map(Found::Outcome)
            }
        }
    }

    async fn read(&self, content: &Content) -> Result<Fetched, Failure> {
        let read = self.bucket.get(content.key.clone()).r(self.r).pr(self.pr).timeout(self.timeout);
        read.await.map_err(|error| self.failure(error, Intent::Read))
    }

    async fn write(
        &self,
        content: &Content,
        context: Option<Context>,
        w: Level,
        pw: Level,
    ) -> Result<Outcome, Failure> {
        let Content { key, value } = content;
        let request = request_id(self.bucket.name().as_str(), key, value, context.as_ref());
        let put = self.bucket.put(key.clone(), value.clone()).request(request).context(context);
        let stored = put.w(w).pw(pw).timeout(self.timeout).await;
        let stored = stored.map_err(|error| self.failure(error, Intent::Write(None)))?;
        Ok(match stored.was_repeated() {
            true => Outcome::Repeated,
            false => Outcome::Stored { bytes: value.len() as u64, siblings: stored.siblings() },
        })
    }

    fn failure(&self, error: ClientError, intent: Intent) -> Failure {
        Failure::from_client(error, intent, &self.names)
    }
}

fn compare(read: &Fetched, value: &Bytes) -> Found {
    match read.siblings() {
        [only] if only.value == *value => Found::Outcome(Outcome::Matching),
        [] if read.is_deleted() => Found::Wrong(Problem::Missing, "it was deleted".to_owned()),
        [] => Found::Wrong(Problem::Missing, "not found".to_owned()),
        [_] => Found::Wrong(Problem::Different, "another value is stored".to_owned()),
        several => {
            let siblings = plural(several.len() as u64, "sibling");
            let among =
                if several.iter().any(|sibling| sibling.value == *value) { "this among them" } else { "none is this" };
            Found::Wrong(Problem::Different, format!("the key has {siblings}, {among}"))
        }
    }
}

fn record_failure(record: u64, line: u64, content: &Content, kind: Problem, message: String) -> RecordFailure {
    RecordFailure { record, line, key: Some(Blob(content.key.clone())), kind, message, again: true }
}

/// Whether the same attempt may succeed a little later.
pub fn may_pass(kind: Kind) -> bool {
    match kind {
        Kind::Unreachable | Kind::QuorumNotMet | Kind::OutcomeUnknown => true,
        Kind::Usage
        | Kind::Refused
        | Kind::Failed
        | Kind::Internal
        | Kind::Incomplete
        | Kind::NoCluster
        | Kind::ReaderGone => false,
    }
}

/// The same record is the same write. The value is part of the id: two values under one id would be taken for one. With
/// `--replace` the context is too, since what it overwrites makes it another write.
fn request_id(bucket: &str, key: &Bytes, value: &Bytes, context: Option<&Context>) -> RequestId {
    let mut hash = Xxh3::new();
    let context = context.map(|context| context.as_bytes().as_ref()).unwrap_or_default();
    for part in [b"starling import 1", bucket.as_bytes(), key, value, context] {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    RequestId(hash.digest128())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_record_is_the_same_write() {
        let id = |key: &'static str, value: &'static str| request_id("b", &key.into(), &value.into(), None);
        assert_eq!(id("k", "v"), id("k", "v"));
        assert_ne!(id("k", "v"), id("k", "w"));
        assert_ne!(id("kv", ""), id("k", "v"));
        let context = Context::from_bytes(vec![1]);
        assert_ne!(request_id("b", &"k".into(), &"v".into(), Some(&context)), id("k", "v"));
    }

    #[test]
    fn ids_are_frozen_since_an_import_may_be_repeated_with_a_newer_build() {
        let id = request_id("b", &"k".into(), &"v".into(), None);
        assert_eq!(id.to_string(), "b392cd14c67dc49f5d86b8caa572849f");
    }
}
