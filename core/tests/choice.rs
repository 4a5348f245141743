//! No version of the layout is chosen twice, whatever happens to messages, acceptors and proposers.

mod support;

use proptest::prelude::*;
use starling_core::choice::{Action, Ballot, Event, Overtaken, Proposer, Vote};
use starling_core::ids::NodeId;
use support::cases;
use support::choice_world::worlds;

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
    let (mut proposer, actions) = Proposer::start(NodeId(1), 7, acceptors(3), "plan");
    let first = Ballot { round: 1, proposer: NodeId(1), nonce: 7 };
    assert_eq!(actions, [Action::Prepare { ballot: first }]);
    let promised = |by| Event::Promised { by: NodeId(by), ballot: first, accepted: None };
    assert_eq!(proposer.step(promised(1)), []);
    assert_eq!(proposer.step(promised(1)), [], "one voice");
    assert_eq!(proposer.progress(), (1, 2));
    assert_eq!(proposer.step(promised(3)), [Action::Accept { ballot: first, value: "plan" }]);
    let accepted = |by| Event::Accepted { by: NodeId(by), ballot: first };
    assert_eq!(proposer.step(accepted(2)), []);
    assert_eq!(proposer.step(accepted(9)), [], "no acceptor");
    assert_eq!(proposer.step(accepted(1)), [Action::Chosen("plan")]);
    assert_eq!(proposer.step(accepted(3)), []);
    assert!(proposer.is_done());
}

#[test]
fn what_may_have_been_chosen_is_taken_up() {
    let (mut proposer, _) = Proposer::start(NodeId(1), 7, acceptors(3), "own plan");
    let first = Ballot { round: 1, proposer: NodeId(1), nonce: 7 };
    proposer.step(Event::Promised { by: NodeId(2), ballot: first, accepted: Some((ballot(1, 2), "earlier")) });
    let actions =
        proposer.step(Event::Promised { by: NodeId(3), ballot: first, accepted: Some((ballot(0, 9), "first")) });
    assert_eq!(actions, [Action::Accept { ballot: first, value: "earlier" }]);
}

#[test]
fn whoever_is_overtaken_backs_off_and_comes_back_above() {
    let (mut proposer, _) = Proposer::start(NodeId(1), 7, acceptors(3), "plan");
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
    assert_eq!(vote.accept(ballot(1, 3), "late"), Err(Overtaken { promised: ballot(2, 1) }));
    assert_eq!(vote.accept(ballot(2, 1), "plan"), Ok(()));
    assert_eq!(vote.promise(ballot(1, 9)), Err(Overtaken { promised: ballot(2, 1) }));
    assert_eq!(vote.promise(ballot(3, 2)), Ok(Some((ballot(2, 1), "plan"))));
    assert_eq!(vote.accepted(), Some(&"plan"));
}
