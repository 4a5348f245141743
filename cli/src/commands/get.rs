//! `starling get`.

use std::process::ExitCode;

use clap::Args;
use starling_client::Fetched;
use starling_core::name::ObjectKey;
use starling_core::quorum::Level;

use crate::args::{Global, KeyArgs, Timeout};
use crate::failure::{Failure, Intent, NOT_FOUND};
use crate::output::Out;
use crate::output::units::plural;
use crate::report::get::{GetReport, single};
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  starling get carts alice                 all siblings, and the context
  starling get carts alice --r all --explain
  starling get images logo --raw > logo.png
  starling get carts alice --replica n2    what n2 itself holds
  starling get carts alice -o json | jq -r .context";

/// Read a key: every sibling, and the context that the next write should bring
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct GetArgs {
    #[command(flatten)]
    pub place: KeyArgs,
    /// Replicas that have to answer: a number, one, quorum, all or default
    #[arg(long, value_name = "LEVEL", default_value_t, hide_default_value = true)]
    r: Level,
    /// How many of them have to be primaries
    #[arg(long, value_name = "LEVEL", default_value_t, hide_default_value = true)]
    pr: Level,
    #[command(flatten)]
    timeout: Timeout,
    /// Answer only once the quorum holds what is printed: no later read goes back behind it
    #[arg(long)]
    wait_repair: bool,
    /// Print the bytes of the value and nothing else; fails if there are several siblings
    #[arg(long, conflicts_with = "explain")]
    raw: bool,
    /// Print what each replica answered
    #[arg(long)]
    explain: bool,
    /// Print what this member (a name, or host:port) holds itself
    #[arg(long, value_name = "NODE", conflicts_with_all = ["r", "pr", "wait_repair", "explain"])]
    replica: Option<String>,
}

pub async fn run(args: GetArgs, global: &Global, out: &Out) -> Result<ExitCode, Failure> {
    let place = args.place.object()?;
    let session = Session::open(global, args.timeout.timeout).await?;
    let fetched = fetch(&args, &place, &session).await?;
    let mut report = GetReport::new(&place, &fetched, args.replica.clone());
    if args.explain {
        report = report.with_explain(&fetched, &session.names);
    }
    if !report.found && (!out.is_json() && !args.explain) {
        out.note(report.absence());
    } else if args.raw && !out.is_json() {
        out.raw(only_value(&fetched)?)?;
    } else {
        out.print(&report)?;
    }
    Ok(if report.found { ExitCode::SUCCESS } else { NOT_FOUND.into() })
}

async fn fetch(args: &GetArgs, place: &ObjectKey, session: &Session) -> Result<Fetched, Failure> {
    let fetched = match &args.replica {
        Some(node) => {
            session.check_member(node)?;
            session.client().get_replica(node, place.bucket().as_str(), place.key().clone()).await
        }
        None => {
            session.check_read(place.bucket(), args.r, args.pr)?;
            let bucket = session.bucket(place.bucket())?;
            bucket.get(place.key().clone()).r(args.r).pr(args.pr).wait_for_repair(args.wait_repair).await
        }
    };
    fetched.map_err(|error| session.failure(error, Intent::Read))
}

fn only_value(fetched: &Fetched) -> Result<&[u8], Failure> {
    single(fetched).map(AsRef::as_ref).map_err(|several| {
        let siblings = plural(several as u64, "sibling");
        Failure::failed(format!("the key has {siblings}, and --raw prints a single value"))
            .hint("look at them without --raw, and replace them by one with `starling put --resolve`")
    })
}
