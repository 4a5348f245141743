//! Events to come, in the order of time, and of arrival within one moment.

use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Debug)]
pub struct Agenda<E> {
    events: BTreeMap<(Duration, usize), E>,
    added: usize,
}

impl<E> Default for Agenda<E> {
    fn default() -> Self {
        Agenda { events: BTreeMap::new(), added: 0 }
    }
}

impl<E> Agenda<E> {
    pub fn add(&mut self, at: Duration, event: E) {
        self.added += 1;
        self.events.insert((at, self.added), event);
    }

    /// The next event, or the tick if the machine is to be woken before it.
    pub fn next(&mut self, wake: Option<Duration>, tick: E) -> Option<(Duration, E)> {
        let first = self.events.first_entry();
        match (first, wake) {
            (Some(event), Some(wake)) if wake < event.key().0 => Some((wake, tick)),
            (Some(event), _) => Some((event.key().0, event.remove())),
            (None, Some(wake)) => Some((wake, tick)),
            (None, None) => None,
        }
    }
}
