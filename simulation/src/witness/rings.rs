//! Which ring each node goes by, as its disk says.

use std::collections::BTreeMap;
use std::sync::Arc;

use starling_core::ids::{DirectoryId, NodeId};
use starling_core::layout::LayoutVersion;
use starling_core::name::ObjectKey;
use starling_core::ring::{Decree, Entry, Epoch, Ring};
use starling_storage::{Batch, Space, inspect};

use crate::kernel::network::HostId;

/// What an entry of the log means to the witness.
pub enum News {
    /// The node knows of a layout that is coming.
    Coming(LayoutVersion),
    /// The node knows that this directory stands for a member from now on.
    Registered(DirectoryId),
    /// For the first time: from one ring to the next another layout is read.
    Read(Arc<Ring>, Arc<Ring>),
    Nothing,
}

pub struct Rings {
    log: BTreeMap<Epoch, Entry>,
    rings: BTreeMap<Epoch, Arc<Ring>>,
    /// By node; 0 before it belongs to the cluster.
    epochs: Vec<Epoch>,
}

impl Rings {
    pub fn of(nodes: usize) -> Rings {
        Rings { log: BTreeMap::new(), rings: BTreeMap::new(), epochs: vec![Epoch(0); nodes] }
    }

    pub fn newest(&self) -> Option<&Arc<Ring>> {
        self.rings.values().next_back()
    }

    /// The oldest that some member may go by.
    pub fn oldest(&self) -> Epoch {
        self.epochs.iter().copied().filter(|epoch| *epoch > Epoch(0)).min().unwrap_or(Epoch(1))
    }

    pub fn since(&self, epoch: Epoch) -> impl Iterator<Item = &Arc<Ring>> {
        self.rings.range(epoch..).map(|(_, ring)| ring)
    }

    /// The ring of that epoch, or else the one that a node goes by.
    pub fn by(&self, epoch: Option<Epoch>, host: HostId) -> Option<&Arc<Ring>> {
        self.rings.get(&epoch.unwrap_or(self.epochs[host.0]))
    }

    pub fn is_primary_of(&self, host: HostId, node: NodeId, key: &ObjectKey) -> bool {
        self.by(None, host).is_some_and(|ring| ring.primaries(key).contains(node))
    }

    /// By some ring: what it took then nobody owes anything for.
    pub fn was_primary(&self, node: NodeId, key: &ObjectKey) -> bool {
        self.rings.values().any(|ring| ring.primaries(key).contains(node))
    }

    /// How many copies of a key there were when there were fewest.
    pub fn fewest_copies(&self, key: &ObjectKey) -> usize {
        let copies = self.rings.values().filter_map(|ring| ring.primaries(key).written().iter().map(Vec::len).min());
        copies.min().unwrap_or_default()
    }

    /// The node has no more of the log than that.
    pub fn forget(&mut self, host: HostId, epoch: Epoch) {
        self.epochs[host.0] = epoch;
    }

    /// What of a batch belongs to the log: whether each entry is the one that others have.
    pub fn durable(&mut self, host: HostId, batch: &Batch) -> Vec<Result<News, String>> {
        let meta = batch.changes().iter().filter(|change| change.space == Space::Meta);
        let entries = meta.filter_map(|change| {
            let value = change.value.as_ref()?;
            inspect::log_entry(&change.key, value).expect("the product reads what it writes")
        });
        entries.collect::<Vec<Entry>>().into_iter().map(|entry| self.adopted(host, entry)).collect()
    }

    fn adopted(&mut self, host: HostId, entry: Entry) -> Result<News, String> {
        let epoch = entry.epoch;
        self.epochs[host.0] = epoch;
        let coming = match &entry.decree {
            Decree::Begin { layout, .. } | Decree::Force { layout, .. } => News::Coming(layout.version()),
            Decree::Register { directory, .. } => News::Registered(*directory),
            Decree::Switch(_) | Decree::End(_) | Decree::Emptied(_) => News::Nothing,
        };
        if let Some(known) = self.log.get(&epoch) {
            let is_same = *known == entry;
            return if is_same {
                Ok(coming)
            } else {
                Err(format!("it has another decree of epoch {epoch} than others"))
            };
        }
        let before = self.rings.get(&Epoch(epoch.0 - 1));
        let ring = match (before, &entry.decree) {
            (None, Decree::Begin { layout, .. }) => Ring::first(layout.clone()),
            (Some(before), _) => before.after(&entry),
            (None, _) => return Err(format!("nobody knows what comes before epoch {epoch}")),
        };
        let ring = Arc::new(ring.map_err(|error| error.to_string())?);
        let news = match (before, &entry.decree) {
            (Some(before), Decree::Switch(_)) => News::Read(Arc::clone(before), Arc::clone(&ring)),
            _ => coming,
        };
        self.rings.insert(epoch, ring);
        self.log.insert(epoch, entry);
        Ok(news)
    }
}
