//! What a node needs of the world around it, and takes as given.
//!
//! In production that is TCP, the system's clock, and a pool of threads that may block. Where a whole cluster runs in one
//! process in simulated time, all three are simulated. Time that passes is tokio's, which can be simulated without us.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use starling_core::wall::WallTime;
use starling_proto::network::{Network, Tcp};
use tokio::sync::oneshot;

/// What a node is started with, apart from its configuration and its own parts.
#[derive(Clone)]
pub struct Environment {
    /// Over which connections to other nodes are opened.
    pub network: Arc<dyn Network>,
    pub wall: Arc<dyn WallClock>,
    pub blocking: Arc<dyn Blocking>,
}

impl Environment {
    /// The machine's.
    pub fn production() -> Environment {
        Environment { network: Arc::new(Tcp), wall: Arc::new(SystemClock), blocking: Arc::new(BlockingThreads) }
    }

    /// Does what blocks where that is allowed, and returns what came of it.
    ///
    /// # Errors
    /// [`Unfinished`] if the work panicked.
    pub async fn block<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Unfinished> {
        let (done, result) = oneshot::channel();
        // Nobody may wait for the result any more.
        self.blocking.run(Box::new(move || drop(done.send(work())))).await?;
        result.await.map_err(|_dropped| Unfinished("it was never begun".to_owned()))
    }
}

/// The time of day: what stamps are made of, and what clocks of nodes are compared by.
pub trait WallClock: Send + Sync + 'static {
    fn now(&self) -> WallTime;
}

#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl WallClock for SystemClock {
    fn now(&self) -> WallTime {
        WallTime(0).after(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO))
    }
}

/// Something that blocks on the disk.
pub type Work = Box<dyn FnOnce() + Send>;

/// Work that did not come to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unfinished(pub String);

/// Runs what blocks on the disk.
pub trait Blocking: Send + Sync + 'static {
    /// Returns when the work is done. If the future is dropped before, the work may be done all the same, or not begun.
    fn run(&self, work: Work) -> BoxFuture<'_, Result<(), Unfinished>>;
}

/// tokio's pool of threads. How many there are at once is the runtime's to say.
#[derive(Debug, Clone, Copy, Default)]
pub struct BlockingThreads;

impl Blocking for BlockingThreads {
    fn run(&self, work: Work) -> BoxFuture<'_, Result<(), Unfinished>> {
        let running = tokio::task::spawn_blocking(work);
        async { running.await.map_err(|panic| Unfinished(panic.to_string())) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_in_what_blocks_is_told_and_harms_nobody_else() {
        let environment = Environment::production();
        let panicked = environment.block(|| panic!("a test asked for this panic")).await;
        assert!(matches!(panicked, Err(Unfinished(reason)) if reason.contains("a test asked for this panic")));
        assert_eq!(environment.block(|| 7).await, Ok(7));
    }
}
