//! How chitchat's state becomes a view.
//!
//! Chitchat keeps a state for each *run* of a node, a restart being another run, and an opinion on which runs are alive.
//! A look at all of that gives a [`View`]:
//!
//! - Of a node's runs the live ones count, then the one of the highest generation. This node is its own run, always.
//! - A run whose announcement cannot be read is no peer; while it is alive it is listed as unreadable.
//! - One who was asleep cannot tell who died meanwhile: after a pause of this process, whoever chitchat calls dead has
//!   the patience once more to be heard of again.
//!
//! Time comes in as an argument.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use chitchat::{ChitchatId, NodeState};
use starling_core::ids::NodeId;
use tokio::time::Instant;

use crate::announcement::Announcement;
use crate::encoding::{self, Unreadable};
use crate::view::{Conflict, Peer, RunSeen, View};

/// Two runs of one node are a conflict once both have been alive for this many times the patience: by then chitchat has
/// given up the one that a restart replaced.
const RESTART: u32 = 5;

/// A run as chitchat knows it at this moment.
pub(crate) struct Sighting<'a> {
    pub(crate) id: &'a ChitchatId,
    pub(crate) state: &'a NodeState,
    pub(crate) alive: bool,
}

pub(crate) struct Translator {
    own: ChitchatId,
    patience: Duration,
    runs: BTreeMap<ChitchatId, Run>,
    last_look: Instant,
    /// Until then chitchat's word that somebody died needs time to be believed.
    lenient_until: Instant,
}

/// What the looks so far have shown of a run.
struct Run {
    /// None if it is not a node of ours.
    node: Option<NodeId>,
    version: (u64, u64),
    reading: Result<Arc<Announcement>, Unreadable>,
    alive: bool,
    since: Instant,
    /// Since when chitchat calls it dead, if it does.
    called_dead: Option<Instant>,
}

impl Translator {
    pub(crate) fn new(own: ChitchatId, patience: Duration, now: Instant) -> Translator {
        Translator { own, patience, runs: BTreeMap::new(), last_look: now, lenient_until: now }
    }

    /// Takes in all that chitchat knows now. A run that is not among the sightings is forgotten.
    pub(crate) fn look<'a>(&mut self, now: Instant, sightings: impl Iterator<Item = Sighting<'a>>) -> View {
        let patience = self.patience_with_the_dead(now);
        let mut before = std::mem::take(&mut self.runs);
        for sighting in sightings {
            let run = match before.remove(sighting.id) {
                None => Run::met(&sighting, now),
                Some(run) => run.seen_again(&sighting, patience, now),
            };
            self.runs.insert(sighting.id.clone(), run);
        }
        self.view(now)
    }

    /// For how long a run is kept that chitchat calls dead: for no time, unless this process stood still a moment ago.
    fn patience_with_the_dead(&mut self, now: Instant) -> Duration {
        if now.saturating_duration_since(self.last_look) > self.patience / 2 {
            self.lenient_until = now + self.patience;
        }
        self.last_look = now;
        if now < self.lenient_until { self.patience } else { Duration::ZERO }
    }

    fn view(&self, now: Instant) -> View {
        let peers = self.peers();
        let mut conflicts = self.conflicting_runs(now);
        conflicts.extend(conflicting_names(&peers));
        View { peers, unreadable: self.unreadable(), conflicts }
    }

    fn peers(&self) -> BTreeMap<NodeId, Peer> {
        let mut peers = BTreeMap::new();
        for (id, run) in &self.runs {
            let (Some(node), Ok(announcement)) = (run.node, &run.reading) else { continue };
            let announcement = Arc::clone(announcement);
            let peer = Peer { node, seen: seen(id), announcement, alive: run.alive, since: run.since };
            match peers.entry(node) {
                Entry::Vacant(entry) => {
                    entry.insert(peer);
                }
                Entry::Occupied(mut entry) if self.rank(&peer) > self.rank(entry.get()) => {
                    entry.insert(peer);
                }
                Entry::Occupied(_) => {}
            }
        }
        peers
    }

    /// Which of two runs of a node counts: the greater.
    fn rank(&self, peer: &Peer) -> (bool, bool, u64, Instant) {
        let own = peer.seen == seen(&self.own);
        (own, peer.alive, peer.seen.generation, peer.since)
    }

    fn unreadable(&self) -> BTreeMap<NodeId, Unreadable> {
        let live = self.runs.values().filter(|run| run.alive);
        live.filter_map(|run| Some((run.node?, run.reading.as_ref().err()?.clone()))).collect()
    }

    fn conflicting_runs(&self, now: Instant) -> Vec<Conflict> {
        let mut claims: BTreeMap<NodeId, Vec<(RunSeen, Instant)>> = BTreeMap::new();
        for (id, run) in self.runs.iter().filter(|(_, run)| run.alive) {
            if let Some(node) = run.node {
                claims.entry(node).or_default().push((seen(id), run.since));
            }
        }
        claims.retain(|_, runs| self.contradict(runs, now));
        let conflict = |(node, runs): (_, Vec<(RunSeen, _)>)| Conflict::Runs {
            node,
            runs: runs.into_iter().map(|(run, _)| run).collect(),
        };
        claims.into_iter().map(conflict).collect()
    }

    /// Whether these live runs of one node, ascending by generation, are more than a restart.
    fn contradict(&self, runs: &[(RunSeen, Instant)], now: Instant) -> bool {
        let twins = runs.windows(2).any(|pair| pair[0].0.generation == pair[1].0.generation);
        let together = runs.iter().map(|(_, since)| *since).max();
        let settled = together.is_some_and(|since| now.saturating_duration_since(since) >= self.patience * RESTART);
        runs.len() > 1 && (twins || settled)
    }
}

impl Run {
    fn met(sighting: &Sighting<'_>, now: Instant) -> Run {
        let node = node_of(sighting.id);
        if node.is_none() {
            tracing::warn!(id = ?sighting.id, "a stranger gossips with this cluster: its id is not a node's");
        }
        let (version, alive) = (sighting.state.monotonic_property(), sighting.alive);
        Run { node, version, reading: read(sighting), alive, since: now, called_dead: None }
    }

    fn seen_again(mut self, sighting: &Sighting<'_>, patience: Duration, now: Instant) -> Run {
        let version = sighting.state.monotonic_property();
        if self.version != version {
            self.version = version;
            self.reading = read(sighting);
        }
        let alive = self.still_counts(sighting.alive, patience, now);
        if self.alive != alive {
            tracing::info!(id = ?sighting.id, name = self.name(), alive, "a node's run came or went");
            self.alive = alive;
            self.since = now;
        }
        self
    }

    /// Whether it counts as alive, when chitchat's word that it died is believed after that much patience.
    fn still_counts(&mut self, said_alive: bool, patience: Duration, now: Instant) -> bool {
        if said_alive {
            self.called_dead = None;
            return true;
        }
        let called_dead = *self.called_dead.get_or_insert(now);
        self.alive && now < called_dead + patience
    }

    fn name(&self) -> Option<&str> {
        self.reading.as_ref().ok().map(|announcement| announcement.name.as_str())
    }
}

/// The announcement as it stands. Called once for each version of it, so that what is malformed is logged once.
fn read(sighting: &Sighting<'_>) -> Result<Arc<Announcement>, Unreadable> {
    let reading = encoding::decode(|key| sighting.state.get(key)).map(Arc::new);
    if let Err(problem @ Unreadable::Malformed { .. }) = &reading {
        tracing::warn!(id = ?sighting.id, %problem, "a node announces what this one cannot read");
    }
    reading
}

/// Only the very form that nodes use: `1` and `01` are not two names of one node.
fn node_of(id: &ChitchatId) -> Option<NodeId> {
    let node: NodeId = id.node_id.parse().ok()?;
    (node.to_string() == *id.node_id).then_some(node)
}

fn seen(id: &ChitchatId) -> RunSeen {
    RunSeen { generation: id.generation_id, gossip: id.gossip_advertise_addr }
}

fn conflicting_names(peers: &BTreeMap<NodeId, Peer>) -> impl Iterator<Item = Conflict> {
    let mut claims: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for peer in peers.values().filter(|peer| peer.alive) {
        claims.entry(peer.announcement.name.clone()).or_default().push(peer.node);
    }
    claims.into_iter().filter(|(_, nodes)| nodes.len() > 1).map(|(name, nodes)| Conflict::Name { name, nodes })
}

#[cfg(test)]
mod tests;
