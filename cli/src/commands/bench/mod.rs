//! `starling bench`: how many operations a second, and how long each takes.
//!
//! Each client works on keys of its own, one operation at a time, and keeps the context of each key: a put replaces the put
//! before it, as an application's would, instead of piling up siblings. Before the clock starts, every key is read, and
//! written if the workload reads and it is not there (`worker.rs`). A live line is drawn meanwhile, and a table at the end.

mod measure;
mod worker;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use starling_client::MAX_PAYLOAD_BYTES;
use starling_core::name::{BucketName, MAX_KEY_BYTES};
use starling_core::quorum::Level;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use crate::args::Global;
use crate::commands::bench::measure::Measure;
use crate::commands::bench::worker::Worker;
use crate::failure::{FAILED, Failure};
use crate::output::Out;
use crate::output::units::{age, count, latency};
use crate::report::bench::BenchReport;
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  starling bench
  starling bench --workload put --clients 64 --w all --duration 30s
  starling bench --workload get --keys 100000 --value-size 4KiB --r one
  starling bench -o json | jq '.operations[] | {operation, per_second}'

It writes keys to the bucket `bench` (or --bucket) and leaves them there.";

/// A value larger than this does not fit a request beside its key.
const MOST_VALUE_BYTES: u64 = (MAX_PAYLOAD_BYTES - MAX_KEY_BYTES) as u64;
/// How often the live line is drawn.
const REDRAW_EVERY: Duration = Duration::from_millis(250);

/// Measure a cluster's rate and latencies
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct BenchArgs {
    /// Only writes, only reads, or as many of both
    #[arg(long, value_enum, default_value_t, value_name = "WORKLOAD")]
    workload: Workload,
    /// How many work at once, each one operation at a time
    #[arg(long, value_name = "C", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=4096))]
    clients: u16,
    /// Over how many keys
    #[arg(long, value_name = "K", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    keys: u32,
    /// Bytes of each value, such as 100 or 4KiB
    #[arg(long, value_name = "B", default_value = "100")]
    value_size: ByteSize,
    /// Replicas that have to answer a get: a number, one, quorum, all or default
    #[arg(long, value_name = "LEVEL", default_value_t, hide_default_value = true)]
    r: Level,
    /// How many of them have to be primaries
    #[arg(long, value_name = "LEVEL", default_value_t, hide_default_value = true)]
    pr: Level,
    /// Replicas that have to make a put durable
    #[arg(long, value_name = "LEVEL", default_value_t, hide_default_value = true)]
    w: Level,
    /// How many of them have to be primaries
    #[arg(long, value_name = "LEVEL", default_value_t, hide_default_value = true)]
    pw: Level,
    /// For how long
    #[arg(long, value_name = "D", default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Where the keys are
    #[arg(long, value_name = "BUCKET", default_value = "bench")]
    bucket: BucketName,
    /// Each operation, retries included, ends within this
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Workload {
    Put,
    Get,
    // As many reads as writes.
    #[default]
    Mixed,
}

impl Workload {
    pub fn gets(self) -> bool {
        matches!(self, Workload::Get | Workload::Mixed)
    }

    pub fn puts(self) -> bool {
        matches!(self, Workload::Put | Workload::Mixed)
    }

    fn name(self) -> &'static str {
        match self {
            Workload::Put => "put",
            Workload::Get => "get",
            Workload::Mixed => "mixed",
        }
    }
}

pub async fn run(args: BenchArgs, global: &Global, out: &Out) -> Result<ExitCode, Failure> {
    check(&args)?;
    let session = Session::open(global, args.timeout).await?;
    session.check_read(&args.bucket, args.r, args.pr)?;
    session.check_write(&args.bucket, args.w, args.pw)?;
    let line = live_line(out);
    let workers = prepare(&args, &session, &line).await?;
    let measured = work(&args, workers, &line).await?;
    line.finish_and_clear();
    let report = measured.report(&args);
    out.print(&report)?;
    let useless = report.operations.iter().all(|operation| operation.count == 0);
    Ok(if useless { FAILED.into() } else { ExitCode::SUCCESS })
}

fn check(args: &BenchArgs) -> Result<(), Failure> {
    if args.duration.is_zero() {
        return Err(Failure::usage("--duration is zero").hint("give it a second at least: --duration 1s"));
    }
    if u32::from(args.clients) > args.keys {
        return Err(Failure::usage(format!("{} clients need as many keys; there are {}", args.clients, args.keys)));
    }
    let (asked, most) = (args.value_size.as_u64(), MOST_VALUE_BYTES);
    if asked > most {
        return Err(Failure::usage(format!(
            "--value-size {asked} is more than a request carries: at most {most} bytes"
        )));
    }
    Ok(())
}

/// Gives every client its keys, and the contexts that their first puts need.
async fn prepare(args: &BenchArgs, session: &Session, line: &ProgressBar) -> Result<Vec<Worker>, Failure> {
    let (clients, keys) = (u32::from(args.clients), args.keys);
    let mut preparing = JoinSet::new();
    for client in 0..clients {
        // Spread as evenly as whole numbers allow.
        let bounds = [client, client + 1].map(|edge| u64::from(edge) * u64::from(keys) / u64::from(clients));
        let worker = Worker::new(args, session.bucket(&args.bucket)?, bounds[0]..bounds[1], &session.names);
        let line = line.clone();
        preparing.spawn(worker.prepare(move || line.inc(1)));
    }
    line.set_length(u64::from(keys));
    let (mut workers, mut redraw) = (Vec::new(), tokio::time::interval(REDRAW_EVERY));
    loop {
        tokio::select! {
            prepared = preparing.join_next() => match prepared {
                None => return Ok(workers),
                Some(prepared) => workers.push(prepared.map_err(|_| Failure::failed("a client has panicked"))??),
            },
            _ = redraw.tick() => line.set_message(format!("reading {} of {} keys", count(line.position()), count(keys.into()))),
        }
    }
}

/// What was measured, for how long, and whether that was cut short.
struct Measured {
    measure: Arc<Measure>,
    elapsed: Duration,
    interrupted: bool,
}

async fn work(args: &BenchArgs, workers: Vec<Worker>, line: &ProgressBar) -> Result<Measured, Failure> {
    let (measure, stop) = (Arc::new(Measure::new()), Arc::new(AtomicBool::new(false)));
    let started = Instant::now();
    let mut working = JoinSet::new();
    for worker in workers {
        working.spawn(worker.work(Arc::clone(&measure), Arc::clone(&stop), started + args.duration));
    }
    let mut redraw = tokio::time::interval(REDRAW_EVERY);
    let mut interrupts = signal(SignalKind::interrupt()).map_err(|error| Failure::io("listen for ctrl-C", &error))?;
    let mut interrupted = false;
    loop {
        tokio::select! {
            ended = working.join_next() => match ended {
                None => return Ok(Measured { measure, elapsed: started.elapsed(), interrupted }),
                Some(ended) => ended.map_err(|_| Failure::failed("a client has panicked"))?,
            },
            _ = redraw.tick() => line.set_message(live_text(&measure, started.elapsed(), args.duration)),
            _ = interrupts.recv() => {
                interrupted = true;
                stop.store(true, Ordering::Relaxed);
            }
        }
    }
}

fn live_line(out: &Out) -> ProgressBar {
    let target = if out.is_watched() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let line = ProgressBar::with_draw_target(None, target);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
        line.set_style(style);
    }
    line
}

fn live_text(measure: &Measure, elapsed: Duration, whole: Duration) -> String {
    let live = measure.live();
    let rate = live.operations as f64 / elapsed.as_secs_f64().max(0.1);
    format!(
        "{} of {}  {} ops/s  {} errors  p50 {}  p99 {}",
        age(elapsed.min(whole)),
        age(whole),
        count(rate as u64),
        count(live.errors),
        latency(live.p50),
        latency(live.p99)
    )
}

impl Measured {
    fn report(&self, args: &BenchArgs) -> BenchReport {
        BenchReport {
            bucket: args.bucket.to_string(),
            workload: args.workload.name(),
            clients: args.clients.into(),
            keys: args.keys as usize,
            value_size_bytes: args.value_size.as_u64(),
            r: args.r.to_string(),
            pr: args.pr.to_string(),
            w: args.w.to_string(),
            pw: args.pw.to_string(),
            elapsed_ms: u64::try_from(self.elapsed.as_millis()).unwrap_or(u64::MAX),
            interrupted: self.interrupted,
            operations: self.measure.operations(args.workload, self.elapsed),
            errors: self.measure.errors(),
        }
    }
}
