//! `starling keys`.

use std::process::ExitCode;

use bytes::Bytes;
use clap::Args;
use starling_client::Bucket;
use starling_core::name::BucketName;
use starling_proto::data::{KeysPage, MAX_PAGE};

use crate::args::{Global, Timeout, bytes_parser};
use crate::failure::{Failure, Intent};
use crate::output::Out;
use crate::output::bytes::Blob;
use crate::report::listing::KeysReport;
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  starling keys carts
  starling keys carts --prefix al --limit 10
  starling keys carts --after alice        only keys behind alice
  starling keys carts -o json | jq '.keys | length'";

/// List the keys of a bucket in ascending order
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct KeysArgs {
    /// The bucket's name
    bucket: BucketName,
    /// Only keys that start with this
    #[arg(long, value_parser = bytes_parser())]
    prefix: Option<Bytes>,
    /// Only keys behind this one
    #[arg(long, value_name = "KEY", value_parser = bytes_parser())]
    after: Option<Bytes>,
    /// At most this many [default: all]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    timeout: Timeout,
}

pub async fn run(args: KeysArgs, global: &Global, out: &Out) -> Result<ExitCode, Failure> {
    let session = Session::open(global, args.timeout.timeout).await?;
    let bucket = session.bucket(&args.bucket)?;
    let mut all = KeysReport { bucket: args.bucket.to_string(), keys: Vec::new(), next: args.after.clone().map(Blob) };
    let mut left = args.limit.unwrap_or(usize::MAX);
    loop {
        let after = all.next.take().map(|Blob(key)| key);
        let page = fetch(&bucket, &args, after, left).await.map_err(|error| session.failure(error, Intent::Read))?;
        left = left.saturating_sub(page.keys.len());
        all.next = page.next.map(Blob);
        all.keys.extend(page.keys.into_iter().map(Blob));
        // People, and `head`, need not wait for the last page; a JSON value has to be whole.
        if !out.is_json() {
            out.print(&all)?;
            all.keys.clear();
        }
        if all.next.is_none() || left == 0 {
            break;
        }
    }
    match &all.next {
        Some(next) if !out.is_json() => out.note(format!("more follow: --after {}", next.line())),
        Some(_) | None => {}
    }
    if out.is_json() {
        out.print(&all)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn fetch(
    bucket: &Bucket,
    args: &KeysArgs,
    after: Option<Bytes>,
    left: usize,
) -> Result<KeysPage, starling_client::ClientError> {
    let mut request = bucket.keys().limit(left.min(MAX_PAGE));
    if let Some(prefix) = &args.prefix {
        request = request.prefix(prefix.clone());
    }
    if let Some(after) = after {
        request = request.after(after);
    }
    request.await
}
