//! Comparing what this node holds with what a peer holds, by their hash trees; and fetching what differs.
//!
//! Anti-entropy rests on it (`anti_entropy.rs`), and so does copying from the second source on (`copying.rs`). Every request
//! carries the epoch in which it is meant, as all that concerns data does.

use std::sync::Arc;

use starling_core::codec;
use starling_core::name::ObjectKey;
use starling_core::object::Object;
use starling_core::report::{Failure, Refusal};
use starling_core::ring::Epoch;
use starling_core::tree::{Answer, Branch, Breadth, Comparison, Difference, Tree, answer};
use starling_proto::connection::MAX_FRAME_BYTES;
use starling_proto::peer::{Compare, Compared, Fetch, Fetched, MOST_BRANCHES, PeerError, PeerServiceClient};
use starling_storage::{Store, StoreError};
use xxhash_rust::xxh3::xxh3_64;

use crate::coordinator::own_failure;
use crate::copying::{CALL_LIMIT, PAGE_BYTES};
use crate::link::{Link, as_failure, fits_a_frame, new_trace};
use crate::node::Node;

/// Branches of one partition that are asked about at once.
const BRANCHES_AT_ONCE: usize = 32;
/// Keys that are asked for at once.
pub const KEYS_AT_ONCE: usize = 128;

/// Why a comparison cannot go on.
pub enum Stopped {
    /// This node cannot.
    Here(Failure),
    /// Its peer does not say, or give, what it has.
    There(Failure),
}

impl From<Stopped> for Failure {
    fn from((Stopped::Here(failure) | Stopped::There(failure)): Stopped) -> Failure {
        failure
    }
}

/// A partition that is being compared with a peer.
pub struct Comparing<'a> {
    node: &'a Node,
    link: &'a Link,
    least: Breadth,
    comparison: Comparison,
}

impl<'a> Comparing<'a> {
    pub fn new(node: &'a Node, link: &'a Link, comparison: Comparison, least: Breadth) -> Comparing<'a> {
        Comparing { node, link, least, comparison }
    }

    /// One exchange with the peer; what is found to differ by it. None once all is compared.
    pub async fn step(&mut self, epoch: Epoch) -> Result<Option<Vec<Difference>>, Stopped> {
        let branches = self.comparison.next(BRANCHES_AT_ONCE);
        if branches.is_empty() {
            return Ok(None);
        }
        let asked = branches.into_iter().map(|branch| (branch, self.least)).collect();
        let answers = self.node.exchange(self.link, epoch, asked).await?;
        self.hear(epoch, answers.into_iter().map(|(branch, _, answer)| (branch, answer)).collect()).await.map(Some)
    }

    /// Takes answers in; what is found to differ by them.
    pub async fn hear(&mut self, epoch: Epoch, answers: Vec<(Branch, Answer)>) -> Result<Vec<Difference>, Stopped> {
        let (least, mut comparison) = (self.least, self.comparison.clone());
        let hear = move |store: &Store| {
            let tree = store.tree(least)?;
            let mut found = Vec::new();
            for (branch, answer) in answers {
                found.extend(comparison.hear(&tree, branch, answer)?);
            }
            Ok((comparison, found))
        };
        let heard = self.node.read_in(epoch, hear).await;
        let (comparison, found) = heard.map_err(|error| Stopped::Here(own_failure(error)))?;
        self.comparison = comparison;
        self.node.counters.differences_found.add(found.len() as u64);
        Ok(found)
    }
}

impl Node {
    /// Asks a peer about branches, each with what this node has of it.
    pub async fn exchange(
        &self,
        link: &Link,
        epoch: Epoch,
        branches: Vec<(Branch, Breadth)>,
    ) -> Result<Vec<(Branch, Breadth, Answer)>, Stopped> {
        let sums = move |store: &Store| -> Result<Vec<Compared>, StoreError> {
            let compared = |(branch, least)| Ok(Compared { branch, least, sum: store.tree(least)?.sum(branch)? });
            branches.into_iter().map(compared).collect()
        };
        let branches = self.read_in(epoch, sums).await.map_err(|error| Stopped::Here(own_failure(error)))?;
        let request = Compare { epoch, branches: branches.clone() };
        let call = |client: Arc<PeerServiceClient>, context| async move { client.compare(context, request).await };
        let answers = link.call(new_trace(), CALL_LIMIT, call).await.and_then(|answers| answers.map_err(as_failure));
        let answers = answers.map_err(Stopped::There)?;
        if answers.len() != branches.len() {
            tracing::error!(
                asked = branches.len(),
                answered = answers.len(),
                "a peer does not answer what it was asked"
            );
            return Err(Stopped::There(Failure::Refused(Refusal::Damaged)));
        }
        Ok(branches.into_iter().zip(answers).map(|(asked, answer)| (asked.branch, asked.least, answer)).collect())
    }

    /// What this node says of branches to a peer.
    ///
    /// # Errors
    /// [`PeerError`]; also if this node may still take writes that the asker is not sent, or a branch makes no sense.
    pub async fn answers_to(&self, request: Compare) -> Result<Vec<Answer>, PeerError> {
        let epoch = request.epoch;
        self.check_adopted(epoch)?;
        let mut branches = request.branches;
        branches.truncate(MOST_BRANCHES);
        if branches.iter().any(|compared| compared.branch.check().is_err()) {
            return Err(PeerError::Internal("there is no such branch of a hash tree".to_owned()));
        }
        let answers = move |store: &Store| {
            let answer = |compared: Compared| answer(&store.tree(compared.least)?, compared.branch, compared.sum);
            branches.into_iter().map(answer).collect::<Result<Vec<Answer>, StoreError>>()
        };
        self.read_in(epoch, answers).await.map_err(unreadable)
    }

    /// A peer's copies of the first of these keys, of those that it holds: also how many of the keys those were.
    ///
    /// # Errors
    /// Also if the peer cannot give the very first of them, whatever is behind it.
    pub async fn fetch(
        &self,
        link: &Link,
        epoch: Epoch,
        keys: Vec<ObjectKey>,
    ) -> Result<(Vec<(ObjectKey, Object)>, usize), Failure> {
        let asked = keys.len();
        let request = Fetch { epoch, keys, bytes: PAGE_BYTES };
        let call = |client: Arc<PeerServiceClient>, context| async move { client.fetch(context, request).await };
        let fetched = link.call(new_trace(), CALL_LIMIT, call).await?.map_err(as_failure)?;
        self.handoff.wait_for(fetched.objects.len()).await;
        let damaged = Failure::Refused(Refusal::Damaged);
        if xxh3_64(&fetched.objects) != fetched.checksum || fetched.looked_at == 0 {
            tracing::error!("what a peer sent of its copies does not match its checksum");
            return Err(damaged);
        }
        let objects = codec::decode(&fetched.objects, MAX_FRAME_BYTES, "copies of a peer").map_err(|_| damaged)?;
        Ok((objects, fetched.looked_at.min(asked)))
    }

    /// This node's copies of keys, for a peer.
    ///
    /// # Errors
    /// [`PeerError`]; also if this node may still take writes that the asker is not sent.
    pub async fn copies_for(&self, request: Fetch) -> Result<Fetched, PeerError> {
        let Fetch { epoch, keys, bytes } = request;
        self.check_adopted(epoch)?;
        let bytes = bytes.min(PAGE_BYTES);
        let copies = move |store: &Store| {
            let (mut objects, mut left, mut looked_at) = (Vec::new(), bytes, 0);
            for key in keys.into_iter().take(KEYS_AT_ONCE) {
                let held = match store.get(&key) {
                    Ok(Some(object)) if !fits_a_frame(&key, &object) => Err(StoreError::Refused(Refusal::TooLarge)),
                    held => held,
                };
                match held {
                    // What cannot be given is told by itself, behind what can.
                    Err(_) if looked_at > 0 => break,
                    Ok(Some(object)) if looked_at > 0 && size(&key, &object) > left => break,
                    held => {
                        let held = held?.map(|object| (key, object));
                        left = left.saturating_sub(held.as_ref().map_or(0, |(key, object)| size(key, object)));
                        objects.extend(held);
                    }
                }
                looked_at += 1;
            }
            Ok((objects, looked_at))
        };
        let (objects, looked_at) = self.read_in(epoch, copies).await.map_err(unreadable)?;
        let objects = codec::encode(&objects);
        Ok(Fetched { checksum: xxh3_64(&objects), objects: objects.into(), looked_at })
    }

    /// Whether what this node has counts for a copy that is asked for in that epoch (R16).
    pub fn check_adopted(&self, epoch: Epoch) -> Result<(), PeerError> {
        let ring = self.serving_ring().map_err(|not| PeerError::Refused(not.refusal))?;
        let adopted = self.store.progress().map_err(|_| PeerError::Refused(Refusal::NotAMember))?.adopted;
        let may_be_copied = ring.may_be_copied_in(epoch) && adopted >= epoch;
        if may_be_copied { Ok(()) } else { Err(PeerError::Refused(Refusal::OtherLayout)) }
    }
}

fn size(key: &ObjectKey, object: &Object) -> usize {
    key.key().len() + object.value_bytes()
}

/// What a peer is told if this node cannot read what it is asked for.
pub fn unreadable(error: StoreError) -> PeerError {
    match error {
        StoreError::Refused(refusal) => PeerError::Refused(refusal),
        StoreError::Unknown => PeerError::Unknown,
        StoreError::Write(_) | StoreError::Damaged(_) => {
            tracing::error!(%error, "cannot read what another node compares or copies");
            PeerError::Refused(Refusal::Damaged)
        }
    }
}
