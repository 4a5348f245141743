//! Attempts become operations: however often a write was sent, under one request id it is one.

use std::collections::BTreeMap;

use starling_checker::{Deed, Operation, ValueId, Write, WriteOutcome};
use starling_core::ids::RequestId;
use starling_core::name::ObjectKey;

use crate::recorder::Recorded;

/// Operations in the order in which they ended. Attempts to write one value under one request id are one of them.
pub(crate) fn joined(recorded: &[Recorded]) -> Vec<Operation> {
    let mut writes: BTreeMap<(ObjectKey, RequestId, Option<ValueId>), (Operation, Write)> = BTreeMap::new();
    let mut operations = Vec::new();
    for Recorded { request, operation } in recorded {
        match (&operation.deed, request) {
            (Deed::Write(write), Some(request)) => {
                let name = (operation.key.clone(), *request, write.change.value());
                let attempt = (operation.clone(), write.clone());
                let whole = match writes.remove(&name) {
                    Some(before) => join(before, attempt),
                    None => attempt,
                };
                writes.insert(name, whole);
            }
            (Deed::Write(_) | Deed::Read(_), _) => operations.push(operation.clone()),
        }
    }
    operations
        .extend(writes.into_values().map(|(operation, write)| Operation { deed: Deed::Write(write), ..operation }));
    operations.sort_by_key(|operation| operation.ended);
    operations
}

fn join((first, before): (Operation, Write), (last, write): (Operation, Write)) -> (Operation, Write) {
    let (change, tries) = (before.change, before.tries.saturating_add(write.tries));
    let told = if rank(&write.outcome) >= rank(&before.outcome) { write } else { before };
    let operation = Operation { invoked: first.invoked.min(last.invoked), ended: first.ended.max(last.ended), ..first };
    (operation, Write { change, tries, ..told })
}

/// One acknowledgement is enough; an attempt that may have been carried out leaves it open.
fn rank(outcome: &WriteOutcome) -> u8 {
    match outcome {
        WriteOutcome::Failed => 0,
        WriteOutcome::Unknown => 1,
        WriteOutcome::Acknowledged(_) => 2,
    }
}

#[cfg(test)]
mod tests {
    use starling_checker::{Acknowledgement, Asked, Change, Session};

    use super::*;

    fn attempt(invoked: u64, tries: u32, outcome: WriteOutcome) -> Recorded {
        let asked = Asked { replicas: 2, primaries: 0, copies: 3 };
        let change = Change::Put { value: ValueId(1), context: None };
        let deed = Deed::Write(Write { change, asked, tries, over_by: None, outcome });
        let key = ObjectKey::new("carts".parse().unwrap(), "alice").unwrap();
        let operation = Operation { session: Session(1), key, invoked, ended: invoked + 10, deed };
        Recorded { request: Some(RequestId(1)), operation }
    }

    #[test]
    fn one_acknowledged_attempt_is_enough_and_all_of_them_count_as_tries() {
        let acknowledged = WriteOutcome::Acknowledged(Acknowledgement::default());
        let (failed, unknown) = (WriteOutcome::Failed, WriteOutcome::Unknown);
        let attempts = [attempt(0, 0, failed), attempt(20, 1, acknowledged.clone()), attempt(40, u32::MAX, unknown)];
        let operations = joined(&attempts);
        let [Operation { invoked: 0, ended: 50, deed: Deed::Write(write), .. }] = &operations[..] else {
            panic!("{operations:?}");
        };
        assert_eq!((&write.outcome, write.tries), (&acknowledged, u32::MAX));
    }

    #[test]
    fn an_attempt_that_failed_says_nothing_of_one_that_may_have_been_carried_out() {
        let attempts = [attempt(0, 1, WriteOutcome::Unknown), attempt(20, 0, WriteOutcome::Failed)];
        let operations = joined(&attempts);
        assert!(matches!(&operations[0].deed, Deed::Write(Write { outcome: WriteOutcome::Unknown, tries: 1, .. })));
    }
}
