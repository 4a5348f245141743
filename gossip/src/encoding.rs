//! How an announcement is written: one short, readable chitchat value for each field.
//!
//! | key           | value                                                                       |
//! |---------------|-----------------------------------------------------------------------------|
//! | `v1.name`     | name of the node                                                            |
//! | `v1.zone`     | name of the zone                                                            |
//! | `v1.run`      | directory id, counter in decimal, nonce in hexadecimal                      |
//! | `v1.address`  | `host:port` of the RPC services                                             |
//! | `v1.protocol` | oldest and newest version spoken: `1-2`                                     |
//! | `v1.features` | bits, in hexadecimal                                                        |
//! | `v1.build`    | text                                                                        |
//! | `v1.cluster`  | cluster id, or `-`                                                          |
//! | `v1.layout`   | version, or `-`                                                             |
//! | `v1.log`      | epoch in decimal and checksum of the last entry, or `-`                     |
//! | `v1.hints`    | node ids, or `-` for none, or `*` for anyone                                |
//! | `v1.standing` | `starting`, `serving`, `leaving`, or `retired` with the reason behind it    |
//! | `v1.filling`  | `filling` or `-`; taken for `-` where it is missing                         |
//! | `v1.settings` | checksum of the plain settings, in hexadecimal; missing in earlier programs |
//!
//! A later program adds keys and may not change these: unknown keys are passed over. All of these keys are always
//! written, so an announcement that lacks one of those before the last two has not arrived in full.

use std::ops::RangeInclusive;

use starling_core::ids::{DirectoryId, Run};
use starling_core::layout::LayoutVersion;
use starling_core::ring::{EntryChecksum, Epoch};
use starling_core::settings::SettingsChecksum;

use crate::announcement::{Announcement, HintTargets, ShortText, Standing};

/// Longest value. Chitchat sends a node's values in the order of their age, as many as fit a datagram: one that never
/// fits would hold back all later ones, while the node still looks alive.
pub const MAX_VALUE_BYTES: usize = 8 * 1024;

const NONE: &str = "-";
const ANYONE: &str = "*";
const FILLING: &str = "filling";

/// Why nothing is known of a node that was heard of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Usual for a moment, while the announcement arrives.
    #[error("`{0}` has not arrived")]
    Missing(&'static str),
    #[error("`{key}` cannot be read: `{value}`")]
    Malformed { key: &'static str, value: ShortText },
}

/// The keys and values of an announcement, each key once.
pub(crate) fn encode(announcement: &Announcement) -> Vec<(&'static str, String)> {
    let Announcement {
        name,
        zone,
        run,
        address,
        protocol,
        features,
        build,
        cluster,
        layout,
        log,
        hints_for,
        is_filling,
        settings,
        standing,
    } = announcement;
    let mut values = vec![
        ("v1.name", name.to_string()),
        ("v1.zone", zone.to_string()),
        ("v1.run", format!("{} {} {:016x}", run.directory, run.counter, run.nonce)),
        ("v1.address", address.to_string()),
        ("v1.protocol", format!("{}-{}", protocol.start(), protocol.end())),
        ("v1.features", format!("{features:016x}")),
        ("v1.build", build.to_string()),
        ("v1.cluster", or_none(cluster.as_ref())),
        ("v1.layout", or_none(layout.as_ref())),
        ("v1.log", log.map_or_else(|| NONE.to_owned(), |(epoch, checksum)| format!("{epoch} {checksum}"))),
        ("v1.hints", write_targets(hints_for)),
        ("v1.standing", write_standing(standing)),
        ("v1.filling", if *is_filling { FILLING } else { NONE }.to_owned()),
    ];
    values.extend(settings.map(|checksum| ("v1.settings", checksum.to_string())));
    values
}

/// Reads an announcement; `get` looks a key up.
pub(crate) fn decode<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Result<Announcement, Unreadable> {
    let fields = Fields { get };
    Ok(Announcement {
        name: fields.read("v1.name", parsed)?,
        zone: fields.read("v1.zone", parsed)?,
        run: fields.read("v1.run", read_run)?,
        address: fields.read("v1.address", parsed)?,
        protocol: fields.read("v1.protocol", read_protocol)?,
        features: fields.read("v1.features", hexadecimal)?,
        build: fields.read("v1.build", |text| Some(ShortText::new(text)))?,
        cluster: fields.read("v1.cluster", unless_none(parsed))?,
        layout: fields.read("v1.layout", unless_none(|text| parsed(text).map(LayoutVersion)))?,
        log: fields.read("v1.log", unless_none(read_log))?,
        hints_for: fields.read("v1.hints", read_targets)?,
        standing: fields.read("v1.standing", read_standing)?,
        is_filling: (fields.get)("v1.filling") == Some(FILLING),
        settings: (fields.get)("v1.settings").and_then(hexadecimal).map(SettingsChecksum),
    })
}

struct Fields<F> {
    get: F,
}

impl<'a, F: Fn(&str) -> Option<&'a str>> Fields<F> {
    fn read<T>(&self, key: &'static str, parse: impl FnOnce(&'a str) -> Option<T>) -> Result<T, Unreadable> {
        let value = (self.get)(key).ok_or(Unreadable::Missing(key))?;
        parse(value).ok_or_else(|| Unreadable::Malformed { key, value: ShortText::new(value) })
    }
}

fn or_none(value: Option<&impl ToString>) -> String {
    value.map_or_else(|| NONE.to_owned(), ToString::to_string)
}

fn unless_none<T>(parse: impl FnOnce(&str) -> Option<T>) -> impl FnOnce(&str) -> Option<Option<T>> {
    |text| if text == NONE { Some(None) } else { parse(text).map(Some) }
}

fn parsed<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn hexadecimal(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

fn read_run(text: &str) -> Option<Run> {
    let mut words = text.split(' ');
    let directory: DirectoryId = parsed(words.next()?)?;
    let counter = parsed(words.next()?)?;
    let nonce = hexadecimal(words.next()?)?;
    Some(Run { directory, counter, nonce })
}

fn read_protocol(text: &str) -> Option<RangeInclusive<u16>> {
    let (oldest, newest) = text.split_once('-')?;
    Some(parsed(oldest)?..=parsed(newest)?)
}

fn read_log(text: &str) -> Option<(Epoch, EntryChecksum)> {
    let (epoch, checksum) = text.split_once(' ')?;
    Some((Epoch(parsed(epoch)?), EntryChecksum(hexadecimal(checksum)?)))
}

fn write_targets(targets: &HintTargets) -> String {
    match targets.named() {
        None => ANYONE.to_owned(),
        Some(nodes) if nodes.is_empty() => NONE.to_owned(),
        Some(nodes) => nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
    }
}

fn read_targets(text: &str) -> Option<HintTargets> {
    match text {
        ANYONE => Some(HintTargets::anyone()),
        NONE => Some(HintTargets::none()),
        nodes => nodes.split(' ').map(parsed).collect(),
    }
}

fn write_standing(standing: &Standing) -> String {
    match standing {
        Standing::Starting => "starting".to_owned(),
        Standing::Serving => "serving".to_owned(),
        Standing::Leaving => "leaving".to_owned(),
        Standing::Retired { reason } => format!("retired {reason}"),
    }
}

fn read_standing(text: &str) -> Option<Standing> {
    match text.split_once(' ').unwrap_or((text, "")) {
        ("starting", _) => Some(Standing::Starting),
        ("serving", _) => Some(Standing::Serving),
        ("leaving", _) => Some(Standing::Leaving),
        ("retired", reason) => Some(Standing::Retired { reason: ShortText::new(reason) }),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
