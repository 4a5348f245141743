//! Which ports are free, asked by taking them for a moment.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{LocalError, failed};
use crate::forker::on_forker;
use crate::port_holder::{Holder, find_holder};

/// Below the range from which Linux draws clients' ports (32768 and up): a port in that one can be taken by any
/// outgoing connection while its node is down.
const FREE_RANGE: Range<u16> = 20_000..32_000;
/// The loopback address whose UDP port stands for the reservation of the same port on 127.0.0.1. The kernel gives it
/// back when the process ends, and it is in nobody's way: no node of ours listens there.
const RESERVATIONS: Ipv4Addr = Ipv4Addr::new(127, 83, 84, 82);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
        })
    }
}

/// A node's address is somebody else's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{protocol} port {} on {} is in use by {}: {}, or make a new cluster on other ports, with --base-port", address.port(), address.ip(), held_by(holder.as_ref()), advice(holder.as_ref()))]
pub struct PortBusy {
    pub address: SocketAddr,
    pub protocol: Protocol,
    /// `None` if it belongs to a user whose processes we may not look into.
    pub holder: Option<Holder>,
}

fn held_by(holder: Option<&Holder>) -> String {
    match holder {
        Some(Holder { pid, program }) => format!("`{program}` (pid {pid})"),
        None => "a program that we may not look into".to_owned(),
    }
}

fn advice(holder: Option<&Holder>) -> String {
    match holder {
        Some(Holder { program, .. }) if program == "starling-node" => {
            "run `starling local down` for the cluster it belongs to".to_owned()
        }
        Some(Holder { pid, .. }) => format!("stop it (`kill {pid}`)"),
        None => "`sudo ss -tulpn` names it, stop it".to_owned(),
    }
}

/// # Errors
/// [`LocalError::PortBusy`] for the first of `addresses` that is not free for both TCP and UDP.
pub(crate) fn require_free(addresses: Vec<SocketAddr>) -> Result<(), LocalError> {
    on_forker(move || addresses.into_iter().try_for_each(probe))
}

fn probe(address: SocketAddr) -> Result<(), LocalError> {
    let tcp = TcpListener::bind(address).map(drop).map_err(|error| (Protocol::Tcp, error));
    let both = tcp.and_then(|()| UdpSocket::bind(address).map(drop).map_err(|error| (Protocol::Udp, error)));
    match both {
        Ok(()) => Ok(()),
        Err((protocol, error)) if error.kind() == io::ErrorKind::AddrInUse => {
            Err(PortBusy { address, protocol, holder: find_holder(address, protocol) }.into())
        }
        Err((protocol, error)) => Err(failed(format_args!("listen on {protocol} {address}"))(error)),
    }
}

/// A port that no other cluster on this machine is given by [`reserve`] while this value lives.
#[derive(Debug)]
pub(crate) struct Reservation {
    pub port: u16,
    _held: UdpSocket,
}

/// # Errors
/// [`LocalError::NoFreePorts`] if there are not `wanted` free ports in the range.
pub(crate) fn reserve(wanted: usize) -> Result<Vec<Reservation>, LocalError> {
    let found: Vec<Reservation> = on_forker(move || candidates(wanted).filter_map(try_reserve).take(wanted).collect());
    if found.len() < wanted {
        let Range { start: from, end: to } = FREE_RANGE;
        return Err(LocalError::NoFreePorts { found: found.len(), wanted, from, to });
    }
    Ok(found)
}

/// The whole range, from another place for each process and each call: a late message to a cluster that has ended
/// should not reach the next one.
fn candidates(wanted: usize) -> impl Iterator<Item = u16> {
    static TAKEN: AtomicUsize = AtomicUsize::new(0);
    /// Prime, so that the processes of one test run, whose pids are close to each other, begin far apart.
    const STRIDE: usize = 211;
    let before = TAKEN.fetch_add(wanted, Ordering::Relaxed);
    let first = (std::process::id() as usize * STRIDE + before) % FREE_RANGE.len();
    FREE_RANGE.cycle().skip(first).take(FREE_RANGE.len())
}

fn try_reserve(port: u16) -> Option<Reservation> {
    let held = UdpSocket::bind((RESERVATIONS, port)).ok()?;
    probe((Ipv4Addr::LOCALHOST, port).into()).ok()?;
    Some(Reservation { port, _held: held })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_busy_port_is_explained_by_its_holder() {
        let ours = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = ours.local_addr().unwrap();
        let Err(LocalError::PortBusy(busy)) = require_free(vec![address]) else { panic!("the port is taken") };
        assert_eq!((busy.address, busy.protocol), (address, Protocol::Tcp));
        assert_eq!(busy.holder.as_ref().unwrap().pid, std::process::id());
        assert!(busy.to_string().starts_with(&format!("TCP port {} on 127.0.0.1 is in use by `", address.port())));
    }

    #[test]
    fn a_port_is_busy_by_its_udp_half_alone_and_by_a_socket_on_all_addresses() {
        let ours = UdpSocket::bind("0.0.0.0:0").unwrap();
        let address = (Ipv4Addr::LOCALHOST, ours.local_addr().unwrap().port()).into();
        let Err(LocalError::PortBusy(busy)) = require_free(vec![address]) else { panic!("the port is taken") };
        assert_eq!(busy.protocol, Protocol::Udp);
        assert_eq!(busy.holder.unwrap().pid, std::process::id());
    }

    #[test]
    fn no_port_is_given_twice() {
        let clusters: Vec<_> = (0..4).map(|_| reserve(5).unwrap()).collect();
        let ports: BTreeSet<u16> = clusters.iter().flatten().map(|reservation| reservation.port).collect();
        assert_eq!(ports.len(), 20);
    }
}
