//! The verbs of a session's bucket: those of [`starling_client::Bucket`], recorded.

use std::future::IntoFuture;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use starling_client::{ClientError, Context, Fetched, Stored};
use starling_core::ids::RequestId;
use starling_core::name::ObjectKey;
use starling_core::quorum::Level;

use crate::recorder::{Levels, Session};

/// A bucket as a session sees it.
#[derive(Clone)]
pub struct Bucket {
    session: Session,
    bucket: starling_client::Bucket,
}

impl Bucket {
    pub(crate) fn new(session: Session, bucket: starling_client::Bucket) -> Bucket {
        Bucket { session, bucket }
    }

    pub fn get(&self, key: impl Into<Bytes>) -> Get {
        let levels = Levels::default();
        Get { bucket: self.clone(), key: key.into(), levels, waits_for_repair: false, timeout: None }
    }

    /// No value may be written to a key twice, except under one request id.
    pub fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Write {
        self.write(key.into(), Some(value.into()))
    }

    pub fn delete(&self, key: impl Into<Bytes>) -> Write {
        self.write(key.into(), None)
    }

    fn write(&self, key: Bytes, value: Option<Bytes>) -> Write {
        let levels = Levels::default();
        Write { bucket: self.clone(), key, value, context: None, request: None, levels, timeout: None }
    }
}

/// A read, ready to be refined and awaited.
#[must_use = "a request is sent when it is awaited"]
pub struct Get {
    bucket: Bucket,
    key: Bytes,
    levels: Levels,
    waits_for_repair: bool,
    timeout: Option<Duration>,
}

impl Get {
    pub fn r(mut self, r: Level) -> Get {
        self.levels.all = r;
        self
    }

    pub fn pr(mut self, pr: Level) -> Get {
        self.levels.primaries = pr;
        self
    }

    pub fn wait_for_repair(mut self, wait: bool) -> Get {
        self.waits_for_repair = wait;
        self
    }

    pub fn timeout(mut self, timeout: Duration) -> Get {
        self.timeout = Some(timeout);
        self
    }

    async fn send(self) -> Result<Fetched, ClientError> {
        let Get { bucket: Bucket { session, bucket }, key, levels, waits_for_repair, timeout } = self;
        let get = bucket.get(key.clone()).r(levels.all).pr(levels.primaries).wait_for_repair(waits_for_repair);
        let get = timeout.into_iter().fold(get, starling_client::Get::timeout);
        let key = object_key(&bucket, &key);
        session.read(key, levels, waits_for_repair, get.into_future()).await
    }
}

impl IntoFuture for Get {
    type Output = Result<Fetched, ClientError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.send().boxed()
    }
}

/// A put or a delete, ready to be refined and awaited.
#[must_use = "a request is sent when it is awaited"]
pub struct Write {
    bucket: Bucket,
    key: Bytes,
    /// None deletes.
    value: Option<Bytes>,
    context: Option<Context>,
    request: Option<RequestId>,
    levels: Levels,
    timeout: Option<Duration>,
}

impl Write {
    pub fn context(mut self, context: impl Into<Option<Context>>) -> Write {
        self.context = context.into();
        self
    }

    pub fn w(mut self, w: Level) -> Write {
        self.levels.all = w;
        self
    }

    pub fn pw(mut self, pw: Level) -> Write {
        self.levels.primaries = pw;
        self
    }

    /// Writes with one id are one operation.
    pub fn request(mut self, request: RequestId) -> Write {
        self.request = Some(request);
        self
    }

    pub fn timeout(mut self, timeout: Duration) -> Write {
        self.timeout = Some(timeout);
        self
    }

    async fn send(self) -> Result<Stored, ClientError> {
        let (request, sending) = self.to_send();
        let key = object_key(&self.bucket.bucket, &self.key);
        let context = self.context.as_ref().map(Context::as_bytes);
        let pending = self.bucket.session.begin_write(key, request, self.value.as_ref(), context, self.levels);
        let outcome = sending.await;
        pending.end(&outcome);
        outcome
    }

    fn to_send(&self) -> (RequestId, BoxFuture<'static, Result<Stored, ClientError>>) {
        let (bucket, key, Levels { all, primaries }) = (&self.bucket.bucket, self.key.clone(), self.levels);
        // A put and a delete are refined alike, and are of different types.
        macro_rules! refined {
            ($write:expr) => {{
                let write = $write.context(self.context.clone()).w(all).pw(primaries);
                let write = self.timeout.into_iter().fold(write, |write, timeout| write.timeout(timeout));
                let write = self.request.into_iter().fold(write, |write, request| write.request(request));
                (write.request_id(), write.into_future())
            }};
        }
        match &self.value {
            Some(value) => refined!(bucket.put(key, value.clone())),
            None => refined!(bucket.delete(key)),
        }
    }
}

impl IntoFuture for Write {
    type Output = Result<Stored, ClientError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.send().boxed()
    }
}

fn object_key(bucket: &starling_client::Bucket, key: &Bytes) -> ObjectKey {
    ObjectKey::new(bucket.name().clone(), key.clone()).unwrap()
}
