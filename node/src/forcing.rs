//! Going on without members that are gone for good, where so many are that nothing can be chosen any more (R15).
//!
//! It is for when there is no other way. What the members held that are given up is counted as lost, though it may be on
//! disks that turn up again; and should they be alive after all, somewhere out of reach, they go on as well, and there are
//! two clusters. So it is done only by name, with the cluster's id said, and only if everybody who is not named can be
//! reached and agrees: no vote of theirs may be left behind that somebody else could count.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use starling_core::change::{Change, ChangeError};
use starling_core::choice::Exclusion;
use starling_core::ids::{ClusterId, NodeId};
use starling_core::layout::Layout;
use starling_core::name::NodeName;
use starling_core::ring::{Decree, Ring};
use starling_proto::call_within;
use starling_proto::control::{ControlError, Force, Forced, NodeStanding, Plan};
use starling_proto::hello::{Features, Welcome};

use crate::node::Node;

const STATUS_LIMIT: Duration = Duration::from_secs(2);
const DECISION_LIMIT: Duration = Duration::from_secs(10);

/// What a node that answers says.
struct Said {
    by: NodeId,
    features: Features,
    standing: NodeStanding,
    /// Whom it takes for alive.
    sees: BTreeSet<NodeId>,
}

impl Node {
    /// What it would come to if those of the ring were given up who are named.
    pub async fn force_plan(&self, dead: &BTreeSet<NodeName>) -> Result<Plan, ControlError> {
        let ring = self.ring_or_none()?;
        // Of another id it is the same.
        let decree = self.decree_without(&ring, dead, ClusterId(rand::random())).await?;
        let (after, dead_nodes) = parts(decree)?;
        let changes = dead.iter().cloned().map(Change::Remove).collect();
        // What is read has its copies; what is coming may not.
        Ok(Plan { changes, before: ring.read().as_ref().clone(), after, dead: dead_nodes })
    }

    /// Gives them up.
    pub async fn force(self: Arc<Self>, request: Force) -> Result<Forced, ControlError> {
        let Force { dead, cluster } = request;
        let ring = self.ring_or_none()?;
        if cluster != ring.cluster() {
            return Err(ControlError::Invalid(format!("this is cluster {}, and not {cluster}", ring.cluster())));
        }
        let decree = self.decree_without(&ring, &dead, ClusterId(rand::random())).await?;
        let choice = self.decide(&ring, decree.clone(), Instant::now() + DECISION_LIMIT).await?;
        // What was begun before, and is finished now, is as good: it gives up the same.
        if choice.entry.decree.excluded() != decree.excluded() {
            let epoch = choice.entry.epoch;
            return Err(ControlError::Invalid(format!("something else was chosen first, entry {epoch} of the log")));
        }
        let (layout, _) = parts(choice.entry.decree)?;
        let (version, cluster) = (layout.version(), layout.cluster());
        tracing::warn!(%version, %cluster, given_up = ?dead, "goes on without a majority");
        Ok(Forced { version, cluster })
    }

    /// The decree that gives them up, if it is time for that.
    async fn decree_without(
        &self,
        ring: &Ring,
        dead: &BTreeSet<NodeName>,
        cluster: ClusterId,
    ) -> Result<Decree, ControlError> {
        let invalid = |error: ChangeError| ControlError::Invalid(error.to_string());
        let decree = ring.force_of(dead, cluster).map_err(invalid)?;
        let given_up = decree.excluded().cloned().unwrap_or_default();
        let survivors = ring.survivors(&given_up);
        if !survivors.contains(&self.id()) {
            return Err(ControlError::Invalid("this node is no member: ask one of those who are left".to_owned()));
        }
        let members = ring.members().into_keys().filter(|node| *node != self.id());
        let asked = members.chain(ring.bringing_home().keys().copied()).map(|node| self.ask_how_it_is(node));
        let own = Said { by: self.id(), features: Features::ALL, standing: self.standing(), sees: self.sees() };
        let said: Vec<Said> = join_all(asked).await.into_iter().flatten().chain([own]).collect();
        self.check_gone(ring, &given_up, &said)?;
        self.check_all_can_agree(ring, &survivors, &said)?;
        // Once somebody was asked, that one takes part in no regular choice.
        let is_bound = self.read_store(|store| store.is_bound_by_force()).await.unwrap_or(false);
        if ring.has_majority_in(&survivors) && !is_bound {
            return Err(ControlError::Invalid(
                "those who are left are a majority: `starling cluster remove` and a commit do, and the cluster stays what \
                 it is"
                    .to_owned(),
            ));
        }
        Ok(decree)
    }

    async fn ask_how_it_is(&self, node: NodeId) -> Option<Said> {
        let (control, welcome) = self.control_and_welcome_of(&self.address_of(node)?).await.ok()?;
        let status = control.status(call_within(STATUS_LIMIT)).await.ok()?;
        let view = control.cluster(call_within(STATUS_LIMIT)).await.ok()?;
        let sees = view.peers.iter().filter(|peer| peer.alive).map(|peer| peer.node).collect();
        let Welcome { features, .. } = welcome;
        (status.node == node).then_some(Said { by: node, features, standing: status.standing, sees })
    }

    /// Whom this node takes for alive.
    fn sees(&self) -> BTreeSet<NodeId> {
        self.view().live().map(|peer| peer.node).collect()
    }

    /// # Errors
    /// Somebody who is to be given up answers, or one who is left takes it for alive.
    fn check_gone(&self, ring: &Ring, given_up: &BTreeSet<NodeId>, said: &[Said]) -> Result<(), ControlError> {
        let seen_by_some = |node: &&NodeId| said.iter().any(|said| said.by == **node || said.sees.contains(node));
        let alive = self.names_in(ring, given_up.iter().filter(seen_by_some));
        if alive.is_empty() {
            return Ok(());
        }
        let alive = alive.join(", ");
        Err(ControlError::Invalid(format!("{alive} may be alive: only what is gone for good can be given up")))
    }

    /// # Errors
    /// Who cannot.
    fn check_all_can_agree(
        &self,
        ring: &Ring,
        survivors: &BTreeSet<NodeId>,
        said: &[Said],
    ) -> Result<(), ControlError> {
        let answers: Vec<&Said> = said.iter().filter(|said| survivors.contains(&said.by)).collect();
        let answer = |node: &NodeId| answers.iter().any(|said| said.by == *node);
        let silent = self.names_in(ring, survivors.iter().filter(|node| !answer(node)));
        if !silent.is_empty() {
            return Err(ControlError::Invalid(format!(
                "all who are left have to agree, and {} cannot be reached: start what can be started, name what is gone \
                 for good",
                silent.join(", ")
            )));
        }
        let idle = answers.iter().filter(|said| said.standing != NodeStanding::Serving).map(|said| &said.by);
        let idle = self.names_in(ring, idle);
        if !idle.is_empty() {
            return Err(ControlError::Invalid(format!(
                "{} cannot agree, since it does not serve (`starling node info` says why): mend that, or stop it and name \
                 it as well",
                idle.join(", ")
            )));
        }
        let older = answers.iter().filter(|said| !said.features.include(Features::FORCE)).map(|said| &said.by);
        let older = self.names_in(ring, older);
        if !older.is_empty() {
            return Err(ControlError::Invalid(format!("{} run an older build: upgrade them first", older.join(", "))));
        }
        Ok(())
    }
}

fn parts(decree: Decree) -> Result<(Layout, BTreeSet<NodeId>), ControlError> {
    match decree {
        Decree::Force { layout, dead } => Ok((layout, dead)),
        Decree::Begin { .. } | Decree::Switch(_) | Decree::End(_) | Decree::Register { .. } | Decree::Emptied(_) => {
            Err(ControlError::Internal("members that are given up come to a layout".to_owned()))
        }
    }
}
