//! What servers list for everybody, in a file: a server that sleeps is listed after a start as it was before, and is
//! not woken for it. The text of the file is what another gateway takes over too.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, ErrorKind, Read as _},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::body::Bytes;
use moka::{policy::EvictionPolicy, sync::Cache};

use super::{
    Entry, Kind,
    fetch::{Listed, SLOT},
};
use crate::{
    caller::{Digest, digest},
    config::{Reach, ServerConfig},
    message::{Json, Object},
    ticket::now,
};

/// Bytes of all lists at the most: those go that were read or asked for longest ago.
const MOST: u64 = 8 << 20;
/// Bytes of their text at the most: with names and what stands between.
pub(super) const TEXT: usize = 16 << 20;
/// Of the form of the text. What is of another form is none.
const VERSION: u32 = 1;

/// Which list it is, of which server.
pub(super) type Key = (Digest, Kind);

/// Which list of a server it is, by how that is called and by whether it is told who asks: what another of its name
/// has told elsewhere, or before, is not what this one lists. All gateways of a region must find the same.
pub(super) fn key_of(server: &ServerConfig, kind: Kind) -> Key {
    let id = match &server.reach {
        Reach::Pods(pods) => pods.id.as_str(),
        Reach::Http { .. } | Reach::Process(_) => "",
    };
    let forwards = [u8::from(server.forward_caller)];
    (digest(&[b"listed", server.name.as_bytes(), id.as_bytes(), &forwards]), kind)
}

/// Lists that outlive the process.
pub(super) struct ListsFile {
    path: PathBuf,
    lists: Cache<Key, Arc<Listed>>,
    /// Entries of one list at the most.
    entries: usize,
    /// Whether it is not what the file holds.
    differs: AtomicBool,
    /// Of which lists this process was told by their servers, while others may still come that were read before.
    told: Mutex<Option<HashSet<Key>>>,
}

impl ListsFile {
    /// Reads what is there. What is none of it is left out: it is read of the servers again.
    pub(super) fn read(path: PathBuf, entries: usize) -> io::Result<Self> {
        let mut text = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(TEXT as u64).read_to_end(&mut text));
        if let Err(cause) = read
            && cause.kind() != ErrorKind::NotFound
        {
            return Err(io::Error::new(cause.kind(), format!("{}: {cause}", path.display())));
        }
        let weigher =
            |_: &Key, listed: &Arc<Listed>| u32::try_from(listed.bytes.saturating_add(SLOT)).unwrap_or(u32::MAX);
        let lists = Cache::builder().weigher(weigher).max_capacity(MOST).eviction_policy(EvictionPolicy::lru()).build();
        for (key, listed) in lists_of(&Bytes::from(text), entries).into_iter().flatten() {
            lists.insert(key, Arc::new(listed));
        }
        Ok(Self { path, lists, entries, differs: AtomicBool::new(false), told: Mutex::default() })
    }

    pub(super) fn get(&self, key: Key) -> Option<Arc<Listed>> {
        self.lists.get(&key)
    }

    /// Keeps what its server has told.
    pub(super) fn put(&self, key: Key, listed: &Arc<Listed>) {
        self.note(key);
        if self.get(key).is_none_or(|before| before.entries != listed.entries) {
            self.differs.store(true, Ordering::Release);
        }
        self.lists.insert(key, Arc::clone(listed));
    }

    /// Forgets what is listed for everybody no more.
    pub(super) fn forget(&self, key: Key) {
        self.note(key);
        if self.lists.remove(&key).is_some() {
            self.differs.store(true, Ordering::Release);
        }
    }

    fn told(&self) -> MutexGuard<'_, Option<HashSet<Key>>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What its server has told stays: it is noted before anything is done, so that what comes of others meanwhile is
    /// there already and is overwritten, or does not come in.
    fn note(&self, key: Key) {
        if let Some(told) = self.told().as_mut() {
            told.insert(key);
        }
    }

    /// Whether texts of others are taken in from now on.
    pub(super) fn takes(&self, takes: bool) {
        *self.told() = takes.then(HashSet::new);
    }

    /// Takes in the text of another, but for lists of which this process was told itself or by somebody later; how many
    /// lists. `None` when it is no text of this form.
    pub(super) fn take(&self, text: &Bytes) -> Option<usize> {
        let mut taken = 0;
        for (key, listed) in lists_of(text, self.entries)? {
            let told = self.told();
            let may_come = told.as_ref().is_some_and(|told| !told.contains(&key));
            if may_come && self.get(key).is_none_or(|known| known.said < listed.said) {
                self.lists.insert(key, Arc::new(listed));
                taken += 1;
            }
        }
        if taken > 0 {
            self.differs.store(true, Ordering::Release);
        }
        Some(taken)
    }

    /// What is known of the lists that are wanted, as it is written.
    pub(super) fn text(&self, wants: impl Fn(&Key) -> bool) -> Json {
        // What there is no room for is not written.
        self.lists.run_pending_tasks();
        let wanted = self.lists.iter().filter(|(key, _)| wants(key));
        let lists: Vec<Json> = wanted.map(|(key, listed)| json_of(*key, &listed)).collect();
        let mut object = Object::default();
        object.set("version", Json::of(&VERSION));
        object.set("lists", Json::array(&lists));
        object.write()
    }

    /// Writes what is known, where it is not what the file holds.
    pub(super) async fn save(&self) {
        if !self.differs.swap(false, Ordering::AcqRel) {
            return;
        }
        let (text, beside) = (self.text(|_| true), self.path.with_extension("new"));
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

fn json_of((server, kind): Key, listed: &Listed) -> Json {
    let mut object = Object::default();
    object.set("server", Json::of(&format!("{:032x}", u128::from_be_bytes(server))));
    object.set("list", Json::of(kind.method()));
    object.set("said", Json::of(&listed.said));
    object.set("entries", Json::array(listed.entries.iter().map(|entry| &entry.json)));
    object.write()
}

/// The lists of a text, read one after the other, those left out that are none. `None` when it is no text of this form.
fn lists_of(text: &Bytes, most: usize) -> Option<impl Iterator<Item = (Key, Listed)>> {
    let object = Object::read(&Json::taken(text)?).ok()?;
    let version: u32 = object.get("version")?.read()?;
    let lists = object.get("lists").filter(|_| version == VERSION)?.elements()?;
    Some(lists.into_iter().filter_map(move |json| listed_of(&json, most)))
}

fn listed_of(json: &Json, most: usize) -> Option<(Key, Listed)> {
    // A text of its own, so that no list holds those of all others in memory.
    let json = Json::taken(&Bytes::copy_from_slice(json.bytes()))?;
    let object = Object::read(&json).ok()?;
    let server = u128::from_str_radix(&object.text("server")?, 16).ok()?.to_be_bytes();
    let kind = Kind::of_method(&object.text("list")?)?;
    let said: u32 = object.get("said")?.read()?;
    let (mut known, mut entries) = (HashSet::new(), Vec::new());
    for json in object.get("entries")?.elements()?.iter().take(most) {
        let entry = Entry::read(kind, json).ok()?;
        // What comes twice must not be taken for two.
        if known.insert(entry.name.clone()) {
            entries.push(entry);
        }
    }
    // By a clock that is ahead it would be later than all that comes.
    Some(((server, kind), Listed::of_before(entries, json.bytes().len(), said.min(now()))))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::config::PodsConfig;

    const A: Key = ([1; 16], Kind::Tools);
    const B: Key = ([2; 16], Kind::Tools);

    fn said(tools: &[&str], said: u32) -> Arc<Listed> {
        let entry = |name: &&str| Entry::read(Kind::Tools, &Json::of(&json!({"name": name, "inputSchema": {}})));
        let entries = tools.iter().map(|name| entry(name).expect("a tool")).collect();
        Arc::new(Listed::of_before(entries, 100, said))
    }

    fn listed(tools: &[&str]) -> Arc<Listed> {
        said(tools, 1)
    }

    fn read(path: PathBuf) -> ListsFile {
        ListsFile::read(path, 3).expect("read")
    }

    fn tools(file: &ListsFile, key: Key) -> Option<Vec<String>> {
        Some(file.get(key)?.entries.iter().map(|entry| entry.name.clone()).collect())
    }

    fn list(server: &str, entries: Value) -> Value {
        json!({"server": server, "list": "tools/list", "said": u32::MAX, "entries": entries})
    }

    fn bytes(text: &Json) -> Bytes {
        Bytes::copy_from_slice(text.bytes())
    }

    #[tokio::test]
    async fn what_was_written_is_read_again_and_what_was_forgotten_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lists.json");
        let file = read(path.clone());
        file.save().await;
        assert!(!path.exists(), "there is nothing to write");
        file.put(A, &listed(&["a", "b"]));
        file.put((A.0, Kind::Prompts), &listed(&[]));
        file.put(B, &listed(&["c"]));
        file.save().await;
        let again = read(path.clone());
        assert_eq!(again.get(A).map(|read| read.entries.clone()), Some(listed(&["a", "b"]).entries.clone()));
        assert!(again.get((A.0, Kind::Prompts)).is_some_and(|listed| listed.entries.is_empty()));
        assert!(again.get((A.0, Kind::Resources)).is_none());
        again.forget(A);
        again.save().await;
        let again = read(path.clone());
        assert_eq!((tools(&again, A), tools(&again, B)), (None, Some(vec!["c".to_owned()])));
        std::fs::write(&path, "{\"version\": 1, \"lists\": [{\"server\": \"2\", \"li").expect("written");
        assert!(read(path).get(B).is_none(), "it is torn");
        assert!(ListsFile::read(folder.path().to_owned(), 3).is_err(), "it is no file");
    }

    #[test]
    fn what_others_were_told_later_is_taken_and_what_a_server_has_told_here_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let [here, there] = ["here", "there"].map(|name| read(folder.path().join(name)));
        there.put(A, &said(&["later"], 9));
        there.put(B, &said(&["earlier"], 7));
        let text = bytes(&there.text(|_| true));
        assert_eq!(here.take(&text), Some(0), "nobody was asked");
        here.takes(true);
        here.lists.insert(A, said(&["of the file"], 8));
        here.lists.insert(B, said(&["of the file"], 8));
        assert_eq!(here.take(&text), Some(1));
        let one = |name: &str| Some(vec![name.to_owned()]);
        assert_eq!((tools(&here, A), tools(&here, B)), (one("later"), one("of the file")));
        // It is not for everybody any more, or not of this server.
        here.forget(A);
        here.put(B, &said(&["told here"], 1));
        assert_eq!(here.take(&text), Some(0));
        assert_eq!((tools(&here, A), tools(&here, B)), (None, one("told here")));
        here.takes(false);
        assert_eq!(here.take(&text), Some(0), "it is over");
    }

    #[test]
    fn of_what_comes_lists_are_taken_that_are_such_and_of_one_that_is_too_long_its_beginning() {
        let folder = tempfile::tempdir().expect("a folder");
        let tool = |name: &str| json!({"name": name, "inputSchema": {}});
        let long = "n".repeat(3_000);
        let lists = [
            list("1", json!([tool("a"), tool("a"), tool("b"), tool("c")])),
            list("2", json!([tool("a"), tool(&long)])),
            list("not a number", json!([tool("a")])),
            list("3", json!("nothing")),
            json!({"server": "4", "list": "tools/call", "said": 1, "entries": []}),
            json!({"server": "5", "list": "tools/list", "said": -1, "entries": []}),
        ];
        let text = |version: u32| Bytes::from(json!({"version": version, "lists": lists}).to_string());
        let file = read(folder.path().join("lists.json"));
        file.takes(true);
        assert_eq!((file.take(&text(2)), file.take(&Bytes::from_static(b"[]"))), (None, None));
        assert_eq!(file.take(&text(1)), Some(1));
        let key = (1_u128.to_be_bytes(), Kind::Tools);
        assert_eq!(tools(&file, key), Some(vec!["a".to_owned(), "b".to_owned()]));
        assert!(file.get(key).is_some_and(|listed| listed.said <= now()), "nothing was said after now");
    }

    #[test]
    fn a_list_is_of_one_server_and_for_those_that_it_was_told_for() {
        let pods = |id: &str| ServerConfig::new("a", Reach::Pods(PodsConfig::new(id)));
        let key = |server: &ServerConfig| key_of(server, Kind::Tools);
        let same = ServerConfig { concurrency: 1, ..pods("music/a") };
        assert_eq!(key(&pods("music/a")), key(&same));
        let told = ServerConfig { forward_caller: true, ..pods("music/a") };
        for other in [pods("films/a"), told, ServerConfig { name: "b".to_owned(), ..pods("music/a") }] {
            assert_ne!(key(&pods("music/a")), key(&other), "{other:?}");
        }
    }
}
