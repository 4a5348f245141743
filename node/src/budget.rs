//! A budget for hedges: at most one for ten requests in the long run. Hedging helps against one slow node; when all are
//! slow it would only add to their load.

use std::sync::atomic::{AtomicI64, Ordering};

/// In tenths of a hedge.
const PER_REQUEST: i64 = 1;
const PER_HEDGE: i64 = 10;
const MOST: i64 = 100 * PER_HEDGE;

#[derive(Debug)]
pub struct Budget(AtomicI64);

impl Default for Budget {
    fn default() -> Self {
        Budget(AtomicI64::new(MOST))
    }
}

impl Budget {
    /// Notes a request; says whether it may hedge.
    pub fn pay_in(&self) -> bool {
        let before = self.0.fetch_add(PER_REQUEST, Ordering::Relaxed);
        if before >= MOST {
            self.0.store(MOST, Ordering::Relaxed);
        }
        before >= PER_HEDGE
    }

    pub fn pay_out(&self, hedges: usize) {
        let hedges = i64::try_from(hedges).unwrap_or(i64::MAX / PER_HEDGE);
        self.0.fetch_sub(hedges * PER_HEDGE, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hedges_run_out_and_come_back_with_requests() {
        let budget = Budget::default();
        assert!(budget.pay_in());
        budget.pay_out(101);
        assert!(!budget.pay_in());
        let until = (0..100).position(|_| budget.pay_in());
        assert!(until.is_some_and(|requests| requests > 5));
    }
}
