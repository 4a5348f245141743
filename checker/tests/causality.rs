//! What is shown was written, and was not superseded.

mod support;

use starling_checker::Assertion::{
    DeleteUndone, FailedWriteVisible, NotSuperseded, Resurrected, ShownTwice, ValueNobodyWrote,
};
use support::{Story, delete, put, read};

#[test]
fn a_value_nobody_wrote_is_found_in_reads_and_in_the_end() {
    let mut story = Story::default();
    let reader = story.then(read([7]));
    story.breaks(ValueNobodyWrote, [reader]);
    Story::default().ends_with([7]).verdict().violations.iter().for_each(|v| assert_eq!(v.assertion, ValueNobodyWrote));
    assert_eq!(Story::default().ends_with([7]).verdict().of(ValueNobodyWrote).violated, 3, "once for each replica");
}

#[test]
fn a_value_of_another_key_was_not_written_to_this_one() {
    let mut story = Story::default();
    story.then(put(7).on("other"));
    let reader = story.then(read([7]));
    story.breaks(ValueNobodyWrote, [reader]);
}

#[test]
fn a_value_cannot_be_seen_before_it_is_written_but_while_it_is() {
    let mut story = Story::default();
    let reader = story.at(10..20, read([1]).by(2));
    let writer = story.at(30..40, put(1));
    story.breaks(ValueNobodyWrote, [writer, reader]);

    let mut story = Story::default();
    story.at(10..20, read([1]).by(2));
    story.at(15..40, put(1));
    story.passes_test_of(ValueNobodyWrote);
}

#[test]
fn a_write_that_claimed_to_have_done_nothing_is_never_seen() {
    let mut story = Story::default();
    let writer = story.then(put(1).failed());
    let reader = story.then(read([1]));
    story.breaks(FailedWriteVisible, [writer, reader]);
}

#[test]
fn an_unknown_write_may_be_seen_even_later() {
    let mut story = Story::default();
    story.then(put(1).unknown());
    story.then(read([]));
    story.then(read([1]));
    story.ends_with([1]).passes_test_of(FailedWriteVisible);
}

#[test]
fn a_write_that_was_carried_out_twice_is_shown_once() {
    let mut story = Story::default();
    story.then(put(1).tries(2));
    story.then(read([1]));
    story.ends_with([1]).passes_test_of(ShownTwice);

    let mut story = Story::default();
    let writer = story.then(put(1).tries(2));
    let reader = story.then(read([1, 1]));
    story.breaks(ShownTwice, [writer, reader]);

    let mut story = Story::default();
    story.then(put(1).tries(2));
    story.then(put(2));
    let verdict = story.ends_with([1, 2, 1]).verdict();
    assert_eq!(verdict.of(ShownTwice).violated, 3, "once for each replica");
    assert!(verdict.violations.iter().all(|violation| violation.assertion == ShownTwice), "{verdict}");
}

#[test]
fn concurrent_writes_are_siblings() {
    let mut story = Story::default();
    story.then(put(1));
    story.then(put(2));
    story.then(read([1, 2]));
    story.ends_with([1, 2]).passes_test_of(NotSuperseded);
}

#[test]
fn a_write_is_not_shown_beside_one_that_had_read_it() {
    let mut story = Story::default();
    let old = story.then(put(1));
    story.then(read([1]).returns("c1"));
    let new = story.then(put(2).using("c1"));
    let reader = story.then(read([1, 2]));
    story.breaks(NotSuperseded, [old, new, reader]);
}

#[test]
fn a_write_is_not_shown_beside_one_that_covers_it_through_others() {
    let mut story = Story::default();
    let old = story.then(put(1).returns("c1"));
    story.then(put(2).using("c1").unknown());
    story.then(read([2]).returns("c2"));
    let new = story.then(put(3).using("c2"));
    let reader = story.then(read([3, 1]));
    story.breaks(NotSuperseded, [old, new, reader]);
}

#[test]
fn a_writer_that_goes_on_with_its_own_contexts_makes_no_siblings() {
    let mut story = Story::default();
    let old = story.then(put(1).returns("c1"));
    let new = story.then(put(2).using("c1").returns("c2"));
    story.then(read([1, 2]).sloppy());
    story.verdict().violations.iter().for_each(|v| assert_eq!(v.culprits[..2], [old, new]));
    assert_eq!(story.verdict().of(NotSuperseded).violated, 1);
}

#[test]
fn a_sibling_that_the_context_did_not_cover_stays() {
    let mut story = Story::default();
    story.then(put(1));
    story.then(read([1]).returns("c1"));
    story.then(put(2).by(2));
    story.then(put(3).using("c1"));
    story.then(read([2, 3]));
    story.ends_with([2, 3]).passes_test_of(NotSuperseded);
}

#[test]
fn what_an_acknowledged_write_covered_does_not_come_back() {
    let mut story = Story::default();
    let old = story.then(put(1).returns("c1"));
    let new = story.then(put(2).using("c1"));
    let verdict = story.ends_with([1]).verdict();
    let resurrected = verdict.violations.iter().find(|v| v.assertion == Resurrected).unwrap();
    assert_eq!(resurrected.culprits, [old, new]);
}

#[test]
fn in_the_end_too_a_write_is_not_held_beside_one_that_covers_it() {
    let mut story = Story::default();
    story.then(put(1).returns("c1"));
    story.then(put(2).using("c1"));
    let verdict = story.ends_with([1, 2]).verdict();
    assert_eq!(verdict.of(NotSuperseded).violated, 3, "once for each replica");
    assert_eq!(verdict.of(Resurrected).violated, 0, "it is said once");
}

#[test]
fn what_an_unknown_write_covered_may_stay_if_the_write_was_not_done() {
    let mut story = Story::default();
    story.then(put(1).returns("c1"));
    story.then(put(2).using("c1").unknown());
    story.ends_with([1]).passes();
}

#[test]
fn what_an_acknowledged_delete_covered_stays_deleted() {
    let mut story = Story::default();
    let old = story.then(put(1).returns("c1"));
    let gone = story.then(delete().using("c1"));
    story.ends_with([1]).breaks(DeleteUndone, [old, gone]);
}

#[test]
fn a_strict_read_does_not_show_what_a_strict_delete_covered() {
    let story = |delete, read| {
        let mut story = Story::default();
        let old = story.then(put(1).returns("c1"));
        let gone = story.then(delete);
        let reader = story.then(read);
        (story, [old, gone, reader])
    };
    let (strict, culprits) = story(delete().using("c1"), read([1]));
    strict.breaks(DeleteUndone, culprits);
    story(delete().using("c1").sloppy(), read([1])).0.passes();
    story(delete().using("c1"), read([1]).sloppy()).0.passes();
    story(delete().using("c1").unknown(), read([1])).0.passes();
    story(delete(), read([1])).0.passes();
}

#[test]
fn a_delete_that_had_not_read_a_value_leaves_it() {
    let mut story = Story::default();
    story.then(put(1).returns("c1"));
    story.then(put(2));
    story.then(delete().using("c1"));
    story.then(read([2]));
    story.ends_with([2]).passes_test_of(DeleteUndone);
}

#[test]
fn a_late_try_may_bring_a_write_back_once_its_request_is_forgotten() {
    let story = |tries, others| {
        let mut story = Story::default();
        story.then(put(100).tries(tries).returns("c0"));
        for value in 1..=others {
            let (used, returned) = (format!("c{}", value - 1), format!("c{value}"));
            story.then(put(value).using(&used).returns(&returned));
        }
        story.ends_with([100]).verdict()
    };
    assert_eq!(story(1, 20).of(Resurrected).violated, 1);
    assert_eq!(story(2, 7).of(Resurrected).violated, 1);
    assert_eq!(story(2, 8).of(Resurrected).excused, 1);
}
