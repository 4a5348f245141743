//! Values that expire may be gone from when on some clock says so, and have to be when all do.

mod support;

use starling_checker::Assertion::{AcknowledgedWriteLost, ExpiredShown, StaleRead};
use support::{Story, put, read};

#[test]
fn what_expires_is_as_good_as_any_value_before() {
    let mut story = Story::default();
    story.expires(1, 100..200);
    let written = story.at(10..20, put(1));
    let stale = story.at(90..99, read([]));
    story.at(150..160, read([]));
    story.ends_with([]).breaks(StaleRead, [written, stale]);
}

#[test]
fn between_two_clocks_what_expires_may_be_shown_or_not() {
    let mut story = Story::default();
    story.expires(1, 100..200);
    story.at(10..20, put(1));
    story.at(95..101, read([]));
    story.at(180..190, read([1]));
    story.at(210..220, read([]));
    story.ends_with([]).passes_test_of(ExpiredShown);
}

#[test]
fn what_has_expired_for_everybody_is_not_shown() {
    let mut story = Story::default();
    story.expires(1, 100..200);
    let written = story.at(10..20, put(1));
    let late = story.at(201..210, read([1]));
    story.ends_with([]).breaks(ExpiredShown, [written, late]);

    let mut story = Story::default();
    story.expires(1, 100..200);
    story.at(10..20, put(1));
    story.at(290..299, read([]));
    assert_eq!(story.ends_with([1]).verdict().of(ExpiredShown).violated, 3, "each of three replicas holds it");
}

#[test]
fn what_is_yet_to_expire_in_the_end_is_not_lost_rightly() {
    for mut story in [Story::default(), Story::last_write_wins()] {
        story.expires(1, 100..200);
        let written = story.at(10..20, put(1));
        story.ends_with([]).breaks(AcknowledgedWriteLost, [written]);
    }
}

#[test]
fn what_expires_takes_with_it_what_it_had_read_and_nothing_else() {
    let mut story = Story::default();
    story.expires(2, 100..200);
    story.at(10..20, put(1).returns("c1"));
    let beside = story.at(21..30, put(3));
    story.at(31..40, put(2).using("c1"));
    story.at(150..160, read([3]));
    story.ends_with([]).breaks(AcknowledgedWriteLost, [beside]);
}

#[test]
fn a_last_write_that_expires_leaves_nothing() {
    let mut story = Story::last_write_wins();
    story.expires(2, 100..200);
    story.at(10..20, put(1));
    story.at(21..30, put(2));
    story.at(150..160, read([]));
    story.ends_with([]).passes();

    let mut story = Story::last_write_wins();
    story.expires(2, 100..200);
    let written = story.at(10..20, put(2));
    let stale = story.at(90..99, read([]));
    story.ends_with([]).breaks(StaleRead, [written, stale]);
}
