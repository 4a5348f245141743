//! The verbs of a bucket.

use bytes::Bytes;
use starling_core::name::BucketName;

use crate::client::Client;
use crate::requests::{Delete, Get, Keys, Put};

/// A bucket of a cluster.
#[derive(Clone)]
pub struct Bucket {
    pub(crate) client: Client,
    pub(crate) name: BucketName,
}

impl Bucket {
    pub fn name(&self) -> &BucketName {
        &self.name
    }

    /// Reads a key: every sibling, and the context that a following write should bring.
    ///
    /// ```no_run
    /// # async fn example(carts: starling_client::Bucket) -> Result<(), starling_client::ClientError> {
    /// let cart = carts.get("alice").await?;
    /// for value in cart.values() {
    ///     println!("{} bytes", value.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn get(&self, key: impl Into<Bytes>) -> Get {
        Get::new(self.clone(), key.into())
    }

    /// Writes a value. Without a context it adds a sibling to what is there; with one it replaces what the read saw.
    ///
    /// ```no_run
    /// # async fn example(carts: starling_client::Bucket) -> Result<(), starling_client::ClientError> {
    /// let cart = carts.get("alice").await?;
    /// carts.put("alice", "3 apples").context(cart.context()).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Put {
        Put::new(self.clone(), key.into(), value.into())
    }

    /// Deletes a key: what the context has seen, or, without one, what a read finds now.
    ///
    /// ```no_run
    /// # async fn example(carts: starling_client::Bucket) -> Result<(), starling_client::ClientError> {
    /// carts.delete("alice").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn delete(&self, key: impl Into<Bytes>) -> Delete {
        Delete::new(self.clone(), key.into())
    }

    /// Lists keys in ascending order, a page at a time.
    ///
    /// ```no_run
    /// # async fn example(carts: starling_client::Bucket) -> Result<(), starling_client::ClientError> {
    /// let mut page = carts.keys().prefix("al").await?;
    /// while let Some(next) = page.next.take() {
    ///     page = carts.keys().prefix("al").after(next).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn keys(&self) -> Keys {
        Keys::new(self.clone())
    }
}
