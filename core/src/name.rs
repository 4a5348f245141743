//! Names that people choose, each checked once, where it enters.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Longest name of a node or a zone, in bytes (a DNS label's limit, RFC 1035 section 2.3.4).
pub const MAX_LABEL_BYTES: usize = 63;
/// Longest bucket name, in bytes.
pub const MAX_BUCKET_BYTES: usize = 255;
/// Longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 1024;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    #[error(
        "`{0}` is not a valid name: use 1 to {MAX_LABEL_BYTES} lower-case letters, digits, `-`, `_` or `.`, the first a letter or digit"
    )]
    Label(String),
    #[error("a bucket's name has 1 to {MAX_BUCKET_BYTES} bytes of UTF-8 without control characters")]
    Bucket,
    #[error("a key has 1 to {MAX_KEY_BYTES} bytes; this one has {0}")]
    KeyLength(usize),
}

macro_rules! checked_string {
    ($(#[$doc:meta])* $name:ident, $check:ident, $refusal:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, InvalidName> {
                if $check(&text) { Ok($name(text)) } else { Err($refusal(text)) }
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                text.to_owned().try_into()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

checked_string! {
    /// What people call a node. Unique within a cluster.
    NodeName, is_label, InvalidName::Label
}
checked_string! {
    /// A failure domain: replicas of a partition lie in distinct zones where there are enough.
    Zone, is_label, InvalidName::Label
}
checked_string! {
    /// A namespace of keys that share their settings.
    BucketName, is_bucket, |_| InvalidName::Bucket
}

fn is_label(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    // Not starting with punctuation, a name is safe as a part of a path.
    let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    starts_well && text.len() <= MAX_LABEL_BYTES && text.chars().all(allowed)
}

fn is_bucket(text: &str) -> bool {
    (1..=MAX_BUCKET_BYTES).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// The full name of an object: its bucket and its key within it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKey {
    bucket: BucketName,
    #[serde(deserialize_with = "checked_key")]
    key: Bytes,
}

impl ObjectKey {
    /// # Errors
    /// [`InvalidName::KeyLength`] if the key is empty or over [`MAX_KEY_BYTES`].
    pub fn new(bucket: BucketName, key: impl Into<Bytes>) -> Result<Self, InvalidName> {
        let key = key.into();
        check_key(&key)?;
        Ok(ObjectKey { bucket, key })
    }

    pub fn bucket(&self) -> &BucketName {
        &self.bucket
    }

    pub fn key(&self) -> &Bytes {
        &self.key
    }
}

fn check_key(key: &[u8]) -> Result<(), InvalidName> {
    if (1..=MAX_KEY_BYTES).contains(&key.len()) { Ok(()) } else { Err(InvalidName::KeyLength(key.len())) }
}

fn checked_key<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    let key = Bytes::deserialize(deserializer)?;
    check_key(&key).map_err(serde::de::Error::custom)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_where_they_enter() {
        assert!("n1".parse::<NodeName>().is_ok());
        assert!("N1".parse::<NodeName>().is_err());
        assert!("".parse::<Zone>().is_err());
        assert!("..".parse::<NodeName>().is_err());
        assert!("carts of Zürich".parse::<BucketName>().is_ok());
        assert!("a\0b".parse::<BucketName>().is_err());
        let bucket: BucketName = "b".parse().unwrap();
        assert!(ObjectKey::new(bucket.clone(), "").is_err());
        assert!(ObjectKey::new(bucket.clone(), vec![0; MAX_KEY_BYTES]).is_ok());
        assert!(ObjectKey::new(bucket, vec![0; MAX_KEY_BYTES + 1]).is_err());
    }

    #[test]
    fn a_decoded_key_obeys_the_same_limits() {
        let forged = bincode::serialize(&("b", serde_bytes_of(&[]))).unwrap();
        assert!(bincode::deserialize::<ObjectKey>(&forged).is_err());
    }

    fn serde_bytes_of(bytes: &'static [u8]) -> Bytes {
        Bytes::from_static(bytes)
    }
}
