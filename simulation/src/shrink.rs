//! A failing run, made as small as it goes: fewer troubles, fewer clients, fewer operations, as long as it still fails in
//! the same way.

use crate::arguments::{Reduction, Single};
use crate::summary::Summary;

/// Runs that shrinking may take.
const MOST_RUNS: usize = 80;

pub struct Shrunk {
    pub single: Single,
    pub summary: Summary,
}

/// # Errors
/// If no process can be started.
pub fn shrink(found: &Summary, single: &Single) -> anyhow::Result<Shrunk> {
    let mut search = Search {
        best: Shrunk { single: single.clone(), summary: found.clone() },
        caught_by: found.caught_by.clone(),
        runs: 0,
    };
    search.drop_troubles(found.planned)?;
    search.drop_clients(found.clients)?;
    search.drop_operations(found.operations)?;
    search.drop_troubles(found.planned)?;
    Ok(search.best)
}

struct Search {
    best: Shrunk,
    caught_by: Vec<String>,
    runs: usize,
}

impl Search {
    /// Whether it still fails with this reduction; if so, that is the best so far.
    fn fails(&mut self, reduction: Reduction) -> anyhow::Result<bool> {
        if self.runs >= MOST_RUNS {
            return Ok(false);
        }
        self.runs += 1;
        let single = Single { reduction, ..self.best.single.clone() };
        let summary = single.elsewhere()?;
        // Assertions come before invariants: what a client could see is not given up for what only the witness saw.
        let same = self.caught_by.first().is_some_and(|first| summary.caught_by.contains(first));
        if same {
            self.best = Shrunk { single, summary };
        }
        Ok(same)
    }

    fn drop_troubles(&mut self, count: usize) -> anyhow::Result<()> {
        let reduction = &self.best.single.reduction;
        if reduction.only_troubles.is_none() {
            let none = Reduction { only_troubles: Some(Vec::new()), ..reduction.clone() };
            if self.fails(none)? {
                return Ok(());
            }
        }
        let reduction = &self.best.single.reduction;
        let mut left = reduction.only_troubles.clone().unwrap_or_else(|| (0..count).collect());
        for number in left.clone() {
            let without: Vec<usize> = left.iter().copied().filter(|other| *other != number).collect();
            let reduction = Reduction { only_troubles: Some(without.clone()), ..self.best.single.reduction.clone() };
            if self.fails(reduction)? {
                left = without;
            }
        }
        Ok(())
    }

    fn drop_clients(&mut self, count: usize) -> anyhow::Result<()> {
        for clients in 1..count {
            if self.fails(Reduction { clients: Some(clients), ..self.best.single.reduction.clone() })? {
                break;
            }
        }
        Ok(())
    }

    /// By halves, between the most that is too few and the fewest that is enough.
    fn drop_operations(&mut self, count: usize) -> anyhow::Result<()> {
        let (mut too_few, mut enough) = (0, count);
        while enough - too_few > 1 {
            let middle = too_few + (enough - too_few) / 2;
            if self.fails(Reduction { operations: Some(middle), ..self.best.single.reduction.clone() })? {
                enough = middle;
            } else {
                too_few = middle;
            }
        }
        Ok(())
    }
}
