//! The layout log, in words.

use serde::Serialize;
use starling_core::layout::{Layout, Member};
use starling_core::ring::{Decree, Entry};

use crate::names::Names;
use crate::output::paper::{Paper, Tone, finish};
use crate::report::Report;
use crate::report::ring::natural;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HistoryReport {
    pub seen_by: String,
    /// Oldest first.
    pub entries: Vec<EntryShape>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EntryShape {
    pub epoch: u64,
    pub decree: &'static str,
    /// Of the layout that it is about.
    pub version: Option<u64>,
    pub what: Vec<String>,
    /// Of the entry.
    pub checksum: String,
}

impl HistoryReport {
    pub fn new(seen_by: String, log: &[Entry]) -> HistoryReport {
        let mut newest: Option<&Layout> = None;
        let mut names = Names::default();
        let mut entries = Vec::with_capacity(log.len());
        for entry in log {
            let layout = match &entry.decree {
                Decree::Begin { layout, .. } | Decree::Force { layout, .. } => Some(layout),
                Decree::Switch(_) | Decree::End(_) | Decree::Register { .. } | Decree::Emptied(_) => None,
            };
            if let Some(layout) = layout {
                names.learn(layout);
            }
            entries.push(EntryShape::new(entry, newest, &names));
            newest = layout.or(newest);
        }
        HistoryReport { seen_by, entries }
    }
}

impl EntryShape {
    fn new(entry: &Entry, before: Option<&Layout>, names: &Names) -> EntryShape {
        let (decree, version, what) = match &entry.decree {
            Decree::Begin { layout, dead } => {
                let mut what = before.map_or_else(|| beginning(layout), |before| differences(before, layout));
                what.extend(dead.iter().map(|node| format!("{} is declared dead", names.node(*node))));
                ("begin", Some(layout.version()), what)
            }
            Decree::Force { layout, dead } => {
                let mut what = vec![format!("without a majority the cluster goes on as {}", layout.cluster())];
                what.extend(dead.iter().map(|node| format!("{} is given up with all that it held", names.node(*node))));
                ("force", Some(layout.version()), what)
            }
            Decree::Switch(version) => ("switch", Some(*version), vec![format!("layout {version} is read")]),
            Decree::End(version) => ("end", Some(*version), vec![format!("what was before layout {version} is gone")]),
            Decree::Register { node, directory } => {
                let what = format!("directory {directory} stands for {}", names.node(*node));
                ("register", None, vec![what])
            }
            Decree::Emptied(node) => {
                ("emptied", None, vec![format!("{} has left, and holds nothing any more", names.node(*node))])
            }
        };
        let version = version.map(|version| version.0);
        EntryShape { epoch: entry.epoch.0, decree, version, what, checksum: entry.checksum().to_string() }
    }
}

fn beginning(layout: &Layout) -> Vec<String> {
    let mut names: Vec<&str> = layout.members().iter().map(|member| member.name.as_str()).collect();
    names.sort_by_key(|name| natural(name));
    vec![format!("the cluster is made, of {}", names.join(", "))]
}

fn differences(before: &Layout, after: &Layout) -> Vec<String> {
    let mut told = Vec::new();
    let of_node = |layout: &'_ Layout, member: &Member| layout.member(member.node).cloned();
    let mut members: Vec<&Member> = after.members().iter().collect();
    members.sort_by_key(|member| natural(member.name.as_str()));
    for member in members {
        let name = &member.name;
        match of_node(before, member) {
            None if member.weight == 1 => told.push(format!("{name} joins")),
            None => told.push(format!("{name} joins with weight {}", member.weight)),
            Some(was) => {
                if was.weight != member.weight {
                    told.push(format!("{name} has weight {}", member.weight));
                }
                if was.zone != member.zone {
                    told.push(format!("{name} is in zone {}", member.zone));
                }
            }
        }
    }
    let gone = before.members().iter().filter(|member| of_node(after, member).is_none());
    told.extend(gone.map(|member| format!("{} is a member no more", member.name)));
    if before.replicas() != after.replicas() {
        told.push(format!("the cluster keeps {} replicas", after.replicas()));
    }
    let changed = after.buckets().iter().filter(|(bucket, rules)| before.buckets().get(*bucket) != Some(*rules));
    told.extend(changed.map(|(bucket, _)| format!("bucket {bucket} has other rules")));
    told
}

impl Report for HistoryReport {
    fn human(&self, paper: &Paper) -> String {
        let mut table = paper.table(&["entry", "layout", "decree", "what"]);
        for entry in &self.entries {
            table.add_row([
                paper.cell(&entry.epoch.to_string(), Tone::Strong),
                paper.cell(&entry.version.map_or("-".to_owned(), |version| version.to_string()), Tone::Plain),
                paper.cell(entry.decree, if entry.decree == "begin" { Tone::Good } else { Tone::Faint }),
                paper.cell(&entry.what.join(", "), Tone::Plain),
            ]);
        }
        finish(table, &[0, 1])
    }
}

#[cfg(test)]
pub mod tests {
    use std::collections::BTreeSet;

    use starling_core::ids::{ClusterId, DirectoryId, NodeId};
    use starling_core::layout::{LayoutVersion, NextLayout};
    use starling_core::ring::Ring;

    use super::*;
    use crate::report::tests::layout;

    pub fn report() -> HistoryReport {
        let first = layout();
        let mut members = first.members().to_vec();
        members.retain(|member| member.node != NodeId(5));
        members[0].weight = 2;
        let (replicas, buckets) = (first.replicas(), first.buckets().clone());
        let second = first.successor(NextLayout { replicas, members, buckets }).unwrap();
        let decrees = [
            Decree::Begin { layout: second, dead: [NodeId(5)].into() },
            Decree::Switch(LayoutVersion(2)),
            Decree::End(LayoutVersion(2)),
            Decree::Register { node: NodeId(2), directory: DirectoryId(99) },
        ];
        HistoryReport::new("n1".to_owned(), &log(first, decrees))
    }

    fn log(first: Layout, decrees: impl IntoIterator<Item = Decree>) -> Vec<Entry> {
        let mut log = vec![Ring::first_entry(first.clone())];
        let mut ring = Ring::first(first).unwrap();
        for decree in decrees {
            let entry = ring.entry(decree);
            ring = ring.after(&entry).unwrap();
            log.push(entry);
        }
        log
    }

    #[test]
    fn a_person_reads_what_became_of_the_ring() {
        let expected = "\
entry  layout  decree    what
    1       1  begin     the cluster is made, of n1, n2, n3, n4, n5
    2       2  begin     n1 has weight 2, n5 is a member no more, n5 is declared dead
    3       2  switch    layout 2 is read
    4       2  end       what was before layout 2 is gone
    5       -  register  directory 0000000000000063 stands for n2
";
        assert_eq!(report().human(&Paper::plain()), expected);
    }

    #[test]
    fn that_members_were_given_up_is_read_with_the_new_id() {
        let first = layout();
        let dead: BTreeSet<NodeId> = [3, 4, 5].map(NodeId).into();
        let members = first.members().iter().filter(|member| !dead.contains(&member.node)).cloned().collect();
        let next = NextLayout { replicas: first.replicas(), members, buckets: first.buckets().clone() };
        let layout = first.successor(next).unwrap().in_cluster(ClusterId(0xc2));
        let report = HistoryReport::new("n1".to_owned(), &log(first, [Decree::Force { layout, dead }]));
        assert_eq!((report.entries[1].decree, report.entries[1].version), ("force", Some(2)));
        assert_eq!(report.entries[1].what[0], "without a majority the cluster goes on as 00000000000000c2");
        assert_eq!(report.entries[1].what[3], "n5 is given up with all that it held");
    }
}
