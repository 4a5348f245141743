use std::net::SocketAddr;

use crate::settings::InvalidSettings;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why there is no gossip.
#[derive(Debug, thiserror::Error)]
pub enum GossipError {
    #[error(transparent)]
    Settings(#[from] InvalidSettings),
    #[error("cannot listen for gossip on {listen}/udp")]
    Bind { listen: SocketAddr, source: Source },
    /// The names of the seeds are looked up one after another before gossip starts.
    #[error("gossip did not start within {} s: do the names of its seeds resolve?", crate::gossip::START_LIMIT.as_secs())]
    SlowStart,
    #[error("gossip could not start")]
    Start { source: Source },
    /// This node hears no more of the others, nor they of it: it should stop too.
    #[error("gossip ended by itself: {reason}")]
    Ended { reason: String },
    #[error("gossip did not stop within {} s and was cut off", crate::gossip::STOP_LIMIT.as_secs())]
    SlowStop,
}
