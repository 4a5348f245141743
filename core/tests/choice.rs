//! No version of the layout is chosen twice, whatever happens to messages, acceptors and proposers.

mod support;

use proptest::prelude::*;
use starling_core::choice::{Action, Ballot, Event, Overtaken, Proposer, Vote};
use starling_core::ids::NodeId;
use support::cases;
use support::choice_world::{Plan, worlds};

fn ballot(round: u64, proposer: u64) -> Ballot {
    Ballot { round, proposer: NodeId(proposer), nonce: 0 }
}

fn acceptors(count: u64) -> std::collections::BTreeSet<NodeId> {
    (1..=count).map(NodeId).collect()
}

proptest! {
    #![proptest_config(cases(4000))]

    #[test]
    fn at_most_one_value_is_chosen_and_in_peace_one_is(world in worlds()) {
        world.run().map_err(TestCaseError::fail)?;
    }
}

#[test]
fn a_proposal_is_chosen_by_a_majority() {
    let (mut proposer, actions) = Proposer::start(NodeId(1), 7, acceptors(3), Plan::regular(1));
    let first = Ballot { round: 1, proposer: NodeId(1), nonce: 7 };
    assert_eq!(actions, [Action::Prepare { ballot: first }]);
    let promised = |by| Event::Promised { by: NodeId(by), ballot: first, accepted: None };
    assert_eq!(proposer.step(promised(1)), []);
    assert_eq!(proposer.step(promised(1)), [], "one voice");
    assert_eq!(proposer.progress(), (1, 2));
    assert_eq!(proposer.step(promised(3)), [Action::Accept { ballot: first, value: Plan::regular(1) }]);
    let accepted = |by| Event::Accepted { by: NodeId(by), ballot: first };
    assert_eq!(proposer.step(accepted(2)), []);
    assert_eq!(proposer.step(accepted(9)), [], "no acceptor");
    assert_eq!(proposer.step(accepted(1)), [Action::Chosen(Plan::regular(1))]);
    assert_eq!(proposer.step(accepted(3)), []);
    assert!(proposer.is_done());
}

#[test]
fn what_may_have_been_chosen_is_taken_up() {
    let (mut proposer, _) = Proposer::start(NodeId(1), 7, acceptors(3), Plan::regular(1));
    let first = Ballot { round: 1, proposer: NodeId(1), nonce: 7 };
    proposer.step(Event::Promised { by: NodeId(2), ballot: first, accepted: Some((ballot(1, 2), Plan::regular(2))) });
    let actions = proposer.step(Event::Promised {
        by: NodeId(3),
        ballot: first,
        accepted: Some((ballot(0, 9), Plan::regular(3))),
    });
    assert_eq!(actions, [Action::Accept { ballot: first, value: Plan::regular(2) }]);
}

#[test]
fn whoever_is_overtaken_backs_off_and_comes_back_above() {
    let (mut proposer, _) = Proposer::start(NodeId(1), 7, acceptors(3), Plan::regular(1));
    let first = Ballot { round: 1, proposer: NodeId(1), nonce: 7 };
    let overtaken = Event::Overtaken { ballot: first, promised: ballot(8, 2) };
    assert_eq!(proposer.step(overtaken.clone()), [Action::BackOff]);
    assert_eq!(proposer.step(overtaken), []);
    let ninth = Ballot { round: 9, ..first };
    assert_eq!(proposer.step(Event::Tick), [Action::Prepare { ballot: ninth }]);
    assert_eq!(proposer.step(Event::Promised { by: NodeId(2), ballot: first, accepted: None }), [], "too late");
}

#[test]
fn an_acceptor_keeps_what_it_promised() {
    let mut vote = Vote::default();
    assert_eq!(vote.promise(ballot(2, 1)), Ok(None));
    assert_eq!(vote.accept(ballot(1, 3), Plan::regular(4)), Err(Overtaken { promised: ballot(2, 1) }));
    assert_eq!(vote.accept(ballot(2, 1), Plan::regular(1)), Ok(()));
    assert_eq!(vote.promise(ballot(1, 9)), Err(Overtaken { promised: ballot(2, 1) }));
    assert_eq!(vote.promise(ballot(3, 2)), Ok(Some((ballot(2, 1), Plan::regular(1)))));
    assert_eq!(vote.accepted(), Some(&Plan::regular(1)));
}

/// With all of those left, one after another.
fn all_promise(
    proposer: &mut Proposer<Plan>,
    ballot: Ballot,
    accepted: &[(u64, Option<(Ballot, Plan)>)],
) -> Vec<Action<Plan>> {
    let promised = |(by, accepted): &(u64, Option<(Ballot, Plan)>)| Event::Promised {
        by: NodeId(*by),
        ballot,
        accepted: accepted.clone(),
    };
    accepted.iter().map(promised).flat_map(|event| proposer.step(event)).collect()
}

fn forced(survivors: &[u64], plan: Plan) -> (Proposer<Plan>, Ballot) {
    let survivors = survivors.iter().copied().map(NodeId).collect();
    let (proposer, actions) = Proposer::start(NodeId(1), 7, survivors, plan);
    let [Action::Prepare { ballot }] = actions[..] else { panic!("it begins by asking for promises") };
    (proposer, ballot)
}

#[test]
fn by_force_all_who_are_left_agree_whatever_a_majority_may_have_chosen() {
    let plan = Plan::forced(1, [3, 4, 5]);
    let (mut proposer, ballot) = forced(&[1, 2], plan.clone());
    assert!(ballot.is_forced() && ballot > super_regular());
    let regular = Some((super_regular(), Plan::regular(9)));
    assert_eq!(
        all_promise(&mut proposer, ballot, &[(1, regular), (2, None)]),
        [Action::Accept { ballot, value: plan.clone() }]
    );
    let accepted = |by| Event::Accepted { by: NodeId(by), ballot };
    assert_eq!(proposer.step(accepted(1)), []);
    assert_eq!(proposer.step(accepted(2)), [Action::Chosen(plan)]);
}

/// About the highest that a regular proposal comes to.
fn super_regular() -> Ballot {
    ballot(u64::MAX >> 1, 9)
}

#[test]
fn what_leaves_out_the_same_is_gone_on_with_and_what_leaves_out_more_has_to_be_finished_first() {
    let same = Plan::forced(2, [3, 4, 5]);
    let (mut proposer, first) = forced(&[1, 2], Plan::forced(1, [3, 4, 5]));
    let promises = [(1, Some((first, same.clone()))), (2, Some((first, same.clone())))];
    assert_eq!(all_promise(&mut proposer, first, &promises), [Action::Accept { ballot: first, value: same }]);

    let more = Plan::forced(2, [2, 3, 4, 5]);
    let (mut proposer, first) = forced(&[1, 2], Plan::forced(1, [3, 4, 5]));
    let promises = [(1, Some((first, more.clone()))), (2, None)];
    assert_eq!(all_promise(&mut proposer, first, &promises), [Action::Bound(more)]);
    assert!(proposer.is_done());

    // Of those who would have had to agree on what leaves out more one has not, and will not any more.
    let (own, more) = (Plan::forced(1, [4, 5]), Plan::forced(2, [3, 4, 5]));
    let (mut proposer, first) = forced(&[1, 2, 3], own.clone());
    let promises = [(1, Some((first, more))), (2, None), (3, None)];
    assert_eq!(all_promise(&mut proposer, first, &promises), [Action::Accept { ballot: first, value: own }]);

    // Whoever agreed on this one as well is given up by now.
    let (own, less) = (Plan::forced(1, [2, 3, 4, 5]), Plan::forced(2, [3, 4, 5]));
    let (mut proposer, first) = forced(&[1], own.clone());
    let promises = [(1, Some((first, less)))];
    assert_eq!(all_promise(&mut proposer, first, &promises), [Action::Accept { ballot: first, value: own }]);
}

#[test]
fn whoever_was_asked_by_force_takes_part_in_nothing_regular_and_goes_by_nothing_else() {
    let (_, force) = forced(&[1, 2], Plan::forced(1, [3]));
    let (mut vote, agreed) = (Vote::default(), Plan::forced(1, [3]));
    assert_eq!(vote.promise(force), Ok(None));
    assert_eq!(vote.accept(super_regular(), Plan::regular(1)), Err(Overtaken { promised: force }));
    assert!(vote.may_adopt(&Plan::regular(1), None), "nothing was agreed upon yet");
    assert_eq!(vote.accept(force, agreed.clone()), Ok(()));
    assert!(vote.may_adopt(&agreed, None) && !vote.may_adopt(&Plan::regular(1), None));
    assert!(!vote.may_adopt(&Plan::regular(1), Some(NodeId(3))), "those given up choose what they like");
    assert!(vote.may_adopt(&Plan::regular(1), Some(NodeId(2))), "who would have had to agree has not");

    // The others can still be a majority.
    let (mut proposer, _) = Proposer::start(NodeId(1), 7, acceptors(3), Plan::regular(1));
    let first = Ballot { round: 1, proposer: NodeId(1), nonce: 7 };
    assert_eq!(proposer.step(Event::Overtaken { ballot: first, promised: force }), []);
    let promised = |by| Event::Promised { by: NodeId(by), ballot: first, accepted: None };
    assert_eq!(proposer.step(promised(1)), []);
    assert_eq!(proposer.step(promised(2)), [Action::Accept { ballot: first, value: Plan::regular(1) }]);
}
