//! Where the first addresses come from: flags, else the environment, else the configuration file, else the local cluster.

use std::env;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use starling_local::{ClusterView, DEFAULT_BASE_PORT, LocalCluster};

use crate::failure::Failure;

const NODES: &str = "STARLING_NODES";
const CONFIG: &str = "STARLING_CONFIG";

/// Nodes to begin with. The rest of the cluster is learnt from them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seeds {
    pub addresses: Vec<String>,
    pub source: Source,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Flags,
    Environment,
    File(PathBuf),
    LocalCluster(PathBuf),
    /// Nothing was said, and there is no local cluster.
    Nowhere,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Flags => f.write_str("--node"),
            Source::Environment => f.write_str(NODES),
            Source::File(path) => write!(f, "{}", path.display()),
            Source::LocalCluster(dir) => write!(f, "the local cluster in {}", dir.display()),
            Source::Nowhere => f.write_str("the default address"),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    nodes: Option<Vec<String>>,
}

impl Seeds {
    /// # Errors
    /// A usage error if an address, or the configuration file, makes no sense.
    pub fn find(flags: &[String], config: Option<&Path>) -> Result<Seeds, Failure> {
        let variable = |name: &str| env::var_os(name).and_then(|value| value.into_string().ok());
        Seeds::find_from(flags, config, variable)
    }

    fn find_from(
        flags: &[String],
        config: Option<&Path>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Seeds, Failure> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        if !flags.is_empty() {
            return Ok(Seeds { addresses: flags.to_vec(), source: Source::Flags });
        }
        if let Some(list) = variable(NODES) {
            let parts = list.split(',').map(str::trim).filter(|part| !part.is_empty());
            return Seeds::checked(parts.map(str::to_owned), Source::Environment);
        }
        match read_file(config, variable)? {
            Some((path, File { nodes: Some(nodes) })) => Seeds::checked(nodes.into_iter(), Source::File(path)),
            Some((_, File { nodes: None })) | None => Ok(Seeds::on_this_machine()),
        }
    }

    fn checked(addresses: impl Iterator<Item = String>, source: Source) -> Result<Seeds, Failure> {
        let parsed: Result<Vec<String>, String> = addresses.map(|address| parse_address(&address)).collect();
        let addresses = parsed.map_err(|reason| Failure::usage(format!("{source}: {reason}")))?;
        if addresses.is_empty() {
            return Err(Failure::usage(format!("{source} names no address")).hint("give at least one host:port"));
        }
        Ok(Seeds { addresses, source })
    }

    fn on_this_machine() -> Seeds {
        let local = LocalCluster::default_dir().and_then(ClusterView::read);
        match local {
            Ok(view) => Seeds {
                addresses: view.addresses().iter().map(ToString::to_string).collect(),
                source: Source::LocalCluster(view.dir().to_owned()),
            },
            // A file that cannot be read is the business of `starling local`, which says so.
            Err(_) => Seeds { addresses: vec![format!("127.0.0.1:{DEFAULT_BASE_PORT}")], source: Source::Nowhere },
        }
    }
}

/// # Errors
/// Why that is no address.
pub fn parse_address(text: &str) -> Result<String, String> {
    let (host, port) = text.rsplit_once(':').unwrap_or_default();
    let usable = !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0);
    if usable { Ok(text.to_owned()) } else { Err(format!("`{text}` is not an address of the form host:port")) }
}

fn read_file(
    config: Option<&Path>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<(PathBuf, File)>, Failure> {
    let named = config.map(Path::to_owned).or_else(|| variable(CONFIG).map(PathBuf::from));
    let usual = || {
        let home = || variable("HOME").map(|home| PathBuf::from(home).join(".config"));
        let folder = variable("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute()).or_else(home);
        folder.map(|folder| folder.join("starling/config.toml"))
    };
    let must_exist = named.is_some();
    let place = if config.is_none() && must_exist { format!(", named by {CONFIG}") } else { String::new() };
    let Some(path) = named.or_else(usual) else { return Ok(None) };
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !must_exist => return Ok(None),
        Err(error) => return Err(Failure::usage(format!("cannot read {}: {error}", path.display()))),
        Ok(text) => text,
    };
    let file = toml::from_str(&text).map_err(|error| {
        Failure::usage(format!("{}{place}: {}", path.display(), error.to_string().trim_end())).hint(
            "it may hold one setting, nodes = [\"host:port\", …]; a node's own settings are for `starling-node`: name \
             this program's file with --config",
        )
    })?;
    Ok(Some((path, file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(flags: &[&str], config: Option<&Path>, set: &[(&str, &str)]) -> Result<Seeds, Failure> {
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let variable = |name: &str| set.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned());
        Seeds::find_from(&flags, config, variable)
    }

    #[test]
    fn the_nearest_word_wins() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("starling/config.toml");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "nodes = ['c:3']").unwrap();
        let home = dir.path().to_str().unwrap();
        let set = [("STARLING_NODES", "b:2, b:3,"), ("XDG_CONFIG_HOME", home)];
        assert_eq!(find(&["a:1"], None, &set).unwrap().addresses, ["a:1"]);
        assert_eq!(find(&[], None, &set).unwrap().addresses, ["b:2", "b:3"]);
        let from_file = find(&[], None, &set[1..]).unwrap();
        assert_eq!((from_file.addresses, from_file.source), (vec!["c:3".to_owned()], Source::File(path.clone())));
        assert_eq!(find(&[], Some(&path), &[]).unwrap().addresses, ["c:3"]);
        assert_eq!(find(&[], None, &[("STARLING_CONFIG", path.to_str().unwrap())]).unwrap().addresses, ["c:3"]);
    }

    #[test]
    fn mistakes_name_their_place() {
        let refused = find(&[], None, &[("STARLING_NODES", "b")]).unwrap_err();
        assert_eq!(find(&[], None, &[("STARLING_NODES", ",")]).unwrap_err().message, "STARLING_NODES names no address");
        assert_eq!(refused.message, "STARLING_NODES: `b` is not an address of the form host:port");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        assert!(find(&[], Some(&path), &[]).unwrap_err().message.starts_with("cannot read "));
        fs::write(&path, "node = 'c:3'").unwrap();
        assert!(find(&[], Some(&path), &[]).unwrap_err().message.contains("unknown field `node`"));
    }
}
