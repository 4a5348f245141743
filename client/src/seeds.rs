//! Asking one address after another, until somebody answers.

use std::time::{Duration, Instant};

use futures::stream::{FuturesUnordered, StreamExt as _};

use crate::error::{Attempt, ClientError};

/// As long a silent node is waited for before the next one is asked as well.
const PATIENCE: Duration = Duration::from_millis(100);

/// The first answer. The next address is asked too when one fails, or says nothing for a while.
///
/// # Errors
/// [`ClientError::Unavailable`] if nobody has answered by `deadline`.
pub(crate) async fn first_answer<T, F>(
    addresses: impl IntoIterator<Item = String>,
    deadline: Instant,
    ask: impl Fn(String) -> F,
) -> Result<T, ClientError>
where
    F: Future<Output = Result<T, String>>,
{
    let (mut addresses, mut asked, mut tried) = (addresses.into_iter(), FuturesUnordered::new(), Vec::new());
    loop {
        let next = addresses.next();
        let is_last = next.is_none();
        asked.extend(next.map(|address| async {
            let answer = tokio::time::timeout_at(deadline.into(), ask(address.clone())).await;
            (answer.unwrap_or_else(|_elapsed| Err("did not answer in time".to_owned())), address)
        }));
        let patience = (Instant::now() + PATIENCE).min(deadline);
        tokio::select! {
            Some((answer, address)) = asked.next() => match answer {
                Ok(answer) => return Ok(answer),
                Err(reason) => tried.push(Attempt { address, reason }),
            },
            () = tokio::time::sleep_until(patience.into()), if !is_last => {}
            else => return Err(ClientError::Unavailable { tried }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(address: String) -> Result<String, String> {
        match address.as_str() {
            "silent" => std::future::pending().await,
            "down" => Err("is down".to_owned()),
            _ => Ok(address),
        }
    }

    async fn first(addresses: &[&str], within: Duration) -> Result<String, ClientError> {
        let addresses: Vec<String> = addresses.iter().map(|address| (*address).to_owned()).collect();
        first_answer(addresses, Instant::now() + within, ask).await
    }

    #[tokio::test]
    async fn neither_silence_nor_failure_keeps_from_asking_the_next() {
        assert_eq!(first(&["silent", "down", "a"], Duration::from_secs(5)).await.unwrap(), "a");
    }

    #[tokio::test]
    async fn everybody_silent_ends_at_the_deadline() {
        let began = Instant::now();
        let error = first(&["silent", "down", "silent"], Duration::from_millis(150)).await.unwrap_err();
        assert!(matches!(error, ClientError::Unavailable { tried } if tried.len() == 3));
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
}
