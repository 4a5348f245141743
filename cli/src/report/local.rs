//! A cluster on this machine.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use starling_local::{NodeState, NodeStatus};

use crate::output::paper::{Paper, Tone, finish};
use crate::output::units::{age, plural, size};
use crate::report::Report;
use crate::report::cluster::millis;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UpReport {
    pub dir: PathBuf,
    /// It was not there before.
    pub created: bool,
    /// Who was not running before.
    pub started: Vec<String>,
    /// Who became a member of a cluster that was there.
    pub joined: Vec<String>,
    pub cluster: Option<String>,
    pub nodes: Vec<LocalNode>,
    /// It is where no other command looks for it by default.
    #[serde(skip)]
    pub elsewhere: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LocalStatusReport {
    pub dir: PathBuf,
    pub nodes: Vec<LocalNode>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LocalNode {
    pub node: String,
    pub zone: String,
    pub address: String,
    pub process: &'static str,
    /// Of a process that is there, or of one that died.
    pub pid: Option<u32>,
    pub state: Option<&'static str>,
    pub data_bytes: u64,
    pub running_ms: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DoneReport {
    pub done: &'static str,
    pub nodes: Vec<DoneNode>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DoneNode {
    pub node: String,
    pub pid: Option<u32>,
    pub exit: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogReport {
    pub node: String,
    pub path: PathBuf,
    pub lines: Vec<String>,
}

impl LocalNode {
    pub fn new(status: &NodeStatus, state: Option<&'static str>, now: SystemTime) -> LocalNode {
        let (process, pid) = match status.state {
            NodeState::Running { pid } => ("running", Some(pid)),
            NodeState::Paused { pid } => ("paused", Some(pid)),
            NodeState::Stopped => ("stopped", None),
            NodeState::Died { pid } => ("died", Some(pid)),
        };
        let running = status.since.map(|since| now.duration_since(since).unwrap_or_default());
        LocalNode {
            node: status.name.to_string(),
            zone: status.zone.to_string(),
            address: status.address.to_string(),
            process,
            pid,
            state,
            data_bytes: status.data_bytes,
            running_ms: running.map(millis),
        }
    }

    fn process_tone(&self) -> Tone {
        match self.process {
            "running" => Tone::Good,
            "paused" => Tone::Warn,
            "died" => Tone::Bad,
            _ => Tone::Faint,
        }
    }
}

fn table(nodes: &[LocalNode], paper: &Paper) -> String {
    let mut table = paper.table(&["node", "zone", "address", "process", "pid", "state", "data", "for"]);
    let dash = || "-".to_owned();
    for node in nodes {
        let lasted = node.running_ms.map_or_else(dash, |ms| age(Duration::from_millis(ms)));
        let state = node.state.unwrap_or(if node.process == "running" { "silent" } else { "-" });
        let state_tone = match state {
            "serving" => Tone::Good,
            "-" => Tone::Faint,
            "uninitialised" => Tone::Warn,
            _ => Tone::Bad,
        };
        table.add_row([
            paper.cell(&node.node, Tone::Strong),
            paper.cell(&node.zone, Tone::Plain),
            paper.cell(&node.address, Tone::Plain),
            paper.cell(node.process, node.process_tone()),
            paper.cell(&node.pid.map_or_else(dash, |pid| pid.to_string()), Tone::Plain),
            paper.cell(state, state_tone),
            paper.cell(&size(node.data_bytes), Tone::Plain),
            paper.cell(&lasted, Tone::Plain),
        ]);
    }
    finish(table, &[4, 6, 7])
}

/// Why a process is not there, for those that ended by themselves.
fn obituaries(nodes: &[LocalNode], paper: &Paper) -> String {
    let died = nodes.iter().filter(|node| node.process == "died");
    let line = |node: &LocalNode| {
        let pid = node.pid.unwrap_or_default();
        let text = format!(
            "{0} (pid {pid}) ended by itself: `starling local logs {0}` shows its last words, `starling local start {0}` \
             starts it",
            node.node
        );
        format!("\n{}\n", paper.wrap(&text))
    };
    died.map(line).collect()
}

impl Report for LocalStatusReport {
    fn human(&self, paper: &Paper) -> String {
        let place = paper.ink(&format!("local cluster in {}", self.dir.display()), Tone::Faint);
        format!("{place}\n\n{}{}", table(&self.nodes, paper), obituaries(&self.nodes, paper))
    }
}

const NEXT: &[(&str, &str)] = &[
    ("starling put carts alice '3 apples'", "write a value"),
    ("starling get carts alice --explain", "read it, and see who answered"),
    ("starling cluster ring", "which node holds what"),
    ("starling local kill 2", "kill a node: reads and writes go on"),
    ("starling local start 2", "it comes back, and gets what it missed"),
    ("starling local down", "stop all; `up` goes on with the data"),
];

impl UpReport {
    fn next_steps(&self, paper: &Paper) -> String {
        let mut text = String::from("\nWhat to try next:\n");
        if self.elsewhere {
            text.push_str(&format!("  export STARLING_LOCAL_DIR={}\n", self.dir.display()));
        }
        // Of a node that is alone, nothing is learnt by killing it.
        let alone = self.nodes.len() == 1;
        for (command, why) in NEXT.iter().filter(|(command, _)| !(alone && command.ends_with(" 2"))) {
            text.push_str(&format!("  {command:<36}  {}\n", paper.ink(why, Tone::Faint)));
        }
        let more = format!("starling local up --nodes {}", self.nodes.len() + 2);
        text.push_str(&format!(
            "  {more:<36}  {}\n",
            paper.ink("let two more join, and take their share", Tone::Faint)
        ));
        text
    }

    fn heading(&self) -> String {
        let dir = self.dir.display();
        if !self.joined.is_empty() {
            return format!(
                "{} joined the cluster in {dir}, and have their share of the data\n",
                self.joined.join(", ")
            );
        }
        match (self.created, self.started.len()) {
            (true, nodes) => format!("{} up, with data and logs in {dir}\n", plural(nodes as u64, "node")),
            (false, 0) => format!("the cluster in {dir} was up already\n"),
            (false, _) => format!("started {}, with the data in {dir}\n", self.started.join(", ")),
        }
    }
}

impl Report for UpReport {
    fn human(&self, paper: &Paper) -> String {
        format!("{}\n{}{}", self.heading(), table(&self.nodes, paper), self.next_steps(paper))
    }
}

impl Report for DoneReport {
    fn human(&self, _paper: &Paper) -> String {
        let line = |node: &DoneNode| {
            let pid = node.pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
            let exit = node.exit.as_ref().map(|exit| format!(", {exit}")).unwrap_or_default();
            format!("{} {}{pid}{exit}\n", self.done, node.node)
        };
        if self.nodes.is_empty() { "nothing to do\n".to_owned() } else { self.nodes.iter().map(line).collect() }
    }
}

impl Report for LogReport {
    fn human(&self, _paper: &Paper) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::output::json_line;

    fn node(process: &'static str, state: Option<&'static str>) -> LocalNode {
        LocalNode {
            node: "n1".to_owned(),
            zone: "z1".to_owned(),
            address: "127.0.0.1:7401".to_owned(),
            process,
            pid: Some(4711),
            state,
            data_bytes: 3 << 20,
            running_ms: (process == "running").then_some(61_000),
        }
    }

    pub fn status() -> LocalStatusReport {
        let nodes = vec![node("running", Some("serving")), node("died", None)];
        LocalStatusReport { dir: "/d".into(), nodes }
    }

    pub fn up() -> UpReport {
        UpReport {
            dir: "/d".into(),
            created: true,
            started: vec!["n1".to_owned()],
            joined: Vec::new(),
            cluster: Some("c1".to_owned()),
            nodes: vec![node("running", Some("serving"))],
            elsewhere: true,
        }
    }

    pub fn killed() -> DoneReport {
        let exit = Some("signal: 9 (SIGKILL)".to_owned());
        DoneReport { done: "killed", nodes: vec![DoneNode { node: "n2".to_owned(), pid: Some(7), exit }] }
    }

    pub fn log() -> LogReport {
        LogReport { node: "n1".to_owned(), path: "/d/nodes/n1/log".into(), lines: vec!["a line".to_owned()] }
    }

    #[test]
    fn a_status_shows_processes_and_explains_deaths() {
        let report = status();
        let expected = "\
local cluster in /d

node  zone  address         process   pid  state       data    for
n1    z1    127.0.0.1:7401  running  4711  serving  3.0 MiB  1m 1s
n1    z1    127.0.0.1:7401  died     4711  -        3.0 MiB      -

n1 (pid 4711) ended by itself: `starling local logs n1` shows its last words, `starling local start n1` starts it
";
        assert_eq!(report.human(&Paper::plain()), expected);
        assert_eq!(json_line(&report).replace(r#","nodes":["#, "\n").lines().next(), Some(r#"{"dir":"/d""#),);
    }

    #[test]
    fn up_fits_a_terminal_and_leads_on() {
        let report = up();
        let text = report.human(&Paper::plain());
        assert!(text.contains("What to try next:\n  export STARLING_LOCAL_DIR=/d\n"), "{text}");
        assert!(!text.contains("kill 2"), "there is no second node:\n{text}");
        let longest = text.lines().map(|line| line.chars().count()).max();
        assert!(longest <= Some(80), "{longest:?}\n{text}");
        let expected = concat!(
            r#"{"dir":"/d","created":true,"started":["n1"],"joined":[],"cluster":"c1","nodes":[{"node":"n1","zone":"z1","#,
            r#""address":"127.0.0.1:7401","process":"running","pid":4711,"state":"serving","data_bytes":3145728,"#,
            r#""running_ms":61000}]}"#
        );
        assert_eq!(json_line(&report), expected);
    }

    #[test]
    fn what_was_done_is_said() {
        let report = killed();
        assert_eq!(report.human(&Paper::plain()), "killed n2 (pid 7), signal: 9 (SIGKILL)\n");
        assert_eq!(
            json_line(&report),
            r#"{"done":"killed","nodes":[{"node":"n2","pid":7,"exit":"signal: 9 (SIGKILL)"}]}"#
        );
    }
}
