//! From factors to a candidate: nothing is taken that the platform no longer knows, and nothing that is far
//! behind what serves.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use echotune_api::Histories;
use echotune_engine::{
    Interactions, LinearModel,
    dense::Matrix,
    evaluation::{Fold, LinearScorer, Model as _, Scorer, ServedModel, Settings, Training, measure, rank},
    factors::ItemFactors,
};
use echotune_model::{Fault, ItemId, ItemKind, UserId};
use futures::TryStreamExt as _;

use super::{Manifest, Part, SparkError, below, disk, factors::FactorsFile, read_factors, read_rows, refused};
use crate::{
    candidate::{About, Candidate, CandidateError, Quality},
    mapped::{ModelFolder, Stored},
};

/// Regularisations of the linear form that are tried, in mean eigenvalues.
const RIDGES: [f64; 6] = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0];
/// Length of the lists that are judged.
const LIST: usize = 10;
/// Listeners by whom the regularisation is chosen and quality judged at the most, each.
const JUDGED: usize = 2_000;
/// Links kept per item, as of the blend.
const LINKS: usize = 256;

/// What the platform knows now.
#[derive(Debug, Default)]
pub struct Present {
    /// Listeners who are not private.
    pub listeners: HashSet<UserId>,
    /// Items of one kind that they know.
    pub items: HashSet<ItemId>,
}

impl Present {
    /// Of a stream of histories, for items of a kind.
    ///
    /// # Errors
    /// The stream breaks off.
    pub async fn collect(mut histories: Histories, kind: ItemKind) -> Result<Self, Fault> {
        let mut present = Self::default();
        while let Some(part) = histories.parts.try_next().await? {
            for history in part {
                present.listeners.insert(history.user);
                if history.kind == kind {
                    present.items.extend(history.items.iter().map(|known| known.item));
                }
            }
        }
        Ok(present)
    }

    /// That all of them are there.
    fn check<'u>(&self, listeners: impl Iterator<Item = &'u UserId>) -> Result<(), SparkError> {
        match listeners.filter(|user| !self.listeners.contains(user)).count() {
            0 => Ok(()),
            listeners => Err(SparkError::Vanished { listeners }),
        }
    }
}

/// How factors are imported.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ImportOptions {
    /// The share of the blend's NDCG@10 that a candidate has to reach; 0 takes anything, judged or not.
    pub min_share: f64,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self { min_share: 0.9 }
    }
}

/// A candidate as it was written.
#[derive(Debug)]
pub struct Imported {
    /// Where it is.
    pub stored: Stored,
    /// Which model it is.
    pub version: String,
    /// What is known of it.
    pub about: About,
    /// Items of the factors that the platform knows no longer, which are left out.
    pub vanished_items: usize,
    listeners: Vec<UserId>,
}

impl Imported {
    /// To be asked once the candidate is kept: removes it again when somebody it was trained on has left meanwhile.
    /// Whoever leaves later takes it along.
    ///
    /// # Errors
    /// Somebody has left; the file cannot be removed.
    pub fn confirm(&self, present: &Present) -> Result<(), SparkError> {
        let checked = present.check(self.listeners.iter());
        if checked.is_err() {
            let path = &self.stored.path;
            std::fs::remove_file(path).map_err(disk("remove", path))?;
        }
        checked
    }
}

/// Factors with the export that they were trained on, checked against each other.
pub struct Import {
    file: FactorsFile,
    kind: ItemKind,
    items: Vec<ItemId>,
    factors: Matrix,
    users: HashMap<UserId, u32>,
    /// Users × items.
    listens: Interactions,
    held_out: Interactions,
    watermark: u64,
    factors_folder: std::path::PathBuf,
}

impl Import {
    /// Reads both folders and checks them whole. Time O(bytes), memory that of the rows and factors.
    ///
    /// # Errors
    /// A file that is missing, damaged or of another shape; factors of another export, without an item of it or
    /// with one that is not in it.
    pub fn read(export: &Path, factors_folder: &Path) -> Result<Self, SparkError> {
        let (file, items, factors) = read_factors(factors_folder)?;
        let (manifest, digest) = Manifest::read(export, &file.kind)?;
        if file.export.manifest_sha256 != digest {
            let reason = format!("it was trained on another export than {}; name that one", export.display());
            return Err(refused(factors_folder, reason));
        }
        let kind = if file.kind == ItemKind::Artist.name() { ItemKind::Artist } else { ItemKind::Track };
        let mut users = HashMap::new();
        let mut known = vec![false; items.len()];
        let mut read = |part: Part, known: &mut [bool]| -> Result<Vec<Vec<(u32, f32)>>, SparkError> {
            let (mut rows, mut strange): (Vec<Vec<(u32, f32)>>, _) = (Vec::new(), None);
            for entry in manifest.files(part, &file.kind) {
                read_rows(&below(export, &entry.path)?, |row| {
                    let next = u32::try_from(users.len()).expect("at most 2^32 listeners");
                    let user = *users.entry(row.user).or_insert(next) as usize;
                    rows.resize(rows.len().max(user + 1), Vec::new());
                    match items.binary_search(&row.item) {
                        Ok(item) => {
                            known[item] = true;
                            #[expect(clippy::cast_precision_loss, reason = "weights are f32")]
                            rows[user].push((u32::try_from(item).expect("few items"), row.plays as f32));
                        }
                        // What is held out may be known to nobody else.
                        Err(_) if part == Part::HeldOut => {}
                        Err(_) => strange = Some(row.item),
                    }
                })?;
            }
            match strange {
                Some(item) => Err(refused(factors_folder, format!("it has no factors of item {item} of the export"))),
                None => Ok(rows),
            }
        };
        let mut listens = read(Part::Listens, &mut known)?;
        if let Some(at) = known.iter().position(|known| !known) {
            return Err(refused(factors_folder, format!("item {} is not in the export", items[at])));
        }
        let mut held_out = read(Part::HeldOut, &mut known)?;
        listens.resize(users.len(), Vec::new());
        held_out.resize(users.len(), Vec::new());
        let matrix = |rows| Interactions::from_weighted(rows, items.len()).map_err(|cause| refused(export, cause));
        let (listens, held_out) = (matrix(listens)?, matrix(held_out)?);
        let (watermark, factors_folder) = (manifest.watermark, factors_folder.to_owned());
        Ok(Self { file, kind, items, factors, users, listens, held_out, watermark, factors_folder })
    }

    /// Kind of the items.
    pub const fn kind(&self) -> ItemKind {
        self.kind
    }

    /// Brings the factors into a model that serves, judges it beside the blend and keeps it as a candidate.
    /// `progress` is told the share that is done. Time that of fitting the blend and O(items² × rank).
    ///
    /// # Errors
    /// A listener of the export is there no longer or is private; the candidate is too far behind the blend, or
    /// cannot be judged; the disk refuses.
    pub fn finish(
        mut self,
        present: &Present,
        folder: &ModelFolder,
        options: ImportOptions,
        progress: &(dyn Fn(f64) + Sync),
    ) -> Result<Imported, SparkError> {
        present.check(self.users.keys())?;
        let vanished_items = self.forget(&present.items);
        let factors = ItemFactors::new(&self.factors).map_err(|cause| refused(&self.factors_folder, cause))?;
        let [choosing, judging] = self.judges();
        let ridge = self.ridge(&factors, &choosing);
        progress(0.1);
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        let step = 0.6 / self.items.len().max(1) as f64;
        let done = std::sync::atomic::AtomicUsize::new(0);
        let graph = factors.compiled(ridge, LINKS, &self.listens, &|items| {
            let done = done.fetch_add(items, std::sync::atomic::Ordering::Relaxed) + items;
            #[expect(clippy::cast_precision_loss, reason = "a share")]
            progress(0.1 + step * done as f64);
        });
        let none = || Matrix::zeros(graph.item_count(), 0);
        let (from, to) = (none(), none());
        let model = LinearModel::new(graph, from, to).expect("parts of one catalogue");
        let scorer = self.scorer(model);
        let quality = self.quality(&scorer, &judging);
        let fold = self.fold(&judging);
        let blend = ServedModel.fit(&fold.training, &Settings::default(), 1, &|_| {});
        let blend = self.quality(blend.map_err(|cause| SparkError::Fit(cause.to_string()))?.as_ref(), &judging);
        progress(1.0);
        gate(quality, blend, judging.len(), options.min_share)?;
        let about = About {
            kind: self.file.kind.clone(),
            trainer: self.file.trainer(),
            rank: self.file.rank,
            ridge,
            listeners: self.file.listeners,
            rows: self.file.rows,
            watermark: self.watermark,
            judged: judging.len(),
            quality,
            blend,
        };
        let version = format!("als-{}-{}-{:016x}", about.kind, about.rank, about.watermark);
        let graph = scorer.model.into_sparse();
        let stored = Candidate::write(folder, &version, &about, graph, &self.items)?;
        Ok(Imported { stored, version, about, vanished_items, listeners: self.users.into_keys().collect() })
    }

    /// Leaves out the items that are not known any more; answers how many.
    fn forget(&mut self, known: &HashSet<ItemId>) -> usize {
        let kept: Vec<usize> = (0..self.items.len()).filter(|at| known.contains(&self.items[*at])).collect();
        let gone = self.items.len() - kept.len();
        if gone > 0 {
            let mut factors = Matrix::zeros(kept.len(), self.factors.columns());
            let mut numbers = vec![None; self.items.len()];
            for (to, from) in kept.iter().enumerate() {
                factors.row_mut(to).copy_from_slice(self.factors.row(*from));
                numbers[*from] = u32::try_from(to).ok();
            }
            let renumbered = |matrix: &Interactions| {
                let row = |user| matrix.entries(user).filter_map(|(item, x)| Some((numbers[item as usize]?, x)));
                let rows = (0..matrix.user_count()).map(row);
                Interactions::from_weighted(rows, kept.len()).expect("items of the catalogue with finite weights")
            };
            (self.listens, self.held_out) = (renumbered(&self.listens), renumbered(&self.held_out));
            self.items = kept.iter().map(|at| self.items[*at]).collect();
            self.factors = factors;
        }
        gone
    }

    /// Listeners by whom is chosen, and others by whom is judged: those of whom something was held out.
    fn judges(&self) -> [Vec<usize>; 2] {
        let mut halves = [Vec::new(), Vec::new()];
        let held = (0..self.users.len())
            .filter(|user| !self.held_out.row(*user).is_empty() && !self.listens.row(*user).is_empty());
        for (at, user) in held.enumerate().take(2 * JUDGED) {
            halves[at % 2].push(user);
        }
        halves
    }

    fn fold(&self, judges: &[usize]) -> Fold<'_> {
        let tags = Interactions::from_rows((0..self.items.len()).map(|_| []), 0);
        let training = Training { interactions: &self.listens, times: None, social: &[], tags };
        let (known, held, sample) = (&self.listens, &self.held_out, Some(judges.to_vec()));
        Fold { training, known, held, judge_unknown: false, only: None, sample }
    }

    /// Scores of histories weighted as they are served.
    fn scorer(&self, model: LinearModel) -> LinearScorer {
        LinearScorer { model, histories: self.listens.reweighted(|_, _, plays| plays.ln_1p()) }
    }

    /// The regularisation with the best lists; of equals, and without listeners to judge by, the first in the
    /// middle.
    fn ridge(&self, factors: &ItemFactors, judges: &[usize]) -> f64 {
        let ndcg = |ridge: f64| self.quality(&self.scorer(factors.linear(ridge)), judges).ndcg;
        let (mut best, mut chosen) = (f64::NEG_INFINITY, RIDGES[2]);
        for ridge in RIDGES.into_iter().filter(|_| !judges.is_empty()) {
            let found = ndcg(ridge);
            if found > best {
                (best, chosen) = (found, ridge);
            }
        }
        chosen
    }

    fn quality(&self, scorer: &dyn Scorer, judges: &[usize]) -> Quality {
        let fold = self.fold(judges);
        let found = measure(&fold, &[LIST], &rank(&fold, LIST, scorer, &|_| {}));
        Quality { recall: found.recall[0], ndcg: found.ndcg[0] }
    }
}

/// Whether a candidate may be kept.
fn gate(candidate: Quality, blend: Quality, judges: usize, least: f64) -> Result<(), SparkError> {
    if least <= 0.0 {
        return Ok(());
    }
    if judges == 0 {
        return Err(SparkError::NotJudged);
    }
    if candidate.ndcg < least * blend.ndcg {
        return Err(SparkError::Worse { candidate: candidate.ndcg, blend: blend.ndcg, least });
    }
    Ok(())
}

/// What an error of the folder of candidates is here.
impl From<crate::mapped::ModelFolderError> for SparkError {
    fn from(error: crate::mapped::ModelFolderError) -> Self {
        Self::Candidate(CandidateError::from(error))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use echotune_api::{KnownItem, ListenerHistory};
    use echotune_engine::Random;
    use echotune_model::{ErrorKind, Hlc};
    use futures::{StreamExt as _, stream};
    use uuid::Uuid;

    use super::{
        super::{Export, ExportOptions, factors::tests::written},
        *,
    };
    use crate::candidate;

    const ITEMS: u32 = 60;
    /// Factors that know the taste alone reach this share of the blend; those that do not know it do not.
    const SHARE: f64 = 0.7;

    fn item(n: u32) -> ItemId {
        ItemId::artist(&n.to_string())
    }

    /// Listeners of two tastes: items of an even and of an odd number.
    fn histories() -> Vec<ListenerHistory> {
        let mut random = Random::new(3);
        let history = |n: u32| {
            let mut known = |other: u32| random.below(if other % 2 == n % 2 { 2 } else { 30 }) == 0;
            let items = (0..ITEMS).filter(|other| known(*other)).map(|other| KnownItem {
                item: item(other),
                plays: u64::from(1 + other % 5),
                last_listened_at_ms: 0,
            });
            let user = UserId(Uuid::from_u128(u128::from(n) << 64 | 9));
            ListenerHistory { user, kind: ItemKind::Artist, items: items.collect() }
        };
        (0..300).map(history).collect()
    }

    fn stream_of(all: Vec<ListenerHistory>) -> Histories {
        let rows = all.iter().map(|one| one.items.len() as u64).sum();
        let listeners = all.len() as u64;
        Histories { watermark: Hlc(7), listeners, rows, parts: stream::iter([Ok(all)]).boxed() }
    }

    struct World {
        folder: tempfile::TempDir,
        digest: String,
    }

    impl World {
        fn new(held_out_percent: u64) -> Self {
            let folder = tempfile::tempdir().expect("folder");
            let options = ExportOptions { partitions: 3, held_out_percent };
            let mut export =
                Export::begin(&folder.path().join("export"), options, &stream_of(histories())).expect("begun");
            histories().iter().for_each(|history| export.add(history).expect("added"));
            export.finish().expect("finished");
            let (_, digest) = Manifest::read(&folder.path().join("export"), "artist").expect("read");
            Self { folder, digest }
        }

        /// Factors of `items` items: which taste, times `sense`, and something of their own.
        fn factors(&self, items: u32, sense: f32) {
            let mut random = Random::new(8);
            let row = |n: u32| {
                let taste = if n.is_multiple_of(2) { 1.0 } else { -1.0 };
                #[expect(clippy::cast_possible_truncation, reason = "factors are f32")]
                let own = [1.0, sense * taste, 0.1 * random.normal() as f32];
                (item(n).to_string(), own.to_vec())
            };
            let rows: Vec<(String, Vec<f32>)> = (0..items).map(row).collect();
            written(&self.folder.path().join("factors"), &self.digest, 3, &rows, |_| {});
        }

        fn read(&self) -> Result<Import, SparkError> {
            Import::read(&self.folder.path().join("export"), &self.folder.path().join("factors"))
        }

        async fn finish(&self, present: Vec<ListenerHistory>, min_share: f64) -> Result<Imported, SparkError> {
            let present = Present::collect(stream_of(present), ItemKind::Artist).await.expect("collected");
            let folder = candidate::folder(self.folder.path()).expect("a folder");
            self.read().expect("read").finish(&present, &folder, ImportOptions { min_share }, &|_| {})
        }
    }

    #[tokio::test]
    async fn good_factors_become_a_candidate_whose_lists_are_of_ones_taste_and_add_up() {
        let world = World::new(50);
        world.factors(ITEMS, 1.0);
        let imported = world.finish(histories(), SHARE).await.expect("imported");
        assert!(imported.about.judged > 30 && imported.about.blend.ndcg > 0.1, "{imported:?}");
        assert!(imported.about.quality.ndcg >= SHARE * imported.about.blend.ndcg, "{imported:?}");
        assert_eq!((imported.vanished_items, imported.about.watermark), (0, 7));
        let folder = candidate::folder(world.folder.path()).expect("a folder");
        let candidate = candidate::find(&folder, None, ItemKind::Artist).expect("found");
        assert_eq!((&candidate.about, candidate.item_count()), (&imported.about, ITEMS as usize));
        let list = candidate.list(&[(item(4), 3), (item(8), 1)], 5);
        let even: HashSet<ItemId> = (0..ITEMS).filter(|n| n % 2 == 0).map(item).collect();
        assert!(list.len() == 5 && list.iter().all(|one| even.contains(&one.item) && one.parts.len() == 2));
        for one in &list {
            let sum: f64 = one.parts.iter().map(|(_, part)| part).sum();
            assert!((sum - one.score).abs() < 1e-5);
        }
    }

    #[tokio::test]
    async fn factors_that_know_nothing_are_refused_unless_anything_is_taken() {
        let world = World::new(50);
        world.factors(ITEMS, 0.0);
        let error = world.finish(histories(), SHARE).await.expect_err("refused");
        assert!(matches!(error, SparkError::Worse { .. }) && error.kind() == ErrorKind::FailedPrecondition, "{error}");
        let folder = candidate::folder(world.folder.path()).expect("a folder");
        assert!(folder.list().expect("listed").is_empty(), "nothing was kept");
        world.finish(histories(), 0.0).await.expect("taken");
    }

    #[tokio::test]
    async fn without_anything_held_out_nothing_is_judged() {
        let world = World::new(0);
        world.factors(ITEMS, 1.0);
        let error = world.finish(histories(), 0.5).await.expect_err("refused");
        assert!(matches!(error, SparkError::NotJudged), "{error}");
        assert_eq!(world.finish(histories(), 0.0).await.expect("taken").about.judged, 0);
    }

    #[tokio::test]
    async fn a_listener_who_was_erased_or_is_private_since_stops_the_import_and_items_that_went_are_left_out() {
        let world = World::new(50);
        world.factors(ITEMS, 1.0);
        let error = world.finish(histories().split_off(2), 0.0).await.expect_err("refused");
        assert!(matches!(error, SparkError::Vanished { listeners: 2 }), "{error}");
        let mut present = histories();
        present.iter_mut().for_each(|one| one.items.retain(|known| known.item != item(3)));
        let imported = world.finish(present, 0.0).await.expect("imported");
        assert_eq!(imported.vanished_items, 1);
        let folder = candidate::folder(world.folder.path()).expect("a folder");
        let candidate = candidate::find(&folder, None, ItemKind::Artist).expect("found");
        assert_eq!(candidate.item_count(), ITEMS as usize - 1);
        assert!(candidate.list(&[(item(3), 1)], 5).is_empty());
    }

    #[tokio::test]
    async fn whoever_leaves_while_a_candidate_is_made_takes_it_along() {
        let world = World::new(50);
        world.factors(ITEMS, 1.0);
        let imported = world.finish(histories(), 0.0).await.expect("imported");
        let present = |all| async { Present::collect(stream_of(all), ItemKind::Artist).await.expect("collected") };
        imported.confirm(&present(histories()).await).expect("all are there");
        assert!(imported.stored.path.exists());
        let error = imported.confirm(&present(histories().split_off(1)).await).expect_err("one has left");
        assert!(matches!(error, SparkError::Vanished { listeners: 1 }), "{error}");
        assert!(!imported.stored.path.exists());
    }

    #[tokio::test]
    async fn factors_of_another_export_with_too_few_or_too_many_items_are_refused() {
        let said = |world: &World| world.read().err().expect("refused").to_string();
        let world = World::new(10);
        world.factors(ITEMS - 1, 1.0);
        assert!(said(&world).contains("no factors of item"), "{}", said(&world));
        world.factors(ITEMS + 1, 1.0);
        assert!(said(&world).contains("is not in the export"), "{}", said(&world));
        world.factors(ITEMS, 1.0);
        world.read().expect("these are right");
        let manifest = world.folder.path().join("export/manifest.json");
        let text = fs::read_to_string(&manifest).expect("read");
        fs::write(&manifest, text.replace("\"watermark\": 7", "\"watermark\": 8")).expect("written");
        assert!(said(&world).contains("another export"), "{}", said(&world));
    }
}
