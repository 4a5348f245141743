//! What is asked of the cluster once everything agrees: listings, and requests that have to be refused.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use starling_client::{Client, ClientError, ClientOptions};
use starling_core::ids::RequestId;
use starling_core::quorum::Level;

use crate::kernel::network::Plug;
use crate::plan::Plan;
use crate::server::MAX_OBJECT_BYTES;

/// A bucket that the clients do not use.
const BUCKET: &str = "exam";
/// Until every replica has what was acknowledged by some.
const SETTLED: Duration = Duration::from_secs(2);

/// What the cluster is, as far as it matters here.
pub struct Given {
    /// The keys of each bucket that have a value.
    pub listed: BTreeMap<&'static str, Vec<Bytes>>,
    /// No node is away.
    pub whole: bool,
}

/// Returns what went wrong.
pub async fn sit(plug: Plug, plan: &Plan, given: &Given) -> Result<(), String> {
    let options = ClientOptions { timeout: Duration::from_secs(2) };
    let client = Client::connect_over(Arc::new(plug), plan.seeds(), options).await.map_err(|e| e.to_string())?;
    list(&client, given).await?;
    refuse(&client).await?;
    let used = [(BUCKET, vec![Bytes::from("used again")])];
    list(&client, &Given { listed: used.into_iter().collect(), whole: given.whole }).await
}

async fn list(client: &Client, given: &Given) -> Result<(), String> {
    for (name, keys) in &given.listed {
        let bucket = client.bucket(name).expect("a valid name");
        match bucket.keys().await {
            Ok(page) if page.keys == *keys => {}
            Ok(page) => return Err(format!("{name} is listed as {:?}, and has {keys:?}", page.keys)),
            Err(ClientError::Incomplete(_)) if !given.whole => {}
            Err(error) => return Err(format!("{name} cannot be listed: {error}")),
        }
    }
    Ok(())
}

/// A request id that is used again, a context of another key (R5), a value that is too long.
async fn refuse(client: &Client) -> Result<(), String> {
    let bucket = client.bucket(BUCKET).expect("a valid name");
    let (first, second) = (RequestId(1), RequestId(2));
    let put = bucket.put("used again", "once").request(first).w(Level::Quorum).await;
    put.map_err(|error| format!("a write fails, although nothing is wrong: {error}"))?;
    tokio::time::sleep(SETTLED).await;
    let reused = bucket.put("used again", "another").request(first).await;
    must_be_invalid(reused, "another value under a request id that was used")?;
    let repeated = bucket.put("used again", "once").request(first).await;
    repeated.map_err(|error| format!("a write that is repeated fails: {error}"))?;

    let read = bucket.get("used again").await.map_err(|error| error.to_string())?;
    if read.values().map(AsRef::as_ref).collect::<Vec<&[u8]>>() != [b"once"] {
        return Err("a write that was refused is seen, or the one before it is not".to_owned());
    }
    let foreign = bucket.put("another key", "value").context(read.context()).request(second).await;
    must_be_invalid(foreign, "a write with the context of another key")?;

    let long = vec![b'x'; MAX_OBJECT_BYTES + 1];
    must_be_invalid(bucket.put("long", long).await, "a value that is too long")?;
    let nothing = bucket.get("another key").await.map_err(|error| error.to_string())?;
    if nothing.values().next().is_some() || nothing.is_deleted() {
        return Err("a write that was refused is seen".to_owned());
    }
    Ok(())
}

fn must_be_invalid<T>(answer: Result<T, ClientError>, what: &str) -> Result<(), String> {
    match answer {
        Err(ClientError::Invalid(_)) => Ok(()),
        Err(error) => Err(format!("{what} is not refused as invalid: {error}")),
        Ok(_) => Err(format!("{what} is accepted")),
    }
}
