//! Watching a change of the ring: what each node moves, for whom it waits, and when it is over.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use clap::Args;
use futures::future::join_all;
use starling_client::{ClientError, ControlClient};
use starling_core::ids::NodeId;
use starling_core::layout::LayoutVersion;
use starling_proto::control::{FillingUp, NodeStatus, PeerView, Transfers, Transition};

use crate::args::Global;
use crate::failure::{Failure, Kind};
use crate::names::Names;
use crate::output::Out;
use crate::report::transfers::TransfersReport;
use crate::session::{STATUS_LIMIT, any_control, roster};

const EXAMPLES: &str = "\
Examples:
  starling cluster transfers
  starling cluster transfers --watch       until everything is where it belongs
  starling cluster transfers -o json | jq '.nodes[] | {node, left_ms, stalled}'";

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// A change is given up watching after so many looks without an answer.
const MOST_SILENCE: u32 = 30;

/// Show what moves because the ring changes, how fast, and what it waits for
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct TransfersArgs {
    /// Look again every second, until nothing moves any more
    #[arg(long, short)]
    watch: bool,
}

#[derive(Debug, Args)]
pub struct WaitArgs {
    /// Wait until the change is over: all copies made, the old layout gone, and who leaves holding nothing
    #[arg(long)]
    wait: bool,
    /// Longest that --wait waits
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

impl WaitArgs {
    pub fn limit(&self) -> Option<Duration> {
        self.wait.then_some(self.timeout)
    }
}

/// What a node says of itself and of what it moves.
pub struct Moving {
    pub status: NodeStatus,
    pub transfers: Transfers,
    pub filling: FillingUp,
}

/// A node, and what it says if it answers.
pub type Said = (PeerView, Option<Moving>);

pub async fn run(args: TransfersArgs, global: &Global, out: &Out) -> Result<(), Failure> {
    let mut last: Option<TransfersReport> = None;
    let mut silence = 0;
    loop {
        match look(global).await {
            Ok(report) => {
                silence = 0;
                let is_over = report.is_over();
                match &last {
                    Some(before) if args.watch && io::stdout().is_terminal() && !out.is_json() => {
                        out.redraw(before, &report)?;
                    }
                    _ => out.print(&report)?,
                }
                if is_over || !args.watch {
                    return Ok(());
                }
                last = Some(report);
            }
            Err(failure) => {
                silence += 1;
                if !args.watch || silence > MOST_SILENCE {
                    return Err(failure);
                }
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn look(global: &Global) -> Result<TransfersReport, Failure> {
    let (control, view) = any_control(global, STATUS_LIMIT).await?;
    let peers = roster(&control, &view).await;
    let report = survey(&peers, &Names::of_view(&view)).await;
    report.ok_or_else(|| Failure::new(Kind::NoCluster, format!("{} belongs to no cluster yet", view.seen_by)))
}

/// Asks all how far they are, and one that knows most how the change stands; none if nobody knows of any ring.
async fn survey(peers: &[PeerView], names: &Names) -> Option<TransfersReport> {
    let said = join_all(peers.iter().cloned().map(ask)).await;
    let epoch_of = |said: &Said| said.1.as_ref().and_then(|said| said.transfers.epoch);
    let newest = said.iter().filter_map(epoch_of).max()?;
    for (peer, _) in said.iter().filter(|said| epoch_of(said) == Some(newest)) {
        let asked = async { ControlClient::connect(&peer.address).await?.transition(2 * STATUS_LIMIT).await };
        if let Ok(transition) = asked.await as Result<Transition, ClientError> {
            return Some(TransfersReport::new(&transition, &said, names));
        }
    }
    None
}

/// Asks a node how it is and what it moves.
pub async fn ask(peer: PeerView) -> Said {
    let asked = async {
        let control = ControlClient::connect(&peer.address).await?;
        let (status, transfers) = futures::try_join!(control.status(STATUS_LIMIT), control.transfers(STATUS_LIMIT))?;
        // Earlier builds do not know the question, and are never filling.
        let filling = control.filling(STATUS_LIMIT).await.unwrap_or_default();
        Ok::<_, ClientError>((status, transfers, filling))
    };
    let said = asked.await.ok().filter(|(status, ..)| status.node == peer.node);
    (peer, said.map(|(status, transfers, filling)| Moving { status, transfers, filling }))
}

/// Waits until a layout is the only one that is left, and those who leave by it have said that they hold nothing any more.
///
/// # Errors
/// After `limit`: for whom it waits.
pub async fn wait_settled(
    peers: &[PeerView],
    leavers: &BTreeSet<NodeId>,
    version: LayoutVersion,
    limit: Duration,
    out: &Out,
) -> Result<(), Failure> {
    let deadline = Instant::now() + limit;
    let bar = out.spinner();
    loop {
        let waits = waits_for(peers, leavers, version).await;
        let Some(waits) = waits else {
            bar.finish_and_clear();
            return Ok(());
        };
        bar.set_message(waits.clone());
        bar.tick();
        if Instant::now() >= deadline {
            bar.finish_and_clear();
            let limit = humantime::format_duration(limit);
            let message =
                format!("layout {version} is chosen, and goes on by itself; after {limit} it is not over: {waits}");
            return Err(Failure::new(Kind::Incomplete, message)
                .hint("`starling cluster transfers --watch` shows what it waits for"));
        }
        tokio::time::sleep(EVERY.min(deadline.saturating_duration_since(Instant::now()))).await;
    }
}

/// What is left of a change, in a few words; none if it is over.
async fn waits_for(peers: &[PeerView], leavers: &BTreeSet<NodeId>, version: LayoutVersion) -> Option<String> {
    let names = Names::of_peers(peers);
    let Some(report) = survey(peers, &names).await else { return Some("no node answers".to_owned()) };
    let leavers: Vec<String> = leavers.iter().map(|node| names.node(*node)).collect();
    report.left_to_do(version.0, &leavers)
}
