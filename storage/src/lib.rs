//! Starling's durable state.
//!
//! What is acknowledged is here, synced, or it was not acknowledged. Everything a node knows across restarts goes
//! through this crate: objects with their own marks and hint markers, its identity and runs, its peers' runs, layouts.
//!
//! Where to read next: [`engine`] for what is asked of a key-value store; `writer.rs` for the group commit, and `fold.rs`
//! for what one batch does, with `trees.rs` for the hash trees; [`store`] for what the node sees, with `decrees.rs` for how the
//! ring changes, `filling.rs` for coming back after a disk was lost, `reaping.rs` for how tombstones go and `settings.rs` for
//! plain settings; [`directory`] for the files, and `salvage.rs` for what becomes of a damaged store; [`inspect`] for a look
//! at what lies in an engine, past the store, and `verify.rs` for the store's own.
//!
//! Left out on purpose: the network, gossip, deadlines (an asker who is gone has its job dropped).

mod decrees;
pub mod directory;
pub mod engine;
mod error;
mod filling;
mod fold;
pub mod inspect;
mod keys;
#[cfg(feature = "rocksdb")]
mod log_check;
mod memory;
mod meta;
mod reaping;
mod record;
#[cfg(feature = "rocksdb")]
mod rocks;
mod salvage;
mod settings;
mod shared;
pub mod store;
mod trees;
mod verify;
mod watchful;
mod writer;

pub use decrees::{AdoptError, NoVote, Page, Pulled};
pub use directory::{DataDirectory, DirectoryError, Identity, Inheritance};
pub use engine::{Batch, Engine, EngineError, Space};
pub use error::StoreError;
pub use fold::{Confirmed, Minted};
pub use memory::{MemoryDisk, MemoryEngine, Observer};
pub use record::UnreadableRecord;
#[cfg(feature = "rocksdb")]
pub use rocks::{Expect, RocksEngine, RocksOptions};
pub use salvage::{Salvaged, salvage};
pub use settings::SetError;
pub use store::{Health, Hint, Listed, OpenError, Store, StoreLimits};
pub use trees::PartitionTree;
pub use verify::{Flaw, Verified};
pub use writer::{Jobs, Prepared, Writer};
