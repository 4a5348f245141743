//! A run, told line by line; and a fingerprint of it, by which two runs are compared.

use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};

use xxhash_rust::xxh3::Xxh3;

use crate::kernel::time::{self, Moment};

/// How much of a run is told.
#[derive(Debug, Clone, Copy, Default)]
pub enum Telling {
    #[default]
    Nothing,
    /// Without what only fills the page: greetings, how the cluster is made, reading over and over in the end.
    Main,
    Everything,
}

/// The key that is followed, and all others: what is about those, and not about it, is left out.
#[derive(Debug, Clone)]
pub struct Follow {
    pub key: String,
    pub others: Vec<String>,
}

/// Clones write the same transcript.
#[derive(Clone)]
pub struct Transcript(Arc<Mutex<Inner>>);

struct Inner {
    telling: Telling,
    follow: Option<Follow>,
    /// For now only what is noted is told.
    hushed: bool,
    fingerprint: Xxh3,
    events: u64,
}

impl Inner {
    fn tells(&self) -> bool {
        match self.telling {
            Telling::Nothing => false,
            Telling::Main => !self.hushed,
            Telling::Everything => true,
        }
    }
}

impl Transcript {
    pub fn new(telling: Telling, follow: Option<Follow>) -> Transcript {
        Transcript(Arc::new(Mutex::new(Inner { telling, follow, hushed: false, fingerprint: Xxh3::new(), events: 0 })))
    }

    pub fn is_printed(&self) -> bool {
        !matches!(self.lock().telling, Telling::Nothing)
    }

    /// Something happened that anybody would have seen.
    pub fn note(&self, who: &str, what: impl Display) {
        let text = what.to_string();
        self.mark(text.as_bytes());
        if self.is_printed() {
            self.print(who, &text);
        }
    }

    /// As [`Transcript::note`], where working out the words is only worth while if somebody reads them.
    pub fn tell(&self, who: impl FnOnce() -> String, what: impl FnOnce() -> String) {
        if self.lock().tells() {
            self.print(&who(), &what());
        }
    }

    /// For those who want to read everything.
    pub fn mention(&self, who: impl FnOnce() -> String, what: impl FnOnce() -> String) {
        if matches!(self.lock().telling, Telling::Everything) {
            self.print(&who(), &what());
        }
    }

    /// What is left out where a key is followed.
    pub fn tell_of_no_key(&self, who: impl FnOnce() -> String, what: impl FnOnce() -> String) {
        if self.lock().follow.is_none() {
            self.tell(who, what);
        }
    }

    /// Something is wrong: told even while little is.
    pub fn complain(&self, what: impl FnOnce() -> String) {
        if self.is_printed() {
            self.print("!!", &what());
        }
    }

    /// From now on tells only what is noted; or everything again.
    pub fn hush(&self, hushed: bool) {
        self.lock().hushed = hushed;
    }

    fn print(&self, who: &str, text: &str) {
        let about_others = self.lock().follow.as_ref().is_some_and(|Follow { key, others }| {
            !text.contains(key.as_str()) && others.iter().any(|other| text.contains(other.as_str()))
        });
        if !about_others {
            println!("{:>9}  {who:<9} {text}", time::now().to_string());
        }
    }

    /// Adds to the fingerprint what happens now.
    pub fn mark(&self, bytes: &[u8]) {
        let Moment(now) = time::now();
        let mut inner = self.lock();
        inner.events += 1;
        inner.fingerprint.update(&now.to_le_bytes());
        inner.fingerprint.update(bytes);
    }

    /// Equal for equal runs.
    pub fn fingerprint(&self) -> String {
        let inner = self.lock();
        format!("{:016x}-{}", inner.fingerprint.digest(), inner.events)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
