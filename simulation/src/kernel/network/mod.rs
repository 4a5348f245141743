//! A network of hosts: connections as TCP gives them, datagrams as UDP does.
//!
//! A connection is reliable and in order while it stands, whatever happens below: what the wire loses is sent again, and
//! comes later; what meets a cut waits at the cut and goes on when it is mended, as TCP's retransmissions would. A
//! datagram that is lost, or meets a cut, is gone. A process that ends leaves its machine, which resets its connections; a
//! machine without power is silent, and resets, once it is up again, what it no longer knows.
//!
//! Left out: bandwidth, connections that break of themselves after a quarter of an hour, and datagrams that come twice:
//! only chitchat could copy its envelopes.

mod connection;
mod datagrams;
mod state;
mod stream;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chitchat::ChitchatEnvelope;

use super::entropy::Stream;
use super::time::Moment;

pub use datagrams::Gossiping;
use state::State;
pub use stream::Plug;

#[cfg(test)]
mod tests;

/// A machine, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub usize);

impl HostId {
    pub fn address(self) -> SocketAddr {
        let last = u8::try_from(self.0 + 1).expect("a simulation has few hosts");
        SocketAddr::from(([127, 0, 0, last], 7400))
    }

    /// Whose address that is.
    fn at(address: &str) -> Option<HostId> {
        let last = address.strip_prefix("127.0.0.")?.strip_suffix(":7400")?;
        last.parse::<usize>().ok()?.checked_sub(1).map(HostId)
    }
}

/// One direction between two hosts.
pub type Wire = (HostId, HostId);

/// How a wire is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weather {
    /// What every message takes.
    pub delay: Duration,
    /// What it takes more, on the average; exponentially distributed.
    pub jitter: Duration,
    /// The share of messages that are lost.
    pub loss: f64,
}

impl Weather {
    /// A network of one rack.
    pub const FAIR: Weather =
        Weather { delay: Duration::from_micros(300), jitter: Duration::from_micros(400), loss: 0.0 };

    /// As bad as both in every way.
    pub fn and(self, other: Weather) -> Weather {
        Weather {
            delay: self.delay.max(other.delay),
            jitter: self.jitter.max(other.jitter),
            loss: self.loss.max(other.loss),
        }
    }
}

/// Somebody who looks on.
pub trait Watcher: Send {
    fn opened(&mut self, _at: Moment, _connection: u64, _from: HostId, _to: HostId) {}
    /// Bytes are written into a connection.
    fn sent(&mut self, _at: Moment, _connection: u64, _wire: Wire, _from_dialler: bool, _bytes: &[u8]) {}
    fn datagram(&mut self, _at: Moment, _wire: Wire, _envelope: &ChitchatEnvelope, _is_lost: bool) {}
    /// The wire did something to what was sent.
    fn incident(&mut self, _at: Moment, _wire: Wire, _what: &'static str) {}
}

/// The network. Clones are the same network.
#[derive(Clone)]
pub struct Network(Arc<Mutex<State>>);

impl Network {
    pub fn new(hosts: usize, chance: Stream, watcher: Box<dyn Watcher>) -> Network {
        Network(Arc::new(Mutex::new(State::new(hosts, chance, watcher))))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How wires are where nothing else was said.
    pub fn set_weather(&self, weather: Weather) {
        self.lock().weather = weather;
    }

    /// These wires are different.
    pub fn set_special_weather(&self, special: BTreeMap<Wire, Weather>) {
        self.lock().special = special;
    }

    /// Nothing passes that way any more.
    pub fn cut(&self, wire: Wire) {
        *self.lock().cuts.entry(wire).or_insert(0) += 1;
    }

    /// Takes one cut back; when it was the last, what waited goes on.
    pub fn mend(&self, wire: Wire) {
        self.lock().mend(wire);
    }

    /// Breaks every connection between two hosts, as a middlebox that lost its table would.
    pub fn reset_between(&self, a: HostId, b: HostId) {
        self.lock().reset_between(a, b);
    }

    /// A process starts on a machine, which has power again if it had none. What it does goes through the plug.
    pub fn plug_in(&self, host: HostId) -> Plug {
        let life = self.lock().start_process(host);
        Plug { network: self.clone(), host, life }
    }

    /// The process on a machine ends; its machine says so to everybody.
    pub fn end_process(&self, host: HostId) {
        self.lock().end_process(host, true);
    }

    /// The machine loses its power, silently.
    pub fn power_off(&self, host: HostId) {
        self.lock().end_process(host, false);
    }

    /// Delivers what is due.
    pub fn deliver(&self, now: Moment) {
        let mut state = self.lock();
        state.deliver(now);
        let woken = std::mem::take(&mut state.woken);
        drop(state);
        woken.into_iter().for_each(std::task::Waker::wake);
    }
}
