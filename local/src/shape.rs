use std::net::{Ipv4Addr, SocketAddr};

use starling_core::name::{NodeName, Zone};

use crate::launch::Launch;
use crate::state::Node;

/// Most nodes of a local cluster. Each is a process with threads and a storage engine of its own.
pub const MAX_NODES: usize = 64;
/// The first node's port unless told otherwise.
pub const DEFAULT_BASE_PORT: u16 = 7401;

/// What a new cluster looks like: nodes `n1`, `n2`, … on zones `z1`, `z2`, … in turn, all on 127.0.0.1.
///
/// Nodes are started one by one, so a cluster whose nodes join later is one that has them from the beginning and starts
/// them later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// 1 to [`MAX_NODES`].
    pub nodes: usize,
    /// 1 to `nodes`.
    pub zones: usize,
    pub ports: Ports,
    pub launch: Launch,
}

impl Default for Shape {
    /// Three nodes in three zones, from port 7401.
    fn default() -> Shape {
        Shape { nodes: 3, zones: 3, ports: Ports::From(DEFAULT_BASE_PORT), launch: Launch::default() }
    }
}

/// Which ports a new cluster takes. A node uses the same number for TCP (RPC) and UDP (gossip).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// This one for `n1`, the next for `n2`, …
    From(u16),
    /// Any that are free, outside of the range from which Linux draws clients' ports. No other cluster of this kind, in
    /// this process or another, is given them for as long as the [`LocalCluster`](crate::LocalCluster) that was created
    /// with them lives.
    Free,
}

/// Why a shape was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidShape {
    #[error("{0} nodes are not possible here: choose 1 to {MAX_NODES}")]
    Nodes(usize),
    #[error("{zones} zones are not possible with {nodes} nodes: choose 1 to {nodes}")]
    Zones { zones: usize, nodes: usize },
    #[error("{nodes} nodes from port {base} would pass port 65535, the last one: choose a lower base port, and not 0")]
    Ports { base: u16, nodes: usize },
}

impl Shape {
    /// # Errors
    /// [`InvalidShape`] if the numbers do not fit each other.
    pub(crate) fn check(&self) -> Result<(), InvalidShape> {
        if !(1..=MAX_NODES).contains(&self.nodes) {
            return Err(InvalidShape::Nodes(self.nodes));
        }
        if !(1..=self.nodes).contains(&self.zones) {
            return Err(InvalidShape::Zones { zones: self.zones, nodes: self.nodes });
        }
        match self.ports {
            Ports::From(base) => consecutive(base, self.nodes).map(drop),
            Ports::Free => Ok(()),
        }
    }

    /// The nodes of this (checked) shape, one for each of `ports`.
    pub(crate) fn nodes_on(&self, ports: &[u16]) -> Vec<Node> {
        ports.iter().enumerate().map(|(index, port)| self.node(index, *port)).collect()
    }

    fn node(&self, index: usize, port: u16) -> Node {
        let numbered = |letter: char, index: usize| format!("{letter}{}", index + 1);
        let name: NodeName = numbered('n', index).parse().expect("a letter and digits are a name");
        let zone: Zone = numbered('z', index % self.zones).parse().expect("a letter and digits are a name");
        Node { name, zone, address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), process: None }
    }
}

/// `count` ports from `base` on.
pub(crate) fn consecutive(base: u16, count: usize) -> Result<Vec<u16>, InvalidShape> {
    let end = usize::from(base) + count;
    if base == 0 || end > usize::from(u16::MAX) + 1 {
        return Err(InvalidShape::Ports { base, nodes: count });
    }
    Ok((base..=u16::MAX).take(count).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(nodes: usize, zones: usize, base: u16) -> Shape {
        Shape { nodes, zones, ports: Ports::From(base), ..Shape::default() }
    }

    #[test]
    fn zones_are_dealt_in_turn() {
        let nodes = shape(5, 2, 7401).nodes_on(&consecutive(7401, 5).unwrap());
        let told: Vec<String> = nodes.iter().map(|n| format!("{} {} {}", n.name, n.zone, n.address.port())).collect();
        assert_eq!(told, ["n1 z1 7401", "n2 z2 7402", "n3 z1 7403", "n4 z2 7404", "n5 z1 7405"]);
    }

    #[test]
    fn shapes_that_cannot_be_are_refused() {
        assert_eq!(shape(0, 1, 7401).check(), Err(InvalidShape::Nodes(0)));
        assert_eq!(shape(2, 3, 7401).check(), Err(InvalidShape::Zones { zones: 3, nodes: 2 }));
        assert_eq!(shape(2, 1, 65535).check(), Err(InvalidShape::Ports { base: 65535, nodes: 2 }));
        assert_eq!(shape(1, 1, 65535).check(), Ok(()));
        assert!(shape(1, 1, 0).check().is_err());
    }
}
