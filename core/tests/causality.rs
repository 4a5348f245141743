//! Causality against a model that keeps exact histories as plain sets (see `support/flock.rs`): random stories of
//! replicas and clients, some stories told on purpose, and proof that the checks notice a broken rule.

mod support;

use proptest::prelude::*;
use starling_core::object::SiblingMode;
use support::cases;
use support::flock::{Flock, PRIMARIES, REPLICAS, Sabotage, Step, Stop, What};

fn mode() -> impl Strategy<Value = SiblingMode> {
    prop_oneof![Just(SiblingMode::Keep), Just(SiblingMode::LastWriteWins)]
}

fn replica() -> impl Strategy<Value = usize> {
    0..REPLICAS
}

/// Chosen modulo what there is.
fn any_of_them() -> impl Strategy<Value = usize> {
    0usize..48
}

/// What happens to replicas that keep their disks.
fn everyday_step() -> impl Strategy<Value = Step> {
    let what = prop_oneof![5 => Just(What::Put), 1 => Just(What::Delete)];
    let stop = prop_oneof![Just(Stop::Clean), Just(Stop::Crash)];
    let context = prop::option::weighted(0.7, any_of_them());
    prop_oneof![
        4 => (replica(), replica()).prop_map(|(at, and)| Step::Read { at, and }),
        1 => (any_of_them(), any_of_them()).prop_map(|(one, other)| Step::JoinContexts { one, other }),
        6 => (replica(), context, what, 0u64..20)
            .prop_map(|(at, context, what, wall)| Step::Write { at, context, what, wall }),
        2 => (any_of_them(), replica(), 0u64..20).prop_map(|(request, at, wall)| Step::Retry { request, at, wall }),
        1 => replica().prop_map(|from| Step::Send { from }),
        1 => (any_of_them(), replica()).prop_map(|(message, to)| Step::Deliver { message, to }),
        4 => (replica(), replica()).prop_map(|(from, to)| Step::Exchange { from, to }),
        2 => (PRIMARIES..REPLICAS).prop_map(|fallback| Step::HandOff { fallback }),
        1 => (replica(), stop).prop_map(|(at, after)| Step::Restart { at, after }),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => everyday_step(),
        1 => replica().prop_map(|at| Step::Snapshot { at }),
        1 => replica().prop_map(|at| Step::RollBack { at }),
        1 => replica().prop_map(|at| Step::LoseDisk { at }),
    ]
}

/// Reads of two replicas of three, and where the next write and its copy go: r = w = 2.
fn rounds() -> impl Strategy<Value = Vec<[usize; 4]>> {
    prop::collection::vec([0..PRIMARIES, 1..PRIMARIES, 0..PRIMARIES, 1..PRIMARIES], 1..20)
}

proptest! {
    #![proptest_config(cases(1000))]

    #[test]
    fn replicas_that_keep_their_disks_say_exactly_what_happened(
        steps in prop::collection::vec(everyday_step(), 1..60), mode in mode()
    ) {
        Flock::live_through(&steps, mode, None).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn replicas_that_lose_disks_or_come_back_as_old_copies_claim_nothing_that_they_do_not_hold(
        steps in prop::collection::vec(any_step(), 1..60), mode in mode()
    ) {
        Flock::live_through(&steps, mode, None).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn sequential_writers_leave_one_sibling(rounds in rounds()) {
        let mut steps = Vec::new();
        for (round, [read, read_too, write, copy]) in rounds.into_iter().enumerate() {
            steps.push(Step::Read { at: read, and: (read + read_too) % PRIMARIES });
            steps.push(Step::Write { at: write, context: Some(round), what: What::Put, wall: 0 });
            steps.push(Step::Exchange { from: write, to: (write + copy) % PRIMARIES });
        }
        let flock = Flock::live_through(&steps, SiblingMode::Keep, None).map_err(TestCaseError::fail)?;
        prop_assert_eq!(flock.object(0).siblings().len(), 1);
    }
}

fn write(at: usize) -> Step {
    Step::Write { at, context: None, what: What::Put, wall: 0 }
}

/// With the context of a read, by its number.
fn write_after(at: usize, context: usize) -> Step {
    Step::Write { at, context: Some(context), what: What::Put, wall: 0 }
}

#[track_caller]
fn live_through(steps: &[Step]) -> Flock {
    Flock::live_through(steps, SiblingMode::Keep, None).unwrap_or_else(|violation| panic!("{violation}"))
}

/// The story holds under the rule, and the checks notice when the rule is broken.
#[track_caller]
fn needs_the_rule(steps: &[Step], broken: Sabotage, noticed: &str) {
    live_through(steps);
    let violation =
        Flock::live_through(steps, SiblingMode::Keep, Some(broken)).expect_err("the checks let a broken rule pass");
    assert!(violation.contains(noticed), "{violation}");
}

#[test]
fn a_fallback_that_hands_off_drops_and_coordinates_again_begins_a_new_history() {
    let steps = [write(3), Step::HandOff { fallback: 3 }, write(3), Step::HandOff { fallback: 3 }, write(3)];
    let dots = live_through(&steps).dots();
    assert_eq!(dots.iter().map(|dot| dot.counter).collect::<Vec<_>>(), [1, 1, 1]);
    assert!(dots[0].history != dots[1].history && dots[1].history != dots[2].history);
    needs_the_rule(&steps, Sabotage::MarkOutlivesTheCopy, "has not come to it");
}

#[test]
fn an_own_message_that_comes_back_late_teaches_a_fallback_no_mark() {
    // The fallback writes once and sends that; it writes again, hands both off and drops them. Then the first message
    // comes back: a mark learnt from it would mint the second dot again.
    let steps = [
        write(3),
        Step::Send { from: 3 },
        write(3),
        Step::HandOff { fallback: 3 },
        Step::Deliver { message: 0, to: 3 },
        write(3),
    ];
    needs_the_rule(&steps, Sabotage::MarkLearntFromObject, "has two values");
}

#[test]
fn a_crash_makes_marks_doubtful() {
    // The disk comes back without the second write, which a peer holds.
    let steps = [
        write(0),
        Step::Snapshot { at: 0 },
        write(0),
        Step::Exchange { from: 0, to: 1 },
        Step::RollBack { at: 0 },
        write(0),
    ];
    needs_the_rule(&steps, Sabotage::EveryMarkTrusted, "has two values");
}

#[test]
fn a_clean_stop_does_not_make_the_marks_of_an_earlier_crash_trusted_again() {
    let steps = [
        write(0),
        Step::Snapshot { at: 0 },
        write(0),
        Step::Exchange { from: 0, to: 1 },
        Step::RollBack { at: 0 },
        Step::Restart { at: 0, after: Stop::Clean },
        write(0),
    ];
    needs_the_rule(&steps, Sabotage::CleanStopTrustsEarlierCrashes, "has two values");
}

#[test]
fn a_clean_stop_lets_a_history_go_on() {
    let dots = live_through(&[write(0), Step::Restart { at: 0, after: Stop::Clean }, write(0)]).dots();
    assert_eq!((dots[0].history, dots[0].counter + 1), (dots[1].history, dots[1].counter));
    let dots = live_through(&[write(0), Step::Restart { at: 0, after: Stop::Crash }, write(0)]).dots();
    assert_ne!(dots[0].history, dots[1].history);
}

#[test]
fn a_wiped_disk_that_kept_its_directory_id_and_marks_would_claim_what_it_lost() {
    needs_the_rule(
        &[write(0), Step::LoseDisk { at: 0 }, write(0)],
        Sabotage::WipedDirectoryKeepsItsMarks,
        "has not come to it",
    );
}

#[test]
fn an_old_copy_that_meets_its_later_self_is_retired() {
    // Between the copy and its return the directory minted on; a client brings that back as a context.
    let steps = [
        write(0),
        Step::Snapshot { at: 0 },
        write(0),
        Step::Read { at: 0, and: 0 },
        Step::RollBack { at: 0 },
        write_after(0, 0),
    ];
    let flock = live_through(&steps);
    assert_eq!(flock.dots().len(), 2, "the third write is refused, loudly");
}

#[test]
fn a_copy_from_before_the_last_start_is_recognised_by_its_run_and_starts_empty() {
    let steps = [
        write(0),
        Step::Snapshot { at: 0 },
        Step::Restart { at: 0, after: Stop::Clean },
        write(0),
        Step::Exchange { from: 0, to: 1 },
        Step::RollBack { at: 0 },
    ];
    let mut flock = Flock::new(SiblingMode::Keep, None);
    for step in &steps {
        flock.step(step).unwrap();
    }
    assert!(flock.object(0).is_unwritten());
}

#[test]
fn a_context_from_elsewhere_supersedes_what_the_coordinator_has_never_seen() {
    let steps = [
        write(0),
        Step::Read { at: 0, and: 0 },
        write_after(1, 0),
        // The superseded write comes late.
        Step::Exchange { from: 0, to: 1 },
    ];
    assert_eq!(live_through(&steps).siblings_shown(1), 1);
}

#[test]
fn a_retry_at_another_replica_shows_once_and_is_superseded_as_one() {
    let steps = [
        write(0),
        Step::Retry { request: 0, at: 1, wall: 0 },
        Step::Exchange { from: 0, to: 1 },
        Step::Read { at: 0, and: 0 },
        write_after(2, 0),
    ];
    let flock = live_through(&steps);
    assert_eq!(flock.object(0).siblings().len(), 2, "the retry's twin is there,");
    assert_eq!(flock.siblings_shown(0), 1, "hidden, since its other half was seen and superseded");
}

#[test]
fn a_retry_at_the_same_replica_is_answered_from_what_it_holds() {
    let steps = [write(0), Step::Retry { request: 0, at: 0, wall: 0 }, Step::Read { at: 0, and: 0 }, write_after(0, 0)];
    let again = [steps.as_slice(), &[Step::Retry { request: 0, at: 0, wall: 0 }]].concat();
    assert_eq!(live_through(&again).dots().len(), 2);
}

#[test]
fn a_deletion_that_had_not_seen_a_write_does_not_remove_it() {
    let deletion = Step::Write { at: 1, context: Some(0), what: What::Delete, wall: 0 };
    let steps = [write(0), Step::Read { at: 0, and: 0 }, write(0), deletion];
    let flock = live_through(&steps);
    assert_eq!(flock.siblings_shown(2), 1);
    assert_eq!(flock.object(2).siblings().len(), 2, "the tombstone stays, hidden by the write that it had not seen");
}
