//! A run, told line by line; and a fingerprint of it, by which two runs are compared.

use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};

use xxhash_rust::xxh3::Xxh3;

use crate::kernel::time::{self, Moment};

/// Clones write the same transcript.
#[derive(Clone)]
pub struct Transcript(Arc<Mutex<Inner>>);

struct Inner {
    /// Whether anybody reads along.
    printed: bool,
    fingerprint: Xxh3,
    events: u64,
}

impl Transcript {
    pub fn new(printed: bool) -> Transcript {
        Transcript(Arc::new(Mutex::new(Inner { printed, fingerprint: Xxh3::new(), events: 0 })))
    }

    pub fn is_printed(&self) -> bool {
        self.lock().printed
    }

    /// Something happened that anybody would have seen.
    pub fn note(&self, who: &str, what: impl Display) {
        let text = what.to_string();
        self.mark(text.as_bytes());
        if self.is_printed() {
            println!("{:>9}  {who:<9} {text}", time::now().to_string());
        }
    }

    /// As [`Transcript::note`], where working out the words is only worth while if somebody reads them.
    pub fn tell(&self, who: impl FnOnce() -> String, what: impl FnOnce() -> String) {
        if self.is_printed() {
            println!("{:>9}  {:<9} {}", time::now().to_string(), who(), what());
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
