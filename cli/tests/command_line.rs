//! The built program, as a shell meets it, without a cluster.
#![allow(clippy::unwrap_used, reason = "a helper fails as its test does")]

use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// With no settings but these: neither the machine's cluster nor its configuration is in sight.
fn starling(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_starling"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("STARLING_") {
            command.env_remove(name);
        }
    }
    let nowhere = env!("CARGO_TARGET_TMPDIR");
    for home in ["HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"] {
        command.env(home, format!("{nowhere}/no-home"));
    }
    command.args(words).stdin(Stdio::null());
    command
}

fn run(words: &[&str]) -> Output {
    starling(words).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// An address at which nobody listens: it was ours a moment ago.
fn silent_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn usage_errors_exit_with_2_and_suggest() {
    let misspelt = run(&["delet", "b", "k"]);
    assert_eq!(misspelt.status.code(), Some(2));
    assert!(stderr(&misspelt).contains("'delete'"), "{}", stderr(&misspelt));
    for words in [
        &["get", "b"][..],
        &["get", "b", "k", "--r", "many"],
        &["put", "b", "k"],
        &["put", "b", "k", "v", "--file", "f"],
        &["put", "b", "k", "v", "--context", "!"],
        &["put", "b", "k", "v", "--resolve", "--context", "AQ"],
        &["cluster", "init", "--partitions", "100"],
        &["get", "b", "k", "--node", "nowhere"],
        &["get", "b", "k", "--config", "/nowhere/config.toml"],
        &["bench", "--clients", "9", "--keys", "3"],
        &["bench", "--value-size", "31MiB"],
        &["keys", "b", "--limit", "0"],
        &["import", "b", "f.jsonl", "--verify", "--replace"],
        &["import", "b", "f.jsonl", "--r", "one"],
    ] {
        assert_eq!(run(words).status.code(), Some(2), "{words:?}");
    }
}

#[test]
fn a_usage_error_is_json_if_json_was_asked_for() {
    let output = run(&["delet", "-o", "json"]);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(2), ""));
    let text = stderr(&output);
    assert!(
        text.starts_with(r#"{"error":{"kind":"usage","message":"unrecognized subcommand 'delet'","hint":"#),
        "{text}"
    );
    assert_eq!(text.lines().count(), 1);
}

#[test]
fn every_command_shows_examples() {
    for path in [
        "",
        "get",
        "put",
        "delete",
        "keys",
        "buckets",
        "import",
        "locate",
        "cluster",
        "cluster init",
        "cluster status",
        "cluster ring",
        "node",
        "node info",
        "node hints",
        "local",
        "local up",
        "local down",
        "local status",
        "local kill",
        "local pause",
        "local resume",
        "local stop",
        "local start",
        "local logs",
        "local wipe",
        "bench",
        "completions",
    ] {
        let words: Vec<&str> = path.split_whitespace().chain(["--help"]).collect();
        let output = run(&words);
        assert_eq!(output.status.code(), Some(0), "{path}");
        let help = stdout(&output);
        assert!(help.contains("\nExamples:\n  "), "{path} --help shows no examples:\n{help}");
        assert!(help.lines().all(|line| line.chars().count() <= 120), "{path} --help is too wide:\n{help}");
    }
}

#[test]
fn the_version_names_the_build() {
    let output = run(&["--version"]);
    let text = stdout(&output);
    assert!(text.starts_with("starling 0.") && text.trim_end().ends_with(')'), "{text}");
}

#[test]
fn nothing_listening_exits_with_5_and_says_what_to_do() {
    let address = silent_address();
    for words in [&["get", "b", "k"][..], &["put", "b", "k", "v"], &["cluster", "status"], &["buckets"]] {
        let output = starling(words).args(["--node", &address]).output().unwrap();
        assert_eq!(output.status.code(), Some(5), "{words:?}");
        let text = stderr(&output);
        assert!(text.contains(&address) && text.contains("next: check that the nodes run"), "{text}");
    }
    let output = starling(&["get", "b", "k", "-o", "json"]).env("STARLING_NODES", &address).output().unwrap();
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(5), ""));
    let text = stderr(&output);
    assert!(text.starts_with(r#"{"error":{"kind":"unreachable","message":"#), "{text}");
    assert!(text.contains("which come from STARLING_NODES"), "{text}");
}

#[test]
fn no_command_outlasts_its_timeout_though_nobody_says_a_word() {
    // The kernel takes the connection; nobody accepts it.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    for words in [
        &["get", "b", "k"][..],
        &["put", "b", "k", "v", "--resolve"],
        &["keys", "b"],
        &["cluster", "ring"],
        &["cluster", "init"],
    ] {
        let began = Instant::now();
        let output = starling(words).args(["--node", &address, "--timeout", "300ms"]).output().unwrap();
        assert_eq!(output.status.code(), Some(5), "{words:?}");
        assert!(began.elapsed() < Duration::from_millis(1_000), "{words:?} took {:?}", began.elapsed());
    }
}

#[test]
fn a_value_is_never_part_of_an_error() {
    let output = starling(&["put", "b", "k", "hunter2", "--node", &silent_address()]).output().unwrap();
    assert!(!stderr(&output).contains("hunter2"));
}

#[test]
fn completions_are_made_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = run(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        assert!(stdout(&output).contains("starling"), "{shell}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut child = starling(&["completions", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
}

#[test]
fn local_commands_say_that_there_is_no_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("none");
    for command in ["status", "down"] {
        let output = run(&["local", command, "--dir", dir.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1));
        let text = stderr(&output);
        assert!(text.contains("there is no cluster in") && text.contains("`starling local up`"), "{text}");
    }
    assert!(!dir.exists(), "looking makes nothing");
}

#[test]
fn an_import_looks_at_its_file_before_it_connects() {
    let mut file = tempfile::NamedTempFile::with_suffix(".jsonl").unwrap();
    writeln!(file, r#"{{"id":"hunter2"}}"#).unwrap();
    let output = run(&["import", "b", file.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains("no field `key`") && text.contains("there are id") && !text.contains("hunter2"), "{text}");
}
