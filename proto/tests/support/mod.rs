//! A table of encodings, and its comparison with the one that is kept.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;
use starling_core::codec;

/// Longest message of the table.
const MAX_BYTES: usize = 4096;

/// Lines of names and hexadecimal bytes under headings. Of an enum the first byte is the variant's index.
#[derive(Default)]
pub struct Table {
    text: String,
}

impl Table {
    pub fn heading(&mut self, name: &str) {
        let gap = if self.text.is_empty() { "" } else { "\n" };
        writeln!(self.text, "{gap}[{name}]").expect("a string takes everything");
    }

    /// Adds an example. It has to decode to what it was.
    pub fn row<T: Serialize + DeserializeOwned>(&mut self, name: &str, example: &T) {
        let bytes = codec::encode(example);
        let again: T = codec::decode(&bytes, MAX_BYTES, "an example").expect("what is encoded decodes");
        assert_eq!(codec::encode(&again), bytes, "{name} decodes to something else");
        self.one_way(name, example);
    }

    /// Adds an example that does not decode to what it was.
    pub fn one_way<T: Serialize>(&mut self, name: &str, example: &T) {
        writeln!(self.text, "{name:<20} {}", hex(&codec::encode(example))).expect("a string takes everything");
    }

    /// Fails with the lines that differ from those in `tests/{file}`, or writes them there if `UPDATE_GOLDEN` is set.
    pub fn compare(&self, file: &str) {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests").join(file);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &self.text).expect("the file can be written");
            return;
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        let differences = differences(&golden, &self.text);
        assert!(
            differences.is_empty() && golden == self.text,
            "\nthe wire format is not what {file} says:\n{differences}\n\
             Nodes and clients of other builds speak what is there. Formats are only appended to: put new variants and \
             methods last, leave structs as they are, and give what has to change a new method. If only lines were \
             added, UPDATE_GOLDEN=1 writes them down.\n"
        );
    }
}

/// Adds one example for each variant of an enum. Does not compile if a variant is forgotten.
macro_rules! every {
    ($table:expr, $name:ident { $($variant:ident => $example:expr),+ $(,)? }) => {{
        #[allow(clippy::unneeded_struct_pattern, reason = "it fits variants of every shape")]
        fn name(value: &$name) -> &'static str {
            match value {
                $($name::$variant { .. } => stringify!($variant),)+
            }
        }
        $(
            let example = $example;
            assert_eq!(name(&example), stringify!($variant));
            $table.row(stringify!($variant), &example);
        )+
    }};
}
pub(crate) use every;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Line by line, by heading and name.
fn differences(golden: &str, now: &str) -> String {
    let (golden, now) = (entries(golden), entries(now));
    let mut text = String::new();
    for (name, old) in &golden {
        match now.get(name) {
            None => text += &format!("  {name}: gone\n    was {old}\n"),
            Some(new) if new != old => {
                let same = old.bytes().zip(new.bytes()).take_while(|(a, b)| a == b).count();
                // Two digits a byte: the mark stands below the first byte that differs.
                let mark = " ".repeat(same / 2 * 2);
                text +=
                    &format!("  {name}: changed at byte {}\n    was {old}\n    is  {new}\n        {mark}^\n", same / 2);
            }
            Some(_) => {}
        }
    }
    for (name, new) in now.iter().filter(|(name, _)| !golden.contains_key(*name)) {
        text += &format!("  {name}: new\n    is  {new}\n");
    }
    text
}

fn entries(text: &str) -> BTreeMap<String, &str> {
    let mut heading = "";
    let mut entries = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        match line.rsplit_once(' ') {
            Some((name, bytes)) if !line.starts_with('[') => {
                entries.insert(format!("{heading} {}", name.trim_end()), bytes);
            }
            _ => heading = line,
        }
    }
    entries
}
