use std::collections::BTreeMap;

use proptest::prelude::*;
use starling_core::ids::{ClusterId, NodeId};
use starling_core::name::{NodeName, Zone};

use super::*;
use crate::announcement::{MAX_ADDRESS_BYTES, MAX_HINT_TARGETS, MAX_TEXT_BYTES};

fn example() -> Announcement {
    Announcement {
        name: "n1".parse().unwrap(),
        zone: "z1".parse().unwrap(),
        run: Run { directory: DirectoryId(0xd1), counter: 12, nonce: 0xabc },
        address: "n1.example.org:7400".parse().unwrap(),
        protocol: 1..=2,
        features: 0b101,
        build: ShortText::new("0.1.0 (abcdef)"),
        cluster: Some(ClusterId(0xc1)),
        layout: Some(LayoutVersion(7)),
        log: Some((Epoch(9), EntryChecksum(0xabc))),
        hints_for: [NodeId(2), NodeId(3)].into_iter().collect(),
        is_filling: true,
        settings: Some(SettingsChecksum(0x5e7)),
        standing: Standing::Retired { reason: ShortText::new("sync failed") },
    }
}

fn read_back(values: &[(&'static str, String)]) -> Result<Announcement, Unreadable> {
    decode(|key| values.iter().find(|(name, _)| *name == key).map(|(_, value)| value.as_str()))
}

#[test]
fn the_keys_and_values_stay_as_they_are() {
    let expected = [
        ("v1.name", "n1"),
        ("v1.zone", "z1"),
        ("v1.run", "00000000000000d1 12 0000000000000abc"),
        ("v1.address", "n1.example.org:7400"),
        ("v1.protocol", "1-2"),
        ("v1.features", "0000000000000005"),
        ("v1.build", "0.1.0 (abcdef)"),
        ("v1.cluster", "00000000000000c1"),
        ("v1.layout", "7"),
        ("v1.log", "9 0000000000000abc"),
        ("v1.hints", "0000000000000002 0000000000000003"),
        ("v1.standing", "retired sync failed"),
        ("v1.filling", "filling"),
        ("v1.settings", "00000000000005e7"),
    ];
    assert_eq!(encode(&example()), expected.map(|(key, value)| (key, value.to_owned())));
}

#[test]
fn what_a_fresh_node_lacks_is_written_as_a_dash() {
    let fresh = Announcement {
        cluster: None,
        layout: None,
        log: None,
        hints_for: HintTargets::none(),
        is_filling: false,
        standing: Standing::Starting,
        ..example()
    };
    let values: BTreeMap<_, _> = encode(&fresh).into_iter().collect();
    for key in ["v1.cluster", "v1.layout", "v1.log", "v1.hints", "v1.filling"] {
        assert_eq!(values[key], "-", "{key}");
    }
    assert_eq!(read_back(&encode(&fresh)), Ok(fresh));
}

#[test]
fn unknown_keys_of_a_newer_node_are_passed_over() {
    let mut values = encode(&example());
    values.push(("v1.mood", "excellent".to_owned()));
    values.push(("v2.name", "n1!".to_owned()));
    assert_eq!(read_back(&values), Ok(example()));
}

#[test]
fn a_value_that_makes_no_sense_is_named() {
    for (index, nonsense) in [(0, "N 1"), (2, "d1 12"), (4, "1"), (8, "seven"), (9, "n2"), (10, "dancing")] {
        let mut values = encode(&example());
        values[index].1 = nonsense.to_owned();
        let expected = Unreadable::Malformed { key: values[index].0, value: ShortText::new(nonsense) };
        assert_eq!(read_back(&values), Err(expected));
    }
}

#[test]
fn an_announcement_that_lacks_a_key_has_not_arrived() {
    for index in 0..encode(&example()).len() {
        let mut values = encode(&example());
        let (key, _) = values.remove(index);
        let read = read_back(&values);
        match key {
            // Earlier programs do not write it.
            "v1.filling" => assert_eq!(read, Ok(Announcement { is_filling: false, ..example() })),
            "v1.settings" => assert_eq!(read, Ok(Announcement { settings: None, ..example() })),
            key => assert_eq!(read, Err(Unreadable::Missing(key))),
        }
    }
}

#[test]
fn the_longest_announcement_stays_below_the_limit() {
    let longest = Announcement {
        name: "n".repeat(63).parse().unwrap(),
        zone: "z".repeat(63).parse().unwrap(),
        address: format!("{}:65535", "h".repeat(MAX_ADDRESS_BYTES - 6)).parse().unwrap(),
        build: ShortText::new(&"b".repeat(MAX_TEXT_BYTES + 1)),
        hints_for: (1..=MAX_HINT_TARGETS as u64).map(|node| NodeId(u64::MAX - node)).collect(),
        standing: Standing::Retired { reason: ShortText::new(&"r".repeat(MAX_TEXT_BYTES + 1)) },
        ..example()
    };
    assert!(longest.hints_for.named().is_some());
    let values = encode(&longest);
    assert!(values.iter().all(|(_, value)| value.len() <= MAX_VALUE_BYTES));
    assert_eq!(read_back(&values), Ok(longest));
}

prop_compose! {
    fn any_run()(directory in any::<u64>(), counter in any::<u64>(), nonce in any::<u64>()) -> Run {
        Run { directory: DirectoryId(directory), counter, nonce }
    }
}

fn any_targets() -> impl Strategy<Value = HintTargets> {
    prop_oneof![
        Just(HintTargets::anyone()),
        proptest::collection::vec(any::<u64>().prop_map(NodeId), 0..20).prop_map(|nodes| nodes.into_iter().collect()),
    ]
}

fn any_text() -> impl Strategy<Value = ShortText> {
    any::<String>().prop_map(|text| ShortText::new(&text))
}

fn any_standing() -> impl Strategy<Value = Standing> {
    prop_oneof![
        Just(Standing::Starting),
        Just(Standing::Serving),
        Just(Standing::Leaving),
        any_text().prop_map(|reason| Standing::Retired { reason }),
    ]
}

prop_compose! {
    fn any_announcement()(
        (name, zone) in ("[a-z0-9][a-z0-9._-]{0,62}", "[a-z0-9][a-z0-9._-]{0,62}"),
        run in any_run(),
        (host, port) in ("[a-z0-9.-]{1,253}", 1..=u16::MAX),
        (oldest, newest) in any::<(u16, u16)>(),
        features in any::<u64>(),
        build in any_text(),
        (cluster, layout, log, settings) in any::<(Option<u64>, Option<u64>, Option<(u64, u64)>, Option<u64>)>(),
        hints_for in any_targets(),
        is_filling in any::<bool>(),
        standing in any_standing(),
    ) -> Announcement {
        Announcement {
            name: NodeName::try_from(name).unwrap(),
            zone: Zone::try_from(zone).unwrap(),
            run,
            address: format!("{host}:{port}").parse().unwrap(),
            protocol: oldest..=newest,
            features,
            build,
            cluster: cluster.map(ClusterId),
            layout: layout.map(LayoutVersion),
            log: log.map(|(epoch, checksum)| (Epoch(epoch), EntryChecksum(checksum))),
            hints_for,
            is_filling,
            settings: settings.map(SettingsChecksum),
            standing,
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_reads_back(announcement in any_announcement()) {
        prop_assert_eq!(read_back(&encode(&announcement)), Ok(announcement));
    }

    #[test]
    fn no_value_whatever_makes_the_reader_panic(index in 0usize..11, value in any::<String>()) {
        let mut values = encode(&example());
        values[index].1 = value;
        let _ = read_back(&values);
    }
}
