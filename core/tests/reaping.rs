//! Tombstones go for good, and nothing that was deleted comes back.
#![allow(clippy::unwrap_used, reason = "a helper fails as its test does")]

mod support;

use proptest::prelude::*;
use support::cases;
use support::reap_world::worlds;

proptest! {
    #![proptest_config(cases(3000))]

    #[test]
    fn what_was_deleted_and_reaped_stays_deleted(world in worlds()) {
        world.run().map_err(TestCaseError::fail)?;
    }
}
