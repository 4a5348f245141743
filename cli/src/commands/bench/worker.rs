//! One client of a benchmark.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use starling_client::{Bucket, ClientError, Context, Get};
use starling_core::quorum::Level;

use crate::commands::bench::measure::{Measure, Operation};
use crate::commands::bench::{BenchArgs, Workload};
use crate::failure::{Failure, Intent};
use crate::names::Names;

/// A key is read this often before the benchmark gives up.
const PREPARATIONS: usize = 3;

pub struct Worker {
    bucket: Bucket,
    names: Names,
    workload: Workload,
    first: u64,
    /// What the next put of each key brings.
    contexts: Vec<Known>,
    value_size: usize,
    r: Level,
    pr: Level,
    w: Level,
    pw: Level,
    timeout: Duration,
}

/// What is known of a key.
#[derive(Clone)]
enum Known {
    Context(Option<Context>),
    /// Its last put failed, or met another: it has to be read.
    Nothing,
}

impl Worker {
    pub fn new(args: &BenchArgs, bucket: Bucket, keys: Range<u64>, names: &Names) -> Worker {
        Worker {
            bucket,
            names: names.clone(),
            workload: args.workload,
            first: keys.start,
            contexts: keys.map(|_| Known::Nothing).collect(),
            value_size: usize::try_from(args.value_size.as_u64()).unwrap_or(usize::MAX),
            r: args.r,
            pr: args.pr,
            w: args.w,
            pw: args.pw,
            timeout: args.timeout,
        }
    }

    /// Learns every key's context, and writes what a get has to find.
    pub async fn prepare(mut self, done: impl Fn() + Send) -> Result<Worker, Failure> {
        for index in 0..self.contexts.len() {
            let mut tried = self.prepare_key(index).await;
            for _ in 1..PREPARATIONS {
                if tried.is_err() {
                    tried = self.prepare_key(index).await;
                }
            }
            tried.map_err(|error| self.failure(error, Operation::Get))?;
            done();
        }
        Ok(self)
    }

    async fn prepare_key(&mut self, index: usize) -> Result<(), ClientError> {
        let found = self.learn(index).await?;
        if !found && self.workload.gets() {
            self.put(index).await?;
        }
        Ok(())
    }

    /// Works until the end or until told to stop. The operation under way is finished.
    pub async fn work(mut self, measure: Arc<Measure>, stop: Arc<AtomicBool>, end: Instant) {
        while !stop.load(Ordering::Relaxed) && Instant::now() < end {
            let index = rand::random_range(0..self.contexts.len());
            let operation = self.next_operation();
            if operation == Operation::Put && matches!(self.contexts[index], Known::Nothing) {
                // Not measured: it makes up for a failure that was.
                let _ = self.learn(index).await;
            }
            let began = Instant::now();
            let ended = match operation {
                Operation::Get => self.get(index).await,
                Operation::Put => self.put(index).await,
            };
            match ended {
                Ok(()) => measure.succeeded(operation, began.elapsed()),
                Err(error) => measure.failed(operation, self.failure(error, operation)),
            }
        }
    }

    fn next_operation(&self) -> Operation {
        match self.workload {
            Workload::Get => Operation::Get,
            Workload::Put => Operation::Put,
            Workload::Mixed if rand::random() => Operation::Get,
            Workload::Mixed => Operation::Put,
        }
    }

    async fn learn(&mut self, index: usize) -> Result<bool, ClientError> {
        let read = self.read(index).await?;
        self.contexts[index] = Known::Context(read.context());
        Ok(read.is_found())
    }

    async fn get(&self, index: usize) -> Result<(), ClientError> {
        self.read(index).await.map(drop)
    }

    fn read(&self, index: usize) -> Get {
        self.bucket.get(self.key(index)).r(self.r).pr(self.pr).timeout(self.timeout)
    }

    async fn put(&mut self, index: usize) -> Result<(), ClientError> {
        let context = match std::mem::replace(&mut self.contexts[index], Known::Nothing) {
            Known::Context(context) => context,
            Known::Nothing => None,
        };
        let put = self.bucket.put(self.key(index), self.value()).context(context);
        let stored = put.w(self.w).pw(self.pw).timeout(self.timeout).await?;
        if let Some(context) = stored.context() {
            self.contexts[index] = Known::Context(Some(context));
        }
        Ok(())
    }

    fn key(&self, index: usize) -> Bytes {
        format!("key-{:08}", self.first + index as u64).into()
    }

    /// Random, so that nothing is gained by compressing it.
    fn value(&self) -> Bytes {
        let mut value = vec![0; self.value_size];
        rand::fill(value.as_mut_slice());
        value.into()
    }

    fn failure(&self, error: ClientError, operation: Operation) -> Failure {
        let intent = match operation {
            Operation::Get => Intent::Read,
            Operation::Put => Intent::Write(None),
        };
        Failure::from_client(error, intent, &self.names)
    }
}
