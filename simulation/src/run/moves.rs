//! The operator moves the ring: asks members for changes. In the end none is left half done.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use starling_client::{ClientError, ControlClient};
use starling_core::change::Change;
use starling_core::ring::Phase;
use starling_proto::control::Committed;

use super::{Desk, PEACE, World, lock};
use crate::kernel::host::Process;
use crate::kernel::network::{HostId, Plug};

const CALL: Duration = Duration::from_secs(5);
const COMMIT: Duration = Duration::from_secs(15);
/// Whoever has been asked for a change goes on with it for that long, also when nobody waits for it.
const DECISIONS: Duration = Duration::from_secs(12);
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

    /// Waits until no change of the ring is under way.
    pub(super) fn await_settled(&mut self) -> Option<String> {
        if self.plan.members == self.plan.nodes {
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
        let Some(changes) = lock(desk).moves.front().cloned() else { continue };
        through = (through + 1) % nodes;
        // Another's change is under way, or somebody is not there: again, elsewhere.
        if matches!(change(plug, through, changes).await, Ok(Committed::Chosen(_))) {
            lock(desk).moves.pop_front();
        }
    }
}

async fn change(plug: &Plug, through: usize, changes: Vec<Change>) -> Result<Committed, ClientError> {
    let control = ControlClient::connect_over(plug, &HostId(through).address().to_string()).await?;
    control.unstage(CALL).await?;
    let plan = control.stage(changes, CALL).await?;
    control.commit(plan.after.checksum(), COMMIT).await
}
