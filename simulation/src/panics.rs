//! Panics: a runtime catches what its tasks do, and a node would go on without the task that was lost. Here nobody may
//! panic, neither the product nor the simulation.

use std::sync::{Mutex, PoisonError};

static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// From now on every panic of this process is remembered.
pub fn watch() {
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        SEEN.lock().unwrap_or_else(PoisonError::into_inner).push(panic.to_string().replace('\n', ": "));
        told(panic);
    }));
}

pub fn seen() -> Vec<String> {
    SEEN.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
