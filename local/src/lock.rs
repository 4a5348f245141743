use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{LocalError, failed_to};

/// The right to change a cluster, held by one command at a time. The kernel takes it back when its holder dies.
#[derive(Debug)]
pub(crate) struct DirLock(File);

impl DirLock {
    /// # Errors
    /// [`LocalError::Locked`] at once if another command holds it: commands are short, and people repeat them.
    pub fn take(dir: &Path) -> Result<DirLock, LocalError> {
        let path = path_in(dir);
        // Not truncated here: until the lock is ours, the pid in it is its holder's.
        let file = File::options().create(true).append(true).open(&path).map_err(failed_to("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LocalError::Locked { dir: dir.to_owned(), holder: holder(&path) });
            }
            Err(TryLockError::Error(error)) => return Err(failed_to("lock", &path)(error)),
        }
        sign(&file).map_err(failed_to("write", &path))?;
        Ok(DirLock(file))
    }
}

impl Drop for DirLock {
    /// Unlocks, rather than only closes: a process that another thread is just forking holds a copy of the descriptor.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

fn path_in(dir: &Path) -> PathBuf {
    dir.join("lock")
}

fn sign(mut file: &File) -> std::io::Result<()> {
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())
}

fn holder(path: &Path) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
