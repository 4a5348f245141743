use std::ops::{Deref, DerefMut};
use std::thread;

use tempfile::TempDir;

use crate::cluster::LocalCluster;
use crate::error::{LocalError, failed};
use crate::launch::Lifetime;
use crate::shape::Shape;

/// How many lines of each node's log a failing test prints.
const TAIL_LINES: usize = 20;

/// A cluster for a test: in a folder of its own, gone when the value is dropped, by a panic too. If this process ends
/// without dropping it (ctrl-C, abort, SIGKILL), the kernel kills the nodes, and only the folder stays.
///
/// When its thread panics, the folder is kept, and where it is and how each log ends is printed.
///
/// Its shape wants [`Ports::Free`](crate::Ports::Free), since tests run side by side.
#[derive(Debug)]
pub struct EphemeralCluster {
    cluster: LocalCluster,
    dir: TempDir,
}

impl EphemeralCluster {
    /// Starts nothing yet.
    ///
    /// # Errors
    /// As [`LocalCluster::create`].
    pub fn create(shape: Shape) -> Result<EphemeralCluster, LocalError> {
        let dir = tempfile::Builder::new().prefix("starling-").tempdir().map_err(failed("make a temporary folder"))?;
        let cluster = LocalCluster::create_with(dir.path(), shape, Lifetime::OfThisProcess)?;
        Ok(EphemeralCluster { cluster, dir })
    }

    fn tell_where(&self) {
        eprintln!("the cluster's data and logs are kept in {}", self.dir.path().display());
        for name in self.cluster.view().names() {
            let tail = self.cluster.log_tail(&name, TAIL_LINES).unwrap_or_default();
            eprintln!("--- {name}\n{}", tail.join("\n"));
        }
    }
}

impl Deref for EphemeralCluster {
    type Target = LocalCluster;

    fn deref(&self) -> &LocalCluster {
        &self.cluster
    }
}

impl DerefMut for EphemeralCluster {
    fn deref_mut(&mut self) -> &mut LocalCluster {
        &mut self.cluster
    }
}

impl Drop for EphemeralCluster {
    fn drop(&mut self) {
        let killed = self.cluster.kill_all();
        if let Err(error) = &killed {
            eprintln!("could not kill the cluster: {error}");
        }
        if killed.is_err() || thread::panicking() {
            self.dir.disable_cleanup(true);
            self.tell_where();
        }
    }
}
