//! Stories of writes, told as transcripts: what happens, and what the put machine does about it.
//!
//! Unless a story says otherwise the key's primaries are n1, n2 and n3, the fallbacks n4, n5 and n6, n1 coordinates, a
//! node is slow after 20 ms and given up after 100 ms, and the deadline is at 1000 ms.

mod support;

use std::time::Duration;

use proptest::prelude::*;
use starling_core::ids::NodeId;
use starling_core::preference::LayoutQuorum;
use starling_core::put::{Action, Answer, Candidate, Event, Plan, Put, Verdict};
use starling_core::quorum::Quorum;
use starling_core::report::{Failure, Outcome, Refusal, Role};

use support::put_world::worlds;
use support::{cases, ms, name, write_quorum};

const SLOW: u64 = 20;
const GIVEN_UP: u64 = 100;
const DEADLINE: u64 = 1000;

fn candidate(node: u64) -> Candidate {
    Candidate { node: NodeId(node), believed_down: false, slow_after: ms(SLOW) }
}

fn plan(quorum: Quorum) -> Plan {
    Plan {
        coordinator: NodeId(1),
        primaries: (1..=3).map(candidate).collect(),
        fallbacks: (4..=6).map(candidate).collect(),
        quorums: vec![LayoutQuorum { primaries: (1..=3).map(NodeId).collect(), quorum }],
        deadline: ms(DEADLINE),
        give_up_after: ms(GIVEN_UP),
    }
}

/// A write, told step by step.
#[derive(Clone)]
struct Story(Put);

impl Story {
    fn of(plan: Plan) -> Story {
        let (put, actions) = Put::start(plan);
        assert_eq!(tell(&actions), "coordinate");
        Story(put)
    }

    fn with_w(w: &str) -> Story {
        Story::of(plan(write_quorum(w, "default", 3)))
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

fn stored(node: u64) -> Event {
    Event::Stored { by: NodeId(node) }
}

fn unreachable(node: u64) -> Event {
    Event::Failed { by: NodeId(node), failure: Failure::Unreachable }
}

fn refused(node: u64, refusal: Refusal) -> Event {
    Event::Failed { by: NodeId(node), failure: Failure::Refused(refusal) }
}

/// `store n2, store n3, hint n4 for n2`; an answer ends with what each replica did.
fn tell(actions: &[Action]) -> String {
    let told: Vec<String> = actions.iter().map(tell_action).collect();
    told.join(", ")
}

fn tell_action(action: &Action) -> String {
    match action {
        Action::Coordinate => "coordinate".to_owned(),
        Action::Store { to, role: Role::Primary } => format!("store {}", name(*to)),
        Action::Store { to, role: Role::Fallback { stands_in_for } } => {
            format!("hint {} for {}", name(*to), name(*stands_in_for))
        }
        Action::Answer(Answer { verdict, quorum: _, acknowledged, replicas }) => {
            let verdict = match verdict {
                Verdict::Acknowledged => "acknowledged".to_owned(),
                Verdict::Unknown => "unknown".to_owned(),
                Verdict::NothingDone(refusal) => format!("nothing done, the coordinator {refusal}"),
            };
            let replicas: Vec<String> = replicas
                .iter()
                .map(|replica| format!("{} {}", name(replica.node), tell_outcome(replica.outcome)))
                .collect();
            format!("{verdict} by {}+{} ({})", acknowledged.primaries, acknowledged.fallbacks, replicas.join(", "))
        }
    }
}

fn tell_outcome(outcome: Outcome) -> String {
    match outcome {
        Outcome::Pending => "pending".to_owned(),
        Outcome::Stored => "stored".to_owned(),
        Outcome::Found { .. } | Outcome::NotFound => panic!("a write finds nothing"),
        Outcome::Failed(failure) => failure.to_string(),
    }
}

#[test]
fn a_write_is_sent_on_only_when_the_coordinators_own_copy_is_durable() {
    let mut write = Story::with_w("2");
    write.at(5, Event::Tick, "");
    write.at(500, Event::Tick, "");
    write.at(501, Event::Coordinated, "store n2, store n3");
}

#[test]
fn a_write_is_acknowledged_by_its_quorum_and_ends_when_all_have_answered() {
    let mut write = Story::with_w("2");
    write.at(1, Event::Coordinated, "store n2, store n3");
    write.at(2, stored(3), "acknowledged by 2+0 (n1 stored, n2 pending, n3 stored)");
    assert!(!write.0.is_done());
    write.at(3, stored(2), "");
    assert!(write.0.is_done());
    write.wakes(3, None);
}

#[test]
fn one_node_alone_is_a_working_database() {
    let alone = Plan { primaries: vec![candidate(1)], fallbacks: vec![], ..plan(write_quorum("all", "all", 1)) };
    let mut write = Story::of(alone);
    write.at(1, Event::Coordinated, "acknowledged by 1+0 (n1 stored)");
    assert!(write.0.is_done());
}

#[test]
fn a_coordinator_that_takes_nothing_says_so_and_asks_nobody() {
    let mut write = Story::with_w("2");
    write.at(
        3,
        Event::NotCoordinated(Refusal::DiskFull),
        "nothing done, the coordinator has its disk full up to the reserve by 0+0 \
         (n1 has its disk full up to the reserve)",
    );
    assert!(write.0.is_done());
}

#[test]
fn a_coordinator_whose_sync_failed_leaves_the_write_unknown_and_asks_nobody() {
    let mut write = Story::with_w("2");
    write.at(3, Event::Failed { by: NodeId(1), failure: Failure::NoAnswer }, "unknown by 0+0 (n1 did not answer)");
    assert!(write.0.is_done());
}

#[test]
fn a_primary_that_is_believed_down_is_asked_all_the_same_and_stood_in_for_at_once() {
    let mut plan = plan(write_quorum("2", "default", 3));
    plan.primaries[1].believed_down = true;
    let mut write = Story::of(plan);
    write.at(1, Event::Coordinated, "store n2, hint n4 for n2, store n3");
    write.at(2, unreachable(2), "");
    write.at(3, stored(4), "acknowledged by 1+1 (n1 stored, n2 could not be reached, n4 stored, n3 pending)");
}

#[test]
fn fallbacks_that_are_believed_down_are_asked_last() {
    let mut plan = plan(write_quorum("2", "default", 3));
    plan.fallbacks[0].believed_down = true;
    let mut write = Story::of(plan);
    write.at(1, Event::Coordinated, "store n2, store n3");
    write.at(2, unreachable(2), "hint n5 for n2");
    write.at(3, unreachable(5), "hint n6 for n2");
    write.at(4, unreachable(6), "hint n4 for n2");
    write.at(5, unreachable(4), "");
}

#[test]
fn a_slow_primary_is_hedged_before_the_answer_and_hinted_only_when_silent_after_it() {
    let mut write = Story::with_w("2");
    write.at(0, Event::Coordinated, "store n2, store n3");
    write.wakes(0, Some(SLOW));
    write.at(SLOW, Event::Tick, "hint n4 for n2, hint n5 for n3");
    write.at(SLOW, Event::Tick, "");

    let mut write = Story::with_w("2");
    write.at(0, Event::Coordinated, "store n2, store n3");
    write.at(10, stored(2), "acknowledged by 2+0 (n1 stored, n2 stored, n3 pending)");
    write.wakes(10, Some(SLOW));
    write.at(SLOW, Event::Tick, "");
    write.wakes(SLOW, Some(GIVEN_UP));
    write.at(GIVEN_UP, Event::Tick, "hint n4 for n3");
    write.at(GIVEN_UP + 1, stored(4), "");
    assert!(write.0.is_done());
}

#[test]
fn a_slow_primary_that_answers_after_its_hedge_counts_beside_it() {
    let mut write = Story::with_w("all");
    write.at(0, Event::Coordinated, "store n2, store n3");
    write.at(1, stored(3), "");
    write.at(SLOW, Event::Tick, "hint n4 for n2");
    write.at(21, stored(2), "acknowledged by 3+0 (n1 stored, n2 stored, n3 stored, n4 pending)");
    write.at(22, stored(4), "");
    assert!(write.0.is_done());
}

#[test]
fn a_wake_up_that_another_event_overtakes_is_not_lost() {
    let mut write = Story::with_w("all");
    write.at(0, Event::Coordinated, "store n2, store n3");
    write.wakes(0, Some(SLOW));
    write.at(SLOW + 1, stored(3), "hint n4 for n2");
}

#[test]
fn a_silence_that_another_event_overtakes_is_still_noticed() {
    let mut write = Story::with_w("2");
    write.at(0, Event::Coordinated, "store n2, store n3");
    write.at(SLOW + 1, stored(2), "acknowledged by 2+0 (n1 stored, n2 stored, n3 pending)");
    write.at(GIVEN_UP + 1, stored(2), "hint n4 for n3");
}

#[test]
fn a_failed_primary_is_stood_in_for_by_the_next_fallback_until_there_is_none() {
    let mut write = Story::with_w("all");
    write.at(0, Event::Coordinated, "store n2, store n3");
    write.at(1, unreachable(3), "hint n4 for n3");
    write.at(2, refused(4, Refusal::HintsFull), "hint n5 for n3");
    write.at(3, unreachable(2), "hint n6 for n2");
    write.at(4, stored(5), "");
    write.at(
        5,
        refused(6, Refusal::DiskFull),
        "unknown by 1+1 (n1 stored, n2 could not be reached, n3 could not be reached, \
         n4 holds as many hints as it may, \
         n5 stored, n6 has its disk full up to the reserve)",
    );
    assert!(write.0.is_done());
}

#[test]
fn writes_stay_possible_while_w_nodes_can_be_reached_whichever_they_are() {
    let mut write = Story::with_w("2");
    write.at(0, Event::Coordinated, "store n2, store n3");
    write.at(1, unreachable(2), "hint n4 for n2");
    write.at(1, unreachable(3), "hint n5 for n3");
    write.at(2, unreachable(4), "hint n6 for n2");
    write.at(3, unreachable(5), "");
    write.at(
        4,
        stored(6),
        "acknowledged by 1+1 (n1 stored, n2 could not be reached, n3 could not be reached, n4 could not be reached, \
         n5 could not be reached, n6 stored)",
    );
}

#[test]
fn pw_all_with_a_dead_primary_fails_when_the_others_have_told_and_names_it() {
    let mut write = Story::of(plan(write_quorum("default", "all", 3)));
    write.at(0, Event::Coordinated, "store n2, store n3");
    write.at(1, unreachable(3), "hint n4 for n3");
    write.at(2, stored(2), "");
    write.at(3, stored(4), "unknown by 2+1 (n1 stored, n2 stored, n3 could not be reached, n4 stored)");
    assert!(write.0.is_done(), "the hint was worth keeping: the copies may survive");
}

#[test]
fn what_has_become_impossible_does_not_wait_for_the_slow() {
    let mut write = Story::of(plan(write_quorum("default", "all", 3)));
    write.at(0, Event::Coordinated, "store n2, store n3");
    write.at(1, unreachable(3), "hint n4 for n3");
    write.at(2, stored(4), "");
    write.at(SLOW, Event::Tick, "unknown by 1+1 (n1 stored, n2 pending, n3 could not be reached, n4 stored)");
}

#[test]
fn past_the_deadline_one_stand_in_for_each_primary_has_to_do() {
    let mut write = Story::of(Plan { deadline: ms(10), ..plan(write_quorum("2", "default", 3)) });
    write.at(0, Event::Coordinated, "store n2, store n3");
    write.at(1, stored(2), "acknowledged by 2+0 (n1 stored, n2 stored, n3 pending)");
    let mut impatient = write.clone();
    write.at(9, unreachable(3), "hint n4 for n3");
    write.at(11, unreachable(4), "");
    assert!(write.0.is_done());

    // Its client may be gone; the silent primary is to have its hint all the same.
    impatient.at(GIVEN_UP, Event::Tick, "hint n4 for n3");
    impatient.at(GIVEN_UP + 1, unreachable(4), "");
    assert!(impatient.0.is_done());
}

#[test]
fn a_fallback_that_stored_it_does_not_make_up_for_a_missing_primary() {
    let mut write = Story::of(plan(write_quorum("2", "2", 3)));
    write.at(0, Event::Coordinated, "store n2, store n3");
    write.at(1, unreachable(2), "hint n4 for n2");
    write.at(2, stored(4), "");
    write.at(3, stored(3), "acknowledged by 2+1 (n1 stored, n2 could not be reached, n3 stored, n4 stored)");
}

#[test]
fn a_coordinator_that_is_a_fallback_holds_the_first_primarys_hint_itself() {
    let mut write = Story::of(Plan { coordinator: NodeId(5), ..plan(write_quorum("2", "default", 3)) });
    write.at(0, Event::Coordinated, "store n1, store n2, store n3");
    write.at(1, unreachable(1), "");
    write.at(2, unreachable(2), "hint n4 for n2");
    write.at(3, unreachable(3), "hint n6 for n3");
    write.at(
        4,
        stored(4),
        "acknowledged by 0+2 (n5 stored, n1 could not be reached, n2 could not be reached, n3 could not be reached, \
         n4 stored, n6 pending)",
    );
}

#[test]
fn a_fallback_coordinators_hint_also_does_for_a_first_primary_that_is_slow_or_believed_down() {
    let mut plan = Plan { coordinator: NodeId(5), ..plan(write_quorum("2", "default", 3)) };
    plan.primaries[0].believed_down = true;
    let mut write = Story::of(plan);
    write.at(0, Event::Coordinated, "store n1, store n2, store n3");
    write.at(SLOW, Event::Tick, "hint n4 for n2, hint n6 for n3");
}

#[test]
fn the_deadline_ends_everything() {
    let patient = Plan { deadline: ms(90), ..plan(write_quorum("all", "default", 3)) };
    let mut write = Story::of(patient);
    write.at(0, Event::Coordinated, "store n2, store n3");
    write.at(1, stored(2), "");
    write.at(SLOW, Event::Tick, "hint n4 for n3");
    write.wakes(SLOW, Some(2 * SLOW));
    write.at(2 * SLOW, Event::Tick, "hint n5 for n3");
    write.at(3 * SLOW, Event::Tick, "hint n6 for n3");
    write.at(4 * SLOW, Event::Tick, "");
    write.wakes(4 * SLOW, Some(90));
    write.at(90, Event::Tick, "unknown by 2+0 (n1 stored, n2 stored, n3 pending, n4 pending, n5 pending, n6 pending)");
    write.wakes(90, Some(GIVEN_UP));
}

#[test]
fn all_silence_comes_to_an_end() {
    let mut write = Story::with_w("all");
    write.at(0, Event::Coordinated, "store n2, store n3");
    write.at(1, stored(2), "");
    write.at(20, Event::Tick, "hint n4 for n3");
    write.at(40, Event::Tick, "hint n5 for n3");
    write.at(60, Event::Tick, "hint n6 for n3");
    write.at(80, Event::Tick, "");
    for given_up in [100, 120, 140] {
        write.wakes(given_up - 1, Some(given_up));
        write.at(given_up, Event::Tick, "");
    }
    write.at(
        160,
        Event::Tick,
        "unknown by 2+0 (n1 stored, n2 stored, n3 did not answer, n4 did not answer, n5 did not answer, \
         n6 did not answer)",
    );
    assert!(write.0.is_done());
    write.wakes(160, None);
}

#[test]
fn an_own_store_that_is_too_slow_leaves_the_write_unknown_at_the_deadline() {
    let mut write = Story::with_w("2");
    write.wakes(0, Some(DEADLINE));
    write.at(DEADLINE, Event::Tick, "unknown by 0+0 (n1 pending)");
    assert!(!write.0.is_done(), "the store will answer in the end");
    write.wakes(DEADLINE, None);
    write.at(DEADLINE + 5, Event::NotCoordinated(Refusal::DeadlinePassed), "");
    assert!(write.0.is_done());
}

#[test]
fn late_reply_after_giving_up_still_counts() {
    let mut write = Story::with_w("all");
    write.at(0, Event::Coordinated, "store n2, store n3");
    write.at(1, stored(3), "");
    write.at(20, Event::Tick, "hint n4 for n2");
    write.at(40, Event::Tick, "hint n5 for n2");
    write.at(GIVEN_UP, Event::Tick, "hint n6 for n2");
    write.at(
        GIVEN_UP + 1,
        stored(2),
        "acknowledged by 3+0 (n1 stored, n2 stored, n3 stored, n4 pending, n5 pending, n6 pending)",
    );
}

#[test]
fn a_wake_up_that_fell_due_since_the_last_step_is_still_wanted() {
    let mut write = Story::with_w("all");
    write.at(SLOW - 1, Event::Coordinated, "store n2, store n3");
    write.wakes(3 * SLOW, Some(2 * SLOW - 1));
    write.at(3 * SLOW, Event::Tick, "hint n4 for n2, hint n5 for n3");
    write.wakes(3 * SLOW, Some(4 * SLOW));
}

#[test]
fn every_refusal_of_a_replica_is_a_reason_to_ask_the_next() {
    use Refusal::{DeadlinePassed, DiskFull, HintsFull, NotAMember, OtherLayout, Overloaded, Stopping, StorageFailed};
    for refusal in [Overloaded, DiskFull, HintsFull, Stopping, StorageFailed, NotAMember, OtherLayout, DeadlinePassed] {
        let mut write = Story::with_w("2");
        write.at(0, Event::Coordinated, "store n2, store n3");
        write.at(1, refused(2, refusal), "hint n4 for n2");
        write.at(2, refused(4, refusal), "hint n5 for n2");
    }
}

#[test]
fn events_that_come_twice_change_nothing() {
    let mut write = Story::with_w("2");
    write.at(0, Event::Coordinated, "store n2, store n3");
    write.at(1, Event::Coordinated, "");
    write.at(2, unreachable(2), "hint n4 for n2");
    write.at(3, unreachable(2), "");
    write.at(4, stored(9), "");
    write.at(5, stored(3), "acknowledged by 2+0 (n1 stored, n2 could not be reached, n3 stored, n4 pending)");
    write.at(6, stored(3), "");
    write.at(7, Event::NotCoordinated(Refusal::Stopping), "");
}

#[test]
fn endless_patience_is_possible() {
    let mut plan = Plan { give_up_after: Duration::MAX, ..plan(write_quorum("all", "default", 3)) };
    plan.primaries[1].slow_after = Duration::MAX;
    let mut write = Story::of(plan);
    write.at(1, Event::Coordinated, "store n2, store n3");
    write.wakes(1, Some(1 + SLOW));
    write.at(2, stored(3), "");
    write.wakes(2, Some(DEADLINE));
}

proptest! {
    #![proptest_config(cases(3000))]

    #[test]
    fn whatever_happens_a_write_is_answered_once_in_time_and_truthfully(world in worlds()) {
        world.run().map_err(TestCaseError::fail)?;
    }
}
