//! The network's state, and what delivery does to it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::net::SocketAddr;
use std::task::Waker;
use std::time::Duration;

use chitchat::ChitchatEnvelope;
use rand::RngExt as _;

use super::connection::{Connection, Dialling, End, Piece};
use super::{HostId, Watcher, Weather, Wire};
use crate::kernel::entropy::Stream;
use crate::kernel::time::{self, Moment};

/// Connections that nobody has accepted yet.
const MOST_WAITING: usize = 128;
/// Datagrams that nobody has read yet.
const MOST_DATAGRAMS: usize = 256;
/// What TCP waits before it sends again (RFC 6298 allows a second; Linux begins with less).
const RETRANSMISSION: Duration = Duration::from_millis(200);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    Off,
    On,
}

pub struct Machine {
    pub power: Power,
    /// Which process it is: the first, the second … None if there is none.
    pub life: Option<u64>,
    pub lives: u64,
    pub listening: bool,
    pub waiting: VecDeque<u64>,
    pub acceptor: Option<Waker>,
    pub bound: bool,
    pub datagrams: VecDeque<(SocketAddr, ChitchatEnvelope)>,
    pub receiver: Option<Waker>,
}

/// Something that arrives.
enum Arrival {
    Syn(u64),
    SynAck(u64),
    Refusal(u64),
    /// The next piece on its way to this end.
    Piece(u64, End),
    Reset(u64, End),
    Datagram(Box<ChitchatEnvelope>),
}

struct Due {
    at: Moment,
    order: u64,
    wire: Wire,
    what: Arrival,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        self.order == other.order
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Due) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

pub struct State {
    pub weather: Weather,
    pub special: BTreeMap<Wire, Weather>,
    pub cuts: BTreeMap<Wire, usize>,
    pub machines: Vec<Machine>,
    pub connections: BTreeMap<u64, Connection>,
    /// To be woken, or dropped, once the lock is free.
    pub woken: Vec<Waker>,
    pub watcher: Box<dyn Watcher>,
    chance: Stream,
    due: BinaryHeap<Reverse<Due>>,
    /// What met a cut, in the order of arrival.
    held: BTreeMap<Wire, Vec<Arrival>>,
    opened: u64,
    order: u64,
}

impl State {
    pub fn new(hosts: usize, chance: Stream, watcher: Box<dyn Watcher>) -> State {
        let machine = |_| Machine {
            power: Power::On,
            life: None,
            lives: 0,
            listening: false,
            waiting: VecDeque::new(),
            acceptor: None,
            bound: false,
            datagrams: VecDeque::new(),
            receiver: None,
        };
        State {
            weather: Weather::FAIR,
            special: BTreeMap::new(),
            cuts: BTreeMap::new(),
            machines: (0..hosts).map(machine).collect(),
            connections: BTreeMap::new(),
            woken: Vec::new(),
            watcher,
            chance,
            due: BinaryHeap::new(),
            held: BTreeMap::new(),
            opened: 0,
            order: 0,
        }
    }

    pub fn machine(&mut self, host: HostId) -> &mut Machine {
        &mut self.machines[host.0]
    }

    pub fn is_alive(&self, host: HostId, life: u64) -> bool {
        self.machines[host.0].life == Some(life)
    }

    pub fn start_process(&mut self, host: HostId) -> u64 {
        let machine = self.machine(host);
        machine.power = Power::On;
        machine.lives += 1;
        machine.life = Some(machine.lives);
        machine.lives
    }

    pub fn end_process(&mut self, host: HostId, says_so: bool) {
        let machine = self.machine(host);
        machine.power = if says_so { Power::On } else { Power::Off };
        machine.life = None;
        machine.listening = false;
        machine.bound = false;
        machine.waiting.clear();
        machine.datagrams.clear();
        let sleepers = machine.acceptor.take().into_iter().chain(machine.receiver.take());
        self.woken.extend(sleepers);
        let ends: Vec<(u64, End)> = self
            .connections
            .iter()
            .flat_map(|(id, connection)| [End::Dialler, End::Acceptor].map(|end| (*id, end, connection.host(end))))
            .filter(|(_, _, at)| *at == host)
            .map(|(id, end, _)| (id, end))
            .collect();
        for (id, end) in ends {
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            let side = connection.side(end);
            if side.gone {
                continue;
            }
            side.gone = true;
            let sleepers = connection.sleepers(end);
            self.woken.extend(sleepers);
            if says_so {
                self.send_reset(id, end.other());
            }
        }
    }

    pub fn reset_between(&mut self, a: HostId, b: HostId) {
        let between = |connection: &Connection| {
            let hosts = (connection.host(End::Dialler), connection.host(End::Acceptor));
            hosts == (a, b) || hosts == (b, a)
        };
        let ids: Vec<u64> = self.connections.iter().filter(|(_, c)| between(c)).map(|(id, _)| *id).collect();
        for id in ids {
            self.break_end(id, End::Dialler);
            self.break_end(id, End::Acceptor);
        }
    }

    pub fn open(&mut self, from: HostId, to: HostId) -> u64 {
        self.opened += 1;
        let id = self.opened;
        self.connections.insert(id, Connection::new(from, to));
        self.watcher.opened(time::now(), id, from, to);
        self.post((from, to), Arrival::Syn(id));
        id
    }

    /// Writes a piece at `end`, for the other.
    pub fn send_piece(&mut self, id: u64, end: End, piece: Piece) {
        let to = end.other();
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let wire = connection.wire_to(to);
        let side = connection.side(to);
        if let Piece::Bytes(bytes) = &piece {
            side.ahead += bytes.len();
            self.watcher.sent(time::now(), id, wire, end == End::Dialler, bytes);
        }
        side.under_way.push_back(piece);
        let not_before = side.not_before;
        let at = self.arrival(wire).max(not_before);
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.side(to).not_before = at;
        }
        self.schedule(at, wire, Arrival::Piece(id, to));
    }

    pub fn send_datagram(&mut self, from: HostId, to: HostId, envelope: ChitchatEnvelope) {
        let wire = (from, to);
        let loss = self.weather_of(wire).loss;
        let is_lost = self.chance.random_bool(loss);
        self.watcher.datagram(time::now(), wire, &envelope, is_lost);
        if !is_lost {
            self.post(wire, Arrival::Datagram(Box::new(envelope)));
        }
    }

    /// An end is given up by its process.
    pub fn hang_up(&mut self, id: u64, end: End) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let side = connection.side(end);
        if !std::mem::replace(&mut side.gone, true) {
            let broken = side.reset;
            let sleepers = connection.sleepers(end);
            self.woken.extend(sleepers);
            if !broken {
                self.send_piece(id, end, Piece::End);
            }
        }
        self.forget(id);
    }

    pub fn mend(&mut self, wire: Wire) {
        let Some(cuts) = self.cuts.get_mut(&wire) else { return };
        *cuts -= 1;
        if *cuts > 0 {
            return;
        }
        self.cuts.remove(&wire);
        // What is sent again comes after the sender's next attempt, all together.
        let at = time::now() + RETRANSMISSION.mul_f64(self.chance.random_range(0.1..1.5));
        for arrival in self.held.remove(&wire).unwrap_or_default() {
            self.schedule(at, wire, arrival);
        }
    }

    pub fn deliver(&mut self, now: Moment) {
        while self.due.peek().is_some_and(|Reverse(due)| due.at <= now) {
            let Some(Reverse(due)) = self.due.pop() else { return };
            if self.cuts.contains_key(&due.wire) {
                self.meet_cut(due);
            } else {
                self.arrive(due.wire, due.what);
            }
        }
    }

    fn meet_cut(&mut self, due: Due) {
        if matches!(due.what, Arrival::Datagram(_)) {
            self.watcher.incident(time::now(), due.wire, "a datagram meets the cut");
        } else {
            self.watcher.incident(time::now(), due.wire, "held at the cut");
            self.held.entry(due.wire).or_default().push(due.what);
        }
    }

    fn arrive(&mut self, (from, to): Wire, what: Arrival) {
        match what {
            Arrival::Syn(id) => self.knock(id, (from, to)),
            Arrival::SynAck(id) => self.settle_dialling(id, Dialling::Stands),
            Arrival::Refusal(id) => self.settle_dialling(id, Dialling::Refused),
            Arrival::Piece(id, end) => self.take_piece(id, end),
            Arrival::Reset(id, end) => self.break_end(id, end),
            Arrival::Datagram(envelope) => {
                let machine = self.machine(to);
                if machine.bound && machine.datagrams.len() < MOST_DATAGRAMS {
                    machine.datagrams.push_back((from.address(), *envelope));
                    let receiver = machine.receiver.take();
                    self.woken.extend(receiver);
                }
            }
        }
    }

    fn knock(&mut self, id: u64, (from, to): Wire) {
        let machine = self.machine(to);
        if machine.power == Power::Off {
            return;
        }
        if machine.listening && machine.waiting.len() < MOST_WAITING {
            machine.waiting.push_back(id);
            let acceptor = machine.acceptor.take();
            self.woken.extend(acceptor);
            self.post((to, from), Arrival::SynAck(id));
        } else {
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.side(End::Acceptor).gone = true;
            }
            self.post((to, from), Arrival::Refusal(id));
        }
    }

    fn settle_dialling(&mut self, id: u64, dialling: Dialling) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.dialling = dialling;
            let dialler = connection.dialler.take();
            self.woken.extend(dialler);
        }
        self.forget(id);
    }

    fn take_piece(&mut self, id: u64, end: End) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let host = connection.host(end);
        let side = connection.side(end);
        let piece = side.under_way.pop_front();
        if side.gone {
            // A machine that is up does not know this connection any more, and says so.
            if piece.is_some_and(|piece| piece != Piece::End) && self.machines[host.0].power == Power::On {
                self.send_reset(id, end.other());
            }
            return self.forget(id);
        }
        match piece {
            Some(Piece::Bytes(bytes)) => side.inbox.push_back(bytes),
            Some(Piece::End) => side.finished = true,
            None => {}
        }
        let reader = side.reader.take();
        self.woken.extend(reader);
    }

    fn break_end(&mut self, id: u64, end: End) {
        if let Some(connection) = self.connections.get_mut(&id) {
            let side = connection.side(end);
            side.reset = true;
            side.inbox.clear();
            let sleepers = connection.sleepers(end);
            self.woken.extend(sleepers);
        }
        self.forget(id);
    }

    fn send_reset(&mut self, id: u64, to: End) {
        if let Some(connection) = self.connections.get(&id) {
            let wire = connection.wire_to(to);
            self.post(wire, Arrival::Reset(id, to));
        }
    }

    /// Connections that nobody has any end of need not be remembered, once nothing is under way.
    fn forget(&mut self, id: u64) {
        let over = self.connections.get_mut(&id).is_some_and(|connection| {
            let quiet = [End::Dialler, End::Acceptor].iter().all(|end| connection.side(*end).under_way.is_empty());
            connection.is_forgotten() && quiet
        });
        if over {
            self.connections.remove(&id);
        }
    }

    fn weather_of(&self, wire: Wire) -> Weather {
        self.special.get(&wire).copied().unwrap_or(self.weather)
    }

    fn post(&mut self, wire: Wire, what: Arrival) {
        let lossless = matches!(what, Arrival::Datagram(_));
        let at = if lossless { time::now() + self.travel(wire) } else { self.arrival(wire) };
        self.schedule(at, wire, what);
    }

    /// When what is sent now arrives, sent again as often as it is lost.
    fn arrival(&mut self, wire: Wire) -> Moment {
        let loss = self.weather_of(wire).loss;
        let mut again = Duration::ZERO;
        let mut wait = RETRANSMISSION;
        while wait < Duration::from_secs(4) && self.chance.random_bool(loss) {
            self.watcher.incident(time::now(), wire, "lost, and sent again");
            again += wait;
            wait *= 2;
        }
        time::now() + again + self.travel(wire)
    }

    fn travel(&mut self, wire: Wire) -> Duration {
        let weather = self.weather_of(wire);
        let exponential = -self.chance.random_range(f64::EPSILON..1.0).ln();
        weather.delay + weather.jitter.mul_f64(exponential)
    }

    fn schedule(&mut self, at: Moment, wire: Wire, what: Arrival) {
        self.order += 1;
        self.due.push(Reverse(Due { at, order: self.order, wire, what }));
    }
}
