//! Looks on at the network: everything that is said goes to the witness, and in words to the transcript.

use std::sync::{Arc, Mutex, PoisonError};

use starling_core::object::Object;
use starling_core::report::Role;
use starling_proto::data::{DataServiceRequest, DataServiceResponse, Put};
use starling_proto::hello::Hello;
use starling_proto::peer::{PeerServiceRequest, PeerServiceResponse};

use chitchat::ChitchatEnvelope;

use crate::kernel::network::{HostId, Watcher, Wire};
use crate::kernel::time::Moment;
use crate::names::{self, Names};
use crate::transcript::Transcript;
use crate::wiretap::{Heard, Wiretap, Words};
use crate::witness::Witness;

pub struct Observer {
    tap: Wiretap,
    names: Arc<Names>,
    witness: Arc<Mutex<Witness>>,
    transcript: Transcript,
}

impl Observer {
    pub fn new(names: Arc<Names>, witness: Arc<Mutex<Witness>>, transcript: Transcript) -> Observer {
        Observer { tap: Wiretap::default(), names, witness, transcript }
    }

    fn tell(&self, heard: &Heard) {
        let call = heard.call.map(|call| format!("  (call {}.{call})", heard.connection)).unwrap_or_default();
        if let Some(words) = self.words(&heard.words) {
            self.transcript.tell(|| self.way((heard.from, heard.to)), || format!("{words}{call}"));
        }
    }

    fn way(&self, (from, to): Wire) -> String {
        format!("{} → {}", self.names.host(from), self.names.host(to))
    }

    /// None of what only fills the page.
    fn words(&self, words: &Words) -> Option<String> {
        match words {
            Words::Hello(hello) => Some(self.hello(hello)),
            Words::Welcome(Ok(_)) => Some("welcome".to_owned()),
            Words::Welcome(Err(refusal)) => Some(format!("not welcome: {refusal}")),
            Words::PeerAsks(request) => self.peer_asks(request),
            Words::PeerAnswers(response) => self.peer_answers(response),
            Words::ClientAsks(request) => client_asks(request),
            Words::NodeAnswers(response) => self.node_answers(response),
            Words::ControlAsks(request) => Some(format!("{request:?}")),
            Words::ControlAnswers => None,
            Words::Cancelled => Some("does not wait any more".to_owned()),
            Words::Refused(reason) => Some(format!("refused: {reason}")),
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
            PeerServiceRequest::Store { request } => {
                let role = match request.role {
                    Role::Primary => String::new(),
                    Role::Fallback { stands_in_for } => format!(", in place of {}", self.names.node(stands_in_for)),
                };
                Some(format!("store {} = {}{role}", names::key(&request.key), self.names.object(&request.object)))
            }
            PeerServiceRequest::Forward { request } => Some(format!("forwards: {}", put(request))),
            PeerServiceRequest::Offer { request } => {
                let keys: Vec<String> = request
                    .hints
                    .iter()
                    .map(|(key, clock)| format!("{} {}", names::key(key), self.names.clock(clock)))
                    .collect();
                Some(format!("offers {}", keys.join(", ")))
            }
            PeerServiceRequest::List { .. } | PeerServiceRequest::Buckets { .. } => Some("list".to_owned()),
            PeerServiceRequest::Clock { .. } => None,
        }
    }

    fn peer_answers(&self, response: &PeerServiceResponse) -> Option<String> {
        match response {
            PeerServiceResponse::Read(Ok(reply)) => Some(format!("has {}", self.held(reply.object.as_ref()))),
            PeerServiceResponse::Read(Err(error)) => Some(format!("cannot read: {error}")),
            PeerServiceResponse::Store(Ok(())) => Some("stored".to_owned()),
            PeerServiceResponse::Store(Err(error)) => Some(format!("did not store: {error}")),
            PeerServiceResponse::Forward(answer) => Some(outcome(answer.as_ref().map(|_| "written, as asked"))),
            PeerServiceResponse::Offer(Ok(reply)) => Some(format!("wants {:?}", reply.wanted)),
            PeerServiceResponse::Offer(Err(error)) => Some(format!("takes no offers: {error}")),
            PeerServiceResponse::List(_) | PeerServiceResponse::Buckets(_) => Some("listed".to_owned()),
            PeerServiceResponse::Clock(_) => None,
        }
    }

    fn held(&self, object: Option<&Object>) -> String {
        object.map_or_else(|| "nothing".to_owned(), |object| self.names.object(object))
    }

    fn node_answers(&self, response: &DataServiceResponse) -> Option<String> {
        match response {
            DataServiceResponse::Get(Ok(got)) => {
                let values: Vec<_> = got.siblings.iter().map(|s| String::from_utf8_lossy(&s.value)).collect();
                Some(format!("found [{}] {}", values.join(", "), self.names.clock(&got.clock)))
            }
            DataServiceResponse::Put(Ok(written)) => Some(format!(
                "acknowledged, {} live siblings{}",
                written.siblings,
                if written.repeated { ", as before" } else { "" }
            )),
            DataServiceResponse::Get(Err(error)) | DataServiceResponse::Put(Err(error)) => Some(error.to_string()),
            DataServiceResponse::GetOwn(_)
            | DataServiceResponse::Keys(_)
            | DataServiceResponse::Buckets(_)
            | DataServiceResponse::Locate(_)
            | DataServiceResponse::Layout(_) => None,
        }
    }
}

fn client_asks(request: &DataServiceRequest) -> Option<String> {
    match request {
        DataServiceRequest::Get { request } => {
            Some(format!("get {} r={} pr={}", names::key(&request.key), request.r, request.pr))
        }
        DataServiceRequest::Put { request } => Some(put(request)),
        DataServiceRequest::GetOwn { .. }
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

fn outcome<T: std::fmt::Display, E: std::fmt::Display>(answer: Result<T, E>) -> String {
    answer.map_or_else(|error| error.to_string(), |done| done.to_string())
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
        if !what.starts_with("a datagram") {
            self.transcript.tell(|| self.way(wire), || format!("({what})"));
        }
    }
}
