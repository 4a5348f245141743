//! `starling repair`: replicas compare now, instead of by and by.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use futures::future::join_all;
use starling_client::{ClientError, ControlClient};
use starling_core::name::BucketName;
use starling_core::token::Partition;
use starling_proto::control::{ClusterView, PeerView, RepairScope, Repairing};

use crate::args::Global;
use crate::failure::{FAILED, Failure, Kind};
use crate::names::Names;
use crate::output::Out;
use crate::report::node::SilentShape;
use crate::report::repair::{RepairReport, RepairShape};
use crate::session::{STATUS_LIMIT, any_control, roster};

const EXAMPLES: &str = "\
Examples:
  starling repair                          everything, while you go on
  starling repair carts --wait             one bucket, until it is done
  starling repair --partition 17 --wait

Replicas compare all the time by themselves; this only lets them do it now. What differs is merged on both sides.";

/// Between two looks.
const EVERY: Duration = Duration::from_millis(200);

/// Have all replicas compare now, and make equal what differs
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RepairArgs {
    /// Only this bucket
    bucket: Option<BucketName>,
    /// Only this partition of the ring: `locate` shows a key's
    #[arg(long, value_name = "P")]
    partition: Option<u16>,
    /// Wait until it is done
    #[arg(long)]
    wait: bool,
    /// Longest that --wait waits
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// A node that compares, and under which number.
struct Begun {
    name: String,
    control: ControlClient,
    number: u64,
}

pub async fn run(args: RepairArgs, global: &Global, out: &Out) -> Result<ExitCode, Failure> {
    let deadline = Instant::now() + args.timeout;
    let (control, view) = any_control(global, STATUS_LIMIT).await?;
    let members = roster(&control, &view).await;
    let is_member = |peer: &&PeerView| view.layout.as_ref().is_some_and(|layout| layout.member(peer.node).is_some());
    let names = Names::of_view(&view);
    check(&view, args.partition)?;
    let scope = RepairScope { bucket: args.bucket, partition: args.partition.map(Partition) };
    let asked: Vec<&PeerView> = members.iter().filter(is_member).collect();
    let (mut begun, mut silent) = (Vec::new(), Vec::new());
    for (peer, answer) in asked.iter().zip(join_all(asked.iter().map(|peer| begin(peer, scope.clone()))).await) {
        match answer {
            Ok(node) => begun.push(node),
            Err(error) => silent.push(SilentShape { node: peer.name.to_string(), reason: error.to_string() }),
        }
    }
    if let ([], Some(first)) = (begun.as_slice(), silent.first()) {
        let message = format!("no member compares; {}: {}", first.node, first.reason);
        return Err(Failure::new(Kind::Unreachable, message).hint("`starling cluster status` shows who is up"));
    }
    let bar = out.spinner();
    let report = loop {
        let report = RepairReport::new(look(&begun, &names).await, silent.clone());
        if !args.wait || report.over {
            break report;
        }
        bar.set_message(report.progress());
        bar.tick();
        if Instant::now() >= deadline {
            bar.finish_and_clear();
            return Err(Failure::new(Kind::Incomplete, format!("not done yet, and going on: {}", report.progress())));
        }
        tokio::time::sleep(EVERY).await;
    };
    bar.finish_and_clear();
    out.print(&report)?;
    Ok(if args.wait && !report.complete { FAILED.into() } else { ExitCode::SUCCESS })
}

/// What can be known to be wrong before anybody is asked.
fn check(view: &ClusterView, partition: Option<u16>) -> Result<(), Failure> {
    let Some(layout) = &view.layout else {
        let message = format!("{} belongs to no cluster yet", view.seen_by);
        return Err(Failure::new(Kind::NoCluster, message).hint("`starling cluster init` makes one"));
    };
    let count = layout.partitions().get();
    match partition {
        Some(partition) if u32::from(partition) >= count => {
            Err(Failure::usage(format!("there is no partition {partition}: they are numbered from 0 to {}", count - 1)))
        }
        _ => Ok(()),
    }
}

async fn begin(peer: &PeerView, scope: RepairScope) -> Result<Begun, ClientError> {
    let control = ControlClient::connect(&peer.address).await?;
    let number = control.repair(scope, STATUS_LIMIT).await?;
    Ok(Begun { name: peer.name.to_string(), control, number })
}

async fn look(begun: &[Begun], names: &Names) -> Vec<RepairShape> {
    let answers = join_all(begun.iter().map(|node| node.control.repairing(node.number, STATUS_LIMIT))).await;
    let told = |answer: Result<Option<Repairing>, ClientError>| match answer {
        Ok(Some(repairing)) => Ok(repairing),
        Ok(None) => Err("it was restarted meanwhile, or has begun many repairs since".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    let shape = |(node, answer): (&Begun, _)| RepairShape::new(node.name.clone(), told(answer), names);
    begun.iter().zip(answers).map(shape).collect()
}
