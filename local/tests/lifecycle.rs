//! What a caller sees of processes that start, pause, and end.

#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in tests, and does not know their helpers")]

mod stand_in;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::time::Duration;

use stand_in::{LIMIT, cluster, is_there, launch, shape, wait_for, wait_ready};
use starling_local::{ClusterView, EphemeralCluster, Exit, Launch, LocalCluster, LocalError, NodeRef, NodeState};

fn states(cluster: &LocalCluster) -> Vec<NodeState> {
    cluster.status().unwrap().into_iter().map(|node| node.state).collect()
}

fn assert_success(exit: Exit) {
    assert!(matches!(exit, Exit::Status(status) if status.success()), "{exit}");
}

#[test]
fn a_node_runs_pauses_goes_on_and_stops() {
    let mut cluster = cluster(2);
    let pid = cluster.start(1).unwrap();
    wait_ready(&cluster, 1);
    assert_eq!(states(&cluster), [NodeState::Running { pid }, NodeState::Stopped]);
    cluster.pause(1).unwrap();
    assert_eq!(states(&cluster)[0], NodeState::Paused { pid });
    cluster.resume(1).unwrap();
    assert_eq!(states(&cluster)[0], NodeState::Running { pid });
    assert_success(cluster.stop(1, LIMIT).unwrap());
    assert_eq!(states(&cluster)[0], NodeState::Stopped);
    assert!(!is_there(pid));
}

#[test]
fn a_killed_node_starts_again_under_another_pid_and_keeps_its_log() {
    let mut cluster = cluster(1);
    let first = cluster.start(1).unwrap();
    wait_ready(&cluster, 1);
    let exit = cluster.kill(1).unwrap();
    assert_eq!(exit.to_string(), "signal: 9 (SIGKILL)");
    assert!(!is_there(first));
    let second = cluster.start(1).unwrap();
    assert_ne!(first, second);
    wait_for("the second start's log", || {
        let log = cluster.log_tail(1, 100).unwrap();
        (log.iter().filter(|line| line.starts_with("ready: ")).count() == 2).then_some(())
    });
}

#[test]
fn a_node_is_told_who_it_is_and_whom_to_ask() {
    let mut cluster = cluster(2);
    cluster.start("n2".parse::<NodeRef>().unwrap()).unwrap();
    let ready = wait_ready(&cluster, 2);
    let (data, addresses) = (cluster.view().data_dir(2).unwrap(), cluster.view().addresses());
    let told = format!(
        "ready: --name n2 --zone z2 --data-dir {} --listen {} --seeds {},{}",
        data.display(),
        addresses[1],
        addresses[0],
        addresses[1]
    );
    assert_eq!(ready, told);
    assert!(data.is_dir());
}

#[test]
fn our_own_settings_and_files_do_not_leak_into_a_node_and_the_callers_arrive() {
    // The test runs itself, since changing the environment of a process with threads is unsound.
    let inner = Command::new("bash")
        .args(["-c", r#"exec 9>/dev/null; exec "$@""#, "bash"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "inner_prints_a_nodes_log", "--ignored", "--nocapture"])
        .env("STARLING_LOG", "leaked")
        .output()
        .unwrap();
    let printed = String::from_utf8(inner.stdout).unwrap();
    assert!(printed.contains("environment: STARLING_FAULT=torn TEST_MARK=1 \n"), "{printed}");
    assert!(!printed.contains("descriptor 9 leaked"), "{printed}");
}

#[test]
#[ignore = "run by another test, with an environment of its own"]
fn inner_prints_a_nodes_log() {
    let mut cluster = cluster(1);
    let env = [("STARLING_FAULT", "torn"), ("TEST_MARK", "1")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    cluster.set_launch(Launch { env: env.into(), ..launch(&[]) }).unwrap();
    cluster.start(1).unwrap();
    wait_ready(&cluster, 1);
    println!("{}", cluster.log_tail(1, 100).unwrap().join("\n"));
}

#[test]
fn a_node_that_exits_at_once_is_noticed_with_its_status_and_its_last_words() {
    let mut cluster = cluster(1);
    cluster.set_launch(launch(&["--fail"])).unwrap();
    let pid = cluster.start(1).unwrap();
    let exit = wait_for("the node to exit", || cluster.exited(1).unwrap());
    assert_eq!(exit.to_string(), "exit status: 3");
    assert_eq!(cluster.log_tail(1, 1).unwrap(), ["n1: no such option"]);
    assert_eq!(states(&cluster), [NodeState::Died { pid }]);
    let refused = cluster.stop(1, LIMIT).unwrap_err();
    assert!(matches!(refused, LocalError::NotRunning { died: Some(died), .. } if died == pid), "{refused}");
    cluster.set_launch(launch(&[])).unwrap();
    cluster.start(1).unwrap();
    assert_eq!(cluster.exited(1).unwrap(), None);
}

#[test]
fn a_node_that_does_not_heed_sigterm_is_left_to_the_caller() {
    let mut cluster = cluster(2);
    cluster.set_launch(launch(&["--deaf"])).unwrap();
    cluster.start_all().unwrap();
    wait_ready(&cluster, 1);
    wait_ready(&cluster, 2);
    let refused = cluster.stop_all(Duration::from_millis(50)).unwrap_err();
    assert_eq!(refused.to_string(), "n1, n2 are still running after 50 ms: wait longer, or use `starling local kill`");
    cluster.kill_all().unwrap();
    assert_eq!(states(&cluster), [NodeState::Stopped; 2]);
}

#[test]
fn a_paused_node_can_be_stopped() {
    let mut cluster = cluster(1);
    cluster.start(1).unwrap();
    wait_ready(&cluster, 1);
    cluster.pause(1).unwrap();
    assert_success(cluster.stop(1, LIMIT).unwrap());
}

#[test]
fn the_next_command_finds_the_nodes_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = LocalCluster::create(dir.path(), shape(2)).unwrap();
    let pid = first.start(1).unwrap();
    wait_ready(&first, 1);
    drop(first);
    let mut second = LocalCluster::open(dir.path()).unwrap();
    assert_eq!(states(&second), [NodeState::Running { pid }, NodeState::Stopped]);
    assert_eq!(second.start_all().unwrap().len(), 1);
    wait_ready(&second, 2);
    assert_eq!(second.stop(1, LIMIT).unwrap(), Exit::Unknown);
    second.stop_all(LIMIT).unwrap();
    wait_for("the first value's child to be waited for", || {
        (!fs::exists(format!("/proc/{pid}")).unwrap()).then_some(())
    });
}

#[test]
fn status_counts_a_nodes_data() {
    let mut cluster = cluster(1);
    let data = cluster.view().data_dir(1).unwrap();
    fs::create_dir_all(data.join("below")).unwrap();
    fs::write(data.join("below/file"), [0; 1000]).unwrap();
    let status = &cluster.status().unwrap()[0];
    assert_eq!((status.data_bytes, status.since), (1000, None));
    cluster.start(1).unwrap();
    assert!(cluster.status().unwrap()[0].since.unwrap().elapsed().unwrap() < LIMIT);
}

#[test]
fn a_panic_ends_the_nodes_and_keeps_the_logs() {
    let mut cluster = cluster(1);
    let pid = cluster.start(1).unwrap();
    let dir = cluster.view().dir().to_owned();
    wait_ready(&cluster, 1);
    let panicked = catch_unwind(AssertUnwindSafe(move || {
        let _owned = cluster;
        panic!("as a failing test does");
    }));
    assert!(panicked.is_err());
    assert!(!is_there(pid));
    let log = fs::read_to_string(dir.join("nodes/n1/log")).unwrap();
    assert!(log.contains("ready: "), "{log}");
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_test_that_passes_leaves_nothing_behind() {
    let mut cluster = cluster(1);
    let pid = cluster.start(1).unwrap();
    cluster.pause(1).unwrap();
    let dir = cluster.view().dir().to_owned();
    drop(cluster);
    assert!(!is_there(pid) && !dir.exists());
}

#[test]
fn nodes_of_an_ephemeral_cluster_die_with_a_process_that_drops_nothing() {
    let inner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "inner_starts_a_node_and_aborts", "--ignored", "--nocapture"])
        .env("TEST_MAY_ABORT", "1")
        .output()
        .unwrap();
    let printed = String::from_utf8(inner.stdout).unwrap();
    let dir = printed.lines().find_map(|line| line.strip_prefix("cluster in ")).expect("it prints where");
    let view = ClusterView::read(dir).unwrap();
    wait_for("the kernel to kill the node", || matches!(view.state(1).unwrap(), NodeState::Died { .. }).then_some(()));
    fs::remove_dir_all(dir).unwrap();
}

#[test]
#[ignore = "run by another test, since it aborts"]
fn inner_starts_a_node_and_aborts() {
    if std::env::var_os("TEST_MAY_ABORT").is_none() {
        return; // Somebody runs all ignored tests.
    }
    let mut cluster = EphemeralCluster::create(shape(1)).unwrap();
    cluster.start(1).unwrap();
    wait_ready(&cluster, 1);
    println!("\ncluster in {}", cluster.view().dir().display());
    std::process::abort();
}
