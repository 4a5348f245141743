//! What each trouble does to the world when it begins and when it ends.

use std::collections::BTreeMap;
use std::sync::Arc;

use starling_storage::{Identity, MemoryEngine, inspect, salvage};

use super::{Loss, World, lock};
use crate::kernel::network::{HostId, Weather, Wire};
use crate::kernel::time::Moment;
use crate::plan::Trouble;
use crate::witness::ToldBy;

impl World {
    pub(super) fn begin(&mut self, number: usize) {
        let plan = Arc::clone(&self.plan);
        let trouble = &plan.episodes[number].trouble;
        self.transcript
            .note("trouble", format!("{} begins: {}", plan.episodes[number].number, plan.describe_trouble(trouble)));
        self.present.insert(number);
        let mut strikes = true;
        match trouble {
            Trouble::Partition { cuts, .. } => cuts.iter().for_each(|wire| self.network.cut(*wire)),
            Trouble::Kill { node } => strikes = self.take_down(node.0, true, 1.0),
            Trouble::PowerCut { nodes, left } => {
                let struck: Vec<bool> = nodes.iter().map(|node| self.take_down(node.0, false, *left)).collect();
                strikes = struck.contains(&true);
            }
            Trouble::Pause { node } => {
                strikes = self.servers[node.0].is_up();
                self.state[node.0].paused += 1;
                self.servers[node.0].pause(true);
            }
            Trouble::Restart { node } => {
                strikes = self.servers[node.0].is_up();
                self.state[node.0].down += 1;
                self.servers[node.0].ask_to_stop();
            }
            Trouble::Resets { between: (a, b) } => self.network.reset_between(*a, *b),
            Trouble::Move { joins, leaves } => self.ask_to_move(joins, leaves),
            Trouble::Copies { bucket, copies } => self.ask_for_copies(bucket, *copies),
            Trouble::Weigh { node, weight } => self.ask_to_weigh(*node, *weight),
            Trouble::Set { node, setting, text } => self.ask_to_set(*node, *setting, *text),
            Trouble::FailingSync { node, left } => {
                self.state[node.0].left_after_failure = *left;
                self.servers[node.0].disk.memory.fail_syncs(1);
            }
            Trouble::Wipe { node } => {
                self.take_down(node.0, false, 0.0);
                self.wipe(node.0);
            }
            Trouble::Rot { node, at } => strikes = self.servers[node.0].disk.rot(*at),
            Trouble::OldCopy { node, clean: false } => {
                let copy = self.servers[node.0].disk.memory.copy();
                self.copies.insert(node.0, (self.now, copy));
            }
            Trouble::OldCopy { node, clean: true } => {
                self.state[node.0].copy_when_stopped = true;
                self.state[node.0].down += 1;
                self.servers[node.0].ask_to_stop();
            }
            Trouble::ClockJump { node, millis } => self.servers[node.0].watch.jump(*millis),
            Trouble::Weather { .. }
            | Trouble::SlowDisk { .. }
            | Trouble::FullDisk { .. }
            | Trouble::ClockDrift { .. } => self.set_conditions(),
        }
        // An old copy does its harm when it is put in place.
        if strikes && !matches!(trouble, Trouble::OldCopy { .. }) {
            self.happened.push(trouble.name());
        }
    }

    /// Takes back what is there of it; nothing, if it has not begun or is gone.
    pub(super) fn end(&mut self, number: usize) {
        if !self.present.remove(&number) {
            return;
        }
        let plan = Arc::clone(&self.plan);
        let trouble = &plan.episodes[number].trouble;
        self.transcript
            .note("trouble", format!("{} ends: {}", plan.episodes[number].number, plan.describe_trouble(trouble)));
        match trouble {
            Trouble::Partition { cuts, .. } => cuts.iter().for_each(|wire| self.network.mend(*wire)),
            Trouble::Kill { node } | Trouble::Wipe { node } | Trouble::Restart { node } => self.let_up(node.0),
            Trouble::PowerCut { nodes, .. } => nodes.iter().for_each(|node| self.let_up(node.0)),
            Trouble::Pause { node } => {
                self.state[node.0].paused -= 1;
                let paused = self.state[node.0].paused > 0;
                self.servers[node.0].pause(paused);
            }
            Trouble::Resets { .. }
            | Trouble::Move { .. }
            | Trouble::Copies { .. }
            | Trouble::Weigh { .. }
            | Trouble::Set { .. }
            | Trouble::Rot { .. } => {}
            Trouble::FailingSync { node, .. } => self.servers[node.0].disk.memory.fail_syncs(0),
            Trouble::ClockJump { node, millis } => self.servers[node.0].watch.jump(-millis),
            Trouble::OldCopy { node, .. } => {
                if self.restore(node.0) {
                    self.happened.push(trouble.name());
                }
            }
            Trouble::Weather { .. }
            | Trouble::SlowDisk { .. }
            | Trouble::FullDisk { .. }
            | Trouble::ClockDrift { .. } => self.set_conditions(),
        }
    }

    /// Wires, disks and clocks are as bad as all that is there now makes them.
    fn set_conditions(&mut self) {
        let plan = Arc::clone(&self.plan);
        let mut special: BTreeMap<Wire, Weather> = BTreeMap::new();
        let count = self.servers.len();
        let (mut factors, mut full, mut drifts) = (vec![1; count], vec![false; count], vec![0; count]);
        for number in &self.present {
            match &plan.episodes[*number].trouble {
                Trouble::Weather { wires, weather } => {
                    for wire in wires {
                        special.entry(*wire).and_modify(|other| *other = other.and(*weather)).or_insert(*weather);
                    }
                }
                Trouble::SlowDisk { node, factor } => factors[node.0] = (*factor).max(factors[node.0]),
                Trouble::FullDisk { node } => full[node.0] = true,
                Trouble::ClockDrift { node, millis } => drifts[node.0] += millis,
                _ => {}
            }
        }
        self.network.set_special_weather(special);
        for (index, server) in self.servers.iter().enumerate() {
            server.disk.slow_down(factors[index]);
            server.disk.fill(full[index]);
            server.watch.drift(drifts[index]);
        }
    }

    /// False if it was down already.
    fn take_down(&mut self, index: usize, says_so: bool, left: f64) -> bool {
        let was_up = self.servers[index].is_up();
        self.state[index].down += 1;
        self.state[index].start_at = None;
        self.servers[index].kill(&self.network, says_so, left);
        was_up
    }

    fn let_up(&mut self, index: usize) {
        self.state[index].down = self.state[index].down.saturating_sub(1);
        self.start_if_wanted(index);
    }

    fn wipe(&mut self, index: usize) {
        let identity = self.names.after_wipe(HostId(index)).clone();
        self.lose_disk(index, identity);
    }

    /// An empty disk takes the place of the one that was there.
    pub(super) fn lose_disk(&mut self, index: usize, identity: Identity) {
        lock(&self.witness).wiped(HostId(index), &identity);
        self.servers[index].wipe(identity, self.plan.seed);
        let to = Moment::default();
        let loss = Loss { at: self.now, to, is_new: true, told_by: ToldBy::Enough };
        self.lost.entry(index).or_default().push(loss);
        self.watch_disk(index);
        self.set_conditions();
    }

    /// What can be read of a damaged disk goes on, on another.
    pub(super) fn salvage(&mut self, index: usize, identity: Identity) {
        let damaged = MemoryEngine::open(self.servers[index].disk.memory.clone());
        self.lose_disk(index, identity);
        let whole = MemoryEngine::open(self.servers[index].disk.memory.clone());
        salvage(&damaged, &whole).expect("the log of a damaged disk can be read");
    }

    /// Puts an old copy in the place of the disk, if there is one.
    fn restore(&mut self, index: usize) -> bool {
        if std::mem::take(&mut self.state[index].copy_when_stopped) {
            // It has not stopped in time to be copied.
            self.let_up(index);
            return false;
        }
        let Some((to, copy)) = self.copies.remove(&index) else { return false };
        self.servers[index].kill(&self.network, true, 1.0);
        self.servers[index].disk.memory.restore(&copy);
        let engine = MemoryEngine::open(copy);
        let started = inspect::starts(&engine).expect("the product reads what it writes");
        let records: Vec<_> = inspect::records(&engine).filter_map(Result::ok).collect();
        let epoch = inspect::epoch(&engine).expect("the product reads what it writes");
        let told_by = lock(&self.witness).rolled_back(HostId(index), started, epoch, records);
        let loss = Loss { at: self.now, to, is_new: false, told_by };
        self.lost.entry(index).or_default().push(loss);
        self.start_if_wanted(index);
        true
    }
}
