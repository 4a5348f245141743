//! What a disk took in, in words.

use starling_storage::{engine::Change, inspect};

use crate::names::{self, Names};

/// A change of a record that has become durable.
pub fn synced(names: &Names, change: &Change) -> String {
    let Some(value) = &change.value else {
        let place = inspect::record_place(&change.key).expect("records lie where they should");
        return format!("dropped {}", names::key(&place.key));
    };
    let record = inspect::record(&change.key, value).expect("the product reads what it writes");
    let owed: Vec<String> = record.markers.iter().map(|node| names.node(*node)).collect();
    let owed = if owed.is_empty() { String::new() } else { format!(", to be confirmed by {}", owed.join(" ")) };
    format!("synced {} = {}{owed}", names::key(&record.place.key), names.object(&record.object))
}
