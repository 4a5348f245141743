//! Who has met which start of whose directory (R3), by what was said at greetings.

use std::collections::{BTreeMap, BTreeSet};

use starling_core::ids::{DirectoryId, Run};
use starling_proto::hello::{Class, Hello, Welcome};

use crate::kernel::network::HostId;

/// How many of the other nodes can tell that a disk does not hold any more what it held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToldBy {
    /// So many that the node cannot find a majority without one of them; or the disk has a new identity.
    Enough,
    Some,
    Nobody,
}

impl ToldBy {
    /// What has to become of the node.
    pub fn duty(self) -> &'static str {
        match self {
            ToldBy::Enough => "node that has lost its disk, and must not serve from it",
            ToldBy::Some => "node that has lost its disk, and may be found out",
            ToldBy::Nobody => "node that has lost its disk, and must serve, since nobody can tell",
        }
    }
}

#[derive(Default)]
pub struct Starts {
    /// The last start of each directory that was spoken of.
    announced: BTreeMap<DirectoryId, u64>,
    /// Hellos that are not answered yet, by connection.
    asked: BTreeMap<u64, Run>,
    /// Who has made a start of that number durable, and said so.
    met: BTreeMap<(DirectoryId, u64), BTreeSet<HostId>>,
}

impl Starts {
    pub fn hello(&mut self, connection: u64, hello: &Hello) {
        let Some(from) = &hello.from else { return };
        self.announce(&from.run);
        // Others are not asked to remember it.
        if matches!(hello.class, Class::Peer | Class::Bulk) {
            self.asked.insert(connection, from.run);
        }
    }

    pub fn welcome(&mut self, connection: u64, by: HostId, welcome: &Welcome) {
        self.announce(&welcome.node.run);
        if let Some(run) = self.asked.remove(&connection) {
            self.met.entry((run.directory, run.counter)).or_default().insert(by);
        }
    }

    /// Of a directory that has gone back to its start of this number, in a cluster of so many: its next start looks like
    /// the one that others may have met.
    pub fn who_can_tell(&self, directory: DirectoryId, started: u64, nodes: usize) -> ToldBy {
        let later = self.met.range((directory, started + 1)..=(directory, u64::MAX));
        let met: BTreeSet<&HostId> = later.flat_map(|(_, hosts)| hosts).collect();
        // With itself it needs a majority.
        let without = nodes - met.len();
        match self.announced.get(&directory) {
            _ if !met.is_empty() && without <= nodes / 2 => ToldBy::Enough,
            Some(announced) if *announced > started => ToldBy::Some,
            Some(_) | None => ToldBy::Nobody,
        }
    }

    fn announce(&mut self, run: &Run) {
        let last = self.announced.entry(run.directory).or_default();
        *last = run.counter.max(*last);
    }
}
