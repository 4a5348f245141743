//! One node, asked without a client that would turn to another.

use bytes::Bytes;
use starling_core::ids::RequestId;
use starling_core::name::{BucketName, ObjectKey};
use starling_core::object::Value;
use starling_core::quorum::Level;
use starling_proto::call_within;
use starling_proto::connection::{client_limits, client_transport};
use starling_proto::data::{DataServiceClient, Keys, MAX_PAGE, Put, RequestError, Written};
use starling_proto::hello::{Class, Hello, HelloError};
use starling_proto::network::{Tcp, dial};

use crate::CALL;

pub struct Direct {
    service: DataServiceClient,
}

impl Direct {
    pub(crate) async fn dial(address: &str) -> Direct {
        Direct::try_dial(address).await.unwrap()
    }

    pub(crate) async fn try_dial(address: &str) -> Result<Direct, HelloError> {
        let hello = Hello::of_client(Class::Data, None);
        let (stream, _welcome) = dial(&Tcp, address, &hello, CALL).await?;
        Ok(Direct { service: DataServiceClient::new(client_limits(), client_transport(stream)).spawn() })
    }

    /// The first of the replicas that the answer reports is the coordinator.
    pub async fn put(&self, put: Put) -> Result<Written, RequestError> {
        self.service.put(call_within(CALL), put).await.expect("the node answers")
    }

    /// The first page of a bucket's keys.
    pub async fn keys(&self, bucket: &str) -> Result<Vec<Bytes>, RequestError> {
        let keys = Keys { bucket: bucket.parse().unwrap(), prefix: Bytes::new(), after: None, limit: MAX_PAGE };
        Ok(self.service.keys(call_within(CALL), keys).await.expect("the node answers")?.keys)
    }

    pub async fn buckets(&self) -> Result<Vec<BucketName>, RequestError> {
        self.service.buckets(call_within(CALL)).await.expect("the node answers")
    }
}

/// A write without context, at default levels.
pub fn put_request(bucket: &str, key: &str, value: &str, request: RequestId) -> Put {
    Put {
        key: ObjectKey::new(bucket.parse().unwrap(), key.to_owned()).unwrap(),
        value: Value::Live(Bytes::copy_from_slice(value.as_bytes())),
        context: None,
        request,
        w: Level::Default,
        pw: Level::Default,
        r: Level::Default,
    }
}
