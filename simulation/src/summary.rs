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
    /// What the first complaint is about.
    pub key: Option<String>,
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
    pub tested: BTreeMap<String, Times>,
    pub fingerprint: String,
}

/// How often something was put to the test, did not hold, and was excused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Times {
    pub tested: u64,
    pub violated: u64,
    pub excused: u64,
}

impl std::ops::AddAssign for Times {
    fn add_assign(&mut self, more: Times) {
        self.tested += more.tested;
        self.violated += more.violated;
        self.excused += more.excused;
    }
}

impl Summary {
    pub fn of(plan: &Plan, verdict: &Verdict) -> Summary {
        let counts = verdict.checker.counts;
        Summary {
            seed: plan.seed,
            passed: verdict.passed(),
            crashed: false,
            caught_by: verdict.caught_by(),
            key: verdict.key(plan),
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
                .map(|tested| {
                    let starling_checker::Tested { assertion, times, violated, excused } = *tested;
                    (assertion.to_string(), Times { tested: times, violated, excused })
                })
                .chain(verdict.tested.iter().map(|(name, times)| ((*name).to_owned(), *times)))
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
            key: None,
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
