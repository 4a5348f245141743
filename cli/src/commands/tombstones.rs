//! `starling tombstones`: what is deleted or has expired, and is not forgotten yet, and what that waits for.

use clap::Args;
use futures::future::join_all;
use starling_client::{ClientError, ControlClient};
use starling_proto::control::{PeerView, Tombstones};

use crate::args::Global;
use crate::failure::{Failure, Kind};
use crate::names::Names;
use crate::output::Out;
use crate::report::node::SilentShape;
use crate::report::tombstones::TombstonesReport;
use crate::session::{STATUS_LIMIT, any_control, roster};

const EXAMPLES: &str = "\
Examples:
  starling tombstones
  starling tombstones -o json | jq '.rounds[] | {partition, waits_for}'

A deletion leaves a mark, a tombstone, so that no replica that missed it brings the value back. The mark goes once every
member has agreed that it may: a node that is down holds it up until it is back, or removed. Nothing has to be done.";

/// Show what is deleted or has expired and is not forgotten yet, and what that waits for
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct TombstonesArgs {}

pub async fn run(_: TombstonesArgs, global: &Global, out: &Out) -> Result<(), Failure> {
    let (control, view) = any_control(global, STATUS_LIMIT).await?;
    let Some(layout) = &view.layout else {
        let message = format!("{} belongs to no cluster yet", view.seen_by);
        return Err(Failure::new(Kind::NoCluster, message).hint("`starling cluster init` makes one"));
    };
    let peers = roster(&control, &view).await;
    let members: Vec<&PeerView> = peers.iter().filter(|peer| layout.member(peer.node).is_some()).collect();
    let (mut said, mut silent) = (Vec::new(), Vec::new());
    for (peer, answer) in members.iter().zip(join_all(members.iter().map(|peer| ask(peer))).await) {
        match answer {
            Ok(tombstones) => said.push((peer.name.to_string(), tombstones)),
            Err(error) => silent.push(SilentShape { node: peer.name.to_string(), reason: error.to_string() }),
        }
    }
    out.print(&TombstonesReport::new(&said, silent, &Names::of_view(&view)))
}

async fn ask(peer: &PeerView) -> Result<Tombstones, ClientError> {
    ControlClient::connect(&peer.address).await?.tombstones(STATUS_LIMIT).await
}
