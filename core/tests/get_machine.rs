//! Stories of reads, told as transcripts: what happens, and what the get machine does about it.
//!
//! Unless a story says otherwise the key's primaries are n1, n2 and n3, the fallbacks n4 to n6, a node is slow after
//! 20 ms and given up after 100 ms, and the deadline is at 1000 ms. The key was written as v1, then v2, then v3, each by
//! a writer who had seen the one before; x was written by somebody who had seen nothing.

mod support;

use std::time::Duration;

use proptest::prelude::*;
use starling_core::get::{Action, Answer, Candidate, Event, Get, Hinted, Plan, Standing};
use starling_core::ids::NodeId;
use starling_core::object::Object;
use starling_core::quorum::Quorum;
use starling_core::report::{Failure, Outcome, Refusal, Role};
use support::get_world::worlds;
use support::versions::{name_of, rival, version};
use support::{NOW, cases, ms, name, read_quorum};

const SLOW: u64 = 20;
const GIVEN_UP: u64 = 100;
const DEADLINE: u64 = 1000;

fn candidate(node: u64) -> Candidate {
    Candidate { node: NodeId(node), believed_down: false, slow_after: ms(SLOW) }
}

fn plan(quorum: Quorum) -> Plan {
    Plan {
        primaries: (1..=3).map(candidate).collect(),
        fallbacks: (4..=6).map(candidate).collect(),
        hinted: vec![],
        quorum,
        wait_for_repair: false,
        repair_quorums: vec![],
        deadline: ms(DEADLINE),
        wall: NOW,
        give_up_after: ms(GIVEN_UP),
    }
}

fn waiting(quorum: Quorum) -> Plan {
    Plan { wait_for_repair: true, ..plan(quorum) }
}

fn hinted(primary: u64, holder: u64) -> Plan {
    let hinted = vec![Hinted { primary: NodeId(primary), holder: NodeId(holder) }];
    Plan { hinted, ..plan(r("2")) }
}

fn r(r: &str) -> Quorum {
    read_quorum(r, "default", 3)
}

/// A read, told step by step.
#[derive(Clone)]
struct Story(Get);

impl Story {
    #[track_caller]
    fn of(plan: Plan, expected: &str) -> Story {
        let (get, actions) = Get::start(plan);
        assert_eq!(tell(&actions), expected);
        Story(get)
    }

    /// All primaries are asked at once.
    fn plain(plan: Plan) -> Story {
        Story::of(plan, "ask n1, ask n2, ask n3")
    }

    #[track_caller]
    fn at(&mut self, millis: u64, event: Event, expected: &str) {
        assert_eq!(tell(&self.0.step(ms(millis), event)), expected);
    }

    #[track_caller]
    fn wakes(&self, now: u64, expected: Option<u64>) {
        assert_eq!(self.0.next_wake(ms(now)), expected.map(ms));
    }
}

fn found(node: u64, object: Object) -> Event {
    Event::Reply { from: NodeId(node), standing: Standing::Complete, object: Some(object) }
}

fn not_found(node: u64) -> Event {
    Event::Reply { from: NodeId(node), standing: Standing::Complete, object: None }
}

fn filling(node: u64, object: Option<Object>) -> Event {
    Event::Reply { from: NodeId(node), standing: Standing::Filling, object }
}

fn unreachable(node: u64) -> Event {
    Event::Failed { by: NodeId(node), failure: Failure::Unreachable }
}

fn repaired(node: u64) -> Event {
    Event::Repaired { node: NodeId(node) }
}

fn not_repaired(node: u64) -> Event {
    Event::RepairFailed { node: NodeId(node), failure: Failure::Refused(Refusal::DiskFull) }
}

/// `ask n4, repair n2 with v2`; an answer ends with what each replica said.
fn tell(actions: &[Action]) -> String {
    let told: Vec<String> = actions.iter().map(tell_action).collect();
    told.join(", ")
}

fn tell_action(action: &Action) -> String {
    match action {
        Action::Ask { node } => format!("ask {}", name(*node)),
        Action::Repair { node, role: Role::Primary, object } => {
            format!("repair {} with {}", name(*node), name_of(object))
        }
        Action::Repair { node, role: Role::Fallback { stands_in_for }, object } => {
            format!("repair {} with {} for {}", name(*node), name_of(object), name(*stands_in_for))
        }
        Action::Answer(Answer { met, object, counted, replicas }) => {
            let verdict = if *met { "answer" } else { "no quorum for" };
            let replicas: Vec<String> = replicas
                .iter()
                .map(|replica| format!("{} {}", name(replica.node), tell_outcome(replica.outcome)))
                .collect();
            let counted = format!("{}+{}", counted.primaries, counted.fallbacks);
            format!("{verdict} {} by {counted} ({})", name_of(object), replicas.join(", "))
        }
    }
}

fn tell_outcome(outcome: Outcome) -> String {
    match outcome {
        Outcome::Pending => "pending".to_owned(),
        Outcome::Stored => panic!("a read stores nothing"),
        Outcome::Found { .. } => "found".to_owned(),
        Outcome::NotFound => "not found".to_owned(),
        Outcome::Failed(failure) => failure.to_string(),
    }
}

#[test]
fn a_read_is_answered_by_its_quorum_and_ends_when_all_have_answered() {
    let mut read = Story::plain(plan(r("2")));
    read.wakes(0, Some(SLOW));
    read.at(1, found(2, version(2)), "");
    read.at(2, found(3, version(2)), "answer v2 by 2+0 (n1 pending, n2 found, n3 found)");
    read.wakes(2, Some(SLOW));
    read.at(3, found(1, version(2)), "");
    assert!(read.0.is_done());
    read.wakes(3, None);
}

#[test]
fn one_node_alone_is_a_working_database() {
    let alone = Plan { primaries: vec![candidate(1)], fallbacks: vec![], ..plan(read_quorum("all", "all", 1)) };
    let mut read = Story::of(alone, "ask n1");
    read.at(1, not_found(1), "answer nothing by 1+0 (n1 not found)");
    assert!(read.0.is_done());
}

#[test]
fn concurrent_writes_are_returned_together_and_brought_to_both_replicas() {
    let mut read = Story::plain(plan(r("2")));
    read.at(1, found(1, version(2)), "");
    read.at(2, found(2, rival()), "answer v2|x by 2+0 (n1 found, n2 found, n3 pending)");
    read.at(3, found(3, version(1)), "repair n1 with v2|x, repair n2 with v2|x, repair n3 with v2|x");
    for node in 1..=3 {
        assert!(!read.0.is_done());
        read.at(4, repaired(node), "");
    }
    assert!(read.0.is_done());
}

#[test]
fn a_primarys_not_found_counts() {
    let mut read = Story::plain(plan(r("2")));
    read.at(1, not_found(1), "");
    read.at(2, not_found(2), "answer nothing by 2+0 (n1 not found, n2 not found, n3 pending)");
    read.at(3, found(3, version(1)), "repair n1 with v1, repair n2 with v1");
}

#[test]
fn late_reply_after_quorum_repairs_the_replica() {
    let mut read = Story::plain(plan(r("2")));
    read.at(1, found(1, version(3)), "");
    read.at(2, found(2, version(3)), "answer v3 by 2+0 (n1 found, n2 found, n3 pending)");
    read.at(90, found(3, version(1)), "repair n3 with v3");
    read.at(91, repaired(3), "");
    assert!(read.0.is_done());
}

#[test]
fn a_reply_that_comes_after_it_was_given_up_repairs_the_replica_too() {
    let mut read = Story::plain(plan(r("2")));
    read.at(1, found(1, version(3)), "");
    read.at(2, found(2, version(3)), "answer v3 by 2+0 (n1 found, n2 found, n3 pending)");
    read.at(GIVEN_UP, Event::Tick, "");
    assert!(read.0.is_done());
    read.at(200, not_found(3), "repair n3 with v3");
    assert!(!read.0.is_done() || read.0.next_wake(ms(200)).is_none());
}

#[test]
fn a_newer_late_reply_is_brought_to_those_who_had_answered_with_less() {
    let mut read = Story::plain(plan(r("2")));
    read.at(1, found(1, version(1)), "");
    read.at(2, found(2, version(2)), "answer v2 by 2+0 (n1 found, n2 found, n3 pending)");
    read.at(3, found(3, version(3)), "repair n1 with v3, repair n2 with v3");
}

#[test]
fn a_slow_primary_is_hedged_only_while_its_answer_is_needed() {
    let mut read = Story::plain(plan(r("2")));
    read.at(1, found(1, version(1)), "");
    read.at(SLOW, Event::Tick, "ask n4, ask n5");
    read.at(22, found(4, version(1)), "answer v1 by 1+1 (n1 found, n2 pending, n3 pending, n4 found, n5 pending)");

    let mut read = Story::plain(plan(r("2")));
    read.at(1, found(1, version(1)), "");
    read.at(2, found(2, version(1)), "answer v1 by 2+0 (n1 found, n2 found, n3 pending)");
    read.at(SLOW, Event::Tick, "");
    read.at(GIVEN_UP, Event::Tick, "");
    assert!(read.0.is_done());
}

#[test]
fn a_wake_up_that_another_event_overtakes_is_not_lost() {
    let mut read = Story::plain(plan(r("all")));
    read.at(1, found(1, version(1)), "");
    read.at(SLOW + 1, found(2, version(1)), "ask n4");
}

#[test]
fn a_wake_up_that_fell_due_since_the_last_step_is_still_wanted() {
    let mut read = Story::plain(plan(r("all")));
    read.at(1, found(1, version(1)), "");
    read.wakes(3 * SLOW, Some(SLOW));
    read.at(3 * SLOW, Event::Tick, "ask n4, ask n5");
}

#[test]
fn a_silence_that_another_event_overtakes_still_ends() {
    let mut read = Story::plain(plan(r("2")));
    read.at(1, found(1, version(1)), "");
    read.at(2, found(2, version(1)), "answer v1 by 2+0 (n1 found, n2 found, n3 pending)");
    read.at(GIVEN_UP + 1, found(2, version(1)), "");
    assert!(read.0.is_done());
}

#[test]
fn a_primary_that_is_believed_down_is_asked_all_the_same_and_stood_in_for_at_once() {
    let mut plan = plan(r("2"));
    plan.primaries[0].believed_down = true;
    let mut read = Story::of(plan, "ask n1, ask n2, ask n3, ask n4");
    read.at(1, unreachable(1), "");
    read.at(2, found(4, version(1)), "");
    read.at(3, found(3, version(1)), "answer v1 by 1+1 (n1 could not be reached, n2 pending, n3 found, n4 found)");
}

#[test]
fn a_fallbacks_not_found_does_not_count() {
    let mut read = Story::plain(plan(r("2")));
    read.at(1, unreachable(1), "ask n4");
    read.at(2, not_found(4), "ask n5");
    read.at(3, not_found(2), "");
    read.at(4, not_found(5), "ask n6");
    read.at(
        5,
        found(6, version(1)),
        "answer v1 by 1+1 (n1 could not be reached, n2 not found, n3 pending, n4 not found, n5 not found, n6 found)",
    );
}

#[test]
fn a_fallback_that_holds_nothing_sends_nobody_further_once_the_read_is_answered() {
    let mut read = Story::plain(plan(r("2")));
    read.at(1, unreachable(1), "ask n4");
    read.at(2, found(2, version(1)), "");
    read.at(3, found(3, version(1)), "answer v1 by 2+0 (n1 could not be reached, n2 found, n3 found, n4 pending)");
    read.at(4, not_found(4), "");
    assert!(read.0.is_done());
}

#[test]
fn a_read_looks_through_two_fallbacks_for_each_primary_and_no_more() {
    let alone = Plan { primaries: vec![candidate(1)], ..plan(read_quorum("1", "default", 1)) };
    let mut read = Story::of(alone, "ask n1");
    read.at(1, unreachable(1), "ask n4");
    read.at(2, not_found(4), "ask n5");
    read.at(3, not_found(5), "no quorum for nothing by 0+0 (n1 could not be reached, n4 not found, n5 not found)");
    assert!(read.0.is_done());
}

#[test]
fn pr_counts_primaries_only_and_fails_when_they_cannot_be_had_and_the_others_have_told() {
    let mut read = Story::plain(plan(read_quorum("2", "2", 3)));
    read.at(1, unreachable(1), "ask n4");
    read.at(2, found(4, version(1)), "");
    read.at(3, found(2, version(1)), "");
    read.at(4, unreachable(3), "ask n5");
    let mut slow = read.clone();
    read.at(
        5,
        found(5, version(1)),
        "no quorum for v1 by 1+2 (n1 could not be reached, n2 found, n3 could not be reached, n4 found, n5 found)",
    );
    assert!(read.0.is_done());
    slow.at(
        4 + SLOW,
        Event::Tick,
        "no quorum for v1 by 1+1 (n1 could not be reached, n2 found, n3 could not be reached, n4 found, n5 pending)",
    );
}

#[test]
fn whoever_holds_hints_for_a_primary_is_asked_with_the_primaries() {
    let mut read = Story::of(hinted(1, 6), "ask n1, ask n2, ask n3, ask n6");
    read.at(1, found(2, version(2)), "");
    read.at(2, found(1, version(1)), "");
    read.at(3, found(6, version(3)), "answer v3 by 2+1 (n1 found, n2 found, n3 pending, n6 found)");
    read.at(4, found(3, version(2)), "repair n2 with v3, repair n1 with v3, repair n3 with v3");
}

#[test]
fn a_hinted_primarys_not_found_waits_for_the_holder() {
    let mut read = Story::of(hinted(1, 6), "ask n1, ask n2, ask n3, ask n6");
    read.at(1, not_found(1), "");
    read.at(2, not_found(2), "");
    read.at(3, not_found(3), "");
    read.at(
        4,
        found(6, version(1)),
        "answer v1 by 3+1 (n1 not found, n2 not found, n3 not found, n6 found), \
         repair n1 with v1, repair n2 with v1, repair n3 with v1",
    );
}

#[test]
fn a_hinted_primary_counts_when_the_others_are_overdue() {
    let mut read = Story::of(hinted(1, 6), "ask n1, ask n2, ask n3, ask n6");
    read.at(1, found(1, version(1)), "");
    read.at(2, found(2, version(1)), "");
    read.wakes(2, Some(SLOW));
    read.at(SLOW, Event::Tick, "answer v1 by 2+0 (n1 found, n2 found, n3 pending, n6 pending)");
}

#[test]
fn a_hinted_primary_counts_at_the_deadline_at_the_latest() {
    let plan = Plan { deadline: ms(SLOW / 2), ..hinted(1, 6) };
    let mut read = Story::of(plan, "ask n1, ask n2, ask n3, ask n6");
    read.at(1, found(1, version(1)), "");
    read.at(2, found(2, version(1)), "");
    read.at(SLOW / 2, Event::Tick, "answer v1 by 2+0 (n1 found, n2 found, n3 pending, n6 pending)");
}

#[test]
fn a_filling_replica_is_merged_and_not_counted() {
    let mut read = Story::plain(plan(r("2")));
    read.at(1, filling(1, Some(rival())), "");
    read.at(2, found(2, version(1)), "");
    read.at(
        3,
        found(3, version(1)),
        "answer v1|x by 2+0 (n1 found, n2 found, n3 found), \
         repair n1 with v1|x, repair n2 with v1|x, repair n3 with v1|x",
    );
}

#[test]
fn when_too_many_are_filling_fallbacks_are_asked_and_then_the_read_fails_at_once() {
    let mut read = Story::plain(plan(r("2")));
    read.at(1, filling(1, None), "");
    read.at(2, filling(2, None), "ask n4");
    read.at(3, found(3, version(1)), "");
    read.at(4, not_found(4), "ask n5");
    read.at(5, not_found(5), "ask n6");
    read.at(
        6,
        not_found(6),
        "no quorum for v1 by 1+0 (n1 not found, n2 not found, n3 found, n4 not found, n5 not found, n6 not found)",
    );
    assert!(read.0.is_done());
}

#[test]
fn waiting_for_repair_answers_only_when_the_quorum_holds_it() {
    let mut read = Story::plain(waiting(r("2")));
    read.at(1, found(1, version(2)), "");
    read.at(2, found(2, version(1)), "");
    read.at(3, found(3, version(1)), "repair n2 with v2, repair n3 with v2");
    read.at(4, repaired(2), "answer v2 by 2+0 (n1 found, n2 found, n3 found)");
    read.at(5, repaired(3), "");
    assert!(read.0.is_done());
}

#[test]
fn waiting_for_repair_needs_no_repair_when_all_agree() {
    let mut read = Story::plain(waiting(r("2")));
    read.at(1, found(1, version(2)), "");
    read.at(2, found(2, version(2)), "answer v2 by 2+0 (n1 found, n2 found, n3 pending)");
    read.at(3, found(3, version(1)), "repair n3 with v2");
}

#[test]
fn waiting_for_repair_does_not_wait_for_the_slow_beyond_its_quorum() {
    let mut read = Story::plain(waiting(r("2")));
    read.at(1, found(1, version(2)), "");
    read.at(3, found(2, version(1)), "");
    read.wakes(3, Some(6));
    read.at(6, Event::Tick, "repair n2 with v2");
    read.at(7, repaired(2), "answer v2 by 2+0 (n1 found, n2 found, n3 pending)");
}

#[test]
fn waiting_for_repair_admits_that_the_repair_failed() {
    let mut read = Story::plain(waiting(r("2")));
    read.at(1, found(1, version(2)), "");
    read.at(2, found(2, version(1)), "");
    read.at(3, unreachable(3), "ask n4");
    read.at(4, not_found(4), "ask n5, repair n2 with v2");
    read.at(5, not_found(5), "ask n6");
    read.at(6, not_repaired(2), "");
    read.at(
        7,
        not_found(6),
        "no quorum for v2 by 1+0 (n1 found, n2 found, n3 could not be reached, n4 not found, n5 not found, \
         n6 not found)",
    );
}

#[test]
fn whoever_answers_after_the_repairs_began_makes_up_the_quorum() {
    let begun = || {
        let mut read = Story::plain(waiting(r("2")));
        read.at(1, found(1, version(2)), "");
        read.at(1, found(2, version(1)), "");
        read.at(2, Event::Tick, "repair n2 with v2");
        read
    };
    let mut holds_it = begun();
    holds_it.at(3, found(3, version(2)), "answer v2 by 2+0 (n1 found, n2 found, n3 found)");

    let mut after_a_failure = begun();
    after_a_failure.at(3, not_repaired(2), "");
    after_a_failure.at(5, found(3, version(2)), "answer v2 by 2+0 (n1 found, n2 found, n3 found)");

    let mut is_repaired = begun();
    is_repaired.at(3, found(3, version(1)), "repair n3 with v2");
    is_repaired.at(4, not_repaired(2), "");
    is_repaired.at(5, repaired(3), "answer v2 by 2+0 (n1 found, n2 found, n3 found)");
}

#[test]
fn a_stale_fallback_vouches_for_what_is_returned_only_once_it_is_repaired() {
    let mut read = Story::plain(waiting(r("2")));
    read.at(1, found(1, version(2)), "");
    read.at(2, unreachable(2), "ask n4");
    read.at(3, unreachable(3), "ask n5");
    read.at(4, found(4, version(1)), "");
    let mut refused = read.clone();
    read.at(8, Event::Tick, "repair n4 with v2 for n2");
    read.at(
        9,
        repaired(4),
        "answer v2 by 1+1 (n1 found, n2 could not be reached, n3 could not be reached, n4 found, n5 pending)",
    );

    refused.at(8, Event::Tick, "repair n4 with v2 for n2");
    refused.at(9, not_repaired(4), "");
    refused.at(10, not_found(5), "ask n6");
    refused.at(
        11,
        not_found(6),
        "no quorum for v2 by 1+0 (n1 found, n2 could not be reached, n3 could not be reached, n4 found, n5 not found, \
         n6 not found)",
    );
}

#[test]
fn a_fallback_without_a_copy_is_not_given_one_by_a_read() {
    let mut read = Story::plain(plan(r("1")));
    read.at(1, unreachable(2), "ask n4");
    read.at(2, found(1, version(2)), "answer v2 by 1+0 (n1 found, n2 could not be reached, n3 pending, n4 pending)");
    read.at(3, not_found(4), "");
    read.at(4, found(3, version(2)), "");
    assert!(read.0.is_done());
}

#[test]
fn waiting_for_repair_at_the_deadline_returns_what_the_quorum_holds_by_then() {
    let mut read = Story::plain(Plan { deadline: ms(SLOW / 2), ..waiting(r("2")) });
    read.at(1, found(1, version(2)), "");
    read.at(SLOW / 2 - 1, found(2, version(1)), "");
    read.at(SLOW / 2, Event::Tick, "repair n2 with v2, no quorum for v2 by 1+0 (n1 found, n2 found, n3 pending)");
}

#[test]
fn the_deadline_ends_everything() {
    let mut read = Story::plain(Plan { deadline: ms(50), ..plan(r("2")) });
    read.at(1, found(1, version(1)), "");
    read.at(SLOW, Event::Tick, "ask n4, ask n5");
    read.at(40, Event::Tick, "ask n6");
    read.wakes(40, Some(50));
    read.at(
        50,
        Event::Tick,
        "no quorum for v1 by 1+0 (n1 found, n2 pending, n3 pending, n4 pending, n5 pending, n6 pending)",
    );
    assert!(read.0.is_done());
}

#[test]
fn events_that_come_twice_change_nothing() {
    let mut read = Story::plain(plan(r("2")));
    read.at(1, found(1, version(1)), "");
    read.at(2, found(1, version(3)), "");
    read.at(3, unreachable(2), "ask n4");
    read.at(4, unreachable(2), "");
    read.at(5, found(9, version(3)), "");
    read.at(6, found(3, version(1)), "answer v1 by 2+0 (n1 found, n2 could not be reached, n3 found, n4 pending)");
    read.at(7, found(3, version(2)), "");
}

#[test]
fn endless_patience_is_possible() {
    let mut plan = Plan { give_up_after: Duration::MAX, ..plan(r("all")) };
    plan.primaries[1].slow_after = Duration::MAX;
    let mut read = Story::plain(plan);
    read.wakes(1, Some(SLOW));
    read.at(2, found(1, version(1)), "");
    read.at(2, found(3, version(1)), "");
    read.wakes(2, Some(DEADLINE));
}

proptest! {
    #![proptest_config(cases(3000))]

    #[test]
    fn whatever_happens_a_read_is_answered_once_in_time_and_truthfully(world in worlds()) {
        world.run().map_err(TestCaseError::fail)?;
    }
}
