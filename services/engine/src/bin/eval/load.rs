use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use echotune_engine::{
    Interactions,
    evaluation::{
        Dataset, Event, Events, Format, Names, Split, Table, Tagging, carved, new_items, random, read_interactions,
        read_items, read_social, read_taggings, temporal,
    },
};

/// Bytes of a file at the most.
const MAX_FILE: u64 = 16 << 30;

/// What is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Files {
    pub(crate) name: String,
    pub(crate) train: PathBuf,
    pub(crate) test: Option<PathBuf>,
    pub(crate) format: Option<Format>,
    pub(crate) social: Option<PathBuf>,
    pub(crate) tags: Option<PathBuf>,
    pub(crate) items: Option<PathBuf>,
}

impl Files {
    /// One file of interactions, which gives the data its name.
    pub(crate) fn of(train: PathBuf) -> Self {
        let name = train.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        Self { name, train, test: None, format: None, social: None, tags: None, items: None }
    }
}

/// What was read.
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) events: Events,
    test: Option<Vec<Event>>,
    social: Vec<(u32, u32)>,
    taggings: Vec<Tagging>,
    tags: Arc<Names>,
}

fn open(path: &Path) -> anyhow::Result<BufReader<File>> {
    let file = File::open(path).with_context(|| {
        let known = "--data is the folder of the known data sets gowalla, lastfm-lightgcn and hetrec";
        format!("{} cannot be opened; {known}", path.display())
    })?;
    let length = file.metadata().with_context(|| format!("{} cannot be read", path.display()))?.len();
    if length > MAX_FILE {
        bail!("{} has {length} bytes; at most {MAX_FILE} are read", path.display());
    }
    Ok(BufReader::with_capacity(1 << 20, file))
}

pub(crate) fn load(files: &Files) -> anyhow::Result<Source> {
    let (mut users, mut items) = (Names::default(), Names::default());
    let mut table = |path: &Path| -> anyhow::Result<Table> {
        let file = path.display().to_string();
        let table = read_interactions(open(path)?, &file, files.format, &mut users, &mut items)?;
        if table.rows.is_empty() {
            bail!("{file} holds no interactions");
        }
        let format = if table.format == Format::Rows { "rows" } else { "lightgcn" };
        let dropped = table.dropped;
        eprintln!(
            "{file}: {} interactions, format {format}; left out: {} of weight 0, {} of a weight below 0, infinite or NaN",
            table.rows.len(),
            dropped.zero,
            dropped.unusable
        );
        Ok(table)
    };
    let train = table(&files.train)?;
    let test = files.test.as_deref().map(&mut table).transpose()?.map(|table| table.rows);
    let named = |path: &Path| path.display().to_string();
    if let Some(path) = &files.items {
        let new = read_items(open(path)?, &named(path), &mut items)?;
        eprintln!("{}: {new} items that are in no interaction", path.display());
    }
    let mut social = Vec::new();
    if let Some(path) = &files.social {
        let (pairs, unknown) = read_social(open(path)?, &named(path), &users)?;
        eprintln!("{}: {} friendships; left out: {unknown} of unknown listeners", path.display(), pairs.len());
        social = pairs;
    }
    let (mut taggings, mut tags) = (Vec::new(), Names::default());
    if let Some(path) = &files.tags {
        let (found, unknown) = read_taggings(open(path)?, &named(path), &users, &items, &mut tags)?;
        eprintln!("{}: {} taggings; left out: {unknown} of unknown items", path.display(), found.len());
        taggings = found;
    }
    let events = Events { users, items, rows: train.rows, timed: train.timed };
    Ok(Source { name: files.name.clone(), events, test, social, taggings, tags: Arc::new(tags) })
}

impl Source {
    pub(crate) const fn has_tags(&self) -> bool {
        !self.taggings.is_empty()
    }

    /// All pairs of the training file, each of weight 1.
    pub(crate) fn all(&self) -> Interactions {
        let mut rows = vec![Vec::new(); self.events.users.len()];
        self.events.rows.iter().for_each(|event| rows[event.user as usize].push(event.item));
        Interactions::from_rows(rows, self.events.items.len())
    }

    /// One split of the data.
    pub(crate) fn split(&self, split: Split, seed: u64) -> anyhow::Result<Dataset> {
        let mut dataset = match (&self.test, split) {
            (Some(test), _) => carved(&self.events, test, seed),
            (None, Split::Random) => random(&self.events, seed),
            (None, Split::Temporal) => temporal(&self.events)?,
            (None, Split::NewItems) => new_items(&self.events, seed),
        };
        if !self.social.is_empty() {
            dataset.set_social(&self.social);
        }
        dataset.taggings.clone_from(&self.taggings);
        dataset.tags = Arc::clone(&self.tags);
        Ok(dataset)
    }
}

/// Says on stderr what is measured.
pub(crate) fn describe(source: &Source, dataset: &Dataset) {
    let fold = dataset.testing();
    eprintln!(
        "{}: {} listeners × {} items; {} training, {} validation, {} test pairs; {} rows of a pair that was there before",
        source.name,
        dataset.train.user_count(),
        dataset.train.item_count(),
        dataset.train.len(),
        dataset.validation.len(),
        dataset.test.len(),
        source.events.duplicates()
    );
    if let Some(test) = &source.test {
        let dropped = test.len() - dataset.test.len();
        eprintln!("test rows left out, as they repeat or are in training: {dropped}");
    }
    eprintln!(
        "judged: {} listeners; {} with test items and no history are {}",
        fold.judged().len(),
        dataset.unknown_users(),
        if dataset.judge_unknown { "among them" } else { "left out" }
    );
}
