//! Laws of merging, of the two sibling modes, of request ids and of limits, on objects that histories can produce.

mod support;

use proptest::prelude::*;
use proptest::sample::Index;
use starling_core::clock::{Clock, Dot, History};
use starling_core::coordinate::{Coordinated, ObjectLimits, Write, WriteRefused, coordinate};
use starling_core::ids::{Birth, DirectoryId, RequestId};
use starling_core::mark::OwnMark;
use starling_core::object::{Object, Passing, Seen, Sibling, SiblingMode, Value};
use starling_core::request::RING_SIZE;
use starling_core::stamp::Stamp;
use starling_core::wall::WallTime;
use support::reachable::{deeds, minter, states};
use support::{NOW, UNLIMITED, cases, includes};

fn mode() -> impl Strategy<Value = SiblingMode> {
    prop_oneof![Just(SiblingMode::Keep), Just(SiblingMode::LastWriteWins)]
}

/// All states of one history.
fn history() -> impl Strategy<Value = Vec<Object>> {
    (deeds(), mode()).prop_map(|(deeds, mode)| states(&deeds, mode))
}

fn last_write_wins_history() -> impl Strategy<Value = Vec<Object>> {
    deeds().prop_map(|deeds| states(&deeds, SiblingMode::LastWriteWins))
}

fn merged(one: &Object, other: &Object) -> Object {
    let mut both = one.clone();
    both.merge(other);
    both
}

/// A request that no history makes.
const NEW: u64 = 1_000_000;

/// A write by a clock that is behind. It begins a history of its own, named after the request.
fn write(request: u64, value: &[u8], seen: &Seen, mode: SiblingMode) -> Write {
    Write {
        value: Value::Live(value.to_vec().into()),
        seen: seen.clone(),
        request: RequestId(request.into()),
        mode,
        wall: Stamp::from_millis(0),
        fresh_birth: Birth(NEW + request),
    }
}

fn write_after(request: u64, value: &[u8], seen: &Seen) -> Write {
    write(request, value, seen, SiblingMode::Keep)
}

fn blind_write(request: u64, value: &[u8]) -> Write {
    write_after(request, value, &Seen::default())
}

/// A write of a last-write-wins bucket, by somebody who has read nothing.
fn lww(request: u64, value: &[u8], wall: u64) -> Write {
    Write { wall: Stamp::from_millis(wall), ..write(request, value, &Seen::default(), SiblingMode::LastWriteWins) }
}

fn at(replica: usize, object: &mut Object, write: Write) -> Result<Coordinated, WriteRefused> {
    coordinate(object, &mut None, write, &minter(replica), &UNLIMITED)
}

fn shown(object: &Object) -> Vec<String> {
    let mut values: Vec<String> = object.present(SiblingMode::Keep, NOW).into_iter().map(text).collect();
    values.sort();
    values
}

fn winner(object: &Object) -> Vec<String> {
    object.present(SiblingMode::LastWriteWins, NOW).into_iter().map(text).collect()
}

fn text(sibling: &Sibling) -> String {
    match &sibling.value {
        Value::Live(bytes) | Value::Expiring { bytes, .. } => String::from_utf8_lossy(bytes).into_owned(),
        Value::Tombstone => "deleted".to_owned(),
    }
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn merge_is_commutative_associative_and_idempotent_requests_included(
        states in history(), picks in prop::collection::vec(any::<[Index; 3]>(), 8)
    ) {
        for [a, b, c] in picks {
            let (a, b, c) = (a.get(&states), b.get(&states), c.get(&states));
            prop_assert_eq!(merged(a, b), merged(b, a));
            prop_assert_eq!(merged(&merged(a, b), c), merged(a, &merged(b, c)));
            prop_assert_eq!(&merged(a, a), a);
            prop_assert_eq!(merged(&merged(a, b), b), merged(a, b));
        }
    }

    #[test]
    fn a_merge_changes_nothing_exactly_if_the_clock_covers_the_others(
        states in history(), picks in prop::collection::vec(any::<[Index; 2]>(), 16)
    ) {
        for [a, b] in picks {
            let (a, b) = (a.get(&states), b.get(&states));
            let both = merged(a, b);
            prop_assert_eq!(includes(a, b), both == *a);
            prop_assert!(includes(&both, a) && includes(&both, b));
        }
    }

    #[test]
    fn the_order_in_which_replicas_meet_does_not_matter(states in history(), seed in any::<u64>()) {
        let forwards = states.iter().fold(Object::default(), |all, state| merged(&all, state));
        let mut shuffled: Vec<&Object> = states.iter().collect();
        shuffled.sort_by_key(|state| xxhash_rust::xxh3::xxh3_64_with_seed(format!("{state:?}").as_bytes(), seed));
        let backwards = shuffled.into_iter().fold(Object::default(), |all, state| merged(&all, state));
        prop_assert_eq!(backwards, forwards);
    }

    #[test]
    fn every_live_sibling_is_covered_by_its_objects_clock(states in history()) {
        for state in states {
            prop_assert!(state.siblings().iter().all(|sibling| state.clock().covers(&sibling.dot)));
            prop_assert_eq!(state.is_unwritten(), state.siblings().is_empty());
        }
    }

    #[test]
    fn in_last_write_wins_readers_see_the_greatest_stamp_and_nothing_if_that_is_a_deletion(
        states in last_write_wins_history()
    ) {
        for state in states {
            let first_try = |sibling: &Sibling| state.traces_of(sibling.request).map(|trace| trace.stamp).min();
            let mut by_age: Vec<&Sibling> = state.siblings().iter().collect();
            by_age.sort_by_key(|sibling| (first_try(sibling), sibling.dot));
            let winner = by_age.pop().filter(|sibling| sibling.is_live(NOW));
            prop_assert_eq!(state.present(SiblingMode::LastWriteWins, NOW), Vec::from_iter(winner));
        }
    }

    #[test]
    fn in_last_write_wins_a_write_wins_over_all_its_coordinator_held_even_with_a_clock_behind(
        states in last_write_wins_history(), pick in any::<Index>(), wall in 0u64..40
    ) {
        let before = pick.get(&states);
        let mut after = before.clone();
        let last = write(NEW, b"the last", &Seen::default(), SiblingMode::LastWriteWins);
        let last = Write { wall: Stamp::from_millis(wall), ..last };
        prop_assert_eq!(at(0, &mut after, last), Ok(Coordinated::Minted));
        prop_assert_eq!(after.siblings().len(), 1, "it covers all that was held");
        let shown = after.present(SiblingMode::LastWriteWins, NOW);
        prop_assert_eq!(shown.len(), 1);
        prop_assert_eq!(&shown[0].value, &Value::Live("the last".into()));
        prop_assert!(before.greatest_stamp().is_none_or(|greatest| shown[0].stamp > greatest));
        for earlier in &states {
            if includes(before, earlier) {
                let both = merged(&after, earlier);
                prop_assert_eq!(both.present(SiblingMode::LastWriteWins, NOW), shown.clone());
            }
        }
    }

    #[test]
    fn a_write_with_a_context_removes_exactly_what_the_context_covers(
        states in deeds().prop_map(|deeds| states(&deeds, SiblingMode::Keep)), picks in any::<[Index; 2]>()
    ) {
        let (before, context) = (picks[0].get(&states), picks[1].get(&states).seen());
        let mut after = before.clone();
        prop_assert_eq!(at(0, &mut after, write_after(NEW, b"new", &context)), Ok(Coordinated::Minted));
        let is_new = |sibling: &&Sibling| sibling.request == RequestId(NEW.into());
        let (new, old): (Vec<_>, Vec<_>) = after.siblings().iter().partition(is_new);
        prop_assert_eq!(new.len(), 1);
        let kept: Vec<&Sibling> = before.siblings().iter().filter(|sibling| !context.clock.covers(&sibling.dot)).collect();
        prop_assert_eq!(old, kept);
    }

    #[test]
    fn a_refused_write_changes_nothing_and_limits_refuse_only_what_makes_it_worse(
        states in history(), pick in any::<Index>(), context in any::<Option<Index>>(),
        siblings in 0usize..6, bytes in 0usize..80, size in 0usize..40, mode in mode()
    ) {
        let before = pick.get(&states);
        let limits = ObjectLimits { siblings, bytes };
        let seen = context.map(|context| context.get(&states).seen()).unwrap_or_default();
        let write = write(NEW, &vec![b'n'; size], &seen, mode);
        let (mut after, mut mark) = (before.clone(), None);
        let (mut unlimited, mut unlimited_mark) = (before.clone(), None);
        coordinate(&mut unlimited, &mut unlimited_mark, write.clone(), &minter(0), &UNLIMITED)
            .map_err(|refused| TestCaseError::fail(refused.to_string()))?;
        let (count, total) = (unlimited.siblings().len(), unlimited.value_bytes());
        match coordinate(&mut after, &mut mark, write, &minter(0), &limits) {
            Ok(_) => {
                prop_assert_eq!(&after, &unlimited);
                prop_assert!(count <= siblings.max(before.siblings().len()));
                prop_assert!(total <= bytes.max(before.value_bytes()));
            }
            Err(WriteRefused::TooManySiblings { siblings: told, limit }) => {
                prop_assert!(told == count && limit == siblings && count > siblings && count > before.siblings().len());
                prop_assert_eq!((&after, mark), (before, None));
            }
            Err(WriteRefused::TooLarge { bytes: told, limit }) => {
                prop_assert!(told == total && limit == bytes && total > bytes && total > before.value_bytes());
                prop_assert_eq!((&after, mark), (before, None));
            }
            Err(refused) => prop_assert!(false, "{}", refused),
        }
    }

    #[test]
    fn a_resolution_is_always_possible(
        states in history(), pick in any::<Index>(), siblings in 1usize..4, bytes in 1usize..80
    ) {
        let crowded = states.iter().fold(pick.get(&states).clone(), |all, state| merged(&all, state));
        let limits = ObjectLimits { siblings, bytes };
        let mut resolved = crowded.clone();
        let resolution = write_after(NEW, b"r", &crowded.seen());
        prop_assert_eq!(coordinate(&mut resolved, &mut None, resolution, &minter(0), &limits), Ok(Coordinated::Minted));
        prop_assert_eq!(resolved.siblings().len(), 1);

        let mut deleted = crowded.clone();
        let deletion = Write { value: Value::Tombstone, ..write_after(NEW, b"", &crowded.seen()) };
        prop_assert_eq!(coordinate(&mut deleted, &mut None, deletion, &minter(0), &limits), Ok(Coordinated::Minted));
        prop_assert!(deleted.is_deleted(SiblingMode::Keep, NOW));
    }

    #[test]
    fn a_repeated_request_changes_nothing_wherever_it_is_remembered(
        states in history(), pick in any::<Index>(), mode in mode()
    ) {
        let state = pick.get(&states);
        for sibling in state.siblings() {
            let (value, request) = (sibling.value.clone(), sibling.request);
            let repeated = Write { value, request, ..write(NEW, b"", &Seen::default(), mode) };
            let mut after = state.clone();
            prop_assert_eq!(at(0, &mut after, repeated), Ok(Coordinated::Repeated));
            prop_assert_eq!(&after, state);
        }
    }

    #[test]
    fn an_outline_says_the_same_without_the_values(states in history(), picks in any::<[Index; 2]>()) {
        let (a, b) = (picks[0].get(&states), picks[1].get(&states));
        let (outline, other) = (a.outline(), b.outline());
        prop_assert_eq!(outline.value_bytes(), 0);
        prop_assert_eq!(outline.clock(), a.clock());
        prop_assert_eq!(includes(&outline, &other), includes(a, b));
        prop_assert_eq!(merged(&outline, &other), merged(a, b).outline());
    }
}

#[test]
fn a_merge_never_refuses_what_is_over_the_limits() {
    let limits = ObjectLimits { siblings: 1, bytes: 3 };
    let (mut here, mut there) = (Object::default(), Object::default());
    let limited = |replica, object: &mut Object, write| coordinate(object, &mut None, write, &minter(replica), &limits);
    assert_eq!(limited(0, &mut here, blind_write(1, b"abc")), Ok(Coordinated::Minted));
    assert_eq!(limited(1, &mut there, blind_write(2, b"xyz")), Ok(Coordinated::Minted));
    here.merge(&there);
    assert_eq!((here.siblings().len(), here.value_bytes()), (2, 6));
    let refused = limited(0, &mut here, blind_write(3, b"more"));
    assert_eq!(refused, Err(WriteRefused::TooManySiblings { siblings: 3, limit: 1 }));
}

#[test]
fn a_request_id_that_is_used_for_another_value_is_refused_by_whoever_remembers_it() {
    let reused = Err(WriteRefused::RequestReused(RequestId(1)));
    let mut object = Object::default();
    at(0, &mut object, blind_write(1, b"one")).unwrap();
    assert_eq!(at(0, &mut object, blind_write(1, b"other")), reused);
    let overwrite = write_after(2, b"new", &object.seen());
    at(0, &mut object, overwrite).unwrap();
    assert_eq!(at(0, &mut object, blind_write(1, b"other")), reused, "from the ring");
}

#[test]
fn a_request_id_that_is_used_for_two_values_at_two_replicas_hides_neither() {
    let (mut here, mut there) = (Object::default(), Object::default());
    at(0, &mut here, blind_write(1, b"one")).unwrap();
    at(1, &mut there, blind_write(1, b"other")).unwrap();
    let overwrite = write_after(2, b"new", &here.seen());
    here.merge(&there);
    assert_eq!(shown(&here), ["one", "other"], "both were acknowledged, and nobody had seen either");
    for value in [b"one".as_slice(), b"other"] {
        assert_eq!(at(0, &mut here, blind_write(1, value)), Ok(Coordinated::Repeated));
    }
    at(0, &mut here, overwrite).unwrap();
    assert_eq!(shown(&here), ["new", "other"], "only `one` was seen and superseded");
}

#[test]
fn a_retry_that_lands_after_its_write_was_superseded_stays_hidden_and_the_next_write_removes_it() {
    let (mut here, mut there) = (Object::default(), Object::default());
    at(0, &mut here, blind_write(1, b"x")).unwrap();
    let overwrite = write_after(2, b"y", &here.seen());
    at(0, &mut here, overwrite).unwrap();
    at(1, &mut there, blind_write(1, b"x")).unwrap();
    there.merge(&here);
    assert_eq!(there.siblings().len(), 2);
    assert_eq!(shown(&there), ["y"]);

    let next = write_after(3, b"z", &there.seen());
    at(1, &mut there, next).unwrap();
    assert_eq!(there.siblings().len(), 1);
    assert_eq!(shown(&there), ["z"]);
}

#[test]
fn a_context_brings_the_requests_it_supersedes_to_a_coordinator_that_never_held_them() {
    let (mut here, mut there, mut elsewhere) = (Object::default(), Object::default(), Object::default());
    at(0, &mut here, blind_write(1, b"x")).unwrap();
    let delete = Write { value: Value::Tombstone, ..write_after(2, b"", &here.seen()) };
    at(1, &mut there, delete).unwrap();
    // All that the third replica knows comes from the second, which never held `x`.
    elsewhere.merge(&there);
    assert_eq!(
        at(2, &mut elsewhere, blind_write(1, b"x")),
        Ok(Coordinated::Repeated),
        "the deleted does not come back"
    );
    here.merge(&there);
    assert_eq!(here, there, "equal clocks are equal objects");
}

#[test]
fn past_the_window_the_worst_is_one_more_sibling() {
    let mut object = Object::default();
    for request in 0..=RING_SIZE as u64 + 1 {
        let next = write_after(request, b"v", &object.seen());
        at(0, &mut object, next).unwrap();
    }
    assert_eq!(at(0, &mut object.clone(), blind_write(1, b"v")), Ok(Coordinated::Repeated), "the oldest in the ring");
    let forgotten = Write { fresh_birth: Birth(1), ..blind_write(0, b"v") };
    assert_eq!(at(0, &mut object, forgotten), Ok(Coordinated::Minted));
    assert_eq!(shown(&object), ["v", "v"]);
}

#[test]
fn a_write_is_stamped_above_what_it_supersedes_and_above_what_was_superseded_before() {
    let by_a_fast_clock = Write { wall: Stamp::from_millis(1000), ..blind_write(1, b"x") };
    let (mut here, mut there) = (Object::default(), Object::default());
    at(0, &mut here, by_a_fast_clock).unwrap();
    at(1, &mut there, write_after(2, b"y", &here.seen())).unwrap();
    there.merge(&here);
    assert_eq!(shown(&there), ["y"]);
    let next = write_after(3, b"z", &there.seen());
    at(1, &mut there, next).unwrap();
    let stamps: Vec<Stamp> = (1..=3).flat_map(|request| there.traces_of(RequestId(request))).map(|t| t.stamp).collect();
    assert!(stamps[2] > stamps[0] && stamps[2] > stamps[1], "{stamps:?}");
}

#[test]
fn in_last_write_wins_a_late_copy_of_a_retried_write_does_not_win_over_a_write_that_had_seen_it() {
    let (mut here, mut there) = (Object::default(), Object::default());
    at(0, &mut here, lww(1, b"retried", 10)).unwrap();
    at(0, &mut here, lww(2, b"later", 11)).unwrap();
    // The first try was under way all the time, to a replica that knows nothing of either.
    at(1, &mut there, lww(1, b"retried", 12)).unwrap();
    there.merge(&here);
    assert_eq!(winner(&there), ["later"]);
}

#[test]
fn in_last_write_wins_two_writes_that_superseded_each_others_tries_do_not_both_vanish() {
    let (mut here, mut there) = (Object::default(), Object::default());
    at(0, &mut here, lww(1, b"one", 10)).unwrap();
    at(0, &mut here, lww(2, b"two", 11)).unwrap();
    at(1, &mut there, lww(2, b"two", 12)).unwrap();
    at(1, &mut there, lww(1, b"one", 13)).unwrap();
    here.merge(&there);
    assert_eq!(winner(&here), ["two"]);
}

#[test]
fn live_siblings_hide_tombstones_and_a_key_with_tombstones_only_is_deleted() {
    let mut object = Object::default();
    assert!(!object.is_deleted(SiblingMode::Keep, NOW), "never written is not deleted");
    at(0, &mut object, Write { value: Value::Tombstone, ..blind_write(1, b"") }).unwrap();
    assert!(object.is_deleted(SiblingMode::Keep, NOW));
    at(0, &mut object, blind_write(2, b"v")).unwrap();
    assert!(!object.is_deleted(SiblingMode::Keep, NOW));
    assert_eq!(shown(&object), ["v"]);
}

#[test]
fn a_mark_that_is_behind_its_own_object_is_never_minted_from() {
    let (mut object, mut mark) = (Object::default(), None);
    coordinate(&mut object, &mut mark, blind_write(1, b"one"), &minter(0), &UNLIMITED).unwrap();
    let old_mark: Option<OwnMark> = mark;
    coordinate(&mut object, &mut mark, blind_write(2, b"two"), &minter(0), &UNLIMITED).unwrap();

    let (before, mut copied) = (object.clone(), old_mark);
    let refused = coordinate(&mut object, &mut copied, blind_write(3, b"three"), &minter(0), &UNLIMITED);
    assert!(matches!(refused, Err(WriteRefused::DirectoryCopied(_))), "{refused:?}");
    assert_eq!((object, copied), (before, old_mark));
}

#[test]
fn a_clock_knows_only_histories_of_which_it_has_a_dot() {
    let history = History { directory: DirectoryId(1), birth: Birth(1) };
    let mut clock = Clock::default();
    clock.advance(history, 0);
    assert!(clock.is_empty());
    assert_eq!(clock, [(history, 0)].into_iter().collect());
    assert!(!clock.covers(&Dot { history, counter: 1 }));
}

#[test]
fn a_write_that_was_tried_twice_lives_as_long_as_either_try() {
    let lives_until = |until: u64| Write {
        value: Value::Expiring { bytes: b"v".to_vec().into(), until: WallTime(until) },
        ..blind_write(1, b"")
    };
    for (first, second) in [(500, 2_000), (2_000, 500)] {
        let (mut here, mut there) = (Object::default(), Object::default());
        at(0, &mut here, lives_until(first)).unwrap();
        at(1, &mut there, lives_until(second)).unwrap();
        here.merge(&there);
        for mode in [SiblingMode::Keep, SiblingMode::LastWriteWins] {
            let shown = |now| here.present(mode, WallTime(now)).len();
            assert_eq!([499, 500, 1_999, 2_000].map(shown), [1, 1, 1, 0], "{mode:?}");
        }
        assert_eq!(here.passing(), Some(Passing::Expires { at: WallTime(2_000) }));
    }
}

#[test]
fn what_wins_wins_over_older_values_also_when_it_has_expired() {
    let mut object = Object::default();
    at(0, &mut object, blind_write(1, b"older")).unwrap();
    let mut there = Object::default();
    let expiring = Value::Expiring { bytes: b"v".to_vec().into(), until: WallTime(500) };
    at(1, &mut there, Write { value: expiring, wall: Stamp(u64::MAX / 2), ..blind_write(2, b"") }).unwrap();
    object.merge(&there);
    assert!(object.present(SiblingMode::LastWriteWins, NOW).is_empty());
    assert!(object.is_deleted(SiblingMode::LastWriteWins, NOW));
    assert_eq!(shown(&object), ["older"], "where siblings are kept, the other is left");
    assert_eq!(object.passing(), None, "and keeps the key");
}
