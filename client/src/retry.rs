//! When another node is tried, and when a request is given up. Decided here, done by `route.rs`: the machine is told whom
//! there is to ask and what befell each attempt, and says what to do next. Time, chance and the budget come in as arguments.
//!
//! A request goes round: over all nodes in turn, then a pause, then again. A quorum that a node has missed is tried once more,
//! after a pause, by another. A node is waited for only so long: a paused one
//! keeps its connections open and says nothing. Patience doubles with each silent node, so that a cluster that is merely
//! slow is not flooded.
//!
//! Everything ends with one deadline, and retries draw on a budget that requests pay into (a fifth of a retry each), so that
//! retries cannot keep an overloaded cluster down.
//!
//! What is said in the end is what was learnt of the request's fate. Once an attempt of a write may have been carried out,
//! nothing that another node says later undoes that: a refusal then means that the outcome is unknown.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use starling_core::fault::{self, Fault};

use crate::error::{Attempt, ClientError};

/// A silent node is left for the next after this long, at first.
const FIRST_PATIENCE: Duration = Duration::from_millis(750);
/// Waits between rounds over all nodes: at first about this long, doubling, with jitter.
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const MOST_BACKOFF: Duration = Duration::from_secs(1);
/// Retries that a client may make without having made requests for them.
const BUDGET_RESERVE: f64 = 20.0;
const BUDGET_PER_REQUEST: f64 = 0.2;
/// How often a failed quorum is tried again, by another node: what failed it may have been noticed meanwhile, and the first
/// may be cut off.
const QUORUM_RETRIES: usize = 1;

/// What a request may leave behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Nothing,
    Write,
}

/// How one attempt ended, if not well.
#[derive(Debug)]
pub(crate) enum Setback {
    /// Another node may help. Nothing was done.
    NotDone(String),
    /// Another node may help. The request may have been carried out.
    Unknown(String),
    /// Something is wrong with that node, perhaps with its copy of one key only: another may help. Nothing was done.
    Fault(ClientError),
    /// Worth trying again a little later. A write may have been carried out.
    Quorum(ClientError),
    /// The request itself is at fault: no other node will say otherwise.
    Final(ClientError),
}

#[derive(Debug)]
pub(crate) enum Step {
    /// Ask this node, and leave it at that moment.
    Try {
        address: String,
        until: Instant,
    },
    /// Wait until then, and begin another round. If it is `lost`, no node of this one was of use: who is where may have
    /// changed.
    Pause {
        until: Instant,
        lost: bool,
    },
    GiveUp(ClientError),
}

/// What retries are paid from. Shared by all requests of a client.
#[derive(Debug)]
pub(crate) struct Budget(f64);

impl Budget {
    pub fn new() -> Budget {
        Budget(BUDGET_RESERVE)
    }

    pub fn pay_in(&mut self) {
        self.0 = (self.0 + BUDGET_PER_REQUEST).min(BUDGET_RESERVE * 10.0);
    }

    fn pay_out(&mut self) -> bool {
        let affordable = self.0 >= 1.0;
        if affordable {
            self.0 -= 1.0;
        }
        affordable
    }
}

/// Why no further attempt is made.
#[derive(Clone, Copy)]
enum Limit {
    Deadline,
    Budget,
    /// All nodes report faults of their own.
    Faults,
}

impl Limit {
    /// Of a write in doubt.
    fn reason(self) -> String {
        let why_no_more = match self {
            Limit::Deadline => "there was no time for another",
            Limit::Budget => "too many requests failed lately for another",
            Limit::Faults => "all nodes have met faults of their own since",
        };
        format!("an attempt was not answered, and {why_no_more}")
    }
}

/// One request on its way.
pub(crate) struct Retry {
    effect: Effect,
    deadline: Instant,
    patience: Duration,
    backoff: Duration,
    round: Round,
    tried: Vec<Attempt>,
    /// Attempts that were made whose outcome is unknown.
    doubts: u32,
    /// What a quorum that was missed says is worth more than that nothing came of another try.
    missed: Option<ClientError>,
    /// By which nodes.
    missed_by: Vec<String>,
    fault: Option<ClientError>,
    ended: Option<ClientError>,
}

/// One turn over all nodes.
#[derive(Default)]
struct Round {
    waiting: VecDeque<String>,
    /// There is nobody else: it is waited for until the deadline.
    alone: bool,
    /// Some node may do better another time.
    hopeful: bool,
    missed_quorum: bool,
}

impl Retry {
    pub fn new(effect: Effect, deadline: Instant) -> Retry {
        Retry {
            effect,
            deadline,
            patience: FIRST_PATIENCE,
            backoff: FIRST_BACKOFF,
            round: Round::default(),
            tried: Vec::new(),
            doubts: 0,
            missed: None,
            missed_by: Vec::new(),
            fault: None,
            ended: None,
        }
    }

    /// Begins a round over these nodes, the best first; but last those that have missed a quorum: if one was cut off from its
    /// peers, it misses it again, and another does not.
    pub fn begin_round(&mut self, mut addresses: Vec<String>) {
        addresses.sort_by_key(|address| self.missed_by.contains(address));
        // With nobody to ask, it is waited for a layout that knows somebody.
        let hopeful = addresses.is_empty();
        self.round = Round { alone: addresses.len() == 1, waiting: addresses.into(), hopeful, missed_quorum: false };
    }

    /// What to do now. `jitter` is drawn from 0.5 to 1.5.
    pub fn next(&mut self, now: Instant, jitter: f64, budget: &mut Budget) -> Step {
        if let Some(error) = self.ended.take() {
            return Step::GiveUp(error);
        }
        match self.round.waiting.pop_front() {
            Some(address) => self.attempt(address, now, budget),
            None => self.pause(now, jitter),
        }
    }

    /// Attempts so far that may have been carried out, and were not answered or not well.
    pub fn doubts(&self) -> u32 {
        self.doubts
    }

    /// Takes in how an attempt ended.
    pub fn note(&mut self, address: String, setback: Setback) {
        match setback {
            Setback::NotDone(reason) => self.hope(address, reason),
            Setback::Unknown(reason) => {
                self.doubts += 1;
                self.patience *= 2;
                self.hope(address, reason);
            }
            Setback::Fault(error) => {
                self.tried.push(Attempt { address, reason: reason_of(&error) });
                self.fault = Some(error);
            }
            Setback::Quorum(error) => self.miss(address, error),
            Setback::Final(error) => self.ended = Some(self.refused(error)),
        }
    }

    fn attempt(&mut self, address: String, now: Instant, budget: &mut Budget) -> Step {
        if now >= self.deadline {
            return Step::GiveUp(self.given_up(Limit::Deadline));
        }
        let is_retry = !self.tried.is_empty();
        if is_retry && (!budget.pay_out() || fault::is_on(Fault::NeverRetry)) {
            return Step::GiveUp(self.given_up(Limit::Budget));
        }
        let until = if self.round.alone { self.deadline } else { self.deadline.min(now + self.patience) };
        Step::Try { address, until }
    }

    fn pause(&mut self, now: Instant, jitter: f64) -> Step {
        if !self.round.hopeful {
            return Step::GiveUp(self.given_up(Limit::Faults));
        }
        let until = now + self.backoff.mul_f64(jitter);
        if until >= self.deadline {
            return Step::GiveUp(self.given_up(Limit::Deadline));
        }
        self.backoff = (self.backoff * 2).min(MOST_BACKOFF);
        Step::Pause { until, lost: !self.round.missed_quorum }
    }

    fn hope(&mut self, address: String, reason: String) {
        self.round.hopeful = true;
        self.tried.push(Attempt { address, reason });
    }

    /// Most likely the other nodes would miss it too, as they ask the same replicas: these are given time to recover.
    fn miss(&mut self, address: String, error: ClientError) {
        self.doubts += u32::from(left_something(&error));
        self.missed_by.push(address.clone());
        self.hope(address, error.to_string());
        if self.missed_by.len() > QUORUM_RETRIES {
            self.ended = Some(self.refused(error));
            return;
        }
        self.missed = self.missed.take().filter(left_something).or(Some(error));
        self.round.missed_quorum = true;
        self.round.waiting.clear();
    }

    /// What a refusal means. It tells nothing of the attempts before it.
    fn refused(&mut self, error: ClientError) -> ClientError {
        match self.effect {
            Effect::Write if self.doubts > 0 && !left_something(&error) => {
                let tried = std::mem::take(&mut self.tried);
                let reason = format!("an attempt was not answered, and its repetition was refused ({error})");
                let missed = self.missed.take().filter(left_something);
                missed.unwrap_or(ClientError::OutcomeUnknown { reason, tried })
            }
            Effect::Write | Effect::Nothing => error,
        }
    }

    fn given_up(&mut self, limit: Limit) -> ClientError {
        if let Some(missed) = self.missed.take() {
            return self.refused(missed);
        }
        let tried = std::mem::take(&mut self.tried);
        match (self.doubts > 0, limit, self.effect, self.fault.take()) {
            (true, Limit::Deadline, ..) => ClientError::DeadlinePassed { tried },
            (true, _, Effect::Write, _) => ClientError::OutcomeUnknown { reason: limit.reason(), tried },
            (_, _, _, Some(fault)) => fault,
            (_, Limit::Budget, _, None) => ClientError::RetriesSpent { tried },
            (_, Limit::Deadline | Limit::Faults, _, None) => ClientError::Unavailable { tried },
        }
    }
}

/// Whether a quorum that was missed may have left the write on some replicas. A delete without a context reads first, and
/// does nothing if that fails.
fn left_something(missed: &ClientError) -> bool {
    matches!(missed, ClientError::WriteQuorumNotMet { .. })
}

/// Without the address, which stands before it.
fn reason_of(error: &ClientError) -> String {
    match error {
        ClientError::Internal { reason, .. } => reason.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use starling_core::quorum::{Level, Quorum, ReplicaCount, Tally};

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(5);

    /// A request, the clock by which it lives, and its purse.
    struct Story {
        retry: Retry,
        budget: Budget,
        now: Instant,
    }

    impl Story {
        fn of(effect: Effect, addresses: &[&str]) -> Story {
            let now = Instant::now();
            let mut story = Story { retry: Retry::new(effect, now + TIMEOUT), budget: Budget::new(), now };
            story.round(addresses);
            story
        }

        fn round(&mut self, addresses: &[&str]) {
            self.retry.begin_round(addresses.iter().map(|address| (*address).to_owned()).collect());
        }

        fn next(&mut self) -> Step {
            self.retry.next(self.now, 1.0, &mut self.budget)
        }

        /// Who is asked next, and for how long.
        fn asked(&mut self) -> (String, Duration) {
            match self.next() {
                Step::Try { address, until } => (address, until - self.now),
                other => panic!("not an attempt: {other:?}"),
            }
        }

        /// Lets the next attempt fail.
        fn fails(&mut self, setback: Setback) {
            let (address, _) = self.asked();
            self.retry.note(address, setback);
        }

        fn is_silent(&mut self) {
            let (address, limit) = self.asked();
            self.now += limit;
            self.retry.note(address, Setback::Unknown("is silent".to_owned()));
        }

        fn pauses(&mut self) -> (Duration, bool) {
            match self.next() {
                Step::Pause { until, lost } => {
                    let pause = until - self.now;
                    self.now = until;
                    (pause, lost)
                }
                other => panic!("not a pause: {other:?}"),
            }
        }

        fn gives_up(&mut self) -> ClientError {
            match self.next() {
                Step::GiveUp(error) => error,
                other => panic!("not the end: {other:?}"),
            }
        }
    }

    fn refused() -> Setback {
        Setback::NotDone("is overloaded".to_owned())
    }

    fn damaged(address: &str) -> Setback {
        Setback::Fault(ClientError::Internal { address: address.to_owned(), reason: "a record is damaged".to_owned() })
    }

    fn quorum_missed() -> Setback {
        let quorum = Quorum::of_write(Level::All, Level::Default, ReplicaCount::DEFAULT).unwrap();
        let (acknowledged, replicas) = (Tally::default(), Vec::new());
        Setback::Quorum(ClientError::WriteQuorumNotMet { quorum, acknowledged, replicas })
    }

    /// Of the read that a delete without a context begins with.
    fn read_quorum_missed() -> Setback {
        let quorum = Quorum::of_read(Level::All, Level::Default, ReplicaCount::DEFAULT).unwrap();
        let (counted, replicas) = (Tally::default(), Vec::new());
        Setback::Quorum(ClientError::ReadQuorumNotMet { quorum, counted, replicas })
    }

    fn invalid() -> Setback {
        Setback::Final(ClientError::Invalid("too many siblings".to_owned()))
    }

    #[test]
    fn nodes_are_tried_in_order_then_again_after_pauses_that_double() {
        let mut story = Story::of(Effect::Nothing, &["a:1", "b:1"]);
        for pause in [50, 100, 200, 400, 800, 1_000, 1_000] {
            for expected in ["a:1", "b:1"] {
                let (address, _) = story.asked();
                assert_eq!(address, expected);
                story.retry.note(address, refused());
            }
            assert_eq!(story.pauses(), (Duration::from_millis(pause), true));
            story.round(&["a:1", "b:1"]);
        }
    }

    #[test]
    fn patience_doubles_with_each_silent_node_and_never_outlasts_the_deadline() {
        let mut story = Story::of(Effect::Nothing, &["a:1", "b:1", "c:1", "d:1"]);
        for expected in [750, 1_500, 2_750] {
            let before = story.now;
            story.is_silent();
            assert_eq!(story.now - before, Duration::from_millis(expected));
        }
        let ClientError::DeadlinePassed { tried } = story.gives_up() else { panic!("the deadline has passed") };
        assert_eq!(tried.len(), 3, "nobody is asked past the deadline");
    }

    #[test]
    fn a_node_that_is_alone_is_waited_for_until_the_deadline() {
        assert_eq!(Story::of(Effect::Nothing, &["a:1"]).asked().1, TIMEOUT);
    }

    #[test]
    fn no_pause_reaches_past_the_deadline() {
        let mut story = Story::of(Effect::Write, &["a:1"]);
        story.now += TIMEOUT - Duration::from_millis(20);
        story.fails(refused());
        assert!(matches!(story.gives_up(), ClientError::Unavailable { tried } if tried.len() == 1));
    }

    #[test]
    fn a_deadline_that_has_passed_asks_nobody() {
        let mut story = Story::of(Effect::Write, &["a:1"]);
        story.now += TIMEOUT;
        assert!(matches!(story.gives_up(), ClientError::Unavailable { tried } if tried.is_empty()));
    }

    #[test]
    fn a_spent_budget_is_not_called_a_passed_deadline() {
        let penniless = |effect| Story { budget: Budget(0.0), ..Story::of(effect, &["a:1", "b:1"]) };
        let mut story = penniless(Effect::Write);
        story.fails(refused());
        assert!(matches!(story.gives_up(), ClientError::RetriesSpent { tried } if tried.len() == 1));
        let mut story = penniless(Effect::Write);
        story.is_silent();
        assert!(matches!(story.gives_up(), ClientError::OutcomeUnknown { .. }));
        let mut story = penniless(Effect::Nothing);
        story.is_silent();
        assert!(matches!(story.gives_up(), ClientError::RetriesSpent { .. }), "a read leaves nothing behind");
    }

    #[test]
    fn five_requests_pay_for_a_retry() {
        let mut budget = Budget(0.0);
        (0..4).for_each(|_| budget.pay_in());
        assert!(!budget.pay_out());
        budget.pay_in();
        assert!(budget.pay_out() && !budget.pay_out());
    }

    #[test]
    fn a_missed_quorum_is_tried_once_more_after_a_pause() {
        let mut story = Story::of(Effect::Write, &["a:1", "b:1"]);
        story.fails(quorum_missed());
        assert_eq!(story.pauses(), (Duration::from_millis(50), false), "b asks the same replicas");
        story.round(&["a:1", "b:1"]);
        story.fails(quorum_missed());
        assert!(matches!(story.gives_up(), ClientError::WriteQuorumNotMet { .. }));
    }

    #[test]
    fn a_missed_quorum_is_tried_again_by_another_node() {
        let mut story = Story::of(Effect::Nothing, &["cut off:1", "b:1", "c:1"]);
        story.fails(quorum_missed());
        story.pauses();
        story.round(&["cut off:1", "b:1", "c:1"]);
        let asked: Vec<String> = (0..3).map(|_| story.asked().0).collect();
        assert_eq!(asked, ["b:1", "c:1", "cut off:1"]);
    }

    #[test]
    fn what_a_missed_quorum_said_is_kept() {
        let mut story = Story::of(Effect::Write, &["a:1", "b:1"]);
        story.fails(quorum_missed());
        story.pauses();
        story.round(&["a:1", "b:1"]);
        story.fails(refused());
        story.now += TIMEOUT;
        assert!(matches!(story.gives_up(), ClientError::WriteQuorumNotMet { .. }));
    }

    #[test]
    fn a_refusal_ends_the_request() {
        let mut story = Story::of(Effect::Write, &["a:1", "b:1"]);
        story.fails(refused());
        story.fails(invalid());
        assert!(matches!(story.gives_up(), ClientError::Invalid(_)));
    }

    #[test]
    fn a_refusal_after_silence_leaves_a_write_unknown() {
        let mut story = Story::of(Effect::Write, &["a:1", "b:1"]);
        story.is_silent();
        story.fails(invalid());
        let ClientError::OutcomeUnknown { reason, tried } = story.gives_up() else { panic!("a may have written") };
        assert!(reason.contains("too many siblings") && tried.len() == 1, "{reason}");
        let mut story = Story::of(Effect::Write, &["a:1"]);
        story.fails(quorum_missed());
        story.pauses();
        story.round(&["a:1"]);
        story.fails(invalid());
        assert!(matches!(story.gives_up(), ClientError::WriteQuorumNotMet { .. }), "it says who has it");
        let mut story = Story::of(Effect::Nothing, &["a:1", "b:1"]);
        story.is_silent();
        story.fails(invalid());
        assert!(matches!(story.gives_up(), ClientError::Invalid(_)), "a read leaves nothing behind");
    }

    #[test]
    fn a_delete_that_could_not_read_leaves_what_its_earlier_attempts_did_in_doubt() {
        let mut story = Story::of(Effect::Write, &["a:1"]);
        story.fails(quorum_missed());
        story.pauses();
        story.round(&["a:1"]);
        story.fails(read_quorum_missed());
        assert!(matches!(story.gives_up(), ClientError::WriteQuorumNotMet { .. }));

        let mut story = Story::of(Effect::Write, &["a:1", "b:1"]);
        story.is_silent();
        story.fails(read_quorum_missed());
        story.now += TIMEOUT;
        assert!(matches!(story.gives_up(), ClientError::OutcomeUnknown { .. }));

        let mut story = Story::of(Effect::Write, &["a:1"]);
        story.fails(read_quorum_missed());
        story.pauses();
        story.round(&["a:1"]);
        story.fails(read_quorum_missed());
        assert!(matches!(story.gives_up(), ClientError::ReadQuorumNotMet { .. }), "nothing was done");
    }

    #[test]
    fn only_attempts_that_may_have_been_carried_out_are_in_doubt() {
        let mut story = Story::of(Effect::Write, &["a:1", "b:1", "c:1", "d:1"]);
        story.fails(refused());
        story.fails(damaged("b:1"));
        assert_eq!(story.retry.doubts(), 0);
        story.is_silent();
        story.fails(quorum_missed());
        assert_eq!(story.retry.doubts(), 2);
    }

    #[test]
    fn one_damaged_record_is_no_reason_to_give_up() {
        let mut story = Story::of(Effect::Nothing, &["a:1", "b:1"]);
        story.fails(damaged("a:1"));
        assert_eq!(story.asked().0, "b:1");
    }

    #[test]
    fn a_fault_is_reported_once_nobody_else_can_help() {
        let mut story = Story::of(Effect::Nothing, &["a:1", "b:1"]);
        story.fails(damaged("a:1"));
        story.fails(damaged("b:1"));
        assert!(matches!(story.gives_up(), ClientError::Internal { address, .. } if address == "b:1"));
        let mut story = Story::of(Effect::Write, &["a:1"]);
        story.is_silent();
        story.now -= TIMEOUT / 2;
        story.pauses();
        story.round(&["a:1"]);
        story.fails(damaged("a:1"));
        assert!(matches!(story.gives_up(), ClientError::OutcomeUnknown { .. }), "a may have written before");
        let mut story = Story::of(Effect::Nothing, &["a:1", "b:1"]);
        story.fails(damaged("a:1"));
        story.fails(refused());
        story.pauses();
        story.now += TIMEOUT;
        story.round(&["b:1"]);
        assert!(matches!(story.gives_up(), ClientError::Internal { .. }), "b had no time to recover");
    }
}
