//! What lies below an engine and outlives it, so that one suite can run on both.

use std::sync::Arc;

use starling_storage::{Engine, MemoryDisk, MemoryEngine};

/// A disk, and how to start an engine over it.
pub trait Machine {
    /// Opens the engine, making the store at the first call. At most one engine of a machine is open at a time.
    fn engine(&self) -> Arc<dyn Engine>;
}

#[derive(Default)]
pub struct MemoryMachine {
    pub disk: MemoryDisk,
}

impl Machine for MemoryMachine {
    fn engine(&self) -> Arc<dyn Engine> {
        Arc::new(MemoryEngine::open(self.disk.clone()))
    }
}

#[cfg(feature = "rocksdb")]
pub use rocks::{RocksMachine, SMALL};

#[cfg(feature = "rocksdb")]
mod rocks {
    use std::path::PathBuf;

    use starling_storage::{Expect, RocksEngine, RocksOptions};
    use tempfile::TempDir;

    use super::*;

    /// Enough for a test, quick to set up.
    pub const SMALL: RocksOptions = RocksOptions { block_cache: 1 << 20, write_buffer: 1 << 20 };

    pub struct RocksMachine {
        directory: TempDir,
    }

    impl Default for RocksMachine {
        fn default() -> Self {
            RocksMachine { directory: tempfile::tempdir().unwrap() }
        }
    }

    impl RocksMachine {
        pub fn path(&self) -> PathBuf {
            self.directory.path().join("db")
        }
    }

    impl Machine for RocksMachine {
        fn engine(&self) -> Arc<dyn Engine> {
            let expect = if self.path().exists() { Expect::Store } else { Expect::Nothing };
            Arc::new(RocksEngine::open(&self.path(), expect, SMALL).unwrap())
        }
    }
}

/// Runs each of the functions, which take a `&dyn Machine`, as a test on every kind of machine.
macro_rules! on_every_machine {
    ($($(#[$attribute:meta])* $name:ident),* $(,)?) => {
        mod memory {
            $(#[test] $(#[$attribute])* fn $name() { super::$name(&crate::support::machine::MemoryMachine::default()); })*
        }
        #[cfg(feature = "rocksdb")]
        mod rocks {
            $(#[test] $(#[$attribute])* fn $name() { super::$name(&crate::support::machine::RocksMachine::default()); })*
        }
    };
}
pub(crate) use on_every_machine;
