//! Configuration in two steps: what was typed becomes [`Settings`], what was meant becomes a [`Config`].
//!
//! A setting comes from a TOML file, is overridden by an environment variable `STARLING_…`, and that by a flag. All
//! mistakes, wherever they were made, are reported at once.

mod keys;
mod settings;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use starling_core::coordinate::{MAX_OBJECT_BYTES, ObjectLimits};
use starling_core::name::{NodeName, Zone};
#[cfg(feature = "rocksdb")]
use starling_storage::RocksOptions;
use starling_storage::StoreLimits;
use tracing_subscriber::EnvFilter;

pub use keys::{KEYS, Key};
pub use settings::{Settings, Source};

/// Most of anything for which room is made in advance.
const MOST_AT_ONCE: usize = 1_000_000;

/// A checked configuration. Only this travels inward.
#[derive(Debug, Clone)]
pub struct Config {
    pub name: NodeName,
    pub zone: Zone,
    pub data_dir: PathBuf,
    /// TCP for requests and UDP for gossip, on the same port.
    pub listen: SocketAddr,
    /// `host:port` at which others reach this node.
    pub advertise: String,
    /// `host:port` of nodes to gossip with at first.
    pub seeds: Vec<String>,
    /// Nodes of another cluster name ignore this one's gossip.
    pub cluster_name: String,
    pub log: Log,
    pub request_timeout: Duration,
    pub replica_timeout: Duration,
    pub max_clock_drift: Duration,
    /// Bytes of handed-off objects a second.
    pub handoff_rate: u64,
    pub anti_entropy_interval: Duration,
    pub scrub_interval: Duration,
    /// How old a tombstone is at least before a round of reaping begins with it (R11).
    pub reap_after: Duration,
    /// How long ago a value has to have expired by this node's clock before it agrees that it may be forgotten.
    pub expiry_margin: Duration,
    /// Requests being coordinated at once before further ones are refused as overloaded.
    pub max_requests: usize,
    pub max_connections: usize,
    pub store: StoreLimits,
    #[cfg(feature = "rocksdb")]
    pub rocks: RocksOptions,
}

#[derive(Debug, Clone)]
pub struct Log {
    pub json: bool,
    /// In the syntax of `tracing_subscriber::EnvFilter`.
    pub filter: String,
}

/// Something wrong with one setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    pub key: String,
    pub from: Source,
    pub what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.from {
            // Nobody typed it.
            Source::Default => write!(f, "{}: {}", self.key, self.what),
            from => write!(f, "{} ({from}): {}", self.key, self.what),
        }
    }
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(f, "{count} mistake{} in the configuration:", if count == 1 { "" } else { "s" })?;
        self.0.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

impl Config {
    /// # Errors
    /// All mistakes at once.
    pub fn from_settings(settings: &Settings) -> Result<Config, Mistakes> {
        let mut read = Reader { settings, mistakes: settings.mistakes.clone() };
        let listen: Option<SocketAddr> = read.value("listen", "an address such as 127.0.0.1:7401");
        let name: Option<NodeName> = read.checked("name");
        let config = Config {
            data_dir: read.text("data_dir").unwrap_or_default().into(),
            zone: read.checked("zone").unwrap_or_else(placeholder),
            advertise: listen.and_then(|_| read.address("advertise")).unwrap_or_default(),
            seeds: read.addresses("seeds"),
            cluster_name: read.words("cluster_name"),
            log: Log { json: read.one_of("log_format", &["human", "json"]) == Some(1), filter: read.filter("log") },
            request_timeout: read.duration("request_timeout"),
            replica_timeout: read.duration("replica_timeout"),
            max_clock_drift: read.duration("max_clock_drift"),
            handoff_rate: read.rate("handoff_rate"),
            anti_entropy_interval: read.duration("anti_entropy_interval"),
            scrub_interval: read.duration("scrub_interval"),
            reap_after: read.duration("reap_after"),
            expiry_margin: read.duration("expiry_margin"),
            max_requests: read.bounded("max_requests"),
            max_connections: read.bounded("max_connections"),
            store: StoreLimits {
                object: ObjectLimits {
                    siblings: read.count("max_siblings"),
                    bytes: read.object_size("max_object_size"),
                },
                hints_per_target: read.count("max_hints_per_node") as u64,
                queue: read.bounded("write_queue"),
                disk_reserve: read.size("disk_reserve"),
            },
            #[cfg(feature = "rocksdb")]
            rocks: RocksOptions {
                block_cache: usize_of(read.size("block_cache")),
                write_buffer: usize_of(read.size("write_buffer")),
            },
            name: name.unwrap_or_else(placeholder),
            listen: listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0))),
        };
        read.check(&config);
        if read.mistakes.is_empty() { Ok(config) } else { Err(Mistakes(read.mistakes)) }
    }
}

/// Stands where a mistake was noted; such a configuration is never returned.
fn placeholder<T: FromStr<Err: fmt::Debug>>() -> T {
    "placeholder".parse().expect("a valid name")
}

fn usize_of(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

/// Reads values out of settings and collects what is wrong with them.
struct Reader<'a> {
    settings: &'a Settings,
    mistakes: Vec<Mistake>,
}

impl Reader<'_> {
    fn text(&mut self, key: &str) -> Option<String> {
        self.settings.get(key).map(|(value, _)| value.to_owned())
    }

    fn checked<T: FromStr<Err: fmt::Display>>(&mut self, key: &'static str) -> Option<T> {
        let Some((value, _)) = self.settings.get(key) else {
            self.note(key, "is missing; every node needs one".to_owned());
            return None;
        };
        value.parse().map_err(|error: T::Err| self.note(key, error.to_string())).ok()
    }

    fn value<T: FromStr>(&mut self, key: &'static str, expected: &str) -> Option<T> {
        let (value, _) = self.settings.get(key)?;
        let parsed = value.parse().ok();
        if parsed.is_none() {
            self.note(key, format!("`{value}` is not {expected}"));
        }
        parsed
    }

    fn count(&mut self, key: &'static str) -> usize {
        let count = self.value::<usize>(key, "a number").unwrap_or(1);
        if count == 0 {
            self.note(key, "must be at least 1".to_owned());
        }
        count
    }

    /// Of things that are made room for in advance.
    fn bounded(&mut self, key: &'static str) -> usize {
        let count = self.count(key);
        if count > MOST_AT_ONCE {
            self.note(key, format!("must be at most {MOST_AT_ONCE}"));
        }
        count
    }

    fn rate(&mut self, key: &'static str) -> u64 {
        let rate = self.size(key);
        if rate == 0 && !self.is_noted(key) {
            self.note(key, "must be at least 1 byte a second".to_owned());
        }
        rate
    }

    fn object_size(&mut self, key: &'static str) -> usize {
        let size = self.size(key);
        if size > MAX_OBJECT_BYTES as u64 {
            let most = bytesize::ByteSize(MAX_OBJECT_BYTES as u64);
            self.note(key, format!("must be at most {most}: a merge of several replicas' siblings has to fit a frame"));
        }
        usize_of(size)
    }

    fn words(&mut self, key: &'static str) -> String {
        let text = self.text(key).unwrap_or_default();
        if text.trim().is_empty() {
            self.note(key, "must not be empty".to_owned());
        }
        text
    }

    fn filter(&mut self, key: &'static str) -> String {
        let text = self.text(key).unwrap_or_default();
        if let Err(error) = text.parse::<EnvFilter>() {
            self.note(key, format!("`{text}` is not a log filter: {error}"));
        }
        text
    }

    fn size(&mut self, key: &'static str) -> u64 {
        self.value::<bytesize::ByteSize>(key, "a size such as 64MiB").map_or(0, |size| size.as_u64())
    }

    fn duration(&mut self, key: &'static str) -> Duration {
        let duration = self.value::<humantime::Duration>(key, "a duration such as 500ms");
        let duration = duration.map_or(Duration::from_secs(1), Into::into);
        if duration.is_zero() {
            self.note(key, "must be above 0".to_owned());
        }
        duration
    }

    fn one_of(&mut self, key: &'static str, words: &[&str]) -> Option<usize> {
        let (value, _) = self.settings.get(key)?;
        let found = words.iter().position(|word| *word == value);
        if found.is_none() {
            self.note(key, format!("`{value}` is none of {}", words.join(", ")));
        }
        found
    }

    fn address(&mut self, key: &'static str) -> Option<String> {
        let (value, _) = self.settings.get(key)?;
        if !is_address(value) {
            self.note(key, format!("`{value}` is not an address of the form host:port"));
        }
        Some(value.to_owned())
    }

    fn addresses(&mut self, key: &'static str) -> Vec<String> {
        let text = self.text(key).unwrap_or_default();
        let addresses: Vec<String> =
            text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect();
        for wrong in addresses.iter().filter(|address| !is_address(address)) {
            self.note(key, format!("`{wrong}` is not an address of the form host:port"));
        }
        addresses
    }

    /// What no single value shows.
    fn check(&mut self, config: &Config) {
        let readable = !self.is_noted("replica_timeout") && !self.is_noted("request_timeout");
        if readable && config.replica_timeout > config.request_timeout {
            self.note("replica_timeout", "is longer than request_timeout, so it would never take effect".to_owned());
        }
        let unspecified = config.listen.ip().is_unspecified();
        let derived = self.settings.get("advertise").is_none_or(|(_, source)| *source == Source::Default);
        if unspecified && derived {
            self.note("advertise", format!("is needed when listening on {}: others cannot dial that", config.listen));
        }
    }

    fn is_noted(&self, key: &str) -> bool {
        self.mistakes.iter().any(|mistake| mistake.key == key)
    }

    fn note(&mut self, key: &str, what: String) {
        let from = self.settings.get(key).map_or(Source::Default, |(_, source)| source.clone());
        self.mistakes.push(Mistake { key: key.to_owned(), from, what });
    }
}

fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        let flags = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Settings::collect(None, std::iter::empty(), flags)
    }

    #[test]
    fn the_defaults_make_a_working_node_of_a_name() {
        let config = Config::from_settings(&settings(&[("name", "n1")])).unwrap();
        assert_eq!(config.advertise, "127.0.0.1:7401");
        assert_eq!(config.data_dir, PathBuf::from("starling-data/n1"));
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let wrong = settings(&[
            ("zone", "Zürich"),
            ("listen", "here"),
            ("seeds", "a:1,b"),
            ("request_timeout", "soon"),
            ("max_siblings", "0"),
            ("zonne", "a"),
            ("handoff_rate", "0"),
            ("max_requests", "99999999999"),
            ("max_object_size", "1GiB"),
            ("log", "=loud="),
        ]);
        let Mistakes(mistakes) = Config::from_settings(&wrong).unwrap_err();
        let keys: Vec<&str> = mistakes.iter().map(|mistake| mistake.key.as_str()).collect();
        let expected = [
            "zonne",
            "listen",
            "name",
            "zone",
            "seeds",
            "log",
            "request_timeout",
            "handoff_rate",
            "max_requests",
            "max_siblings",
            "max_object_size",
        ];
        assert_eq!(keys, expected);
    }

    #[test]
    fn listening_everywhere_needs_an_address_to_advertise() {
        let open = settings(&[("name", "n1"), ("listen", "0.0.0.0:7401")]);
        assert!(Config::from_settings(&open).is_err());
    }
}
