//! `starling delete`.

use std::process::ExitCode;

use clap::Args;
use starling_client::Context;
use starling_core::quorum::Level;

use crate::args::{Global, KeyArgs, WriteArgs};
use crate::failure::{Failure, Intent};
use crate::output::Out;
use crate::report::write::WriteReport;
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  starling delete carts alice              what a read finds now
  starling delete carts alice --context AQIDBA
  starling delete carts alice --w all --explain";

/// Delete a key: what the context has seen, or else what a read finds now
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DeleteArgs {
    #[command(flatten)]
    place: KeyArgs,
    /// Delete what the read saw that printed this context
    #[arg(long)]
    context: Option<Context>,
    /// Without --context: replicas that have to answer the read that comes first
    #[arg(long, value_name = "LEVEL", default_value_t, hide_default_value = true, conflicts_with = "context")]
    r: Level,
    #[command(flatten)]
    write: WriteArgs,
}

pub async fn run(args: DeleteArgs, global: &Global, out: &Out) -> Result<ExitCode, Failure> {
    let place = args.place.object()?;
    let session = Session::open(global, args.write.timeout.timeout).await?;
    session.check_write(place.bucket(), args.write.w, args.write.pw)?;
    session.check_read(place.bucket(), args.r, Level::Default)?;
    let bucket = session.bucket(place.bucket())?;
    let delete = bucket.delete(place.key().clone()).context(args.context).r(args.r);
    let mut delete = delete.w(args.write.w).pw(args.write.pw);
    if let Some(request) = args.write.request {
        delete = delete.request(request);
    }
    let request = delete.request_id();
    let stored = delete.await.map_err(|error| session.failure(error, Intent::Write(Some(request))))?;
    let mut report = WriteReport::new("delete", &place, &stored);
    if args.write.explain {
        report = report.with_explain(&stored, &session.names);
    }
    out.print(&report)?;
    Ok(ExitCode::SUCCESS)
}
