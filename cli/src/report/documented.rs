//! `docs/json.md` against what is really written: each example has to be the line that the report makes, and each field in it
//! has to be explained where the example stands, or where the document speaks of all of them.

use serde::Serialize;
use serde_json::Value;
use starling_core::ids::NodeId;
use starling_core::report::{Outcome, Repair, ReplicaReport, Role};

use crate::failure::{Failure, Kind};
use crate::output::json_line;
use crate::report::explain::tests::{a_write, names, report as replica};
use crate::report::explain::{Explain, QuorumShape};
use crate::report::get::GetReport;
use crate::report::ring::RingReport;
use crate::report::{
    ErrorReport, bench, bucket, cluster, force, get, history, import, listing, local, locate, node, plan, repair,
    tests, tombstones, transfers, write,
};

const DOCUMENT: &str = include_str!("../../../docs/json.md");
/// Above a part that speaks of several shapes.
const COMMON: &str = "Common to all";

/// What has an example, by the heading under which it stands.
fn examples() -> Vec<(&'static str, String)> {
    fn example(heading: &'static str, report: &impl Serialize) -> (&'static str, String) {
        (heading, json_line(report))
    }
    let layout = tests::layout();
    vec![
        example("get", &get::tests::report(&["3 apples"])),
        example("get", &explained_read()),
        example("put, delete", &write::tests::report(1)),
        example("Replicas", &a_write()[2]),
        example("keys", &listing::tests::keys()),
        example("buckets", &listing::tests::buckets()),
        example("locate", &locate::tests::report()),
        example("import", &import::tests::report()),
        example("import --verify", &import::tests::verification()),
        example("bench", &bench::tests::report()),
        example("cluster init, cluster ring", &RingReport::summary(&layout)),
        example("cluster init, cluster ring", &RingReport::new(&layout)),
        example("cluster status", &cluster::tests::report()),
        example("cluster join, leave, remove, replace, weight, zone, replicas, plan", &plan::tests::report()),
        example("cluster unstage", &plan::tests::forgotten()),
        example("cluster commit", &plan::tests::chosen()),
        example("cluster force-remove", &force::tests::plan()),
        example("cluster force-remove", &force::tests::done()),
        example("cluster history", &history::tests::report()),
        example("cluster transfers", &transfers::tests::report()),
        example("bucket list, bucket show", &bucket::tests::all()),
        example("bucket list, bucket show", &bucket::tests::one("carts")),
        example("node info", &node::tests::info()),
        example("node hints", &node::tests::hints()),
        example("node verify", &repair::tests::verified()),
        example("repair", &repair::tests::repaired()),
        example("tombstones", &tombstones::tests::report()),
        example("local up", &local::tests::up()),
        example("local status", &local::tests::status()),
        example("local down, kill, pause, resume, stop, start, wipe", &local::tests::killed()),
        example("local logs", &local::tests::log()),
        example("Failures", &ErrorReport { error: &tests::failure() }),
        example("Failures of quorums", &ErrorReport { error: &missed_quorum() }),
    ]
}

fn explained_read() -> GetReport {
    let found = replica(1, Role::Primary, Outcome::Found { siblings: 1 });
    let behind = ReplicaReport { repair: Repair::Done, ..replica(2, Role::Primary, Outcome::NotFound) };
    let explain =
        Explain { quorum: Some(QuorumShape { replicas: 2, primaries: 0 }), replicas: names().lines(&[found, behind]) };
    GetReport { replica: Some(names().node(NodeId(1))), explain: Some(explain), ..get::tests::report(&["3 apples"]) }
}

fn missed_quorum() -> Failure {
    Failure {
        replicas: a_write().drain(1..2).collect(),
        request: Some("07".to_owned()),
        ..Failure::new(Kind::OutcomeUnknown, "write quorum not met, outcome unknown: 1 of 2 acknowledged")
            .hint("the same command with --request 07 repeats it safely")
    }
}

/// Heading, text, and the lines of JSON in it.
struct Section<'a> {
    heading: &'a str,
    text: &'a str,
    examples: Vec<&'a str>,
}

fn sections() -> Vec<Section<'static>> {
    let parts = DOCUMENT.split("\n## ").skip(1);
    let section = |part: &'static str| {
        let (heading, text) = part.split_once('\n').unwrap();
        Section { heading, text, examples: text.lines().filter(|line| line.starts_with('{')).collect() }
    };
    parts.map(section).collect()
}

#[test]
fn every_example_is_what_is_really_written() {
    let sections = sections();
    let documented: Vec<(&str, &str)> =
        sections.iter().flat_map(|section| section.examples.iter().map(|line| (section.heading, *line))).collect();
    let written = examples();
    let written: Vec<(&str, &str)> = written.iter().map(|(heading, line)| (*heading, line.as_str())).collect();
    for pair in &written {
        assert!(documented.contains(pair), "docs/json.md should have, under `{}`:\n{}", pair.0, pair.1);
    }
    for pair in &documented {
        assert!(written.contains(pair), "docs/json.md has, under `{}`, what nothing writes:\n{}", pair.0, pair.1);
    }
}

#[test]
fn every_field_of_an_example_is_explained() {
    let sections = sections();
    let common: String =
        sections.iter().filter(|section| [COMMON, "Replicas"].contains(&section.heading)).map(|s| s.text).collect();
    for section in &sections {
        for example in &section.examples {
            let mut fields = Vec::new();
            collect_fields(&serde_json::from_str(example).unwrap(), &mut fields);
            for field in fields {
                let named = format!("`{field}`");
                let explained = section.text.contains(&named) || common.contains(&named);
                assert!(explained, "docs/json.md does not explain `{field}` under `{}`", section.heading);
            }
        }
    }
}

fn collect_fields(value: &Value, fields: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                fields.push(name.clone());
                collect_fields(value, fields);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect_fields(item, fields)),
        _ => {}
    }
}

#[test]
fn every_kind_of_failure_is_listed_with_its_exit_code() {
    let kinds = [
        Kind::Usage,
        Kind::Refused,
        Kind::Failed,
        Kind::Internal,
        Kind::QuorumNotMet,
        Kind::OutcomeUnknown,
        Kind::Incomplete,
        Kind::NoCluster,
        Kind::Unreachable,
    ];
    for kind in kinds {
        let row = format!("| `{kind}` | {} |", kind.code());
        assert!(DOCUMENT.contains(&row), "docs/json.md has no row {row}");
    }
}
