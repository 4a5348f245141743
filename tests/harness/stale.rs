//! Folders of clusters that a failed or interrupted test has left for a person to look at.

use std::path::Path;
use std::time::Duration;
use std::{env, fs};

use starling_local::LocalCluster;

/// By then nobody looks any more.
const KEPT_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// Removes the old ones. One that somebody holds, or that has a node running, is refused by [`LocalCluster`] itself.
pub(crate) fn remove_old_clusters() {
    let entries = fs::read_dir(env::temp_dir()).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("starling-"));
    for folder in ours.map(|entry| entry.path()).filter(|folder| is_old(folder)) {
        if LocalCluster::open(&folder).and_then(LocalCluster::wipe).is_ok() {
            // Another test may be doing the same.
            let _ = fs::remove_dir_all(folder);
        }
    }
}

fn is_old(folder: &Path) -> bool {
    let modified = fs::metadata(folder).and_then(|metadata| metadata.modified());
    modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age > KEPT_FOR))
}
