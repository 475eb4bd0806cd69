use std::sync::atomic::AtomicBool;

use async_trait::async_trait;
use proptest::prelude::*;

use super::*;
use crate::{
    embedded::Db,
    keys::{EmbeddedSubjectKeys, MasterKeys},
};

const STORE: &str = "views/us";
const ANN: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// Rows of the table `plays` are about whom their keys begin with, up to a slash.
fn subject(table: &str, key: &[u8]) -> Option<String> {
    let end = key.iter().position(|byte| *byte == b'/')?;
    (table == "plays").then(|| String::from_utf8_lossy(&key[..end]).into_owned())
}

fn row(table: &'static str, key: &str, value: Option<&str>) -> Row {
    Row { table: Cow::Borrowed(table), key: key.into(), value: value.map(Into::into) }
}

fn new_seal(subject: &str) -> Seal {
    Seal::new(subject, DataKey::random().expect("random"))
}

fn holds(bytes: &[u8], part: &str) -> bool {
    bytes.windows(part.len()).any(|some| some == part.as_bytes())
}

/// How a store is sealed, and its keys: of ann and of ben.
struct World {
    _folder: tempfile::TempDir,
    keys: EmbeddedSubjectKeys,
    sealed: Sealed,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let db = Db::open(folder.path()).expect("open");
        let keys = EmbeddedSubjectKeys::new(db, MasterKeys::new(&[[7; 32]]));
        for subject in ["ann", "ben"] {
            keys.key(subject).await.expect("made");
        }
        let sealed = Sealed::new(Sealing { keys: Arc::new(keys.clone()), subject }, STORE.into());
        Self { _folder: folder, keys, sealed }
    }

    async fn seals(&self) -> Seals {
        let subjects = ["ann", "ben", "eve"].map(str::to_owned).into();
        self.sealed.seals(subjects).await.expect("looked up")
    }
}

proptest! {
    #[test]
    fn a_row_is_opened_as_it_was_and_its_removal_is_of_the_same_key(
        table in "[a-z.]{1,8}",
        key: Vec<u8>,
        value: Vec<u8>,
        of in prop_oneof![Just(ANN.to_owned()), "[a-zA-Z0-9-]{0,40}"],
    ) {
        let seal = new_seal(&of);
        let row = Row { table: Cow::Owned(table), key, value: Some(value) };
        let stored = seal.seal(STORE, &row).expect("sealed");
        prop_assert_eq!(&*stored.table, SEALED);
        prop_assert_eq!(subject_of(&stored.key), Some(of));
        prop_assert_eq!(seal.open(STORE, &stored).expect("opened"), Some(row.clone()));
        let removed = seal.seal(STORE, &removal(&row)).expect("sealed");
        prop_assert_eq!(removed, removal(&stored));
    }
}

#[test]
fn what_is_stored_says_whose_it_is_and_nothing_else() {
    let (seal, row) = (new_seal(ANN), row("plays", "key-of-the-row", Some("Army of Me")));
    let stored = seal.seal(STORE, &row).expect("sealed");
    assert_eq!(stored.key.len(), 1 + 16 + MAC, "a UUID by its bytes");
    let value = stored.value.expect("a value");
    for part in ["plays", "key-of", "Army"] {
        assert!(!holds(&stored.key, part) && !holds(&value, part), "{part}");
    }
    // Another way to write the id is another subject.
    for other in [ANN.to_uppercase(), ANN.replace('-', "")] {
        let stored = new_seal(&other).seal(STORE, &row).expect("sealed");
        assert_eq!(subject_of(&stored.key).as_ref(), Some(&other));
    }
}

#[test]
fn a_row_is_opened_by_its_key_in_its_place_alone() {
    let seal = new_seal("ann");
    let stored = seal.seal(STORE, &row("plays", "a", Some("1"))).expect("sealed");
    let others = [row("plays", "b", Some("1")), row("play", "sa", Some("1"))].map(|row| seal.seal(STORE, &row));
    for other in others {
        let swapped = Row { value: stored.value.clone(), ..other.expect("sealed") };
        assert_ne!(swapped.key, stored.key);
        assert_eq!(seal.open(STORE, &swapped).expect_err("of another row").kind(), ErrorKind::DataLoss);
    }
    let elsewhere = seal.open("views/eu", &stored).expect_err("of another store");
    assert!(elsewhere.kind() == ErrorKind::DataLoss && elsewhere.to_string().contains("views/eu"), "{elsewhere}");
    let made_anew = new_seal("ann");
    assert_eq!(made_anew.open(STORE, &stored).expect("read"), None, "the key that it had is gone");
    assert_ne!(made_anew.seal(STORE, &row("plays", "a", None)).expect("sealed").key, stored.key);
    let named_otherwise = Seal { subject: new_seal("ben").subject, ..seal };
    let as_ben = named_otherwise.seal(STORE, &row("plays", "a", None)).expect("sealed");
    let stolen = Row { value: stored.value, ..as_ben };
    assert_eq!(named_otherwise.open(STORE, &stolen).expect_err("ann's").kind(), ErrorKind::DataLoss);
}

#[test]
fn stored_keys_of_nobody_are_told() {
    for key in [&b""[..], &[0; 40], &[ID; MAC + 3], &[ID; MAC], &[TEXT, 0xff, 0xfe][..]] {
        assert_eq!(subject_of(key), None, "{key:?}");
    }
    assert_eq!(subject_of(&[TEXT; MAC + 1]), Some(String::new()));
}

#[tokio::test]
async fn a_group_is_stored_sealed_but_for_what_is_of_nobody_and_of_the_erased() {
    let world = World::new().await;
    let clear = row("sums", "all", Some("2"));
    let of_ann = [row("plays", "ann/1", Some("Post")), row("plays", "ann/2", None)];
    let of_eve = [row("plays", "eve/1", Some("Homogenic")), row("plays", "eve/2", None)];
    let group = [&[clear.clone()][..], &of_ann, &of_eve].concat();
    let stored = world.sealed.group(&group).await.expect("stored");
    assert_eq!(stored.len(), 3, "eve has no key");
    assert!(world.keys.existing("eve").await.expect("read").is_none(), "and none is made");
    assert_eq!(stored[0], clear);
    let seals = world.seals().await;
    let ann = seal_of(&seals, "ann").expect("a key");
    assert_eq!(ann.open(STORE, &stored[1]).expect("opened").as_ref(), Some(&of_ann[0]));
    assert_eq!(stored[2], ann.seal(STORE, &of_ann[1]).expect("sealed"));
}

#[tokio::test]
async fn what_was_written_in_clear_is_sealed_and_removed() {
    let world = World::new().await;
    let seals = world.seals().await;
    let ann = seal_of(&seals, "ann").expect("a key");
    let (put, removed) = (row("plays", "ann/1", Some("Post")), row("plays", "ann/2", None));
    let (of_eve, clear) = (row("plays", "eve/1", Some("Homogenic")), row("sums", "all", Some("2")));
    let sealed_before = ann.seal(STORE, &row("plays", "ann/3", Some("Debut"))).expect("sealed");
    let entry = vec![put.clone(), removed.clone(), of_eve.clone(), clear.clone(), sealed_before.clone()];
    // As the journal holds an entry of before.
    let entry = code::decode(&code::encode(&entry)).expect("read");
    let renewed = world.sealed.renewed(entry.clone(), &seals).expect("renewed");
    assert_eq!(ann.open(STORE, &renewed[0]).expect("opened"), Some(put.clone()));
    let gone = ann.seal(STORE, &removed).expect("sealed");
    let stays = of_eve.clone();
    assert_eq!(renewed[1..], [removal(&put), gone, removed, stays, clear.clone(), sealed_before.clone()]);
    // The same, as rows hold it: nothing is there that was removed.
    let rows = entry.into_iter().filter(|row| row.value.is_some()).collect();
    let page = world.sealed.read(rows, &seals, |_| false).expect("read");
    assert_eq!(page.rows, [put.clone(), clear, row("plays", "ann/3", Some("Debut"))]);
    let opened: Vec<_> = page.sealed.iter().map(|row| ann.open(STORE, row).expect("opened")).collect();
    assert_eq!(opened, [Some(put.clone())]);
    assert_eq!((page.cleared, page.gone), (vec![removal(&put)], vec![removal(&of_eve)]));
}

#[tokio::test]
async fn rows_on_which_there_is_a_later_word_are_not_read() {
    let world = World::new().await;
    let (old, new) = (row("plays", "ann/1", Some("Debut")), row("plays", "ann/2", Some("Post")));
    let stored = world.sealed.group(&[old.clone(), new.clone()]).await.expect("stored");
    let (later, clear) = (removal(&stored[0]), row("sums", "all", Some("2")));
    let has_word = |row: &Row| row.key == later.key || row.table == "sums";
    let seals = world.seals().await;
    let page = world.sealed.read([&stored[..], &[clear]].concat(), &seals, has_word).expect("read");
    assert_eq!(page.rows, std::slice::from_ref(&new));
    // One in clear that was not removed yet: it is, and says nothing any more.
    let page = world.sealed.read(vec![old.clone()], &seals, has_word).expect("read");
    assert_eq!((page.rows, page.sealed, page.cleared), (Vec::new(), Vec::new(), vec![removal(&old)]));
}

#[tokio::test]
async fn what_is_read_of_whose_key_is_gone_is_to_be_removed_and_what_is_damaged_is_told() {
    let world = World::new().await;
    let rows = [row("plays", "ann/1", Some("Post")), row("plays", "ben/1", Some("Blur"))];
    let stored = world.sealed.group(&rows).await.expect("stored");
    world.keys.destroy("ann").await.expect("destroyed");
    for made_anew in [false, true] {
        let reading = Reading::new(world.sealed.clone());
        assert!(!reading.has_found_any());
        let page = reading.page(stored.clone(), |_| false).await.expect("read");
        assert_eq!((page.rows, page.gone), (vec![rows[1].clone()], vec![removal(&stored[0])]), "{made_anew}");
        assert!(reading.has_found_any());
        world.keys.key("ann").await.expect("made anew");
    }
    let mut damaged = stored[1].clone();
    damaged.value.as_mut().expect("a value")[40] ^= 1;
    let told = Reading::new(world.sealed.clone()).page(vec![damaged], |_| false).await.expect_err("damaged");
    assert!(told.kind() == ErrorKind::DataLoss && told.to_string().contains(STORE), "{told}");
    let nobody = Row { key: vec![0; 40], ..stored[1].clone() };
    let told = Reading::new(world.sealed.clone()).page(vec![nobody], |_| false).await.expect_err("damaged");
    assert_eq!(told.kind(), ErrorKind::DataLoss);
}

/// Keys of a region that can be cut off, and that has none of ann's: only others could tell of it.
struct Region {
    keys: EmbeddedSubjectKeys,
    is_cut_off: AtomicBool,
    asked: AtomicUsize,
}

impl Region {
    fn new(keys: EmbeddedSubjectKeys) -> Arc<Self> {
        Arc::new(Self { keys, is_cut_off: AtomicBool::new(true), asked: AtomicUsize::new(0) })
    }
}

#[async_trait]
impl SubjectKeys for Region {
    async fn key(&self, subject: &str) -> Result<DataKey, KeyError> {
        self.keys.key(subject).await
    }

    async fn existing(&self, subject: &str) -> Result<Option<DataKey>, KeyError> {
        match self.near(subject).await? {
            None if self.is_cut_off.load(Ordering::Relaxed) => {
                self.asked.fetch_add(1, Ordering::Relaxed);
                Err(KeyError::Failed { kind: ErrorKind::Unavailable, message: "cut off".into() })
            }
            None => self.keys.existing(subject).await,
            near => Ok(near),
        }
    }

    async fn near(&self, subject: &str) -> Result<Option<DataKey>, KeyError> {
        if subject == "ann" { Ok(None) } else { self.keys.existing(subject).await }
    }

    async fn destroy(&self, subject: &str) -> Result<(), KeyError> {
        self.keys.destroy(subject).await
    }
}

#[tokio::test]
async fn a_region_that_is_cut_off_leaves_out_whose_key_is_not_near_and_removes_nothing_of_them() {
    let world = World::new().await;
    let rows = [row("plays", "ann/1", Some("Post")), row("plays", "ben/1", Some("Blur"))];
    let stored = world.sealed.group(&rows).await.expect("stored");
    let in_clear = row("plays", "ann/2", Some("Debut"));
    let region = Region::new(world.keys.clone());
    let sealed = Sealed::new(Sealing { keys: region.clone(), subject }, STORE.into());
    let reading = Reading::new(sealed.clone());
    let page = reading.page([&stored[..], std::slice::from_ref(&in_clear)].concat(), |_| false).await.expect("read");
    assert_eq!((page.rows, page.gone), (vec![rows[1].clone()], Vec::new()));
    assert_eq!((page.sealed, page.cleared), (Vec::new(), Vec::new()));
    assert_eq!(reading.entry(vec![in_clear.clone()]).await.expect("read"), [in_clear], "in clear until it is sealed");
    assert_eq!((reading.leave_out(), sealed.is_whole()), (1, false));
    let unavailable = sealed.group(&rows).await.expect_err("of ann");
    assert!(matches!(unavailable, Unsealed::Keys(_)), "{unavailable}");
    assert_eq!(sealed.group(&rows[1..]).await.expect("of ben").len(), 1);
    // Hers is there after all: nothing may be written over what was not read.
    region.is_cut_off.store(false, Ordering::Relaxed);
    assert!(matches!(sealed.group(&rows).await.expect_err("left out"), Unsealed::LeftOut));
    assert!(sealed.clone().finds_any(Duration::ZERO).await);
    world.keys.destroy("ann").await.expect("destroyed");
    assert_eq!(sealed.group(&rows).await.expect("without hers").len(), 1);
    assert!(!sealed.finds_any(Duration::ZERO).await, "there is nothing to look for");
}

#[tokio::test]
async fn what_is_left_while_nobody_has_a_key_is_not_written_over_once_somebody_has() {
    let world = World::new().await;
    let rows = [row("plays", "ann/1", Some("Post"))];
    let stored = world.sealed.group(&rows).await.expect("stored");
    let folder = tempfile::tempdir().expect("folder");
    let keys = EmbeddedSubjectKeys::new(Db::open(folder.path()).expect("open"), MasterKeys::new(&[[7; 32]]));
    let sealed = sealed_anew(&keys);
    let reading = Reading::new(sealed.clone());
    assert_eq!(reading.page(stored, |_| false).await.expect("read").gone.len(), 1);
    assert_eq!((reading.leave_out(), sealed.is_whole()), (1, false));
    assert!(sealed.group(&rows).await.expect("nobody's").is_empty());
    keys.key("ann").await.expect("restored");
    assert!(matches!(sealed.group(&rows).await.expect_err("left out"), Unsealed::LeftOut));
    // Where all is read, who is new is written.
    let whole = Reading::new(sealed_anew(&keys));
    assert_eq!((whole.leave_out(), whole.sealed.is_whole()), (0, true));
    assert_eq!(whole.sealed.group(&rows).await.expect("stored").len(), 1);
}

fn sealed_anew(keys: &EmbeddedSubjectKeys) -> Sealed {
    Sealed::new(Sealing { keys: Arc::new(keys.clone()), subject }, STORE.into())
}

#[tokio::test]
async fn a_start_asks_others_of_so_many_keys_and_no_more() {
    let world = World::new().await;
    let region = Region::new(world.keys.clone());
    let reading = Reading::new(Sealed::new(Sealing { keys: region.clone(), subject }, STORE.into()));
    let rows: Vec<_> = (0..1_000).map(|n| row("plays", &format!("listener-{n}/1"), Some("Post"))).collect();
    let page = reading.page(rows, |_| false).await.expect("read");
    assert!(page.rows.is_empty() && page.gone.is_empty());
    assert_eq!(reading.leave_out(), 1_000);
    assert!(region.asked.load(Ordering::Relaxed) < MAX_AFAR + KEYS_AT_ONCE);
}

/// Keys of which nobody tells.
struct Silent;

#[async_trait]
impl SubjectKeys for Silent {
    async fn key(&self, _: &str) -> Result<DataKey, KeyError> {
        std::future::pending().await
    }

    async fn existing(&self, _: &str) -> Result<Option<DataKey>, KeyError> {
        std::future::pending().await
    }

    async fn destroy(&self, _: &str) -> Result<(), KeyError> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_does_not_wait_for_a_key_for_ever() {
    let sealed = Sealed::new(Sealing { keys: Arc::new(Silent), subject }, STORE.into());
    let told = sealed.group(&[row("plays", "ann/1", Some("Post"))]).await.expect_err("no key");
    assert!(matches!(told, Unsealed::Keys(KeyError::Failed { kind: ErrorKind::Unavailable, .. })), "{told}");
}
