//! Which node is asked.
//!
//! For a key its primaries come first, in the order of its preference list, then every other member. A node that failed
//! lately goes behind the others for a while. When another is tried, and when that ends, is decided in `retry.rs`.
//!
//! An attempt ends at one moment, dialling included, whichever of the two takes the time. The call carries the request's
//! whole deadline: a node that is left for its silence may still finish what it began, and answers the repetition.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use starling_core::layout::Layout;
use starling_core::name::ObjectKey;
use starling_core::report::Refusal;
use starling_proto::data::RequestError;
use starling_proto::network::Network;
use starling_proto::{CallContext, RpcError, TraceId, call_for, call_within};

use crate::atlas::Atlas;
use crate::client::{final_error, invalid};
use crate::connection::{Connection, Pool, Service, lock};
use crate::control::ControlClient;
use crate::error::ClientError;
use crate::retry::{Budget, Effect, Retry, Setback, Step};
use crate::seeds::first_answer;

/// For how long a node that failed is tried last.
const PENALTY: Duration = Duration::from_secs(2);
/// Asking again who is where takes at most this long.
const RELEARN_LIMIT: Duration = Duration::from_millis(500);

/// Who can serve a request.
pub(crate) enum Target {
    Key(ObjectKey),
    Anyone,
    /// Only this one: a member's name, or an address.
    Node(String),
}

/// What is wanted, from whom, by when.
pub(crate) struct Errand {
    pub target: Target,
    pub effect: Effect,
    pub timeout: Duration,
}

/// An answer, and how it was come by.
pub(crate) struct Answered<T> {
    pub answer: T,
    /// Who gave it.
    pub via: String,
    /// Attempts before it that may have been carried out.
    pub doubts: u32,
}

/// What all attempts of a request have in common.
#[derive(Clone, Copy)]
struct Trip {
    /// Every node that has to do with it logs it under this.
    trace: TraceId,
    deadline: Instant,
}

impl Trip {
    /// For a call that begins now.
    fn context(self) -> CallContext {
        call_for(self.trace, self.deadline.saturating_duration_since(Instant::now()))
    }
}

pub(crate) struct Router {
    seeds: Vec<String>,
    atlas: ArcSwap<Atlas>,
    pool: Pool,
    penalties: Mutex<BTreeMap<String, Instant>>,
    budget: Mutex<Budget>,
}

impl Router {
    /// Learns the layout from the first seed that has one.
    pub async fn learn(
        network: Arc<dyn Network>,
        seeds: Vec<String>,
        timeout: Duration,
    ) -> Result<Router, ClientError> {
        let (pool, deadline) = (Pool::new(network), Instant::now() + timeout);
        let layout = first_answer(seeds.clone(), deadline, |seed| fetch_layout(&pool, seed, timeout)).await?;
        Ok(Router {
            seeds,
            atlas: ArcSwap::from_pointee(Atlas::new(layout)),
            pool,
            penalties: Mutex::default(),
            budget: Mutex::new(Budget::new()),
        })
    }

    pub fn layout(&self) -> Arc<Layout> {
        Arc::clone(self.atlas.load().layout())
    }

    /// Refuses a name that no member has. An address is taken as it is.
    pub fn check_node(&self, node: &str) -> Result<(), ClientError> {
        self.address_of(node).map(drop)
    }

    /// The address of a member given by name, or an address as it is.
    fn address_of(&self, node: &str) -> Result<String, ClientError> {
        if node.contains(':') {
            return Ok(node.to_owned());
        }
        let atlas = self.atlas.load();
        let layout = atlas.layout();
        let member = layout.member_named(&node.parse().map_err(invalid)?);
        let names = || layout.members().iter().map(|member| member.name.as_str()).collect::<Vec<_>>().join(", ");
        member
            .map(|member| atlas.address(member))
            .ok_or_else(|| ClientError::Invalid(format!("no member is named `{node}`; there are {}", names())))
    }

    /// Makes a call on one node after another until one answers.
    pub async fn call<T, F>(
        &self,
        errand: &Errand,
        call: impl Fn(Service, CallContext) -> F,
    ) -> Result<Answered<T>, ClientError>
    where
        F: Future<Output = Result<Result<T, RequestError>, RpcError>>,
    {
        lock(&self.budget).pay_in();
        let trip = Trip { trace: TraceId::random(&mut rand::rng()), deadline: Instant::now() + errand.timeout };
        let mut retry = Retry::new(errand.effect, trip.deadline);
        retry.begin_round(self.addresses(&errand.target));
        loop {
            let step = retry.next(Instant::now(), rand::random_range(0.5..1.5), &mut lock(&self.budget));
            match step {
                Step::Try { address, until } => match self.attempt(&address, until, trip, &call).await {
                    Ok(answer) => return Ok(Answered { answer, via: address, doubts: retry.doubts() }),
                    Err(setback) => retry.note(address, setback),
                },
                Step::Pause { until, lost } => {
                    self.pause(until, lost, trip.deadline).await;
                    retry.begin_round(self.addresses(&errand.target));
                }
                Step::GiveUp(error) => return Err(error),
            }
        }
    }

    async fn attempt<T, F>(
        &self,
        address: &str,
        until: Instant,
        trip: Trip,
        call: &impl Fn(Service, CallContext) -> F,
    ) -> Result<T, Setback>
    where
        F: Future<Output = Result<Result<T, RequestError>, RpcError>>,
    {
        let began = Instant::now();
        let connection = self.dial(address, until).await?;
        let silent =
            || Setback::Unknown(format!("did not answer within {:.0?}", until.saturating_duration_since(began)));
        let answer = call(Service::clone(&connection), trip.context());
        match tokio::time::timeout_at(until.into(), answer).await {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(error))) => Err(self.judge(error, address)),
            Ok(Err(error)) => Err(self.broken(error, address, &connection, silent)),
            Err(_elapsed) => Err(self.penalise(address, silent())),
        }
    }

    async fn dial(&self, address: &str, until: Instant) -> Result<Connection, Setback> {
        let cluster = Some(self.layout().cluster());
        match tokio::time::timeout_at(until.into(), self.pool.get(address, cluster)).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(self.penalise(address, Setback::NotDone(error.to_string()))),
            Err(_elapsed) => Err(self.penalise(address, Setback::NotDone("could not be reached in time".to_owned()))),
        }
    }

    /// What it means that a call failed on its way.
    fn broken(&self, error: RpcError, address: &str, connection: &Connection, silent: impl Fn() -> Setback) -> Setback {
        match error {
            // All that a server of ours answers for itself is that it has too many calls at once.
            RpcError::Server(_) => self.penalise(address, Setback::NotDone("is overloaded".to_owned())),
            RpcError::DeadlineExceeded => self.penalise(address, silent()),
            // It could not be put into a frame: not a byte was sent, and the connection is as good as before.
            RpcError::Send(_) => Setback::NotDone(error.to_string()),
            RpcError::Shutdown | RpcError::Channel(_) => {
                self.pool.forget(address, connection);
                self.penalise(address, Setback::Unknown(error.to_string()))
            }
        }
    }

    fn judge(&self, error: RequestError, address: &str) -> Setback {
        match error {
            // The node is as good as before for any other key.
            // It passes.
            RequestError::Refused(Refusal::BeingReaped) => Setback::NotDone(error.to_string()),
            RequestError::Refused(refusal) if refusal.concerns_the_object() => {
                Setback::Fault(final_error(error, address))
            }
            RequestError::Refused(_) | RequestError::NotServing(_) => {
                self.penalise(address, Setback::NotDone(error.to_string()))
            }
            RequestError::ReadQuorumNotMet { .. }
            | RequestError::WriteOutcomeUnknown { .. }
            | RequestError::Incomplete(_) => Setback::Quorum(final_error(error, address)),
            RequestError::Internal(_) => Setback::Fault(final_error(error, address)),
            RequestError::Invalid(_) => Setback::Final(final_error(error, address)),
        }
    }

    /// Waits. If a whole round came to nothing, the time is used to ask again who is where.
    async fn pause(&self, until: Instant, lost: bool, deadline: Instant) {
        if lost {
            self.relearn(deadline.min(Instant::now() + RELEARN_LIMIT)).await;
        }
        tokio::time::sleep_until(until.into()).await;
    }

    /// Asks the nodes that are known, and the seeds, for the layout and for who is where.
    async fn relearn(&self, deadline: Instant) {
        let mut known = self.addresses(&Target::Anyone);
        let strangers: Vec<String> = self.seeds.iter().filter(|seed| !known.contains(seed)).cloned().collect();
        known.extend(strangers);
        let within = deadline.saturating_duration_since(Instant::now());
        let ask = |address: String| async move {
            let asked =
                async { ControlClient::connect_over(self.pool.network(), &address).await?.cluster(within).await };
            let view = asked.await.map_err(|error| error.to_string())?;
            let (ours, theirs) = (self.layout().cluster(), view.layout.as_ref().map(Layout::cluster));
            let is_ours = theirs == Some(ours) || self.pool.welcomes(&address, ours).await;
            match self.atlas.load().corrected(&view, is_ours) {
                Some(_) => Ok((view, is_ours)),
                None => Err("belongs to another cluster, or is behind".to_owned()),
            }
        };
        // That nobody answers is what the next round finds out as well.
        if let Ok((view, is_ours)) = first_answer(known, deadline, ask).await {
            self.atlas.rcu(|atlas| atlas.corrected(&view, is_ours).map_or_else(|| Arc::clone(atlas), Arc::new));
        }
    }

    fn addresses(&self, target: &Target) -> Vec<String> {
        let mut addresses = match target {
            // That there is such a member was checked; a newer layout may be without it.
            Target::Node(node) => return self.address_of(node).into_iter().collect(),
            Target::Key(key) => self.atlas.load().preferred(key),
            Target::Anyone => {
                let mut all = self.atlas.load().addresses();
                let start = rand::random_range(0..all.len().max(1));
                all.rotate_left(start);
                all
            }
        };
        let mut penalties = lock(&self.penalties);
        let now = Instant::now();
        penalties.retain(|_, until| *until > now);
        addresses.sort_by_key(|address| penalties.contains_key(address));
        addresses
    }

    fn penalise(&self, address: &str, setback: Setback) -> Setback {
        lock(&self.penalties).insert(address.to_owned(), Instant::now() + PENALTY);
        setback
    }
}

async fn fetch_layout(pool: &Pool, seed: String, timeout: Duration) -> Result<Layout, String> {
    let client = pool.get(&seed, None).await.map_err(|error| error.to_string())?;
    match client.layout(call_within(timeout)).await {
        Ok(Ok(layout)) => Ok(layout),
        Ok(Err(error)) => Err(error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}
