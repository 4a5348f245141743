//! What the checks say, counted and kept within bounds.

use crate::assertion::Assertion;
use crate::history::{Entry, History};
use crate::index::Index;
use crate::operation::ValueId;
use crate::timeline::Timeline;
use crate::verdict::{MAX_KEPT_OF_A_KIND, Tested, Verdict, Violation};

pub(crate) struct Report<'a> {
    history: &'a History,
    /// By assertion.
    tested: Vec<Tested>,
    violations: Vec<Violation>,
}

impl<'a> Report<'a> {
    pub fn new(history: &'a History) -> Report<'a> {
        let untested = |assertion| Tested { assertion, times: 0, violated: 0, excused: 0 };
        Report { history, tested: Assertion::ALL.map(untested).into(), violations: Vec::new() }
    }

    /// The value as people call it.
    pub fn value(&self, value: ValueId) -> String {
        self.history.value(value)
    }

    pub fn tested(&mut self, assertion: Assertion, times: usize) {
        self.of(assertion).times += times as u64;
    }

    pub fn excused(&mut self, assertion: Assertion) {
        self.of(assertion).excused += 1;
    }

    /// `what` is only said of the violations that are kept.
    pub fn violated(
        &mut self,
        index: &Index<'_>,
        assertion: Assertion,
        culprits: &[&Entry],
        what: impl FnOnce() -> String,
    ) {
        if self.keeps(assertion) {
            let culprits: Vec<_> = culprits.iter().map(|entry| entry.number).collect();
            let timeline = Timeline::new(self.history, index, &culprits);
            let key = Some(index.key.clone());
            self.violations.push(Violation { assertion, key, what: what(), culprits, timeline });
        }
    }

    pub fn violated_by_no_key(&mut self, assertion: Assertion, what: impl FnOnce() -> String) {
        if self.keeps(assertion) {
            let (culprits, timeline) = (Vec::new(), Timeline::default());
            self.violations.push(Violation { assertion, key: None, what: what(), culprits, timeline });
        }
    }

    pub fn into_verdict(self) -> Verdict {
        Verdict { counts: self.history.counts(), tested: self.tested, violations: self.violations }
    }

    fn keeps(&mut self, assertion: Assertion) -> bool {
        let tested = self.of(assertion);
        tested.violated += 1;
        tested.violated <= MAX_KEPT_OF_A_KIND as u64
    }

    fn of(&mut self, assertion: Assertion) -> &mut Tested {
        &mut self.tested[assertion as usize]
    }
}
