//! The causal context: what a client carries from a read to its next write of the same key.
//!
//! Opaque to clients. On the wire: a version byte, the encoded body, and the low 32 bits of XXH3-64 over both, little-
//! endian. The body names the cluster and the key, so that a context used on another key is refused instead of removing
//! somebody else's siblings (R5), and says what was seen: the clock, and the youngest requests behind it (R7).

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::clock::Clock;
use crate::codec;
use crate::fault::{self, Fault};
use crate::ids::ClusterId;
use crate::object::Seen;
use crate::request::RequestRing;
use crate::token::Token;

/// Longest context that is decoded: room for more than 10,000 histories, which no key reaches in practice.
pub const MAX_CONTEXT_BYTES: usize = 256 * 1024;

/// Version 1 lacked the requests: what is superseded through it could come back to life.
const VERSION: u8 = 2;
const CHECKSUM_BYTES: usize = 4;

/// A context that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidContext {
    #[error("the context has {0} bytes, over the limit of {MAX_CONTEXT_BYTES}")]
    TooLong(usize),
    #[error("the context is damaged: its checksum does not match")]
    Damaged,
    #[error("the context has version {0}, which this build does not know")]
    UnknownVersion(u8),
    #[error("the context is malformed")]
    Malformed(#[from] codec::DecodeError),
    #[error("the context comes from another cluster")]
    OtherCluster,
    #[error("the context belongs to another key")]
    OtherKey,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    cluster: ClusterId,
    key: Token,
    clock: Clock,
    requests: RequestRing,
}

impl Context {
    pub fn new(cluster: ClusterId, key: Token, seen: Seen) -> Context {
        Context { cluster, key, clock: seen.clock, requests: seen.requests }
    }

    pub fn encode(&self) -> Bytes {
        let mut bytes = vec![VERSION];
        bytes.extend(codec::encode(self));
        bytes.extend(checksum(&bytes));
        bytes.into()
    }

    /// # Errors
    /// [`InvalidContext`] if these are not the bytes of a context that this build understands.
    pub fn decode(bytes: &[u8]) -> Result<Context, InvalidContext> {
        if bytes.len() > MAX_CONTEXT_BYTES {
            return Err(InvalidContext::TooLong(bytes.len()));
        }
        let split = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or(InvalidContext::Damaged)?;
        let (versioned, sum) = bytes.split_at(split);
        if sum != checksum(versioned) {
            return Err(InvalidContext::Damaged);
        }
        match versioned.split_first() {
            Some((&VERSION, body)) => Ok(codec::decode(body, MAX_CONTEXT_BYTES, "a context")?),
            Some((&other, _)) => Err(InvalidContext::UnknownVersion(other)),
            None => Err(InvalidContext::Damaged),
        }
    }

    /// What was seen, for a write of the key that the context was read from.
    ///
    /// # Errors
    /// [`InvalidContext::OtherCluster`] or [`InvalidContext::OtherKey`].
    pub fn seen_of(self, cluster: ClusterId, key: Token) -> Result<Seen, InvalidContext> {
        if self.cluster != cluster {
            return Err(InvalidContext::OtherCluster);
        }
        if self.key != key && !fault::is_on(Fault::AcceptForeignContext) {
            return Err(InvalidContext::OtherKey);
        }
        Ok(Seen { clock: self.clock, requests: self.requests })
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let [a, b, c, d, ..] = xxh3_64(bytes).to_le_bytes();
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::History;
    use crate::ids::{Birth, DirectoryId, RequestId};
    use crate::request::{RequestTrace, ValueHash};
    use crate::stamp::Stamp;

    fn clock() -> Clock {
        let history = History { directory: DirectoryId(1), birth: Birth(2) };
        [(history, 5)].into_iter().collect()
    }

    fn context() -> Context {
        let mut requests = RequestRing::default();
        requests.add(RequestTrace { stamp: Stamp(6), request: RequestId(7), value_hash: ValueHash::of_live(b"v") });
        Context::new(ClusterId(3), Token(4), Seen { clock: clock(), requests })
    }

    /// Clients keep contexts across upgrades: if this fails, raise the version and keep decoding the old one.
    #[test]
    fn version_2_is_frozen() {
        assert_eq!(hex(&context().encode()), "02030401010205010607fde5f7d6c674fd8c3cedd91860");
    }

    #[test]
    fn a_context_serves_only_its_own_key_and_cluster() {
        let decoded = Context::decode(&context().encode()).unwrap();
        assert_eq!(decoded, context());
        assert!(decoded.clone().seen_of(ClusterId(3), Token(4)).is_ok());
        assert!(matches!(decoded.clone().seen_of(ClusterId(3), Token(5)), Err(InvalidContext::OtherKey)));
        assert!(matches!(decoded.seen_of(ClusterId(9), Token(4)), Err(InvalidContext::OtherCluster)));
    }

    #[test]
    fn a_damaged_context_is_refused_whatever_bit_was_flipped() {
        let good = context().encode();
        for bit in 0..good.len() * 8 {
            let mut bad = good.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Context::decode(&bad).is_err(), "bit {bit}");
        }
        assert!(Context::decode(&[]).is_err());
        assert!(matches!(Context::decode(&vec![0; MAX_CONTEXT_BYTES + 1]), Err(InvalidContext::TooLong(_))));
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
