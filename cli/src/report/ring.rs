//! The ring: which member holds which part of it.

use std::fmt::Write as _;

use serde::Serialize;
use starling_core::layout::{BucketRules, Layout, Member};

use crate::output::paper::{Paper, Tone, finish};
use crate::output::units::plural;
use crate::report::{Report, mode_word};

/// Half the drawing's height in lines. With letters twice as high as wide it fills 47 columns.
const RADIUS: f64 = 11.6;
/// How many lines each replica's circle is thick.
const THICKNESS: f64 = 1.7;
/// Length of a bar that stands for the largest share.
const BAR: usize = 24;
const SYMBOLS: &[u8] = b"123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RingReport {
    pub cluster: String,
    pub version: u64,
    pub partitions: u32,
    /// What the cluster keeps where it has that many members.
    pub replicas: usize,
    pub buckets: Vec<BucketShape>,
    /// Ascending by name.
    pub members: Vec<MemberShape>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ring: Option<Vec<Vec<String>>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BucketShape {
    pub bucket: String,
    pub replicas: usize,
    pub mode: &'static str,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MemberShape {
    pub node: String,
    pub id: String,
    pub zone: String,
    pub weight: u32,
    pub address: String,
    pub held: u32,
    pub first: u32,
    pub share: f64,
}

impl RingReport {
    /// With each partition's primaries.
    pub fn new(layout: &Layout) -> RingReport {
        let name = |node| layout.member(node).map_or_else(String::new, |member| member.name.to_string());
        let copies = layout.replicas();
        let ring: Vec<Vec<String>> = layout
            .partitions()
            .all()
            .map(|partition| layout.primaries(partition, copies).map(name).collect())
            .collect();
        let shape = |(member, held): (&Member, u32)| MemberShape {
            node: member.name.to_string(),
            id: member.node.to_string(),
            zone: member.zone.to_string(),
            weight: member.weight,
            address: member.address.clone(),
            held,
            first: count_first(&ring, member.name.as_str()),
            share: share(held, layout),
        };
        let mut members: Vec<MemberShape> = layout.members().iter().zip(layout.shares()).map(shape).collect();
        members.sort_by_key(|member| natural(&member.node));
        RingReport {
            cluster: layout.cluster().to_string(),
            version: layout.version().0,
            partitions: layout.partitions().get(),
            replicas: copies.get(),
            buckets: layout.buckets().iter().map(|(name, rules)| bucket(name.as_str(), *rules, layout)).collect(),
            members,
            ring: Some(ring),
        }
    }

    pub fn summary(layout: &Layout) -> RingReport {
        RingReport { ring: None, ..RingReport::new(layout) }
    }

    fn index(&self, node: &str) -> usize {
        self.members.iter().position(|member| member.node == node).unwrap_or(0)
    }

    /// Replicas of a partition: as many circles are drawn.
    fn circles(&self) -> usize {
        self.ring.iter().flatten().map(Vec::len).max().unwrap_or(0)
    }

    fn drawing(&self, ring: &[Vec<String>], paper: &Paper) -> String {
        let mut text = String::new();
        let half = RADIUS as i32;
        for row in -half..=half {
            let mut line = String::new();
            for column in -2 * half..=2 * half {
                let cell = place_of(row, column).and_then(|place| self.cell(ring, place));
                match cell {
                    Some(index) => line.push_str(&paper.ink(&symbol(index), Tone::Node(index))),
                    None => line.push(' '),
                }
            }
            let _ = writeln!(text, "  {}", line.trim_end());
        }
        text
    }

    /// Whose symbol stands at a place of the drawing.
    fn cell(&self, ring: &[Vec<String>], (circle, turn): (usize, f64)) -> Option<usize> {
        let partition = ((turn * ring.len() as f64) as usize).min(ring.len().saturating_sub(1));
        let node = ring.get(partition)?.get(circle)?;
        Some(self.index(node))
    }

    fn table(&self, paper: &Paper) -> String {
        let most = self.members.iter().map(|member| member.held).max().unwrap_or(1).max(1);
        let weighted = self.members.iter().any(|member| member.weight != 1);
        let mut header = vec!["", "node", "zone", "share", "", "first", "held"];
        header.extend(weighted.then_some("weight"));
        let mut table = paper.table(&header);
        for (index, member) in self.members.iter().enumerate() {
            let bar = "█".repeat((member.held as usize * BAR).div_ceil(most as usize));
            let mut row = vec![
                paper.cell(&symbol(index), Tone::Node(index)),
                paper.cell(&member.node, Tone::Strong),
                paper.cell(&member.zone, Tone::Plain),
                paper.cell(&format!("{:.1}%", member.share * 100.0), Tone::Plain),
                paper.cell(&bar, Tone::Node(index)),
                paper.cell(&member.first.to_string(), Tone::Plain),
                paper.cell(&member.held.to_string(), Tone::Plain),
            ];
            row.extend(weighted.then(|| paper.cell(&member.weight.to_string(), Tone::Plain)));
            table.add_row(row);
        }
        finish(table, &[3, 5, 6, 7])
    }

    fn heading(&self) -> String {
        format!(
            "cluster {}, layout {}\n{} in {}, {}, {}\n",
            self.cluster,
            self.version,
            plural(self.members.len() as u64, "member"),
            plural(self.zones() as u64, "zone"),
            plural(u64::from(self.partitions), "partition"),
            plural(self.replicas as u64, "replica"),
        )
    }

    fn zones(&self) -> usize {
        let zones: std::collections::BTreeSet<&str> = self.members.iter().map(|member| member.zone.as_str()).collect();
        zones.len()
    }

    fn bucket_lines(&self) -> String {
        let line = |bucket: &BucketShape| {
            let mode = bucket.mode.replace('_', " ");
            format!("bucket {}: {}, {mode}\n", bucket.bucket, plural(bucket.replicas as u64, "replica"))
        };
        self.buckets.iter().map(line).collect()
    }
}

impl Report for RingReport {
    fn human(&self, paper: &Paper) -> String {
        let mut text = self.heading();
        text.push_str(&self.bucket_lines());
        if let Some(ring) = &self.ring {
            let circles = match self.circles() {
                1 => "The circle shows each partition's only primary, clockwise from the top.".to_owned(),
                several => format!(
                    "The {several} circles show the primaries of each partition, clockwise from the top;\n\
                     the first choice is on the outermost."
                ),
            };
            let _ = writeln!(text, "{circles}\n");
            text.push_str(&self.drawing(ring, paper));
        }
        let _ = write!(text, "\n{}", self.table(paper));
        text
    }
}

fn bucket(name: &str, rules: BucketRules, layout: &Layout) -> BucketShape {
    let replicas = rules.replicas.unwrap_or(layout.replicas()).get();
    BucketShape { bucket: name.to_owned(), replicas, mode: mode_word(rules.mode) }
}

fn count_first(ring: &[Vec<String>], node: &str) -> u32 {
    let count = ring.iter().filter(|primaries| primaries.first().is_some_and(|first| first == node)).count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Which part of all partition replicas so many are, to a hundredth of a percent.
pub fn share(held: u32, layout: &Layout) -> f64 {
    let total: u32 = layout.shares().iter().sum();
    (f64::from(held) / f64::from(total.max(1)) * 1e4).round() / 1e4
}

/// `n2` before `n10`.
pub fn natural(name: &str) -> (String, u64, String) {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    (stem.to_owned(), name[stem.len()..].parse().unwrap_or(0), name.to_owned())
}

fn symbol(index: usize) -> String {
    SYMBOLS.get(index).map_or("#".to_owned(), |symbol| char::from(*symbol).to_string())
}

/// Which circle (0 outermost) a place of the drawing is on, and which part of a full turn from the top it is at.
fn place_of(row: i32, column: i32) -> Option<(usize, f64)> {
    let (x, y) = (f64::from(column) / 2.0, f64::from(-row));
    let inward = RADIUS - x.hypot(y);
    if inward < 0.0 {
        return None;
    }
    let turn = x.atan2(y) / std::f64::consts::TAU;
    Some(((inward / THICKNESS) as usize, turn.rem_euclid(1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::json_line;
    use crate::report::tests::layout;

    #[test]
    fn the_drawing_is_legible_without_colour_and_fits_a_terminal() {
        let text = RingReport::new(&layout()).human(&Paper::plain());
        let heading = "cluster 00000000000000c1, layout 1\n5 members in 3 zones, 8 partitions, 3 replicas\n";
        assert!(text.starts_with(heading), "{text}");
        let longest = text.lines().map(|line| line.chars().count()).max();
        assert!(longest <= Some(80), "{longest:?}\n{text}");
        assert!(text.lines().count() < 40, "{text}");
        for symbol in ["1", "2", "3", "4", "5"] {
            assert!(text.lines().skip(5).take(20).any(|line| line.contains(symbol)), "no {symbol} in\n{text}");
        }
    }

    #[test]
    fn every_member_has_its_row() {
        let text = RingReport::summary(&layout()).human(&Paper::plain());
        assert!(text.contains("3  n3    z3    33.3%  ████████████████████████      3     8"), "{text}");
    }

    #[test]
    fn colour_changes_no_letter() {
        let report = RingReport::new(&layout());
        let ring = report.ring.clone().unwrap();
        let coloured = report.drawing(&ring, &Paper::coloured(80));
        let mut plain = String::new();
        let mut inside = false;
        for c in coloured.chars() {
            match c {
                '\u{1b}' => inside = true,
                'm' if inside => inside = false,
                c if !inside => plain.push(c),
                _ => {}
            }
        }
        assert_eq!(plain, report.drawing(&ring, &Paper::plain()));
    }

    #[test]
    fn the_top_is_the_beginning_and_right_is_a_quarter() {
        assert_eq!(place_of(-11, 0), Some((0, 0.0)));
        assert_eq!(place_of(0, 23), Some((0, 0.25)));
        assert_eq!(place_of(-11, 23), None);
    }

    #[test]
    fn a_ring_in_json() {
        let text = json_line(&RingReport::new(&layout()));
        let start = concat!(
            r#"{"cluster":"00000000000000c1","version":1,"partitions":8,"replicas":3,"buckets":[],"members":["#,
            r#"{"node":"n1","id":"0000000000000001","zone":"z1","weight":1,"address":"127.0.0.1:7401","held":4,"#
        );
        assert!(text.starts_with(start), "{text}");
        assert!(text.contains(r#""ring":[["#));
        assert!(!json_line(&RingReport::summary(&layout())).contains("ring"));
    }

    #[test]
    fn names_are_sorted_as_people_count() {
        let mut names = vec!["n10", "n2", "a"];
        names.sort_by_key(|name| natural(name));
        assert_eq!(names, ["a", "n2", "n10"]);
    }
}
