//! Which process has a port: the kernel's tables (proc_net(5)) tell the socket's inode, and `/proc/*/fd` whose it is.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use crate::ports::Protocol;

/// The process that has a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub pid: u32,
    /// As `ps -o comm` shows it: at most 15 bytes.
    pub program: String,
}

/// `None` if it cannot be learnt: the socket has just been closed, or its owner's descriptors are not ours to read.
pub(crate) fn find_holder(address: SocketAddr, protocol: Protocol) -> Option<Holder> {
    let link = format!("socket:[{}]", find_inode(address, protocol)?);
    let pids = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let pid = pids.into_iter().find(|pid| has_descriptor(*pid, &link))?;
    let program = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim_end().to_owned();
    Some(Holder { pid, program })
}

fn find_inode(address: SocketAddr, protocol: Protocol) -> Option<u64> {
    let tables = match protocol {
        Protocol::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
        Protocol::Udp => ["/proc/net/udp", "/proc/net/udp6"],
    };
    tables.into_iter().find_map(|table| {
        let text = fs::read_to_string(table).ok()?;
        text.lines().skip(1).find_map(|line| inode_if_in_the_way(line, address))
    })
}

/// The inode in a line of the table, if that socket keeps `address` from being taken. A socket without an owner, such
/// as one in TIME_WAIT, has inode 0.
fn inode_if_in_the_way(line: &str, address: SocketAddr) -> Option<u64> {
    let mut fields = line.split_whitespace();
    let (local, port) = fields.nth(1)?.split_once(':')?;
    let same_port = u16::from_str_radix(port, 16).ok()? == address.port();
    // Fields 2 to 8 lie between: the peer, state, queues, timers, retransmissions, owner, and timeout.
    let inode = fields.nth(7)?.parse().ok()?;
    (same_port && covers(local, address.ip()) && inode != 0).then_some(inode)
}

/// Whether a local address of the table is `ip`, or stands for all addresses. The table shows each 32-bit word as this
/// machine's integer; an IPv4 address mapped into IPv6 ends in its own word.
fn covers(local: &str, ip: IpAddr) -> bool {
    let is_any = local.bytes().all(|digit| digit == b'0');
    match ip {
        IpAddr::V4(ip) => is_any || local.ends_with(&format!("{:08X}", u32::from_ne_bytes(ip.octets()))),
        IpAddr::V6(ip) => is_any || local == table_form(ip.octets()),
    }
}

fn table_form(octets: [u8; 16]) -> String {
    let words = octets.as_chunks::<4>().0;
    words.iter().map(|word| format!("{:08X}", u32::from_ne_bytes(*word))).collect()
}

fn has_descriptor(pid: u32, link: &str) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors.flatten().any(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == Path::new(link)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "0: 0100007F:1CE9 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 645 1 0000 100 0";

    #[test]
    fn a_socket_is_in_the_way_of_its_own_address_only() {
        let inode = |address: &str| inode_if_in_the_way(LINE, address.parse().unwrap());
        assert_eq!(inode("127.0.0.1:7401"), Some(645));
        assert_eq!(inode("127.0.0.1:7402"), None);
        assert_eq!(inode("127.0.0.2:7401"), None);
    }

    #[test]
    fn a_socket_on_all_addresses_is_in_everybodys_way() {
        assert!(covers("00000000", "127.0.0.1".parse().unwrap()));
        assert!(covers(&"0".repeat(32), "127.0.0.1".parse().unwrap()));
        assert!(covers("0000000000000000FFFF00000100007F", "127.0.0.1".parse().unwrap()));
        assert!(covers("00000000000000000000000001000000", "::1".parse().unwrap()));
    }
}
