//! Administration of one node.

use std::time::{Duration, Instant};

use starling_core::layout::Layout;
use starling_proto::call_within;
use starling_proto::connection::{client_limits, client_transport};
use starling_proto::control::{ClusterView, ControlError, ControlServiceClient, Init, NodeStatus};
use starling_proto::hello::{Class, Hello};
use starling_proto::network::{Network, Tcp, dial};

use crate::connection::dial_limit;
use crate::error::{Attempt, ClientError};
use crate::seeds::first_answer;

/// A connection for administration.
pub struct ControlClient {
    address: String,
    client: ControlServiceClient,
}

impl ControlClient {
    /// # Errors
    /// [`ClientError::Unavailable`] if the node cannot be reached.
    pub async fn connect(address: &str) -> Result<ControlClient, ClientError> {
        ControlClient::connect_over(&Tcp, address).await
    }

    /// As [`ControlClient::connect`], over any network.
    ///
    /// # Errors
    /// As for [`ControlClient::connect`].
    pub async fn connect_over(network: &dyn Network, address: &str) -> Result<ControlClient, ClientError> {
        let dialled = dial(network, address, &Hello::of_client(Class::Control, None), dial_limit()).await;
        let (stream, _welcome) = dialled.map_err(|error| {
            let attempt = Attempt { address: address.to_owned(), reason: error.to_string() };
            ClientError::Unavailable { tried: vec![attempt] }
        })?;
        let client = ControlServiceClient::new(client_limits(), client_transport(stream)).spawn();
        Ok(ControlClient { address: address.to_owned(), client })
    }

    /// The first of the addresses (`host:port`) that answers within `within`, and the cluster as it sees it. The next is
    /// asked too when one fails, or says nothing for a while.
    ///
    /// # Errors
    /// [`ClientError::Unavailable`] if none does.
    pub async fn connect_any<S: Into<String>>(
        addresses: impl IntoIterator<Item = S>,
        within: Duration,
    ) -> Result<(ControlClient, ClusterView), ClientError> {
        let ask = |address: String| async move {
            let control = ControlClient::connect(&address).await.map_err(only_reason)?;
            let view = control.cluster(within).await.map_err(only_reason)?;
            Ok((control, view))
        };
        first_answer(addresses.into_iter().map(Into::into), Instant::now() + within, ask).await
    }

    /// How this node is.
    ///
    /// # Errors
    /// [`ClientError::DeadlinePassed`] if it does not answer within `within`.
    pub async fn status(&self, within: Duration) -> Result<NodeStatus, ClientError> {
        self.client.status(call_within(within)).await.map_err(|error| self.silent(&error))
    }

    /// The cluster as this node sees it.
    ///
    /// # Errors
    /// [`ClientError::DeadlinePassed`] if it does not answer within `within`.
    pub async fn cluster(&self, within: Duration) -> Result<ClusterView, ClientError> {
        self.client.cluster(call_within(within)).await.map_err(|error| self.silent(&error))
    }

    /// Makes layout version 1 for the members named.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] if that cannot be, [`ClientError::Incomplete`] if it has to be run again.
    pub async fn init(&self, init: Init, within: Duration) -> Result<Layout, ClientError> {
        let outcome = self.client.init(call_within(within), init).await.map_err(|error| self.silent(&error))?;
        outcome.map_err(|error| match error {
            ControlError::Incomplete(_) => ClientError::Incomplete(error.to_string()),
            ControlError::Internal(reason) => ClientError::Internal { address: self.address.clone(), reason },
            ControlError::Invalid(_) | ControlError::AlreadyMember(_) => ClientError::Invalid(error.to_string()),
        })
    }

    fn silent(&self, error: &starling_proto::RpcError) -> ClientError {
        let attempt = Attempt { address: self.address.clone(), reason: error.to_string() };
        ClientError::DeadlinePassed { tried: vec![attempt] }
    }
}

/// Why the only node that was asked did not help, without its address.
fn only_reason(error: ClientError) -> String {
    match error {
        ClientError::Unavailable { mut tried } | ClientError::DeadlinePassed { mut tried } if tried.len() == 1 => {
            tried.remove(0).reason
        }
        other => other.to_string(),
    }
}
