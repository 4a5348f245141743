//! The one place that knows bincode: little-endian variable-length integers (bincode 1.3's `DefaultOptions`, which is
//! also what tarpc's codec speaks), a size limit on everything that is decoded, and no trailing bytes.

use bincode::Options;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes that do not decode to what was expected.
#[derive(Debug, thiserror::Error)]
#[error("cannot decode {what}")]
pub struct DecodeError {
    what: &'static str,
    #[source]
    source: bincode::Error,
}

/// Encodes a value of ours. Cannot fail: none of our types refuses to be serialised, and memory is the only limit.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    options().serialize(value).expect("our types serialise without errors")
}

/// Decodes at most `limit` bytes; `what` names the thing in the error.
///
/// # Errors
/// If the bytes are longer than `limit`, end early, have a tail, or do not form a `T`.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], limit: usize, what: &'static str) -> Result<T, DecodeError> {
    // bincode's own limit does not count single bytes, so the whole is measured as well.
    if bytes.len() > limit {
        return Err(DecodeError { what, source: bincode::ErrorKind::SizeLimit.into() });
    }
    options().with_limit(limit as u64).deserialize(bytes).map_err(|source| DecodeError { what, source })
}

/// The options under which all our bytes are written, for codecs that take them.
pub fn options() -> bincode::DefaultOptions {
    bincode::DefaultOptions::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoding_is_limited_and_exact() {
        let bytes = encode(&vec![7u8; 100]);
        assert_eq!(decode::<Vec<u8>>(&bytes, 1024, "a list").unwrap(), vec![7; 100]);
        assert!(decode::<Vec<u8>>(&bytes, 50, "a list").is_err(), "over the limit");
        assert!(decode::<Vec<u8>>(&bytes[..50], 1024, "a list").is_err(), "cut short");
        let mut tailed = bytes.clone();
        tailed.push(0);
        assert!(decode::<Vec<u8>>(&tailed, 1024, "a list").is_err(), "a tail");
    }

    #[test]
    fn a_forged_length_does_not_allocate() {
        let forged = [253, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        assert!(decode::<Vec<u8>>(&forged, 1024, "a list").is_err());
    }
}
