//! Writing records: a lane writes one at a time, and tries again what may yet succeed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use starling_client::{Bucket, ClientError, Context, Stored};
use starling_core::ids::RequestId;
use starling_core::quorum::Level;
use tokio::sync::mpsc;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::commands::import::ImportArgs;
use crate::commands::import::source::{Content, Record, Source};
use crate::commands::import::state::Mark;
use crate::failure::{Failure, Intent, Kind};
use crate::names::Names;
use crate::output::bytes::Blob;
use crate::report::import::{ImportReport, LISTED, RecordFailure};
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
    outcome: Outcome,
}

enum Outcome {
    Stored {
        bytes: u64,
        siblings: usize,
    },
    Repeated,
    /// It was there already, and nothing else was.
    Unchanged,
    Failed(RecordFailure, Option<Failure>),
}

impl Settled {
    /// Whether it may succeed another time. What is malformed stays so: a corrected file is another file.
    pub fn is_worth_repeating(&self) -> bool {
        matches!(self.outcome, Outcome::Failed(_, Some(_)))
    }

    /// Adds it to the counts. Returns the failure if it says that no other record will do better.
    pub fn count(self, report: &mut ImportReport) -> Option<Failure> {
        match self.outcome {
            Outcome::Stored { bytes, siblings } => {
                report.stored += 1;
                report.bytes += bytes;
                report.with_siblings += u64::from(siblings > 1);
            }
            Outcome::Repeated => report.repeated += 1,
            Outcome::Unchanged => report.unchanged += 1,
            Outcome::Failed(failure, cause) => {
                report.failed += 1;
                if report.failures.len() < LISTED {
                    report.failures.push(failure);
                }
                return cause
                    .filter(|cause| cause.kind == Kind::Unreachable)
                    .map(|cause| cause.hint("start the nodes; then the same command goes on from here"));
            }
        }
        None
    }
}

/// Reads records and deals them to the lanes by key. Runs on a thread of its own, and ends early when told to stop.
pub fn deal(
    mut source: Source,
    mark: &Mark,
    lanes: &[mpsc::Sender<Record>],
    settled: &mpsc::Sender<Settled>,
    stop: &AtomicBool,
) -> Result<(), Failure> {
    while !stop.load(Ordering::Relaxed) {
        let Some(record) = source.next()? else { break };
        if !mark.wants(record.number) {
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
    Ok(())
}

fn malformed(record: &Record, reason: &str) -> Settled {
    let failure = RecordFailure {
        record: record.number,
        line: record.line,
        key: None,
        kind: "malformed".to_owned(),
        message: reason.to_owned(),
    };
    Settled { number: record.number, end: record.end, outcome: Outcome::Failed(failure, None) }
}

pub struct Lane {
    bucket: Bucket,
    names: Names,
    replace: bool,
    w: Level,
    pw: Level,
    timeout: Duration,
    settled: mpsc::Sender<Settled>,
    stop: Arc<AtomicBool>,
}

impl Lane {
    pub fn new(
        args: &ImportArgs,
        session: &Session,
        settled: mpsc::Sender<Settled>,
        stop: Arc<AtomicBool>,
    ) -> Result<Lane, Failure> {
        Ok(Lane {
            bucket: session.bucket(&args.bucket)?,
            names: session.names.clone(),
            replace: args.replace,
            w: args.w,
            pw: args.pw,
            timeout: args.timeout.timeout,
            settled,
            stop,
        })
    }

    /// Until the records end. What is still queued after a stop is left for the next run.
    pub async fn run(self, mut records: mpsc::Receiver<Record>) {
        while let Some(record) = records.recv().await {
            let Record { number, line, end, content: Ok(content) } = record else { continue };
            let Some(outcome) = self.store(number, line, &content).await else { continue };
            if self.settled.send(Settled { number, end, outcome }).await.is_err() {
                break;
            }
        }
    }

    /// None if it was told to stop before anything came of it.
    async fn store(&self, number: u64, line: u64, content: &Content) -> Option<Outcome> {
        let mut pause = FIRST_PAUSE;
        for attempt in 1..=ATTEMPTS {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            match self.attempt(content).await {
                Ok(outcome) => return Some(outcome),
                Err(error) if attempt < ATTEMPTS && may_pass(&error) => {
                    tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.5))).await;
                    pause *= 2;
                }
                Err(error) => return Some(self.failed(number, line, content, error)),
            }
        }
        None
    }

    async fn attempt(&self, content: &Content) -> Result<Outcome, ClientError> {
        let Content { key, value } = content;
        let mut context = None;
        if self.replace {
            let read = self.bucket.get(key.clone()).timeout(self.timeout).await?;
            if matches!(read.siblings(), [only] if only.value == *value) {
                return Ok(Outcome::Unchanged);
            }
            context = read.context();
        }
        let request = request_id(self.bucket.name().as_str(), key, value, context.as_ref());
        let put = self.bucket.put(key.clone(), value.clone()).request(request).context(context);
        let stored: Stored = put.w(self.w).pw(self.pw).timeout(self.timeout).await?;
        Ok(match stored.was_repeated() {
            true => Outcome::Repeated,
            false => Outcome::Stored { bytes: value.len() as u64, siblings: stored.siblings() },
        })
    }

    fn failed(&self, number: u64, line: u64, content: &Content, error: ClientError) -> Outcome {
        let cause = Failure::from_client(error, Intent::Write(None), &self.names);
        let kind = serde_json::to_value(cause.kind).ok().and_then(|kind| kind.as_str().map(str::to_owned));
        let failure = RecordFailure {
            record: number,
            line,
            key: Some(Blob(content.key.clone())),
            kind: kind.unwrap_or_default(),
            message: cause.message.clone(),
        };
        Outcome::Failed(failure, Some(cause))
    }
}

/// Whether the same attempt may succeed a little later.
fn may_pass(error: &ClientError) -> bool {
    match error {
        ClientError::Unavailable { .. }
        | ClientError::DeadlinePassed { .. }
        | ClientError::ReadQuorumNotMet { .. }
        | ClientError::WriteQuorumNotMet { .. } => true,
        ClientError::Invalid(_) | ClientError::Incomplete(_) | ClientError::Internal { .. } => false,
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
