//! `cluster init`: layout version 1, made on any node for the members it names.
//!
//! Every member is asked first whether it is free; by answering it reserves itself for this cluster for a little while, so
//! that of two inits at once at most one goes on. Then every member adopts, if it is still reserved. An init that is cut
//! short between the two is finished by running it again: it finds the layout that some have adopted, reserves the others
//! for it, and brings it to them. A member that has adopted never adopts another cluster's layout.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use starling_core::ids::ClusterId;
use starling_core::layout::{FirstLayout, Layout, LayoutError, Member};
use starling_core::name::NodeName;
use starling_proto::call_within;
use starling_proto::control::{ControlError, Init, NodeStanding};
use starling_storage::AdoptError;

use crate::node::Node;

const CALL_LIMIT: Duration = Duration::from_secs(2);
/// How long a member keeps itself free for an init that has asked.
const RESERVATION: Duration = Duration::from_secs(10);
/// How long init waits for the members to be connected, so that the first request meets a cluster that is whole.
const WHOLE_LIMIT: Duration = Duration::from_secs(5);
const WHOLE_INTERVAL: Duration = Duration::from_millis(50);

/// For which cluster a node without one is kept free, and until when.
#[derive(Debug, Default)]
pub struct Reservation(Mutex<Option<(ClusterId, Instant)>>);

impl Reservation {
    /// Reserves for `cluster`, anew if it was before; false if it is reserved for another.
    pub fn take(&self, cluster: ClusterId, now: Instant) -> bool {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let free = held.is_none_or(|(holder, until)| holder == cluster || until <= now);
        if free {
            *held = Some((cluster, now + RESERVATION));
        }
        free
    }

    /// Whether it is reserved for this cluster now.
    pub fn holds(&self, cluster: ClusterId, now: Instant) -> bool {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.is_some_and(|(holder, until)| holder == cluster && until > now)
    }
}

impl Node {
    /// What this node would be as a member of `cluster`, for which it is reserved by being asked.
    pub fn candidate_for(&self, cluster: ClusterId) -> Result<Member, ControlError> {
        match self.standing() {
            NodeStanding::Uninitialised => {}
            NodeStanding::Serving => {
                let ours = self.store.cluster();
                return Err(ours.map_or_else(|| internal("no layout"), ControlError::AlreadyMember));
            }
            NodeStanding::Left => {
                return Err(ControlError::Invalid(
                    "it has left its cluster; to join one again it needs an empty data directory".to_owned(),
                ));
            }
            NodeStanding::Excluded(reason) | NodeStanding::Failed(reason) => return Err(ControlError::Invalid(reason)),
            NodeStanding::Stopping => return Err(ControlError::Invalid("it is shutting down".to_owned())),
        }
        if !self.reservation.take(cluster, Instant::now()) {
            return Err(ControlError::Invalid("another `cluster init` is under way; try again in 10 s".to_owned()));
        }
        let own = self.store.identity();
        Ok(Member {
            node: own.node,
            directory: own.directory,
            name: own.name.clone(),
            zone: self.config.zone.clone(),
            weight: 1,
            address: self.config.advertise.clone(),
        })
    }

    /// Makes the cluster, or finishes making it.
    pub async fn init_cluster(self: &Arc<Self>, request: Init) -> Result<Layout, ControlError> {
        let names = self.names_of_members(&request)?;
        check_request(&request, &names)?;
        let layout = match self.begun_layout(&names).await? {
            Some(layout) => {
                check_same(&request, &layout)?;
                self.candidates(&names, layout.cluster()).await?;
                layout
            }
            None => self.new_layout(&names, request).await?,
        };
        self.have_adopted(&layout).await?;
        self.wait_until_whole(&layout).await;
        Ok(layout)
    }

    fn names_of_members(&self, request: &Init) -> Result<BTreeSet<NodeName>, ControlError> {
        let view = self.view();
        if request.members.is_empty() {
            return Ok(view.live().map(|peer| peer.announcement.name.clone()).collect());
        }
        let known: Vec<String> = view.live().map(|peer| peer.announcement.name.to_string()).collect();
        for name in &request.members {
            if !view.by_name(name).is_some_and(|peer| peer.alive) {
                return Err(ControlError::Invalid(format!(
                    "no live node is named `{name}`; known: {}. Nodes find each other within seconds: try again",
                    known.join(", ")
                )));
            }
        }
        Ok(request.members.iter().cloned().collect())
    }

    /// The layout that an earlier init of the same members has brought to some of them, if there was one.
    async fn begun_layout(&self, names: &BTreeSet<NodeName>) -> Result<Option<Layout>, ControlError> {
        for name in names {
            let found = if *name == self.config.name {
                self.store.layout().map(|layout| Layout::clone(&layout))
            } else {
                let control = self.control_of(&self.address_named(name)?).await.map_err(|e| unreachable(name, &e))?;
                control.layout(call_within(CALL_LIMIT)).await.map_err(|e| unreachable(name, &e))?
            };
            let Some(layout) = found else { continue };
            let same: BTreeSet<&NodeName> = layout.members().iter().map(|member| &member.name).collect();
            if same == names.iter().collect() {
                return Ok(Some(layout));
            }
            return Err(ControlError::AlreadyMember(layout.cluster()));
        }
        Ok(None)
    }

    async fn new_layout(&self, names: &BTreeSet<NodeName>, request: Init) -> Result<Layout, ControlError> {
        let cluster = ClusterId(rand::random());
        let mut members = self.candidates(names, cluster).await?;
        for member in &mut members {
            member.weight = request.weights.get(&member.name).copied().unwrap_or(1);
        }
        let Init { partitions, replicas, buckets, .. } = request;
        let first = FirstLayout { cluster, partitions, replicas, members, buckets };
        Layout::first(first).map_err(|error| ControlError::Invalid(error.to_string()))
    }

    /// Reserves all of them for the cluster at once, so that the first does not wait for the last; returns those that are
    /// not members of it already.
    async fn candidates(&self, names: &BTreeSet<NodeName>, cluster: ClusterId) -> Result<Vec<Member>, ControlError> {
        let asked = names.iter().map(|name| async move {
            let refused = |error: ControlError| ControlError::Invalid(format!("{name}: {error}"));
            match self.ask_to_join(name, cluster).await? {
                Ok(member) => Ok(Some(member)),
                Err(ControlError::AlreadyMember(of)) if of == cluster => Ok(None),
                Err(error) => Err(refused(error)),
            }
        });
        Ok(futures::future::try_join_all(asked).await?.into_iter().flatten().collect())
    }

    async fn ask_to_join(
        &self,
        name: &NodeName,
        cluster: ClusterId,
    ) -> Result<Result<Member, ControlError>, ControlError> {
        if *name == self.config.name {
            return Ok(self.candidate_for(cluster));
        }
        let control = self.control_of(&self.address_named(name)?).await.map_err(|e| unreachable(name, &e))?;
        control.candidate(call_within(CALL_LIMIT), cluster).await.map_err(|e| unreachable(name, &e))
    }

    async fn have_adopted(self: &Arc<Self>, layout: &Layout) -> Result<(), ControlError> {
        // All at once, while they are reserved.
        let adopted = layout.members().iter().map(|member| async move {
            let adopted = if member.node == self.id() {
                self.adopt_if_reserved(layout.clone()).await.map_err(|error| error.to_string())
            } else {
                self.adopt_at(&member.address, layout).await
            };
            adopted.map_err(|reason| format!("{}: {reason}", member.name)).err()
        });
        let missing: Vec<String> = futures::future::join_all(adopted).await.into_iter().flatten().collect();
        if missing.is_empty() { Ok(()) } else { Err(ControlError::Incomplete(missing.join("; "))) }
    }

    /// Adopts a layout that an init brings, here or from another node.
    ///
    /// # Errors
    /// [`ControlError`] if this node is not kept free for that cluster any more, or belongs to another.
    pub async fn adopt_if_reserved(self: &Arc<Self>, layout: Layout) -> Result<(), ControlError> {
        if self.store.layout().is_none() && !self.reservation.holds(layout.cluster(), Instant::now()) {
            return Err(ControlError::Invalid(
                "it is not kept free for this cluster any more; run init again".to_owned(),
            ));
        }
        self.adopt(layout).await.map_err(|error| match error {
            AdoptError::OtherCluster { ours, .. } => ControlError::AlreadyMember(ours),
            AdoptError::Forked(_)
            | AdoptError::ForkedLog(_)
            | AdoptError::BoundByForce(_)
            | AdoptError::NoCluster
            | AdoptError::Invalid(_) => ControlError::Invalid(error.to_string()),
            AdoptError::Store(_) => ControlError::Internal(error.to_string()),
        })
    }

    async fn adopt_at(&self, address: &str, layout: &Layout) -> Result<(), String> {
        let control = self.control_of(address).await.map_err(|error| error.to_string())?;
        let adopted =
            control.adopt(call_within(CALL_LIMIT), layout.clone()).await.map_err(|error| error.to_string())?;
        adopted.map(|_checksum| ()).map_err(|error| error.to_string())
    }

    /// Waits until every member is connected to every other, if that does not take too long.
    async fn wait_until_whole(&self, layout: &Layout) {
        self.peers.redial();
        let others = layout.members().len() - 1;
        let connected = layout.members().iter().map(|member| async move {
            while self.connections_of(member).await < others {
                tokio::time::sleep(WHOLE_INTERVAL).await;
            }
        });
        drop(tokio::time::timeout(WHOLE_LIMIT, futures::future::join_all(connected)).await);
    }

    /// To how many members this one is connected; none if it does not say.
    async fn connections_of(&self, member: &Member) -> usize {
        if member.node == self.id() {
            return self.peers.connected().len();
        }
        let Ok(control) = self.control_of(&member.address).await else { return 0 };
        control.status(call_within(CALL_LIMIT)).await.map_or(0, |status| status.connected.len())
    }

    fn address_named(&self, name: &NodeName) -> Result<String, ControlError> {
        let view = self.view();
        let peer = view.by_name(name).ok_or_else(|| ControlError::Invalid(format!("no node is named `{name}`")))?;
        Ok(peer.announcement.address.as_str().to_owned())
    }
}

/// What can be wrong with a request by itself is found before any member reserves itself for it.
fn check_request(request: &Init, names: &BTreeSet<NodeName>) -> Result<(), ControlError> {
    let invalid = |reason: String| Err(ControlError::Invalid(reason));
    for (name, weight) in &request.weights {
        if !names.contains(name) {
            return invalid(format!("`{name}` has a weight and is no member"));
        }
        if *weight == 0 {
            return invalid(LayoutError::ZeroWeight(name.clone()).to_string());
        }
    }
    let replicas = request.replicas;
    for (bucket, rules) in &request.buckets {
        if let Some(asked) = rules.replicas.filter(|asked| *asked > replicas) {
            return invalid(LayoutError::TooManyReplicas { bucket: bucket.clone(), asked, replicas }.to_string());
        }
    }
    Ok(())
}

/// An init that is run again has to ask for what was begun.
fn check_same(request: &Init, begun: &Layout) -> Result<(), ControlError> {
    let weight = |name: &NodeName| request.weights.get(name).copied().unwrap_or(1);
    let same = request.partitions == begun.partitions()
        && request.replicas == begun.replicas()
        && request.buckets == *begun.buckets()
        && begun.members().iter().all(|member| member.weight == weight(&member.name));
    let differs = "these members have a layout with other replicas, partitions, weights or buckets: \
                   see `starling cluster status` and `starling cluster ring`";
    if same { Ok(()) } else { Err(ControlError::Invalid(differs.to_owned())) }
}

fn unreachable(name: &NodeName, error: &dyn std::fmt::Display) -> ControlError {
    ControlError::Invalid(format!("{name} cannot be reached: {error}"))
}

fn internal(reason: &str) -> ControlError {
    ControlError::Internal(reason.to_owned())
}
