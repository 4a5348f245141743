//! The built `starling`, run as a shell runs it.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::{env, fs};

use serde_json::Value;
use starling_proto::BUILD;

use crate::{BUILD_FIRST, Cluster, blocking};

/// The command line, talking to one cluster, with no settings of this machine's in sight.
pub struct Starling {
    program: PathBuf,
    nodes: String,
    /// Beside the nodes' folders, so that a failing test keeps it too.
    home: PathBuf,
}

/// How a command ended.
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Starling {
    pub fn of(cluster: &Cluster) -> Starling {
        let home = cluster.dir().join("home");
        fs::create_dir_all(&home).unwrap();
        let starling = Starling { program: program(), nodes: cluster.addresses().join(","), home };
        let version = starling.run(&["--version"]).text();
        assert!(version.contains(BUILD), "{version}is not of this test's build ({BUILD}): {BUILD_FIRST}");
        starling
    }

    /// Writes a file into the home and returns its path.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.home.join(name);
        fs::write(&path, text).unwrap();
        path.into_os_string().into_string().unwrap()
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("STARLING_") || name.to_string_lossy().starts_with("XDG_") {
                command.env_remove(name);
            }
        }
        command.env("HOME", &self.home).env("STARLING_NODES", &self.nodes);
        command.args(words).stdin(Stdio::null());
        command
    }

    /// What imports that have not ended yet, or were killed, have noted of how far they came.
    pub fn import_notes(&self) -> Vec<String> {
        let notes = fs::read_dir(self.home.join(".cache/starling/import")).into_iter().flatten().flatten();
        let notes = notes.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "toml"));
        // One may be gone by now: its import has ended.
        notes.filter_map(|path| fs::read_to_string(path).ok()).collect()
    }

    pub fn run(&self, words: &[&str]) -> Ran {
        let output = blocking(|| self.command(words).output().unwrap());
        let stderr = String::from_utf8(output.stderr).unwrap();
        Ran { code: output.status.code(), stdout: output.stdout, stderr }
    }

    /// What a command prints with `-o json`, which has to end with `code`.
    pub fn json(&self, code: i32, words: &[&str]) -> Value {
        let ran = self.run(&[words, &["-o", "json"]].concat());
        assert_eq!(ran.code, Some(code), "{words:?}: {}", ran.stderr);
        ran.json()
    }

    /// The error of a command that has to end with `code`, and to print nothing else.
    pub fn error(&self, code: i32, words: &[&str]) -> Value {
        let ran = self.run(&[words, &["-o", "json"]].concat());
        assert_eq!((ran.code, ran.text().as_str()), (Some(code), ""), "{words:?}: {}", ran.stderr);
        one_line(&ran.stderr)["error"].clone()
    }
}

impl Ran {
    pub fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).unwrap()
    }

    pub fn json(&self) -> Value {
        one_line(&self.text())
    }
}

fn one_line(text: &str) -> Value {
    assert_eq!(text.lines().count(), 1, "JSON is one line: {text}");
    serde_json::from_str(text).unwrap()
}

/// Of JSON: a list.
pub fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("no list: {value}"))
}

/// Of JSON: a text.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// Beside this test, or in the folder above it, where cargo puts it.
fn program() -> PathBuf {
    let test = env::current_exe().unwrap();
    let mut folders = test.ancestors().skip(1).take(2);
    let found = folders.find_map(|folder| Some(folder.join("starling")).filter(|path| path.is_file()));
    found.unwrap_or_else(|| panic!("there is no `starling` beside this test: {BUILD_FIRST}"))
}
