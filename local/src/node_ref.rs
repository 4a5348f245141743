use std::fmt;
use std::str::FromStr;

use starling_core::name::{InvalidName, NodeName};

/// Which node a person means: `2` and `n2` are the same one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeRef {
    /// Counted from 1, in the order of the cluster's file.
    Number(usize),
    Name(NodeName),
}

impl FromStr for NodeRef {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        match text.parse() {
            Ok(number) => Ok(NodeRef::Number(number)),
            Err(_) => text.parse().map(NodeRef::Name),
        }
    }
}

impl From<usize> for NodeRef {
    fn from(number: usize) -> NodeRef {
        NodeRef::Number(number)
    }
}

impl From<NodeName> for NodeRef {
    fn from(name: NodeName) -> NodeRef {
        NodeRef::Name(name)
    }
}

impl From<&NodeName> for NodeRef {
    fn from(name: &NodeName) -> NodeRef {
        NodeRef::Name(name.clone())
    }
}

impl fmt::Display for NodeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NodeRef::Number(number) => number.fmt(f),
            NodeRef::Name(name) => name.fmt(f),
        }
    }
}
