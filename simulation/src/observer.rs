//! Looks on at the network: everything that is said goes to the witness, and in words to the transcript.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use starling_core::name::ObjectKey;
use starling_core::object::Object;
use starling_core::report::Role;
use starling_proto::control::ControlServiceRequest;
use starling_proto::data::{DataServiceRequest, DataServiceResponse, GotLasting, Put};
use starling_proto::hello::{Hello, NotWelcome};
use starling_proto::peer::{PeerServiceRequest, PeerServiceResponse, Reap, StoreRead};

use chitchat::ChitchatEnvelope;

use crate::kernel::network::{HostId, Watcher, Wire};
use crate::kernel::time::{self, Moment};
use crate::names::{self, Names};
use crate::transcript::Transcript;
use crate::wiretap::{Heard, Wiretap, Words};
use crate::witness::Witness;

/// What a wire does to what is sent is told once in so long.
const OFTEN: Duration = Duration::from_secs(1);

pub struct Observer {
    tap: Wiretap,
    names: Arc<Names>,
    witness: Arc<Mutex<Witness>>,
    transcript: Transcript,
    /// What calls are about, by connection and number: answers do not say it.
    calls: BTreeMap<(u64, u64), Subject>,
    incidents: BTreeMap<(Wire, &'static str), Moment>,
}

/// What a call is about: a key, or several.
#[derive(Clone, Default)]
struct Subject(Vec<String>);

impl Observer {
    pub fn new(names: Arc<Names>, witness: Arc<Mutex<Witness>>, transcript: Transcript) -> Observer {
        let (calls, incidents) = (BTreeMap::new(), BTreeMap::new());
        Observer { tap: Wiretap::default(), names, witness, transcript, calls, incidents }
    }

    fn tell(&mut self, heard: &Heard) {
        if !self.transcript.is_printed() {
            return;
        }
        let id = heard.call.map(|call| (heard.connection, call));
        let call = id.map(|(connection, call)| format!("  (call {connection}.{call})")).unwrap_or_default();
        let subject = id.and_then(|id| self.subject(id, &heard.words)).unwrap_or_default();
        let way = || self.way((heard.from, heard.to));
        if let Some(words) = self.words(&heard.words, &subject) {
            self.transcript.tell(way, || format!("{words}{call}"));
        } else if let Some(words) = self.small_talk(&heard.words) {
            self.transcript.mention(way, || format!("{words}{call}"));
        }
    }

    /// Remembers what a call is about until it is answered.
    fn subject(&mut self, id: (u64, u64), words: &Words) -> Option<Subject> {
        let asked = match words {
            Words::PeerAsks(PeerServiceRequest::Read { request }) => vec![names::key(&request.key)],
            Words::PeerAsks(PeerServiceRequest::Store { request }) => vec![names::key(&request.key)],
            Words::PeerAsks(PeerServiceRequest::StoreRead { request }) => vec![names::key(&request.store.key)],
            Words::PeerAsks(PeerServiceRequest::Forward { request }) => vec![names::key(&request.key)],
            Words::PeerAsks(PeerServiceRequest::Reap { request }) => match request {
                Reap::Ask(round) => round.tombstones.keys().map(names::key).collect(),
                Reap::Mark { keys, .. } | Reap::End { keys, .. } => keys.iter().map(names::key).collect(),
            },
            Words::PeerAsks(PeerServiceRequest::Offer { request }) => {
                request.hints.iter().map(|(key, _)| names::key(key)).collect()
            }
            Words::PeerAsks(PeerServiceRequest::Fetch { request }) => request.keys.iter().map(names::key).collect(),
            Words::ClientAsks(DataServiceRequest::Get { request } | DataServiceRequest::GetLasting { request }) => {
                vec![names::key(&request.key)]
            }
            Words::ClientAsks(DataServiceRequest::Put { request } | DataServiceRequest::PutForGood { request }) => {
                vec![names::key(&request.key)]
            }
            Words::ClientAsks(DataServiceRequest::PutFor { request }) => vec![names::key(&request.put.key)],
            // It may be answered yet.
            Words::Cancelled => return self.calls.get(&id).cloned(),
            _ => return self.calls.remove(&id),
        };
        self.calls.insert(id, Subject(asked.clone()));
        Some(Subject(asked))
    }

    fn way(&self, (from, to): Wire) -> String {
        format!("{} → {}", self.names.host(from), self.names.host(to))
    }

    /// What matters to a key.
    fn words(&self, words: &Words, subject: &Subject) -> Option<String> {
        match words {
            Words::PeerAsks(request) => self.peer_asks(request),
            Words::PeerAnswers(response) => self.peer_answers(response, subject),
            Words::ClientAsks(request) => client_asks(request),
            Words::NodeAnswers(response) => self.node_answers(response, subject),
            Words::Cancelled if !subject.0.is_empty() => Some(format!("does not wait any more for {subject}")),
            Words::Refused(reason) => Some(format!("refused, {subject}: {reason}")),
            Words::Welcome(Err(NotWelcome::OtherCluster(None))) => None,
            Words::Welcome(Err(refusal)) => Some(format!("not welcome: {refusal}")),
            Words::Hello(_) | Words::Welcome(Ok(_)) | Words::ControlAsks(_) | Words::ControlAnswers => None,
            Words::Cancelled => None,
        }
    }

    /// What only fills the page.
    fn small_talk(&self, words: &Words) -> Option<String> {
        match words {
            Words::Hello(hello) => Some(self.hello(hello)),
            Words::Welcome(Ok(_)) => Some("welcome".to_owned()),
            Words::Welcome(Err(refusal)) => Some(format!("not welcome: {refusal}")),
            Words::ControlAsks(request) => Some(control(request)),
            Words::Cancelled => Some("does not wait any more".to_owned()),
            _ => None,
        }
    }

    fn hello(&self, hello: &Hello) -> String {
        match &hello.from {
            Some(from) => format!("hello, {:?}, in run {} of my directory", hello.class, from.run.counter),
            None => format!("hello, {:?}", hello.class),
        }
    }

    fn peer_asks(&self, request: &PeerServiceRequest) -> Option<String> {
        match request {
            PeerServiceRequest::Read { request } => Some(format!("read {}", names::key(&request.key))),
            PeerServiceRequest::Store { request }
            | PeerServiceRequest::StoreRead { request: StoreRead { store: request, .. } } => {
                let role = match request.role {
                    Role::Primary => String::new(),
                    Role::Fallback { stands_in_for } => format!(", in place of {}", self.names.node(stands_in_for)),
                };
                Some(format!("store {} = {}{role}", names::key(&request.key), self.names.object(&request.object)))
            }
            PeerServiceRequest::Reap { request } => Some(reaping(request)),
            PeerServiceRequest::Forward { request } => Some(format!("forwards: {}", put(request))),
            PeerServiceRequest::Offer { request } => {
                let keys: Vec<String> = request
                    .hints
                    .iter()
                    .map(|(key, clock)| format!("{} {}", names::key(key), self.names.clock(clock)))
                    .collect();
                Some(format!("offers {}", keys.join(", ")))
            }
            PeerServiceRequest::Fetch { request } => {
                let keys: Vec<String> = request.keys.iter().map(names::key).collect();
                Some(format!("fetches {}", keys.join(", ")))
            }
            PeerServiceRequest::List { .. }
            | PeerServiceRequest::Buckets { .. }
            | PeerServiceRequest::Clock { .. }
            | PeerServiceRequest::Prepare { .. }
            | PeerServiceRequest::Accept { .. }
            | PeerServiceRequest::Progress { .. }
            | PeerServiceRequest::Pull { .. }
            | PeerServiceRequest::Compare { .. }
            | PeerServiceRequest::RoundsOver { .. } => None,
        }
    }

    fn peer_answers(&self, response: &PeerServiceResponse, subject: &Subject) -> Option<String> {
        match response {
            PeerServiceResponse::Read(Ok(reply)) => {
                Some(format!("has {subject} = {}", self.held(reply.object.as_ref())))
            }
            PeerServiceResponse::Read(Err(error)) => Some(format!("cannot read {subject}: {error}")),
            PeerServiceResponse::Store(Ok(())) | PeerServiceResponse::StoreRead(Ok(())) => {
                Some(format!("stored {subject}"))
            }
            PeerServiceResponse::Store(Err(error)) | PeerServiceResponse::StoreRead(Err(error)) => {
                Some(format!("did not store {subject}: {error}"))
            }
            PeerServiceResponse::Reap(Ok(keys)) => {
                let keys: Vec<String> = keys.iter().map(names::key).collect();
                Some(format!("does so with [{}]", keys.join(", ")))
            }
            PeerServiceResponse::Reap(Err(error)) => Some(format!("does not, of {subject}: {error}")),
            PeerServiceResponse::Forward(Ok(_)) => Some(format!("wrote {subject}, as asked")),
            PeerServiceResponse::Forward(Err(error)) => Some(format!("{subject}: {error}")),
            PeerServiceResponse::Offer(Ok(reply)) => Some(wanted(&reply.wanted, subject)),
            PeerServiceResponse::Offer(Err(error)) => Some(format!("takes no offers: {error}")),
            PeerServiceResponse::Fetch(Ok(_)) => Some(format!("gives what it has of {subject}")),
            PeerServiceResponse::Fetch(Err(error)) => Some(format!("does not give {subject}: {error}")),
            PeerServiceResponse::List(_)
            | PeerServiceResponse::Buckets(_)
            | PeerServiceResponse::Clock(_)
            | PeerServiceResponse::Prepare(_)
            | PeerServiceResponse::Accept(_)
            | PeerServiceResponse::Progress(_)
            | PeerServiceResponse::Pull(_)
            | PeerServiceResponse::Compare(_)
            | PeerServiceResponse::RoundsOver(_) => None,
        }
    }

    fn held(&self, object: Option<&Object>) -> String {
        object.map_or_else(|| "nothing".to_owned(), |object| self.names.object(object))
    }

    fn node_answers(&self, response: &DataServiceResponse, subject: &Subject) -> Option<String> {
        match response {
            DataServiceResponse::Get(Ok(got)) | DataServiceResponse::GetLasting(Ok(GotLasting { got, .. })) => {
                let values: Vec<_> = got.siblings.iter().map(|s| String::from_utf8_lossy(&s.value)).collect();
                Some(format!("found {subject} = [{}] {}", values.join(", "), self.names.clock(&got.clock)))
            }
            DataServiceResponse::Put(Ok(written))
            | DataServiceResponse::PutFor(Ok(written))
            | DataServiceResponse::PutForGood(Ok(written)) => Some(format!(
                "acknowledged {subject}, {} live{}",
                written.siblings,
                if written.repeated { ", as before" } else { "" }
            )),
            DataServiceResponse::Get(Err(error))
            | DataServiceResponse::GetLasting(Err(error))
            | DataServiceResponse::Put(Err(error))
            | DataServiceResponse::PutFor(Err(error))
            | DataServiceResponse::PutForGood(Err(error)) => Some(format!("{subject}: {error}")),
            DataServiceResponse::GetOwn(_)
            | DataServiceResponse::GetOwnLasting(_)
            | DataServiceResponse::Keys(_)
            | DataServiceResponse::Buckets(_)
            | DataServiceResponse::Locate(_)
            | DataServiceResponse::Layout(_) => None,
        }
    }
}

/// What the leader of a round wants.
fn reaping(request: &Reap) -> String {
    let list = |keys: &mut dyn Iterator<Item = &ObjectKey>| keys.map(names::key).collect::<Vec<String>>().join(", ");
    match request {
        Reap::Ask(round) => format!(
            "asks whether to forget that these were deleted (round {} of partition {}): {}",
            round.id.number,
            round.id.partition,
            list(&mut round.tombstones.keys())
        ),
        Reap::Mark { id, keys } => format!("to be marked (round {}): {}", id.number, list(&mut keys.iter())),
        Reap::End { id, keys } => format!("round {} is over, forgets: {}", id.number, list(&mut keys.iter())),
    }
}

/// Of what was offered.
fn wanted(wanted: &[bool], subject: &Subject) -> String {
    let keys = subject.0.iter().zip(wanted).filter(|(_, wanted)| **wanted).map(|(key, _)| key.clone());
    match Subject(keys.collect()) {
        Subject(none) if none.is_empty() => format!("has {subject} already"),
        some => format!("wants {some}"),
    }
}

fn control(request: &ControlServiceRequest) -> String {
    let words = format!("{request:?}");
    words.split([' ', '{']).next().unwrap_or_default().to_lowercase()
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

fn client_asks(request: &DataServiceRequest) -> Option<String> {
    match request {
        DataServiceRequest::Get { request } | DataServiceRequest::GetLasting { request } => {
            let waits = if request.wait_for_repair { ", waiting for its repair" } else { "" };
            Some(format!("get {} r={} pr={}{waits}", names::key(&request.key), request.r, request.pr))
        }
        DataServiceRequest::Put { request } => Some(put(request)),
        DataServiceRequest::PutFor { request } => Some(format!("{}, for {:?}", put(&request.put), request.lifetime)),
        DataServiceRequest::PutForGood { request } => Some(format!("{}, for good", put(request))),
        DataServiceRequest::GetOwn { .. }
        | DataServiceRequest::GetOwnLasting { .. }
        | DataServiceRequest::Keys { .. }
        | DataServiceRequest::Buckets { .. }
        | DataServiceRequest::Locate { .. }
        | DataServiceRequest::Layout { .. } => None,
    }
}

fn put(put: &Put) -> String {
    let context = if put.context.is_some() { "with a context" } else { "without a context" };
    let (key, value) = (names::key(&put.key), names::value(&put.value));
    format!("put {key} = {value}, {context}, w={} pw={}, request {}", put.w, put.pw, names::request(put.request))
}

impl Watcher for Observer {
    fn opened(&mut self, _: Moment, connection: u64, from: HostId, to: HostId) {
        self.tap.opened(connection, from, to);
    }

    fn sent(&mut self, _: Moment, connection: u64, _: Wire, from_dialler: bool, bytes: &[u8]) {
        if !self.tap.is_of_this_world(connection, from_dialler) {
            self.transcript.mark(bytes);
        }
        for heard in self.tap.hear(connection, from_dialler, bytes) {
            self.tell(&heard);
            self.witness.lock().unwrap_or_else(PoisonError::into_inner).heard(&heard);
        }
    }

    fn datagram(&mut self, _: Moment, _: Wire, envelope: &ChitchatEnvelope, is_lost: bool) {
        self.transcript.mark(format!("{is_lost} {envelope:?}").as_bytes());
    }

    fn incident(&mut self, _: Moment, wire: Wire, what: &'static str) {
        let before = self.incidents.get(&(wire, what)).copied();
        if what.starts_with("a datagram") || before.is_some_and(|before| time::now() < before + OFTEN) {
            return;
        }
        self.incidents.insert((wire, what), time::now());
        self.transcript.tell_of_no_key(|| self.way(wire), || format!("({what})"));
    }
}
