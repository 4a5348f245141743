//! `starling keys`.

use std::process::ExitCode;

use bytes::Bytes;
use clap::Args;
use clap::builder::RangedU64ValueParser;
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
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    limit: Option<usize>,
    #[command(flatten)]
    timeout: Timeout,
}

pub async fn run(args: KeysArgs, global: &Global, out: &Out) -> Result<ExitCode, Failure> {
    let session = Session::open(global, args.timeout.timeout).await?;
    let mut all = KeysReport { bucket: args.bucket.to_string(), keys: Vec::new(), next: args.after.clone().map(Blob) };
    let mut left = args.limit.unwrap_or(usize::MAX);
    loop {
        let after = all.next.take().map(|Blob(key)| key);
        let page = fetch(&session, &args, after, left).await?;
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
        Some(next) if !out.is_json() => out.note(how_to_go_on(next)),
        Some(_) | None => {}
    }
    if out.is_json() {
        out.print(&all)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// To be pasted into a shell. With `=`, since a key may begin with a dash.
fn how_to_go_on(next: &Blob) -> String {
    let word = next.shell_word();
    match (next.0.contains(&0), word.starts_with('$')) {
        (true, _) => format!("more follow {word}, a key with a zero byte, which no shell can pass on: raise --limit"),
        (false, true) => format!("more follow: --after={word} (as bash and zsh read it)"),
        (false, false) => format!("more follow: --after={word}"),
    }
}

async fn fetch(session: &Session, args: &KeysArgs, after: Option<Bytes>, left: usize) -> Result<KeysPage, Failure> {
    let mut request = session.bucket(&args.bucket)?.keys().limit(left.min(MAX_PAGE));
    if let Some(prefix) = &args.prefix {
        request = request.prefix(prefix.clone());
    }
    if let Some(after) = after {
        request = request.after(after);
    }
    request.await.map_err(|error| session.failure(error, Intent::Read))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_to_the_next_page_can_be_pasted_into_a_shell() {
        let hint = |key: &'static [u8]| how_to_go_on(&Blob(Bytes::from_static(key)));
        assert_eq!(hint(b"alice"), "more follow: --after=alice");
        assert_eq!(hint(b"-it's"), r"more follow: --after='-it'\''s'");
        assert_eq!(hint(b"\xff"), r"more follow: --after=$'\xff' (as bash and zsh read it)");
        assert!(hint(b"a\x00").ends_with("raise --limit"));
    }
}
