//! Coming back after a disk was lost (R3, R15): another directory stands for the member from then on, and fills up again
//! (`filling.rs`).
//!
//! A member is known by its name. A node whose directory is new finds its name in the log of a cluster that it hears of, and
//! asks a member to have its directory registered there: that is a decree, chosen by a majority. From then on it goes by
//! the member's id, for which it has to be started anew, as this process sees to by itself. Whoever finds that it runs on an
//! old copy of its directory (R3) asks for a directory that it has drawn for the purpose, and begins that one empty. Whoever
//! meets damage on its disk does the same, but votes for it itself, and takes over what it can read.
//!
//! It is refused while the member is at work elsewhere: two nodes of one name would each take the other's acknowledgements
//! for its own.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use starling_core::ids::{DirectoryId, NodeId};
use starling_core::layout::Member;
use starling_core::name::NodeName;
use starling_core::ring::{Decree, Epoch, Ring};
use starling_gossip::{Conflict, Standing};
use starling_proto::call_within;
use starling_proto::control::{NotRegistered, Registration};
use starling_proto::hello::Class;
use starling_storage::{Health, Identity, StoreError};

use crate::choosing::ChoiceError;
use crate::node::Node;

/// Having a decree chosen takes as long at the most.
const DECISION_LIMIT: Duration = Duration::from_secs(10);
/// A member is asked for so long whom it takes for alive.
const VIEW_LIMIT: Duration = Duration::from_secs(2);
/// Before somebody is asked again.
const INTERVAL: Duration = Duration::from_secs(1);

/// As what a node has to be started anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Anew {
    /// Its directory belongs to this node now.
    SameDirectory(Identity),
    /// Of what its directory holds nothing may be used: it begins empty, as another one.
    EmptyDirectory(Identity),
    /// As another directory, which takes over what can be read of this one.
    SalvagedDirectory(Identity),
}

/// Why no other directory takes the place of this one, for now.
#[derive(Debug, thiserror::Error)]
enum NotYet {
    #[error("this node belongs to no cluster")]
    NoCluster,
    #[error("no other member is alive")]
    Alone,
    #[error("there is no other member that could have what is damaged here")]
    NobodyElse,
    #[error("what can be read is copied first, for which {needed} bytes have to be free")]
    NoRoom { needed: u64 },
    #[error("another change of the ring came first")]
    Overtaken,
    #[error("no other member knows yet that it was chosen")]
    KnownToNobody,
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Choice(#[from] ChoiceError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Node {
    /// Has a directory stand for the member of a name.
    ///
    /// # Errors
    /// [`NotRegistered`]. Where no majority has answered in time it may still come to that.
    pub async fn register(self: &Arc<Self>, asked: Registration) -> Result<NodeId, NotRegistered> {
        let Registration { name, directory, in_place_of } = asked;
        let ring = self.serving_ring().map_err(|not| NotRegistered::Unavailable(not.reason))?;
        let node = member_named(&ring, &name).ok_or_else(|| NotRegistered::NoMember(name.clone()))?.node;
        if ring.directory_of(node) == Some(directory) {
            return Ok(node);
        }
        if ring.is_retired(directory) {
            return Err(NotRegistered::Retired(directory));
        }
        let is_its_own_wish = in_place_of.is_some() && in_place_of == ring.directory_of(node);
        if self.is_at_work_elsewhere(node, directory, is_its_own_wish) {
            return Err(NotRegistered::Alive(name));
        }
        let deadline = Instant::now() + DECISION_LIMIT;
        let is_known = self.view().peer(node).is_some_and(|peer| peer.announcement.run.directory == directory);
        if !is_its_own_wish && !is_known {
            self.check_missed_by_most(&ring, node, &name).await?;
        }
        let chosen = self.decide(&ring, Decree::Register { node, directory }, deadline).await;
        let choice = chosen.map_err(|error| NotRegistered::Unavailable(error.to_string()))?;
        if !choice.is_ours {
            return Err(NotRegistered::Unavailable("another change of the ring came first".to_owned()));
        }
        tracing::warn!(%node, %name, %directory, "another directory stands for a member whose own was lost");
        Ok(node)
    }

    /// Gossip of one node is a hint about the world; that a member is gone, a majority has to think.
    ///
    /// # Errors
    /// [`NotRegistered`] if it does not.
    async fn check_missed_by_most(&self, ring: &Ring, node: NodeId, name: &NodeName) -> Result<(), NotRegistered> {
        let acceptors = ring.acceptors();
        let others = acceptors.into_iter().filter(|acceptor| *acceptor != self.id() && *acceptor != node);
        let asked = others.filter_map(|acceptor| Some((acceptor, self.address_of(acceptor)?)));
        let asked = asked.map(|(acceptor, address)| async move {
            let control = self.control_of(&address).await.ok()?;
            let view = control.cluster(call_within(VIEW_LIMIT)).await.ok()?;
            Some((acceptor, view.peers.iter().any(|peer| peer.node == node && peer.alive)))
        });
        // This node misses it, or would not ask.
        let mut missed_by = BTreeSet::from([self.id()]);
        for (acceptor, sees_it) in futures::future::join_all(asked).await.into_iter().flatten() {
            if sees_it {
                return Err(NotRegistered::Alive(name.clone()));
            }
            missed_by.insert(acceptor);
        }
        if ring.has_majority_in(&missed_by) {
            Ok(())
        } else {
            Err(NotRegistered::Unavailable(self.too_few(ring, None).to_string()))
        }
    }

    /// Whether a member may still be serving with the directory that stands for it, and not with the one in question. One that
    /// says of itself that it may not does not.
    fn is_at_work_elsewhere(&self, node: NodeId, directory: DirectoryId, says_it_is_not: bool) -> bool {
        let view = self.view();
        let is_twice = |conflict: &Conflict| matches!(conflict, Conflict::Runs { node: of, .. } if *of == node);
        if node == self.id() || view.conflicts.iter().any(is_twice) {
            return true;
        }
        match view.peer(node).filter(|peer| peer.alive) {
            // It goes by the member's id already: that its directory was chosen is not known to everybody yet, or to nobody
            // any more, if only this node knew it before it began anew.
            Some(peer) if peer.announcement.run.directory == directory => false,
            Some(peer) => !(says_it_is_not && matches!(peer.announcement.standing, Standing::Retired { .. })),
            None => self.peers.all(Class::Peer).iter().any(|link| link.node == node && link.is_connected()),
        }
    }

    /// This node's directory is new, and the cluster knows its name with another one.
    pub(crate) async fn ask_to_stand_for(&self, ring: &Ring, member: &Member, address: &str) {
        let (own, cluster) = (self.store.identity().clone(), ring.cluster());
        let asked = Registration { name: own.name.clone(), directory: own.directory, in_place_of: None };
        match self.ask_to_register(address, asked).await {
            // Whoever has said so knows more of the log than the one whose log was read.
            Ok(node) if node == own.node => {}
            Ok(node) => match self.change_store(move |store| store.stand_for(node)).await {
                Ok(()) => {
                    tracing::warn!(%node, %cluster, "this directory, which is new, stands for a member that had another one");
                    self.anew.send_replace(Some(Anew::SameDirectory(Identity { node, ..own })));
                }
                Err(error) => tracing::error!(%error, "cannot take the place of the member that this node was"),
            },
            Err(refused) => self.exclude(format!(
                "cluster {cluster} knows `{}` with directory {}, and this is directory {}, which is new; it takes that one's \
                 place once it may: {refused}",
                own.name,
                ring.directory_of(member.node).unwrap_or(member.directory),
                own.directory
            )),
        }
    }

    /// Once this directory is found to be an old copy: has an empty one take its place, as soon as a majority agrees.
    pub async fn begin_anew_once_retired(self: Arc<Self>) {
        let mut health = self.store.health();
        tokio::select! {
            () = self.stopping.cancelled() => return,
            // The sender lives as long as the store, which this node holds.
            _ = health.wait_for(|health| matches!(health, Health::Retired { .. })) => {}
        }
        self.until_done(|| self.try_to_begin_anew()).await;
    }

    /// Tries until it succeeds or the node stops; says why it does not, once for each reason.
    async fn until_done<F: Future<Output = Result<(), NotYet>>>(&self, attempt: impl Fn() -> F) {
        let mut told = None;
        loop {
            let tried = tokio::select! {
                () = self.stopping.cancelled() => return,
                tried = attempt() => tried,
            };
            let Err(reason) = tried else { return };
            let reason = reason.to_string();
            if told.as_ref() != Some(&reason) {
                tracing::warn!(reason, "another directory cannot take the place of this one yet");
                told = Some(reason);
            }
            tokio::select! {
                () = self.stopping.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    /// # Errors
    /// What the last of those says who were asked.
    async fn try_to_begin_anew(&self) -> Result<(), NotYet> {
        let ring = self.store.ring().ok_or(NotYet::NoCluster)?;
        let own = self.store.identity().clone();
        let directory = self.change_store(|store| store.successor()).await?;
        let mut last = Err(NotYet::Alone);
        for address in self.live_members(&ring) {
            let (name, in_place_of) = (own.name.clone(), Some(own.directory));
            match self.ask_to_register(&address, Registration { name, directory, in_place_of }).await {
                Ok(node) => {
                    tracing::warn!(%directory, "an empty directory takes the place of this one");
                    self.anew.send_replace(Some(Anew::EmptyDirectory(Identity { node, directory, ..own })));
                    return Ok(());
                }
                Err(reason) => last = Err(NotYet::Refused(reason)),
            }
        }
        last
    }

    /// Once a read has met damage on the disk: has a directory take the place of this one that takes over what can be read,
    /// and gets the rest from its peers. Until a majority agrees this one serves what it can.
    pub async fn begin_anew_once_damaged(self: Arc<Self>) {
        let mut damage = self.store.damage();
        let met = async {
            // The sender lives as long as the store, which this node holds.
            let reason = damage.wait_for(Option::is_some).await.ok()?.clone()?;
            tracing::error!(reason, "the disk is damaged");
            Some(())
        };
        tokio::select! {
            () = self.stopping.cancelled() => return,
            Some(()) = met => {}
            () = self.was_succeeded() => {}
        }
        self.until_done(|| self.try_to_be_salvaged()).await;
    }

    /// Returns once the log says that the directory stands for this node which this one has drawn: also if that was said
    /// before this process began.
    async fn was_succeeded(&self) {
        let mut rings = self.ring.subscribe();
        loop {
            let ring = rings.borrow_and_update().clone();
            let registered = ring.and_then(|ring| ring.directory_of(self.id()));
            let drawn = self.read_store(|store| store.drawn_successor()).await.ok().flatten();
            let is_retired = matches!(*self.store.health().borrow(), Health::Retired { .. });
            if drawn.is_some() && drawn == registered && !is_retired {
                return;
            }
            if rings.changed().await.is_err() {
                // The node, which is borrowed here, has the sender.
                std::future::pending::<()>().await;
            }
        }
    }

    async fn try_to_be_salvaged(self: &Arc<Self>) -> Result<(), NotYet> {
        let mut ring = self.store.ring().ok_or(NotYet::NoCluster)?;
        let own = self.store.identity().clone();
        if ring.members().len() < 2 {
            return Err(NotYet::NobodyElse);
        }
        let (needed, free) = (self.store.used_bytes() + self.config.store.disk_reserve, self.store.free_bytes());
        if free.is_some_and(|free| free < needed) {
            return Err(NotYet::NoRoom { needed });
        }
        let directory = self.change_store(|store| store.successor()).await?;
        if ring.directory_of(own.node) != Some(directory) {
            self.serving_ring().map_err(|not| NotYet::Refused(not.reason))?;
            let decree = Decree::Register { node: own.node, directory };
            if !self.decide(&ring, decree, Instant::now() + DECISION_LIMIT).await?.is_ours {
                return Err(NotYet::Overtaken);
            }
            ring = self.store.ring().ok_or(NotYet::NoCluster)?;
        }
        if !self.is_known_elsewhere(&ring).await {
            return Err(NotYet::KnownToNobody);
        }
        tracing::warn!(%directory, "a directory that takes over what can be read takes the place of this one");
        self.anew.send_replace(Some(Anew::SalvagedDirectory(Identity { directory, ..own })));
        Ok(())
    }

    /// Whether another member has the log as far as this node has it: what takes the place of this directory has to learn it
    /// from somebody.
    async fn is_known_elsewhere(&self, ring: &Ring) -> bool {
        let before = Epoch(ring.epoch().0 - 1);
        for address in self.live_members(ring) {
            if self.fetch_log(&address, before).await.is_ok_and(|log| !log.is_empty()) {
                return true;
            }
        }
        false
    }

    /// Where other members can be asked that gossip takes for alive.
    fn live_members(&self, ring: &Ring) -> Vec<String> {
        let view = self.view();
        let others = view.live().filter(|peer| peer.node != self.id() && ring.is_member(peer.node));
        others.map(|peer| peer.announcement.address.as_str().to_owned()).collect()
    }

    async fn ask_to_register(&self, address: &str, asked: Registration) -> Result<NodeId, String> {
        let control = self.control_of(address).await.map_err(|error| error.to_string())?;
        // It has to answer, also when it has waited for a majority in vain.
        let limit = DECISION_LIMIT + INTERVAL;
        let answer = control.register(call_within(limit), asked).await.map_err(|error| error.to_string())?;
        answer.map_err(|refused| refused.to_string())
    }

    /// From now on this node says why it does not serve.
    fn exclude(&self, reason: String) {
        let before = self.excluded.send_replace(Some(reason.clone()));
        if before.as_ref() != Some(&reason) {
            tracing::error!(reason, "this node does not serve");
        }
    }
}

/// The member of that name in any layout in effect, unless it is declared dead; where two have had it, the newer one.
pub(crate) fn member_named<'a>(ring: &'a Ring, name: &NodeName) -> Option<&'a Member> {
    let newest = ring.newest().member_named(name);
    let any = || ring.members().into_values().find(|member| member.name == *name);
    newest.or_else(any).filter(|member| !ring.is_dead(member.node))
}
