//! The operator changes the ring, and plain settings: asks members for it. In the end nothing is left half done.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use starling_client::{ClientError, ControlClient};
use starling_core::change::Change;
use starling_core::layout::BucketRules;
use starling_core::name::BucketName;
use starling_core::quorum::ReplicaCount;
use starling_core::ring::Phase;
use starling_core::settings::{Register, Registers, Setting};
use starling_proto::control::{Committed, Set};

use super::{Desk, PEACE, World, buckets, lock};
use crate::kernel::host::Process;
use crate::kernel::network::{HostId, Plug};

const CALL: Duration = Duration::from_secs(5);
const COMMIT: Duration = Duration::from_secs(15);
/// Whoever has been asked for a change goes on with it for that long, also when nobody waits for it.
const DECISIONS: Duration = Duration::from_secs(12);
/// A bucket of which settings are changed: the clients do not use it.
const UNUSED: &str = "set";
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(700);

impl World {
    /// Asks for the changes that are planned, one after another, as long as there is load.
    pub(super) fn begin_moves(&mut self) {
        let plug = self.new_operator();
        let (desk, nodes) = (Arc::clone(&self.desk), self.plan.nodes);
        let process = Process::start("op");
        process.spawn(async move { work_off(&plug, &desk, nodes).await });
        self.operator = Some(process);
    }

    pub(super) fn ask_to_move(&mut self, joins: &BTreeSet<HostId>, leaves: &BTreeSet<HostId>) {
        let name = |node: &HostId| self.names.identity(*node).name.clone();
        let joins = joins.iter().map(|node| Change::Join { name: name(node), weight: 1 });
        let changes = joins.chain(leaves.iter().map(|node| Change::Leave(name(node)))).collect();
        lock(&self.desk).moves.push_back(changes);
    }

    pub(super) fn ask_for_copies(&mut self, bucket: &str, copies: u8) {
        let bucket = bucket.parse().expect("a valid name");
        let rules = BucketRules {
            replicas: Some(ReplicaCount::try_from(copies).expect("from 1 to 7")),
            ..buckets().get(&bucket).copied().unwrap_or_default()
        };
        lock(&self.desk).moves.push_back(vec![Change::Bucket { bucket, rules }]);
    }

    pub(super) fn ask_to_weigh(&mut self, node: HostId, weight: u32) {
        let name = self.names.identity(node).name.clone();
        lock(&self.desk).moves.push_back(vec![Change::Weigh { name, weight }]);
    }

    pub(super) fn ask_to_set(&mut self, node: HostId, setting: Setting, text: Option<&str>) {
        let changes = [(setting.name().to_owned(), text.map(str::to_owned))].into();
        let set = Set { bucket: UNUSED.parse().expect("a valid name"), changes };
        lock(&self.desk).sets.push_back((node, set));
    }

    /// All that serve go by the same settings, and by what was said to be set; what one node alone knew of may be lost with
    /// its disk.
    pub(super) fn other_settings(&self) -> Option<String> {
        let serving = (0..self.servers.len()).filter(|index| self.serves(*index));
        let settings = serving.filter_map(|index| Some((index, self.servers[index].node()?.store.settings())));
        let settings: Vec<_> = settings.collect();
        if let Some(pair) = settings.windows(2).find(|pair| pair[0].1 != pair[1].1) {
            return Some(format!("n{} and n{} go by different settings", pair[0].0 + 1, pair[1].0 + 1));
        }
        let (_, known) = settings.first()?;
        let desk = lock(&self.desk);
        let said = desk.set.iter().flat_map(|(bucket, registers)| registers.iter().map(move |said| (bucket, said)));
        let is_known = |bucket: &BucketName, name: &String, register: &Register| {
            known.registers(bucket).and_then(|registers| registers.get(name)).is_some_and(|known| known >= register)
        };
        let (_, (name, _)) = said.into_iter().find(|(bucket, (name, register))| !is_known(bucket, name, register))?;
        self.lost.is_empty().then(|| format!("{name} was said to be set, and nobody knows of it"))
    }

    /// Waits until no change of the ring is under way.
    pub(super) fn await_settled(&mut self) -> Option<String> {
        if !self.plan.moves_the_ring() {
            return None;
        }
        lock(&self.desk).moves.clear();
        let (limit, mut since) = (self.now + PEACE, self.now);
        while self.now < limit {
            self.tick();
            let phase = lock(&self.witness).ring().map(|ring| ring.phase());
            if phase != Some(Phase::Settled) || self.other_ring().is_some() {
                since = self.now;
            } else if self.now >= since + DECISIONS {
                return None;
            }
        }
        Some(self.other_ring().unwrap_or_else(|| "a change of the ring does not come to its end".to_owned()))
    }
}

async fn work_off(plug: &Plug, desk: &Mutex<Desk>, nodes: usize) {
    let mut through = 0;
    loop {
        tokio::time::sleep(PAUSE).await;
        let set = lock(desk).sets.pop_front();
        if let Some((through, set)) = set {
            let bucket = set.bucket.clone();
            let told = self::set(plug, through, set).await.ok();
            lock(desk).set.extend(told.map(|registers| (bucket, registers)));
        }
        let Some(changes) = lock(desk).moves.front().cloned() else { continue };
        through = (through + 1) % nodes;
        // Another's change is under way, or somebody is not there: again, elsewhere.
        if matches!(change(plug, through, changes).await, Ok(Committed::Chosen(_))) {
            lock(desk).moves.pop_front();
        }
    }
}

async fn set(plug: &Plug, through: HostId, set: Set) -> Result<Registers, ClientError> {
    let control = ControlClient::connect_over(plug, &through.address().to_string()).await?;
    control.set(set, CALL).await
}

async fn change(plug: &Plug, through: usize, changes: Vec<Change>) -> Result<Committed, ClientError> {
    let control = ControlClient::connect_over(plug, &HostId(through).address().to_string()).await?;
    control.unstage(CALL).await?;
    let plan = control.stage(changes, CALL).await?;
    control.commit(plan.after.checksum(), COMMIT).await
}
