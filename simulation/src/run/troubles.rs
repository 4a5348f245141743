//! What each trouble does to the world when it begins and when it ends.

use std::collections::BTreeSet;

use starling_storage::{MemoryEngine, inspect};

use super::{World, lock};
use crate::kernel::network::HostId;
use crate::plan::{Episode, Trouble};

impl World {
    pub(super) fn begin(&mut self, episode: &Episode) {
        self.transcript.note("trouble", format!("begins: {}", self.describe(episode)));
        match &episode.trouble {
            Trouble::Partition { cuts, .. } => cuts.iter().for_each(|wire| self.network.cut(*wire)),
            Trouble::Kill { node } => self.take_down(node.0, true, 1.0),
            Trouble::PowerCut { nodes, left } => nodes.iter().for_each(|node| self.take_down(node.0, false, *left)),
            Trouble::Pause { node } => {
                self.state[node.0].paused += 1;
                self.servers[node.0].pause(true);
            }
            Trouble::Restart { node } => {
                self.state[node.0].down += 1;
                self.servers[node.0].ask_to_stop();
            }
            Trouble::Weather { wires, weather } => {
                wires.iter().for_each(|wire| self.network.set_weather_of(*wire, *weather));
            }
            Trouble::Resets { between: (a, b) } => self.network.reset_between(*a, *b),
            Trouble::SlowDisk { node, factor } => self.servers[node.0].disk.slow_down(*factor),
            Trouble::FailingSync { node, left } => {
                self.state[node.0].left_after_failure = *left;
                self.servers[node.0].disk.memory.fail_syncs(1);
            }
            Trouble::FullDisk { node } => self.servers[node.0].disk.fill(true),
            Trouble::ClockJump { node, millis } => self.servers[node.0].watch.jump(*millis),
            Trouble::ClockDrift { node, millis } => self.servers[node.0].watch.drift(*millis),
            Trouble::Wipe { node } => {
                self.take_down(node.0, false, 0.0);
                self.wipe(node.0);
            }
            Trouble::OldCopy { node, clean: false } => {
                let copy = self.servers[node.0].disk.memory.copy();
                self.copies.insert(node.0, copy);
            }
            Trouble::OldCopy { node, clean: true } => {
                self.state[node.0].copy_when_stopped = true;
                self.state[node.0].down += 1;
                self.servers[node.0].ask_to_stop();
            }
        }
    }

    pub(super) fn end(&mut self, episode: &Episode) {
        self.transcript.note("trouble", format!("ends: {}", self.describe(episode)));
        match &episode.trouble {
            Trouble::Partition { cuts, .. } => cuts.iter().for_each(|wire| self.network.mend(*wire)),
            Trouble::Kill { node } | Trouble::Wipe { node } | Trouble::Restart { node } => self.let_up(node.0),
            Trouble::PowerCut { nodes, .. } => nodes.iter().for_each(|node| self.let_up(node.0)),
            Trouble::Pause { node } => {
                self.state[node.0].paused -= 1;
                let paused = self.state[node.0].paused > 0;
                self.servers[node.0].pause(paused);
            }
            Trouble::Weather { wires, .. } => wires.iter().for_each(|wire| self.network.clear_weather_of(*wire)),
            Trouble::Resets { .. } => {}
            Trouble::SlowDisk { node, .. } => self.servers[node.0].disk.slow_down(1),
            Trouble::FailingSync { node, .. } => self.servers[node.0].disk.memory.fail_syncs(0),
            Trouble::FullDisk { node } => self.servers[node.0].disk.fill(false),
            Trouble::ClockJump { node, millis } => self.servers[node.0].watch.jump(-millis),
            Trouble::ClockDrift { node, .. } => self.servers[node.0].watch.set_right(),
            Trouble::OldCopy { node, .. } => self.restore(node.0),
        }
    }

    fn describe(&self, episode: &Episode) -> String {
        let names =
            |hosts: &BTreeSet<HostId>| hosts.iter().map(|host| self.names.host(*host)).collect::<Vec<_>>().join(" ");
        let what = match &episode.trouble {
            Trouble::Partition { cuts, .. } => {
                let wires: Vec<String> = cuts
                    .iter()
                    .map(|(from, to)| format!("{}→{}", self.names.host(*from), self.names.host(*to)))
                    .collect();
                wires.join(" ")
            }
            Trouble::Kill { node }
            | Trouble::Pause { node }
            | Trouble::Restart { node }
            | Trouble::FullDisk { node }
            | Trouble::Wipe { node }
            | Trouble::OldCopy { node, .. } => self.names.host(*node),
            Trouble::PowerCut { nodes, left } => {
                format!("{}, {:.0} % of the unsynced log left", names(nodes), left * 100.0)
            }
            Trouble::FailingSync { node, left } => {
                format!("{}, {:.0} % of the unsynced log left", self.names.host(*node), left * 100.0)
            }
            Trouble::Weather { wires, weather } => format!("{} wires, {weather:?}", wires.len()),
            Trouble::Resets { between: (a, b) } => format!("{} and {}", self.names.host(*a), self.names.host(*b)),
            Trouble::SlowDisk { node, factor } => format!("{}, {factor} times", self.names.host(*node)),
            Trouble::ClockJump { node, millis } => format!("{}, {millis} ms", self.names.host(*node)),
            Trouble::ClockDrift { node, millis } => format!("{}, {millis} ms a second", self.names.host(*node)),
        };
        format!("{}: {what}", episode.trouble.name())
    }

    fn take_down(&mut self, index: usize, says_so: bool, left: f64) {
        self.state[index].down += 1;
        self.state[index].start_at = None;
        self.servers[index].kill(&self.network, says_so, left);
    }

    fn let_up(&mut self, index: usize) {
        self.state[index].down = self.state[index].down.saturating_sub(1);
        self.start_if_wanted(index);
    }

    fn wipe(&mut self, index: usize) {
        let identity = self.names.after_wipe(HostId(index)).clone();
        lock(&self.witness).wiped(HostId(index), &identity);
        self.servers[index].wipe(identity, self.plan.seed);
        self.lost.insert(index, self.now);
        self.watch_disk(index);
    }

    /// Puts an old copy in the place of the disk, if there is one.
    fn restore(&mut self, index: usize) {
        if std::mem::take(&mut self.state[index].copy_when_stopped) {
            // It has not stopped in time to be copied.
            return self.let_up(index);
        }
        let Some(copy) = self.copies.remove(&index) else { return };
        self.servers[index].kill(&self.network, true, 1.0);
        self.servers[index].disk.memory.restore(&copy);
        let engine = MemoryEngine::open(copy);
        let records: Vec<_> = inspect::records(&engine).filter_map(Result::ok).collect();
        lock(&self.witness).rolled_back(HostId(index), records);
        self.lost.insert(index, self.now);
        self.start_if_wanted(index);
    }
}
