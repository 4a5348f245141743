//! The checker against a store that is right, with all that interleaving, lost answers, late messages and repeated tries
//! can do to it; and against the same histories after something has lied in them.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use starling_checker::Assertion::{
    AcknowledgedWriteLost, ContextWentBackwards, DeleteUndone, FailedWriteVisible, NotSuperseded, ReplicasDiffer,
    Resurrected, SeveralWinners, ShownTwice, StaleRead, ValueNobodyWrote,
};
use starling_checker::{
    Assertion, Change, Deed, Found, History, Operation, Read, ReadOutcome, ValueId, Verdict, Write,
};
use starling_core::clock::Clock;
use starling_core::object::SiblingMode;
use support::cluster::{Fault, Habits, Run, run};

const ALL: Habits = Habits { mode: SiblingMode::Keep, deletes: true, retries: true, fault: Fault::None };
const PLAIN: Habits = Habits { mode: SiblingMode::Keep, deletes: false, retries: false, fault: Fault::None };

fn runs(habits: Habits) -> impl Strategy<Value = Run> {
    prop::collection::vec(any::<u8>(), 50..1500).prop_map(move |choices| run(habits, &choices))
}

fn verdict(run: &Run) -> Verdict {
    let mut history = History::default();
    run.operations.iter().for_each(|operation| {
        history.record(operation.clone()).expect("a run takes time");
    });
    history.check(Some(&run.end)).expect("the run was recorded rightly")
}

fn verdict_of_last_write_wins(run: &Run) -> Verdict {
    let mut history = History::default();
    history.set_mode("bucket".parse().expect("a valid name"), SiblingMode::LastWriteWins);
    run.operations.iter().for_each(|operation| {
        history.record(operation.clone()).expect("a run takes time");
    });
    history.check(Some(&run.end)).expect("the run was recorded rightly")
}

fn found(operation: &mut Operation) -> Option<&mut Found> {
    match &mut operation.deed {
        Deed::Read(Read { outcome: ReadOutcome::Found(found), .. }) => Some(found),
        Deed::Read(_) | Deed::Write(_) => None,
    }
}

fn written(operation: &Operation) -> Option<&Write> {
    match &operation.deed {
        Deed::Write(write) => Some(write),
        Deed::Read(_) => None,
    }
}

fn shown(operation: &Operation) -> Option<(&Read, &Found)> {
    match &operation.deed {
        Deed::Read(read @ Read { outcome: ReadOutcome::Found(found), .. }) => Some((read, found)),
        Deed::Read(_) | Deed::Write(_) => None,
    }
}

/// The place of a value's write.
fn writer(run: &Run, value: ValueId) -> Option<usize> {
    run.operations.iter().position(|operation| written(operation).is_some_and(|w| w.change.value() == Some(value)))
}

fn each_copy(run: &mut Run, mut change: impl FnMut(&mut Vec<ValueId>)) {
    let copies = run.end.replicas.values_mut().flatten().filter_map(|replica| replica.holds.as_mut());
    copies.for_each(|copy| change(&mut copy.values));
}

fn in_the_end(run: &Run) -> Vec<ValueId> {
    let copies = run.end.replicas.values().flatten().filter_map(|replica| replica.holds.as_ref());
    copies.flat_map(|copy| copy.values.clone()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_global_rejects: 100_000, ..ProptestConfig::default() })]

    #[test]
    fn a_store_that_is_right_is_never_accused(run in runs(ALL)) {
        let verdict = verdict(&run);
        prop_assert!(verdict.passed(), "{verdict}");
    }

    #[test]
    fn nor_is_one_without_deletes_and_retries_and_nothing_is_excused(run in runs(PLAIN)) {
        let verdict = verdict(&run);
        prop_assert!(verdict.passed(), "{verdict}");
        prop_assert!(verdict.tested.iter().all(|tested| tested.excused == 0), "{verdict}");
    }

    #[test]
    fn nor_is_one_in_which_the_last_write_wins(run in runs(Habits { mode: SiblingMode::LastWriteWins, ..ALL })) {
        let verdict = verdict_of_last_write_wins(&run);
        prop_assert!(verdict.passed(), "{verdict}");
    }

    #[test]
    fn an_acknowledged_write_that_vanishes_is_missed(mut run in runs(PLAIN), which: prop::sample::Index) {
        let acknowledged = |value: &ValueId| {
            writer(&run, *value).and_then(|at| written(&run.operations[at])).is_some_and(Write::is_acknowledged)
        };
        let candidates: Vec<ValueId> = in_the_end(&run).into_iter().filter(acknowledged).collect();
        prop_assume!(!candidates.is_empty());
        let lost = *which.get(&candidates);
        each_copy(&mut run, |values| values.retain(|value| *value != lost));
        prop_assert!(verdict(&run).of(AcknowledgedWriteLost).violated > 0, "{lost}\n{}", verdict(&run));
    }

    #[test]
    fn what_was_superseded_is_not_let_back(
        mut run in runs(Habits { deletes: true, ..PLAIN }), which: prop::sample::Index,
    ) {
        let used = run.operations.iter().filter_map(written).filter(|write| write.is_acknowledged());
        let used: Vec<_> = used.filter_map(|write| write.change.context()).collect();
        let reads = run.operations.iter().filter_map(shown);
        let covering = reads.filter(|(_, found)| found.context.is_some_and(|context| used.contains(&context)));
        let candidates: Vec<ValueId> = covering.flat_map(|(_, found)| found.values.clone()).collect();
        prop_assume!(!candidates.is_empty());
        let back = *which.get(&candidates);
        each_copy(&mut run, |values| values.push(back));
        let verdict = verdict(&run);
        let noticed = [NotSuperseded, Resurrected, DeleteUndone].map(|assertion| verdict.of(assertion).violated);
        prop_assert!(noticed.iter().sum::<u64>() > 0, "{back}\n{verdict}");
    }

    #[test]
    fn what_was_read_and_replaced_does_not_appear_beside_it(mut run in runs(PLAIN), which: prop::sample::Index) {
        let mut candidates = Vec::new();
        for (at, operation) in run.operations.iter().enumerate() {
            for value in shown(operation).into_iter().flat_map(|(_, found)| &found.values) {
                let write = writer(&run, *value).and_then(|at| written(&run.operations[at]));
                let Some(context) = write.and_then(|write| write.change.context()) else { continue };
                let source = run.operations.iter().filter_map(shown).find(|(_, found)| found.context == Some(context));
                candidates.extend(source.into_iter().flat_map(|(_, found)| &found.values).map(|old| (at, *old)));
            }
        }
        prop_assume!(!candidates.is_empty());
        let (at, old) = *which.get(&candidates);
        found(&mut run.operations[at]).expect("it is a read").values.push(old);
        prop_assert!(verdict(&run).of(NotSuperseded).violated > 0, "{old} in {at}\n{}", verdict(&run));
    }

    #[test]
    fn a_failed_write_that_is_seen_is_noticed(mut run in runs(ALL), which: prop::sample::Index, read: prop::sample::Index) {
        let failed = run.operations.iter().filter_map(written).filter(|write| write.is_failed());
        let failed: Vec<ValueId> = failed.filter_map(|write| write.change.value()).collect();
        let mut reads: Vec<&mut Found> = run.operations.iter_mut().filter_map(found).collect();
        prop_assume!(!failed.is_empty() && !reads.is_empty());
        let read = read.index(reads.len());
        reads[read].values.push(*which.get(&failed));
        prop_assert!(verdict(&run).of(FailedWriteVisible).violated > 0);
    }

    #[test]
    fn an_invented_value_is_noticed(mut run in runs(ALL), read: prop::sample::Index) {
        let mut reads: Vec<&mut Found> = run.operations.iter_mut().filter_map(found).collect();
        prop_assume!(!reads.is_empty());
        let read = read.index(reads.len());
        reads[read].values.push(ValueId(u64::MAX));
        prop_assert_eq!(verdict(&run).of(ValueNobodyWrote).violated, 1);
    }

    #[test]
    fn a_strict_read_that_misses_a_strict_write_is_noticed(mut run in runs(PLAIN), which: prop::sample::Index) {
        let mut candidates = Vec::new();
        for (at, operation) in run.operations.iter().enumerate() {
            let Some((read, found)) = shown(operation) else { continue };
            for value in &found.values {
                let writer = writer(&run, *value).map(|at| &run.operations[at]);
                let strict = |earlier: &&Operation| {
                    let write = written(earlier).expect("it wrote the value");
                    let strict = write.asked.primaries + read.asked.primaries > write.asked.copies;
                    write.is_acknowledged() && strict && earlier.ended < operation.invoked
                };
                candidates.extend(writer.filter(strict).map(|_| (at, *value)));
            }
        }
        prop_assume!(!candidates.is_empty());
        let (at, missed) = *which.get(&candidates);
        found(&mut run.operations[at]).expect("it is a read").values.retain(|value| *value != missed);
        prop_assert!(verdict(&run).of(StaleRead).violated > 0, "{missed} in {at}\n{}", verdict(&run));
    }

    #[test]
    fn a_strict_read_that_goes_back_behind_another_is_noticed(mut run in runs(ALL), which: prop::sample::Index) {
        let waited = |operation: &Operation| {
            let strict = shown(operation).filter(|(read, found)| read.waits_for_repair && !found.clock.is_empty());
            strict.filter(|(read, _)| read.asked.primaries >= 2).map(|_| operation.ended)
        };
        let first = run.operations.iter().filter_map(waited).min();
        let later = |operation: &Operation| {
            shown(operation).is_some_and(|(read, _)| read.asked.primaries >= 2) && first.is_some_and(|t| t < operation.invoked)
        };
        let candidates: Vec<usize> = (0..run.operations.len()).filter(|at| later(&run.operations[*at])).collect();
        prop_assume!(!candidates.is_empty());
        let back = *which.get(&candidates);
        found(&mut run.operations[back]).expect("it is a read").clock = Clock::default();
        prop_assert!(verdict(&run).of(ContextWentBackwards).violated > 0);
    }

    #[test]
    fn a_replica_that_lags_is_noticed(mut run in runs(ALL), which: prop::sample::Index) {
        let mut replicas: Vec<_> = run.end.replicas.values_mut().flatten().collect();
        let lagging = which.index(replicas.len());
        prop_assume!(replicas[lagging].holds.take().is_some());
        prop_assert_eq!(verdict(&run).of(ReplicasDiffer).violated, 1);
    }

    #[test]
    fn two_winners_are_noticed(mut run in runs(Habits { mode: SiblingMode::LastWriteWins, ..PLAIN }), which: prop::sample::Index) {
        let put = |operation: &Operation| written(operation).filter(|w| !w.is_failed()).and_then(|w| w.change.value());
        let mut candidates: Vec<ValueId> = run.operations.iter().filter_map(put).collect();
        candidates.retain(|value| !in_the_end(&run).contains(value));
        prop_assume!(!candidates.is_empty() && !in_the_end(&run).is_empty());
        let second = *which.get(&candidates);
        each_copy(&mut run, |values| values.push(second));
        prop_assert!(verdict_of_last_write_wins(&run).of(SeveralWinners).violated > 0);
    }
}

/// As if at random, and always the same.
fn choices(seed: u32) -> Vec<u8> {
    // Knuth's MMIX generator.
    let mut state = u64::from(seed);
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_le_bytes()[5]
    };
    std::iter::repeat_with(next).take(1000).collect()
}

fn assertions_broken_by(fault: Fault) -> Vec<Assertion> {
    let verdicts = (0..50).map(|seed| verdict(&run(Habits { fault, ..PLAIN }, &choices(seed))));
    let broken = verdicts.flat_map(|verdict| verdict.tested).filter(|tested| tested.violated > 0);
    broken.map(|tested| tested.assertion).collect::<BTreeSet<_>>().into_iter().collect()
}

#[test]
fn every_bug_is_found_by_what_it_breaks() {
    assert_eq!(assertions_broken_by(Fault::None), []);
    assert_eq!(assertions_broken_by(Fault::AcknowledgesEarly), [StaleRead]);
    assert_eq!(assertions_broken_by(Fault::ReadsOne), [StaleRead, ContextWentBackwards]);
    let ignores = assertions_broken_by(Fault::IgnoresContexts);
    assert!(ignores.contains(&NotSuperseded), "{ignores:?}");
    let removes = assertions_broken_by(Fault::RemovesUnread);
    assert!(removes.contains(&AcknowledgedWriteLost) && removes.contains(&StaleRead), "{removes:?}");
    let replaces = assertions_broken_by(Fault::ReplacesOnMerge);
    assert!(replaces.contains(&AcknowledgedWriteLost) && replaces.contains(&StaleRead), "{replaces:?}");
}

/// A property that never meets a case says nothing: runs contain all that the assertions are about.
#[test]
fn runs_put_every_assertion_to_the_test() {
    let mut times = BTreeMap::new();
    let mut put_over_context = 0;
    for seed in 0..200u32 {
        let choices: Vec<u8> =
            (0..1000u32).map(|n| ((n ^ (seed << 16)).wrapping_mul(0x9e37_79b9) >> 21) as u8).collect();
        let run = run(ALL, &choices);
        let writes = run.operations.iter().filter_map(written);
        put_over_context += writes.filter(|w| matches!(w.change, Change::Put { context: Some(_), .. })).count();
        for tested in verdict(&run).tested {
            *times.entry(tested.assertion).or_insert(0) += tested.times;
        }
    }
    for assertion in [
        AcknowledgedWriteLost,
        FailedWriteVisible,
        ReplicasDiffer,
        NotSuperseded,
        Resurrected,
        ValueNobodyWrote,
        StaleRead,
        ContextWentBackwards,
        DeleteUndone,
        ShownTwice,
    ] {
        assert!(times[&assertion] > 50, "{assertion}: {times:?}");
    }
    assert!(put_over_context > 500, "{put_over_context}");
}
