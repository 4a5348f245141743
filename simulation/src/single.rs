//! One seed, in this process; or, since a process lives in simulated time for good, in another.

use std::process::{Command, Stdio};

use anyhow::Context as _;
use starling_core::fault;

use crate::arguments::{Reduction, Single, Trace};
use crate::logs::Logs;
use crate::names;
use crate::plan::Plan;
use crate::run::World;
use crate::summary::Summary;
use crate::transcript::{Follow, Telling, Transcript};

/// True if nothing was found.
///
/// # Errors
/// If a key is to be followed that is not there.
pub fn run(arguments: &Single) -> anyhow::Result<bool> {
    if let Some(fault) = arguments.fault {
        fault::switch_on(fault);
    }
    let plan = reduced(Plan::of(arguments.seed), &arguments.reduction);
    let transcript = Transcript::new(telling(arguments), follow(arguments, &plan)?);
    if !arguments.json {
        print!("{}", plan.describe());
        if let Some(fault) = arguments.fault {
            println!("  broken on purpose: {fault}. {}", fault.mistake());
        }
    }
    if transcript.is_printed() {
        // Nothing else in this process has a say in where logs go.
        tracing::subscriber::set_global_default(Logs(transcript.clone())).expect("it is set once");
    }
    let verdict = World::new(plan.clone(), transcript).run();
    if arguments.json {
        let summary = Summary::of(&plan, &verdict);
        println!("{}", serde_json::to_string(&summary).expect("a summary is plain data"));
    } else {
        println!("\n{verdict}");
        println!(
            "{:.1} s simulated, {} checks inside, fingerprint {}",
            verdict.simulated.as_secs_f64(),
            verdict.checks,
            verdict.fingerprint
        );
    }
    Ok(verdict.passed())
}

fn telling(arguments: &Single) -> Telling {
    match arguments.trace {
        None => Telling::Nothing,
        Some(Trace::Main) => Telling::Main,
        Some(Trace::All) => Telling::Everything,
    }
}

/// # Errors
/// If no such key is in the plan.
fn follow(arguments: &Single, plan: &Plan) -> anyhow::Result<Option<Follow>> {
    let Some(key) = arguments.key.clone() else { return Ok(None) };
    anyhow::ensure!(
        arguments.trace.is_some(),
        "a key can be followed only where the run is told: add --trace (TRACE=1)"
    );
    let keys: Vec<String> = plan.keys.iter().map(names::key).collect();
    anyhow::ensure!(keys.contains(&key), "there is no key {key} in this run, but {}", keys.join(" "));
    let others = keys.into_iter().chain(["exam/".to_owned()]).filter(|other| *other != key).collect();
    Ok(Some(Follow { key, others }))
}

/// What is left of a plan.
pub fn reduced(mut plan: Plan, reduction: &Reduction) -> Plan {
    if let Some(only) = &reduction.only_troubles {
        let all = std::mem::take(&mut plan.episodes);
        plan.episodes = all.into_iter().filter(|episode| only.contains(&episode.number)).collect();
    }
    plan.active_clients = reduction.clients.unwrap_or(plan.clients).min(plan.clients);
    plan.active_operations = reduction.operations.unwrap_or(plan.operations).min(plan.operations);
    plan
}

impl Reduction {
    pub fn flags(&self) -> Vec<String> {
        let list = |numbers: &Vec<usize>| numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let troubles = self.only_troubles.as_ref().map(|only| match only.as_slice() {
            [] => "--only-troubles".to_owned(),
            _ => format!("--only-troubles={}", list(only)),
        });
        let clients = self.clients.map(|clients| format!("--clients={clients}"));
        let operations = self.operations.map(|operations| format!("--operations={operations}"));
        troubles.into_iter().chain(clients).chain(operations).collect()
    }
}

impl Single {
    pub fn of(seed: u64, fault: Option<fault::Fault>) -> Single {
        Single { seed, trace: None, key: None, fault, reduction: Reduction::default(), json: false }
    }

    /// As it would be typed.
    pub fn flags(&self) -> Vec<String> {
        let fault = self.fault.map(|fault| format!("--fault={fault}"));
        let all = [format!("--seed={}", self.seed)].into_iter().chain(fault);
        all.chain(self.reduction.flags()).collect()
    }

    /// Runs it in a process of its own.
    ///
    /// # Errors
    /// If no process can be started. One that ends without a word has crashed, which the summary says.
    pub fn elsewhere(&self) -> anyhow::Result<Summary> {
        let program = std::env::current_exe().context("this program cannot be found")?;
        let output = Command::new(program)
            .arg("run")
            .arg("--json")
            .args(self.flags())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .output()
            .context("cannot start a run")?;
        let last = String::from_utf8_lossy(&output.stdout).lines().last().unwrap_or_default().to_owned();
        Ok(serde_json::from_str(&last).unwrap_or_else(|_| {
            let said = String::from_utf8_lossy(&output.stderr);
            let how = said.lines().find(|line| line.contains("panicked")).unwrap_or("it ended without a word");
            Summary::crashed(self.seed, &format!("crash: {how}"))
        }))
    }
}
