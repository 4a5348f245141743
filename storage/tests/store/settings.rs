//! Plain settings: durable before they are heeded, and heeded by the writer.

use starling_core::coordinate::WriteRefused;
use starling_core::ids::DirectoryId;
use starling_core::name::BucketName;
use starling_core::quorum::Level;
use starling_core::report::Refusal;
use starling_core::settings::{Changes, InvalidSetting, Settings};
use starling_core::wall::WallTime;
use starling_storage::{SetError, Store, StoreError, StoreLimits};

use crate::support::machine::{Machine, on_every_machine};
use crate::support::{EPOCH, block_on, identity, open, our_keys, put};

on_every_machine![
    settings_survive,
    a_buckets_own_limits_count_and_not_the_nodes,
    what_a_peer_knows_is_taken_in_and_survives,
    a_setting_that_makes_no_sense_changes_nothing,
    a_store_that_does_not_serve_takes_no_settings,
];

fn reopened(machine: &dyn Machine) -> Store {
    Store::open_engine(machine.engine(), identity(), StoreLimits::default()).unwrap()
}

fn to(name: &str, text: &str) -> Changes {
    Changes::from([(name.to_owned(), Some(text.to_owned()))])
}

fn bucket() -> BucketName {
    let [key] = our_keys();
    key.bucket().clone()
}

fn settings_survive(machine: &dyn Machine) {
    let store = open(machine.engine());
    store.set(&bucket(), &to("r", "one"), WallTime(5)).unwrap();
    store.set(&bucket(), &to("w", "all"), WallTime(6)).unwrap();
    let before = store.settings();
    assert_eq!((before.of(&bucket()).r, before.of(&bucket()).w), (Some(Level::One), Some(Level::All)));
    store.close();
    drop(store);
    assert_eq!(reopened(machine).settings(), before);
}

fn a_buckets_own_limits_count_and_not_the_nodes(machine: &dyn Machine) {
    let store = open(machine.engine());
    let [key] = our_keys();
    store.set(key.bucket(), &to("max_object_size", "8"), WallTime(5)).unwrap();
    let refused = block_on(store.coordinate(EPOCH, key.clone(), put(1, "nine byte"), None));
    assert_eq!(refused, Err(StoreError::Write(WriteRefused::TooLarge { bytes: 9, limit: 8 })));
    store.set(key.bucket(), &Changes::from([("max_object_size".to_owned(), None)]), WallTime(6)).unwrap();
    block_on(store.coordinate(EPOCH, key, put(1, "nine byte"), None)).unwrap();
}

fn what_a_peer_knows_is_taken_in_and_survives(machine: &dyn Machine) {
    let store = open(machine.engine());
    store.set(&bucket(), &to("w", "all"), WallTime(9)).unwrap();
    let mut theirs = Settings::default();
    let both = Changes::from([("r".to_owned(), Some("one".to_owned())), ("w".to_owned(), Some("2".to_owned()))]);
    theirs.change(&bucket(), &both, WallTime(5), DirectoryId(0x999)).unwrap();
    store.learn_settings(&theirs).unwrap();
    let after = store.settings();
    assert_eq!((after.of(&bucket()).r, after.of(&bucket()).w), (Some(Level::One), Some(Level::All)));
    store.learn_settings(&theirs).unwrap();
    assert_eq!(store.settings(), after, "what is known already changes nothing");
    store.close();
    drop(store);
    assert_eq!(reopened(machine).settings(), after);
}

fn a_setting_that_makes_no_sense_changes_nothing(machine: &dyn Machine) {
    let store = open(machine.engine());
    let refused = store.set(&bucket(), &to("n", "2"), WallTime(5));
    assert_eq!(refused, Err(SetError::Invalid(InvalidSetting::Unknown("n".to_owned()))));
    assert_eq!(*store.settings(), Settings::default());
}

fn a_store_that_does_not_serve_takes_no_settings(machine: &dyn Machine) {
    let store = open(machine.engine());
    store.retire("an old copy");
    let refused = store.set(&bucket(), &to("r", "one"), WallTime(5));
    assert_eq!(refused, Err(SetError::Store(StoreError::Refused(Refusal::NotAMember))));
}
