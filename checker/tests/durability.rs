//! Acknowledged writes are there in the end, and so do replicas agree.

mod support;

use starling_checker::Assertion::{AcknowledgedWriteLost, HintsLeft, ReplicasDiffer};
use starling_checker::InvalidHistory;
use support::{Step, Story, clock, delete, key, put, read};

#[test]
fn an_acknowledged_write_that_is_there_is_not_lost() {
    let mut story = Story::default();
    story.then(put(1));
    story.ends_with([1]).passes_test_of(AcknowledgedWriteLost);
}

#[test]
fn an_acknowledged_write_that_is_nowhere_is_lost() {
    let mut story = Story::default();
    let lost = story.then(put(1));
    story.then(put(2));
    story.ends_with([2]).breaks(AcknowledgedWriteLost, [lost]);
}

#[test]
fn unknown_and_failed_writes_may_be_gone() {
    let mut story = Story::default();
    story.then(put(1).unknown());
    story.then(put(2).failed());
    story.ends_with([]).passes();
}

#[test]
fn a_write_lives_on_in_one_that_read_it() {
    let mut story = Story::default();
    story.then(put(1));
    story.then(read([1]).returns("c1"));
    story.then(put(2).using("c1"));
    story.ends_with([2]).passes_test_of(AcknowledgedWriteLost);
}

#[test]
fn a_write_that_covers_and_is_lost_answers_for_what_it_covered() {
    let mut story = Story::default();
    story.then(put(1).returns("c1"));
    let lost = story.then(put(2).using("c1"));
    story.ends_with([]).breaks(AcknowledgedWriteLost, [lost]);
}

#[test]
fn an_unknown_write_accounts_for_what_it_covered_only_if_it_was_seen() {
    let mut story = Story::default();
    let first = story.then(put(1).returns("c1"));
    story.then(put(2).using("c1").unknown());
    story.ends_with([]).breaks(AcknowledgedWriteLost, [first]);

    let mut story = Story::default();
    story.then(put(1).returns("c1"));
    story.then(put(2).using("c1").unknown());
    story.then(read([2]).returns("c2"));
    story.then(put(3).using("c2"));
    story.ends_with([3]).passes_test_of(AcknowledgedWriteLost);
}

#[test]
fn a_chain_through_the_contexts_of_writes_needs_no_read() {
    let mut story = Story::default();
    story.then(put(1).returns("c1"));
    story.then(put(2).using("c1").returns("c2"));
    story.then(put(3).using("c2"));
    story.ends_with([3]).passes_test_of(AcknowledgedWriteLost);
}

#[test]
fn a_delete_accounts_for_what_it_had_read_even_if_it_is_unknown() {
    let mut story = Story::default();
    story.then(put(1).returns("c1"));
    story.then(delete().using("c1").unknown());
    story.ends_with([]).passes_test_of(AcknowledgedWriteLost);
}

#[test]
fn a_delete_does_not_account_for_what_it_had_not_read() {
    let mut story = Story::default();
    story.then(put(1).returns("c1"));
    let unread = story.then(put(2));
    story.then(delete().using("c1"));
    story.ends_with([]).breaks(AcknowledgedWriteLost, [unread]);
}

#[test]
fn a_failed_delete_accounts_for_nothing() {
    let mut story = Story::default();
    let lost = story.then(put(1).returns("c1"));
    story.then(delete().using("c1").failed());
    story.ends_with([]).breaks(AcknowledgedWriteLost, [lost]);
}

#[test]
fn a_tombstone_hidden_behind_a_sibling_still_accounts_for_what_it_deleted() {
    let mut story = Story::default();
    story.then(put(1).returns("c1"));
    story.then(delete().using("c1"));
    story.then(put(2));
    story.then(read([2]).returns("two and a tombstone"));
    story.then(put(3).using("two and a tombstone"));
    story.ends_with([3]).passes_test_of(AcknowledgedWriteLost);
}

#[test]
fn a_delete_without_context_may_remove_what_began_before_it_ended_and_nothing_later() {
    let mut story = Story::default();
    story.at(10..20, put(1));
    story.at(30..60, delete());
    story.at(50..90, put(2).by(2));
    let later = story.at(70..90, put(3).by(3));
    story.ends_with([]).breaks(AcknowledgedWriteLost, [later]);
}

#[test]
fn a_delete_without_context_that_is_unknown_may_remove_anything() {
    let mut story = Story::default();
    story.then(delete().unknown());
    story.then(put(1));
    story.ends_with([]).passes_test_of(AcknowledgedWriteLost);
}

#[test]
fn the_promise_ends_when_w_of_the_disks_that_took_the_write_are_lost() {
    let lose = |nodes: &[(u64, u64)]| {
        let mut story = Story::default();
        let written = story.at(10..20, put(1).stored_by([1, 2]));
        let story = nodes.iter().fold(story.ends_with([]), |story, (node, at)| story.with_lost_disk(*node, *at));
        (story, written)
    };
    lose(&[(1, 30), (2, 40)]).0.passes_by_excuse(AcknowledgedWriteLost);
    let (one_is_left, written) = lose(&[(1, 30), (3, 40)]);
    one_is_left.breaks(AcknowledgedWriteLost, [written]);
    let (lost_before, written) = lose(&[(1, 5), (2, 5)]);
    lost_before.breaks(AcknowledgedWriteLost, [written]);
    lose(&[(1, 30), (2, 5), (3, 40)]).0.breaks(AcknowledgedWriteLost, [written]);
}

#[test]
fn what_fallbacks_took_is_lost_with_all_primaries() {
    let mut story = Story::default();
    story.at(10..20, put(1).stored_by([4, 5]).sloppy());
    let story = story.ends_with([]);
    let lose = |story: Story, node| story.with_lost_disk(node, 30);
    [1, 2, 3].into_iter().fold(story, lose).passes_by_excuse(AcknowledgedWriteLost);
}

#[test]
fn without_a_final_state_nothing_is_said_of_durability() {
    let mut story = Story::default();
    story.then(put(1));
    story.passes();
    assert_eq!(story.verdict().of(AcknowledgedWriteLost).times, 0);
}

#[test]
fn primaries_that_hold_different_values_or_clocks_differ() {
    let story = || {
        let mut story = Story::default();
        story.then(put(1));
        story.ends_with([1])
    };
    story().passes_test_of(ReplicasDiffer);
    story().with_copy::<0>(2, None).breaks(ReplicasDiffer, []);
    story().with_copy(2, Some((clock([(1, 8)]), [1]))).breaks(ReplicasDiffer, []);
    story().with_copy(2, Some((clock([(1, 9)]), []))).breaks(ReplicasDiffer, []);
    story().with_copy::<0>(2, None).with_lost_disk(2, 30).passes_test_of(ReplicasDiffer);
}

#[test]
fn a_copy_left_on_a_fallback_is_reported() {
    let mut story = Story::default();
    story.then(put(1));
    story.ends_with([1]).with_copy(4, Some((clock([(1, 9)]), [1]))).breaks(ReplicasDiffer, []);
}

#[test]
fn hints_are_left_unless_they_are_for_a_lost_node() {
    Story::default().ends_with([]).with_hints(4, 1, 0).passes_test_of(HintsLeft);
    Story::default().ends_with([]).with_hints(4, 1, 3).breaks(HintsLeft, []);
    Story::default().ends_with([]).with_hints(4, 1, 3).with_lost_disk(1, 30).passes_by_excuse(HintsLeft);
}

#[test]
fn a_history_that_was_recorded_wrongly_is_no_verdict() {
    let mut story = Story::default();
    story.then(put(1));
    story.end = Some(Default::default());
    let missing = InvalidHistory::NoFinalState { key: key("key") };
    assert_eq!(story.history.check(story.end.as_ref()).unwrap_err(), missing);

    let mut story = Story::default();
    let (first, second) = (story.then(put(1)), story.then(put(1)));
    let twice = story.history.check(None).unwrap_err();
    assert!(
        matches!(twice, InvalidHistory::ValueWrittenTwice { first: f, second: s, .. } if (f, s) == (first, second))
    );

    let mut story = Story::default();
    let operation = story.then(put(1).using("out of nowhere"));
    assert_eq!(story.history.check(None).unwrap_err(), InvalidHistory::UnknownContext { operation });
}

/// A delete without a context that got no answer may be under way yet, and remove what was written after it.
#[test]
fn a_delete_that_may_be_under_way_excuses_and_one_that_is_known_to_be_over_does_not() {
    let lost_after = |deletion: Step| {
        let mut story = Story::default();
        story.at(10..20, deletion);
        let written = story.at(40..50, put(1));
        (story.ends_with([]), written)
    };
    lost_after(delete().unknown()).0.passes_by_excuse(AcknowledgedWriteLost);
    lost_after(delete().unknown().over_by(45)).0.passes_test_of(AcknowledgedWriteLost);
    let (it_was_over, written) = lost_after(delete().unknown().over_by(30));
    it_was_over.breaks(AcknowledgedWriteLost, [written]);
}
