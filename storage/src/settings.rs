//! The store's part in plain settings: they are durable before they are heeded, so what a node goes by it goes by again after
//! a restart, and tells others.

use std::sync::Arc;

use starling_core::name::BucketName;
use starling_core::settings::{Changes, InvalidSetting, Settings, SettingsChecksum};
use starling_core::wall::WallTime;

use crate::error::StoreError;
use crate::meta;
use crate::shared::lock;
use crate::store::Store;

/// Why a setting was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    #[error(transparent)]
    Invalid(#[from] InvalidSetting),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The settings that are gone by, and their checksum, which is asked for all the time.
pub(crate) struct InEffect {
    pub settings: Arc<Settings>,
    pub checksum: SettingsChecksum,
}

impl InEffect {
    pub fn new(settings: Settings) -> InEffect {
        InEffect { checksum: settings.checksum(), settings: Arc::new(settings) }
    }
}

impl Store {
    /// The settings in effect.
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.shared.settings.load().settings)
    }

    pub fn settings_checksum(&self) -> SettingsChecksum {
        self.shared.settings.load().checksum
    }

    /// Changes settings of a bucket, by what the clock shows now. Blocks on the disk.
    ///
    /// # Errors
    /// [`SetError`]; nothing has changed, unless the store has failed.
    pub fn set(&self, bucket: &BucketName, changes: &Changes, now: WallTime) -> Result<Arc<Settings>, SetError> {
        self.update(|settings| Ok(settings.change(bucket, changes, now, self.identity().directory)?))
    }

    /// Takes in what a peer knows of settings. Blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError`] if that could not be made durable.
    pub fn learn_settings(&self, theirs: &Settings) -> Result<(), StoreError> {
        let learnt = self.update(|settings| {
            settings.merge(theirs);
            Ok::<(), StoreError>(())
        });
        learnt.map(drop)
    }

    fn update<E: From<StoreError>>(
        &self,
        update: impl FnOnce(&mut Settings) -> Result<(), E>,
    ) -> Result<Arc<Settings>, E> {
        let _one_at_a_time = lock(&self.shared.deciding);
        self.check_health()?;
        let before = self.settings();
        let mut after = Settings::clone(&before);
        update(&mut after)?;
        if after == *before {
            return Ok(before);
        }
        self.record(|batch| {
            let changed = after.buckets().filter(|(bucket, registers)| before.registers(bucket) != Some(registers));
            changed.for_each(|(bucket, registers)| meta::write_settings(batch, bucket, registers));
        })?;
        self.shared.settings.store(Arc::new(InEffect::new(after)));
        Ok(self.settings())
    }
}
