//! Requests as values: said with a verb, refined, then awaited.

use std::future::IntoFuture;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use starling_core::clock::Clock;
use starling_core::ids::RequestId;
use starling_core::object::Value;
use starling_core::quorum::{Level, Quorum, Tally};
use starling_core::report::ReplicaReport;
use starling_core::wall::WallTime;
use starling_proto::connection::{FRAME_MARGIN_BYTES, MAX_FRAME_BYTES};
use starling_proto::data::{self, Got, GotLasting, KeysPage, LiveSibling, MAX_PAGE, PutFor, RequestError, Written};
use starling_proto::hello::Features;

use crate::bucket::Bucket;
use crate::client::object_key;
use crate::connection::Service;
use crate::context::Context;
use crate::error::ClientError;
use crate::retry::Effect;
use crate::route::{Answered, Errand, Target};

/// Most bytes that a key and its value may have together: what fits a frame. A node's own limits are lower, unless they were
/// raised.
pub const MAX_PAYLOAD_BYTES: usize = MAX_FRAME_BYTES - FRAME_MARGIN_BYTES;

/// What a read found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    got: Got,
    until: Vec<Option<WallTime>>,
    via: String,
}

impl Fetched {
    pub(crate) fn new(GotLasting { got, until }: GotLasting, via: String) -> Fetched {
        Fetched { got, until, via }
    }

    /// The values of all siblings; none if the key is absent, deleted or expired.
    pub fn values(&self) -> impl Iterator<Item = &Bytes> {
        self.got.siblings.iter().map(|sibling| &sibling.value)
    }

    pub fn siblings(&self) -> &[LiveSibling] {
        &self.got.siblings
    }

    /// When a sibling expires, by its place among them; none if it stays until it is deleted.
    pub fn expires(&self, sibling: usize) -> Option<WallTime> {
        self.until.get(sibling).copied().flatten()
    }

    /// For the next write of this key; none if it was never written.
    pub fn context(&self) -> Option<Context> {
        self.got.context.clone().map(Context::from_bytes)
    }

    /// Absent because it was deleted, or has expired.
    pub fn is_deleted(&self) -> bool {
        self.got.deleted
    }

    pub fn is_found(&self) -> bool {
        !self.got.siblings.is_empty()
    }

    /// The clock behind the context, for people and tests.
    pub fn clock(&self) -> &Clock {
        &self.got.clock
    }

    pub fn quorum(&self) -> Option<Quorum> {
        self.got.quorum
    }

    /// What each replica answered.
    pub fn replicas(&self) -> &[ReplicaReport] {
        &self.got.replicas
    }

    /// `host:port` of the node that served the request.
    pub fn via(&self) -> &str {
        &self.via
    }
}

/// What a write left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    written: Written,
    via: String,
    request: RequestId,
    attempts: u32,
}

impl Stored {
    /// Siblings of the key at its coordinator after the write; above 1 somebody else wrote concurrently.
    pub fn siblings(&self) -> usize {
        self.written.siblings
    }

    /// If the write stands alone, a context for the same writer's next one: it needs no read.
    pub fn context(&self) -> Option<Context> {
        self.written.context.clone().map(Context::from_bytes)
    }

    /// An earlier attempt had carried the write out.
    pub fn was_repeated(&self) -> bool {
        self.written.repeated
    }

    pub fn quorum(&self) -> Quorum {
        self.written.quorum
    }

    pub fn acknowledged(&self) -> Tally {
        self.written.acknowledged
    }

    /// What each replica did.
    pub fn replicas(&self) -> &[ReplicaReport] {
        &self.written.replicas
    }

    /// `host:port` of the node that served the request.
    pub fn via(&self) -> &str {
        &self.via
    }

    pub fn request(&self) -> RequestId {
        self.request
    }

    /// How many of the client's attempts may have carried it out, the one that was answered among them. Above 1 a copy of
    /// the request may still be under way.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }
}

/// A read, ready to be refined and awaited.
#[must_use = "a request is sent when it is awaited"]
pub struct Get {
    bucket: Bucket,
    key: Bytes,
    r: Level,
    pr: Level,
    wait_for_repair: bool,
    timeout: Duration,
}

impl Get {
    pub(crate) fn new(bucket: Bucket, key: Bytes) -> Get {
        let timeout = bucket.client.options.timeout;
        Get { bucket, key, r: Level::Default, pr: Level::Default, wait_for_repair: false, timeout }
    }

    /// How many replicas have to answer.
    pub fn r(mut self, r: Level) -> Get {
        self.r = r;
        self
    }

    /// How many of them have to be primaries.
    pub fn pr(mut self, pr: Level) -> Get {
        self.pr = pr;
        self
    }

    /// Be answered only once the quorum holds what is returned: no later read goes back behind it.
    pub fn wait_for_repair(mut self, wait: bool) -> Get {
        self.wait_for_repair = wait;
        self
    }

    /// Everything ends within this.
    pub fn timeout(mut self, timeout: Duration) -> Get {
        self.timeout = timeout;
        self
    }

    async fn send(self) -> Result<Fetched, ClientError> {
        let key = object_key(&self.bucket.name, self.key)?;
        let errand = Errand { target: Target::Key(key.clone()), effect: Effect::Nothing, timeout: self.timeout };
        let request = data::Get { key, r: self.r, pr: self.pr, wait_for_repair: self.wait_for_repair };
        let router = &self.bucket.client.router;
        let call = move |client: Service, context| {
            let request = request.clone();
            async move {
                if client.has(Features::EXPIRY) {
                    return client.get_lasting(context, request).await;
                }
                Ok(client.get(context, request).await?.map(without_expiry))
            }
        };
        let Answered { answer: got, via, .. } = router.call(&errand, call).await?;
        Ok(Fetched::new(got, via))
    }
}

/// Of a build that knows of none.
pub(crate) fn without_expiry(got: Got) -> GotLasting {
    GotLasting { got, until: Vec::new() }
}

impl IntoFuture for Get {
    type Output = Result<Fetched, ClientError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.send().boxed()
    }
}

/// How long a value stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lasts {
    AsItsBucketSays,
    ForGood,
    For(Duration),
}

/// What a put and a delete have in common.
struct Writing {
    bucket: Bucket,
    key: Bytes,
    value: Value,
    lasts: Lasts,
    context: Option<Context>,
    request: RequestId,
    w: Level,
    pw: Level,
    r: Level,
    timeout: Duration,
}

impl Writing {
    fn new(bucket: Bucket, key: Bytes, value: Value) -> Writing {
        let timeout = bucket.client.options.timeout;
        let request = RequestId(rand::random());
        let default = Level::Default;
        let (lasts, context) = (Lasts::AsItsBucketSays, None);
        Writing { bucket, key, value, lasts, context, request, w: default, pw: default, r: default, timeout }
    }

    async fn send(self) -> Result<Stored, ClientError> {
        let key = object_key(&self.bucket.name, self.key)?;
        check_payload(key.key(), &self.value)?;
        let lasts = self.lasts;
        let errand = Errand { target: Target::Key(key.clone()), effect: Effect::Write, timeout: self.timeout };
        let id = self.request;
        let context = self.context.map(|context| context.as_bytes().clone());
        let request = data::Put { key, value: self.value, context, request: id, w: self.w, pw: self.pw, r: self.r };
        let call = move |client: Service, context| {
            let request = request.clone();
            async move {
                match lasts {
                    Lasts::ForGood if client.has(Features::SETTINGS) => client.put_for_good(context, request).await,
                    // A build that knows of no settings has every value stay.
                    Lasts::AsItsBucketSays | Lasts::ForGood => client.put(context, request).await,
                    Lasts::For(lifetime) if client.has(Features::EXPIRY) => {
                        client.put_for(context, PutFor { put: request, lifetime }).await
                    }
                    Lasts::For(_) => {
                        let reason = "its build knows of no values that expire".to_owned();
                        Ok(Err(RequestError::NotServing(reason)))
                    }
                }
            }
        };
        let Answered { answer: written, via, doubts } = self.bucket.client.router.call(&errand, call).await?;
        Ok(Stored { written, via, request: id, attempts: doubts.saturating_add(1) })
    }
}

/// What does not fit a frame is never sent: no node, and no repetition, would change that.
fn check_payload(key: &Bytes, value: &Value) -> Result<(), ClientError> {
    let bytes = key.len() + value.size();
    if bytes <= MAX_PAYLOAD_BYTES {
        return Ok(());
    }
    Err(ClientError::Invalid(format!(
        "the key and its value have {bytes} bytes; a request carries at most {MAX_PAYLOAD_BYTES}"
    )))
}

macro_rules! write_options {
    ($name:ident) => {
        impl $name {
            /// The context of the read that this write answers; it may be none.
            pub fn context(mut self, context: impl Into<Option<Context>>) -> $name {
                self.0.context = context.into();
                self
            }

            /// How many replicas have to make it durable, fallbacks counted.
            pub fn w(mut self, w: Level) -> $name {
                self.0.w = w;
                self
            }

            /// How many of them have to be primaries.
            pub fn pw(mut self, pw: Level) -> $name {
                self.0.pw = pw;
                self
            }

            /// The id of this write. Drawn at random unless given: give that of an earlier attempt to repeat it.
            pub fn request(mut self, request: RequestId) -> $name {
                self.0.request = request;
                self
            }

            /// The id under which this write is sent.
            pub fn request_id(&self) -> RequestId {
                self.0.request
            }

            /// Everything, retries included, ends within this.
            pub fn timeout(mut self, timeout: Duration) -> $name {
                self.0.timeout = timeout;
                self
            }
        }

        impl IntoFuture for $name {
            type Output = Result<Stored, ClientError>;
            type IntoFuture = BoxFuture<'static, Self::Output>;

            fn into_future(self) -> Self::IntoFuture {
                self.0.send().boxed()
            }
        }
    };
}

/// A write, ready to be refined and awaited.
#[must_use = "a request is sent when it is awaited"]
pub struct Put(Writing);
write_options!(Put);

impl Put {
    pub(crate) fn new(bucket: Bucket, key: Bytes, value: Bytes) -> Put {
        Put(Writing::new(bucket, key, Value::Live(value)))
    }

    /// The value expires after so long, counted by the clock of the node that takes the request up: it is not shown any more
    /// from then on, wherever it is. It has to be a [`Lifetime`](starling_core::wall::Lifetime).
    ///
    /// ```no_run
    /// # async fn example(sessions: starling_client::Bucket) -> Result<(), starling_client::ClientError> {
    /// use std::time::Duration;
    /// sessions.put("alice", "logged in").ttl(Duration::from_secs(30 * 60)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn ttl(mut self, ttl: Duration) -> Put {
        self.0.lasts = Lasts::For(ttl);
        self
    }

    /// The value stays until it is deleted, even where values of its bucket are set to expire. A request that had been carried
    /// out before is not told a new time.
    pub fn for_good(mut self) -> Put {
        self.0.lasts = Lasts::ForGood;
        self
    }
}

/// A delete, ready to be refined and awaited.
#[must_use = "a request is sent when it is awaited"]
pub struct Delete(Writing);
write_options!(Delete);

impl Delete {
    pub(crate) fn new(bucket: Bucket, key: Bytes) -> Delete {
        Delete(Writing::new(bucket, key, Value::Tombstone))
    }

    /// Of a delete without context: how many replicas have to answer the read that it begins with.
    pub fn r(mut self, r: Level) -> Delete {
        self.0.r = r;
        self
    }
}

/// A listing, ready to be refined and awaited.
#[must_use = "a request is sent when it is awaited"]
pub struct Keys {
    bucket: Bucket,
    prefix: Bytes,
    after: Option<Bytes>,
    limit: usize,
    timeout: Duration,
}

impl Keys {
    pub(crate) fn new(bucket: Bucket) -> Keys {
        let timeout = bucket.client.options.timeout;
        Keys { bucket, prefix: Bytes::new(), after: None, limit: MAX_PAGE, timeout }
    }

    /// Only keys that start with this.
    pub fn prefix(mut self, prefix: impl Into<Bytes>) -> Keys {
        self.prefix = prefix.into();
        self
    }

    /// Only keys behind this one: [`KeysPage::next`] of the page before.
    pub fn after(mut self, after: impl Into<Bytes>) -> Keys {
        self.after = Some(after.into());
        self
    }

    /// At most this many keys, and at most [`MAX_PAGE`].
    pub fn limit(mut self, limit: usize) -> Keys {
        self.limit = limit.min(MAX_PAGE);
        self
    }

    /// Everything ends within this.
    pub fn timeout(mut self, timeout: Duration) -> Keys {
        self.timeout = timeout;
        self
    }

    async fn send(self) -> Result<KeysPage, ClientError> {
        let request =
            data::Keys { bucket: self.bucket.name.clone(), prefix: self.prefix, after: self.after, limit: self.limit };
        let call = move |client: Service, context| {
            let request = request.clone();
            async move { client.keys(context, request).await }
        };
        let errand = Errand { target: Target::Anyone, effect: Effect::Nothing, timeout: self.timeout };
        Ok(self.bucket.client.router.call(&errand, call).await?.answer)
    }
}

impl IntoFuture for Keys {
    type Output = Result<KeysPage, ClientError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.send().boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_no_frame_is_refused_with_its_size_before_it_is_sent() {
        let key = Bytes::from_static(b"key");
        let value = |bytes| Value::Live(vec![0; bytes].into());
        assert!(check_payload(&key, &value(MAX_PAYLOAD_BYTES - 3)).is_ok());
        let refused = check_payload(&key, &value(MAX_PAYLOAD_BYTES - 2)).unwrap_err();
        let expected = "the key and its value have 32505857 bytes; a request carries at most 32505856";
        assert_eq!(refused.to_string(), expected);
    }
}
