//! `starling` against a real cluster: exit codes, and the JSON that scripts read. (What it says for people is pinned by
//! golden tests beside its reports.)

use std::fs;
use std::process::Stdio;

use serde_json::Value;
use starling_tests::{Cluster, Starling, eventually, list, text, usually};

/// Of an import that is killed in the middle: more than it can write before it first saves how far it came.
const RECORDS: usize = 10_000;

#[tokio::test(flavor = "multi_thread")]
async fn values_are_written_read_resolved_and_deleted() {
    let cluster = Cluster::start(3).await;
    let starling = Starling::of(&cluster);
    let put = starling.json(0, &["put", "carts", "alice", "1 apple"]);
    assert_eq!((&put["done"], &put["siblings"], &put["repeated"]), (&"put".into(), &1.into(), &false.into()));
    assert!(cluster.addresses().contains(&text(&put["via"]).to_owned()), "{put}");
    let get = starling.json(0, &["get", "carts", "alice"]);
    assert_eq!((&get["found"], values(&get)), (&true.into(), vec!["1 apple"]));

    let context = text(&get["context"]);
    starling.json(0, &["put", "carts", "alice", "2 pears", "--context", context]);
    let second = starling.json(0, &["put", "carts", "alice", "3 plums", "--context", context]);
    assert_eq!(second["siblings"], 2);
    assert_eq!(values(&starling.json(0, &["get", "carts", "alice"])), ["2 pears", "3 plums"]);
    let several = starling.run(&["get", "carts", "alice", "--raw"]);
    assert_eq!((several.code, several.text().as_str()), (Some(1), ""));
    assert!(several.stderr.contains("2 siblings"), "{}", several.stderr);
    let foreign = starling.error(1, &["put", "carts", "bob", "beans", "--context", context]);
    assert_eq!(foreign["kind"], "refused", "a context is of one key: {foreign}");

    starling.json(0, &["put", "carts", "alice", "2 pears, 3 plums", "--resolve"]);
    assert_eq!(starling.run(&["get", "carts", "alice", "--raw"]).text(), "2 pears, 3 plums");

    let deleted = starling.json(0, &["delete", "carts", "alice"]);
    assert_eq!(deleted["done"], "delete");
    let gone = starling.json(3, &["get", "carts", "alice"]);
    assert_eq!((&gone["found"], &gone["deleted"], values(&gone).len()), (&false.into(), &true.into(), 0));
    starling.json(0, &["put", "carts", "carol", "1 fig", "--ttl", "1h"]);
    let expiring = starling.json(0, &["get", "carts", "carol"]);
    assert!(text(&expiring["siblings"][0]["expires_at"]).ends_with('Z'), "{expiring}");
    let never_lived = starling.error(1, &["put", "carts", "carol", "2 figs", "--ttl", "0s"]);
    assert_eq!(never_lived["kind"], "refused");
    let never = starling.json(3, &["get", "carts", "nobody"]);
    assert_eq!((&never["found"], &never["deleted"], &never["context"]), (&false.into(), &false.into(), &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_comes_back_byte_for_byte() {
    let cluster = Cluster::start(3).await;
    let starling = Starling::of(&cluster);
    let bytes = [0xff, 0, b'\n', 0x80];
    let file = starling.file("value", "");
    fs::write(&file, bytes).unwrap();
    starling.json(0, &["put", "blobs", "b", "--file", &file]);
    let raw = starling.run(&["get", "blobs", "b", "--raw"]);
    assert_eq!((raw.code, raw.stdout.as_slice()), (Some(0), bytes.as_slice()));
    assert_eq!(starling.json(0, &["get", "blobs", "b"])["siblings"][0]["value"]["base64"], "/wAKgA==");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_replica_is_explained_and_can_be_asked_alone() {
    let cluster = Cluster::start(3).await;
    let starling = Starling::of(&cluster);
    let put = starling.json(0, &["put", "carts", "alice", "apples", "--w", "all", "--explain"]);
    let get = starling.json(0, &["get", "carts", "alice", "--r", "all", "--explain"]);
    for (explain, outcome) in [(&put["explain"], "stored"), (&get["explain"], "found")] {
        assert_eq!(explain["quorum"]["replicas"], 3);
        let mut nodes: Vec<&str> = list(&explain["replicas"]).iter().map(|replica| text(&replica["node"])).collect();
        nodes.sort_unstable();
        assert_eq!(nodes, ["n1", "n2", "n3"]);
        for replica in list(&explain["replicas"]) {
            assert_eq!((text(&replica["role"]), text(&replica["outcome"])), ("primary", outcome), "{replica}");
        }
    }
    for node in ["n1", "n2", "n3"] {
        let own = starling.json(0, &["get", "carts", "alice", "--replica", node]);
        assert_eq!((text(&own["replica"]), values(&own)), (node, vec!["apples"]));
    }
    assert_eq!(starling.error(2, &["get", "carts", "alice", "--replica", "n9"])["kind"], "usage");
    assert_eq!(starling.error(2, &["put", "carts", "alice", "pears", "--w", "4"])["kind"], "usage");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_buckets_are_listed() {
    let cluster = Cluster::start(3).await;
    let starling = Starling::of(&cluster);
    for (bucket, key) in [("carts", "alice"), ("carts", "albert"), ("carts", "bob"), ("shops", "corner")] {
        starling.json(0, &["put", bucket, key, "1"]);
    }
    starling.json(0, &["delete", "carts", "bob"]);
    let keys = |words: &[&str]| {
        let page = starling.json(0, &[&["keys", "carts"], words].concat());
        let keys: Vec<String> = list(&page["keys"]).iter().map(|key| text(&key["utf8"]).to_owned()).collect();
        (keys, page["next"]["utf8"].as_str().map(str::to_owned))
    };
    let owned = |text: &str| text.to_owned();
    assert_eq!(keys(&[]), (vec![owned("albert"), owned("alice")], None), "what was deleted is not listed");
    assert_eq!(keys(&["--prefix", "ali"]), (vec![owned("alice")], None));
    let (first, next) = keys(&["--limit", "1"]);
    assert_eq!(first, ["albert"]);
    assert_eq!(keys(&["--after", &next.unwrap()]).0, ["alice"]);
    assert_eq!(starling.json(0, &["buckets"])["buckets"], Value::from(vec!["carts", "shops"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cluster_describes_itself() {
    let cluster = Cluster::start(5).await;
    let starling = Starling::of(&cluster);
    let status = starling.json(0, &["cluster", "status"]);
    assert_eq!((&status["members"], &status["replicas"], &status["layout"]), (&5.into(), &3.into(), &1.into()));
    for (node, name) in list(&status["nodes"]).iter().zip(["n1", "n2", "n3", "n4", "n5"]) {
        let shown = (text(&node["node"]), text(&node["state"]), node["alive"].as_bool());
        assert_eq!(shown, (name, "serving", Some(true)));
    }
    let ring = starling.json(0, &["cluster", "ring"]);
    assert_eq!((list(&ring["ring"]).len(), list(&ring["members"]).len()), (64, 5));
    let held: u64 = list(&ring["members"]).iter().map(|member| member["held"].as_u64().unwrap()).sum();
    assert_eq!(held, 64 * 3);

    let info = starling.json(0, &["node", "info", "n2"]);
    let shown = (text(&info["nodes"][0]["node"]), text(&info["nodes"][0]["state"]), list(&info["nodes"]).len());
    assert_eq!(shown, ("n2", "serving", 1));
    assert_eq!(text(&info["nodes"][0]["address"]), cluster.address(2));

    starling.json(0, &["put", "carts", "alice", "apples", "--w", "all"]);
    let located = starling.json(0, &["locate", "carts", "alice"]);
    let (primaries, fallbacks) = list(&located["replicas"]).split_at(3);
    for primary in primaries {
        assert_eq!((text(&primary["role"]), text(&primary["holds"])), ("primary", "copy"), "{primary}");
        assert_eq!(primary["clock"], primaries[0]["clock"]);
    }
    for fallback in fallbacks {
        assert_eq!((text(&fallback["role"]), text(&fallback["holds"])), ("fallback", "nothing"), "{fallback}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missed_quorum_exits_with_4_and_names_who_was_missing() {
    let mut cluster = Cluster::start(5).await;
    let starling = Starling::of(&cluster);
    let client = cluster.client().await;
    let victim = cluster.primaries(&client, "carts", "alice")[1];
    let name = format!("n{victim}");
    cluster.kill(victim);
    cluster.wait_noticed_dead(victim).await;

    let put = starling.json(0, &["put", "carts", "alice", "apples", "--w", "all", "--explain"]);
    let stand_in = list(&put["explain"]["replicas"]).iter().find(|replica| replica["stands_in_for"] == name.as_str());
    assert_eq!(stand_in.expect("somebody has stood in")["hint_left"], true, "{put}");
    let hints = starling.json(0, &["node", "hints"]);
    assert!(hints["total"].as_u64().unwrap() > 0, "{hints}");
    assert!(list(&hints["hints"]).iter().any(|hint| hint["target"] == name.as_str()), "{hints}");
    assert_eq!(text(&hints["silent"][0]["node"]), name);

    let refused = starling.error(4, &["put", "carts", "alice", "pears", "--pw", "all"]);
    assert_eq!(refused["kind"], "outcome_unknown");
    let missing = list(&refused["replicas"]).iter().find(|replica| replica["node"] == name.as_str());
    assert_eq!(missing.expect("the dead primary is named")["outcome"], "failed", "{refused}");
    // It may be repeated under its id, and stays one write.
    let request = text(&refused["request"]).to_owned();
    let again = starling.json(0, &["put", "carts", "alice", "pears", "--request", &request]);
    assert_eq!(again["repeated"], true);

    let unread = starling.error(4, &["get", "carts", "alice", "--pr", "all"]);
    assert_eq!(unread["kind"], "quorum_not_met");
    let status = starling.json(0, &["cluster", "status"]);
    let dead = list(&status["nodes"]).iter().find(|node| node["node"] == name.as_str()).unwrap();
    assert_eq!((text(&dead["state"]), dead["alive"].as_bool()), ("silent", Some(false)));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_all_nodes_down_every_command_exits_with_5() {
    let mut cluster = Cluster::start(3).await;
    let starling = Starling::of(&cluster);
    starling.json(0, &["put", "carts", "alice", "apples"]);
    cluster.kill_all();
    for words in [
        &["get", "carts", "alice"][..],
        &["put", "carts", "alice", "pears"],
        &["delete", "carts", "alice"],
        &["keys", "carts"],
        &["locate", "carts", "alice"],
        &["cluster", "status"],
        &["node", "hints"],
    ] {
        assert_eq!(starling.error(5, words)["kind"], "unreachable", "{words:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_takes_lines_and_rows_and_lists_what_it_cannot_take() {
    let cluster = Cluster::start(3).await;
    let starling = Starling::of(&cluster);
    let lines = "{\"id\":\"a\",\"n\":1}\nnot json\n{\"n\":2}\n{\"id\":\"b\"}\n";
    let lines = starling.file("records.jsonl", lines);
    let imported = starling.json(1, &["import", "lines", &lines, "--key", "id"]);
    assert_eq!((&imported["stored"], &imported["failed"], &imported["complete"]), (&2.into(), &2.into(), &true.into()));
    let told: Vec<(u64, &str)> = list(&imported["failures"])
        .iter()
        .map(|failure| (failure["line"].as_u64().unwrap(), text(&failure["kind"])))
        .collect();
    assert_eq!(told, [(2, "malformed"), (3, "malformed")]);
    assert_eq!(
        starling.run(&["get", "lines", "a", "--raw"]).text(),
        "{\"id\":\"a\",\"n\":1}",
        "a line is kept as it is"
    );

    let rows = starling.file("records.csv", "id,name\n7,\"O'Neil, Z\"\n8,Y\n");
    let imported = starling.json(0, &["import", "rows", &rows, "--key", "id"]);
    assert_eq!((&imported["stored"], &imported["failed"]), (&2.into(), &0.into()));
    assert_eq!(starling.run(&["get", "rows", "7", "--raw"]).text(), r#"{"id":"7","name":"O'Neil, Z"}"#);
    let again = starling.json(0, &["import", "rows", &rows, "--key", "id"]);
    assert_eq!((&again["stored"], &again["repeated"]), (&0.into(), &2.into()), "the same record is the same write");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_import_goes_on_where_it_stood_and_not_on_another_file() {
    let cluster = Cluster::start(3).await;
    let starling = Starling::of(&cluster);
    let records = |from: usize| -> String { (from..from + RECORDS).map(|id| format!("{{\"id\":{id}}}\n")).collect() };
    let file = starling.file("records.jsonl", &records(0));

    kill_an_import(&starling, "resumed", &file).await;
    let resumed = starling.json(0, &["import", "resumed", &file, "--key", "id"]);
    let count = |name: &str| usize::try_from(resumed[name].as_u64().unwrap()).unwrap();
    assert_eq!((&resumed["complete"], count("failed"), count("with_siblings")), (&true.into(), 0, 0));
    assert!(count("skipped") > 0, "it went on: {resumed}");
    assert_eq!((count("skipped") + count("records"), count("stored") + count("repeated")), (RECORDS, count("records")));
    let keys = starling.run(&["keys", "resumed", "--limit", &RECORDS.to_string()]).text();
    assert_eq!(keys.lines().count(), RECORDS);

    kill_an_import(&starling, "changed", &file).await;
    starling.file("records.jsonl", &records(1));
    let refused = starling.error(1, &["import", "changed", &file, "--key", "id"]);
    assert!(text(&refused["message"]).contains("has changed since an earlier import"), "{refused}");
    let anew = starling.json(0, &["import", "changed", &file, "--key", "id", "--restart"]);
    assert_eq!((&anew["records"], &anew["skipped"]), (&RECORDS.into(), &0.into()));
}

/// Starts an import, one record at a time, and kills it once it has written down how far it came.
async fn kill_an_import(starling: &Starling, bucket: &str, file: &str) {
    let mut import = starling.command(&["import", bucket, file, "--key", "id", "--concurrency", "1"]);
    let mut import = import.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("the import notes how far it came", || {
        let ended = import.try_wait().unwrap();
        assert!(ended.is_none(), "the import ended before it was killed: {ended:?}");
        let notes = starling.import_notes();
        let noted = notes.iter().any(|notes| notes.contains(bucket) && !notes.contains("done = 0\n"));
        async move { if noted { Ok(()) } else { Err(format!("{notes:?}")) } }
    })
    .await;
    import.kill().unwrap();
    import.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_benchmark_measures_reads_and_writes() {
    let cluster = Cluster::start(3).await;
    let starling = Starling::of(&cluster);
    let duration = usually("1s", "60s");
    let bench = starling.json(0, &["bench", "--duration", duration, "--clients", "4", "--keys", "100"]);
    assert_eq!((&bench["workload"], &bench["clients"]), (&"mixed".into(), &4.into()));
    assert_eq!(list(&bench["errors"]).len(), 0, "{bench}");
    for (operation, name) in list(&bench["operations"]).iter().zip(["get", "put"]) {
        assert_eq!(text(&operation["operation"]), name);
        let latency = |percentile: &str| operation["latency_us"][percentile].as_u64().unwrap();
        assert!(operation["count"].as_u64().unwrap() > 0 && operation["per_second"].as_f64().unwrap() > 0.0);
        assert!(0 < latency("p50") && latency("p50") <= latency("p99") && latency("p99") <= latency("max"));
    }
}

/// The values of a `get`, sorted.
fn values(get: &Value) -> Vec<&str> {
    let mut values: Vec<&str> = list(&get["siblings"]).iter().map(|sibling| text(&sibling["value"]["utf8"])).collect();
    values.sort_unstable();
    values
}
