//! What the network knows of a connection.

use std::collections::VecDeque;
use std::task::Waker;

use bytes::Bytes;

use super::{HostId, Wire};
use crate::kernel::time::Moment;

/// Bytes that a sender may be ahead of its reader.
pub const WINDOW: usize = 256 << 10;

/// One of a connection's two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    Dialler,
    Acceptor,
}

impl End {
    pub fn other(self) -> End {
        match self {
            End::Dialler => End::Acceptor,
            End::Acceptor => End::Dialler,
        }
    }

    fn index(self) -> usize {
        match self {
            End::Dialler => 0,
            End::Acceptor => 1,
        }
    }
}

/// What travels from one end to the other, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Bytes(Bytes),
    End,
}

/// How far the dialler is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialling {
    Waiting,
    Refused,
    Stands,
}

/// What one end has, and what is under way to it.
#[derive(Debug, Default)]
pub struct Side {
    /// Received and not read.
    pub inbox: VecDeque<Bytes>,
    /// On its way to this end.
    pub under_way: VecDeque<Piece>,
    /// Nothing arrives here before that: what was sent first arrives first.
    pub not_before: Moment,
    /// Bytes on the way or unread: what the other end has sent too early.
    pub ahead: usize,
    /// The other end has finished.
    pub finished: bool,
    /// The connection broke.
    pub reset: bool,
    /// Nobody has this end any more.
    pub gone: bool,
    pub reader: Option<Waker>,
    pub writer: Option<Waker>,
}

#[derive(Debug)]
pub struct Connection {
    hosts: [HostId; 2],
    sides: [Side; 2],
    pub dialling: Dialling,
    pub dialler: Option<Waker>,
}

impl Connection {
    pub fn new(from: HostId, to: HostId) -> Connection {
        Connection {
            hosts: [from, to],
            sides: [Side::default(), Side::default()],
            dialling: Dialling::Waiting,
            dialler: None,
        }
    }

    pub fn host(&self, end: End) -> HostId {
        self.hosts[end.index()]
    }

    pub fn side(&mut self, end: End) -> &mut Side {
        &mut self.sides[end.index()]
    }

    /// The wire on which news for this end comes.
    pub fn wire_to(&self, end: End) -> Wire {
        (self.host(end.other()), self.host(end))
    }

    pub fn is_forgotten(&self) -> bool {
        self.sides.iter().all(|side| side.gone)
    }

    /// Those who sleep on this end.
    pub fn sleepers(&mut self, end: End) -> Vec<Waker> {
        let dialler = if end == End::Dialler { self.dialler.take() } else { None };
        let side = self.side(end);
        side.reader.take().into_iter().chain(side.writer.take()).chain(dialler).collect()
    }
}
