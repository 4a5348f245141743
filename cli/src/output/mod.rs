//! Where output goes: reports to standard output, everything else to standard error.

pub mod bytes;
pub mod paper;
pub mod units;

use std::cell::Cell;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use indicatif::ProgressBar;
use serde::Serialize;

use crate::failure::{Failure, Kind};
use crate::output::paper::{Paper, Tone};
use crate::report::{ErrorReport, Report};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    // Help on single values would turn all help into its long form.
    #[default]
    Human,
    Json,
}

impl Format {
    /// Whether raw arguments ask for JSON, however the rest of them is.
    pub fn is_json_among(words: impl Iterator<Item = OsString>) -> bool {
        let words: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
        let joined = |word: &String| matches!(word.as_str(), "-ojson" | "-o=json" | "--output=json");
        let apart = |pair: &[String]| matches!(pair[0].as_str(), "-o" | "--output") && pair[1] == "json";
        words.iter().any(joined) || words.windows(2).any(apart)
    }
}

pub struct Out {
    format: Format,
    /// Standard error cannot be written to: there is nobody to complain to either.
    mute: Cell<bool>,
}

impl Out {
    pub fn new(format: Format) -> Out {
        Out { format, mute: Cell::new(false) }
    }

    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Whether a person watches: then a moving line may be drawn on standard error.
    pub fn is_watched(&self) -> bool {
        !self.is_json() && io::stderr().is_terminal()
    }

    pub fn print(&self, report: &impl Report) -> Result<(), Failure> {
        match self.format {
            Format::Human => self.raw(report.human(&Paper::of(&io::stdout())).as_bytes()),
            Format::Json => self.json(report),
        }
    }

    /// On a terminal: a report in the place of the one that was printed last.
    pub fn redraw(&self, before: &impl Report, report: &impl Report) -> Result<(), Failure> {
        let paper = Paper::of(&io::stdout());
        let lines = before.human(&paper).lines().count();
        // Up to its first line, and away with all below.
        self.raw(format!("\x1b[{lines}F\x1b[J{}", report.human(&paper)).as_bytes())
    }

    /// Bytes as they are.
    pub fn raw(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|error| Failure::output(&error))
    }

    /// A remark on the side, for people only.
    pub fn note(&self, text: impl AsRef<str>) {
        if self.format == Format::Human {
            self.complain(&Paper::of(&io::stderr()).wrap(text.as_ref()));
        }
    }

    pub fn fail(&self, failure: &Failure) {
        if failure.kind == Kind::ReaderGone {
            return;
        }
        let report = ErrorReport { error: failure };
        match self.format {
            Format::Human => self.complain(report.human(&Paper::of(&io::stderr())).trim_end()),
            Format::Json => self.complain(&json_line(&report)),
        }
    }

    /// What a person has to read before going on, with a mark that it is no error.
    pub fn warn(&self, text: impl AsRef<str>) {
        let paper = Paper::of(&io::stderr());
        if self.format == Format::Human {
            self.complain(paper.labelled("note:", Tone::Warn, text.as_ref()).trim_end());
        }
    }

    /// A line that moves while something is waited for, if a person watches.
    pub fn spinner(&self) -> ProgressBar {
        if self.is_watched() { ProgressBar::new_spinner() } else { ProgressBar::hidden() }
    }

    /// Asks on a terminal, where only yes is yes.
    pub fn confirm(&self, question: &str, otherwise: &str) -> Result<(), Failure> {
        match self.ask(&format!("{question} [y/N]"))?.as_str() {
            "y" | "Y" | "yes" => Ok(()),
            _ => Err(Failure::failed(otherwise)),
        }
    }

    /// Asks on a terminal; returns the line that is typed.
    pub fn ask(&self, question: &str) -> Result<String, Failure> {
        let mut answer = String::new();
        let asked = write!(io::stderr(), "{question} ");
        let read = asked.and_then(|()| io::stdin().read_line(&mut answer));
        read.map_err(|error| Failure::io("ask", &error))?;
        Ok(answer.trim().to_owned())
    }

    fn json(&self, report: &impl Serialize) -> Result<(), Failure> {
        self.raw(format!("{}\n", json_line(report)).as_bytes())
    }

    fn complain(&self, text: &str) {
        if !self.mute.get() && writeln!(io::stderr().lock(), "{text}").is_err() {
            self.mute.set(true);
        }
    }
}

pub fn json_line(report: &impl Serialize) -> String {
    serde_json::to_string(report).expect("reports are made of strings, numbers and lists, which JSON has")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_recognised_in_a_command_line_that_makes_no_sense() {
        let asks = |words: &[&str]| Format::is_json_among(words.iter().map(OsString::from));
        assert!(asks(&["gte", "-o", "json"]) && asks(&["--output=json"]) && asks(&["-ojson", "x"]));
        assert!(!asks(&["get", "-o"]) && !asks(&["put", "b", "k", "json"]));
    }
}
