//! `starling node`: what a node says of itself.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use futures::future::join_all;
use starling_client::{ClientError, ControlClient};
use starling_core::token::Partition;
use starling_proto::control::{NodeStatus, PeerView, VerifiedPage};

use crate::args::Global;
use crate::failure::{FAILED, Failure, Kind};
use crate::names::Names;
use crate::output::Out;
use crate::output::units::plural;
use crate::report::node::{HintsReport, InfoReport, SilentShape};
use crate::report::repair::{VerifiedShape, VerifyReport};
use crate::session::{STATUS_LIMIT, any_control, roster};

const EXAMPLES: &str = "\
Examples:
  starling node info n2
  starling node hints                      who keeps writes for whom
  starling node verify n2                  read all that it holds";

/// A page of a check takes about a second, and a partition longer only if it is large.
const PAGE_LIMIT: Duration = Duration::from_secs(120);

/// Look into single nodes
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct NodeArgs {
    #[command(subcommand)]
    command: NodeCommand,
}

#[derive(Debug, Subcommand)]
enum NodeCommand {
    /// Identity, state, resources and counters
    #[command(after_help = "Examples:\n  starling node info\n  starling node info n2\n  \
                            starling node info 127.0.0.1:7402 -o json | jq '.nodes[0].counters'")]
    Info(Which),
    /// Writes that nodes keep for others until those return
    #[command(after_help = "Examples:\n  starling node hints\n  starling node hints n2\n  \
                            starling node hints -o json | jq .total")]
    Hints(Which),
    /// Check what nodes hold against itself: every record, and the hash trees over them
    #[command(after_help = "Examples:\n  starling node verify\n  starling node verify n2\n  \
                            starling node verify -o json | jq '.nodes[].flaws'\n\n\
                            Reads all that a node holds. Exit code 1 if anything is not as it should be.")]
    Verify(Which),
}

#[derive(Debug, Args)]
struct Which {
    /// A name, or host:port [default: every node of the cluster]
    node: Option<String>,
}

pub async fn run(args: NodeArgs, global: &Global, out: &Out) -> Result<ExitCode, Failure> {
    match args.command {
        NodeCommand::Info(which) => {
            let (answers, silent, names) = ask(which.node.as_deref(), global).await?;
            out.print(&InfoReport::new(&answers, silent, &names))?;
        }
        NodeCommand::Hints(which) => {
            let (answers, silent, names) = ask(which.node.as_deref(), global).await?;
            out.print(&HintsReport::new(&answers, silent, &names))?;
        }
        NodeCommand::Verify(which) => {
            let report = verify(which.node.as_deref(), global, out).await?;
            out.print(&report)?;
            return Ok(if report.flawless { ExitCode::SUCCESS } else { FAILED.into() });
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Has one node or all of them read what they hold, all at once.
async fn verify(node: Option<&str>, global: &Global, out: &Out) -> Result<VerifyReport, Failure> {
    let (control, view) = any_control(global, STATUS_LIMIT).await?;
    let asked = addresses(node, &roster(&control, &view).await)?;
    let bar = out.spinner();
    bar.set_message(format!("{} …", plural(asked.len() as u64, "node")));
    bar.enable_steady_tick(Duration::from_millis(100));
    let pages = join_all(asked.iter().map(|(_, address)| verify_one(address))).await;
    bar.finish_and_clear();
    let (mut nodes, mut silent) = (Vec::new(), Vec::new());
    for ((node, _), verified) in asked.into_iter().zip(pages) {
        match verified {
            Ok(page) => nodes.push(VerifiedShape::new(node, &page)),
            Err(reason) => silent.push(SilentShape { node, reason }),
        }
    }
    require_some(nodes.len(), &silent)?;
    let flawless = silent.is_empty() && nodes.iter().all(|node| node.flaws.is_empty());
    Ok(VerifyReport { flawless, nodes, silent })
}

/// All pages of a node, as one.
async fn verify_one(address: &str) -> Result<VerifiedPage, String> {
    let told = |error: ClientError| error.to_string();
    let control = ControlClient::connect(address).await.map_err(told)?;
    let (mut all, mut from) = (VerifiedPage::default(), Some(Partition(0)));
    while let Some(next) = from {
        let page = control.verify(next, PAGE_LIMIT).await.map_err(told)?;
        all.partitions += page.partitions;
        all.records += page.records;
        all.bytes += page.bytes;
        all.flaws.extend(page.flaws);
        from = page.next.filter(|after| *after > next);
    }
    Ok(all)
}

/// Asks one node or all of them. Fails if nobody of those asked answers.
async fn ask(node: Option<&str>, global: &Global) -> Result<(Vec<NodeStatus>, Vec<SilentShape>, Names), Failure> {
    let (control, view) = any_control(global, STATUS_LIMIT).await?;
    let names = Names::of_view(&view);
    let asked = addresses(node, &roster(&control, &view).await)?;
    let statuses = join_all(asked.iter().map(|(_, address)| status_of(address))).await;
    let (mut answers, mut silent) = (Vec::new(), Vec::new());
    for ((node, _), status) in asked.into_iter().zip(statuses) {
        match status {
            Ok(status) => answers.push(status),
            Err(reason) => silent.push(SilentShape { node, reason }),
        }
    }
    require_some(answers.len(), &silent)?;
    Ok((answers, silent, names))
}

/// # Errors
/// The only node that was asked has not answered.
fn require_some(answers: usize, silent: &[SilentShape]) -> Result<(), Failure> {
    match silent {
        [SilentShape { node, reason }] if answers == 0 => {
            Err(Failure::new(Kind::Unreachable, format!("{node}: {reason}"))
                .hint("`starling cluster status` shows who is up"))
        }
        _ => Ok(()),
    }
}

/// Asks the node at this address how it is, on a connection of its own.
pub async fn status_of(address: &str) -> Result<NodeStatus, String> {
    let asked = async { ControlClient::connect(address).await?.status(STATUS_LIMIT).await };
    asked.await.map_err(|error| match error {
        ClientError::Unavailable { tried } | ClientError::DeadlinePassed { tried } => {
            tried.into_iter().map(|attempt| attempt.reason).collect::<Vec<_>>().join("; ")
        }
        other => other.to_string(),
    })
}

fn addresses(node: Option<&str>, peers: &[PeerView]) -> Result<Vec<(String, String)>, Failure> {
    let known = || peers.iter().map(|peer| (peer.name.to_string(), peer.address.clone()));
    match node {
        None => Ok(known().collect()),
        Some(address) if address.contains(':') => Ok(vec![(address.to_owned(), address.to_owned())]),
        Some(name) => known().find(|(known, _)| known == name).map(|found| vec![found]).ok_or_else(|| {
            let names: Vec<String> = known().map(|(name, _)| name).collect();
            Failure::usage(format!("no node is named `{name}`; there are {}", names.join(", ")))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::cluster::tests::peer;

    #[test]
    fn a_node_is_found_by_name_by_address_or_not_at_all() {
        let peers = [peer(1, true), peer(5, false)];
        assert_eq!(addresses(None, &peers).unwrap().len(), 2);
        let n5 = ("n5".to_owned(), "127.0.0.1:7405".to_owned());
        assert_eq!(addresses(Some("n5"), &peers).unwrap(), [n5]);
        assert_eq!(addresses(Some("h:1"), &peers).unwrap()[0].1, "h:1");
        let refused = addresses(Some("n9"), &peers).unwrap_err();
        assert_eq!(refused.message, "no node is named `n9`; there are n1, n5");
    }
}
