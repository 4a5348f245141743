use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::error::LocalError;

const PROGRAM: &str = "starling-node";
const VARIABLE: &str = "STARLING_NODE_BIN";

/// The `starling-node` to run: `explicit`; else `$STARLING_NODE_BIN`; else the one beside this program or in the folder
/// above it (where cargo puts it, seen from a test); else the first in `$PATH`.
///
/// A path that was given is never passed over for another one. What lies beside a test is whatever was built last:
/// whoever wants it current builds it first.
///
/// # Errors
/// [`LocalError::NoBinary`], which says where it looked.
pub fn find_binary(explicit: Option<&Path>) -> Result<PathBuf, LocalError> {
    Places::of_this_process(explicit).find()
}

struct Places {
    explicit: Option<PathBuf>,
    variable: Option<OsString>,
    this_program: Option<PathBuf>,
    path: Option<OsString>,
}

impl Places {
    fn of_this_process(explicit: Option<&Path>) -> Places {
        Places {
            explicit: explicit.map(Path::to_owned),
            variable: env::var_os(VARIABLE),
            this_program: env::current_exe().ok(),
            path: env::var_os("PATH"),
        }
    }

    fn find(&self) -> Result<PathBuf, LocalError> {
        let candidates = match (&self.explicit, &self.variable) {
            (Some(explicit), _) => vec![explicit.clone()],
            (None, Some(variable)) => vec![PathBuf::from(variable)],
            (None, None) => self.usual_places(),
        };
        let found = candidates.iter().find(|candidate| is_executable(candidate));
        found.map(|found| absolute(found)).ok_or_else(|| self.not_found(&candidates))
    }

    fn usual_places(&self) -> Vec<PathBuf> {
        let beside = self.this_program.iter().flat_map(|program| program.ancestors().skip(1).take(2));
        let path = self.path.iter().flat_map(|path| env::split_paths(path));
        beside.map(Path::to_owned).chain(path).map(|folder| folder.join(PROGRAM)).collect()
    }

    fn not_found(&self, candidates: &[PathBuf]) -> LocalError {
        let looked_at = match (&self.explicit, &self.variable) {
            (None, None) => "this program's folder, the one above it, and $PATH".to_owned(),
            (None, Some(_)) => format!("${VARIABLE} = {}, which is no executable file", candidates[0].display()),
            (Some(_), _) => format!("{}, which is no executable file", candidates[0].display()),
        };
        LocalError::NoBinary { looked_at }
    }
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// Nodes are started in a folder of their own, where a relative path means something else.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program_in(folder: &Path) -> PathBuf {
        let path = folder.join(PROGRAM);
        fs::create_dir_all(folder).unwrap();
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn the_nearest_program_wins_and_a_given_one_is_never_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let in_path = program_in(&dir.path().join("bin"));
        let mut places = Places {
            explicit: None,
            variable: None,
            this_program: Some(dir.path().join("target/debug/deps/some_test")),
            path: Some(dir.path().join("bin").into()),
        };
        assert_eq!(places.find().unwrap(), in_path);
        let above = program_in(&dir.path().join("target/debug"));
        assert_eq!(places.find().unwrap(), above);
        places.variable = Some("/nowhere".into());
        assert!(places.find().unwrap_err().to_string().contains("STARLING_NODE_BIN = /nowhere"));
        places.explicit = Some(in_path.clone());
        assert_eq!(places.find().unwrap(), in_path);
    }
}
