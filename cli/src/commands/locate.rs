//! `starling locate`.

use std::process::ExitCode;

use clap::Args;

use crate::args::{Global, KeyArgs, Timeout};
use crate::failure::{Failure, Intent};
use crate::output::Out;
use crate::report::locate::LocateReport;
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  starling locate carts alice
  starling locate carts alice -o json | jq '.replicas[] | {node, clock}'

A clock is written as node/birth:counter, a word for each history of writes; `behind` marks a copy that has not \
seen what another one has.";

/// Show where a key lives: its partition, its replicas, who is up, and who holds which clock
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct LocateArgs {
    #[command(flatten)]
    place: KeyArgs,
    #[command(flatten)]
    timeout: Timeout,
}

pub async fn run(args: LocateArgs, global: &Global, out: &Out) -> Result<ExitCode, Failure> {
    let place = args.place.object()?;
    let session = Session::open(global, args.timeout.timeout).await?;
    let location = session.client().locate(place.bucket().as_str(), place.key().clone()).await;
    let location = location.map_err(|error| session.failure(error, Intent::Read))?;
    out.print(&LocateReport::new(&place, &location, &session.layout(), &session.names))?;
    Ok(ExitCode::SUCCESS)
}
