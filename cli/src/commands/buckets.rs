//! `starling buckets`.

use std::process::ExitCode;

use clap::Args;

use crate::args::{Global, Timeout};
use crate::failure::{Failure, Intent};
use crate::output::Out;
use crate::report::listing::BucketsReport;
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  starling buckets
  starling buckets -o json | jq -r '.buckets[]'";

/// List the buckets that hold keys, or held some that were deleted
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct BucketsArgs {
    #[command(flatten)]
    timeout: Timeout,
}

pub async fn run(args: BucketsArgs, global: &Global, out: &Out) -> Result<ExitCode, Failure> {
    let session = Session::open(global, args.timeout.timeout).await?;
    let buckets = session.client().buckets().await.map_err(|error| session.failure(error, Intent::Read))?;
    out.print(&BucketsReport { buckets: buckets.iter().map(ToString::to_string).collect() })?;
    Ok(ExitCode::SUCCESS)
}
