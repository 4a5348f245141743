//! What was over before an operation began.

use crate::history::Entry;

/// Operations that are met in the order in which they ended, by others in the order in which they were invoked.
pub struct Moments<'a, T> {
    ended: Vec<(&'a Entry, T)>,
    next: usize,
}

impl<'a, T: Copy> Moments<'a, T> {
    pub fn new(mut operations: Vec<(&'a Entry, T)>) -> Self {
        operations.sort_by_key(|(entry, _)| (entry.ended, entry.number));
        Moments { ended: operations, next: 0 }
    }

    /// Those that were over when `entry` was invoked, and were not returned before.
    pub fn over_before(&mut self, entry: &Entry) -> impl Iterator<Item = (&'a Entry, T)> {
        let begin = self.next;
        while self.ended.get(self.next).is_some_and(|(earlier, _)| earlier.ended < entry.invoked) {
            self.next += 1;
        }
        self.ended[begin..self.next].iter().copied()
    }

    /// Those that the same session ended in the very moment in which `entry` was invoked. They are returned again later.
    pub fn just_before(&self, entry: &Entry) -> impl Iterator<Item = (&'a Entry, T)> {
        let same_moment = self.ended[self.next..].iter().take_while(|(earlier, _)| earlier.ended == entry.invoked);
        same_moment.filter(|(earlier, _)| earlier.is_before(entry)).copied()
    }
}
