//! Bytes, for programs and for people.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

/// How much of what is no text a person is shown.
const PREVIEW_BYTES: usize = 32;

/// Bytes in JSON: `{"utf8": "…"}` if they are UTF-8, else `{"base64": "…"}` (the standard alphabet, padded).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob(pub Bytes);

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        match std::str::from_utf8(&self.0) {
            Ok(text) => map.serialize_entry("utf8", text)?,
            Err(_) => map.serialize_entry("base64", &STANDARD.encode(&self.0))?,
        }
        map.end()
    }
}

impl Blob {
    /// On one line: what would disturb a terminal, or is no text, as `\n` or `\xff`.
    pub fn line(&self) -> String {
        escaped(&self.0, |_| false)
    }

    /// As text of any number of lines, or a preview of what is no text.
    pub fn block(&self) -> String {
        match std::str::from_utf8(&self.0) {
            Ok(_) => escaped(&self.0, |c| matches!(c, '\n' | '\t')),
            Err(_) => self.preview(),
        }
    }

    fn preview(&self) -> String {
        let mut text = String::from("not text; --raw prints it as it is; it begins with\n");
        for byte in self.0.iter().take(PREVIEW_BYTES) {
            let _ = write!(text, "{byte:02x} ");
        }
        text.truncate(text.trim_end().len());
        text
    }
}

fn escaped(bytes: &[u8], keep: impl Fn(char) -> bool) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() && !keep(c) { text.extend(c.escape_default()) } else { text.push(c) }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::json_line;

    fn blob(bytes: &'static [u8]) -> Blob {
        Blob(Bytes::from_static(bytes))
    }

    #[test]
    fn json_says_which_encoding_it_uses() {
        assert_eq!(json_line(&blob("Zürich\n".as_bytes())), r#"{"utf8":"Zürich\n"}"#);
        assert_eq!(json_line(&blob(b"\xff\xfe")), r#"{"base64":"//4="}"#);
        assert_eq!(json_line(&blob(b"")), r#"{"utf8":""}"#);
    }

    #[test]
    fn a_terminal_is_not_at_the_mercy_of_what_is_stored() {
        assert_eq!(blob(b"a\x1b[31m\n").line(), "a\\u{1b}[31m\\n");
        assert_eq!(blob(b"a\x1b\n\tb").block(), "a\\u{1b}\n\tb");
        assert_eq!(blob(b"a\xff").line(), "a\\xff");
        assert_eq!(blob(b"\xff\x00").block(), "not text; --raw prints it as it is; it begins with\nff 00");
    }
}
