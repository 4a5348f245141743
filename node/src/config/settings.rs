//! What was typed: every setting's text, and where it came from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::config::Mistake;
use crate::config::keys::KEYS;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    Default,
    File(PathBuf),
    Environment(String),
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Default => f.write_str("default"),
            Source::File(path) => write!(f, "{}", path.display()),
            Source::Environment(name) => f.write_str(name),
            Source::Flag(flag) => f.write_str(flag),
        }
    }
}

/// `STARLING_…` variables that belong to other programs of the family.
const OTHERS_VARIABLES: &[&str] = &[
    "STARLING_BIN_DIR",
    "STARLING_BUILD_CACHE",
    "STARLING_CONFIG",
    "STARLING_DEMO_PORT",
    "STARLING_LOCAL_DIR",
    "STARLING_NODES",
    "STARLING_NODE_BIN",
    "STARLING_SOAK",
];

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    values: BTreeMap<&'static str, (String, Source)>,
    /// Names that are not known, and values of the wrong shape: told with what else is wrong.
    pub mistakes: Vec<Mistake>,
}

impl Settings {
    /// Lays flags over environment over file over defaults. `file` is a path and its text.
    pub fn collect(
        file: Option<(&Path, &str)>,
        environment: impl Iterator<Item = (String, String)>,
        flags: impl Iterator<Item = (String, String)>,
    ) -> Settings {
        let mut settings = Settings::default();
        for key in KEYS {
            if let Some(default) = key.default {
                settings.values.insert(key.name, (default.to_owned(), Source::Default));
            }
        }
        if let Some((path, text)) = file {
            settings.lay_file(path, text);
        }
        let ours =
            |(name, _): &(String, String)| name.starts_with("STARLING_") && !OTHERS_VARIABLES.contains(&name.as_str());
        for (name, value) in environment.filter(ours) {
            let key = name["STARLING_".len()..].to_lowercase();
            settings.set(&key, value, Source::Environment(name));
        }
        for (key, value) in flags {
            let flag = Source::Flag(format!("--{}", key.replace('_', "-")));
            settings.set(&key, value, flag);
        }
        settings.derive();
        settings
    }

    pub fn get(&self, key: &str) -> Option<(&str, &Source)> {
        self.values.get(key).map(|(value, source)| (value.as_str(), source))
    }

    /// Defaults that follow from other settings.
    fn derive(&mut self) {
        let of = |key: &str| self.values.get(key).map(|(value, _)| value.clone());
        let derived =
            [("data_dir", of("name").map(|name| format!("starling-data/{name}"))), ("advertise", of("listen"))];
        for (key, value) in derived {
            if let Some(value) = value {
                self.values.entry(key).or_insert((value, Source::Default));
            }
        }
    }

    fn lay_file(&mut self, path: &Path, text: &str) {
        let from = Source::File(path.to_owned());
        let table: toml::Table = match text.parse() {
            Ok(table) => table,
            Err(error) => {
                let what = toml::de::Error::message(&error).to_owned();
                return self.mistakes.push(Mistake { key: "the file".to_owned(), from, what });
            }
        };
        for (key, value) in table {
            match as_text(&value) {
                Some(value) => self.set(&key, value, from.clone()),
                None => {
                    let what = "is not a string, a number, or a list of strings".to_owned();
                    self.mistakes.push(Mistake { key, from: from.clone(), what });
                }
            }
        }
    }

    fn set(&mut self, key: &str, value: String, from: Source) {
        match KEYS.iter().find(|known| known.name == key) {
            Some(known) => {
                self.values.insert(known.name, (value, from));
            }
            None => self.mistakes.push(Mistake { key: key.to_owned(), from, what: unknown(key) }),
        }
    }
}

fn unknown(key: &str) -> String {
    let distance = |known: &&str| strsim::damerau_levenshtein(known, key);
    match KEYS.iter().map(|known| known.name).min_by_key(distance).filter(|known| distance(known) <= 3) {
        Some(close) => format!("is not a setting; did you mean `{close}`?"),
        None => "is not a setting; `starling-node config` lists them all".to_owned(),
    }
}

fn as_text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Array(items) => {
            let texts: Option<Vec<&str>> = items.iter().map(toml::Value::as_str).collect();
            texts.map(|texts| texts.join(","))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<Vec<_>>().into_iter()
    }

    #[test]
    fn flags_win_over_environment_over_file_over_defaults() {
        let file = "zone = \"file\"\nlog = \"file\"\nname = \"file\"\nseeds = [\"a:1\", \"b:2\"]";
        let environment =
            pairs(&[("STARLING_LOG", "env"), ("STARLING_NAME", "env"), ("STARLING_NODES", "x"), ("HOME", "/")]);
        let flags = pairs(&[("name", "flag")]);
        let settings = Settings::collect(Some((Path::new("s.toml"), file)), environment, flags);
        assert_eq!(settings.get("zone"), Some(("file", &Source::File("s.toml".into()))));
        assert_eq!(settings.get("log"), Some(("env", &Source::Environment("STARLING_LOG".to_owned()))));
        assert_eq!(settings.get("name"), Some(("flag", &Source::Flag("--name".to_owned()))));
        assert_eq!(settings.get("listen"), Some(("127.0.0.1:7401", &Source::Default)));
        assert_eq!(settings.get("seeds").unwrap().0, "a:1,b:2");
    }

    #[test]
    fn what_follows_from_other_settings_is_a_default_like_any() {
        let settings = Settings::collect(None, pairs(&[]), pairs(&[("name", "n7"), ("listen", "127.0.0.1:9")]));
        assert_eq!(settings.get("data_dir"), Some(("starling-data/n7", &Source::Default)));
        assert_eq!(settings.get("advertise"), Some(("127.0.0.1:9", &Source::Default)));
        let settings = Settings::collect(None, pairs(&[]), pairs(&[("data_dir", "/var"), ("advertise", "a:1")]));
        assert_eq!((settings.get("data_dir").unwrap().0, settings.get("advertise").unwrap().0), ("/var", "a:1"));
    }

    #[test]
    fn unknown_names_are_told_with_what_was_probably_meant() {
        let file = "zonne = \"a\"\nlisten = { port = 1 }";
        let environment = pairs(&[("STARLING_DATA_DRI", "x")]);
        let settings = Settings::collect(Some((Path::new("s.toml"), file)), environment, pairs(&[]));
        let texts: Vec<String> = settings.mistakes.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "listen (s.toml): is not a string, a number, or a list of strings",
                "zonne (s.toml): is not a setting; did you mean `zone`?",
                "data_dri (STARLING_DATA_DRI): is not a setting; did you mean `data_dir`?",
            ]
        );
    }
}
