//! Records, read from a file one by one.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::Serialize;
use serde::ser::SerializeMap;
use serde_json::value::RawValue;
use starling_core::name::{InvalidName, MAX_KEY_BYTES};

use crate::commands::import::RecordFormat;
use crate::failure::Failure;
use crate::output::units::{plural, size};

/// A line longer than this is no record. (A csv row has to fit memory; the node refuses what is too large for it.)
const MAX_LINE_BYTES: usize = 16 << 20;
/// What some programs begin a UTF-8 file with. It is no part of the first record. (The csv reader skips it by itself.)
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// Why a csv row is none that the end of the file cuts off.
const UNCLOSED: &str = "a quote is opened and never closed: all that follows belongs to it";
/// How many field names are suggested.
const SUGGESTED: usize = 12;

/// A record, or why it is none.
pub struct Record {
    /// Counted from 1, also over those that are none.
    pub number: u64,
    /// Where it begins, counted from 1.
    pub line: u64,
    /// Where it ends, in bytes.
    pub end: u64,
    pub content: Result<Content, String>,
}

pub struct Content {
    pub key: Bytes,
    pub value: Bytes,
}

pub struct Source {
    path: PathBuf,
    field: String,
    records: u64,
    reader: Reader,
}

enum Reader {
    Jsonl { file: BufReader<File>, line: u64, offset: u64 },
    Csv(Box<Rows>),
}

/// What follows the header of a csv file.
struct Rows {
    file: csv::Reader<File>,
    header: Vec<String>,
    key_column: usize,
    /// In bytes.
    size: u64,
    /// Lines end in CR and LF. The csv reader ends a row at CR, and counts its line with the next.
    crlf: bool,
}

impl Source {
    pub fn open(path: &Path, format: RecordFormat, field: &str) -> Result<Source, Failure> {
        let file = File::open(path).map_err(|error| Failure::io(format_args!("read {}", path.display()), &error))?;
        let reader = match format {
            RecordFormat::Jsonl => Reader::Jsonl { file: BufReader::new(file), line: 0, offset: 0 },
            RecordFormat::Csv => Reader::Csv(Box::new(open_csv(file, path, field)?)),
        };
        Ok(Source { path: path.to_owned(), field: field.to_owned(), records: 0, reader })
    }

    /// Looks at the first record: if it has no key, the field's name is wrong rather than the record.
    pub fn check_first(&mut self) -> Result<(), Failure> {
        let Reader::Jsonl { .. } = &self.reader else { return Ok(()) };
        let mut probe = Source::open(&self.path, RecordFormat::Jsonl, &self.field)?;
        let Reader::Jsonl { file, line, offset } = &mut probe.reader else { return Ok(()) };
        let first = next_line(file, line, offset).map_err(|error| reading(&self.path, &error))?;
        let Some(Ok(text)) = first.map(|(_, text)| text) else { return Ok(()) };
        match parse_object(&text) {
            Ok(fields) if !fields.contains_key(self.field.as_str()) => {
                let mut names: Vec<String> = fields.keys().map(|name| name.to_string()).collect();
                names.sort();
                Err(no_field(&self.field, &names))
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// # Errors
    /// The file cannot be read.
    pub fn next(&mut self) -> Result<Option<Record>, Failure> {
        let read = match &mut self.reader {
            Reader::Jsonl { file, line, offset } => next_line(file, line, offset)
                .map_err(|error| reading(&self.path, &error))?
                .map(|(at, text)| (at, *offset, text.and_then(|text| object_record(text, &self.field)))),
            Reader::Csv(rows) => next_row(rows, &self.path)?,
        };
        let Some((line, end, content)) = read else { return Ok(None) };
        self.records += 1;
        Ok(Some(Record { number: self.records, line, end, content }))
    }
}

fn reading(path: &Path, error: &io::Error) -> Failure {
    Failure::io(format_args!("read {}", path.display()), error)
}

fn no_field(field: &str, names: &[String]) -> Failure {
    let failure = Failure::failed(format!("the first record has no field `{field}` to take the key from"));
    if names.is_empty() {
        return failure.hint("it has no fields at all");
    }
    let more = if names.len() > SUGGESTED { ", …" } else { "" };
    let some: Vec<&str> = names.iter().take(SUGGESTED).map(String::as_str).collect();
    failure.hint(format!("choose one with --key; there are {}{more}", some.join(", ")))
}

type Line = (u64, Result<Vec<u8>, String>);

/// The next line that is not blank, without its end, and its number. One that is too long is skipped.
fn next_line(file: &mut BufReader<File>, line: &mut u64, offset: &mut u64) -> io::Result<Option<Line>> {
    loop {
        let mut text = Vec::new();
        let read = file.by_ref().take(MAX_LINE_BYTES as u64 + 1).read_until(b'\n', &mut text)?;
        if read == 0 {
            return Ok(None);
        }
        *line += 1;
        *offset += read as u64;
        if text.len() > MAX_LINE_BYTES && !text.ends_with(b"\n") {
            *offset += file.skip_until(b'\n')? as u64;
            return Ok(Some((*line, Err(format!("longer than {}", size(MAX_LINE_BYTES as u64))))));
        }
        let text = if *line == 1 { text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&text) } else { &text };
        let trimmed = text.trim_ascii();
        if !trimmed.is_empty() {
            return Ok(Some((*line, Ok(trimmed.to_vec()))));
        }
    }
}

/// Its error tells the place and never the content.
fn parse_object(text: &[u8]) -> Result<HashMap<Cow<'_, str>, &RawValue>, String> {
    if !text.starts_with(b"{") {
        return Err("not a JSON object".to_owned());
    }
    serde_json::from_slice(text).map_err(|error| format!("not a JSON object (column {})", error.column()))
}

fn object_record(text: Vec<u8>, field: &str) -> Result<Content, String> {
    let fields = parse_object(&text)?;
    let raw = fields.get(field).ok_or_else(|| format!("no field `{field}`"))?.get();
    let key = match raw.as_bytes().first() {
        Some(b'"') => serde_json::from_str::<String>(raw).map_err(|_| format!("field `{field}` is malformed"))?,
        Some(b'-' | b'0'..=b'9') => raw.to_owned(),
        _ => return Err(format!("field `{field}` is neither text nor a number")),
    };
    let key = checked_key(key)?;
    Ok(Content { key, value: text.into() })
}

fn checked_key(key: String) -> Result<Bytes, String> {
    let length = key.len();
    if (1..=MAX_KEY_BYTES).contains(&length) { Ok(key.into()) } else { Err(InvalidName::KeyLength(length).to_string()) }
}

fn open_csv(file: File, path: &Path, field: &str) -> Result<Rows, Failure> {
    let size = file.metadata().map_err(|error| reading(path, &error))?.len();
    let mut file = csv::Reader::from_reader(file);
    let header = file.headers().map_err(|error| csv_failure(path, &error))?;
    let header: Vec<String> = header.iter().map(str::to_owned).collect();
    if file.position().byte() == size && !header.is_empty() && ends_in_quotes(path, 0)? {
        return Err(Failure::failed(format!("the header of {} is no header: {UNCLOSED}", path.display())));
    }
    check_names(&header, path)?;
    let key_column = header.iter().position(|name| name == field).ok_or_else(|| no_field(field, &header))?;
    let crlf = ends_in_crlf(file.get_ref(), file.position().byte()).map_err(|error| reading(path, &error))?;
    Ok(Rows { file, header, key_column, size, crlf })
}

/// Whether the csv reader, after a row, stands between CR and LF.
fn ends_in_crlf(file: &File, end: u64) -> io::Result<bool> {
    let mut bytes = [0; 2];
    let read = file.read_at(&mut bytes, end.saturating_sub(1))?;
    Ok(bytes[..read] == *b"\r\n")
}

/// A JSON object has a field once.
fn check_names(header: &[String], path: &Path) -> Result<(), Failure> {
    if header.is_empty() {
        return Err(Failure::failed(format!("{} is empty", path.display()))
            .hint("the first row of a csv file names its columns"));
    }
    let mut seen = HashSet::new();
    match header.iter().find(|name| !seen.insert(name.as_str())) {
        None => Ok(()),
        Some(twice) => Err(Failure::failed(format!("two columns of {} are named `{twice}`", path.display()))
            .hint("give each column a name of its own: they become the fields of a JSON object")),
    }
}

fn csv_failure(path: &Path, error: &csv::Error) -> Failure {
    Failure::failed(format!("cannot read {}: {error}", path.display()))
}

/// Whether the row that begins here, the last, has a quoted field without an end. The csv reader takes the end of the file for
/// that, and does not tell. But what follows a whole row is another row, and what follows an open quote is more of the field.
fn ends_in_quotes(path: &Path, from: u64) -> Result<bool, Failure> {
    let open = || {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(from))?;
        Ok(file.chain(&b"\nanother"[..]))
    };
    let rows = open().map_err(|error| reading(path, &error))?;
    let mut rows = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(rows);
    Ok(rows.byte_records().count() == 1)
}

type Row = (u64, u64, Result<Content, String>);

fn next_row(rows: &mut Rows, path: &Path) -> Result<Option<Row>, Failure> {
    let Rows { file, header, key_column, size, crlf } = rows;
    let mut row = csv::StringRecord::new();
    let begin = file.position().clone();
    let content = match file.read_record(&mut row) {
        Ok(false) => return Ok(None),
        Ok(true) => row_record(&row, header, *key_column),
        Err(error) => match error.kind() {
            csv::ErrorKind::Io(_) => return Err(csv_failure(path, &error)),
            csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                Err(format!("{}, where the header has {expected_len}", plural(*len, "field")))
            }
            _ => Err("not UTF-8".to_owned()),
        },
    };
    let end = file.position().byte();
    let unclosed = end == *size && ends_in_quotes(path, begin.byte())?;
    let content = if unclosed { Err(UNCLOSED.to_owned()) } else { content };
    Ok(Some((begin.line() + u64::from(*crlf), end, content)))
}

fn row_record(row: &csv::StringRecord, header: &[String], key_column: usize) -> Result<Content, String> {
    let key = checked_key(row.get(key_column).unwrap_or_default().to_owned())?;
    let value = serde_json::to_vec(&RowObject { header, row }).map_err(|_| "no JSON object can be made".to_owned())?;
    Ok(Content { key, value: value.into() })
}

/// A row as a JSON object, its fields in the order of the header.
struct RowObject<'a> {
    header: &'a [String],
    row: &'a csv::StringRecord,
}

impl Serialize for RowObject<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.header.len()))?;
        for (name, field) in self.header.iter().zip(self.row) {
            map.serialize_entry(name, field)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Key and value, or why there is none.
    type Pair = Result<(String, String), String>;

    fn read(format: RecordFormat, field: &str, text: &str) -> Vec<(u64, u64, Pair)> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records");
        std::fs::write(&path, text).unwrap();
        let mut source = Source::open(&path, format, field).unwrap();
        let utf8 = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        std::iter::from_fn(|| source.next().unwrap())
            .map(|r| (r.number, r.line, r.content.map(|content| (utf8(content.key), utf8(content.value)))))
            .collect()
    }

    fn ok(key: &str, value: &str) -> Pair {
        Ok((key.to_owned(), value.to_owned()))
    }

    #[test]
    fn a_jsonl_record_keeps_its_text() {
        let text = "{\"key\":\"a\", \"n\": 1.50}\n\n  {\"key\": 12}\r\n{\"key\":\"\\u00fc\"}";
        let expected = [
            (1, 1, ok("a", "{\"key\":\"a\", \"n\": 1.50}")),
            (2, 3, ok("12", "{\"key\": 12}")),
            (3, 4, ok("ü", "{\"key\":\"\\u00fc\"}")),
        ];
        assert_eq!(read(RecordFormat::Jsonl, "key", text), expected);
    }

    #[test]
    fn a_broken_record_is_told_without_its_content() {
        let text = "{\"key\":\"a\",\"secret\n[1]\n{\"other\":1}\n{\"key\":true}\n{\"key\":\"\"}\n{\"key\":\"z\"}\n";
        let results = read(RecordFormat::Jsonl, "key", text);
        let reasons: Vec<String> = results.iter().filter_map(|(_, _, content)| content.clone().err()).collect();
        let expected = [
            "not a JSON object (column 18)",
            "not a JSON object",
            "no field `key`",
            "field `key` is neither text nor a number",
            "a key has 1 to 1024 bytes; this one has 0",
        ];
        assert_eq!(reasons, expected);
        assert_eq!(results[5], (6, 6, ok("z", "{\"key\":\"z\"}")));
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_record() {
        let jsonl = "\u{feff}{\"key\":\"a\"}\n";
        assert_eq!(read(RecordFormat::Jsonl, "key", jsonl), [(1, 1, ok("a", "{\"key\":\"a\"}"))]);
        let csv = "\u{feff}\"key\"\na\n";
        assert_eq!(read(RecordFormat::Csv, "key", csv), [(1, 2, ok("a", "{\"key\":\"a\"}"))]);
    }

    #[test]
    fn a_csv_row_becomes_an_object_in_the_order_of_the_header() {
        let text = "id,name\n7,\"O'Neil, \"\"Z\"\"\"\n8\n9,x\n";
        let expected = [
            (1, 2, ok("7", r#"{"id":"7","name":"O'Neil, \"Z\""}"#)),
            (2, 3, Err("1 field, where the header has 2".to_owned())),
            (3, 4, ok("9", r#"{"id":"9","name":"x"}"#)),
        ];
        assert_eq!(read(RecordFormat::Csv, "id", text), expected);
    }

    #[test]
    fn a_csv_row_has_its_line_however_lines_end() {
        let lines = |text: &str| -> Vec<u64> {
            read(RecordFormat::Csv, "id", text).into_iter().map(|(_, line, _)| line).collect()
        };
        assert_eq!(lines("id\r\n1\r\n\"2\r\n\"\r\n3"), [2, 3, 5]);
        assert_eq!(lines("id\n1\n\"2\n\"\n3\n"), [2, 3, 5]);
    }

    #[test]
    fn a_quote_that_is_never_closed_makes_no_record_of_the_rest_of_the_file() {
        let unclosed = [(2, 3, Err(UNCLOSED.to_owned()))];
        for text in ["id,name\na,1\nc,\"open\nd,4\ne,5\n", "id,name\na,1\n\"c", "id,name\na,1\nc,\"\"\"\n"] {
            assert_eq!(read(RecordFormat::Csv, "id", text)[1..], unclosed, "{text}");
        }
        for (text, name) in [("c,\"closed\n\"", "closed\\n"), ("c,\"\"\"\"\n\n", "\\\""), ("c,in\"side", "in\\\"side")]
        {
            let expected = ok("c", &format!("{{\"id\":\"c\",\"name\":\"{name}\"}}"));
            assert_eq!(read(RecordFormat::Csv, "id", &format!("id,name\n{text}")), [(1, 2, expected)]);
        }
    }

    #[test]
    fn a_wrong_field_is_found_before_anything_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records");
        std::fs::write(&path, "{\"b\":1,\"a\":2}\n").unwrap();
        let refused = Source::open(&path, RecordFormat::Jsonl, "key").unwrap().check_first().unwrap_err();
        assert_eq!(refused.message, "the first record has no field `key` to take the key from");
        assert_eq!(refused.hint.unwrap(), "choose one with --key; there are a, b");
        std::fs::write(&path, "{}\n").unwrap();
        let refused = Source::open(&path, RecordFormat::Jsonl, "key").unwrap().check_first().unwrap_err();
        assert_eq!(refused.hint.unwrap(), "it has no fields at all");
        std::fs::write(&path, "b,a\n1,2\n").unwrap();
        assert!(Source::open(&path, RecordFormat::Csv, "key").is_err());
    }

    #[test]
    fn a_header_that_makes_no_objects_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records");
        for (text, message) in [
            ("", "is empty"),
            ("\n\n", "is empty"),
            ("id,n,id\n1,2,3\n", "two columns of "),
            ("id,\"n\n1,2\n", "a quote is opened and never closed"),
        ] {
            std::fs::write(&path, text).unwrap();
            let refused = Source::open(&path, RecordFormat::Csv, "id").err().unwrap();
            assert!(refused.message.contains(message), "{}", refused.message);
        }
        std::fs::write(&path, "id,n").unwrap();
        assert!(Source::open(&path, RecordFormat::Csv, "id").unwrap().next().unwrap().is_none());
    }
}
