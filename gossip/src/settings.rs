//! How gossip is set up, and how soon a silent node is given up.

use std::net::SocketAddr;
use std::time::Duration;

use chitchat::{ChitchatConfig, ChitchatId, FailureDetectorConfig, ProtocolVersion};
use starling_core::ids::NodeId;

use crate::announcement::Address;

/// Longest name of a cluster, in bytes.
pub const MAX_CLUSTER_NAME_BYTES: usize = 255;
/// Shortest and longest [`Timing::interval`].
pub const INTERVALS: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(10);
/// Fewest rounds of gossip that [`Timing::patience`] covers: with fewer, a few lost datagrams look like a death.
pub const MIN_PATIENCE_ROUNDS: u32 = 4;
/// Least [`Timing::forget_after`], in multiples of the patience.
pub const MIN_MEMORY: u32 = 20;

#[derive(Debug, Clone)]
pub struct Settings {
    /// Only nodes with the same name here gossip with each other. It keeps clusters from meeting by accident; it is no
    /// secret, and not the cluster's id.
    pub cluster_name: String,
    pub node: NodeId,
    /// Greater at each start of the node, whatever became of its directory. A start that repeats one, at the same
    /// address, goes on where the former run ended: it seems dead for as long as that run lasted.
    pub generation: u64,
    /// Where to listen, by UDP. Port 0 takes any that is free.
    pub listen: SocketAddr,
    /// Where others find that socket. Port 0 stands for the port that was bound.
    pub advertise: SocketAddr,
    /// `host:port` of some nodes of the cluster; this node may be among them. Names are looked up again every minute.
    pub seeds: Vec<String>,
    pub timing: Timing,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// Time between two rounds of gossip, in each of which a node exchanges news with three others.
    pub interval: Duration,
    /// How long a peer may be silent, at least, and still count as alive.
    pub patience: Duration,
    /// A peer that has been dead for this long leaves the view. After half of it, no news of the peer is passed on.
    pub forget_after: Duration,
}

impl Default for Timing {
    /// See `failure_detector` for the reasons.
    fn default() -> Self {
        Timing {
            interval: Duration::from_millis(200),
            patience: Duration::from_millis(1600),
            forget_after: Duration::from_secs(15 * 60),
        }
    }
}

/// Settings that contradict themselves.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSettings {
    #[error("the cluster's name has 1 to {MAX_CLUSTER_NAME_BYTES} bytes; this one has {0}")]
    ClusterName(usize),
    #[error("`{0}` is not a seed: expected host:port")]
    Seed(String),
    #[error("{0} cannot be advertised: other nodes need an address to send to")]
    Advertise(SocketAddr),
    #[error("a gossip interval of {0:?} is outside of {INTERVALS:?}")]
    Interval(Duration),
    #[error("a patience of {patience:?} is below {MIN_PATIENCE_ROUNDS} rounds of gossip of {interval:?}")]
    Patience { patience: Duration, interval: Duration },
    #[error("forgetting a peer after {forget_after:?} is sooner than {MIN_MEMORY} times the patience of {patience:?}")]
    ForgetAfter { forget_after: Duration, patience: Duration },
}

impl Settings {
    /// # Errors
    /// [`InvalidSettings`]: the first contradiction found.
    pub fn check(&self) -> Result<(), InvalidSettings> {
        if !(1..=MAX_CLUSTER_NAME_BYTES).contains(&self.cluster_name.len()) {
            return Err(InvalidSettings::ClusterName(self.cluster_name.len()));
        }
        if let Some(seed) = self.seeds.iter().find(|seed| seed.parse::<Address>().is_err()) {
            return Err(InvalidSettings::Seed(seed.clone()));
        }
        if self.advertise.ip().is_unspecified() {
            return Err(InvalidSettings::Advertise(self.advertise));
        }
        self.timing.check()
    }

    /// What chitchat is told, once the socket is bound to `port`.
    pub(crate) fn chitchat(&self, port: u16) -> ChitchatConfig {
        let mut advertise = self.advertise;
        if advertise.port() == 0 {
            advertise.set_port(port);
        }
        ChitchatConfig {
            chitchat_id: ChitchatId::new(self.node.to_string(), self.generation, advertise),
            cluster_id: self.cluster_name.clone(),
            gossip_interval: self.timing.interval,
            listen_addr: self.listen,
            seed_nodes: self.seeds.clone(),
            failure_detector_config: failure_detector(&self.timing),
            // Nothing is ever deleted from an announcement.
            marked_for_deletion_grace_period: self.timing.forget_after,
            catchup_callback: None,
            extra_liveness_predicate: None,
            protocol_version: ProtocolVersion::V1,
        }
    }
}

impl Timing {
    fn check(&self) -> Result<(), InvalidSettings> {
        let Timing { interval, patience, forget_after } = *self;
        if !INTERVALS.contains(&interval) {
            return Err(InvalidSettings::Interval(interval));
        }
        if patience < interval * MIN_PATIENCE_ROUNDS {
            return Err(InvalidSettings::Patience { patience, interval });
        }
        if forget_after < patience * MIN_MEMORY {
            return Err(InvalidSettings::ForgetAfter { forget_after, patience });
        }
        Ok(())
    }
}

/// How many of the latest heartbeats of a peer are remembered.
const WINDOW: usize = 10;
/// Chitchat counts its prior expectation as this many heartbeats (`SamplingWindow::new`).
const PRIOR_WEIGHT: u32 = 5;

/// Chitchat gives a peer up once it has been silent for `threshold` times the mean time between its heartbeats.
///
/// That mean alone will not do. News of a peer comes from every node, several times a round in a small cluster and less
/// often in a large one, so eight times the mean may be under a second, and a machine that is busy for a second is not
/// dead. So the window is short and the prior weighs much in it:
///
/// mean = (sum of 10 intervals + 5 × prior) / 15, with a prior of 3 rounds, is 1 round + ⅔ of the measured mean.
///
/// With `threshold` = patience / round, a peer is given up after the patience, plus ⅔ of it for each round that lies
/// between its heartbeats. By default that is 1.6 s + 0.2 to 0.5 s, since a heartbeat comes two to six times a round.
/// A peer that is heard less often, because it is slow or datagrams get lost, is given more time. One more round goes by
/// until the next look, and in larger clusters some until the last news of the dead has gone round.
///
/// Measured: of five processes on one machine, one killed was noticed by the others after 1.8 to 2.6 s. In virtual time
/// the last of 4 noticed after 2.6 s at most, the last of 8 after 2.9 s, the last of 39 after 3.2 s. Nobody was called
/// dead wrongly with half of all datagrams lost, nor when stopped for 1.4 s, nor in two minutes of a load of ten on two
/// cores.
///
/// A peer that was just met or came back has one interval in its window, so it is given (1 round × 5 × 3 / 6) = 2.5
/// times the patience: starting nodes are busy, and one that flaps should flap less.
fn failure_detector(timing: &Timing) -> FailureDetectorConfig {
    FailureDetectorConfig {
        phi_threshold: timing.patience.as_secs_f64() / timing.interval.as_secs_f64(),
        sampling_window_size: WINDOW,
        // Longer silences are not intervals between heartbeats but absences.
        max_interval: timing.patience * 2,
        initial_interval: timing.interval * (WINDOW as u32 + PRIOR_WEIGHT) / PRIOR_WEIGHT,
        dead_node_grace_period: timing.forget_after,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            cluster_name: "flock".to_owned(),
            node: NodeId(1),
            generation: 1,
            listen: ([0, 0, 0, 0], 7401).into(),
            advertise: ([10, 0, 0, 1], 0).into(),
            seeds: vec!["n2:7401".to_owned(), "10.0.0.3:7401".to_owned()],
            timing: Timing::default(),
        }
    }

    fn refusal(change: impl FnOnce(&mut Settings)) -> String {
        let mut settings = settings();
        change(&mut settings);
        settings.check().unwrap_err().to_string()
    }

    #[test]
    fn contradictions_are_refused_with_their_numbers() {
        assert_eq!(settings().check(), Ok(()));
        assert_eq!(
            refusal(|settings| settings.cluster_name.clear()),
            "the cluster's name has 1 to 255 bytes; this one has 0"
        );
        assert_eq!(refusal(|settings| settings.seeds.push("n2".to_owned())), "`n2` is not a seed: expected host:port");
        assert_eq!(
            refusal(|settings| settings.advertise = settings.listen),
            "0.0.0.0:7401 cannot be advertised: other nodes need an address to send to"
        );
        assert_eq!(
            refusal(|settings| settings.timing.interval = Duration::ZERO),
            "a gossip interval of 0ns is outside of 10ms..=10s"
        );
        assert_eq!(
            refusal(|settings| settings.timing.patience = Duration::from_millis(500)),
            "a patience of 500ms is below 4 rounds of gossip of 200ms"
        );
        assert_eq!(
            refusal(|settings| settings.timing.forget_after = Duration::from_secs(30)),
            "forgetting a peer after 30s is sooner than 20 times the patience of 1.6s"
        );
    }

    #[test]
    fn the_port_that_was_bound_is_announced_where_none_is_given() {
        let own = settings().chitchat(7401).chitchat_id;
        assert_eq!(own, ChitchatId::new("0000000000000001", 1, ([10, 0, 0, 1], 7401).into()));
    }
}
