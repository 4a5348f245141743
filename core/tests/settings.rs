//! Plain settings: wherever changes meet, and in whatever order, the same ones win, and nobody who saw what he changed loses.
#![allow(clippy::unwrap_used, reason = "a helper fails as its test does")]

mod support;

use std::time::Duration;

use proptest::prelude::*;
use starling_core::coordinate::{MAX_OBJECT_BYTES, ObjectLimits};
use starling_core::ids::DirectoryId;
use starling_core::name::BucketName;
use starling_core::quorum::{Level, ReplicaCount};
use starling_core::settings::{
    BucketSettings, Changes, InvalidSetting, MAX_BUCKETS, Register, Registers, Setting, Settings, SettingsChecksum,
    Version,
};
use starling_core::wall::{Lifetime, WallTime};
use support::cases;

fn bucket(name: &str) -> BucketName {
    name.parse().unwrap()
}

fn to(name: &str, text: Option<&str>) -> Changes {
    Changes::from([(name.to_owned(), text.map(str::to_owned))])
}

/// What happens among three nodes, whose clocks show what they like.
#[derive(Debug, Clone)]
enum Step {
    Change { node: usize, bucket: usize, setting: Setting, text: Option<&'static str>, clock: u64 },
    Learn { node: usize, from: usize },
}

const NODES: usize = 3;
const BUCKETS: [&str; 2] = ["carts", "sessions"];

fn text_of(setting: Setting) -> impl Strategy<Value = Option<&'static str>> {
    let texts: Vec<Option<&'static str>> = match setting {
        Setting::R | Setting::W => vec![None, Some("one"), Some("quorum"), Some("all"), Some("2")],
        Setting::Ttl => vec![None, Some("1"), Some("86400000")],
        Setting::MaxSiblings | Setting::MaxObjectSize => vec![None, Some("1"), Some("5000")],
    };
    prop::sample::select(texts)
}

fn step() -> impl Strategy<Value = Step> {
    let change = (0..NODES, 0..BUCKETS.len(), prop::sample::select(Setting::ALL.to_vec()), 0..10_u64).prop_flat_map(
        |(node, bucket, setting, clock)| {
            text_of(setting).prop_map(move |text| Step::Change { node, bucket, setting, text, clock })
        },
    );
    let learn = (0..NODES, 0..NODES).prop_map(|(node, from)| Step::Learn { node, from });
    prop_oneof![change, learn]
}

fn change(settings: &mut Settings, at: &str, name: &str, text: Option<&str>, clock: u64, node: usize) {
    let by = DirectoryId(node as u64 + 1);
    settings.change(&bucket(at), &to(name, text), WallTime(clock), by).unwrap();
}

fn text_in(settings: &Settings, at: &str, name: &str) -> Option<String> {
    settings.registers(&bucket(at))?.get(name)?.text.clone()
}

fn merged(a: &Settings, b: &Settings) -> Settings {
    let mut both = a.clone();
    both.merge(b);
    both
}

/// The nodes after those steps. Whoever changes something sees it at once.
fn after(steps: &[Step]) -> Vec<Settings> {
    let mut nodes = vec![Settings::default(); NODES];
    for step in steps {
        match *step {
            Step::Change { node, bucket, setting, text, clock } => {
                change(&mut nodes[node], BUCKETS[bucket], setting.name(), text, clock, node);
                assert_eq!(text_in(&nodes[node], BUCKETS[bucket], setting.name()).as_deref(), text);
            }
            Step::Learn { node, from } => {
                let known = nodes[from].clone();
                nodes[node].merge(&known);
            }
        }
    }
    nodes
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn a_merge_is_commutative_associative_and_idempotent(steps in prop::collection::vec(step(), 0..40)) {
        let nodes = after(&steps);
        let [a, b, c] = [&nodes[0], &nodes[1], &nodes[2]];
        prop_assert_eq!(merged(a, b), merged(b, a));
        prop_assert_eq!(merged(&merged(a, b), c), merged(a, &merged(b, c)));
        prop_assert_eq!(&merged(a, a), a);
    }

    #[test]
    fn whoever_changes_what_he_sees_is_heeded_whatever_clocks_show(
        steps in prop::collection::vec(step(), 0..40),
        clock in 0..10_u64,
    ) {
        let nodes = after(&steps);
        let everything = nodes.iter().fold(Settings::default(), |all, node| merged(&all, node));
        let mut changed = everything.clone();
        change(&mut changed, "carts", "r", Some("3"), clock, 0);
        for node in nodes {
            let both = merged(&node, &changed);
            prop_assert_eq!(text_in(&both, "carts", "r"), Some("3".to_owned()));
            prop_assert_eq!(both, changed.clone());
        }
    }

    #[test]
    fn equal_settings_have_equal_checksums_and_others_do_not(steps in prop::collection::vec(step(), 0..40)) {
        let nodes = after(&steps);
        for (a, b) in [(0, 1), (1, 2), (0, 2)] {
            prop_assert_eq!(nodes[a] == nodes[b], nodes[a].checksum() == nodes[b].checksum());
        }
    }
}

#[test]
fn changes_of_different_settings_at_once_are_both_heeded() {
    let (mut here, mut there) = (Settings::default(), Settings::default());
    change(&mut here, "carts", "r", Some("one"), 5, 0);
    change(&mut there, "carts", "ttl", Some("60000"), 9, 1);
    let both = merged(&here, &there).of(&bucket("carts"));
    let minute = Lifetime::try_from(Duration::from_secs(60)).unwrap();
    assert_eq!(both, BucketSettings { r: Some(Level::One), ttl: Some(minute), ..BucketSettings::default() });
}

#[test]
fn of_two_changes_at_once_the_one_with_the_later_time_wins() {
    let (mut here, mut there) = (Settings::default(), Settings::default());
    change(&mut here, "carts", "r", Some("one"), 9, 0);
    change(&mut there, "carts", "r", Some("all"), 5, 1);
    assert_eq!(merged(&here, &there).of(&bucket("carts")).r, Some(Level::One));
    change(&mut there, "carts", "r", Some("all"), 9, 1);
    assert_eq!(merged(&here, &there).of(&bucket("carts")).r, Some(Level::All), "at one time, the greater directory's");
}

#[test]
fn what_was_cleared_does_not_come_back() {
    let mut here = Settings::default();
    change(&mut here, "carts", "w", Some("all"), 5, 0);
    let old = here.clone();
    change(&mut here, "carts", "w", None, 1, 0);
    assert_eq!(here.of(&bucket("carts")), BucketSettings::default());
    assert_eq!(merged(&here, &old).of(&bucket("carts")), BucketSettings::default());
}

#[test]
fn what_only_a_newer_build_knows_is_passed_on_and_counts_for_nothing() {
    let register = |text: &str| {
        let version = Version { at: WallTime(5), by: DirectoryId(1) };
        Register { version, text: Some(text.to_owned()) }
    };
    let registers = Registers::from([("colour".to_owned(), register("red")), ("r".to_owned(), register("most"))]);
    let newer = Settings::from_parts([(bucket("carts"), registers)]);
    let both = merged(&Settings::default(), &newer);
    assert_eq!((both.of(&bucket("carts")), both.checksum()), (BucketSettings::default(), newer.checksum()));
    let changed = both.clone().change(&bucket("carts"), &to("colour", None), WallTime(9), DirectoryId(1));
    assert_eq!(changed, Err(InvalidSetting::Unknown("colour".to_owned())));
}

#[test]
fn what_makes_no_sense_is_refused_with_its_limits_and_changes_nothing() {
    let mut settings = Settings::default();
    let mut refused = |name: &str, text: &str| {
        let mut changes = to(name, Some(text));
        changes.insert("w".to_owned(), Some("one".to_owned()));
        let refused = settings.change(&bucket("carts"), &changes, WallTime(1), DirectoryId(1)).unwrap_err();
        assert_eq!(settings, Settings::default());
        refused.to_string()
    };
    let quorum = |text: &str| format!("r={text} is no quorum: use one, quorum, all, or a number from 1 to 7");
    for text in ["0", "8", "default", "some"] {
        assert_eq!(refused("r", text), quorum(text));
    }
    assert_eq!(refused("ttl", "soon"), "ttl=soon is no number of milliseconds");
    assert_eq!(refused("ttl", "0"), "a value lives for a millisecond at least, and for a hundred years at the most");
    assert_eq!(refused("max_siblings", "0"), "max_siblings=0 is not possible: use 1 to 10000");
    let too_much = (MAX_OBJECT_BYTES + 1).to_string();
    assert_eq!(
        refused("max_object_size", &too_much),
        format!("max_object_size={too_much} is not possible: use 1 to 4194304")
    );
    assert_eq!(refused("n", "2"), "no setting of a bucket is named `n`");
}

#[test]
fn no_more_buckets_than_there_is_room_for_are_given_settings() {
    let mut settings = Settings::default();
    for number in 0..MAX_BUCKETS {
        change(&mut settings, &format!("bucket {number}"), "r", Some("one"), 1, 0);
    }
    let one = to("r", Some("one"));
    let one_more = settings.change(&bucket("one more"), &one, WallTime(2), DirectoryId(1));
    assert_eq!(one_more, Err(InvalidSetting::TooManyBuckets));
    settings.change(&bucket("bucket 7"), &one, WallTime(2), DirectoryId(1)).unwrap();
    change(&mut settings, "bucket 7", "r", None, 3, 0);
    change(&mut settings, "one more", "r", Some("one"), 3, 0);
    let again = settings.change(&bucket("bucket 7"), &one, WallTime(4), DirectoryId(1));
    assert_eq!(again, Err(InvalidSetting::TooManyBuckets));
}

#[test]
fn what_was_never_set_is_not_cleared() {
    let mut settings = Settings::default();
    change(&mut settings, "carts", "r", None, 1, 0);
    settings.change(&bucket("carts"), &Changes::new(), WallTime(2), DirectoryId(1)).unwrap();
    assert_eq!(settings, Settings::default());
}

#[test]
fn what_a_request_asks_for_counts_and_else_what_is_set_as_far_as_replicas_can_do_it() {
    let copies = |count: u8| ReplicaCount::try_from(count).unwrap();
    let set = BucketSettings { r: Some(Level::One), w: Some(Level::Count(3)), ..BucketSettings::default() };
    assert_eq!(set.r_for(Level::Default, copies(3)), Level::One);
    assert_eq!(set.r_for(Level::All, copies(3)), Level::All);
    assert_eq!(set.w_for(Level::Default, copies(2)), Level::Count(2));
    assert_eq!(set.w_for(Level::Count(3), copies(2)), Level::Count(3), "and is refused for it");
    assert_eq!(BucketSettings::default().w_for(Level::Default, copies(3)), Level::Default);
}

#[test]
fn limits_are_those_of_the_bucket_where_it_has_some() {
    let of_the_node = ObjectLimits { siblings: 100, bytes: 1000 };
    assert_eq!(BucketSettings::default().limits_or(of_the_node), of_the_node);
    let both = BucketSettings { max_siblings: Some(3), max_object_size: Some(9), ..BucketSettings::default() };
    assert_eq!(both.limits_or(of_the_node), ObjectLimits { siblings: 3, bytes: 9 });
}

#[test]
fn a_checksum_is_the_same_in_every_build() {
    let mut settings = Settings::default();
    assert_eq!(settings.checksum(), SettingsChecksum(0));
    change(&mut settings, "carts", "r", Some("one"), 5, 0);
    assert_eq!(settings.checksum().to_string(), "ee717242f1d4b2e3");
}
