//! One connection to each node, dialled when first needed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use starling_core::ids::ClusterId;
use starling_proto::BUILD;
use starling_proto::connection::{client_limits, client_transport, dial_tcp};
use starling_proto::data::DataServiceClient;
use starling_proto::hello::{Class, Features, Hello, HelloError, PROTOCOLS};

/// Dialling takes at most this long.
const DIAL_LIMIT: Duration = Duration::from_millis(1000);

/// Connections by address. One that broke is dialled anew by the next request.
#[derive(Default)]
pub(crate) struct Pool {
    slots: Mutex<BTreeMap<String, Arc<Slot>>>,
}

/// Holds at most one connection; whoever comes first dials, the others wait for it.
type Slot = tokio::sync::Mutex<Option<DataServiceClient>>;

impl Pool {
    pub async fn get(&self, address: &str, cluster: Option<ClusterId>) -> Result<DataServiceClient, HelloError> {
        let slot = self.slot(address);
        let mut connection = slot.lock().await;
        if let Some(client) = &*connection {
            return Ok(client.clone());
        }
        let (stream, _welcome) = dial_tcp(address, &greeting(Class::Data, cluster), DIAL_LIMIT).await?;
        let client = DataServiceClient::new(client_limits(), client_transport(stream)).spawn();
        *connection = Some(client.clone());
        Ok(client)
    }

    /// Forgets a broken connection.
    pub fn forget(&self, address: &str) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).remove(address);
    }

    fn slot(&self, address: &str) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(address.to_owned()).or_default())
    }
}

pub(crate) fn greeting(class: Class, cluster: Option<ClusterId>) -> Hello {
    let build = BUILD.to_owned();
    Hello { class, protocols: PROTOCOLS, cluster, from: None, features: Features::default(), build }
}

pub(crate) const fn dial_limit() -> Duration {
    DIAL_LIMIT
}
