//! What is told of the fitted model that serves: its card, and its links as an ONNX graph.

use echotune_engine::{
    LinearModel,
    card::{Figure, ModelCard},
    dense::Matrix,
    onnx::{self, OnnxOptions},
};
use echotune_model::{ErrorKind, Fault, ItemKind, Release};

use crate::model::Model;

fn no_fit() -> Fault {
    Fault::new(ErrorKind::FailedPrecondition, "no model of this kind is fitted yet; ask again when there are listens")
}

/// The card of a model that serves lists of a kind, in Markdown.
pub(super) fn card(model: &Model, kind: ItemKind, release: &Release) -> String {
    let (links, facts) = (model.links(kind), model.facts(kind));
    let items = u32::try_from(links.graph().item_count()).unwrap_or(u32::MAX);
    let kind_name = match kind {
        ItemKind::Artist => "artists",
        ItemKind::Track => "tracks",
    };
    let training = release.training.as_ref();
    let figures = training.into_iter().flat_map(|training| &training.measures).flat_map(|one| {
        let figure = |part: &str, value| Figure {
            metric: one.metric.clone(),
            part: part.to_owned(),
            value,
            margin: None,
            listeners: one.listeners,
        };
        [figure("test, by this recipe", one.candidate), figure("test, by the one before", one.serving)]
    });
    let found = training.map_or_else(
        || "built in: its options were chosen on HetRec 2011 Last.fm".to_owned(),
        |one| format!("found among {} recipes on the platform's own histories, seed {}", one.trials, one.seed),
    );
    let card = ModelCard {
        name: format!("EchoTune lists of {kind_name}"),
        version: model.version(),
        fit_seconds: model.fit_time.as_secs_f64(),
        data: format!("Histories of the platform's listeners that are not private. The recipe is {found}."),
        listeners: facts.listeners,
        items: items.into(),
        pairs: facts.pairs,
        unknown_items: facts.unknown_items(),
        links: (0..items).map(|item| links.graph().row(item).len() as u64).sum(),
        options: model.release.recipe.options().map(|(name, value)| (name.to_owned(), value.to_string())).collect(),
        figures: figures.collect(),
        limits: vec!["Friends and popularity are added when a list is made and are not in the links.".to_owned()],
        ..ModelCard::default()
    };
    card.to_markdown()
}

/// The links of a model that serves lists of a kind, as an ONNX file. Time and memory O(items²).
///
/// # Errors
/// Nothing is fitted, or there are too many items.
pub(super) fn onnx(model: &Model, kind: ItemKind) -> Result<Vec<u8>, Fault> {
    let graph = model.links(kind).graph().clone();
    let items = graph.item_count();
    if items == 0 {
        return Err(no_fit());
    }
    let linear = LinearModel::new(graph, Matrix::zeros(items, 0), Matrix::zeros(items, 0));
    let linear = linear.map_err(|cause| Fault::new(ErrorKind::Internal, cause.to_string()))?;
    let options = OnnxOptions { version: model.version(), list: 0 };
    onnx::export(&linear, &options).map_err(|cause| Fault::new(ErrorKind::FailedPrecondition, cause.to_string()))
}
