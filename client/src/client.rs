//! The client itself: seeds, layout, and the way to a bucket.

use std::sync::Arc;
use std::time::Duration;

use starling_core::layout::Layout;
use starling_core::name::{BucketName, ObjectKey};
use starling_proto::data::{Location, RequestError};
use starling_proto::hello::Features;
use starling_proto::network::{Network, Tcp};

use crate::bucket::Bucket;
use crate::connection::Service;
use crate::error::ClientError;
use crate::requests::{Fetched, without_expiry};
use crate::retry::Effect;
use crate::route::{Answered, Errand, Router, Target};

/// How a client behaves unless a request says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientOptions {
    /// Everything done for one request, retries included, ends within this.
    pub timeout: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        ClientOptions { timeout: Duration::from_secs(5) }
    }
}

/// A client of one cluster. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Client {
    pub(crate) router: Arc<Router>,
    pub(crate) options: ClientOptions,
}

impl Client {
    /// Learns the cluster's layout from the first of the seeds (`host:port`) that has one.
    ///
    /// # Errors
    /// [`ClientError::Unavailable`] if no seed answers, or none belongs to a cluster yet.
    pub async fn connect<S: Into<String>>(seeds: impl IntoIterator<Item = S>) -> Result<Client, ClientError> {
        Client::connect_with(seeds, ClientOptions::default()).await
    }

    /// As [`Client::connect`], with options.
    ///
    /// # Errors
    /// As for [`Client::connect`].
    pub async fn connect_with<S: Into<String>>(
        seeds: impl IntoIterator<Item = S>,
        options: ClientOptions,
    ) -> Result<Client, ClientError> {
        Client::connect_over(Arc::new(Tcp), seeds, options).await
    }

    /// As [`Client::connect_with`], over any network. All that the client does from then on goes over it.
    ///
    /// # Errors
    /// As for [`Client::connect`].
    pub async fn connect_over<S: Into<String>>(
        network: Arc<dyn Network>,
        seeds: impl IntoIterator<Item = S>,
        options: ClientOptions,
    ) -> Result<Client, ClientError> {
        let seeds = seeds.into_iter().map(Into::into).collect();
        let router = Router::learn(network, seeds, options.timeout).await?;
        Ok(Client { router: Arc::new(router), options })
    }

    /// The same client, over the same connections, whose requests end within another time.
    pub fn with_timeout(&self, timeout: Duration) -> Client {
        Client { router: Arc::clone(&self.router), options: ClientOptions { timeout } }
    }

    /// # Errors
    /// [`ClientError::Invalid`] if that cannot be a bucket's name.
    pub fn bucket(&self, name: &str) -> Result<Bucket, ClientError> {
        let name: BucketName = name.parse().map_err(invalid)?;
        Ok(Bucket { client: self.clone(), name })
    }

    /// The buckets that hold keys, or held some that were deleted.
    ///
    /// ```no_run
    /// # async fn example(client: starling_client::Client) -> Result<(), starling_client::ClientError> {
    /// for bucket in client.buckets().await? {
    ///     println!("{bucket}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ClientError::Incomplete`] if too few nodes are up to be sure of all.
    pub async fn buckets(&self) -> Result<Vec<BucketName>, ClientError> {
        let errand = self.errand(Target::Anyone);
        let call = |client: Service, context| async move { client.buckets(context).await };
        self.router.call(&errand, call).await.map(|answered| answered.answer)
    }

    /// The layout that the client routes by.
    pub fn layout(&self) -> Arc<Layout> {
        self.router.layout()
    }

    /// Where a key lives, and what each of its replicas says.
    ///
    /// ```no_run
    /// # async fn example(client: starling_client::Client) -> Result<(), starling_client::ClientError> {
    /// let location = client.locate("carts", "alice").await?;
    /// println!("{} in partition {}", location.token, location.preference.partition());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ClientError::Unavailable`] if no node answers.
    pub async fn locate(&self, bucket: &str, key: impl Into<bytes::Bytes>) -> Result<Location, ClientError> {
        let key = object_key(&bucket.parse().map_err(invalid)?, key.into())?;
        let call = move |client: Service, context| {
            let key = key.clone();
            async move { client.locate(context, key).await }
        };
        self.router.call(&self.errand(Target::Anyone), call).await.map(|answered| answered.answer)
    }

    /// What one node holds of a key: its own copy, and nobody else's word. `node` is a member's name or its `host:port`.
    ///
    /// ```no_run
    /// # async fn example(client: starling_client::Client) -> Result<(), starling_client::ClientError> {
    /// let own = client.get_replica("n2", "carts", "alice").await?;
    /// println!("n2 holds {} siblings", own.siblings().len());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ClientError::Invalid`] if there is no such member, [`ClientError::Unavailable`] if it does not answer.
    pub async fn get_replica(
        &self,
        node: &str,
        bucket: &str,
        key: impl Into<bytes::Bytes>,
    ) -> Result<Fetched, ClientError> {
        let key = object_key(&bucket.parse().map_err(invalid)?, key.into())?;
        self.router.check_node(node)?;
        let call = move |client: Service, context| {
            let key = key.clone();
            async move {
                if client.has(Features::EXPIRY) {
                    return client.get_own_lasting(context, key).await;
                }
                Ok(client.get_own(context, key).await?.map(without_expiry))
            }
        };
        let Answered { answer: got, via, .. } =
            self.router.call(&self.errand(Target::Node(node.to_owned())), call).await?;
        Ok(Fetched::new(got, via))
    }

    /// To ask something without changing anything.
    fn errand(&self, target: Target) -> Errand {
        Errand { target, effect: Effect::Nothing, timeout: self.options.timeout }
    }
}

pub(crate) fn invalid(error: impl std::fmt::Display) -> ClientError {
    ClientError::Invalid(error.to_string())
}

pub(crate) fn object_key(bucket: &BucketName, key: bytes::Bytes) -> Result<ObjectKey, ClientError> {
    ObjectKey::new(bucket.clone(), key).map_err(invalid)
}

/// What a node's refusal means to the caller, if asking another node cannot help.
pub(crate) fn final_error(error: RequestError, address: &str) -> ClientError {
    match error {
        RequestError::Invalid(reason) => ClientError::Invalid(reason),
        RequestError::ReadQuorumNotMet { quorum, counted, replicas } => {
            ClientError::ReadQuorumNotMet { quorum, counted, replicas }
        }
        RequestError::WriteOutcomeUnknown { quorum, acknowledged, replicas } => {
            ClientError::WriteQuorumNotMet { quorum, acknowledged, replicas }
        }
        RequestError::Incomplete(_) => ClientError::Incomplete(error.to_string()),
        RequestError::Refused(_) | RequestError::NotServing(_) | RequestError::Internal(_) => {
            ClientError::Internal { address: address.to_owned(), reason: error.to_string() }
        }
    }
}
