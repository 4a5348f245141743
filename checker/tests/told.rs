//! What a verdict says to somebody who was not there, and that it says it within bounds.

mod support;

use starling_checker::Assertion::{AcknowledgedWriteLost, NotSuperseded, StaleRead};
use starling_checker::{Line, MAX_KEPT_OF_A_KIND};
use starling_core::ids::NodeId;
use support::{Story, delete, put, read};

#[test]
fn a_violation_tells_who_did_what_when_and_with_which_context() {
    let mut story = Story::default();
    story.history.name_node(NodeId(1), "oslo");
    story.at(1_000_000..2_500_000, put(1).returns("c1"));
    story.at(3_000_000..4_000_000, read([1]).by(2).clock([(1, 1)]).returns("c2"));
    story.at(5_000_000..9_000_000, put(2).by(2).using("c2").unknown());
    story.at(6_000_000..7_000_000, put(3).using("c1").stored_by([1, 3]));
    story.at(7_500_000..7_600_000, delete().by(3).failed());
    let told = story.ends_with([2]).verdict().violations[0].to_string();
    let expected = "\
acknowledged write lost: write #3 is not there in the end, nor anything that had it in its context
  promised: an acknowledged write is there in the end, or a later write that had it in its context
  key: bucket/key
          1.000 to      2.500 ms  session 1      #0 put v1, no context, w=2 pw=2 of 3: acknowledged, stored by oslo n2, siblings: 1, with a context
          3.000 to      4.000 ms  session 2      #1 read, r=2 pr=2 of 3: v1 of #0, clock h0:1
          5.000 to      9.000 ms  session 2      #2 put v2, context of read #1, w=2 pw=2 of 3: unknown
 >>>      6.000 to      7.000 ms  session 1      #3 put v3, context of write #0, w=2 pw=2 of 3: acknowledged, stored by oslo n3, siblings: 1
          7.500 to      7.600 ms  session 3      #4 delete what a read finds, w=2 pw=2 of 3: failed, nothing done
     in the end: oslo (primary) holds v2 of #2, clock h0:9
     in the end: n2 (primary) holds v2 of #2, clock h0:9
     in the end: n3 (primary) holds v2 of #2, clock h0:9
     in the end: n4 (no primary) holds nothing
";
    assert_eq!(told, expected);
}

#[test]
fn a_pass_says_what_it_looked_at() {
    let mut story = Story::default();
    story.then(put(1));
    story.then(read([1]));
    let told = story.ends_with([1]).verdict().to_string();
    assert!(told.starts_with("passed\n2 operations on 1 key\n"), "{told}");
    assert!(told.contains("stale read                        1          0          0\n"), "{told}");
}

#[test]
fn a_long_history_is_told_around_the_culprits() {
    let mut story = Story::default();
    for value in 0..100 {
        story.then(put(value));
    }
    let all_but_50: [u64; 99] = std::array::from_fn(|n| n as u64 + u64::from(n >= 50));
    let verdict = story.ends_with(all_but_50).verdict();
    let lost = &verdict.violations[0];
    assert_eq!(lost.assertion, AcknowledgedWriteLost);
    assert_eq!(lost.timeline.lines.len(), 9, "{lost}");
    assert_eq!(lost.timeline.lines[0], Line::Omitted(47));
    assert_eq!(lost.timeline.lines[8], Line::Omitted(46));
}

#[test]
fn violations_are_kept_up_to_a_limit_and_counted_beyond() {
    let mut story = Story::default();
    story.then(put(1).returns("c1"));
    story.then(put(2).using("c1"));
    for _ in 0..1000 {
        story.then(read([1, 2]));
    }
    let verdict = story.verdict();
    assert_eq!(verdict.of(NotSuperseded).violated, 1000);
    assert_eq!(verdict.violations.len(), MAX_KEPT_OF_A_KIND);
    assert!(!verdict.passed());
    assert!(verdict.to_string().starts_with("1000 violations, 5 of them below\n"));
}

/// A chain as long as the history neither overflows the stack nor is walked anew by each read.
#[test]
fn a_key_with_a_chain_of_100_000_writes_is_judged() {
    let mut story = Story::default();
    story.then(put(0).by(9));
    story.then(put(1).returns("c1"));
    for value in 2..50_000 {
        let (used, returned) = (format!("c{}", value - 1), format!("c{value}"));
        story.then(put(value).using(&used).returns(&returned));
        story.then(read([0, value]));
    }
    story.passes_test_of(StaleRead);
    let verdict = story.ends_with([0, 1, 49_999]).verdict();
    assert_eq!(verdict.of(NotSuperseded).violated, 3, "once for each replica, over the whole chain: {verdict}");
}
