//! What the documentation shows is what the simulator says.

#![cfg(feature = "simulator")]

use std::process::Command;

use starling_core::fault::Fault;

const PAGE: &str = include_str!("../../docs/correctness.md");

/// The lines that the page quotes from a transcript, and the command above them.
#[test]
fn the_transcript_that_is_quoted_is_printed_by_the_command_above_it() {
    let section = PAGE.split("## Reading a transcript").nth(1).expect("the page has this section");
    let indented: Vec<&str> = section.lines().filter_map(|line| line.strip_prefix("    ")).collect();
    let (command, quoted) = indented.split_first().expect("a command, and what it prints");
    let output = Command::new(env!("CARGO_BIN_EXE_starling-simulate")).args(flags(command)).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(!quoted.is_empty());
    for line in quoted {
        assert!(printed.lines().any(|printed| printed.trim() == line.trim()), "`{command}` does not print `{line}`");
    }
}

/// Each deliberate fault has its row in the table.
#[test]
fn the_table_has_every_fault() {
    for fault in Fault::ALL {
        let row = format!("\n| {fault} | {} | ", fault.mistake());
        assert_eq!(PAGE.matches(&row).count(), 1, "there is no row, or more than one, that begins{row}");
    }
}

/// `make simulate SEED=2 FAULT=… TRACE=1 KEY=…` as the Makefile passes it on.
fn flags(command: &str) -> Vec<String> {
    let words = command.strip_prefix("make simulate ").expect("the Makefile is how it is run").split(' ');
    let flag = |word: &str| {
        let (name, value) = word.split_once('=').expect("NAME=VALUE");
        format!("--{}={value}", name.to_lowercase())
    };
    std::iter::once("run".to_owned()).chain(words.map(flag)).collect()
}
