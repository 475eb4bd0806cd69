//! A model as a file, and back: for each kind the ids of its items, its graph and what friends count.

use std::{sync::Arc, time::Duration};

use echotune_engine::{
    Catalogue, FileError, FileWriter, ItemGraph, ModelFile,
    terms::social::{Social, SocialScales},
};
use echotune_model::{ItemId, ItemKind};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use super::{Card, Depth, Links, Model, NONE};
use crate::{
    releases::{Facts, Serving},
    shelf::{Prior, Shelf},
    state::State,
};

/// How files tell the model of a platform.
const KIND: &str = "recommendations";
/// The section that tells of the fit, as JSON.
const ABOUT: &str = "about";
/// The two kinds as sections are named.
const NAMES: [&str; 2] = ["artists", "tracks"];

/// Ids of the items of both graphs, in the order of their numbers.
pub(crate) type Ids = [Vec<ItemId>; 2];

/// Why a file is not the model of this view.
#[derive(Debug, Error)]
pub(crate) enum OtherModel {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("its section '{ABOUT}' cannot be read: {0}")]
    About(#[from] serde_json::Error),
    #[error("its items are not in the order of their ids")]
    Order,
    #[error("it was fitted by release '{found}' and release '{serving}' serves")]
    Release { found: String, serving: String },
    #[error("it was fitted at revision {found} and the store is at {held}: the store is older, or another")]
    Later { found: u64, held: u64 },
    #[error("of its {items} items {known} are known here: it was fitted on other histories")]
    Items { items: usize, known: usize },
}

/// What a file tells of its fit.
#[derive(Debug, Serialize, Deserialize)]
struct About {
    revision: u64,
    blends: [bool; 2],
    card: Card,
    facts: [Facts; 2],
    fit_time: Duration,
}

/// What is written beside the arrays that the model lends.
pub(crate) struct Parts {
    ids: [Vec<u8>; 2],
    about: Vec<u8>,
    scales: [Option<SocialScales>; 2],
}

impl Parts {
    /// Of a model and the ids of its items.
    ///
    /// # Errors
    /// The card is no JSON, which is a fault of its type.
    pub(crate) fn of(model: &Model, ids: &Ids) -> Result<Self, serde_json::Error> {
        let bytes = |ids: &Vec<ItemId>| ids.iter().flat_map(|id| *id.0.as_bytes()).collect();
        let blends = [0, 1].map(|kind: usize| model.links[kind].is_blend);
        let (card, facts) = (Card::clone(&model.card), model.facts.each_ref().map(|facts| Facts::clone(facts)));
        let about = About { revision: model.revision, blends, card, facts, fit_time: model.fit_time };
        Ok(Self {
            ids: ids.each_ref().map(bytes),
            about: serde_json::to_vec(&about)?,
            scales: [0, 1].map(|kind: usize| model.links[kind].social.as_ref().map(Social::scales)),
        })
    }

    /// The model as a file that lends its arrays.
    pub(crate) fn file<'a>(&'a self, model: &'a Model) -> Result<FileWriter<'a>, FileError> {
        let catalogue = catalogue(&self.ids[0], &self.ids[1]);
        let file = FileWriter::new(KIND, &model.version(), catalogue)?;
        let mut file = file.section(ABOUT, (self.about.len(), 1), &self.about)?;
        for (kind, name) in NAMES.into_iter().enumerate() {
            let (links, ids) = (&model.links[kind], &self.ids[kind]);
            file = file.section(&format!("{name}.ids"), (ids.len() / ID, ID), ids)?;
            file = links.graph.write_as(name, file)?;
            if let (Some(social), Some(scales)) = (&links.social, &self.scales[kind]) {
                file = social.write_as(name, scales, file)?;
            }
        }
        Ok(file)
    }
}

/// Bytes of an id.
const ID: usize = size_of::<Uuid>();

fn catalogue(artists: &[u8], tracks: &[u8]) -> Catalogue {
    Catalogue::of(artists.chunks_exact(ID).chain(tracks.chunks_exact(ID)))
}

impl Model {
    /// The same model, with what a file of it lends instead of memory of its own.
    pub(crate) fn lent_by(self, file: &ModelFile) -> Result<Self, FileError> {
        let mut links = self.links;
        for (kind, name) in NAMES.into_iter().enumerate() {
            let graph = ItemGraph::read_as(name, file)?;
            let social = Social::read_as(name, graph.item_count(), file)?;
            let before = &links[kind];
            let (places, items, is_blend) = (before.places.clone(), before.items.clone(), before.is_blend);
            links[kind] = Arc::new(Links { graph, places, items, is_blend, social });
        }
        Ok(Self { links, ..self })
    }

    /// The model of a file, its items at their places on the shelves of a view, and those left out that are
    /// there no more. Popularity is that of the view at `now_ms`. Time O(bytes).
    pub(crate) fn read(
        file: &ModelFile,
        state: &State,
        release: &Arc<Serving>,
        now_ms: i64,
    ) -> Result<Self, OtherModel> {
        file.expect_kind(KIND)?;
        let (_, about) = file.array::<u8>(ABOUT)?;
        let About { revision, blends, card, facts, fit_time } = serde_json::from_slice(&about)?;
        if card.release != release.version {
            return Err(OtherModel::Release { found: card.release, serving: release.version.clone() });
        }
        if revision > state.revision {
            return Err(OtherModel::Later { found: revision, held: state.revision });
        }
        let (_, artists) = file.array::<u8>("artists.ids")?;
        let (_, tracks) = file.array::<u8>("tracks.ids")?;
        file.expect_items(&catalogue(&artists, &tracks))?;
        let links = |kind: usize, ids: &[u8], shelf: &Shelf| {
            let ids: Vec<ItemId> =
                ids.chunks_exact(ID).filter_map(|id| Uuid::from_slice(id).ok()).map(ItemId).collect();
            Links::read(file, NAMES[kind], &ids, shelf, blends[kind])
        };
        let links = [links(0, &artists, &state.artists)?, links(1, &tracks, &state.tracks)?];
        let known = links.iter().map(|links| links.known()).sum::<usize>();
        let items = links.iter().map(|links| links.places.len()).sum::<usize>();
        // At one revision all are known, and no others; later most of them are.
        let public = || [&state.artists, &state.tracks].map(Shelf::public).iter().map(Vec::len).sum::<usize>();
        if known * 2 < items || (revision == state.revision && (known < items || public() != items)) {
            return Err(OtherModel::Items { items, known });
        }
        let priors = state.warmth(now_ms).map(|warmth| Arc::new(Prior::new(&warmth)));
        let (links, facts) = (links.map(Arc::new), facts.map(Arc::new));
        let (depth, release, card) = (Some(Depth::Whole), Arc::clone(release), Arc::new(card));
        Ok(Self { links, priors, depth, revision, release, facts, fit_time, card })
    }

    /// Whether this is more than a quick fit would give: a blend that knows nine of ten items, each kind by itself.
    pub(crate) fn is_blend_of_most(&self, items: &[Vec<(ItemId, u32)>; 2]) -> bool {
        let kinds = || [ItemKind::Artist, ItemKind::Track].into_iter().zip(items);
        let most = |(kind, items): (ItemKind, &Vec<(ItemId, u32)>)| {
            let known = items.iter().filter(|(_, place)| self.links(kind).item(*place).is_some()).count();
            known * 10 >= items.len() * 9
        };
        self.links.iter().any(|links| links.is_blend) && kinds().all(most)
    }
}

impl Links {
    fn read(file: &ModelFile, name: &str, ids: &[ItemId], shelf: &Shelf, is_blend: bool) -> Result<Self, OtherModel> {
        if !ids.is_sorted_by(|a, b| a < b) {
            return Err(OtherModel::Order);
        }
        let graph = ItemGraph::read_as(name, file)?;
        if graph.item_count() != ids.len() {
            return Err(OtherModel::Items { items: graph.item_count(), known: ids.len() });
        }
        let places: Vec<u32> = ids.iter().map(|id| shelf.get(*id).unwrap_or(NONE)).collect();
        let mut items = vec![NONE; shelf.entries.len()];
        for (item, place) in (0..).zip(&places).filter(|(_, place)| **place != NONE) {
            items[*place as usize] = item;
        }
        let social = Social::read_as(name, ids.len(), file)?;
        Ok(Self { graph, places, items, is_blend, social })
    }

    /// How many of its items have a place on the shelf.
    fn known(&self) -> usize {
        self.places.iter().filter(|place| **place != NONE).count()
    }
}
