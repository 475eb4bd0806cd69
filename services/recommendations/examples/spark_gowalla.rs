//! Factors of Spark's MLlib beside our iALS on Gowalla: writes the interactions as an export, and judges what was
//! trained on it. Run by `cargo xtask spark --data DIR`.
//!
//! `write TRAIN train|whole FOLDER` and `judge TRAIN TEST FACTORS_OF_TRAIN FACTORS_OF_WHOLE`; what is of train is
//! without the validation part.
#![allow(clippy::print_stdout, reason = "a program that measures")]

use std::{collections::HashMap, fs::File, io::BufReader, path::Path};

use anyhow::{Context as _, bail};
use echotune_api::{Histories, KnownItem, ListenerHistory};
use echotune_engine::{
    Interactions,
    dense::Matrix,
    evaluation::{
        Dataset, EachUser, Events, Fold, IalsModel, LinearScorer, Metrics, Model as _, Names, Scorer, carved, measure,
        rank, read_interactions,
    },
    factors::ItemFactors,
    ials::{FoldIn, Options},
};
use echotune_model::{Hlc, ItemId, ItemKind, UserId};
use echotune_recommendations::spark::{Export, ExportOptions, read_factors};
use futures::{StreamExt as _, stream};
use uuid::Uuid;

/// Length of the lists.
const AT: usize = 20;
/// Listeners by whom is chosen at the most.
const CHOOSERS: usize = 2_000;
/// How far apart the two may be.
const APART: f64 = 0.03;

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["write", train, part, folder] => write(&dataset(train, None)?, part, Path::new(folder)),
        ["judge", train, test, chosen, factors] => judge(&dataset(train, Some(test))?, chosen, factors),
        _ => bail!("usage: spark_gowalla write TRAIN train|whole FOLDER | judge TRAIN TEST FACTORS FACTORS"),
    }
}

/// The split that both commands see: the validation part depends on the training file alone.
fn dataset(train: &str, test: Option<&str>) -> anyhow::Result<Dataset> {
    let (mut users, mut items) = (Names::default(), Names::default());
    let mut read = |path: &str| -> anyhow::Result<_> {
        let file = BufReader::new(File::open(path).with_context(|| path.to_owned())?);
        Ok(read_interactions(file, path, None, &mut users, &mut items)?.rows)
    };
    let rows = read(train)?;
    let test = test.map(&mut read).transpose()?.unwrap_or_default();
    Ok(carved(&Events { users, items, rows, timed: false }, &test, 1))
}

fn item_id(set: &Dataset, item: u32) -> ItemId {
    ItemId::artist(set.items.name(item).unwrap_or_default())
}

fn write(set: &Dataset, part: &str, folder: &Path) -> anyhow::Result<()> {
    let known = if part == "whole" { &set.whole } else { &set.train };
    let history = |user: usize| ListenerHistory {
        user: UserId(Uuid::from_u128(user as u128 + 1)),
        kind: ItemKind::Artist,
        items: known
            .row(user)
            .iter()
            .map(|item| KnownItem { item: item_id(set, *item), plays: 1, last_listened_at_ms: 0 })
            .collect(),
    };
    let (listeners, rows) = (known.user_count() as u64, known.len() as u64);
    let of = Histories { watermark: Hlc(1), listeners, rows, parts: stream::empty().boxed() };
    let mut export = Export::begin(folder, ExportOptions { held_out_percent: 0, ..ExportOptions::default() }, &of)?;
    (0..known.user_count()).try_for_each(|user| export.add(&history(user)))?;
    let manifest = export.finish()?;
    println!("{part}: {} rows of {} listeners in {}", manifest.rows, manifest.listeners, folder.display());
    Ok(())
}

/// Factors by the numbers of the data set; zero for items that nobody knew.
fn factors(set: &Dataset, folder: &str) -> anyhow::Result<Matrix> {
    let (file, ids, found) = read_factors(Path::new(folder))?;
    let places: HashMap<ItemId, usize> = ids.into_iter().zip(0..).collect();
    let mut factors = Matrix::zeros(set.items.len(), file.rank);
    for item in 0..factors.rows() {
        if let Some(place) = places.get(&item_id(set, u32::try_from(item)?)) {
            factors.row_mut(item).copy_from_slice(found.row(*place));
        }
    }
    Ok(factors)
}

fn quality(fold: &Fold<'_>, scorer: &dyn Scorer) -> Metrics {
    measure(fold, &[AT], &rank(fold, AT, scorer, &|_| {}))
}

/// Quality of listeners folded in with full weights.
fn folded(fold: &Fold<'_>, factors: &Matrix, options: &Options) -> anyhow::Result<Metrics> {
    let model = FoldIn::new(factors, options)?;
    let known = fold.training.interactions;
    let score = |user: usize, scores: &mut Vec<f32>| {
        let history: Vec<(u32, f32)> = known.row(user).iter().map(|item| (*item, 1.0)).collect();
        scores.clear();
        if let Ok(person) = model.fold(&history) {
            let person = person.factors();
            scores.extend((0..factors.rows()).map(|item| echotune_engine::dense::dot(&person, factors.row(item))));
        }
    };
    Ok(quality(fold, &EachUser(score)))
}

/// Quality of the linear form, whole.
fn linear(fold: &Fold<'_>, factors: &ItemFactors, ridge: f64) -> Metrics {
    let histories = fold.training.interactions.reweighted(|_, _, _| 1.0);
    quality(fold, &LinearScorer { model: factors.linear(ridge), histories })
}

/// Quality of the linear form as it serves: cut to its strongest links.
fn served(fold: &Fold<'_>, factors: &ItemFactors, ridge: f64) -> anyhow::Result<Metrics> {
    let known: &Interactions = fold.training.interactions;
    let graph = factors.compiled(ridge, 256, known, &|_| {});
    let none = || Matrix::zeros(graph.item_count(), 0);
    let (from, to) = (none(), none());
    let model = echotune_engine::LinearModel::new(graph, from, to)?;
    Ok(quality(fold, &LinearScorer { model, histories: known.reweighted(|_, _, _| 1.0) }))
}

fn judge(set: &Dataset, chosen: &str, final_: &str) -> anyhow::Result<()> {
    let (tuning, testing) = (set.tuning().sampled(CHOOSERS, 1), set.testing());
    let (of_train, of_whole) = (factors(set, chosen)?, factors(set, final_)?);
    let mean = of_whole.as_slice().iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / of_whole.columns() as f64;
    let base = Options { factors: of_whole.columns(), ..Options::default() };
    let mut best = (f64::NEG_INFINITY, base);
    for unobserved in [0.003, 0.01, 0.03] {
        // In mean eigenvalues of the factors, as their size is that of another loss.
        for share in [0.001, 0.003, 0.01, 0.03, 0.1] {
            let entries = unobserved * set.items.len() as f64 + 30.0;
            let regularization = (share * unobserved * mean / entries).clamp(1e-6, 1e6);
            let options = Options { unobserved, regularization, ..base };
            let found = folded(&tuning, &of_train, &options)?.ndcg[0];
            if found > best.0 {
                best = (found, options);
            }
        }
    }
    let train_form = ItemFactors::new(&of_train)?;
    let ridges = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0];
    let by = |ridge: f64| linear(&tuning, &train_form, ridge).ndcg[0];
    let ridge =
        ridges.into_iter().map(|ridge| (ridge, by(ridge))).max_by(|a, b| a.1.total_cmp(&b.1)).map_or(0.1, |x| x.0);
    let form = ItemFactors::new(&of_whole)?;
    let ials = IalsModel { name: "ials", factors: of_whole.columns() };
    let settings = ials.choose(&tuning, AT, 1, &|_| {})?;
    let ours = quality(&testing, ials.fit(&testing.training, &settings, 1, &|_| {})?.as_ref());
    let theirs = folded(&testing, &of_whole, &best.1)?;
    println!("folded in by {:?}; linear form with a ridge of {ridge}", best.1);
    let tell = |name: &str, found: &Metrics| {
        println!("{name:<28} R@20 {:.4}  N@20 {:.4}", found.recall[0], found.ndcg[0]);
    };
    tell("our iALS", &ours);
    tell("MLlib, folded in", &theirs);
    tell("MLlib, linear", &linear(&testing, &form, ridge));
    tell("MLlib, linear, as it serves", &served(&testing, &form, ridge)?);
    for (name, ours, theirs) in [("recall", ours.recall[0], theirs.recall[0]), ("NDCG", ours.ndcg[0], theirs.ndcg[0])] {
        let apart = theirs / ours - 1.0;
        println!("{name}: MLlib is {:+.2} % from ours", 100.0 * apart);
        if apart.abs() > APART {
            bail!("{name} of MLlib and ours are more than {} % apart", 100.0 * APART);
        }
    }
    Ok(())
}
