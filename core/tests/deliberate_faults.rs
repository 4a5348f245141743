//! The models of the machines on trial: a machine that is broken on purpose does not pass them.
#![cfg(feature = "deliberate-faults")]

mod support;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use starling_core::fault::{Fault, switch_on};
use support::{choice_world, get_world, put_world, reap_world, ring_world};

/// What the model says of the first world in which it finds the machine out.
fn found<W: std::fmt::Debug>(
    fault: Fault,
    worlds: impl Strategy<Value = W>,
    run: impl Fn(&W) -> Result<(), String>,
) -> String {
    switch_on(fault);
    let config = Config { failure_persistence: None, cases: 60_000, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let outcome = runner.run(&worlds, |world| run(&world).map_err(TestCaseError::fail));
    match outcome {
        Err(TestError::Fail(reason, _)) => reason.to_string(),
        other => panic!("{fault} was not found: {other:?}"),
    }
}

/// One test, since a fault is switched on for the whole process.
#[test]
fn the_models_find_machines_that_are_broken_on_purpose() {
    for fault in [Fault::CountFilling, Fault::CountFallbackNotFound] {
        println!("{fault}: {}", found(fault, get_world::worlds(), get_world::World::run));
    }
    let fault = Fault::FallbackCountsAsPrimary;
    println!("{fault}: {}", found(fault, put_world::worlds(), put_world::World::run));
    let fault = Fault::ForgetfulAcceptor;
    println!("{fault}: {}", found(fault, choice_world::worlds(), choice_world::World::run));
    let of_rings = [
        Fault::SwitchBeforeCopied,
        Fault::WriteToOneLayout,
        Fault::PullTooEarly,
        Fault::CountFilling,
        Fault::FillFromOne,
    ];
    for fault in of_rings {
        println!("{fault}: {}", found(fault, ring_world::worlds(), ring_world::World::run));
    }
    let of_reaping = [
        Fault::ReapByAge,
        Fault::ReapWhilePrimaryLacks,
        Fault::ForgetBindingAnswer,
        Fault::ForgetRoundsOver,
        Fault::ReviveDeparted,
        Fault::ExpireByWriting,
        Fault::ExpireByOneClock,
        Fault::MergeWithoutValues,
    ];
    for fault in of_reaping {
        println!("{fault}: {}", found(fault, reap_world::worlds(), reap_world::World::run));
    }
}
