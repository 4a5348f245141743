//! What reports are drawn on: how wide it is, and whether it takes colour.

use std::env;
use std::io::IsTerminal;
use std::os::fd::AsFd;

use comfy_table::presets::NOTHING;
use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table};
use owo_colors::{AnsiColors, OwoColorize, Style};

/// Only a terminal has a width; elsewhere lines are as long as they have to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paper {
    colour: bool,
    width: Option<u16>,
}

/// What a colour means. The text says the same without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Strong,
    Faint,
    Good,
    Warn,
    Bad,
    /// The colour of the member with this number, in the order of names.
    Node(usize),
}

/// Told apart by most eyes on dark and on light ground, neighbours above all.
const NODE_COLOURS: [(AnsiColors, Color); 6] = [
    (AnsiColors::Cyan, Color::DarkCyan),
    (AnsiColors::Yellow, Color::DarkYellow),
    (AnsiColors::Magenta, Color::DarkMagenta),
    (AnsiColors::Green, Color::DarkGreen),
    (AnsiColors::Blue, Color::DarkBlue),
    (AnsiColors::Red, Color::DarkRed),
];

impl Paper {
    pub fn of(stream: &(impl AsFd + IsTerminal)) -> Paper {
        if !stream.is_terminal() {
            return Paper::plain();
        }
        let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let colour = set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb");
        let columns = rustix::termios::tcgetwinsize(stream).map(|size| size.ws_col).ok();
        Paper { colour, width: columns.filter(|columns| *columns > 0) }
    }

    pub const fn plain() -> Paper {
        Paper { colour: false, width: None }
    }

    #[cfg(test)]
    pub const fn coloured(width: u16) -> Paper {
        Paper { colour: true, width: Some(width) }
    }

    pub fn ink(&self, text: &str, tone: Tone) -> String {
        if self.colour { text.style(style(tone)).to_string() } else { text.to_owned() }
    }

    /// Prose, broken between words where a terminal ends. For text without colour.
    pub fn wrap(&self, text: &str) -> String {
        let Some(width) = self.width.map(usize::from) else { return text.to_owned() };
        let lines: Vec<String> = text.split('\n').map(|line| wrapped(line, width)).collect();
        lines.join("\n")
    }

    /// As [`Paper::wrap`], behind a coloured label.
    pub fn labelled(&self, label: &str, tone: Tone, text: &str) -> String {
        let wrapped = self.wrap(&format!("{label} {text}"));
        let rest = wrapped.strip_prefix(label).unwrap_or(&wrapped);
        format!("{}{rest}\n", self.ink(label, tone))
    }

    /// A table without lines: a header, and columns two spaces apart.
    pub fn table(&self, header: &[&str]) -> Table {
        let mut table = Table::new();
        table.load_style(NOTHING).set_header(header.iter().map(|text| self.cell(text, Tone::Strong)));
        if self.colour {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        match self.width {
            Some(width) => table.set_width(width).set_content_arrangement(ContentArrangement::Dynamic),
            None => table.set_content_arrangement(ContentArrangement::Disabled),
        };
        table
    }

    pub fn cell(&self, text: &str, tone: Tone) -> Cell {
        let cell = Cell::new(text);
        match tone {
            Tone::Plain => cell,
            Tone::Strong => cell.add_attribute(Attribute::Bold),
            Tone::Faint => cell.add_attribute(Attribute::Dim),
            Tone::Good => cell.fg(Color::DarkGreen),
            Tone::Warn => cell.fg(Color::DarkYellow),
            Tone::Bad => cell.fg(Color::DarkRed),
            Tone::Node(index) => cell.fg(NODE_COLOURS[index % NODE_COLOURS.len()].1),
        }
    }
}

fn style(tone: Tone) -> Style {
    match tone {
        Tone::Plain => Style::new(),
        Tone::Strong => Style::new().bold(),
        Tone::Faint => Style::new().dimmed(),
        Tone::Good => Style::new().green(),
        Tone::Warn => Style::new().yellow(),
        Tone::Bad => Style::new().red(),
        Tone::Node(index) => Style::new().color(NODE_COLOURS[index % NODE_COLOURS.len()].0),
    }
}

/// Indented lines stay as they are: they are quoted.
fn wrapped(line: &str, width: usize) -> String {
    if line.starts_with(' ') || line.chars().count() <= width {
        return line.to_owned();
    }
    let (mut text, mut column) = (String::new(), 0);
    for word in line.split(' ') {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > width {
            text.push('\n');
            column = 0;
        } else if column > 0 {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += length;
    }
    text
}

/// The finished table's lines. Numbers stand in the columns named `right`.
pub fn finish(mut table: Table, right: &[usize]) -> String {
    let columns = table.column_count();
    for index in 0..columns {
        let Some(column) = table.column_mut(index) else { continue };
        column.set_padding((0, if index + 1 == columns { 0 } else { 2 }));
        if right.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n") + "\n"
}

/// `name   value` lines, the values aligned.
pub fn pairs(paper: &Paper, pairs: &[(&str, String)]) -> String {
    let widest = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let line = |(name, value): &(&str, String)| {
        let gap = " ".repeat(widest - name.chars().count() + 2);
        format!("{}{gap}{value}\n", paper.ink(name, Tone::Faint))
    };
    pairs.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small(paper: &Paper) -> String {
        let mut table = paper.table(&["node", "keys"]);
        table.add_row([paper.cell("n1", Tone::Good), paper.cell("1", Tone::Plain)]);
        table.add_row([paper.cell("n2", Tone::Plain), paper.cell("1,000", Tone::Plain)]);
        finish(table, &[1])
    }

    #[test]
    fn tables_stand_without_lines_or_colour() {
        assert_eq!(small(&Paper::plain()), "node   keys\nn1        1\nn2    1,000\n");
    }

    #[test]
    fn prose_is_broken_between_words_on_a_terminal_only() {
        let text = "one two three\n  quoted as it is\nfour";
        assert_eq!(Paper::coloured(8).wrap(text), "one two\nthree\n  quoted as it is\nfour");
        assert_eq!(Paper::plain().wrap(text), text);
        assert_eq!(Paper::plain().labelled("error:", Tone::Bad, "x"), "error: x\n");
    }

    #[test]
    fn colour_is_added_only_where_it_is_wanted() {
        assert!(small(&Paper::coloured(80)).contains('\u{1b}'));
        assert!(Paper::coloured(80).ink("x", Tone::Bad).contains('\u{1b}'));
        assert_eq!(Paper::plain().ink("x", Tone::Bad), "x");
    }
}
