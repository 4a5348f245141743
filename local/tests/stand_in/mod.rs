//! A program that takes a node's flags and only stays there, so that these tests need no node.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use starling_local::{EphemeralCluster, Launch, Ports, Shape};

/// Far more than anything here takes; only a failing test waits for it.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Waits on a pipe that nobody writes to, rather than for a `sleep` that would outlive it; and no longer than its
/// folder is there, should a test fail.
const SCRIPT: &str = r#"#!/usr/bin/env bash
arguments="$*"
while [ $# -gt 0 ]; do
    case "$1" in
        --name) name=$2; shift 2 ;;
        --data-dir) data=$2; shift 2 ;;
        --zone | --listen | --seeds) shift 2 ;;
        --deaf) deaf=yes; shift ;;
        --fail) echo "$name: no such option" >&2; exit 3 ;;
        *) echo "what is $1?" >&2; exit 2 ;;
    esac
done
if [ "$deaf" ]; then trap '' TERM; else trap 'exit 0' TERM; fi
[ -p "$data/pipe" ] || mkfifo "$data/pipe"
exec 3<>"$data/pipe"
echo "environment: $(env | grep -E '^(STARLING|TEST)_' | sort | tr '\n' ' ')"
[ -e /proc/$$/fd/9 ] && echo "descriptor 9 leaked"
echo "ready: $arguments"
while [ -d "$data" ]; do read -r -t 5 -u 3 _; done
"#;

/// Written once, before any test forks: a child between fork and exec would hold it open for writing, and the kernel
/// refuses to run a file that is (ETXTBSY).
static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("starling-local").join(env!("CARGO_CRATE_NAME"));
    fs::create_dir_all(&dir).unwrap();
    let (path, new) = (dir.join("starling-node"), dir.join(format!("{}.new", std::process::id())));
    fs::write(&new, SCRIPT).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&new, &path).unwrap();
    path
});

pub fn launch(args: &[&str]) -> Launch {
    Launch {
        binary: Some(PROGRAM.clone()),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        ..Launch::default()
    }
}

pub fn shape(nodes: usize) -> Shape {
    Shape { nodes, zones: nodes, ports: Ports::Free, launch: launch(&[]) }
}

pub fn cluster(nodes: usize) -> EphemeralCluster {
    EphemeralCluster::create(shape(nodes)).unwrap()
}

/// Until the node has set its traps: it says so in its log.
pub fn wait_ready(cluster: &starling_local::LocalCluster, node: usize) -> String {
    let ready = || cluster.log_tail(node, 1).unwrap().pop().filter(|line| line.starts_with("ready: "));
    wait_for("the stand-in to be ready", ready)
}

pub fn wait_for<T>(what: &str, mut event: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(value) = event() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {LIMIT:?} for {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Whether `/proc` knows a process that is more than a zombie.
pub fn is_there(pid: u32) -> bool {
    fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).is_ok_and(|stat| !stat.contains(") Z "))
}
