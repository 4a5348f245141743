//! The rules of buckets.

use serde::Serialize;
use starling_core::layout::Layout;
use starling_core::name::BucketName;
use starling_core::object::SiblingMode;

use crate::output::paper::{Paper, Tone, finish};
use crate::report::Report;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BucketsReport {
    /// Those that have rules of their own, ascending by name.
    pub buckets: Vec<BucketReport>,
    /// All others.
    pub others: RulesShape,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BucketReport {
    pub bucket: String,
    /// By its own rules; otherwise it is as all others are.
    pub own_rules: bool,
    #[serde(flatten)]
    pub rules: RulesShape,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RulesShape {
    /// As many as there are members, at the most.
    pub replicas: usize,
    pub siblings: &'static str,
}

impl BucketsReport {
    pub fn new(layout: &Layout) -> BucketsReport {
        let replicas = layout.replicas().at_most(layout.members().len()).get();
        BucketsReport {
            buckets: layout.buckets().keys().map(|bucket| BucketReport::new(layout, bucket)).collect(),
            others: RulesShape { replicas, siblings: word(SiblingMode::default()) },
        }
    }
}

impl BucketReport {
    pub fn new(layout: &Layout, bucket: &BucketName) -> BucketReport {
        let (replicas, siblings) = (layout.replicas_of(bucket).get(), word(layout.rules(bucket).mode));
        let own_rules = layout.buckets().contains_key(bucket);
        BucketReport { bucket: bucket.to_string(), own_rules, rules: RulesShape { replicas, siblings } }
    }
}

fn word(mode: SiblingMode) -> &'static str {
    match mode {
        SiblingMode::Keep => "keep",
        SiblingMode::LastWriteWins => "last-write-wins",
    }
}

fn table(paper: &Paper, rows: impl Iterator<Item = (String, Tone, RulesShape)>) -> String {
    let mut table = paper.table(&["bucket", "replicas", "siblings"]);
    for (bucket, tone, RulesShape { replicas, siblings }) in rows {
        table.add_row([
            paper.cell(&bucket, tone),
            paper.cell(&replicas.to_string(), Tone::Plain),
            paper.cell(siblings, Tone::Plain),
        ]);
    }
    finish(table, &[1])
}

impl Report for BucketsReport {
    fn human(&self, paper: &Paper) -> String {
        let own = self.buckets.iter().map(|bucket| (bucket.bucket.clone(), Tone::Strong, bucket.rules));
        table(paper, own.chain([("all others".to_owned(), Tone::Plain, self.others)]))
    }
}

impl Report for BucketReport {
    fn human(&self, paper: &Paper) -> String {
        let mut text = table(paper, [(self.bucket.clone(), Tone::Strong, self.rules)].into_iter());
        if !self.own_rules {
            text.push_str("\nit has no rules of its own: `starling bucket set` gives it some\n");
        }
        text
    }
}

#[cfg(test)]
pub mod tests {
    use std::collections::BTreeMap;

    use starling_core::layout::{BucketRules, NextLayout};
    use starling_core::quorum::ReplicaCount;

    use super::*;
    use crate::report::tests::layout;

    fn ruled() -> Layout {
        let before = layout();
        let two = Some(ReplicaCount::try_from(2).unwrap());
        let rules = BucketRules { replicas: two, mode: SiblingMode::LastWriteWins };
        let buckets = BTreeMap::from([("sessions".parse().unwrap(), rules)]);
        before
            .successor(NextLayout { replicas: before.replicas(), members: before.members().to_vec(), buckets })
            .unwrap()
    }

    pub fn all() -> BucketsReport {
        BucketsReport::new(&ruled())
    }

    pub fn one() -> BucketReport {
        BucketReport::new(&ruled(), &"carts".parse().unwrap())
    }

    #[test]
    fn a_person_sees_which_buckets_differ() {
        let expected = "\
bucket      replicas  siblings
sessions           2  last-write-wins
all others         3  keep
";
        assert_eq!(all().human(&Paper::plain()), expected);
        let expected = "\
bucket  replicas  siblings
carts          3  keep

it has no rules of its own: `starling bucket set` gives it some
";
        assert_eq!(one().human(&Paper::plain()), expected);
    }
}
