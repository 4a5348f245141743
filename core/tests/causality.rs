//! Causality against a model that keeps exact histories as plain sets (see `support/flock.rs`).

mod support;

use proptest::prelude::*;
use support::cases;
use support::flock::{Flock, REPLICAS, PRIMARIES, Step, Stop, What};

fn replica() -> impl Strategy<Value = usize> {
    0..REPLICAS
}

/// Chosen modulo what there is; the young ones more often than not.
fn any_of() -> impl Strategy<Value = usize> {
    0usize..48
}

fn what() -> impl Strategy<Value = What> {
    prop_oneof![5 => Just(What::Put), 1 => Just(What::Delete)]
}

fn stop() -> impl Strategy<Value = Stop> {
    prop_oneof![Just(Stop::Clean), Just(Stop::Crash)]
}

fn wall() -> impl Strategy<Value = u64> {
    0u64..20
}

fn everyday_step() -> BoxedStrategy<Step> {
    prop_oneof![
        4 => (replica(), replica()).prop_map(|(at, and)| Step::Read { at, and }),
        1 => (any_of(), any_of()).prop_map(|(one, other)| Step::JoinContexts { one, other }),
        6 => (replica(), prop::option::weighted(0.7, any_of()), what(), wall())
            .prop_map(|(at, context, what, wall)| Step::Write { at, context, what, wall }),
        2 => (any_of(), replica(), wall()).prop_map(|(request, at, wall)| Step::Retry { request, at, wall }),
        1 => replica().prop_map(|from| Step::Send { from }),
        1 => (any_of(), replica()).prop_map(|(message, to)| Step::Deliver { message, to }),
        4 => (replica(), replica()).prop_map(|(from, to)| Step::Exchange { from, to }),
        2 => (PRIMARIES..REPLICAS).prop_map(|fallback| Step::HandOff { fallback }),
        1 => (replica(), stop()).prop_map(|(at, after)| Step::Restart { at, after }),
    ].boxed()
}

fn any_step() -> BoxedStrategy<Step> {
    prop_oneof![
        12 => everyday_step(),
        1 => replica().prop_map(|at| Step::Snapshot { at }),
        1 => replica().prop_map(|at| Step::RollBack { at }),
        1 => replica().prop_map(|at| Step::LoseDisk { at }),
    ].boxed()
}

proptest! {
    #![proptest_config(cases(1500))]

    #[test]
    fn replicas_that_keep_their_disks_say_exactly_what_happened(steps in prop::collection::vec(everyday_step(), 1..60)) {
        Flock::live_through(&steps, None).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn replicas_that_lose_disks_or_come_back_as_old_copies_still_claim_nothing_they_do_not_hold(
        steps in prop::collection::vec(any_step(), 1..60)
    ) {
        Flock::live_through(&steps, None).map_err(TestCaseError::fail)?;
    }
}
