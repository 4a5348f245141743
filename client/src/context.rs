//! The causal context as a client holds it.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;

/// What a read has seen, to be given to the next write of the same key. Opaque; as text it is URL-safe base64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context(Bytes);

/// Text that is no context.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a context is the base64 text that a read printed; this is not base64")]
pub struct InvalidContextText;

impl Context {
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Context {
        Context(bytes.into())
    }

    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(&self.0))
    }
}

impl FromStr for Context {
    type Err = InvalidContextText;

    fn from_str(text: &str) -> Result<Self, InvalidContextText> {
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| InvalidContextText)?;
        Ok(Context(bytes.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_survives_being_printed() {
        let context = Context::from_bytes(vec![0xfb, 0xff, 1]);
        assert_eq!(context.to_string(), "-_8B");
        assert_eq!("-_8B".parse(), Ok(context));
        assert_eq!("a b".parse::<Context>(), Err(InvalidContextText));
    }
}
