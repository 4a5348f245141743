//! A handful of versions of one key, for stories about reads: v1, v2 and v3, each written by somebody who had seen the
//! one before, and x, written by somebody who had seen nothing.

use starling_core::coordinate::{Write, coordinate};
use starling_core::ids::{Birth, DirectoryId, RequestId};
use starling_core::mark::{Minter, TrustedMarks};
use starling_core::object::{Object, Seen, SiblingMode, Value};
use starling_core::stamp::Stamp;

use super::{NOW, UNLIMITED};

/// `v1` to `v3`.
pub fn version(last: u64) -> Object {
    let (mut object, mut mark) = (Object::default(), None);
    for number in 1..=last {
        let write = write(&format!("v{number}"), number, object.seen());
        coordinate(&mut object, &mut mark, write, &minter(1), &UNLIMITED).expect("without limits no write is refused");
    }
    object
}

/// `x`.
pub fn rival() -> Object {
    let mut object = Object::default();
    let write = write("x", 100, Seen::default());
    coordinate(&mut object, &mut None, write, &minter(2), &UNLIMITED).expect("without limits no write is refused");
    object
}

pub fn merged(objects: impl IntoIterator<Item = Object>) -> Object {
    let mut all = Object::default();
    for object in objects {
        all.merge(&object);
    }
    all
}

/// `v2|x`, `nothing`.
pub fn name_of(object: &Object) -> String {
    let shown = object.present(SiblingMode::Keep, NOW);
    let values = shown.iter().map(|sibling| match &sibling.value {
        Value::Live(bytes) | Value::Expiring { bytes, .. } => String::from_utf8_lossy(bytes).into_owned(),
        Value::Tombstone => "deleted".to_owned(),
    });
    let values: Vec<String> = values.collect();
    if values.is_empty() { "nothing".to_owned() } else { values.join("|") }
}

fn minter(directory: u64) -> Minter {
    Minter { directory: DirectoryId(directory), run: 1, trusted: TrustedMarks::OfThisRun }
}

fn write(value: &str, request: u64, seen: Seen) -> Write {
    Write {
        value: Value::Live(value.to_owned().into()),
        seen,
        request: RequestId(request.into()),
        mode: SiblingMode::Keep,
        wall: Stamp::from_millis(request),
        fresh_birth: Birth(1),
    }
}
