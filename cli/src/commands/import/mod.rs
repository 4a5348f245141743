//! `starling import`: a file of records into a bucket, in parallel, resumable.
//!
//! A thread reads records (`source.rs`) and deals them to lanes by their key, so that two records of one key are written in
//! the order of the file. Each lane writes one record at a time (`lane.rs`). What has come of each record arrives here, is
//! counted (`tally.rs`), and moves the mark in the ledger (`ledger.rs`), which the state file (`state.rs`) keeps: an
//! interrupted import goes on behind it.
//!
//! A record's request id is the hash of bucket, key and value (`lane.rs`): the same record is the same write, however often
//! it is sent. So records between the mark and the interruption, which are sent again, make no siblings.
//!
//! `--verify` goes the same way, but its lanes read and compare, and nothing is kept.

mod fingerprint;
mod lane;
mod ledger;
mod progress;
mod source;
mod state;
mod tally;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use starling_core::name::BucketName;
use starling_core::quorum::Level;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::args::Global;
use crate::commands::import::fingerprint::Fingerprint;
use crate::commands::import::lane::{Lane, Outcome, Settled, deal};
use crate::commands::import::ledger::{Ledger, MOST_FAILED};
use crate::commands::import::progress::{Position, Progress};
use crate::commands::import::source::Source;
use crate::commands::import::state::{Options, StateFile};
use crate::commands::import::tally::Tally;
use crate::failure::{Failure, Kind};
use crate::output::Out;
use crate::report::import::{ImportReport, RecordFailure, VerifyReport};
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  starling import packages packages.jsonl --key Package
  starling import people people.csv --key email --replace
  starling import packages packages.jsonl --w all --concurrency 64
  starling import packages packages.jsonl --key Package --verify

Each line of a jsonl file is a JSON object and becomes the value as it stands; each row of a csv file, under a \
header, becomes a JSON object of strings. The key is the text or number in the field --key.

A record whose key exists is added beside what is there, as a sibling, unless --replace says to read first and to \
overwrite what was read. A record that was imported before is recognised, and changes nothing (as long as it was \
not followed by 8 more writes that replaced something under its key).

An interrupted import goes on when the same command is given again. How far it came stands in a small file in \
~/.cache/starling/import. It refuses to go on if the input has changed; --restart begins anew.

With --verify nothing is written: every record is read back, and has to be the only value of its key.";

/// How often the state file is written.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// So many records without an answer, one after another, end a run that works on few at once. (On more: as many as those, so
/// that each of them was tried to the last, and none of the others had better luck meanwhile.)
const FEWEST_UNANSWERED: u64 = 5;
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
    /// Write nothing: read each record back, and compare
    #[arg(long, conflicts_with_all = ["replace", "restart", "w", "pw"])]
    verify: bool,
    /// Forget how far an earlier import of this file came
    #[arg(long)]
    restart: bool,
    /// Records that are worked on at once
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,
    /// Replicas that have to make a record durable: a number, one, quorum, all or default
    #[arg(long, value_name = "LEVEL", default_value_t, hide_default_value = true)]
    w: Level,
    /// How many of them have to be primaries
    #[arg(long, value_name = "LEVEL", default_value_t, hide_default_value = true)]
    pw: Level,
    /// Of --replace and --verify: replicas that have to answer a read
    #[arg(long, value_name = "LEVEL", default_value_t, hide_default_value = true)]
    r: Level,
    /// How many of them have to be primaries
    #[arg(long, value_name = "LEVEL", default_value_t, hide_default_value = true)]
    pr: Level,
    /// Each read and each write of a record, retries included, ends within this
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RecordFormat {
    // A JSON object a line.
    Jsonl,
    // Comma-separated values under a header.
    Csv,
}

pub async fn run(args: ImportArgs, global: &Global, out: &Out) -> Result<ExitCode, Failure> {
    check_reads_are_made(&args)?;
    check_is_file(&args.file)?;
    let format = format_of(&args)?;
    let input = Fingerprint::of(&args.file)?;
    let mut source = Source::open(&args.file, format, &args.key)?;
    source.check_first()?;
    let session = Session::open(global, args.timeout).await?;
    session.check_read(&args.bucket, args.r, args.pr)?;
    session.check_write(&args.bucket, args.w, args.pw)?;
    let mut import = Import::begin(&args, input, format, &session, out)?;
    let halted = import.work(&args, source, &session).await?;
    if args.verify {
        let report = import.verification(&args);
        out.print(&report)?;
        return import.tally.verdict(halted, report.complete, report.failed);
    }
    let report = import.finish(&args)?;
    out.print(&report)?;
    import.tally.verdict(halted, report.complete, report.failed)
}

fn check_reads_are_made(args: &ImportArgs) -> Result<(), Failure> {
    let asked = args.r != Level::Default || args.pr != Level::Default;
    if asked && !args.replace && !args.verify {
        return Err(Failure::usage("--r and --pr are for reads, and only --replace and --verify read"));
    }
    Ok(())
}

/// It is read several times over: to know it again, to look at its first record, and by each run that goes on.
fn check_is_file(path: &Path) -> Result<(), Failure> {
    let no_file = match fs::metadata(path) {
        Ok(metadata) => !metadata.is_file(),
        Err(_) => path == Path::new("-"),
    };
    if no_file {
        return Err(Failure::usage(format!("an import cannot read {}: it is no file", path.display()))
            .hint("it has to read its input more than once; save what comes from standard input or a pipe in a file"));
    }
    Ok(())
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

/// How far it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Early,
    /// All of the file was read, and each record settled.
    Complete,
    /// The file is another one by now: what was counted is of no use.
    Outdated,
}

/// An import, or a verification, under way.
struct Import {
    input: Fingerprint,
    /// None if nothing is to be kept.
    state: Option<StateFile>,
    ledger: Ledger,
    /// Records that earlier runs settled well.
    skipped: u64,
    tally: Tally,
    end: End,
    interrupted: bool,
    /// After so many records in a row without an answer, no other will get one.
    enough_unanswered: u64,
    progress: Progress,
    started: Instant,
}

impl Import {
    fn begin(
        args: &ImportArgs,
        input: Fingerprint,
        format: RecordFormat,
        session: &Session,
        out: &Out,
    ) -> Result<Import, Failure> {
        let (state, ledger) = match args.verify {
            true => (None, Ledger::default()),
            false => {
                let options = Options {
                    cluster: session.layout().cluster().to_string(),
                    bucket: args.bucket.to_string(),
                    format: if format == RecordFormat::Csv { "csv" } else { "jsonl" }.to_owned(),
                    key: args.key.clone(),
                    replace: args.replace,
                };
                let (state, mut ledger) = StateFile::open(input.clone(), options, args.restart)?;
                if args.replace {
                    ledger.rewind();
                }
                (Some(state), ledger)
            }
        };
        if ledger.done > 0 {
            out.note(format!("going on after record {} of an earlier import", ledger.done));
        }
        let progress = Progress::new(input.size, out.is_watched());
        let (skipped, tally, started) = (ledger.well(), Tally::default(), Instant::now());
        let enough_unanswered = u64::from(args.concurrency).max(FEWEST_UNANSWERED);
        Ok(Import {
            input,
            state,
            ledger,
            skipped,
            tally,
            end: End::Early,
            interrupted: false,
            enough_unanswered,
            progress,
            started,
        })
    }

    /// Until all records are settled, or it is interrupted, or it makes no sense to go on: then why.
    async fn work(&mut self, args: &ImportArgs, source: Source, session: &Session) -> Result<Option<Failure>, Failure> {
        let stop = Arc::new(AtomicBool::new(false));
        let (settled, mut results) = mpsc::channel::<Settled>(usize::from(args.concurrency));
        let (mut lanes, mut running) = (Vec::new(), JoinSet::new());
        for _ in 0..args.concurrency {
            let (sender, records) = mpsc::channel(LANE_QUEUE);
            lanes.push(sender);
            let lane = Lane::new(args, session, settled.clone(), Arc::clone(&stop))?;
            running.spawn(lane.run(records));
        }
        let (ledger, reader_stop) = (self.ledger.clone(), Arc::clone(&stop));
        let reader = tokio::task::spawn_blocking(move || deal(source, &ledger, &lanes, &settled, &reader_stop));
        let halted = self.collect(&mut results, &stop).await?;
        let read = reader.await.map_err(|_| Failure::failed("the thread that reads the file has panicked"))?;
        let ended = all_well(running).await;
        let unchanged = self.input.check_unchanged();
        self.end = match (&unchanged, &read) {
            (Err(_), _) => End::Outdated,
            // Counting is what shows that none was lost on the way.
            (Ok(()), Ok(Some(records))) if *records == self.ledger.done => End::Complete,
            (Ok(()), _) => End::Early,
        };
        // One that came too late to cut anything short is not worth a word.
        let interrupted = (self.interrupted && self.end == End::Early).then(|| self.interruption());
        Ok(halted.or(read.err()).or(ended.err()).or(unchanged.err()).or(interrupted))
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
                _ = saving.tick() => self.save()?,
                _ = interrupts.recv() => {
                    // The first lets what is under way end; the second does not wait for that.
                    self.interrupted = true;
                    if stop.swap(true, Ordering::Relaxed) {
                        self.save()?;
                        return Err(self.interruption());
                    }
                }
            }
        }
    }

    /// Takes a result in. Says why it should end, if it should: no other record will do better than one that no node could
    /// be reached for, or than all of the last.
    fn settle(&mut self, settled: Settled, stop: &AtomicBool) -> Option<Failure> {
        let Settled { number, end, outcome } = settled;
        self.tally.add(&outcome);
        let (failure, cause) = match outcome {
            Outcome::Failed(failure, cause) => (Some(failure), cause),
            _ => (None, None),
        };
        let is_new = failure.is_some() && !self.ledger.failures.contains_key(&number);
        self.ledger.settle(number, failure.filter(|_| !is_new || self.keeps_more()));
        self.progress.show(Position { record: number, end }, self.tally.records, self.failed(), self.started.elapsed());
        let halted = cause
            .and_then(|cause| self.hopeless(cause))
            .or_else(|| (is_new && self.failed() > MOST_FAILED as u64).then(too_many));
        if halted.is_some() {
            stop.store(true, Ordering::Relaxed);
        }
        halted
    }

    fn hopeless(&self, cause: Failure) -> Option<Failure> {
        let next = self.next();
        let unanswered = self.tally.unanswered;
        match cause.kind {
            Kind::Unreachable => Some(cause.hint(format!("start the nodes; then {next}"))),
            _ if unanswered < self.enough_unanswered => None,
            kind => {
                let message = format!("{unanswered} records in a row failed, the last of them: {}", cause.message);
                let look = "`starling cluster status` shows who is down";
                Some(Failure::new(kind, message).hint(format!("{look}; once they are up, {next}")))
            }
        }
    }

    /// A verification goes on over any number of differences, and keeps only so many. An import needs all of them to go on
    /// from, and ends.
    fn keeps_more(&self) -> bool {
        self.state.is_some() || self.ledger.failures.len() < MOST_FAILED
    }

    fn interruption(&self) -> Failure {
        Failure::failed("interrupted").hint(self.next())
    }

    fn next(&self) -> &'static str {
        match self.state {
            Some(_) => "the same command goes on from here",
            None => "the same command begins anew",
        }
    }

    fn failed(&self) -> u64 {
        match self.state {
            Some(_) => self.ledger.failures.len() as u64,
            None => self.tally.failed,
        }
    }

    fn save(&self) -> Result<(), Failure> {
        self.state.as_ref().map_or(Ok(()), |state| state.save(&self.ledger, self.end == End::Outdated))
    }

    fn failures(&self) -> Vec<RecordFailure> {
        self.ledger.failures.values().cloned().collect()
    }

    /// How long it took in milliseconds, and records a second.
    fn pace(&self) -> (u64, u64) {
        let elapsed = self.started.elapsed();
        let per_second = (self.tally.records as f64 / elapsed.as_secs_f64().max(1e-3)) as u64;
        (u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX), per_second)
    }

    fn finish(&self, args: &ImportArgs) -> Result<ImportReport, Failure> {
        self.progress.clear();
        let (elapsed_ms, per_second) = self.pace();
        let report = ImportReport {
            bucket: args.bucket.to_string(),
            file: args.file.display().to_string(),
            complete: self.end == End::Complete,
            records: self.tally.records,
            skipped: self.skipped,
            stored: self.tally.stored,
            repeated: self.tally.repeated,
            unchanged: self.tally.unchanged,
            with_siblings: self.tally.with_siblings,
            failed: self.failed(),
            carried: self.failed().saturating_sub(self.tally.failed),
            failures: self.failures(),
            bytes: self.tally.bytes,
            elapsed_ms,
            per_second,
            outdated: self.end == End::Outdated,
        };
        match &self.state {
            Some(state) if report.complete && !report.again() => state.remove()?,
            Some(_) | None => self.save()?,
        }
        Ok(report)
    }

    fn verification(&self, args: &ImportArgs) -> VerifyReport {
        self.progress.clear();
        let (elapsed_ms, per_second) = self.pace();
        VerifyReport {
            bucket: args.bucket.to_string(),
            file: args.file.display().to_string(),
            complete: self.end == End::Complete,
            records: self.tally.records,
            matching: self.tally.matching,
            different: self.tally.different,
            missing: self.tally.missing,
            failed: self.tally.failed,
            failures: self.failures(),
            elapsed_ms,
            per_second,
        }
    }
}

/// A lane that ended before its records did has left some of them behind.
async fn all_well(mut lanes: JoinSet<()>) -> Result<(), Failure> {
    while let Some(ended) = lanes.join_next().await {
        ended.map_err(|_| Failure::failed("a lane of the import has panicked").hint("this is a fault of starling"))?;
    }
    Ok(())
}

fn too_many() -> Failure {
    Failure::failed(format!("more than {MOST_FAILED} records failed: it was stopped"))
        .hint("they are listed above; a corrected file is imported with --restart")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_read_only_once_is_refused_and_what_is_not_there_is_left_to_the_reader() {
        for path in ["-", "/dev/null", "/"] {
            let refused = check_is_file(Path::new(path)).unwrap_err();
            assert_eq!(refused.kind, Kind::Usage, "{path}");
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records.csv");
        assert!(check_is_file(&path).is_ok(), "the error that tells why follows");
        fs::write(&path, "id\n").unwrap();
        assert!(check_is_file(&path).is_ok());
    }
}
