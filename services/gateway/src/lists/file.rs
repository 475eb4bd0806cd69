//! What servers list for everybody, in a file: a server that sleeps is listed after a start as it was before, and is
//! not woken for it.

use std::{
    fs::File,
    io::{self, ErrorKind, Read as _},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::body::Bytes;
use moka::{policy::EvictionPolicy, sync::Cache};

use super::{
    Entry, Kind,
    fetch::{Listed, SLOT},
};
use crate::message::{Json, Object};

/// Bytes of all lists at the most: those go that were read or asked for longest ago.
const MOST: u64 = 8 << 20;

/// Lists that outlive the process.
pub(super) struct ListsFile {
    path: PathBuf,
    lists: Cache<(u32, Kind), Arc<Listed>>,
    /// Whether it is not what the file holds.
    differs: AtomicBool,
}

impl ListsFile {
    /// Reads what is there. What is none of it is left out: it is read of the servers again.
    pub(super) fn read(path: PathBuf) -> io::Result<Self> {
        let mut text = Vec::new();
        // With names and what stands between.
        let read = File::open(&path).and_then(|file| file.take(2 * MOST).read_to_end(&mut text));
        if let Err(cause) = read
            && cause.kind() != ErrorKind::NotFound
        {
            return Err(io::Error::new(cause.kind(), format!("{}: {cause}", path.display())));
        }
        let weigher = |_: &(u32, Kind), listed: &Arc<Listed>| {
            u32::try_from(listed.bytes.saturating_add(SLOT)).unwrap_or(u32::MAX)
        };
        let lists = Cache::builder().weigher(weigher).max_capacity(MOST).eviction_policy(EvictionPolicy::lru()).build();
        let known = Json::taken(&Bytes::from(text)).and_then(|json| json.elements()).unwrap_or_default();
        for (key, listed) in known.iter().filter_map(listed_of) {
            lists.insert(key, Arc::new(listed));
        }
        Ok(Self { path, lists, differs: AtomicBool::new(false) })
    }

    pub(super) fn get(&self, server: u32, kind: Kind) -> Option<Arc<Listed>> {
        self.lists.get(&(server, kind))
    }

    pub(super) fn put(&self, server: u32, kind: Kind, listed: &Arc<Listed>) {
        if self.get(server, kind).is_none_or(|before| before.entries != listed.entries) {
            self.differs.store(true, Ordering::Release);
        }
        self.lists.insert((server, kind), Arc::clone(listed));
    }

    pub(super) fn forget(&self, server: u32, kind: Kind) {
        if self.lists.remove(&(server, kind)).is_some() {
            self.differs.store(true, Ordering::Release);
        }
    }

    /// Writes what is known, where it is not what the file holds.
    pub(super) async fn save(&self) {
        if !self.differs.swap(false, Ordering::AcqRel) {
            return;
        }
        // What there is no room for is not written.
        self.lists.run_pending_tasks();
        let lists: Vec<Json> = self.lists.iter().map(|(key, listed)| json_of(*key, &listed)).collect();
        let (text, beside) = (Json::array(&lists), self.path.with_extension("new"));
        let written = match tokio::fs::write(&beside, text.bytes()).await {
            Ok(()) => tokio::fs::rename(&beside, &self.path).await,
            failed => failed,
        };
        if let Err(cause) = written {
            self.differs.store(true, Ordering::Release);
            let path = self.path.display();
            tracing::warn!(%path, %cause, "the lists of MCP servers cannot be written; it is tried again");
        }
    }
}

fn json_of((server, kind): (u32, Kind), listed: &Listed) -> Json {
    let mut object = Object::default();
    object.set("server", Json::of(&server));
    object.set("list", Json::of(kind.method()));
    object.set("entries", Json::array(listed.entries.iter().map(|entry| &entry.json)));
    object.write()
}

fn listed_of(json: &Json) -> Option<((u32, Kind), Listed)> {
    let object = Object::read(json).ok()?;
    let kind = Kind::of_method(&object.text("list")?)?;
    let entries = object.get("entries")?.elements()?;
    let entries: Option<Vec<_>> = entries.iter().map(|entry| Entry::read(kind, entry).ok()).collect();
    Some(((object.get("server")?.read()?, kind), Listed::of_before(entries?, json.bytes().len())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn listed(tools: &[&str]) -> Arc<Listed> {
        let entry = |name: &&str| Entry::read(Kind::Tools, &Json::of(&json!({"name": name, "inputSchema": {}})));
        let entries = tools.iter().map(|name| entry(name).expect("a tool")).collect();
        Arc::new(Listed::of_before(entries, 100))
    }

    #[tokio::test]
    async fn what_was_written_is_read_again_and_what_was_forgotten_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lists.json");
        let file = ListsFile::read(path.clone()).expect("none yet");
        file.save().await;
        assert!(!path.exists(), "there is nothing to write");
        file.put(1, Kind::Tools, &listed(&["a", "b"]));
        file.put(1, Kind::Prompts, &listed(&[]));
        file.put(2, Kind::Tools, &listed(&["c"]));
        file.save().await;
        let again = ListsFile::read(path.clone()).expect("read");
        let entries = |file: &ListsFile, server| Some(file.get(server, Kind::Tools)?.entries.clone());
        assert_eq!(entries(&again, 1), Some(listed(&["a", "b"]).entries.clone()));
        assert!(again.get(1, Kind::Prompts).is_some_and(|listed| listed.entries.is_empty()));
        assert!(again.get(1, Kind::Resources).is_none());
        again.forget(1, Kind::Tools);
        again.save().await;
        let again = ListsFile::read(path.clone()).expect("read");
        assert_eq!((entries(&again, 1), entries(&again, 2)), (None, Some(listed(&["c"]).entries.clone())));
        std::fs::write(&path, "[{\"server\": 2, \"list\": \"to").expect("written");
        assert!(ListsFile::read(path).expect("read").get(2, Kind::Tools).is_none(), "it is torn");
        assert!(ListsFile::read(folder.path().to_owned()).is_err(), "it is no file");
    }
}
