//! Models on disk: written whole, swapped under readers, and passed over when they are damaged.

use std::{
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use echotune_engine::{Catalogue, FileError, ItemGraph, LinearModel, ModelFile, dense::Matrix};
use echotune_recommendations::mapped::{ModelFolder, Stored, open};

const ITEMS: usize = 200;
const RANK: usize = 16;

fn catalogue() -> Catalogue {
    Catalogue::of((0..ITEMS).map(|item| item.to_le_bytes()))
}

/// A model whose every number tells its version.
fn model(version: u16) -> LinearModel {
    let number = f32::from(version);
    let rows: Vec<Vec<(u32, f32)>> = (0..ITEMS).map(|item| vec![(item as u32, number)]).collect();
    let factors = || Matrix::from_vec(ITEMS, RANK, vec![number; ITEMS * RANK]).expect("the length");
    LinearModel::new(ItemGraph::from_links(&rows).expect("links"), factors(), factors()).expect("shapes")
}

fn write(folder: &ModelFolder, version: u16) -> Stored {
    let model = model(version);
    let file = model.write(&format!("v{version}"), catalogue()).expect("fits");
    folder.write(&file).expect("written")
}

fn read(file: &ModelFile) -> Result<(String, LinearModel), FileError> {
    Ok((file.version().to_owned(), LinearModel::read(file, &catalogue())?))
}

fn newest(folder: &ModelFolder) -> Option<String> {
    folder.newest(read).expect("a folder").map(|(_, (version, _))| version)
}

fn numbers(folder: &ModelFolder) -> Vec<u64> {
    folder.list().expect("a folder").iter().map(|stored| stored.number).collect()
}

/// Replaces a file by one with other bytes, as a damaged disk would have it.
fn damage(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).expect("there");
    change(&mut bytes);
    fs::remove_file(path).expect("there");
    fs::write(path, bytes).expect("written");
}

#[test]
fn versions_are_numbered_kept_and_opened_newest_first() {
    let temporary = tempfile::tempdir().expect("a folder");
    let folder = ModelFolder::open(temporary.path().join("models"), 3).expect("a folder");
    assert_eq!((newest(&folder), numbers(&folder)), (None, vec![]));
    for version in 1..=5 {
        let stored = write(&folder, version);
        assert_eq!(stored.number, u64::from(version));
        assert_eq!(stored.bytes, fs::metadata(&stored.path).expect("there").len());
        assert_eq!(newest(&folder), Some(format!("v{version}")));
    }
    assert_eq!(numbers(&folder), [5, 4, 3]);
    let (_, (_, read)) = folder.newest(read).expect("a folder").expect("there");
    assert_eq!(read, model(5));
    // What a crash left is gone with the next start; what is of others stays.
    fs::write(temporary.path().join("models/00000000000000000006.unfinished"), "half").expect("written");
    fs::write(temporary.path().join("models/notes.txt"), "mine").expect("written");
    let folder = ModelFolder::open(temporary.path().join("models"), 3).expect("a folder");
    assert_eq!(fs::read_dir(temporary.path().join("models")).expect("a folder").count(), 4);
    assert_eq!(write(&folder, 6).number, 6);
}

#[test]
fn a_damaged_model_is_passed_over_for_the_one_before() {
    let temporary = tempfile::tempdir().expect("a folder");
    let folder = ModelFolder::open(temporary.path(), 9).expect("a folder");
    let stored: Vec<Stored> = (1..=4).map(|version| write(&folder, version)).collect();
    damage(&stored[3].path, |bytes| bytes.truncate(bytes.len() / 2));
    assert_eq!(newest(&folder).as_deref(), Some("v3"));
    damage(&stored[2].path, |bytes| *bytes.last_mut().expect("not empty") ^= 1);
    let error = open(&stored[2].path).expect_err("damaged").to_string();
    assert!(error.contains("section 'to'") && error.contains("00000000000000000003.model"), "{error}");
    assert_eq!(newest(&folder).as_deref(), Some("v2"));
    damage(&stored[1].path, Vec::clear);
    assert_eq!(newest(&folder).as_deref(), Some("v1"));
    let others = Catalogue::of(["another item"]);
    let other = folder.newest(|file| LinearModel::read(file, &others)).expect("a folder");
    assert!(other.is_none());
}

#[test]
fn a_write_that_fails_leaves_what_was_there() {
    let temporary = tempfile::tempdir().expect("a folder");
    let folder = ModelFolder::open(temporary.path(), 1).expect("a folder");
    write(&folder, 1);
    // A folder where the file is to be written.
    fs::create_dir(temporary.path().join("00000000000000000002.unfinished")).expect("made");
    let model = model(2);
    let error = folder.write(&model.write("v2", catalogue()).expect("fits")).expect_err("in the way");
    assert!(error.to_string().starts_with("cannot write "), "{error}");
    assert_eq!(newest(&folder).as_deref(), Some("v1"));
}

#[test]
fn a_model_is_swapped_while_readers_use_the_one_before() {
    let temporary = tempfile::tempdir().expect("a folder");
    let folder = ModelFolder::open(temporary.path(), 1).expect("a folder");
    write(&folder, 1);
    let load = || folder.newest(read).expect("a folder").expect("there").1;
    let old = load();
    let serving = Mutex::new(Arc::new(load()));
    let (stop, lists, wrong) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut scores = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let serving = Arc::clone(&serving.lock().expect("no panic"));
                    let (version, model) = &*serving;
                    let number: f32 = version[1..].parse().expect("a number");
                    model.score_into(&[(7, 1.0)], &mut scores);
                    let low = RANK as f32 * number * number;
                    let right = scores.iter().zip(0..).all(|(score, item)| match item {
                        7 => *score == low + number,
                        _ => *score == low,
                    });
                    wrong.fetch_add(u64::from(!right), Ordering::Relaxed);
                    lists.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for version in 2..=20 {
            write(&folder, version);
            *serving.lock().expect("no panic") = Arc::new(load());
            let before = lists.load(Ordering::Relaxed);
            while lists.load(Ordering::Relaxed) < before + 6 {
                thread::yield_now();
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(wrong.into_inner(), 0);
    // The first file is long gone, and its reader has every number of it.
    assert_eq!(numbers(&folder), [20]);
    assert_eq!(old, ("v1".to_owned(), model(1)));
}
