//! Listens in on every connection and says what is said on it: hellos, calls and answers, decoded by the product's own
//! types. Both the witness, who checks what nodes tell each other, and the transcript live on this.

use std::collections::BTreeMap;

use bytes::{Buf as _, BytesMut};
use starling_core::codec;
use starling_proto::control::{ControlServiceRequest, ControlServiceResponse};
use starling_proto::data::{DataServiceRequest, DataServiceResponse};
use starling_proto::hello::{Class, Hello, Reply};
use starling_proto::peer::{PeerServiceRequest, PeerServiceResponse};
use tarpc::{ClientMessage, Response};

use crate::kernel::network::HostId;

/// Before a hello's body: the magic word, a version, the body's length.
const HELLO_HEADER: usize = 11;
const FRAME_HEADER: usize = 4;
const MOST: usize = 64 << 20;

/// What somebody says on a connection.
#[derive(Debug)]
pub struct Heard {
    pub connection: u64,
    pub from: HostId,
    pub to: HostId,
    /// Which call of the connection it belongs to; none for a hello.
    pub call: Option<u64>,
    pub words: Words,
}

#[derive(Debug)]
pub enum Words {
    Hello(Hello),
    Welcome(Reply),
    PeerAsks(PeerServiceRequest),
    PeerAnswers(PeerServiceResponse),
    ClientAsks(DataServiceRequest),
    NodeAnswers(DataServiceResponse),
    ControlAsks(ControlServiceRequest),
    ControlAnswers,
    /// The caller does not wait any more.
    Cancelled,
    /// The server had no room for the call.
    Refused(String),
}

/// All connections that stand.
#[derive(Default)]
pub struct Wiretap(BTreeMap<u64, Tapped>);

struct Tapped {
    dialler: HostId,
    acceptor: HostId,
    class: Option<Class>,
    /// From the dialler, and from the acceptor.
    ways: [Way; 2],
}

#[derive(Default)]
struct Way {
    heard: BytesMut,
    greeted: bool,
}

impl Way {
    /// The next whole message, if there is one.
    fn next(&mut self) -> Option<BytesMut> {
        let (header, length) = if self.greeted {
            (FRAME_HEADER, u32::from_be_bytes(self.heard.get(..4)?.try_into().ok()?) as usize)
        } else {
            (HELLO_HEADER, usize::from(u16::from_be_bytes(self.heard.get(9..11)?.try_into().ok()?)))
        };
        if self.heard.len() < header + length {
            return None;
        }
        self.heard.advance(header);
        Some(self.heard.split_to(length))
    }
}

impl Wiretap {
    pub fn opened(&mut self, connection: u64, dialler: HostId, acceptor: HostId) {
        let tapped = Tapped { dialler, acceptor, class: None, ways: [Way::default(), Way::default()] };
        self.0.insert(connection, tapped);
    }

    /// Whether an answer on it tells of the process that gives it, such as how much memory it takes: of the real world.
    pub fn is_of_this_world(&self, connection: u64, from_dialler: bool) -> bool {
        let class = self.0.get(&connection).and_then(|tapped| tapped.class);
        class == Some(Class::Control) && !from_dialler
    }

    /// Takes in what was written into a connection, and returns what it completes.
    pub fn hear(&mut self, connection: u64, from_dialler: bool, bytes: &[u8]) -> Vec<Heard> {
        let Some(tapped) = self.0.get_mut(&connection) else { return Vec::new() };
        let way = usize::from(!from_dialler);
        tapped.ways[way].heard.extend_from_slice(bytes);
        let mut all = Vec::new();
        while let Some(body) = tapped.ways[way].next() {
            let greeted = std::mem::replace(&mut tapped.ways[way].greeted, true);
            let (call, words) =
                if greeted { tapped.call(from_dialler, &body) } else { tapped.greeting(from_dialler, &body) };
            let (from, to) = tapped.direction(from_dialler);
            all.push(Heard { connection, from, to, call, words });
        }
        all
    }
}

impl Tapped {
    fn direction(&self, from_dialler: bool) -> (HostId, HostId) {
        if from_dialler { (self.dialler, self.acceptor) } else { (self.acceptor, self.dialler) }
    }

    fn greeting(&mut self, from_dialler: bool, body: &[u8]) -> (Option<u64>, Words) {
        if !from_dialler {
            return (None, Words::Welcome(decode(body)));
        }
        let hello: Hello = decode(body);
        self.class = Some(hello.class);
        (None, Words::Hello(hello))
    }

    fn call(&self, from_dialler: bool, body: &[u8]) -> (Option<u64>, Words) {
        match (self.class.expect("a hello comes first"), from_dialler) {
            (Class::Peer | Class::Bulk, true) => asked(body, Words::PeerAsks),
            (Class::Peer | Class::Bulk, false) => answered(body, Words::PeerAnswers),
            (Class::Data, true) => asked(body, Words::ClientAsks),
            (Class::Data, false) => answered(body, Words::NodeAnswers),
            (Class::Control, true) => asked(body, Words::ControlAsks),
            (Class::Control, false) => answered(body, |_: ControlServiceResponse| Words::ControlAnswers),
        }
    }
}

fn asked<T: serde::de::DeserializeOwned>(body: &[u8], as_words: impl FnOnce(T) -> Words) -> (Option<u64>, Words) {
    match decode::<ClientMessage<T>>(body) {
        ClientMessage::Request(request) => (Some(request.id), as_words(request.message)),
        ClientMessage::Cancel { request_id, .. } => (Some(request_id), Words::Cancelled),
        _ => (None, Words::Cancelled),
    }
}

fn answered<T: serde::de::DeserializeOwned>(body: &[u8], as_words: impl FnOnce(T) -> Words) -> (Option<u64>, Words) {
    let response: Response<T> = decode(body);
    let words = match response.message {
        Ok(message) => as_words(message),
        Err(error) => Words::Refused(error.to_string()),
    };
    (Some(response.request_id), words)
}

fn decode<T: serde::de::DeserializeOwned>(body: &[u8]) -> T {
    codec::decode(body, MOST, "what is said between nodes").expect("nodes speak the protocol")
}
