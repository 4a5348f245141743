//! `starling cluster force-remove`: going on without members that are gone for good, where a majority is.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal};
use std::time::Instant;

use clap::Args;
use starling_core::ids::{ClusterId, InvalidId};
use starling_core::name::NodeName;
use starling_proto::control::Force;

use crate::args::Global;
use crate::commands::cluster::changes::{COMMIT_LIMIT, Desk, PLAN_LIMIT};
use crate::commands::cluster::transfers::{WaitArgs, wait_settled};
use crate::failure::{Failure, Kind};
use crate::output::Out;
use crate::report::cluster::millis;
use crate::report::force::{ForcePlanReport, ForceReport};
use crate::session::STATUS_LIMIT;

const EXAMPLES: &str = "\
Examples:
  starling cluster force-remove n3 n4 n5        show what would be lost, ask
  starling cluster force-remove n3 n4 n5 --cluster 3f0c5a1b2e4d6f78 --wait

For when so many members are gone for good, disks and all, that nothing can be chosen without them. Those who are left go \
on as another cluster, with what they hold; what only the others held is lost. While one of them may still come back, \
wait: data is served all the same. If less than half are gone, `remove` does.";

/// Give members up that are gone for good, where a majority is: cannot be taken back
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ForceArgs {
    /// Names of all members that are gone for good
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<NodeName>,
    /// The cluster's id, as `status` shows it: do it, and do not ask
    #[arg(long, value_name = "CLUSTER")]
    cluster: Option<ClusterId>,
    #[command(flatten)]
    wait: WaitArgs,
}

pub async fn run(args: ForceArgs, global: &Global, out: &Out) -> Result<(), Failure> {
    let desk = Desk::open(global).await?;
    let dead: BTreeSet<NodeName> = args.nodes.into_iter().collect();
    let refused = |failure: Failure| match failure.kind {
        Kind::Refused => failure.hint("nothing was done; `starling cluster status` shows who is what"),
        _ => failure,
    };
    let plan = desk.control.force_plan(dead.clone(), PLAN_LIMIT).await;
    let plan = plan.map_err(|error| refused(desk.failure(error)))?;
    let status = desk.control.status(STATUS_LIMIT).await.map_err(|error| desk.failure(error))?;
    // While a layout is coming that goes by another id, the plan begins with the one that is read.
    let present = status.cluster.unwrap_or(plan.before.cluster());
    let cluster = match args.cluster {
        Some(cluster) => cluster,
        None => {
            out.print(&ForcePlanReport::new(present, &plan, desk.report(&plan).await))?;
            confirmed(present, &dead, out)?
        }
    };
    let begun = Instant::now();
    let forced = desk.control.force(Force { dead: dead.clone(), cluster }, COMMIT_LIMIT).await;
    let forced = forced.map_err(|error| half_done(desk.failure(error)))?;
    if let Some(limit) = args.wait.limit() {
        wait_settled(&desk.peers, &BTreeSet::new(), forced.version, limit, out).await?;
    }
    let (settled, took_ms) = (args.wait.limit().is_some(), millis(begun.elapsed()));
    out.print(&ForceReport::new(&forced, present, &dead, settled, took_ms))
}

/// The cluster's id as a person types it.
fn confirmed(cluster: ClusterId, dead: &BTreeSet<NodeName>, out: &Out) -> Result<ClusterId, Failure> {
    let names: Vec<&str> = dead.iter().map(NodeName::as_str).collect();
    if out.is_json() || !io::stdin().is_terminal() {
        let command = format!("`starling cluster force-remove {} --cluster {cluster}`", names.join(" "));
        return Err(Failure::new(Kind::Refused, "nothing was done: this cannot be taken back")
            .hint(format!("{command} does it")));
    }
    let typed = out.ask(&format!("\nThis cannot be taken back. Type the cluster's id, {cluster}, to do it:"))?;
    let typed: Result<ClusterId, InvalidId> = typed.parse();
    match typed {
        Ok(typed) if typed == cluster => Ok(cluster),
        _ => Err(Failure::failed("nothing was done")),
    }
}

/// Some may have agreed.
fn half_done(failure: Failure) -> Failure {
    match failure.kind {
        Kind::Refused => failure.hint("`starling cluster history` shows what was chosen"),
        Kind::Incomplete => failure.hint(
            "the same command goes on where this one ended; whoever has agreed takes part in no other change until then",
        ),
        _ => failure,
    }
}
