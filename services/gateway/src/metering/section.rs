//! What metering can be told in a file.

use std::{path::PathBuf, time::Duration};

use echotune_kit::config::{Period, Size};
use serde::{Deserialize, Serialize};

use super::MeteringConfig;

/// Entries that may wait at the most.
const MAX_QUEUE: usize = 1_000_000;
/// Smallest file.
const MIN_FILE_BYTES: u64 = 64 << 10;

/// The section `[metering]`, with `defaults.toml` beside this file as reference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeteringSection {
    /// Folder of the ledger; empty for none.
    pub folder: PathBuf,
    /// After how many bytes a file is closed.
    pub file_size: Size,
    /// Entries that wait at the most.
    pub queue: usize,
    /// How long an answered call keeps its place while the queue is full.
    pub patience: Period,
    /// For how long the key of a call is remembered.
    pub remembered_for: Period,
}

impl MeteringSection {
    /// Its defaults, to be put behind those of a program.
    pub const DEFAULTS: &str = include_str!("defaults.toml");

    /// What is wrong: the key at fault and why.
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if self.file_size.0 < MIN_FILE_BYTES {
            faults.push(("metering.file_size", format!("is less than {MIN_FILE_BYTES} bytes")));
        }
        if !(1..=MAX_QUEUE).contains(&self.queue) {
            faults.push(("metering.queue", format!("{} is not between 1 and {MAX_QUEUE}", self.queue)));
        }
        if self.remembered_for.0 == Duration::ZERO {
            faults.push(("metering.remembered_for", "must be longer than 0s".to_owned()));
        }
        faults
    }

    /// The ledger that is asked for, if one is; without tariffs.
    pub fn config(&self, region: &str) -> Option<MeteringConfig> {
        let is_asked = !self.folder.as_os_str().is_empty();
        is_asked.then(|| MeteringConfig {
            region: region.to_owned(),
            file_bytes: self.file_size.0,
            queue: self.queue,
            patience: self.patience.0,
            remembered_for: self.remembered_for.0,
            ..MeteringConfig::new(&self.folder)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct File {
        metering: MeteringSection,
    }

    #[test]
    fn the_defaults_are_those_of_the_library_and_every_fault_names_its_key() {
        let text = "folder = \"x\"\n".to_owned();
        let defaults = MeteringSection::DEFAULTS.replace("folder = \"\"\n", &text);
        let File { mut metering } = toml::from_str(&defaults).expect("defaults");
        assert_eq!(metering.faults(), []);
        let (told, library) = (metering.config("eu").expect("asked"), MeteringConfig::new("x"));
        assert_eq!((told.file_bytes, told.queue), (library.file_bytes, library.queue));
        assert_eq!((told.patience, told.remembered_for), (library.patience, library.remembered_for));
        (metering.file_size, metering.queue, metering.remembered_for) = (Size(1), 0, Period(Duration::ZERO));
        let keys: Vec<_> = metering.faults().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["metering.file_size", "metering.queue", "metering.remembered_for"]);
        metering.folder = PathBuf::new();
        assert!(metering.config("eu").is_none());
    }
}
