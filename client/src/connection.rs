//! One connection to each node, dialled when first needed.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use starling_core::ids::ClusterId;
use starling_proto::connection::{client_limits, client_transport};
use starling_proto::data::DataServiceClient;
use starling_proto::hello::{Class, Features, Hello, HelloError};
use starling_proto::network::{ByteStream, Network, dial};

/// Dialling takes at most this long.
const DIAL_LIMIT: Duration = Duration::from_millis(1000);

/// A connection that stands. Its identity, not its address, says which one broke.
pub(crate) type Connection = Arc<Service>;

/// What a node can be asked for.
#[derive(Clone)]
pub(crate) struct Service {
    client: DataServiceClient,
    features: Features,
}

impl Service {
    fn over(stream: impl ByteStream, features: Features) -> Service {
        Service { client: DataServiceClient::new(client_limits(), client_transport(stream)).spawn(), features }
    }

    pub fn has(&self, features: Features) -> bool {
        self.features.include(features)
    }
}

impl Deref for Service {
    type Target = DataServiceClient;

    fn deref(&self) -> &DataServiceClient {
        &self.client
    }
}

/// Connections by address. One that broke is dialled anew by the next request.
pub(crate) struct Pool {
    network: Arc<dyn Network>,
    slots: Mutex<BTreeMap<String, Arc<Slot>>>,
}

/// Room for one connection to one address.
#[derive(Default)]
struct Slot {
    live: Mutex<Option<Connection>>,
    /// Whoever comes first dials; the others wait for that.
    dialling: tokio::sync::Mutex<()>,
}

impl Pool {
    pub fn new(network: Arc<dyn Network>) -> Pool {
        Pool { network, slots: Mutex::default() }
    }

    pub fn network(&self) -> &dyn Network {
        &*self.network
    }

    pub async fn get(&self, address: &str, cluster: Option<ClusterId>) -> Result<Connection, HelloError> {
        let slot = self.slot(address);
        if let Some(connection) = slot.live() {
            return Ok(connection);
        }
        let _mine = slot.dialling.lock().await;
        if let Some(connection) = slot.live() {
            return Ok(connection);
        }
        let (stream, welcome) =
            dial(&*self.network, address, &Hello::of_client(Class::Data, cluster), DIAL_LIMIT).await?;
        Ok(slot.keep(Arc::new(Service::over(stream, welcome.features))))
    }

    /// Whether the node takes a client of this cluster for its own: as it does also once it has gone on by another id.
    pub async fn welcomes(&self, address: &str, ours: ClusterId) -> bool {
        let hello = Hello::of_client(Class::Data, Some(ours));
        dial(&*self.network, address, &hello, DIAL_LIMIT).await.is_ok()
    }

    /// Forgets a connection that broke. One that was dialled in its place meanwhile stays.
    pub fn forget(&self, address: &str, broken: &Connection) {
        self.slot(address).forget(broken);
    }

    fn slot(&self, address: &str) -> Arc<Slot> {
        let mut slots = lock(&self.slots);
        Arc::clone(slots.entry(address.to_owned()).or_default())
    }
}

impl Slot {
    fn live(&self) -> Option<Connection> {
        lock(&self.live).clone()
    }

    fn keep(&self, connection: Connection) -> Connection {
        *lock(&self.live) = Some(Arc::clone(&connection));
        connection
    }

    fn forget(&self, broken: &Connection) {
        lock(&self.live).take_if(|live| Arc::ptr_eq(live, broken));
    }
}

pub(crate) const fn dial_limit() -> Duration {
    DIAL_LIMIT
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_dialled_in_place_of_a_broken_one_stays() {
        let connection = || {
            let (stream, _other_end) = tokio::io::duplex(64);
            Arc::new(Service::over(stream, Features::default()))
        };
        let slot = Slot::default();
        let (broken, fresh) = (slot.keep(connection()), connection());
        slot.forget(&broken);
        assert!(slot.live().is_none());
        slot.keep(Arc::clone(&fresh));
        slot.forget(&broken);
        assert!(slot.live().is_some_and(|live| Arc::ptr_eq(&live, &fresh)), "two requests had met the same break");
    }
}
