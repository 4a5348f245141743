//! Bytes, for programs and for people.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

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

/// The two forms that [`Blob`] has.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Written {
    Utf8(String),
    Base64(String),
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Blob, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::Utf8(text) => Ok(Blob(text.into())),
            Written::Base64(text) => STANDARD.decode(text).map(|bytes| Blob(bytes.into())).map_err(de::Error::custom),
        }
    }
}

impl Blob {
    /// As a word that a shell reads as these bytes. Quoted if it has to be; what is no text, or would disturb a terminal, in
    /// the `$'…'` of bash and zsh.
    pub fn shell_word(&self) -> String {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
        match std::str::from_utf8(&self.0) {
            Ok(text) if !text.is_empty() && text.chars().all(is_plain) => text.to_owned(),
            Ok(text) if !text.chars().any(char::is_control) => format!("'{}'", text.replace('\'', r"'\''")),
            _ => format!("$'{}'", self.0.iter().map(|byte| ansi_c(*byte)).collect::<String>()),
        }
    }

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

/// A byte inside of `$'…'`. Always two digits, so that what follows is not read as a third.
fn ansi_c(byte: u8) -> String {
    match byte {
        b'\'' | b'\\' => format!("\\{}", char::from(byte)),
        b' '..=b'~' => char::from(byte).to_string(),
        other => format!("\\x{other:02x}"),
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
    fn what_was_written_is_read_back() {
        for bytes in [&b"a\n"[..], b"\xff\x00", b""] {
            let blob = Blob(Bytes::from_static(bytes));
            assert_eq!(serde_json::from_str::<Blob>(&json_line(&blob)).unwrap(), blob);
        }
        assert!(serde_json::from_str::<Blob>(r#"{"base64":"!"}"#).is_err());
    }

    #[test]
    fn a_shell_reads_a_word_as_the_bytes_that_it_stands_for() {
        for bytes in
            [&b"alice"[..], b"", b"it's", b"a b $HOME `x`", b"Z\xc3\xbcrich", b"-x", b"a\n\t1", b"\xff1'\\\x00"]
        {
            let blob = Blob(Bytes::from_static(bytes));
            let word = blob.shell_word();
            let printed =
                std::process::Command::new("bash").args(["-c", &format!("printf %s {word}")]).output().unwrap();
            // No shell can pass the zero byte on: keys with one have to be named otherwise.
            let expected: Vec<u8> = bytes.iter().take_while(|byte| **byte != 0).copied().collect();
            assert_eq!(printed.stdout, expected, "{word}");
        }
        assert_eq!(blob(b"alice").shell_word(), "alice");
        assert_eq!(blob(b"it's").shell_word(), r"'it'\''s'");
        assert_eq!(blob(b"\xff1").shell_word(), r"$'\xff1'");
    }

    #[test]
    fn a_terminal_is_not_at_the_mercy_of_what_is_stored() {
        assert_eq!(blob(b"a\x1b[31m\n").line(), "a\\u{1b}[31m\\n");
        assert_eq!(blob(b"a\x1b\n\tb").block(), "a\\u{1b}\n\tb");
        assert_eq!(blob(b"a\xff").line(), "a\\xff");
        assert_eq!(blob(b"\xff\x00").block(), "not text; --raw prints it as it is; it begins with\nff 00");
    }
}
