//! What a node says of itself.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use starling_core::ids::{ClusterId, NodeId, Run};
use starling_core::layout::LayoutVersion;
use starling_core::name::{NodeName, Zone};
use starling_core::ring::{EntryChecksum, Epoch};
use starling_core::settings::SettingsChecksum;

/// Longest address: a DNS name of 253 bytes, a colon, a port.
pub const MAX_ADDRESS_BYTES: usize = 259;
/// Longest [`ShortText`].
pub const MAX_TEXT_BYTES: usize = 200;
/// Most nodes that are named as targets of a node's hints. One that holds hints for more says "for anyone".
pub const MAX_HINT_TARGETS: usize = 256;

/// What a node says of itself. Only the node itself writes it; it is lost when the node stops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    pub name: NodeName,
    pub zone: Zone,
    pub run: Run,
    /// Where other nodes dial its RPC services.
    pub address: Address,
    /// The versions of the wire protocol that it speaks.
    pub protocol: RangeInclusive<u16>,
    /// A bit for each optional ability.
    pub features: u64,
    /// The version of its program, for people.
    pub build: ShortText,
    /// None before `cluster init`, and before it joined.
    pub cluster: Option<ClusterId>,
    /// The layout that it reads by.
    pub layout: Option<LayoutVersion>,
    /// How much of the layout log it has durably adopted, and the checksum of the last entry.
    pub log: Option<(Epoch, EntryChecksum)>,
    pub hints_for: HintTargets,
    /// It lacks writes that were acknowledged before its directory came.
    pub is_filling: bool,
    /// Of the plain settings that it goes by; none if its build knows of none.
    pub settings: Option<SettingsChecksum>,
    pub standing: Standing,
}

/// What a node wants to be asked for. No standing is ever added to these four: a node that does not know one could not
/// read the announcement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It recovers, and answers nothing yet.
    Starting,
    Serving,
    /// Its directory may mint no more, or its disk failed: it waits for an operator.
    Retired {
        reason: ShortText,
    },
    /// It stops soon: to be asked last.
    Leaving,
}

/// The nodes for which somebody holds hints. A replica in it may lack writes, so it errs to one side: past
/// [`MAX_HINT_TARGETS`] nodes it stands for all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HintTargets(Targets);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Targets {
    These(BTreeSet<NodeId>),
    Anyone,
}

impl HintTargets {
    pub fn none() -> HintTargets {
        HintTargets(Targets::These(BTreeSet::new()))
    }

    pub fn anyone() -> HintTargets {
        HintTargets(Targets::Anyone)
    }

    pub fn may_include(&self, node: NodeId) -> bool {
        match &self.0 {
            Targets::These(nodes) => nodes.contains(&node),
            Targets::Anyone => true,
        }
    }

    /// The targets, ascending; none if there were too many to name.
    pub fn named(&self) -> Option<&BTreeSet<NodeId>> {
        match &self.0 {
            Targets::These(nodes) => Some(nodes),
            Targets::Anyone => None,
        }
    }
}

impl Default for HintTargets {
    fn default() -> Self {
        HintTargets::none()
    }
}

impl FromIterator<NodeId> for HintTargets {
    fn from_iter<I: IntoIterator<Item = NodeId>>(nodes: I) -> Self {
        let mut named = BTreeSet::new();
        for node in nodes {
            named.insert(node);
            if named.len() > MAX_HINT_TARGETS {
                return HintTargets::anyone();
            }
        }
        HintTargets(Targets::These(named))
    }
}

/// `host:port`, with a name or an IP address as host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an address: expected host:port, at most {MAX_ADDRESS_BYTES} bytes")]
pub struct InvalidAddress(String);

impl Address {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Address {
    type Error = InvalidAddress;

    fn try_from(text: String) -> Result<Self, InvalidAddress> {
        if is_address(&text) { Ok(Address(text)) } else { Err(InvalidAddress(text)) }
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        text.to_owned().try_into()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let dialable = port.parse::<u16>().is_ok_and(|port| port != 0);
    dialable && !host.is_empty() && text.len() <= MAX_ADDRESS_BYTES && text.chars().all(|c| c.is_ascii_graphic())
}

/// A few words for people, in one line. What exceeds [`MAX_TEXT_BYTES`] is cut off.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ShortText(String);

impl ShortText {
    pub fn new(text: &str) -> ShortText {
        let cut = text.floor_char_boundary(MAX_TEXT_BYTES);
        ShortText(text[..cut].replace(char::is_control, " "))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ShortText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_for_too_many_nodes_are_hints_for_anyone() {
        let last = MAX_HINT_TARGETS as u64;
        let named: HintTargets = (1..=last).map(NodeId).collect();
        assert!(named.may_include(NodeId(last)) && !named.may_include(NodeId(last + 1)));
        let many: HintTargets = (1..=last + 1).map(NodeId).collect();
        assert_eq!(many, HintTargets::anyone());
        assert!(many.may_include(NodeId(u64::MAX)));
    }

    #[test]
    fn an_address_has_a_host_and_a_port() {
        for address in ["n1:7400", "10.0.0.1:1", "[::1]:7400", "n1.example.org:65535"] {
            assert!(address.parse::<Address>().is_ok(), "{address}");
        }
        for nonsense in ["", "n1", ":7400", "n1:", "n1:0", "n1:65536", "n 1:7400"] {
            assert!(nonsense.parse::<Address>().is_err(), "{nonsense}");
        }
        assert!(format!("{}:7400", "n".repeat(255)).parse::<Address>().is_err());
    }

    #[test]
    fn a_short_text_is_one_short_line() {
        assert_eq!(ShortText::new("the disk\nfailed").as_str(), "the disk failed");
        let umlauts = ShortText::new(&"x".repeat(MAX_TEXT_BYTES - 1).chars().chain("ü".chars()).collect::<String>());
        assert_eq!(umlauts.as_str().len(), MAX_TEXT_BYTES - 1);
    }
}
