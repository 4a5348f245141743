//! `starling import`: a file of records into a bucket, in parallel, resumable.
//!
//! A thread reads records (`source.rs`) and deals them to lanes by their key, so that two records of one key are written in
//! the order of the file. Each lane writes one record at a time (`lane.rs`). What has come of each record arrives here, is
//! counted, and moves the mark in the state file (`state.rs`) behind which an interrupted import goes on.
//!
//! A record's request id is the hash of bucket, key and value (`lane.rs`): the same record is the same write, however often
//! it is sent. So records between the mark and the interruption, which are sent again, make no siblings.

mod lane;
mod progress;
mod source;
mod state;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use starling_core::name::BucketName;
use starling_core::quorum::Level;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::args::{Global, Timeout};
use crate::commands::import::lane::{Lane, Settled, deal};
use crate::commands::import::progress::Progress;
use crate::commands::import::source::Source;
use crate::commands::import::state::{Options, StateFile};
use crate::failure::{FAILED, Failure};
use crate::output::Out;
use crate::report::import::ImportReport;
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  starling import packages packages.jsonl --key Package
  starling import people people.csv --key email --replace
  starling import packages packages.jsonl --w all --concurrency 64

Each line of a jsonl file is a JSON object and becomes the value as it stands; each row of a csv file, under a \
header, becomes a JSON object of strings. The key is the text or number in the field --key.

A record whose key exists is added beside what is there, as a sibling, unless --replace says to read first and to \
overwrite what was read. A record that was imported before is recognised, and changes nothing (as long as it was \
not followed by 8 more writes that replaced something under its key).

An interrupted import goes on when the same command is given again. How far it came stands in a small file in \
~/.cache/starling/import. It refuses to go on if the input has changed; --restart begins anew.";

/// How often the state file is written.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// More failed records than this end the import: something is wrong with all of them.
const MOST_FAILED: u64 = 1000;
/// Records waiting in each lane.
const LANE_QUEUE: usize = 2;

/// Load a file of records into a bucket
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ImportArgs {
    /// The bucket's name
    bucket: BucketName,
    /// The records
    file: PathBuf,
    /// How records are written down [default: by the file's name]
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<RecordFormat>,
    /// The field whose content becomes the key
    #[arg(long, value_name = "FIELD", default_value = "key")]
    key: String,
    /// Read each key first, and overwrite what was read; leave it if it is the same
    #[arg(long)]
    replace: bool,
    /// Forget how far an earlier import of this file came
    #[arg(long)]
    restart: bool,
    /// Records that are written at once
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,
    /// Replicas that have to make a record durable: a number, one, quorum, all or default
    #[arg(long, value_name = "LEVEL", default_value_t, hide_default_value = true)]
    w: Level,
    /// How many of them have to be primaries
    #[arg(long, value_name = "LEVEL", default_value_t, hide_default_value = true)]
    pw: Level,
    #[command(flatten)]
    timeout: Timeout,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RecordFormat {
    // A JSON object a line.
    Jsonl,
    // Comma-separated values under a header.
    Csv,
}

pub async fn run(args: ImportArgs, global: &Global, out: &Out) -> Result<ExitCode, Failure> {
    let format = format_of(&args)?;
    let mut source = Source::open(&args.file, format, &args.key)?;
    source.check_first()?;
    let session = Session::open(global, args.timeout.timeout).await?;
    session.check_write(&args.bucket, args.w, args.pw)?;
    let options = Options {
        cluster: session.layout().cluster().to_string(),
        bucket: args.bucket.to_string(),
        format: if format == RecordFormat::Csv { "csv" } else { "jsonl" }.to_owned(),
        key: args.key.clone(),
        replace: args.replace,
    };
    let state = StateFile::open(&args.file, options, args.restart)?;
    if state.mark.done > 0 {
        out.note(format!("going on after record {} of an earlier import", state.mark.done));
    }
    let mut import = Import::new(&args, state, out);
    let halted = import.work(&args, source, &session).await?;
    let report = import.finish()?;
    out.print(&report)?;
    match halted {
        Some(failure) => Err(failure),
        None if report.complete && report.failed == 0 => Ok(ExitCode::SUCCESS),
        None => Ok(FAILED.into()),
    }
}

fn format_of(args: &ImportArgs) -> Result<RecordFormat, Failure> {
    let extension = args.file.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match (args.format, extension.to_ascii_lowercase().as_str()) {
        (Some(format), _) => Ok(format),
        (None, "csv") => Ok(RecordFormat::Csv),
        (None, "jsonl" | "ndjson" | "json") => Ok(RecordFormat::Jsonl),
        (None, _) => {
            Err(Failure::usage("the file's name does not tell its format").hint("say --format jsonl or --format csv"))
        }
    }
}

/// An import under way.
struct Import {
    state: StateFile,
    progress: Progress,
    report: ImportReport,
    started: Instant,
}

impl Import {
    fn new(args: &ImportArgs, state: StateFile, out: &Out) -> Import {
        let report = ImportReport {
            bucket: args.bucket.to_string(),
            file: args.file.display().to_string(),
            skipped: state.mark.done.saturating_sub(state.mark.failed.len() as u64),
            ..ImportReport::default()
        };
        let progress = Progress::new(state.size(), out.is_watched());
        Import { state, progress, report, started: Instant::now() }
    }

    /// Until all records are settled, or the import is interrupted, or it makes no sense to go on: then why.
    async fn work(&mut self, args: &ImportArgs, source: Source, session: &Session) -> Result<Option<Failure>, Failure> {
        let stop = Arc::new(AtomicBool::new(false));
        let (settled, mut results) = mpsc::channel::<Settled>(usize::from(args.concurrency));
        let (mut lanes, mut running) = (Vec::new(), tokio::task::JoinSet::new());
        for _ in 0..args.concurrency {
            let (sender, records) = mpsc::channel(LANE_QUEUE);
            lanes.push(sender);
            let lane = Lane::new(args, session, settled.clone(), Arc::clone(&stop))?;
            running.spawn(lane.run(records));
        }
        let (mark, reader_stop) = (self.state.mark.clone(), Arc::clone(&stop));
        let reader = tokio::task::spawn_blocking(move || deal(source, &mark, &lanes, &settled, &reader_stop));
        let halted = self.collect(&mut results, &stop).await?;
        let read = reader.await.map_err(|_| Failure::failed("the thread that reads the file has panicked"))?;
        match (halted, read) {
            (Some(failure), _) | (None, Err(failure)) => Ok(Some(failure)),
            (None, Ok(())) => {
                self.report.complete = !stop.load(Ordering::Relaxed);
                Ok(None)
            }
        }
    }

    /// Counts what comes of each record. Ends when nobody is left to send anything.
    async fn collect(
        &mut self,
        results: &mut mpsc::Receiver<Settled>,
        stop: &AtomicBool,
    ) -> Result<Option<Failure>, Failure> {
        let mut halted = None;
        let mut saving = tokio::time::interval(SAVE_EVERY);
        let mut interrupts =
            signal(SignalKind::interrupt()).map_err(|error| Failure::io("listen for ctrl-C", &error))?;
        loop {
            tokio::select! {
                settled = results.recv() => match settled {
                    None => return Ok(halted),
                    Some(settled) => halted = halted.or(self.settle(settled, stop)),
                },
                _ = saving.tick() => self.state.save()?,
                _ = interrupts.recv() => {
                    // The first lets what is under way end; the second does not wait for that.
                    if stop.swap(true, Ordering::Relaxed) {
                        self.state.save()?;
                        return Err(Failure::failed("interrupted").hint("the same command goes on from here"));
                    }
                }
            }
        }
    }

    /// Takes a result in. Says why the import should end, if it should.
    fn settle(&mut self, settled: Settled, stop: &AtomicBool) -> Option<Failure> {
        self.report.records += 1;
        self.state.settle(settled.number, settled.is_worth_repeating());
        let end = settled.end;
        let fatal = settled.count(&mut self.report);
        self.progress.show(end, &self.report, self.started.elapsed());
        let halted = fatal.or_else(|| {
            (self.report.failed > MOST_FAILED)
                .then(|| Failure::failed(format!("more than {MOST_FAILED} records failed: the import was stopped")))
        });
        if halted.is_some() {
            stop.store(true, Ordering::Relaxed);
        }
        halted
    }

    fn finish(self) -> Result<ImportReport, Failure> {
        let Import { mut state, progress, mut report, started } = self;
        progress.clear();
        let elapsed = started.elapsed();
        report.elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        report.per_second = (report.records as f64 / elapsed.as_secs_f64().max(1e-3)) as u64;
        report.again = !state.mark.failed.is_empty();
        let ended = if report.complete && !report.again { state.remove() } else { state.save() };
        ended?;
        Ok(report)
    }
}
