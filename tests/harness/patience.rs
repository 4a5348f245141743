//! How long a test waits, and how much it does.

use std::env;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(25);

/// Waits until `condition` holds, and fails the test with its last reason if it never does.
pub async fn eventually<T, F>(what: &str, condition: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let held = until(Instant::now() + patience(), condition).await;
    held.unwrap_or_else(|reason| panic!("never happened: {what}; at last: {reason}"))
}

/// Waits until `condition` holds, but no longer than until the deadline: then it is as it is.
pub(crate) async fn until<T, E, F>(deadline: Instant, mut condition: impl FnMut() -> F) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    loop {
        match condition().await {
            Err(_) if Instant::now() < deadline => tokio::time::sleep(POLL).await,
            ended => return ended,
        }
    }
}

/// Generous: only a hang reaches it. A long variant leaves more behind that has to be waited for.
pub(crate) fn patience() -> Duration {
    usually(Duration::from_secs(90), Duration::from_secs(300))
}

/// One of two sizes: that of `make test`, or that of `make soak`.
pub fn usually<T>(short: T, long: T) -> T {
    if env::var_os("STARLING_SOAK").is_some() { long } else { short }
}
