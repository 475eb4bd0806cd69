//! The entries that come along with this program.

use serde_json::Value;

macro_rules! entries {
    ($($name:literal,)*) => {
        &[$(($name, include_str!(concat!("../../catalogue/", $name, ".json"))),)*]
    };
}

/// The files of the folder `catalogue` of this package: this platform's own servers, and others that were looked at.
const ENTRIES: &[(&str, &str)] = entries![
    "basic-memory",
    "chroma-mcp",
    "dbhub",
    "desktop-commander",
    "echotune-catalogue",
    "echotune-experiments",
    "echotune-listening",
    "echotune-playlists",
    "echotune-recommendations",
    "echotune-status",
    "excel-mcp-server",
    "kubernetes-mcp-server",
    "markitdown-mcp",
    "mcp-clickhouse",
    "mcp-pandoc",
    "mcp-server-calculator",
    "mcp-server-fetch",
    "mcp-server-git",
    "mcp-server-motherduck",
    "mcp-server-time",
    "mcp-shell-server",
    "mongodb-mcp-server",
    "office-word-mcp-server",
    "playwright-mcp",
    "postgres-mcp",
    "redis-mcp-server",
    "server-everything",
    "server-filesystem",
    "server-memory",
    "server-sequential-thinking",
];

/// The entries that come along, with the names of their files.
pub fn bundled() -> Vec<(&'static str, Value)> {
    let read = |text: &str| serde_json::from_str(text).expect("entries that come along are JSON, which a test reads");
    ENTRIES.iter().map(|(name, text)| (*name, read(text))).collect()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;
    use crate::catalogue::{EgressPolicy, HowVerified, Launch, runtime, text, validate};

    #[test]
    fn every_file_comes_along_and_is_valid() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("catalogue");
        let files = fs::read_dir(folder).expect("a folder").map(|file| file.expect("a file").file_name());
        let files: BTreeSet<_> =
            files.filter_map(|name| Some(name.to_str()?.strip_suffix(".json")?.to_owned())).collect();
        assert_eq!(files, ENTRIES.iter().map(|(name, _)| (*name).to_owned()).collect());
        let mut names = BTreeSet::new();
        for (file, entry) in bundled() {
            assert_eq!(validate(&entry), [], "{file}");
            assert!(names.insert(text(&entry, "name").to_owned()), "{file}: its name comes twice");
            assert!(Launch::of(&entry).is_ok(), "{file} cannot be started");
        }
    }

    #[test]
    fn others_than_ours_are_many_and_say_how_they_run() {
        let others = bundled().into_iter().filter(|(_, entry)| !text(entry, "name").starts_with("internal.echotune/"));
        let others: Vec<_> = others.map(|(file, entry)| (file, runtime(&entry), entry)).collect();
        assert!(others.len() >= 24, "{}", others.len());
        for (file, runtime, _) in &others {
            assert!(!runtime.effects.is_empty(), "{file} has no tools");
            assert!(runtime.limits.memory_mib.is_some(), "{file} has no limit of memory");
            assert_ne!(runtime.verified.how, HowVerified::Claimed, "{file}: nobody has looked");
            assert!(
                runtime.egress.policy != EgressPolicy::Any || !runtime.verified.note.is_empty(),
                "{file}: why any?"
            );
        }
        let run = others.iter().filter(|(_, runtime, _)| runtime.verified.how == HowVerified::Run).count();
        assert!(run >= 7, "{run} were run");
    }
}
