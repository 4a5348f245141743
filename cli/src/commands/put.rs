//! `starling put`.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::{ArgGroup, Args};
use starling_client::{Context, MAX_PAYLOAD_BYTES};
use starling_core::name::ObjectKey;
use starling_core::quorum::Level;

use crate::args::{Global, KeyArgs, WriteArgs, bytes_parser};
use crate::failure::{Failure, Intent};
use crate::output::Out;
use crate::output::units::size;
use crate::report::write::WriteReport;
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  starling put carts alice '3 apples'
  starling put images logo --file logo.png
  date | starling put log last -           the value is standard input
  starling put carts alice '4 apples' --resolve
  starling put carts alice '4 apples' --context AQIDBA
  starling put sessions alice 'logged in' --ttl 30m

Without --context or --resolve the value is added beside what is there, as a sibling.";

/// Write a value
#[derive(Debug, Args)]
#[command(
    after_help = EXAMPLES,
    // The generated one puts the group before the words it follows.
    override_usage = "starling put [OPTIONS] <BUCKET> <KEY> <VALUE|-|--file FILE>",
    group = ArgGroup::new("what").required(true),
)]
pub struct PutArgs {
    #[command(flatten)]
    place: KeyArgs,
    /// The value; `-` reads it from standard input
    #[arg(group = "what", value_parser = bytes_parser(), allow_negative_numbers = true)]
    value: Option<Bytes>,
    /// Read the value from a file
    #[arg(long, value_name = "FILE", group = "what")]
    file: Option<PathBuf>,
    /// Overwrite what the read saw that printed this context
    #[arg(long)]
    context: Option<Context>,
    /// Read first, and overwrite all that was read
    #[arg(long, conflicts_with = "context")]
    resolve: bool,
    /// The value expires after so long, e.g. 30m or 7days: it is shown no more, and forgotten in the end; `never` where
    /// values of its bucket are set to expire, and this one is to stay
    #[arg(long, value_name = "DURATION", value_parser = parse_ttl)]
    ttl: Option<Ttl>,
    /// Of --resolve: replicas that have to answer the read
    #[arg(long, value_name = "LEVEL", default_value_t, hide_default_value = true, requires = "resolve")]
    r: Level,
    #[command(flatten)]
    write: WriteArgs,
}

#[derive(Debug, Clone, Copy)]
enum Ttl {
    Never,
    After(Duration),
}

fn parse_ttl(text: &str) -> Result<Ttl, humantime::DurationError> {
    if text == "never" { Ok(Ttl::Never) } else { humantime::parse_duration(text).map(Ttl::After) }
}

pub async fn run(args: PutArgs, global: &Global, out: &Out) -> Result<ExitCode, Failure> {
    let place = args.place.object()?;
    let value = read_value(&args)?;
    let session = Session::open(global, args.write.timeout.timeout).await?;
    session.check_write(place.bucket(), args.write.w, args.write.pw)?;
    let context = if args.resolve { read_context(&args, &place, &session).await? } else { args.context };
    let bucket = session.bucket(place.bucket())?;
    let mut put = bucket.put(place.key().clone(), value).context(context).w(args.write.w).pw(args.write.pw);
    if let Some(request) = args.write.request {
        put = put.request(request);
    }
    put = match args.ttl {
        None => put,
        Some(Ttl::Never) => put.for_good(),
        Some(Ttl::After(ttl)) => put.ttl(ttl),
    };
    let request = put.request_id();
    let stored = put.await.map_err(|error| session.failure(error, Intent::Write(Some(request))))?;
    let mut report = WriteReport::new("put", &place, &stored);
    if args.write.explain {
        report = report.with_explain(&stored, &session.names);
    }
    out.print(&report)?;
    Ok(ExitCode::SUCCESS)
}

async fn read_context(args: &PutArgs, place: &ObjectKey, session: &Session) -> Result<Option<Context>, Failure> {
    session.check_read(place.bucket(), args.r, Level::Default)?;
    let read = session.bucket(place.bucket())?.get(place.key().clone()).r(args.r).await;
    let fetched = read.map_err(|error| session.failure(error, Intent::Read))?;
    Ok(fetched.context())
}

fn read_value(args: &PutArgs) -> Result<Bytes, Failure> {
    match (&args.value, &args.file) {
        (_, Some(path)) => read_file(path),
        (Some(dash), None) if dash.as_ref() == b"-" => bounded(io::stdin().lock(), "standard input"),
        (Some(value), None) => Ok(value.clone()),
        (None, None) => Err(Failure::usage("no value: give one, or --file FILE, or `-` for standard input")),
    }
}

fn read_file(path: &Path) -> Result<Bytes, Failure> {
    let name = path.display().to_string();
    let file = File::open(path).map_err(|error| Failure::io(format_args!("read {name}"), &error))?;
    bounded(file, &name)
}

fn bounded(source: impl Read, name: &str) -> Result<Bytes, Failure> {
    let mut value = Vec::new();
    let limit = MAX_PAYLOAD_BYTES as u64;
    source.take(limit + 1).read_to_end(&mut value).map_err(|error| Failure::io(format_args!("read {name}"), &error))?;
    if value.len() > MAX_PAYLOAD_BYTES {
        return Err(Failure::failed(format!("{name} holds more than {}, the most that fits a message", size(limit))));
    }
    Ok(value.into())
}
