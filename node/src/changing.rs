//! Changing the ring, as operators ask for it: changes are staged on a node, planned, shown, and put forward to be chosen.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use starling_core::change::{Change, ChangeError};
use starling_core::layout::{LayoutChecksum, Member};
use starling_core::name::NodeName;
use starling_core::ring::{Decree, Ring};
use starling_core::transition::Waiting;
use starling_proto::control::{Committed, ControlError, Plan, Transition};
use starling_storage::StoreError;

use crate::choosing::ChoiceError;
use crate::node::Node;

const CALL_LIMIT: Duration = Duration::from_secs(2);
const DECISION_LIMIT: Duration = Duration::from_secs(10);
/// Changes that can be staged.
const MOST_CHANGES: usize = 1000;

impl Node {
    /// Stages changes behind those that are staged, if all of them together are possible.
    pub async fn stage(&self, changes: Vec<Change>) -> Result<Plan, ControlError> {
        let _one_at_a_time = self.staging.lock().await;
        let mut staged = self.staged().await?;
        staged.extend(changes);
        if staged.len() > MOST_CHANGES {
            return Err(ControlError::Invalid(format!("more than {MOST_CHANGES} changes cannot be staged")));
        }
        let plan = self.plan_of(staged.clone()).await?;
        self.change_store(move |store| store.stage(&staged)).await.map_err(internal)?;
        Ok(plan)
    }

    pub async fn unstage(&self) -> Result<Vec<Change>, ControlError> {
        let _one_at_a_time = self.staging.lock().await;
        let staged = self.staged().await?;
        self.change_store(|store| store.stage(&[])).await.map_err(internal)?;
        Ok(staged)
    }

    pub async fn plan(&self) -> Result<Option<Plan>, ControlError> {
        let staged = self.staged().await?;
        if staged.is_empty() { Ok(None) } else { self.plan_of(staged).await.map(Some) }
    }

    /// Puts the plan forward that was shown.
    pub async fn commit_plan(self: Arc<Self>, shown: LayoutChecksum) -> Result<Committed, ControlError> {
        let deadline = Instant::now() + DECISION_LIMIT;
        let mut ring = self.ring_or_none()?;
        let mut plan = self.plan().await?.ok_or_else(|| ControlError::Invalid("nothing is staged here".to_owned()))?;
        if plan.after.checksum() != shown {
            return Err(ControlError::Invalid(
                "what is staged comes to another plan by now: look at it again with `starling cluster plan`".to_owned(),
            ));
        }
        loop {
            let version = plan.after.version();
            let decree = Decree::Begin { layout: plan.after, dead: plan.dead };
            let choice = self.decide(&ring, decree, deadline).await?;
            if choice.is_ours {
                self.unstage_committed(&plan.changes).await?;
                return Ok(Committed::Chosen(version));
            }
            // What came first may leave the plan as it is: that somebody has brought home all that it held.
            ring = self.ring_or_none()?;
            match self.plan().await {
                Ok(Some(again)) if again.after.checksum() == shown && Instant::now() < deadline => plan = again,
                Ok(_) | Err(_) => return Ok(Committed::Other { epoch: choice.entry.epoch }),
            }
        }
    }

    /// What was staged behind a plan while it was chosen stays.
    async fn unstage_committed(&self, committed: &[Change]) -> Result<(), ControlError> {
        let _one_at_a_time = self.staging.lock().await;
        let staged = self.staged().await?;
        let Some(left) = staged.strip_prefix(committed).map(<[Change]>::to_vec) else { return Ok(()) };
        self.change_store(move |store| store.stage(&left)).await.map_err(internal)
    }

    pub async fn transition(&self) -> Result<Transition, ControlError> {
        let ring = self.ring_or_none()?;
        let progress = self.progress_of(&ring).await;
        let waiting = ring.next_decree(&progress).err().map(|Waiting(waiting)| waiting).unwrap_or_default();
        Ok(Transition {
            epoch: ring.epoch(),
            phase: ring.phase(),
            read: ring.read().version(),
            newest: ring.newest().version(),
            waiting,
            pulled: self.pulls_done().await,
            held: self.store.hints().into_values().max().unwrap_or(0),
        })
    }

    async fn staged(&self) -> Result<Vec<Change>, ControlError> {
        self.read_store(|store| store.staged()).await.map_err(internal)
    }

    pub(crate) fn ring_or_none(&self) -> Result<Arc<Ring>, ControlError> {
        let none = || ControlError::Invalid("this node does not belong to a cluster yet".to_owned());
        self.store.ring().ok_or_else(none)
    }

    async fn plan_of(&self, changes: Vec<Change>) -> Result<Plan, ControlError> {
        let ring = self.ring_or_none()?;
        let mut joining = BTreeMap::new();
        for change in &changes {
            if let Change::Join { name, .. } = change {
                joining.extend(self.candidate_named(&ring, name).await?.map(|member| (name.clone(), member)));
            }
        }
        let invalid = |error: ChangeError| ControlError::Invalid(error.to_string());
        let Decree::Begin { layout, dead } = ring.decree_of(&changes, &joining).map_err(invalid)? else {
            return Err(ControlError::Internal("changes come to a layout".to_owned()));
        };
        for member in ring.members().into_values().filter(|member| dead.contains(&member.node)) {
            if self.is_available(member.node) {
                return Err(ControlError::Invalid(format!(
                    "`{0}` is alive: let it leave, or stop it before it is removed",
                    member.name
                )));
            }
        }
        Ok(Plan { changes, before: ring.newest().as_ref().clone(), after: layout, dead })
    }

    /// What a node that shall join says of itself; none if nobody knows it.
    async fn candidate_named(&self, ring: &Ring, name: &NodeName) -> Result<Option<Member>, ControlError> {
        let Some(address) = self.view().by_name(name).map(|peer| peer.announcement.address.as_str().to_owned()) else {
            return Ok(None);
        };
        let control = self.control_of(&address).await;
        let control = control.map_err(|error| ControlError::Invalid(format!("{name} cannot be reached: {error}")))?;
        let asked = control.candidate(starling_proto::call_within(CALL_LIMIT), ring.cluster()).await;
        let asked = asked.map_err(|error| ControlError::Invalid(format!("{name} cannot be reached: {error}")))?;
        asked.map(Some).map_err(|error| ControlError::Invalid(format!("{name}: {error}")))
    }
}

impl From<ChoiceError> for ControlError {
    fn from(error: ChoiceError) -> ControlError {
        match error {
            ChoiceError::NoMajority { .. } => ControlError::Waiting(error.to_string()),
            ChoiceError::GoingOnWithoutOthers { .. } | ChoiceError::Bound { .. } | ChoiceError::Adopt(_) => {
                ControlError::Invalid(error.to_string())
            }
        }
    }
}

fn internal(error: StoreError) -> ControlError {
    ControlError::Internal(error.to_string())
}
