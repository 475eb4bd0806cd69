//! Fits a graph filter on a generated world and writes it to a folder in every way that it leaves the
//! program: `linear.model`, `linear.onnx` and `MODEL_CARD.md`, with `cases.json`: histories, our scores and
//! our reasons, for others to compare with.

use std::{fs, path::PathBuf, sync::Arc, time::Instant};

use anyhow::{Context as _, ensure};
use echotune_engine::{
    Catalogue, Interactions, LinearModel, ModelFile, Random, amount, best,
    card::ModelCard,
    compile::{CompileOptions, compile},
    filter::{FilterOptions, GraphFilter},
    onnx::{OnnxOptions, export},
};
use serde_json::json;

const USERS: usize = 1_200;
const ITEMS: usize = 600;
const GENRES: usize = 12;
const RANK: usize = 24;
const LINKS: usize = 60;
const CASES: usize = 64;
const LIST: usize = 20;

fn main() -> anyhow::Result<()> {
    let folder = PathBuf::from(std::env::args().nth(1).context("usage: export FOLDER")?);
    fs::create_dir_all(&folder)?;
    let world = world();
    let start = Instant::now();
    let filter = GraphFilter::fit(&world, FilterOptions { rank: RANK, ..FilterOptions::default() });
    let add_rows = |items: std::ops::Range<usize>, out: &mut [f32]| filter.add_rows(items, 1.0, out);
    let links = CompileOptions { links: LINKS };
    let model = compile(ITEMS, filter.singular().vectors.clone(), links, &add_rows, &|_| {});
    let fit_seconds = start.elapsed().as_secs_f64();
    let catalogue = Catalogue::of((0..ITEMS).map(|item| format!("item {item}")));
    let path = folder.join("linear.model");
    fs::write(&path, model.write("example", catalogue)?.to_bytes())?;
    // What others are shown is the model as it is read again.
    let read = LinearModel::read(&ModelFile::open(Arc::new(fs::read(&path)?))?, &catalogue)?;
    ensure!(read == model, "a model that is read is the one that was written");
    let card = ModelCard {
        name: "graph filter".into(),
        version: "example".into(),
        fit_seconds,
        data: "A generated world of listeners who like one or two of twelve genres.".into(),
        options: [("rank", RANK), ("links", LINKS)].map(|(name, value)| (name.into(), value.to_string())).to_vec(),
        ..ModelCard::of(&read, &world)
    };
    fs::write(folder.join("MODEL_CARD.md"), card.to_markdown())?;
    let options = OnnxOptions { version: "example".into(), list: LIST };
    fs::write(folder.join("linear.onnx"), export(&read, &options)?)?;
    fs::write(folder.join("cases.json"), cases(&read, &world).to_string())?;
    Ok(())
}

/// Listeners who like one or two genres; the first items of a genre are its hits.
fn world() -> Interactions {
    let mut random = Random::new(5);
    let rows = (0..USERS).map(|_| {
        let genres = [random.below(GENRES), random.below(GENRES)];
        let length = 3 + random.below(30);
        let one = |_| {
            let genre = if random.below(8) == 0 { random.below(GENRES) } else { genres[random.below(2)] };
            let hits = 1 + random.below(ITEMS / GENRES);
            let item = genre * (ITEMS / GENRES) + random.below(hits);
            u32::try_from(item).expect("below the items")
        };
        (0..length).map(one).collect::<Vec<u32>>()
    });
    Interactions::from_rows(rows.collect::<Vec<_>>(), ITEMS)
}

/// Histories with their scores, the first of their lists, and the parts of the first item's score.
fn cases(model: &LinearModel, world: &Interactions) -> serde_json::Value {
    let mut scores = Vec::new();
    let case = |user| {
        // Plays of all sizes, as they count in a history.
        let plays = world.row(user).iter().zip(1..);
        let history: Vec<(u32, f64)> = plays.map(|(item, plays)| (*item, amount(plays))).collect();
        model.score_into(&history, &mut scores);
        let scored = scores.iter().zip(0..).map(|(score, item)| (item, f64::from(*score))).collect();
        let list: Vec<u32> = best(scored, LIST).into_iter().map(|(item, _)| item).collect();
        let part = |(item, weight): &(u32, f64)| weight * f64::from(model.weight(*item, list[0]));
        let parts: Vec<f64> = history.iter().map(part).collect();
        json!({ "history": history, "scores": scores, "list": list, "parts": parts })
    };
    json!({ "items": ITEMS, "cases": (0..CASES).map(case).collect::<Vec<_>>() })
}
