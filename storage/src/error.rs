//! What a caller of the store can meet.

use starling_core::coordinate::WriteRefused;
use starling_core::report::Refusal;

use crate::engine::EngineError;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Nothing was done.
    #[error("the store {0}")]
    Refused(Refusal),
    /// Nothing was done: the write itself is at fault.
    #[error(transparent)]
    Write(#[from] WriteRefused),
    /// The sync of this very change failed: it may or may not survive a restart.
    #[error("the change could not be made durable; whether it survives is unknown")]
    Unknown,
    /// Nothing was done: the record of this key, or the engine, cannot be read.
    #[error("{0}")]
    Damaged(String),
}

impl From<EngineError> for StoreError {
    fn from(error: EngineError) -> StoreError {
        StoreError::Damaged(error.to_string())
    }
}
