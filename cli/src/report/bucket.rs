//! The rules and settings of buckets.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;
use starling_core::layout::Layout;
use starling_core::name::BucketName;
use starling_core::object::SiblingMode;
use starling_core::settings::{Register, Registers, Setting, Settings};

use crate::names::Names;
use crate::output::paper::{Paper, Tone, finish};
use crate::output::units::{moment, size};
use crate::report::Report;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BucketsReport {
    /// Those that have rules or settings of their own, ascending by name.
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
    /// Those that were changed, in the order of their names.
    pub settings: Vec<SettingShape>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RulesShape {
    /// As many as there are members, at the most.
    pub replicas: usize,
    pub siblings: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SettingShape {
    pub setting: String,
    /// As nodes say it: levels, numbers, milliseconds, bytes. None if it was cleared.
    pub value: Option<String>,
    /// In UTC.
    pub set_at: String,
    /// The node; none if that has another directory by now, or has left.
    pub set_on: Option<String>,
}

impl BucketsReport {
    pub fn new(layout: &Layout, settings: &Settings, names: &Names) -> BucketsReport {
        let replicas = layout.replicas().at_most(layout.members().len()).get();
        let set =
            settings.buckets().filter(|(_, registers)| registers.values().any(|register| register.text.is_some()));
        let own: BTreeSet<&BucketName> = layout.buckets().keys().chain(set.map(|(bucket, _)| bucket)).collect();
        let report = |bucket: &BucketName| BucketReport::new(layout, bucket, settings.registers(bucket), names);
        BucketsReport {
            buckets: own.into_iter().map(report).collect(),
            others: RulesShape { replicas, siblings: word(SiblingMode::default()) },
        }
    }
}

impl BucketReport {
    pub fn new(layout: &Layout, bucket: &BucketName, registers: Option<&Registers>, names: &Names) -> BucketReport {
        let (replicas, siblings) = (layout.replicas_of(bucket).get(), word(layout.rules(bucket).mode));
        let own_rules = layout.buckets().contains_key(bucket);
        let settings = registers.into_iter().flatten().map(|(name, register)| SettingShape::new(name, register, names));
        let rules = RulesShape { replicas, siblings };
        BucketReport { bucket: bucket.to_string(), own_rules, rules, settings: settings.collect() }
    }

    /// `r=one ttl=30m`.
    fn settings_in_short(&self) -> String {
        let set = self.settings.iter().filter(|setting| setting.value.is_some());
        let set: Vec<String> = set.map(|setting| format!("{}={}", setting.setting, setting.read())).collect();
        set.join(" ")
    }
}

impl SettingShape {
    fn new(name: &str, register: &Register, names: &Names) -> SettingShape {
        let Register { version, text } = register;
        SettingShape {
            setting: name.to_owned(),
            value: text.clone(),
            set_at: moment(version.at),
            set_on: names.directory(version.by),
        }
    }

    /// For people: without spaces.
    fn read(&self) -> String {
        let Some(text) = &self.value else { return "default".to_owned() };
        let number: Option<u64> = text.parse().ok();
        match (self.setting.parse(), number) {
            (Ok(Setting::Ttl), Some(millis)) => {
                humantime::format_duration(Duration::from_millis(millis)).to_string().replace(' ', "")
            }
            (Ok(Setting::MaxObjectSize), Some(bytes)) => size(bytes).replace(' ', ""),
            (Ok(_) | Err(_), _) => text.clone(),
        }
    }
}

fn word(mode: SiblingMode) -> &'static str {
    match mode {
        SiblingMode::Keep => "keep",
        SiblingMode::LastWriteWins => "last-write-wins",
    }
}

impl Report for BucketsReport {
    fn human(&self, paper: &Paper) -> String {
        let mut table = paper.table(&["bucket", "replicas", "siblings", "settings"]);
        let own = self.buckets.iter().map(|bucket| (bucket.bucket.as_str(), bucket.rules, bucket.settings_in_short()));
        for (bucket, RulesShape { replicas, siblings }, settings) in
            own.chain([("all others", self.others, String::new())])
        {
            let tone = if bucket == "all others" { Tone::Plain } else { Tone::Strong };
            table.add_row([
                paper.cell(bucket, tone),
                paper.cell(&replicas.to_string(), Tone::Plain),
                paper.cell(siblings, Tone::Plain),
                paper.cell(&settings, Tone::Plain),
            ]);
        }
        finish(table, &[1])
    }
}

impl Report for BucketReport {
    fn human(&self, paper: &Paper) -> String {
        let RulesShape { replicas, siblings } = self.rules;
        let mut rules = paper.table(&["bucket", "replicas", "siblings"]);
        rules.add_row([
            paper.cell(&self.bucket, Tone::Strong),
            paper.cell(&replicas.to_string(), Tone::Plain),
            paper.cell(siblings, Tone::Plain),
        ]);
        let mut text = finish(rules, &[1]);
        if !self.settings.is_empty() {
            let mut table = paper.table(&["setting", "value", "set at", "on"]);
            for setting in &self.settings {
                table.add_row([
                    paper.cell(&setting.setting, Tone::Strong),
                    paper.cell(&setting.read(), Tone::Plain),
                    paper.cell(&setting.set_at, Tone::Faint),
                    paper.cell(setting.set_on.as_deref().unwrap_or("a directory no longer in use"), Tone::Faint),
                ]);
            }
            text.push('\n');
            text.push_str(&finish(table, &[]));
        } else if !self.own_rules {
            text.push_str("\nit has neither rules nor settings of its own: `starling bucket set` gives it some\n");
        }
        text
    }
}

#[cfg(test)]
pub mod tests {
    use std::collections::BTreeMap;

    use starling_core::ids::DirectoryId;
    use starling_core::layout::{BucketRules, NextLayout};
    use starling_core::quorum::ReplicaCount;
    use starling_core::settings::Changes;
    use starling_core::wall::WallTime;

    use super::*;
    use crate::report::tests::layout;

    fn ruled() -> (Layout, Names) {
        let before = layout();
        let two = Some(ReplicaCount::try_from(2).unwrap());
        let rules = BucketRules { replicas: two, mode: SiblingMode::LastWriteWins };
        let buckets = BTreeMap::from([("sessions".parse().unwrap(), rules)]);
        let next = NextLayout { replicas: before.replicas(), members: before.members().to_vec(), buckets };
        let after = before.successor(next).unwrap();
        let names = Names::of_layout(&after);
        (after, names)
    }

    fn set() -> Settings {
        let mut settings = Settings::default();
        let mut change = |bucket: &str, name: &str, text: Option<&str>, by: u64| {
            let changes = Changes::from([(name.to_owned(), text.map(str::to_owned))]);
            let at = WallTime(1_762_078_272_345);
            settings.change(&bucket.parse().unwrap(), &changes, at, DirectoryId(by)).unwrap();
        };
        change("sessions", "r", Some("one"), 11);
        change("sessions", "ttl", Some("5400000"), 12);
        change("sessions", "max_object_size", Some("65536"), 11);
        change("carts", "w", Some("all"), 11);
        change("carts", "w", None, 99);
        settings
    }

    pub fn all() -> BucketsReport {
        let (layout, names) = ruled();
        BucketsReport::new(&layout, &set(), &names)
    }

    pub fn one(bucket: &str) -> BucketReport {
        let (layout, names) = ruled();
        let bucket = bucket.parse().unwrap();
        BucketReport::new(&layout, &bucket, set().registers(&bucket), &names)
    }

    #[test]
    fn a_person_sees_which_buckets_differ() {
        let expected = "\
bucket      replicas  siblings         settings
sessions           2  last-write-wins  max_object_size=64.0KiB r=one ttl=1h30m
all others         3  keep
";
        assert_eq!(all().human(&Paper::plain()), expected);
    }

    #[test]
    fn a_person_sees_what_is_set_since_when_and_where_that_was_said() {
        let expected = "\
bucket    replicas  siblings
sessions         2  last-write-wins

setting          value    set at                    on
max_object_size  64.0KiB  2025-11-02T10:11:12.345Z  n1
r                one      2025-11-02T10:11:12.345Z  n1
ttl              1h30m    2025-11-02T10:11:12.345Z  n2
";
        assert_eq!(one("sessions").human(&Paper::plain()), expected);
        let expected = "\
bucket  replicas  siblings
carts          3  keep

setting  value    set at                    on
w        default  2025-11-02T10:11:12.346Z  a directory no longer in use
";
        assert_eq!(one("carts").human(&Paper::plain()), expected);
        let expected = "\
bucket  replicas  siblings
others         3  keep

it has neither rules nor settings of its own: `starling bucket set` gives it some
";
        assert_eq!(one("others").human(&Paper::plain()), expected);
    }
}
