//! Every setting: its name in the TOML file. The environment variable is `STARLING_` and the name in capitals, the flag
//! `--` and the name with dashes.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    pub name: &'static str,
    pub default: Option<&'static str>,
    pub help: &'static str,
}

impl Key {
    pub fn env(&self) -> String {
        format!("STARLING_{}", self.name.to_uppercase())
    }

    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }
}

const fn key(name: &'static str, default: &'static str, help: &'static str) -> Key {
    Key { name, default: Some(default), help }
}

const fn unset(name: &'static str, help: &'static str) -> Key {
    Key { name, default: None, help }
}

pub const KEYS: &[Key] = &[
    unset("name", "The node's name, unique in the cluster"),
    key("zone", "default", "Failure domain; replicas are spread over zones"),
    unset("data_dir", "Where data is kept [default: starling-data/NAME]"),
    key("listen", "127.0.0.1:7401", "Address to listen on: TCP for requests, UDP for gossip"),
    unset("advertise", "host:port at which others reach this node [default: the listen address]"),
    key("seeds", "", "host:port of nodes to find the others through, separated by commas"),
    key("cluster_name", "starling", "Nodes find only those of the same cluster name"),
    key("log", "info,tarpc=error,chitchat=warn", "What to log, e.g. `info` or `starling_node=debug,warn`"),
    key("log_format", "human", "`human` or `json`"),
    key("request_timeout", "5s", "Longest a request may take, whatever its client asks for"),
    key("replica_timeout", "2s", "How long a silent replica is waited for in the background"),
    key(
        "max_clock_drift",
        "10s",
        "How far this node's clock may be from its peers' to write to a last-write-wins bucket, or what expires",
    ),
    key("handoff_rate", "32MiB", "Bytes a second that handed-off copies may use"),
    key("anti_entropy_interval", "10s", "How long a node waits between two comparisons with its peers"),
    key("reap_after", "1h", "How old the mark of a deletion is at least before it is tried to forget it everywhere"),
    key("expiry_margin", "1day", "How long ago a value has to have expired by a node's clock before it is forgotten"),
    key("scrub_interval", "7days", "In which time a node reads all that it holds once, to find damage"),
    key("max_requests", "1024", "Requests coordinated at once before further ones are refused"),
    key("max_connections", "1024", "Connections accepted at once"),
    key("max_siblings", "100", "Siblings of a key above which writes that add one are refused"),
    key("max_object_size", "4MiB", "Bytes in all siblings of a key above which writes that add to them are refused"),
    key("max_hints_per_node", "1000000", "Hints held for one node before further ones are refused"),
    key("write_queue", "4096", "Changes waiting for a store writer before further ones are refused"),
    key("disk_reserve", "256MiB", "Free disk space below which writes are refused"),
    key("block_cache", "64MiB", "RocksDB's read cache"),
    key("write_buffer", "32MiB", "One of RocksDB's write buffers"),
];
