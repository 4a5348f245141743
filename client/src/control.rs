//! Administration of one node.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use starling_core::change::Change;
use starling_core::layout::{Layout, LayoutChecksum};
use starling_core::name::NodeName;
use starling_core::ring::{Entry, Epoch};
use starling_core::settings::{Registers, Settings};
use starling_core::token::Partition;
use starling_proto::connection::{client_limits, client_transport};
use starling_proto::control::{
    ClusterView, Committed, ControlError, ControlServiceClient, FillingUp, Force, Forced, Init, NodeStatus, Plan,
    RepairScope, Repairing, Set, Tombstones, Transfers, Transition, VerifiedPage,
};
use starling_proto::hello::{Class, Features, Hello};
use starling_proto::network::{Network, Tcp, dial};
use starling_proto::{RpcError, call_within};

use crate::connection::dial_limit;
use crate::error::{Attempt, ClientError};
use crate::seeds::first_answer;

/// A connection for administration.
pub struct ControlClient {
    address: String,
    client: ControlServiceClient,
    features: Features,
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
        let (stream, welcome) = dialled.map_err(|error| {
            let attempt = Attempt { address: address.to_owned(), reason: error.to_string() };
            ClientError::Unavailable { tried: vec![attempt] }
        })?;
        let client = ControlServiceClient::new(client_limits(), client_transport(stream)).spawn();
        Ok(ControlClient { address: address.to_owned(), client, features: welcome.features })
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
        self.told(self.client.init(call_within(within), init).await)
    }

    /// Stages changes of the ring on this node, behind those that are; tells what all of them come to.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] if they are not possible; nothing is staged then.
    pub async fn stage(&self, changes: Vec<Change>, within: Duration) -> Result<Plan, ClientError> {
        self.told(self.client.stage(call_within(within), changes).await)
    }

    /// Forgets what is staged on this node; tells what it was.
    ///
    /// # Errors
    /// [`ClientError::Internal`] if that cannot be made durable.
    pub async fn unstage(&self, within: Duration) -> Result<Vec<Change>, ClientError> {
        self.told(self.client.unstage(call_within(within)).await)
    }

    /// What the changes staged on this node come to; none if nothing is staged.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] if they are not possible any more.
    pub async fn plan(&self, within: Duration) -> Result<Option<Plan>, ClientError> {
        self.told(self.client.plan(call_within(within)).await)
    }

    /// Has a plan that was shown chosen as the next layout.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] if it is no longer what is staged, [`ClientError::Incomplete`] if too few members answer.
    pub async fn commit(&self, plan: LayoutChecksum, within: Duration) -> Result<Committed, ClientError> {
        self.told(self.client.commit(call_within(within), plan).await)
    }

    /// Where the change of the layout stands that is under way.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] if the node belongs to no cluster.
    pub async fn transition(&self, within: Duration) -> Result<Transition, ClientError> {
        self.told(self.client.transition(call_within(within)).await)
    }

    /// What this node has to move because the ring changed, and how it goes.
    ///
    /// # Errors
    /// [`ClientError::DeadlinePassed`] if it does not answer within `within`.
    pub async fn transfers(&self, within: Duration) -> Result<Transfers, ClientError> {
        self.client.transfers(call_within(within)).await.map_err(|error| self.silent(&error))
    }

    /// Has this node compare what it holds with its peers now; returns the number by which to ask how far that is.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] if the node does not serve.
    pub async fn repair(&self, scope: RepairScope, within: Duration) -> Result<u64, ClientError> {
        self.told(self.client.repair(call_within(within), scope).await)
    }

    /// How far a repair is that was begun on this node since its start; none if it is long over, or never was.
    ///
    /// # Errors
    /// [`ClientError::DeadlinePassed`] if it does not answer within `within`.
    pub async fn repairing(&self, number: u64, within: Duration) -> Result<Option<Repairing>, ClientError> {
        self.client.repairing(call_within(within), number).await.map_err(|error| self.silent(&error))
    }

    /// What this node has yet to be compared with before it counts in reads, since its directory is new (R8).
    ///
    /// # Errors
    /// [`ClientError::DeadlinePassed`] if it does not answer within `within`.
    pub async fn filling(&self, within: Duration) -> Result<FillingUp, ClientError> {
        self.client.filling(call_within(within)).await.map_err(|error| self.silent(&error))
    }

    /// The tombstones of the partitions whose reaping this node leads, and what they wait for.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] if the node does not serve.
    pub async fn tombstones(&self, within: Duration) -> Result<Tombstones, ClientError> {
        self.told(self.client.tombstones(call_within(within)).await)
    }

    /// The plain settings of all buckets, as this node goes by them.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] if its build knows of none.
    pub async fn settings(&self, within: Duration) -> Result<Settings, ClientError> {
        self.check_settings()?;
        self.client.settings(call_within(within)).await.map_err(|error| self.silent(&error))
    }

    /// Changes settings of a bucket on this node, from where they spread within seconds; tells what is set of that bucket
    /// then.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] if they make no sense, the node does not serve, or its build knows of none.
    pub async fn set(&self, set: Set, within: Duration) -> Result<Registers, ClientError> {
        self.check_settings()?;
        self.told(self.client.set(call_within(within), set).await)
    }

    /// What it would come to if these members were given up by force.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] if that cannot be, or need not be, or the build of the node knows of no such thing.
    pub async fn force_plan(&self, dead: BTreeSet<NodeName>, within: Duration) -> Result<Plan, ClientError> {
        self.check_force()?;
        self.told(self.client.force_plan(call_within(within), dead).await)
    }

    /// Gives members up that are gone for good, with all that they hold, although nothing can be chosen without them: all who
    /// are left agree, and are another cluster from then on.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] as for [`ControlClient::force_plan`]; [`ClientError::Incomplete`] if not all have agreed yet:
    /// it may still come to that, and the same call goes on with it.
    pub async fn force(&self, request: Force, within: Duration) -> Result<Forced, ClientError> {
        self.check_force()?;
        self.told(self.client.force(call_within(within), request).await)
    }

    fn check_force(&self) -> Result<(), ClientError> {
        self.check_feature(Features::FORCE, "cannot give members up by force")
    }

    fn check_settings(&self) -> Result<(), ClientError> {
        self.check_feature(Features::SETTINGS, "knows of no settings of buckets")
    }

    fn check_feature(&self, feature: Features, lack: &str) -> Result<(), ClientError> {
        if self.features.include(feature) {
            return Ok(());
        }
        Err(ClientError::Invalid(format!("the build of {} {lack}", self.address)))
    }

    /// Checks what this node holds against itself, some partitions from this one on.
    ///
    /// # Errors
    /// [`ClientError::Internal`] if its disk cannot be read at all.
    pub async fn verify(&self, from: Partition, within: Duration) -> Result<VerifiedPage, ClientError> {
        self.told(self.client.verify(call_within(within), from).await)
    }

    /// The whole layout log.
    ///
    /// # Errors
    /// [`ClientError::Internal`] if it cannot be read there.
    pub async fn log(&self, within: Duration) -> Result<Vec<Entry>, ClientError> {
        let deadline = Instant::now() + within;
        let mut log: Vec<Entry> = Vec::new();
        loop {
            let after = log.last().map_or(Epoch(0), |last| last.epoch);
            let left = deadline.saturating_duration_since(Instant::now());
            let page = self.told(self.client.log(call_within(left), after).await)?;
            if page.is_empty() {
                return Ok(log);
            }
            log.extend(page);
        }
    }

    fn told<T>(&self, outcome: Result<Result<T, ControlError>, RpcError>) -> Result<T, ClientError> {
        outcome.map_err(|error| self.silent(&error))?.map_err(|error| match error {
            ControlError::Incomplete(_) | ControlError::Waiting(_) => ClientError::Incomplete(error.to_string()),
            ControlError::Internal(reason) => ClientError::Internal { address: self.address.clone(), reason },
            ControlError::Invalid(_) | ControlError::AlreadyMember(_) => ClientError::Invalid(error.to_string()),
        })
    }

    fn silent(&self, error: &RpcError) -> ClientError {
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
