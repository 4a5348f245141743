//! What is refused, and that the refusal says what to do.

#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in tests, and does not know their helpers")]

mod stand_in;

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::process::{Command, Stdio};

use stand_in::{LIMIT, cluster, is_there, launch, shape, wait_ready};
use starling_local::{ClusterView, Launch, LocalCluster, LocalError, NodeState, Ports, Shape};

#[test]
fn what_a_node_is_not_cannot_be_undone() {
    let mut cluster = cluster(1);
    let refused = cluster.kill(1).unwrap_err().to_string();
    assert_eq!(refused, "n1 is not running: `starling local start n1` starts it");
    let pid = cluster.start(1).unwrap();
    let refused = cluster.start(1).unwrap_err().to_string();
    assert_eq!(refused, format!("n1 is already running (pid {pid}): nothing to start"));
    let refused = cluster.resume(1).unwrap_err().to_string();
    assert_eq!(refused, format!("n1 is running (pid {pid}), not paused: nothing to resume"));
    cluster.pause(1).unwrap();
    assert!(matches!(cluster.pause(1), Err(LocalError::AlreadyPaused { .. })));
    assert!(matches!(cluster.start(1), Err(LocalError::AlreadyPaused { .. })));
    let refused = cluster.start(2).unwrap_err().to_string();
    assert_eq!(refused, "there is no node `2`: this cluster has n1");
}

#[test]
fn a_process_that_was_given_a_recycled_pid_is_not_signalled() {
    let dir = tempfile::tempdir().unwrap();
    let mut ours = LocalCluster::create(dir.path(), shape(1)).unwrap();
    let pid = ours.start(1).unwrap();
    drop(ours);
    // A bystander takes the pid that the file remembers: seen from the file, exactly what recycling looks like.
    let mut bystander = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
    let file = dir.path().join("cluster.toml");
    let honest = fs::read_to_string(&file).unwrap();
    // The file names a process that began earlier: the clock behind the start time is too coarse to tell these two
    // apart.
    let forged = honest.replace(&format!("pid = {pid}\n"), &format!("pid = {}\n", bystander.id()));
    let forged = forged.replace("start_ticks = ", "start_ticks = 1 # ");
    fs::write(&file, &forged).unwrap();

    let mut forged = LocalCluster::open(dir.path()).unwrap();
    let died = NodeState::Died { pid: bystander.id() };
    assert_eq!(forged.status().unwrap()[0].state, died);
    assert!(matches!(forged.kill(1), Err(LocalError::NotRunning { .. })));
    assert!(matches!(forged.stop(1, LIMIT), Err(LocalError::NotRunning { .. })));
    assert!(matches!(forged.pause(1), Err(LocalError::NotRunning { .. })));
    forged.kill_all().unwrap();
    assert!(is_there(bystander.id()));
    drop(forged);

    bystander.kill().unwrap();
    bystander.wait().unwrap();
    fs::write(&file, honest).unwrap();
    LocalCluster::open(dir.path()).unwrap().kill(1).unwrap();
}

#[test]
fn a_busy_port_starts_none_of_the_nodes() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = LocalCluster::create(dir.path(), shape(3)).unwrap();
    let address = cluster.view().addresses()[1];
    let _holder = TcpListener::bind(address).unwrap();
    assert!(matches!(cluster.start_all(), Err(LocalError::PortBusy(busy)) if busy.address == address));
    assert!(cluster.view().status().unwrap().iter().all(|node| !node.state.is_alive()), "the first was not started");
}

#[test]
fn a_busy_port_is_explained_when_a_cluster_is_created() {
    let dir = tempfile::tempdir().unwrap();
    let holder = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let shape = Shape { nodes: 1, zones: 1, ports: Ports::From(port), launch: Launch::default() };
    let refused = LocalCluster::create(dir.path(), shape).unwrap_err().to_string();
    assert!(refused.starts_with(&format!("UDP port {port} on 127.0.0.1 is in use by `")), "{refused}");
    let pid = std::process::id();
    assert!(refused.ends_with(&format!(
        "(pid {pid}): stop it (`kill {pid}`), or make a new cluster on other ports, with --base-port"
    )));
    assert!(matches!(LocalCluster::open(dir.path()), Err(LocalError::NoCluster { .. })));
}

#[test]
fn a_busy_port_is_explained_when_a_node_is_started() {
    let mut cluster = cluster(1);
    let _holder = TcpListener::bind(cluster.view().addresses()[0]).unwrap();
    assert!(matches!(cluster.start(1), Err(LocalError::PortBusy(_))));
    assert_eq!(cluster.status().unwrap()[0].state, NodeState::Stopped);
}

#[test]
fn a_newer_format_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let text = "format = 2\n[new]\nnodes = 'elsewhere'\n";
    fs::write(dir.path().join("cluster.toml"), text).unwrap();
    assert!(matches!(LocalCluster::open(dir.path()), Err(LocalError::NewerFormat { found: 2, .. })));
    let refused = LocalCluster::create(dir.path(), shape(1)).unwrap_err();
    assert!(matches!(refused, LocalError::NewerFormat { found: 2, .. }), "{refused}");
    assert_eq!(fs::read_to_string(dir.path().join("cluster.toml")).unwrap(), text);
}

#[test]
fn a_second_command_is_locked_out_and_may_still_look() {
    let dir = tempfile::tempdir().unwrap();
    let first = LocalCluster::create(dir.path(), shape(1)).unwrap();
    let refused = LocalCluster::open(dir.path()).unwrap_err().to_string();
    let pid = std::process::id();
    assert!(refused.starts_with(&format!("another command (pid {pid}) is changing the cluster")), "{refused}");
    assert_eq!(ClusterView::read(dir.path()).unwrap().status().unwrap().len(), 1);
    drop(first);
    LocalCluster::open(dir.path()).unwrap();
}

#[test]
fn a_cluster_is_created_once() {
    let dir = tempfile::tempdir().unwrap();
    LocalCluster::create(dir.path(), shape(2)).unwrap();
    let refused = LocalCluster::create(dir.path(), shape(3)).unwrap_err();
    assert!(matches!(refused, LocalError::Exists { nodes: 2, .. }), "{refused}");
}

#[test]
fn a_wipe_is_refused_while_a_node_runs_or_is_paused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a note of the user's"), "").unwrap();
    let mut cluster = LocalCluster::create(dir.path(), shape(2)).unwrap();
    cluster.start(2).unwrap();
    wait_ready(&cluster, 2);
    cluster.pause(2).unwrap();
    let data = cluster.view().data_dir(2).unwrap();
    assert!(matches!(cluster.wipe_node(2), Err(LocalError::WipeWhileRunning { .. })));
    let refused = cluster.wipe().unwrap_err().to_string();
    assert_eq!(refused, "n2 is still running: first run `starling local stop`, or `starling local down` for all");
    assert!(data.exists());

    let mut cluster = LocalCluster::open(dir.path()).unwrap();
    cluster.kill(2).unwrap();
    cluster.wipe_node(2).unwrap();
    assert!(!data.exists() && cluster.view().log_path(2).unwrap().exists());
    cluster.wipe().unwrap();
    let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["a note of the user's", "lock"]);
}

#[test]
fn a_program_that_cannot_run_is_named() {
    let mut cluster = cluster(1);
    cluster.set_launch(Launch { binary: Some("/nowhere/starling-node".into()), ..launch(&[]) }).unwrap();
    let refused = cluster.start(1).unwrap_err().to_string();
    assert!(refused.contains("/nowhere/starling-node") && refused.contains("cargo build"), "{refused}");
}
