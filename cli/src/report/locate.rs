//! Where a key lives, and what each of its replicas holds.

use serde::Serialize;
use starling_core::clock::Clock;
use starling_core::ids::NodeId;
use starling_core::layout::Layout;
use starling_core::name::ObjectKey;
use starling_proto::data::{Holding, Location, ReplicaView};

use crate::names::Names;
use crate::output::bytes::Blob;
use crate::output::paper::{Paper, Tone, finish, pairs};
use crate::output::units::plural;
use crate::report::{Report, mode_word};

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LocateReport {
    pub bucket: String,
    pub key: Blob,
    /// 16 hexadecimal digits.
    pub token: String,
    pub partition: u16,
    /// How many partitions there are.
    pub partitions: u32,
    /// `siblings` or `last_write_wins`.
    pub mode: &'static str,
    /// In order of preference: primaries, then fallbacks.
    pub replicas: Vec<HolderShape>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HolderShape {
    pub node: String,
    pub id: String,
    pub zone: Option<String>,
    /// `primary` or `fallback`.
    pub role: &'static str,
    /// By gossip's word; none if the node that answered says nothing of it.
    pub alive: Option<bool>,
    /// `copy`, `nothing` or `unknown`.
    pub holds: &'static str,
    /// Of a copy; 0 if it is a deletion.
    pub siblings: Option<usize>,
    /// Of a copy.
    pub clock: Vec<ClockEntry>,
    /// Of a copy: another one has seen writes that this one has not.
    pub behind: Option<bool>,
    /// Why it is unknown.
    pub reason: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClockEntry {
    /// The member whose directory it is; none if it is no member's any more.
    pub node: Option<String>,
    pub directory: String,
    pub birth: String,
    pub counter: u64,
}

impl LocateReport {
    pub fn new(place: &ObjectKey, location: &Location, layout: &Layout, names: &Names) -> LocateReport {
        let known = everything_known(&location.replicas);
        let holder = |node: &NodeId, role| {
            let view = location.replicas.iter().find(|view| view.node == *node);
            HolderShape {
                node: names.node(*node),
                id: node.to_string(),
                zone: layout.member(*node).map(|member| member.zone.to_string()),
                role,
                alive: view.map(|view| view.alive),
                ..HolderShape::of_holding(view.map(|view| &view.holds), &known, names)
            }
        };
        let list = &location.preference;
        let primaries = list.primaries().iter().map(|node| holder(node, "primary"));
        let fallbacks = list.fallbacks().iter().map(|node| holder(node, "fallback"));
        LocateReport {
            bucket: place.bucket().to_string(),
            key: Blob(place.key().clone()),
            token: location.token.to_string(),
            partition: list.partition().0,
            partitions: layout.partitions().get(),
            mode: mode_word(location.mode),
            replicas: primaries.chain(fallbacks).collect(),
        }
    }
}

/// The union of all clocks that were seen.
fn everything_known(views: &[ReplicaView]) -> Clock {
    let mut known = Clock::default();
    for view in views {
        match &view.holds {
            Holding::Copy { clock, .. } => known.merge(clock),
            Holding::Nothing | Holding::Unknown(_) => {}
        }
    }
    known
}

impl HolderShape {
    /// Only the part that says what it holds.
    fn of_holding(holds: Option<&Holding>, known: &Clock, names: &Names) -> HolderShape {
        let blank = HolderShape {
            node: String::new(),
            id: String::new(),
            zone: None,
            role: "",
            alive: None,
            holds: "nothing",
            siblings: None,
            clock: Vec::new(),
            behind: None,
            reason: None,
        };
        match holds {
            Some(Holding::Nothing) => blank,
            Some(Holding::Copy { clock, siblings }) => HolderShape {
                holds: "copy",
                siblings: Some(*siblings),
                clock: entries(clock, names),
                behind: Some(!clock.covers_all(known)),
                ..blank
            },
            Some(Holding::Unknown(reason)) => HolderShape { holds: "unknown", reason: Some(reason.clone()), ..blank },
            None => HolderShape { holds: "unknown", reason: Some("was not asked".to_owned()), ..blank },
        }
    }

    fn holds_text(&self) -> (String, Tone) {
        match (self.holds, self.siblings, &self.reason) {
            ("copy", Some(0), _) => ("deleted or expired".to_owned(), Tone::Plain),
            ("copy", Some(siblings), _) => (plural(siblings as u64, "sibling"), Tone::Good),
            (_, _, Some(reason)) => (format!("? {reason}"), Tone::Warn),
            _ => ("nothing".to_owned(), Tone::Faint),
        }
    }

    fn clock_text(&self) -> (String, Tone) {
        let words: Vec<String> = self.clock.iter().map(ClockEntry::short).collect();
        match self.behind {
            Some(true) => (format!("{} (behind)", words.join(" ")), Tone::Warn),
            _ => (words.join(" "), Tone::Plain),
        }
    }

    fn up_text(&self) -> (&'static str, Tone) {
        match self.alive {
            Some(true) => ("up", Tone::Good),
            Some(false) => ("down", Tone::Bad),
            None => ("?", Tone::Faint),
        }
    }
}

impl ClockEntry {
    /// `n1/3fa2:7`: enough for a person to tell histories apart.
    fn short(&self) -> String {
        let owner = self.node.as_deref().unwrap_or(&self.directory[..4]);
        format!("{owner}/{}:{}", &self.birth[..4], self.counter)
    }
}

fn entries(clock: &Clock, names: &Names) -> Vec<ClockEntry> {
    let entry = |(history, counter): (&starling_core::clock::History, u64)| ClockEntry {
        node: names.directory(history.directory),
        directory: history.directory.to_string(),
        birth: history.birth.to_string(),
        counter,
    };
    clock.entries().map(entry).collect()
}

impl Report for LocateReport {
    fn human(&self, paper: &Paper) -> String {
        let facts = [
            ("key", format!("{}/{}", self.bucket, self.key.line())),
            ("token", self.token.clone()),
            ("partition", format!("{} of {}", self.partition, self.partitions)),
            ("conflicts", self.mode.replace('_', " ")),
        ];
        let mut table = paper.table(&["node", "zone", "as", "is", "holds", "clock"]);
        for replica in &self.replicas {
            let ((up, up_tone), (holds, holds_tone)) = (replica.up_text(), replica.holds_text());
            let (clock, clock_tone) = replica.clock_text();
            table.add_row([
                paper.cell(&replica.node, Tone::Strong),
                paper.cell(replica.zone.as_deref().unwrap_or("?"), Tone::Plain),
                paper.cell(replica.role, if replica.role == "primary" { Tone::Plain } else { Tone::Faint }),
                paper.cell(up, up_tone),
                paper.cell(&holds, holds_tone),
                paper.cell(&clock, clock_tone),
            ]);
        }
        format!("{}\n{}", pairs(paper, &facts), finish(table, &[]))
    }
}

#[cfg(test)]
pub mod tests {
    use starling_core::clock::History;
    use starling_core::ids::{Birth, DirectoryId};
    use starling_core::token::Token;

    use super::*;
    use crate::output::json_line;
    use crate::report::tests::layout;

    pub fn report() -> LocateReport {
        let place = ObjectKey::new("carts".parse().unwrap(), "alice").unwrap();
        let history = History { directory: DirectoryId(11), birth: Birth(0x3fa2_0000_0000_0001) };
        let copy = |counter| Holding::Copy { clock: [(history, counter)].into_iter().collect(), siblings: 1 };
        let layout = layout();
        let preference = layout.preference_list(&place);
        let held = [copy(2), copy(1), Holding::Unknown("could not be reached".to_owned())];
        let views = preference.primaries().iter().zip(held).enumerate();
        let replicas =
            views.map(|(index, (node, holds))| ReplicaView { node: *node, alive: index < 2, holds }).collect();
        let mode = starling_core::object::SiblingMode::Keep;
        let location = Location { token: Token::of(&place), preference, mode, replicas };
        LocateReport::new(&place, &location, &layout, &Names::of_layout(&layout))
    }

    #[test]
    fn a_person_sees_who_is_behind() {
        let text = report().human(&Paper::plain());
        assert!(text.starts_with("key        carts/alice\ntoken      78f0c2fdf9d1b2d8\npartition  3 of 8\n"), "{text}");
        assert!(text.contains("primary   up    1 sibling") && text.contains("n1/3fa2:2"), "{text}");
        assert!(text.contains("n1/3fa2:1 (behind)"), "{text}");
        assert!(text.contains("down  ? could not be reached"), "{text}");
        assert!(text.contains("fallback  ?     ? was not asked"), "{text}");
    }

    #[test]
    fn a_location_in_json() {
        let text = json_line(&report());
        let start = r#"{"bucket":"carts","key":{"utf8":"alice"},"token":"78f0c2fdf9d1b2d8","partition":3,"partitions":8,"mode":"siblings","replicas":[{"node":"#;
        assert!(text.starts_with(start), "{text}");
        let copy = concat!(
            r#""role":"primary","alive":true,"holds":"copy","siblings":1,"clock":[{"node":"n1","#,
            r#""directory":"000000000000000b","birth":"3fa2000000000001","counter":1}],"behind":true,"reason":null}"#
        );
        assert!(text.contains(copy), "{text}");
    }
}
