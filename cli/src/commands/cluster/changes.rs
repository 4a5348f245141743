//! Staging changes of the ring, showing what they come to, and having that chosen.
//!
//! What is staged is kept by the node that was asked, and by no other. So a command that finds nothing staged there looks
//! at the others, and says where something is.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use clap::Args;
use futures::future::join_all;
use starling_client::{ClientError, ControlClient};
use starling_core::change::Change;
use starling_core::ids::NodeId;
use starling_core::layout::LayoutChecksum;
use starling_core::name::{InvalidName, NodeName, Zone};
use starling_core::quorum::ReplicaCount;
use starling_proto::control::{ClusterView, Committed, PeerView, Plan};

use crate::args::Global;
use crate::commands::cluster::init::{parse_replicas, parse_weight};
use crate::commands::cluster::transfers::{WaitArgs, ask, wait_settled};
use crate::failure::{Failure, Intent, Kind};
use crate::names::Names;
use crate::output::Out;
use crate::report::cluster::millis;
use crate::report::plan::{CommitReport, PlanReport, UnstageReport};
use crate::session::{STATUS_LIMIT, any_control, roster};

/// Nodes that shall join are asked whether they can.
pub const PLAN_LIMIT: Duration = Duration::from_secs(10);
/// A little longer than a node takes to give up.
pub const COMMIT_LIMIT: Duration = Duration::from_secs(15);

const JOIN_EXAMPLES: &str = "\
Examples:
  starling cluster join n4 n5
  starling cluster join n6 --weight 2
  starling cluster commit --wait

A node that shall join runs already, with a member among its seeds: `starling cluster status` shows it as new.";

const COMMIT_EXAMPLES: &str = "\
Examples:
  starling cluster commit
  starling cluster commit --wait           until every copy is where it belongs
  starling cluster commit --plan 3f0c…     only if this is what is staged

One plan is chosen, once, by a majority of the members. If another came first, this one stays staged.";

/// Stage that nodes become members
#[derive(Debug, Args)]
#[command(after_help = JOIN_EXAMPLES)]
pub struct JoinArgs {
    /// Names of nodes that run and are no members
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<NodeName>,
    /// Their share of the data relative to the others'
    #[arg(long, value_name = "WEIGHT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    weight: u32,
}

#[derive(Debug, Args)]
pub struct Members {
    /// Names of members
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<NodeName>,
}

#[derive(Debug, Args)]
pub struct ReplaceArgs {
    /// A member
    old: NodeName,
    /// A node that runs and is no member
    new: NodeName,
}

#[derive(Debug, Args)]
pub struct WeightArgs {
    /// A member's share of the data relative to the others'
    #[arg(required = true, value_name = "NODE=WEIGHT", value_parser = parse_weight)]
    weights: Vec<(NodeName, u32)>,
}

#[derive(Debug, Args)]
pub struct ZoneArgs {
    /// A member's failure domain
    #[arg(required = true, value_name = "NODE=ZONE", value_parser = parse_zone)]
    zones: Vec<(NodeName, Zone)>,
}

#[derive(Debug, Args)]
pub struct ReplicasArgs {
    /// Copies of each object, 1 to 7
    #[arg(value_name = "N", value_parser = parse_replicas)]
    replicas: ReplicaCount,
}

/// Have the staged changes chosen as the next layout
#[derive(Debug, Args)]
#[command(after_help = COMMIT_EXAMPLES)]
pub struct CommitArgs {
    /// Only if what is staged still comes to this plan, as `plan` shows it
    #[arg(long, value_name = "PLAN", value_parser = parse_checksum)]
    plan: Option<LayoutChecksum>,
    /// Do not ask, even on a terminal
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

impl JoinArgs {
    pub fn changes(self) -> Vec<Change> {
        self.nodes.into_iter().map(|name| Change::Join { name, weight: self.weight }).collect()
    }
}

impl Members {
    pub fn leave(self) -> Vec<Change> {
        self.nodes.into_iter().map(Change::Leave).collect()
    }

    pub fn remove(self) -> Vec<Change> {
        self.nodes.into_iter().map(Change::Remove).collect()
    }
}

impl WeightArgs {
    pub fn changes(self) -> Vec<Change> {
        self.weights.into_iter().map(|(name, weight)| Change::Weigh { name, weight }).collect()
    }
}

impl ZoneArgs {
    pub fn changes(self) -> Vec<Change> {
        self.zones.into_iter().map(|(name, zone)| Change::Rezone { name, zone }).collect()
    }
}

impl ReplicasArgs {
    pub fn changes(self) -> Vec<Change> {
        vec![Change::Replicas(self.replicas)]
    }
}

/// The node that is asked, and what it sees.
pub struct Desk {
    pub control: ControlClient,
    pub view: ClusterView,
    pub peers: Vec<PeerView>,
}

impl Desk {
    pub async fn open(global: &Global) -> Result<Desk, Failure> {
        let (mut control, mut view) = any_control(global, STATUS_LIMIT).await?;
        let members = view.layout.iter().flat_map(|layout| layout.members());
        if global.nodes.is_empty() && members.clone().all(|member| member.name != view.seen_by) {
            // One that has left, or has not joined yet, changes nothing.
            let addresses: Vec<String> = members.map(|member| member.address.clone()).collect();
            if let Ok(member) = ControlClient::connect_any(addresses, STATUS_LIMIT).await {
                (control, view) = member;
            }
        }
        let peers = roster(&control, &view).await;
        Ok(Desk { control, view, peers })
    }

    pub fn failure(&self, error: ClientError) -> Failure {
        Failure::from_client(error, Intent::Write(None), &Names::of_view(&self.view))
    }

    pub async fn report(&self, plan: &Plan) -> PlanReport {
        let said = join_all(self.peers.iter().cloned().map(ask)).await;
        PlanReport::new(self.view.seen_by.to_string(), plan, &said)
    }

    /// # Errors
    /// Nothing is staged there; where else something is.
    async fn plan(&self) -> Result<Plan, Failure> {
        let impossible = |error| {
            let failure = self.failure(error);
            match failure.kind {
                Kind::Refused => failure.hint(format!(
                    "your changes are still staged on {}; `starling cluster unstage` forgets them",
                    self.view.seen_by
                )),
                _ => failure,
            }
        };
        match self.control.plan(PLAN_LIMIT).await.map_err(impossible)? {
            Some(plan) => Ok(plan),
            None => Err(self.nothing_staged().await),
        }
    }

    async fn nothing_staged(&self) -> Failure {
        let failure = Failure::new(Kind::Refused, format!("nothing is staged on {}", self.view.seen_by));
        let others = self.peers.iter().filter(|peer| peer.name != self.view.seen_by);
        let found: Vec<Option<&PeerView>> = join_all(others.map(with_something_staged)).await;
        match found.into_iter().flatten().next() {
            Some(peer) => {
                failure.hint(format!("something is staged on {0}: repeat it with --node {1}", peer.name, peer.address))
            }
            None => failure.hint("stage something first: join, leave, remove, replace, weight, zone, replicas"),
        }
    }
}

/// Stages changes through a node.
pub async fn stage(control: &ControlClient, changes: Vec<Change>) -> Result<Plan, ClientError> {
    control.stage(changes, PLAN_LIMIT).await
}

/// Puts a plan forward.
pub async fn commit(control: &ControlClient, plan: &Plan) -> Result<Committed, ClientError> {
    control.commit(plan.after.checksum(), COMMIT_LIMIT).await
}

/// Stages changes, and shows what all that is staged comes to.
pub async fn show(changes: Vec<Change>, global: &Global, out: &Out) -> Result<(), Failure> {
    stage_at(&Desk::open(global).await?, changes, out).await
}

pub async fn replace(args: ReplaceArgs, global: &Global, out: &Out) -> Result<(), Failure> {
    let desk = Desk::open(global).await?;
    let ReplaceArgs { old, new } = args;
    let member = desk.view.layout.as_ref().and_then(|layout| layout.member_named(&old));
    let member = member.ok_or_else(|| Failure::usage(format!("no member is named `{old}`")))?;
    let lives = desk.peers.iter().any(|peer| peer.node == member.node && peer.alive);
    let goes = if lives { Change::Leave(old) } else { Change::Remove(old) };
    stage_at(&desk, vec![Change::Join { name: new, weight: member.weight }, goes], out).await
}

async fn stage_at(desk: &Desk, changes: Vec<Change>, out: &Out) -> Result<(), Failure> {
    let plan = stage(&desk.control, changes).await.map_err(|error| {
        let failure = desk.failure(error);
        match failure.kind {
            Kind::Refused => failure.hint(
                "nothing was staged: see `starling cluster status` for members and new nodes, `starling cluster \
                 transfers` for a change that is under way",
            ),
            _ => failure,
        }
    })?;
    out.print(&desk.report(&plan).await)
}

pub async fn plan(global: &Global, out: &Out) -> Result<(), Failure> {
    let desk = Desk::open(global).await?;
    let plan = desk.plan().await?;
    out.print(&desk.report(&plan).await)
}

pub async fn unstage(global: &Global, out: &Out) -> Result<(), Failure> {
    let desk = Desk::open(global).await?;
    let forgotten = desk.control.unstage(STATUS_LIMIT).await.map_err(|error| desk.failure(error))?;
    if forgotten.is_empty() {
        return Err(desk.nothing_staged().await);
    }
    let unstaged = forgotten.iter().map(ToString::to_string).collect();
    out.print(&UnstageReport { staged_on: desk.view.seen_by.to_string(), unstaged })
}

pub async fn run_commit(args: CommitArgs, global: &Global, out: &Out) -> Result<(), Failure> {
    let desk = Desk::open(global).await?;
    let plan = desk.plan().await?;
    if args.plan.is_some_and(|wanted| wanted != plan.after.checksum()) {
        let message = format!("what is staged comes to another plan, {}", plan.after.checksum());
        return Err(Failure::new(Kind::Refused, message).hint("`starling cluster plan` shows it"));
    }
    if args.plan.is_none() && !args.yes && io::stdin().is_terminal() && !out.is_json() {
        out.print(&desk.report(&plan).await)?;
        out.confirm("\nCommit this?", "nothing was committed; the changes are still staged")?;
    }
    let begun = Instant::now();
    let staged_on = desk.view.seen_by.to_string();
    let version = match commit(&desk.control, &plan).await.map_err(|error| not_chosen(desk.failure(error)))? {
        Committed::Chosen(version) => version,
        Committed::Other { epoch } => return Err(overtaken(&staged_on, epoch.0)),
    };
    if let Some(limit) = args.wait.limit() {
        let stays = |node: NodeId| plan.after.member(node).is_some() || plan.dead.contains(&node);
        let before = plan.before.members().iter().map(|member| member.node);
        let leavers = before.filter(|node| !stays(*node)).collect();
        wait_settled(&desk.peers, &leavers, version, limit, out).await?;
    }
    let changes = plan.changes.iter().map(ToString::to_string).collect();
    let (settled, took_ms) = (args.wait.limit().is_some(), millis(begun.elapsed()));
    out.print(&CommitReport { version: version.0, changes, settled, took_ms })
}

fn overtaken(staged_on: &str, epoch: u64) -> Failure {
    let message = format!(
        "another change of the ring was chosen first (entry {epoch} of the log); your changes are still staged on \
         {staged_on}"
    );
    Failure::new(Kind::Refused, message)
        .hint("`starling cluster history` shows what was chosen, `starling cluster plan` what your changes come to now")
}

/// What waits for a majority may still be chosen, by whoever proposes next.
fn not_chosen(failure: Failure) -> Failure {
    match failure.kind {
        Kind::Incomplete => failure.hint(
            "data is served as before; the same command goes on where this one ended, and until then the plan may \
             still be chosen. Where so many are gone for good, see `starling cluster force-remove --help`",
        ),
        _ => failure,
    }
}

async fn with_something_staged(peer: &PeerView) -> Option<&PeerView> {
    let control = ControlClient::connect(&peer.address).await.ok()?;
    match control.plan(STATUS_LIMIT).await {
        Ok(None) => None,
        // What is staged and not possible any more is staged all the same.
        Ok(Some(_)) | Err(ClientError::Invalid(_)) => peer.alive.then_some(peer),
        Err(_) => None,
    }
}

fn parse_zone(text: &str) -> Result<(NodeName, Zone), String> {
    let (name, zone) = text.split_once('=').ok_or("expected NODE=ZONE, such as n1=rack-7")?;
    let told = |error: InvalidName| error.to_string();
    Ok((name.parse().map_err(told)?, zone.parse().map_err(told)?))
}

fn parse_checksum(text: &str) -> Result<LayoutChecksum, String> {
    match u64::from_str_radix(text, 16) {
        Ok(checksum) if text.len() == 16 => Ok(LayoutChecksum(checksum)),
        _ => Err("expected the 16 hexadecimal digits that `plan` shows".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_and_plans_are_read_as_they_are_shown() {
        let (name, zone) = parse_zone("n1=rack-7").unwrap();
        assert_eq!((name.as_str(), zone.as_str()), ("n1", "rack-7"));
        assert!(parse_zone("n1").is_err() && parse_zone("n1=").is_err());
        let checksum = LayoutChecksum(0x1f);
        assert_eq!(parse_checksum(&checksum.to_string()), Ok(checksum));
        assert!(parse_checksum("1f").is_err());
    }

    #[test]
    fn whoever_is_overtaken_learns_that_nothing_is_lost() {
        let failure = overtaken("n2", 4);
        assert_eq!((failure.kind, failure.kind.code()), (Kind::Refused, 1));
        assert!(failure.message.contains("still staged on n2"), "{}", failure.message);
    }
}
