//! Which node is asked, when another is tried, and when that ends.
//!
//! For a key its primaries come first, in the order of its preference list, then every other member. A node that failed
//! lately goes behind the others for a while. A node is waited for only so long: a paused one keeps its connections open
//! and says nothing. Patience doubles from node to node, so that a cluster that is merely slow is not flooded.
//!
//! Everything runs under one deadline, and retries draw on a budget that requests pay into (a fifth of a retry each), so
//! that retries cannot keep an overloaded cluster down.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures::stream::{FuturesUnordered, StreamExt as _};
use starling_core::layout::Layout;
use starling_core::name::ObjectKey;
use starling_proto::data::{DataServiceClient, RequestError};
use starling_proto::{CallContext, RpcError, call_within};

use crate::client::{final_error, invalid};
use crate::connection::Pool;
use crate::error::{Attempt, ClientError};

/// A silent node is left for the next after this long, at first.
const FIRST_PATIENCE: Duration = Duration::from_millis(750);
/// As long a silent seed is waited for before the next one is asked as well.
const SEED_PATIENCE: Duration = Duration::from_millis(100);
/// For how long a node that failed is tried last.
const PENALTY: Duration = Duration::from_secs(2);
/// Waits between rounds over all nodes: at first about this long, doubling, with jitter.
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const MOST_BACKOFF: Duration = Duration::from_secs(1);
/// Retries that a client may make without having made requests for them.
const BUDGET_RESERVE: f64 = 20.0;
const BUDGET_PER_REQUEST: f64 = 0.2;
/// How often a failed quorum is tried again: what failed it may have been noticed meanwhile.
const QUORUM_RETRIES: usize = 1;

/// Who can serve a request.
pub(crate) enum Target {
    Key(ObjectKey),
    Anyone,
    /// Only this address.
    Node(String),
}

pub(crate) struct Router {
    layout: ArcSwap<Layout>,
    pool: Pool,
    penalties: Mutex<BTreeMap<String, Instant>>,
    budget: Mutex<f64>,
}

/// How one attempt ended, if not well.
enum Setback {
    /// Another node may help. Nothing was done.
    NotDone(String),
    /// Another node may help. The request may have been carried out.
    Unknown(String),
    /// Worth trying again a little later.
    Quorum(ClientError),
    Final(ClientError),
}

impl Router {
    pub async fn learn(seeds: Vec<String>, timeout: Duration) -> Result<Router, ClientError> {
        let pool = Pool::default();
        let layout = first_layout(&pool, seeds, timeout).await?;
        Ok(Router::new(layout, pool))
    }

    fn new(layout: Layout, pool: Pool) -> Router {
        Router {
            layout: ArcSwap::from_pointee(layout),
            pool,
            penalties: Mutex::default(),
            budget: Mutex::new(BUDGET_RESERVE),
        }
    }

    pub fn layout(&self) -> Arc<Layout> {
        self.layout.load_full()
    }

    /// The address of a member given by name, or an address as it is.
    pub fn address_of(&self, node: &str) -> Result<String, ClientError> {
        if node.contains(':') {
            return Ok(node.to_owned());
        }
        let layout = self.layout();
        let member = layout.member_named(&node.parse().map_err(invalid)?);
        let names = || layout.members().iter().map(|member| member.name.as_str()).collect::<Vec<_>>().join(", ");
        member
            .map(|member| member.address.clone())
            .ok_or_else(|| ClientError::Invalid(format!("no member is named `{node}`; there are {}", names())))
    }

    /// Makes a call on one node after another until one answers. Returns the answer and who gave it.
    pub async fn call<T, F>(
        &self,
        target: &Target,
        timeout: Duration,
        call: impl Fn(DataServiceClient, CallContext) -> F,
    ) -> Result<(T, String), ClientError>
    where
        F: Future<Output = Result<Result<T, RequestError>, RpcError>>,
    {
        let deadline = Instant::now() + timeout;
        let mut tried: Vec<Attempt> = Vec::new();
        let (mut patience, mut backoff) = (FIRST_PATIENCE, FIRST_BACKOFF);
        let (mut maybe_done, mut quorum_failures) = (false, 0);
        // What a quorum that was missed says is worth more than that nothing came of another try.
        let mut missed = None;
        self.pay_in();
        loop {
            let addresses = self.addresses(target);
            let only = addresses.len() == 1;
            for address in addresses {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() || (!tried.is_empty() && !self.pay_out()) {
                    return Err(missed.unwrap_or_else(|| given_up(tried, maybe_done)));
                }
                let limit = if only { left } else { left.min(patience) };
                match self.attempt(&address, left, limit, &call).await {
                    Ok(answer) => return Ok((answer, address)),
                    Err(Setback::Final(error)) => return Err(error),
                    Err(Setback::Quorum(error)) => {
                        quorum_failures += 1;
                        if quorum_failures > QUORUM_RETRIES {
                            return Err(error);
                        }
                        tried.push(Attempt { address, reason: error.to_string() });
                        maybe_done = true;
                        missed = Some(error);
                        break;
                    }
                    Err(Setback::NotDone(reason)) => tried.push(Attempt { address, reason }),
                    Err(Setback::Unknown(reason)) => {
                        maybe_done = true;
                        patience *= 2;
                        tried.push(Attempt { address, reason });
                    }
                }
            }
            let pause = backoff.mul_f64(rand::random_range(0.5..1.5));
            if Instant::now() + pause >= deadline {
                return Err(missed.unwrap_or_else(|| given_up(tried, maybe_done)));
            }
            tokio::time::sleep(pause).await;
            backoff = (backoff * 2).min(MOST_BACKOFF);
        }
    }

    async fn attempt<T, F>(
        &self,
        address: &str,
        left: Duration,
        limit: Duration,
        call: &impl Fn(DataServiceClient, CallContext) -> F,
    ) -> Result<T, Setback>
    where
        F: Future<Output = Result<Result<T, RequestError>, RpcError>>,
    {
        let cluster = Some(self.layout().cluster());
        let client = match tokio::time::timeout(limit, self.pool.get(address, cluster)).await {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => return Err(self.penalise(address, Setback::NotDone(error.to_string()))),
            Err(_elapsed) => return Err(self.penalise(address, Setback::NotDone("could not be reached".to_owned()))),
        };
        match tokio::time::timeout(limit, call(client, call_within(left))).await {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(error))) => Err(self.judge(error, address)),
            // All that a server of ours answers for itself is that it has too many calls at once.
            Ok(Err(RpcError::Server(_))) => Err(self.penalise(address, Setback::NotDone("is overloaded".to_owned()))),
            Ok(Err(RpcError::DeadlineExceeded)) => Err(self.penalise(address, silent(limit))),
            Ok(Err(error @ (RpcError::Shutdown | RpcError::Send(_) | RpcError::Channel(_)))) => {
                self.pool.forget(address);
                Err(self.penalise(address, Setback::Unknown(error.to_string())))
            }
            Err(_elapsed) => Err(self.penalise(address, silent(limit))),
        }
    }

    fn judge(&self, error: RequestError, address: &str) -> Setback {
        match error {
            RequestError::Refused(_) | RequestError::NotServing(_) => {
                self.penalise(address, Setback::NotDone(error.to_string()))
            }
            RequestError::ReadQuorumNotMet { .. } | RequestError::WriteOutcomeUnknown { .. } => {
                Setback::Quorum(final_error(error, address))
            }
            RequestError::Invalid(_) | RequestError::Incomplete(_) | RequestError::Internal(_) => {
                Setback::Final(final_error(error, address))
            }
        }
    }

    fn addresses(&self, target: &Target) -> Vec<String> {
        let layout = self.layout();
        let address = |node: &starling_core::ids::NodeId| layout.member(*node).map(|member| member.address.clone());
        let mut addresses: Vec<String> = match target {
            Target::Node(address) => return vec![address.clone()],
            Target::Key(key) => {
                let list = layout.preference_list(key);
                list.primaries().iter().chain(list.fallbacks()).filter_map(address).collect()
            }
            Target::Anyone => {
                let mut all: Vec<String> = layout.members().iter().map(|member| member.address.clone()).collect();
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

    fn pay_in(&self) {
        let mut budget = lock(&self.budget);
        *budget = (*budget + BUDGET_PER_REQUEST).min(BUDGET_RESERVE * 10.0);
    }

    fn pay_out(&self) -> bool {
        let mut budget = lock(&self.budget);
        let affordable = *budget >= 1.0;
        if affordable {
            *budget -= 1.0;
        }
        affordable
    }
}

fn silent(limit: Duration) -> Setback {
    Setback::Unknown(format!("did not answer within {limit:.0?}"))
}

fn given_up(tried: Vec<Attempt>, maybe_done: bool) -> ClientError {
    if maybe_done { ClientError::DeadlinePassed { tried } } else { ClientError::Unavailable { tried } }
}

/// Asks one seed after another. The next is asked too when one fails, or says nothing for a while.
async fn first_layout(pool: &Pool, seeds: Vec<String>, timeout: Duration) -> Result<Layout, ClientError> {
    let (mut seeds, mut asked, mut tried) = (seeds.into_iter(), FuturesUnordered::new(), Vec::new());
    loop {
        let next = seeds.next();
        let is_last = next.is_none();
        asked.extend(next.map(|seed| async { (fetch_layout(pool, &seed, timeout).await, seed) }));
        tokio::select! {
            Some((answer, seed)) = asked.next() => match answer {
                Ok(layout) => return Ok(layout),
                Err(reason) => tried.push(Attempt { address: seed, reason }),
            },
            () = tokio::time::sleep(SEED_PATIENCE), if !is_last => {}
            else => return Err(ClientError::Unavailable { tried }),
        }
    }
}

async fn fetch_layout(pool: &Pool, seed: &str, timeout: Duration) -> Result<Layout, String> {
    let client = pool.get(seed, None).await.map_err(|error| error.to_string())?;
    match client.layout(call_within(timeout)).await {
        Ok(Ok(layout)) => Ok(layout),
        Ok(Err(error)) => Err(error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
