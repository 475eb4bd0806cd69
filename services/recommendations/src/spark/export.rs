//! From histories to a folder of partitioned Parquet, whole or not at all.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
};

use echotune_api::{Histories, ListenerHistory};
use echotune_engine::Random;
use echotune_model::UserId;

use super::{
    FileEntry, MANIFEST, Manifest, Part, SparkError, disk, in_range,
    table::{Row, TableWriter},
};

/// Partitions of one kind at the most.
const MAX_PARTITIONS: u64 = 256;
/// Listeners of whom something is held out at the most, in per cent.
const MAX_HELD_OUT: u64 = 50;
/// Rows held in memory over all files: some 50 MB.
const HELD_ROWS: usize = 1 << 20;
/// Rows in one group of a file.
const GROUP_ROWS: usize = 1 << 16;
/// Of a listener's items one in so many is held out.
const HELD_ITEMS: u64 = 10;

/// How histories are exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportOptions {
    /// Partitions of each kind, by listener: 1 to 256.
    pub partitions: u64,
    /// Per cent of the listeners of whom a tenth of the items is held out to judge by: 0 to 50.
    pub held_out_percent: u64,
}

impl Default for ExportOptions {
    fn default() -> Self {
        Self { partitions: 16, held_out_percent: 10 }
    }
}

type Place = (Part, &'static str, u64);

/// An export under way. Dropped before its end, it leaves nothing behind.
pub struct Export {
    options: ExportOptions,
    target: PathBuf,
    /// Beside the target, and of its name once it is whole.
    unfinished: PathBuf,
    manifest: Manifest,
    tables: BTreeMap<Place, (String, TableWriter)>,
    done: bool,
}

impl Drop for Export {
    fn drop(&mut self) {
        if !self.done {
            // What cannot be removed has a name that says what it is.
            let _ = fs::remove_dir_all(&self.unfinished);
        }
    }
}

/// A number that depends on a listener alone.
fn draw(user: UserId) -> u64 {
    let (high, low) = user.0.as_u64_pair();
    Random::new(high ^ low.rotate_left(32)).bits()
}

impl Export {
    /// Begins an export to a folder that is new or empty.
    ///
    /// # Errors
    /// An option out of its range; a folder that holds something or cannot be made.
    pub fn begin(target: &Path, options: ExportOptions, of: &Histories) -> Result<Self, SparkError> {
        in_range("partitions", options.partitions, 1, MAX_PARTITIONS)?;
        in_range("hold-out", options.held_out_percent, 0, MAX_HELD_OUT)?;
        if target.exists() && fs::read_dir(target).map_err(disk("read the folder", target))?.next().is_some() {
            return Err(SparkError::NotEmpty { path: target.to_owned() });
        }
        let name = target.file_name().ok_or_else(|| SparkError::NotEmpty { path: target.to_owned() })?;
        let mut unfinished = OsString::from(".");
        unfinished.push(name);
        unfinished.push(format!(".unfinished-{}", std::process::id()));
        let unfinished = target.with_file_name(unfinished);
        make_private(&unfinished).map_err(disk("make the folder", &unfinished))?;
        let manifest = Manifest::new(of.watermark.0, of.listeners, options.partitions, options.held_out_percent);
        Ok(Self { options, target: target.to_owned(), unfinished, manifest, tables: BTreeMap::new(), done: false })
    }

    /// Takes what a listener knows. Time O(items), memory bounded for all of them.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn add(&mut self, history: &ListenerHistory) -> Result<(), SparkError> {
        let (user, kind) = (history.user, history.kind.name());
        let draw = draw(user);
        let judged = (draw >> 32) % 100 < self.options.held_out_percent;
        for known in &history.items {
            let of_pair = || Random::new(draw ^ known.item.0.as_u64_pair().1).bits() >> 32;
            let place = if judged && of_pair().is_multiple_of(HELD_ITEMS) {
                (Part::HeldOut, kind, 0)
            } else {
                (Part::Listens, kind, draw % self.options.partitions)
            };
            let (path, table) = self.table(place)?;
            let (item, plays, last_listened_at_ms) = (known.item, known.plays, known.last_listened_at_ms);
            table.push(&path, Row { user, item, plays, last_listened_at_ms })?;
            self.manifest.rows += 1;
        }
        Ok(())
    }

    /// The table of a place, and where it is.
    fn table(&mut self, place: Place) -> Result<(PathBuf, &mut TableWriter), SparkError> {
        let (part, kind, number) = place;
        let path = || format!("{}/kind={kind}/part={number:04}/rows.parquet", part.folder());
        if !self.tables.contains_key(&place) {
            let (path, files) = (path(), 2 * (self.options.partitions + 1));
            let held = HELD_ROWS / usize::try_from(files).expect("few partitions");
            let whole = self.unfinished.join(&path);
            let folder = whole.parent().expect("a file is in a folder");
            fs::create_dir_all(folder).map_err(disk("make the folder", folder))?;
            self.tables.insert(place, (path, TableWriter::create(&whole, held.min(GROUP_ROWS))?));
        }
        let (path, table) = self.tables.get_mut(&place).expect("a table of the place is there");
        Ok((self.unfinished.join(path), table))
    }

    /// Writes the rest and the description, and gives the folder its name.
    ///
    /// # Errors
    /// The disk refuses; then nothing is left behind.
    pub fn finish(mut self) -> Result<Manifest, SparkError> {
        for ((part, kind, _), (path, table)) in std::mem::take(&mut self.tables) {
            let (rows, bytes, sha256) = table.finish(&self.unfinished.join(&path))?;
            self.manifest.files.push(FileEntry { path, part, kind: kind.to_owned(), rows, bytes, sha256 });
        }
        self.manifest.files.sort_by(|a, b| a.path.cmp(&b.path));
        let path = self.unfinished.join(MANIFEST);
        let mut text = serde_json::to_vec_pretty(&self.manifest).expect("numbers and texts are JSON");
        text.push(b'\n');
        let mut file = File::create_new(&path).map_err(disk("make", &path))?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(disk("write", &path))?;
        if self.target.exists() {
            // It was empty at the start; if it no longer is, it stays.
            fs::remove_dir(&self.target).map_err(disk("replace", &self.target))?;
        }
        fs::rename(&self.unfinished, &self.target).map_err(disk("rename to", &self.target))?;
        self.done = true;
        Ok(self.manifest.clone())
    }
}

/// Makes a folder that nobody but its owner may look into: histories are personal.
fn make_private(path: &Path) -> std::io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use echotune_api::KnownItem;
    use echotune_model::{Hlc, ItemId, ItemKind};
    use futures::{StreamExt as _, stream};
    use uuid::Uuid;

    use super::{super::read_rows, *};

    fn histories() -> (Histories, Vec<ListenerHistory>) {
        let history = |n: u64| {
            let items = (0..n % 30).map(|item| KnownItem {
                item: ItemId::artist(&format!("{item}")),
                plays: n + item + 1,
                last_listened_at_ms: i64::try_from(item).expect("small"),
            });
            let kind = if n.is_multiple_of(2) { ItemKind::Artist } else { ItemKind::Track };
            ListenerHistory { user: UserId(Uuid::from_u128(u128::from(n) << 70 | 5)), kind, items: items.collect() }
        };
        let all: Vec<ListenerHistory> = (0..200).map(history).collect();
        let rows = all.iter().map(|one| one.items.len() as u64).sum();
        (Histories { watermark: Hlc(77), listeners: 200, rows, parts: stream::empty().boxed() }, all)
    }

    fn exported(target: &Path, options: ExportOptions) -> Manifest {
        let (of, all) = histories();
        let mut export = Export::begin(target, options, &of).expect("begun");
        all.iter().for_each(|history| export.add(history).expect("added"));
        assert!(!target.join(MANIFEST).exists());
        export.finish().expect("finished")
    }

    #[test]
    fn what_is_read_back_is_what_was_exported_in_partitions_of_whole_listeners() {
        let folder = tempfile::tempdir().expect("folder");
        let target = folder.path().join("export");
        fs::create_dir(&target).expect("an empty folder is taken");
        let manifest = exported(&target, ExportOptions { partitions: 4, held_out_percent: 50 });
        let (of, all) = histories();
        assert_eq!((manifest.watermark, manifest.listeners, manifest.rows), (77, 200, of.rows));
        let (mut read, mut held, mut where_is) = (BTreeSet::new(), 0, BTreeMap::new());
        for file in &manifest.files {
            let mut rows = 0;
            read_rows(&target.join(&file.path), |row| {
                rows += 1;
                held += usize::from(file.part == Part::HeldOut);
                assert!(read.insert(row), "{row:?} is there once");
                if file.part == Part::Listens {
                    assert_eq!(where_is.entry((row.user, file.kind.clone())).or_insert(&file.path), &&file.path);
                }
            })
            .expect("read");
            assert_eq!(rows, file.rows);
        }
        let expected: BTreeSet<Row> = (all.iter())
            .flat_map(|one| one.items.iter().map(|known| (one.user, known)))
            .map(|(user, known)| Row {
                user,
                item: known.item,
                plays: known.plays,
                last_listened_at_ms: known.last_listened_at_ms,
            })
            .collect();
        assert_eq!(read, expected);
        assert!((50..300).contains(&held), "{held}: a tenth of the items of half of the listeners");
        for kind in ["artist", "track"] {
            let (again, _) = Manifest::read(&target, kind).expect("checked");
            assert_eq!(again, manifest);
            assert_eq!(manifest.files(Part::Listens, kind).count(), 4);
            assert_eq!(manifest.files(Part::HeldOut, kind).count(), 1);
            assert!(target.join(format!("listens/kind={kind}/part=0003/rows.parquet")).exists());
        }
        assert_eq!(fs::read_dir(folder.path()).expect("read").count(), 1, "nothing else is left");
    }

    #[test]
    fn the_same_histories_make_the_same_files() {
        let folder = tempfile::tempdir().expect("folder");
        let options = ExportOptions::default();
        let digests = |name: &str| exported(&folder.path().join(name), options).files;
        assert_eq!(digests("one"), digests("two"));
    }

    #[test]
    fn a_folder_that_holds_something_is_refused_and_an_export_that_is_dropped_leaves_nothing() {
        let folder = tempfile::tempdir().expect("folder");
        let (target, options) = (folder.path().join("export"), ExportOptions::default());
        let (of, all) = histories();
        let mut export = Export::begin(&target, options, &of).expect("begun");
        export.add(&all[29]).expect("added");
        assert_eq!(fs::read_dir(folder.path()).expect("read").count(), 1);
        drop(export);
        assert_eq!(fs::read_dir(folder.path()).expect("read").count(), 0);
        fs::create_dir(&target).expect("made");
        fs::write(target.join("mine"), "kept").expect("written");
        assert!(matches!(Export::begin(&target, options, &of), Err(SparkError::NotEmpty { .. })));
        for wrong in [
            ExportOptions { partitions: 0, ..options },
            ExportOptions { partitions: 257, ..options },
            ExportOptions { held_out_percent: 51, ..options },
        ] {
            let other = folder.path().join("other");
            assert!(matches!(Export::begin(&other, wrong, &of), Err(SparkError::Option { .. })));
        }
        assert_eq!(fs::read_dir(folder.path()).expect("read").count(), 1);
    }

    #[test]
    fn a_file_that_was_cut_changed_or_taken_away_is_named() {
        let folder = tempfile::tempdir().expect("folder");
        let target = folder.path().join("export");
        let manifest = exported(&target, ExportOptions { partitions: 1, held_out_percent: 0 });
        let path = target.join(&manifest.files[0].path);
        let whole = fs::read(&path).expect("read");
        let mut changed = whole.clone();
        changed[9] ^= 1;
        let said = || Manifest::read(&target, "artist").expect_err("refused").to_string();
        fs::write(&path, &changed).expect("written");
        assert!(said().contains("SHA-256"), "{}", said());
        fs::write(&path, &whole[1..]).expect("written");
        assert!(said().contains("bytes"), "{}", said());
        fs::remove_file(&path).expect("removed");
        assert!(said().contains("rows.parquet"), "{}", said());
        Manifest::read(&target, "track").expect("the other kind is whole");
    }
}
