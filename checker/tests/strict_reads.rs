//! Reads that have to meet a write's quorum.

mod support;

use starling_checker::Assertion::{ContextWentBackwards, StaleRead};
use support::{Step, Story, delete, failed_read, put, read};

#[test]
fn a_strict_read_shows_the_write_before_it() {
    let mut story = Story::default();
    let writer = story.then(put(1));
    let reader = story.then(read([]).by(2));
    story.breaks(StaleRead, [writer, reader]);

    let mut story = Story::default();
    story.then(put(1));
    story.then(read([1]).by(2));
    story.passes_test_of(StaleRead);
}

#[test]
fn a_read_that_began_before_the_write_ended_may_miss_it() {
    let mut story = Story::default();
    story.at(10..30, put(1));
    story.at(30..40, read([]).by(2));
    story.passes();
}

#[test]
fn a_session_reads_what_it_wrote_in_the_same_moment() {
    let mut story = Story::default();
    let writer = story.at(10..30, put(1));
    let reader = story.at(30..40, read([]));
    story.breaks(StaleRead, [writer, reader]);
}

#[test]
fn sloppy_quorums_promise_nothing() {
    let mut story = Story::default();
    story.then(put(1).sloppy());
    story.then(read([]));
    story.then(put(2));
    story.then(read([]).sloppy());
    story.then(failed_read());
    story.passes();
}

#[test]
fn unknown_and_failed_writes_need_not_be_shown() {
    let mut story = Story::default();
    story.then(put(1).unknown());
    story.then(put(2).failed());
    story.then(read([]));
    story.passes();
}

#[test]
fn what_replaced_a_write_stands_for_it() {
    let mut story = Story::default();
    story.then(put(1).returns("c1"));
    story.then(put(2).using("c1").unknown());
    story.then(read([2]).returns("c2"));
    story.then(put(3).using("c2").sloppy());
    story.then(read([3]));
    story.passes_test_of(StaleRead);
}

#[test]
fn what_did_not_have_a_write_in_its_context_does_not_stand_for_it() {
    let mut story = Story::default();
    let missed = story.then(put(1));
    story.then(put(2));
    let reader = story.then(read([2]));
    story.breaks(StaleRead, [missed, reader]);
}

#[test]
fn an_old_value_does_not_stand_for_the_one_that_replaced_it() {
    let mut story = Story::default();
    story.then(put(1).returns("c1"));
    let missed = story.then(put(2).using("c1"));
    let reader = story.then(read([1]));
    story.breaks(StaleRead, [missed, reader]);
}

#[test]
fn a_delete_that_had_begun_excuses_a_read_and_one_that_had_not_does_not() {
    let mut story = Story::default();
    story.at(10..20, put(1).returns("c1"));
    story.at(35..90, delete().using("c1").by(2).unknown());
    story.at(30..40, read([]));
    story.passes_test_of(StaleRead);

    let mut story = Story::default();
    let writer = story.at(10..20, put(1).returns("c1"));
    let reader = story.at(30..40, read([]));
    story.at(45..90, delete().using("c1").by(2));
    story.breaks(StaleRead, [writer, reader]);
}

#[test]
fn a_delete_of_something_else_excuses_nothing() {
    let mut story = Story::default();
    story.then(put(1).returns("c1"));
    let missed = story.then(put(2));
    story.then(delete().using("c1"));
    let reader = story.then(read([]));
    story.breaks(StaleRead, [missed, reader]);
}

#[test]
fn a_delete_without_context_excuses_what_it_may_have_read() {
    let mut story = Story::default();
    story.then(put(1));
    story.then(delete());
    story.then(read([]));
    story.passes();
    let missed = story.then(put(2));
    let reader = story.then(read([]));
    story.breaks(StaleRead, [missed, reader]);
}

#[test]
fn a_write_is_excused_when_the_disks_it_was_strict_on_are_lost() {
    let mut story = Story::default();
    story.at(10..20, put(1).stored_by([1, 2]));
    story.at(60..70, read([]));
    story.ends_with([1]).with_lost_disk(1, 30).with_lost_disk(2, 40).passes();
}

#[test]
fn clocks_do_not_go_back_behind_a_read_that_waited_for_its_repair() {
    let mut story = Story::default();
    let waited = story.then(read([]).waiting().clock([(1, 3), (2, 1)]));
    story.then(read([]).by(2).clock([(1, 3), (2, 2)]));
    let back = story.then(read([]).by(3).clock([(1, 4)]));
    story.breaks(ContextWentBackwards, [waited, back]);
}

#[test]
fn a_read_that_did_not_wait_may_have_met_what_no_quorum_holds() {
    let mut story = Story::default();
    story.then(read([]).clock([(1, 3)]));
    story.then(read([]).waiting().clock([(1, 2)]));
    story.then(read([]).sloppy().clock([(1, 1)]));
    story.passes();
}

#[test]
fn a_read_that_overlaps_another_may_have_seen_less() {
    let mut story = Story::default();
    story.at(10..30, read([]).waiting().clock([(1, 3)]));
    story.at(20..40, read([]).by(2).waiting().clock([(1, 2)]));
    story.passes();
}

#[test]
fn what_an_acknowledged_write_had_in_its_context_is_held_by_its_quorum() {
    let mut story = Story::default();
    story.then(read([]).returns("c1").clock([(1, 3)]));
    story.then(put(1).using("c1").returns("c2"));
    let writer = story.then(put(2).using("c2"));
    story.then(read([2]).by(2).clock([(1, 3), (2, 2)]));
    story.passes_test_of(ContextWentBackwards);
    let back = story.then(read([2]).by(2).clock([(2, 2)]));
    let first = starling_checker::OperationNumber(writer.0 - 1);
    story.breaks(ContextWentBackwards, [first, back]);
}

/// Nodes 1 and 2 store a write, node 1 goes back to what it held before, nobody notices, and a read meets nodes 1 and 3.
#[test]
fn a_primary_that_went_back_unnoticed_is_one_less_to_meet() {
    let missed = |write: Step, at, to| {
        let mut story = Story::default();
        let writer = story.at(10..20, write);
        let reader = story.at(40..50, read([]).by(2));
        (story.ends_with([1]).with_rolled_back_disk(1, at, to), [writer, reader])
    };
    missed(put(1), 30, 5).0.passes_by_excuse(StaleRead);
    let (went_back_to_later, culprits) = missed(put(1), 30, 25);
    went_back_to_later.breaks(StaleRead, culprits);
    let (went_back_before, culprits) = missed(put(1), 8, 5);
    went_back_before.breaks(StaleRead, culprits);
    let (did_not_take_it, culprits) = missed(put(1).stored_by([2, 3]), 30, 5);
    did_not_take_it.breaks(StaleRead, culprits);
    let (is_met_all_the_same, culprits) = missed(put(1).by_all().stored_by([1, 2, 3]), 30, 5);
    is_met_all_the_same.breaks(StaleRead, culprits);
}

#[test]
fn a_primary_that_went_back_unnoticed_takes_back_what_a_repair_gave_it() {
    let went_back = |first: Step| {
        let mut story = Story::default();
        let reader = story.at(10..20, first.clock([(1, 2)]).waiting());
        let later = story.at(40..50, read([]).clock([(1, 1)]).by(2));
        (story.ends_with([]).with_rolled_back_disk(1, 30, 5), [reader, later])
    };
    went_back(read([])).0.passes();
    let (all_had_it, culprits) = went_back(read([]).by_all());
    all_had_it.breaks(ContextWentBackwards, culprits);
}

#[test]
fn a_key_that_was_deleted_begins_a_new_clock_once_that_is_forgotten() {
    let gone = |forgets: bool| {
        let mut story = Story::default();
        story.then(put(1).returns("c1"));
        story.then(read([1]).returns("c2").waiting().clock([(1, 1)]));
        let before = story.then(read([1]).waiting().clock([(1, 2)]));
        story.then(delete().using("c2"));
        let anew = story.then(read([]).by(3).clock([(7, 1)]));
        if forgets {
            story.history.may_forget_deletes();
        }
        (story, before, anew)
    };
    let (story, before, anew) = gone(false);
    story.breaks(ContextWentBackwards, [before, anew]);
    gone(true).0.passes();
}

#[test]
fn a_clock_that_goes_back_before_any_delete_was_forgotten_by_nobody() {
    let mut story = Story::default();
    story.history.may_forget_deletes();
    let waited = story.then(read([]).waiting().clock([(1, 3)]));
    let back = story.then(read([]).by(3).clock([(1, 2)]));
    story.then(delete());
    story.breaks(ContextWentBackwards, [waited, back]);
}
