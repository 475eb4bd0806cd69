//! Models that were trained elsewhere and do not serve: files in a folder of their own, each with the ids of its
//! items and what is known of it. Lists come from the links in the file alone, so that their reasons are exact.

use echotune_engine::{Catalogue, FileError, ItemGraph, LinearModel, ModelFile, Scores, amount, best_where};
use echotune_model::{ErrorKind, Fault, ItemId, ItemKind};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use crate::mapped::{ModelFolder, ModelFolderError, Stored, open};

/// Where candidates are, below the data folder.
pub const FOLDER: &str = "models/candidates";
/// Candidates kept; the oldest go first.
pub const KEPT: usize = 16;

const IDS: &str = "ids";
const ABOUT: &str = "about";
const ID: usize = 16;

/// Why a candidate cannot be kept or read.
#[derive(Debug, Error)]
pub enum CandidateError {
    /// The folder or a file in it.
    #[error(transparent)]
    Folder(#[from] ModelFolderError),
    /// The parts do not make a file.
    #[error("the candidate cannot be written: {0}")]
    File(#[from] FileError),
    /// The file is a model, but no candidate.
    #[error("candidate {number}: {reason}")]
    Unreadable {
        /// Its number.
        number: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// There is none.
    #[error("there is no candidate {wanted}; `echotune spark candidates` lists those there are")]
    Unknown {
        /// What was asked for.
        wanted: String,
    },
}

impl CandidateError {
    /// What a caller can do about it.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Folder(_) | Self::Unreadable { .. } => ErrorKind::FailedPrecondition,
            Self::File(_) => ErrorKind::Internal,
            Self::Unknown { .. } => ErrorKind::NotFound,
        }
    }
}

impl From<CandidateError> for Fault {
    fn from(error: CandidateError) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}

/// How good lists of 10 are, by what listeners played and the model was not shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Share of what was held out that the lists have: 0 to 1.
    pub recall: f64,
    /// NDCG: 0 to 1.
    pub ndcg: f64,
}

/// What is known of a candidate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// `artist` or `track`.
    pub kind: String,
    /// What trained the factors, such as `Apache Spark 4.0.1`.
    pub trainer: String,
    /// Dimensions of the factors.
    pub rank: usize,
    /// Regularisation of the linear form, in mean eigenvalues of the factors.
    pub ridge: f64,
    /// Listeners that the factors were trained on.
    pub listeners: u64,
    /// Their items in all.
    pub rows: u64,
    /// Hybrid time of the newest event that they have seen.
    pub watermark: u64,
    /// Listeners by whom quality was judged.
    pub judged: usize,
    /// Of the candidate.
    pub quality: Quality,
    /// Of the blend that serves, fitted on the same rows, without friends, tags and sessions.
    pub blend: Quality,
}

/// A model with what it needs to make lists.
#[derive(Debug)]
pub struct Candidate {
    /// What is known of it.
    pub about: About,
    /// Which model this is.
    pub version: String,
    graph: ItemGraph,
    /// By their numbers in the graph, ascending.
    items: Vec<ItemId>,
}

/// An item of a list, and why it is there.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// Which.
    pub item: ItemId,
    /// Sum of the parts.
    pub score: f64,
    /// What each item of the history adds, strongest first.
    pub parts: Vec<(ItemId, f64)>,
}

/// The folder of candidates of a data folder.
///
/// # Errors
/// It cannot be made or read.
pub fn folder(data: &std::path::Path) -> Result<ModelFolder, CandidateError> {
    Ok(ModelFolder::open(data.join(FOLDER), KEPT)?)
}

impl Candidate {
    /// Writes links between items, whose ids ascend, to a file of their own.
    ///
    /// # Errors
    /// The parts do not fit together, or the disk refuses.
    pub fn write(
        folder: &ModelFolder,
        version: &str,
        about: &About,
        graph: ItemGraph,
        items: &[ItemId],
    ) -> Result<Stored, CandidateError> {
        let none = || echotune_engine::dense::Matrix::zeros(graph.item_count(), 0);
        let (from, to) = (none(), none());
        let model = LinearModel::new(graph, from, to).map_err(FileError::from)?;
        let ids: Vec<u8> = items.iter().flat_map(|item| *item.0.as_bytes()).collect();
        let about = serde_json::to_vec(about).expect("numbers and texts are JSON");
        let file = model.write(version, catalogue(items))?;
        let file = file.section(IDS, (items.len(), ID), &ids)?.section(ABOUT, (1, about.len()), &about)?;
        Ok(folder.write(&file)?)
    }

    /// Reads a candidate, and checks it whole. Time O(bytes).
    ///
    /// # Errors
    /// It is damaged, or no candidate.
    pub fn read(stored: &Stored) -> Result<Self, CandidateError> {
        let unreadable = |reason: String| CandidateError::Unreadable { number: stored.number, reason };
        let file = open(&stored.path)?;
        Self::of(&file).map_err(unreadable)
    }

    fn of(file: &ModelFile) -> Result<Self, String> {
        let text = |error: FileError| error.to_string();
        let ((_, width), ids) = file.array::<u8>(IDS).map_err(text)?;
        if width != ID {
            return Err(format!("its ids have {width} bytes; ids have {ID}"));
        }
        let id = |bytes: &[u8]| ItemId(Uuid::from_slice(bytes).expect("16 bytes"));
        let items: Vec<ItemId> = ids.chunks_exact(ID).map(id).collect();
        if !items.is_sorted_by(|a, b| a < b) {
            return Err("its ids do not ascend".into());
        }
        let model = LinearModel::read(file, &catalogue(&items)).map_err(text)?;
        if model.rank() > 0 {
            return Err("it has a part of low rank, which candidates do not have".into());
        }
        let (_, about) = file.array::<u8>(ABOUT).map_err(text)?;
        let about = serde_json::from_slice(&about).map_err(|cause| format!("what is known of it: {cause}"))?;
        Ok(Self { about, version: file.version().to_owned(), graph: model.into_sparse(), items })
    }

    /// Number of items.
    pub const fn item_count(&self) -> usize {
        self.items.len()
    }

    fn number(&self, item: ItemId) -> Option<u32> {
        let found = self.items.binary_search(&item).ok()?;
        u32::try_from(found).ok()
    }

    /// The `limit` best items for a history of (item, plays), best first, without what it knows. Items that
    /// the model does not know count for nothing. Time O(links of the history).
    pub fn list(&self, history: &[(ItemId, u64)], limit: usize) -> Vec<Listed> {
        let known = history.iter().filter_map(|(item, plays)| Some((self.number(*item)?, amount(*plays))));
        let mut weighted: Vec<(u32, f64)> = known.collect();
        weighted.sort_unstable_by_key(|(item, _)| *item);
        let mut scores = Scores::default();
        scores.fill(&self.graph, &weighted);
        let scored = || scores.touched().iter().map(|item| (*item, scores.get(*item)));
        let unknown = |item: u32| weighted.binary_search_by_key(&item, |(known, _)| *known).is_err();
        let best = best_where(scored, limit, |item| item, unknown);
        let targets: Vec<u32> = best.iter().map(|(item, _)| *item).collect();
        let parts = scores.parts(&self.graph, &weighted, &targets);
        let listed = |((item, _), mut parts): ((u32, f64), Vec<(u32, f64)>)| {
            parts.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            let score = parts.iter().map(|(_, part)| part).sum();
            let parts = parts.into_iter().map(|(past, part)| (self.items[past as usize], part)).collect();
            Listed { item: self.items[item as usize], score, parts }
        };
        best.into_iter().zip(parts).map(listed).collect()
    }
}

/// What identifies the items of a candidate.
fn catalogue(items: &[ItemId]) -> Catalogue {
    Catalogue::of(items.iter().map(|item| *item.0.as_bytes()))
}

/// The candidate of a number, or the newest of a kind.
///
/// # Errors
/// There is none, or it cannot be read.
pub fn find(folder: &ModelFolder, number: Option<u64>, kind: ItemKind) -> Result<Candidate, CandidateError> {
    for stored in folder.list()? {
        if number.is_none_or(|wanted| wanted == stored.number) {
            let candidate = Candidate::read(&stored)?;
            if candidate.about.kind == kind.name() {
                return Ok(candidate);
            }
        }
    }
    let kind = kind.name();
    let wanted = number.map_or_else(|| format!("for {kind}s"), |number| format!("{number} for {kind}s"));
    Err(CandidateError::Unknown { wanted })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> (About, ItemGraph, Vec<ItemId>) {
        let quality = Quality { recall: 0.5, ndcg: 0.25 };
        let about = About {
            kind: "track".into(),
            trainer: "a test".into(),
            rank: 2,
            ridge: 0.1,
            listeners: 3,
            rows: 9,
            watermark: 7,
            judged: 1,
            quality,
            blend: quality,
        };
        let mut items: Vec<ItemId> = (0..4).map(|n| ItemId::track("artist", &n.to_string())).collect();
        items.sort_unstable();
        let links = [vec![(1, 0.5), (2, -0.25)], vec![(0, 0.5), (3, 1.0)], vec![(3, 0.125)], vec![]];
        (about, ItemGraph::from_links(&links).expect("links"), items)
    }

    #[test]
    fn a_candidate_is_read_as_it_was_written_and_its_lists_add_up() {
        let data = tempfile::tempdir().expect("folder");
        let folder = folder(data.path()).expect("made");
        let (about, graph, items) = some();
        assert!(matches!(find(&folder, None, ItemKind::Track), Err(CandidateError::Unknown { .. })));
        let stored = Candidate::write(&folder, "v", &about, graph, &items).expect("written");
        let read = find(&folder, Some(stored.number), ItemKind::Track).expect("found");
        assert_eq!((&read.about, read.version.as_str(), read.item_count()), (&about, "v", 4));
        assert!(find(&folder, None, ItemKind::Artist).is_err() && find(&folder, Some(9), ItemKind::Track).is_err());
        let history = [(items[0], 1), (items[2], 9), (ItemId::artist("nobody"), 5)];
        let list = read.list(&history, 10);
        assert_eq!(list.iter().map(|one| one.item).collect::<Vec<_>>(), [items[1], items[3]]);
        for one in &list {
            let sum: f64 = one.parts.iter().map(|(_, part)| part).sum();
            assert!((sum - one.score).abs() < 1e-12 && one.parts.iter().all(|(past, _)| *past != one.item));
        }
        assert!((list[0].score - 0.5 * amount(1)).abs() < 1e-9 && (list[1].score - 0.125 * amount(9)).abs() < 1e-9);
        assert_eq!((read.list(&history, 1).len(), read.list(&[], 5).len()), (1, 0));
    }

    #[test]
    fn a_file_whose_items_are_not_in_order_is_no_candidate() {
        let data = tempfile::tempdir().expect("folder");
        let folder = folder(data.path()).expect("made");
        let (about, graph, mut items) = some();
        items.swap(0, 1);
        let stored = Candidate::write(&folder, "v", &about, graph, &items).expect("written");
        let error = Candidate::read(&stored).expect_err("refused").to_string();
        assert!(error.contains("candidate 1: its ids do not ascend"), "{error}");
    }
}
