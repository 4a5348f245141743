//! Buckets in which the last write wins.

mod support;

use starling_checker::Assertion::{AcknowledgedWriteLost, FailedWriteVisible, SeveralWinners, StaleRead};
use support::{Story, delete, put, read};

#[test]
fn one_of_several_writes_wins_whichever_it_is() {
    let mut story = Story::last_write_wins();
    story.then(put(1));
    story.then(put(2));
    story.then(read([1]));
    story.ends_with([1]).passes_test_of(SeveralWinners);
}

#[test]
fn two_values_at_once_are_one_too_many() {
    let mut story = Story::last_write_wins();
    story.then(put(1));
    story.then(put(2));
    let reader = story.then(read([1, 2]));
    story.ends_with([2]).breaks(SeveralWinners, [reader]);
}

#[test]
fn a_key_that_was_written_and_not_deleted_has_a_value() {
    let mut story = Story::last_write_wins();
    story.then(put(1).unknown());
    let last = story.then(put(2));
    story.ends_with([]).breaks(AcknowledgedWriteLost, [last]);

    let mut story = Story::last_write_wins();
    story.then(put(1));
    story.then(delete().unknown());
    story.ends_with([]).passes_test_of(AcknowledgedWriteLost);

    let mut story = Story::last_write_wins();
    story.then(put(1));
    story.ends_with([]).with_lost_disk(1, 99).with_lost_disk(2, 99).passes_by_excuse(AcknowledgedWriteLost);
}

#[test]
fn a_strict_read_after_a_strict_put_shows_something() {
    let mut story = Story::last_write_wins();
    let writer = story.then(put(1));
    let reader = story.then(read([]));
    story.breaks(StaleRead, [writer, reader]);

    let mut story = Story::last_write_wins();
    story.then(put(1));
    story.then(read([1]));
    story.then(delete().unknown());
    story.then(read([]));
    story.passes_test_of(StaleRead);
}

#[test]
fn a_failed_write_does_not_win() {
    let mut story = Story::last_write_wins();
    let writer = story.then(put(1).failed());
    let reader = story.then(read([1]));
    story.breaks(FailedWriteVisible, [writer, reader]);
}
