//! What came of one run, as one process tells another.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::plan::Plan;
use crate::verdict::Verdict;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub seed: u64,
    pub passed: bool,
    /// It did not come to its end.
    pub crashed: bool,
    /// By which assertions and invariants.
    pub caught_by: Vec<String>,
    pub simulated: Duration,
    /// How many were planned.
    pub planned: usize,
    /// Those that came, as often as they did.
    pub troubles: Vec<String>,
    pub clients: usize,
    pub operations: usize,
    pub acknowledged: u64,
    pub unknown: u64,
    pub reads: u64,
    pub checks: u64,
    /// How often what was put to the test, and excused.
    pub tested: BTreeMap<String, (u64, u64)>,
    pub fingerprint: String,
}

impl Summary {
    pub fn of(plan: &Plan, verdict: &Verdict) -> Summary {
        let counts = verdict.checker.counts;
        Summary {
            seed: plan.seed,
            passed: verdict.passed(),
            crashed: false,
            caught_by: verdict.caught_by(),
            simulated: verdict.simulated,
            planned: plan.episodes.len(),
            troubles: verdict.happened.iter().map(ToString::to_string).collect(),
            clients: plan.active_clients,
            operations: plan.active_operations,
            acknowledged: counts.acknowledged,
            unknown: counts.unknown,
            reads: counts.reads,
            checks: verdict.checks,
            tested: verdict
                .checker
                .tested
                .iter()
                .map(|tested| (tested.assertion.to_string(), (tested.times, tested.excused)))
                .chain(verdict.tested.iter().map(|(name, times)| ((*name).to_owned(), (*times, 0))))
                .collect(),
            fingerprint: verdict.fingerprint.clone(),
        }
    }

    /// Of a run that did not come to its end.
    pub fn crashed(seed: u64, how: &str) -> Summary {
        Summary {
            seed,
            passed: false,
            crashed: true,
            caught_by: vec![how.to_owned()],
            simulated: Duration::ZERO,
            planned: 0,
            troubles: Vec::new(),
            clients: 0,
            operations: 0,
            acknowledged: 0,
            unknown: 0,
            reads: 0,
            checks: 0,
            tested: BTreeMap::new(),
            fingerprint: String::new(),
        }
    }
}
