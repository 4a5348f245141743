//! The ring changes, and no write is lost: whatever happens to messages, nodes and disks.

mod support;

use proptest::prelude::*;
use support::cases;
use support::ring_world::worlds;

proptest! {
    #![proptest_config(cases(3000))]

    #[test]
    fn what_was_acknowledged_is_read_while_the_ring_changes(world in worlds()) {
        world.run().map_err(TestCaseError::fail)?;
    }
}
