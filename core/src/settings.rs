//! Plain settings of buckets: what a request means that does not say it itself.
//!
//! How many replicas a bucket has, and what becomes of concurrent writes, is part of the layout (R1). What is here moves
//! nothing and changes the meaning of nothing that is stored, so any node takes a change of it, alone, and tells the others.
//!
//! Each setting of each bucket is a register that the later change wins, whole, wherever two of them meet ([`Settings::merge`]
//! is commutative, associative and idempotent). A change is later than all that its node knew of, whatever its clock shows;
//! of changes that did not know of each other the one with the later time is, then the one of the greater directory. So
//! whoever changes what he sees is heeded, and of two at once the same one everywhere.
//!
//! Settings are kept by name and as text, so that a build passes on what only a newer one knows. A setting that is cleared
//! keeps its register for ever: what it was would come back otherwise.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::codec;
use crate::coordinate::{MAX_OBJECT_BYTES, ObjectLimits};
use crate::fault::{self, Fault};
use crate::ids::DirectoryId;
use crate::name::BucketName;
use crate::quorum::{Level, MAX_REPLICAS, ReplicaCount};
use crate::wall::{InvalidLifetime, Lifetime, WallTime};

/// Most buckets that may be given settings of their own.
pub const MAX_BUCKETS: usize = 1000;
/// Most buckets of which it is remembered what was set, or cleared. Two halves of a cluster that could not hear each other may
/// come to as many each.
pub const MAX_REMEMBERED: usize = 10_000;
/// Most siblings that a bucket can be told to allow.
pub const MAX_SIBLINGS: usize = 10_000;

/// Something that can be set of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Setting {
    /// How many replicas answer a read that does not say.
    R,
    /// On how many replicas a write is durable that does not say.
    W,
    /// How long a value lives that is not told.
    Ttl,
    /// [`ObjectLimits::siblings`].
    MaxSiblings,
    /// [`ObjectLimits::bytes`].
    MaxObjectSize,
}

/// Why a setting was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSetting {
    #[error("no setting of a bucket is named `{0}`")]
    Unknown(String),
    #[error("{}={text} is no quorum: use one, quorum, all, or a number from 1 to {MAX_REPLICAS}", setting.name())]
    Level { setting: Setting, text: String },
    #[error("ttl={0} is no number of milliseconds")]
    Millis(String),
    #[error(transparent)]
    Lifetime(#[from] InvalidLifetime),
    #[error("{}={text} is not possible: use 1 to {most}", setting.name())]
    Limit { setting: Setting, text: String, most: usize },
    #[error(
        "{MAX_BUCKETS} buckets have settings of their own, and no more can: set those of another to `default` first"
    )]
    TooManyBuckets,
    #[error("{MAX_REMEMBERED} buckets have or had settings of their own, and no more can")]
    TooManyRemembered,
}

impl Setting {
    pub const ALL: [Setting; 5] = [Setting::R, Setting::W, Setting::Ttl, Setting::MaxSiblings, Setting::MaxObjectSize];

    pub fn name(self) -> &'static str {
        match self {
            Setting::R => "r",
            Setting::W => "w",
            Setting::Ttl => "ttl",
            Setting::MaxSiblings => "max_siblings",
            Setting::MaxObjectSize => "max_object_size",
        }
    }

    fn check(self, text: &str) -> Result<(), InvalidSetting> {
        BucketSettings::default().read(self, text)
    }
}

impl FromStr for Setting {
    type Err = InvalidSetting;

    fn from_str(name: &str) -> Result<Self, InvalidSetting> {
        let named = Setting::ALL.into_iter().find(|setting| setting.name() == name);
        named.ok_or_else(|| InvalidSetting::Unknown(name.to_owned()))
    }
}

/// What is set of a bucket, as far as this build knows it; nothing where nothing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BucketSettings {
    pub r: Option<Level>,
    pub w: Option<Level>,
    pub ttl: Option<Lifetime>,
    pub max_siblings: Option<usize>,
    pub max_object_size: Option<usize>,
}

impl BucketSettings {
    /// Levels are words or numbers, lifetimes milliseconds, sizes bytes.
    fn read(&mut self, setting: Setting, text: &str) -> Result<(), InvalidSetting> {
        match setting {
            Setting::R => self.r = Some(read_level(setting, text)?),
            Setting::W => self.w = Some(read_level(setting, text)?),
            Setting::Ttl => {
                let millis = text.parse().map_err(|_| InvalidSetting::Millis(text.to_owned()))?;
                self.ttl = Some(Lifetime::try_from(Duration::from_millis(millis))?);
            }
            Setting::MaxSiblings => self.max_siblings = Some(read_limit(setting, text, MAX_SIBLINGS)?),
            Setting::MaxObjectSize => self.max_object_size = Some(read_limit(setting, text, MAX_OBJECT_BYTES)?),
        }
        Ok(())
    }

    /// What a read goes by that asks for this, as far as that many replicas can do it if it was not said.
    pub fn r_for(&self, asked: Level, replicas: ReplicaCount) -> Level {
        asked_or(asked, self.r, replicas)
    }

    /// As [`BucketSettings::r_for`], of a write.
    pub fn w_for(&self, asked: Level, replicas: ReplicaCount) -> Level {
        asked_or(asked, self.w, replicas)
    }

    /// These limits, where nothing is set.
    pub fn limits_or(&self, otherwise: ObjectLimits) -> ObjectLimits {
        ObjectLimits {
            siblings: self.max_siblings.unwrap_or(otherwise.siblings),
            bytes: self.max_object_size.unwrap_or(otherwise.bytes),
        }
    }
}

fn asked_or(asked: Level, set: Option<Level>, replicas: ReplicaCount) -> Level {
    match asked {
        Level::Default => set.unwrap_or_default().within(replicas),
        Level::Count(_) | Level::One | Level::Quorum | Level::All => asked,
    }
}

fn read_level(setting: Setting, text: &str) -> Result<Level, InvalidSetting> {
    match text.parse() {
        Ok(level @ (Level::One | Level::Quorum | Level::All)) => Ok(level),
        Ok(level @ Level::Count(1..=MAX_REPLICAS)) => Ok(level),
        Ok(Level::Count(_) | Level::Default) | Err(_) => Err(InvalidSetting::Level { setting, text: text.to_owned() }),
    }
}

fn read_limit(setting: Setting, text: &str, most: usize) -> Result<usize, InvalidSetting> {
    let limit = text.parse().ok().filter(|limit| (1..=most).contains(limit));
    limit.ok_or_else(|| InvalidSetting::Limit { setting, text: text.to_owned(), most })
}

/// Which of two changes is later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version {
    /// When it was made, by the clock of its node; or just behind what that knew of, if that is later.
    pub at: WallTime,
    /// On the node with this directory.
    pub by: DirectoryId,
}

/// A setting as it was last changed. Ordered, so that of two with one version, which only a copied directory can make, the
/// same one wins everywhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Register {
    pub version: Version,
    /// None once it was cleared.
    pub text: Option<String>,
}

/// A fingerprint of all settings; 0 of none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct SettingsChecksum(pub u64);

impl fmt::Display for SettingsChecksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The registers of a bucket, by the names of settings.
pub type Registers = BTreeMap<String, Register>;

/// Changes of a bucket's settings, by their names; nothing clears one.
pub type Changes = BTreeMap<String, Option<String>>;

/// The settings of all buckets.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Settings(BTreeMap<BucketName, Registers>);

impl Settings {
    pub fn from_parts(registers: impl IntoIterator<Item = (BucketName, Registers)>) -> Settings {
        Settings(registers.into_iter().collect())
    }

    /// The buckets of which something is, or was, set.
    pub fn buckets(&self) -> impl Iterator<Item = (&BucketName, &Registers)> {
        self.0.iter()
    }

    pub fn registers(&self, bucket: &BucketName) -> Option<&Registers> {
        self.0.get(bucket)
    }

    /// What is set of a bucket. A text that only a newer build can read counts as nothing.
    pub fn of(&self, bucket: &BucketName) -> BucketSettings {
        let mut settings = BucketSettings::default();
        for (name, register) in self.0.get(bucket).into_iter().flatten() {
            if let (Ok(setting), Some(text)) = (name.parse(), &register.text) {
                drop(settings.read(setting, text));
            }
        }
        settings
    }

    /// Carries a change out that is later than all that is known of these settings.
    ///
    /// # Errors
    /// [`InvalidSetting`]; nothing was changed.
    pub fn change(
        &mut self,
        bucket: &BucketName,
        changes: &Changes,
        now: WallTime,
        by: DirectoryId,
    ) -> Result<(), InvalidSetting> {
        for (name, text) in changes {
            let setting: Setting = name.parse()?;
            text.as_deref().map_or(Ok(()), |text| setting.check(text))?;
        }
        // What was never set is not cleared.
        let known = |name| self.0.get(bucket).is_some_and(|registers| registers.contains_key(name));
        let changes: Vec<_> = changes.iter().filter(|(name, text)| text.is_some() || known(*name)).collect();
        if changes.is_empty() {
            return Ok(());
        }
        self.check_room(bucket, changes.iter().any(|(_, text)| text.is_some()))?;
        let registers = self.0.entry(bucket.clone()).or_default();
        for (name, text) in changes {
            let known = registers.get(name).map(|register| register.version.at);
            let at = known.map_or(now, |known| now.max(known.after(Duration::from_millis(1))));
            let register = Register { version: Version { at, by }, text: text.clone() };
            registers.insert(name.clone(), register);
        }
        Ok(())
    }

    fn check_room(&self, bucket: &BucketName, sets_something: bool) -> Result<(), InvalidSetting> {
        let has_some = |registers: &Registers| registers.values().any(|register| register.text.is_some());
        let others = self.0.iter().filter(|(other, registers)| *other != bucket && has_some(registers)).count();
        if sets_something && others >= MAX_BUCKETS {
            return Err(InvalidSetting::TooManyBuckets);
        }
        if !self.0.contains_key(bucket) && self.0.len() >= MAX_REMEMBERED {
            return Err(InvalidSetting::TooManyRemembered);
        }
        Ok(())
    }

    /// Takes in what somebody else knows of. Each setting is then as it was last changed.
    pub fn merge(&mut self, others: &Settings) {
        for (bucket, registers) in &others.0 {
            let own = self.0.entry(bucket.clone()).or_default();
            for (name, theirs) in registers {
                let is_later = own.get(name).is_none_or(|own| own < theirs);
                if is_later || fault::is_on(Fault::SettingsByArrival) {
                    own.insert(name.clone(), theirs.clone());
                }
            }
        }
    }

    pub fn checksum(&self) -> SettingsChecksum {
        if self.0.is_empty() { SettingsChecksum(0) } else { SettingsChecksum(xxh3_64(&codec::encode(self))) }
    }
}
