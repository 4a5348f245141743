//! How long a test waits, and how much it does.

use std::env;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(25);

/// Waits until `condition` holds, and fails the test with its last reason if it never does.
pub async fn eventually<T, F>(what: &str, mut condition: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let deadline = Instant::now() + patience();
    loop {
        match condition().await {
            Ok(value) => return value,
            Err(reason) => assert!(Instant::now() < deadline, "never happened: {what}; at last: {reason}"),
        }
        tokio::time::sleep(POLL).await;
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
