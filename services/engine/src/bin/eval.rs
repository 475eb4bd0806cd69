//! Measures the models on public listening data: `echotune-eval hetrec PATH`.
//!
//! Protocol: per user a random 8:1:1 split into training, validation and test; five seeds; the whole
//! catalogue is ranked without the training items; relevance is binary. Recall and NDCG as in Järvelin
//! and Kekäläinen (2002), averaged over the users with test items.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, bail};
use clap::{Parser, ValueEnum};
use echotune_engine::{GraphOptions, Interactions, ItemGraph, Scores, amount, best};
use serde_json::{Value, json};

#[derive(Parser)]
#[command(name = "echotune-eval", about = "Measures the models on public listening data")]
struct Arguments {
    /// The data set.
    #[arg(value_enum)]
    set: Set,
    /// Folder that holds its files.
    data: PathBuf,
    /// Random splits.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    seeds: u64,
    /// How to print the result.
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Clone, Copy, ValueEnum)]
enum Set {
    /// HetRec 2011 Last.fm: user_artists.dat.
    Hetrec,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// Per user: (item, plays).
struct Data {
    users: Vec<Vec<(u32, u64)>>,
    items: usize,
}

fn read(folder: &Path) -> anyhow::Result<Data> {
    let path = folder.join("user_artists.dat");
    let text = fs::read_to_string(&path)
        .with_context(|| format!("{} cannot be read; PATH names the folder that holds it", path.display()))?;
    let mut lines = text.lines().enumerate();
    match lines.next() {
        Some((_, header)) if header.trim_end() == "userID\tartistID\tweight" => {}
        other => bail!(
            "{} line 1: expected the header userID, artistID, weight, found '{}'",
            path.display(),
            other.map_or("", |(_, line)| line)
        ),
    }
    let (mut users, mut items) = (BTreeMap::<u64, Vec<(u32, u64)>>::new(), BTreeMap::<u64, u32>::new());
    for (number, line) in lines {
        let fields: Option<Vec<u64>> = line.split('\t').map(|field| field.trim_end().parse().ok()).collect();
        let Some(&[user, item, plays]) = fields.as_deref() else {
            bail!("{} line {}: expected three numbers, found '{line}'", path.display(), number + 1);
        };
        let next = u32::try_from(items.len()).context("more than 2^32 items")?;
        let item = *items.entry(item).or_insert(next);
        users.entry(user).or_default().push((item, plays));
    }
    if users.is_empty() {
        bail!("{} holds no rows", path.display());
    }
    Ok(Data { users: users.into_values().collect(), items: items.len() })
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same splits on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound as u64).expect("below a length")
    }
}

/// One user's history in three parts.
struct Split {
    train: Vec<(u32, u64)>,
    validation: Vec<u32>,
    test: Vec<u32>,
}

fn split(data: &Data, seed: u64) -> Vec<Split> {
    let mut random = Random(seed);
    let cut = |mut row: Vec<(u32, u64)>| {
        for at in (1..row.len()).rev() {
            row.swap(at, random.below(at + 1));
        }
        let tenth = (row.len() + 5) / 10;
        let held = |row: &mut Vec<(u32, u64)>| row.split_off(row.len() - tenth).iter().map(|(item, _)| *item).collect();
        let (test, validation) = (held(&mut row), held(&mut row));
        row.sort_unstable();
        Split { train: row, validation, test }
    };
    data.users.iter().cloned().map(cut).collect()
}

/// Recall@10, Recall@20, NDCG@10, NDCG@20.
type Quality = [f64; 4];

#[expect(clippy::cast_precision_loss, reason = "ranks are small")]
fn discount(rank: usize) -> f64 {
    1.0 / (rank as f64 + 2.0).log2()
}

#[expect(clippy::cast_precision_loss, reason = "counts are small")]
fn quality(list: &[u32], relevant: &[u32]) -> Quality {
    let at = |k: usize| {
        let hits: Vec<usize> =
            list.iter().take(k).enumerate().filter(|(_, item)| relevant.contains(item)).map(|(rank, _)| rank).collect();
        let gain: f64 = hits.iter().map(|rank| discount(*rank)).sum();
        let ideal: f64 = (0..relevant.len().min(k)).map(discount).sum();
        (hits.len() as f64 / relevant.len() as f64, gain / ideal)
    };
    let ((r10, n10), (r20, n20)) = (at(10), at(20));
    [r10, r20, n10, n20]
}

/// The mean quality of the lists that `rank` makes of training histories.
#[expect(clippy::cast_precision_loss, reason = "counts of users are small")]
fn measure(
    splits: &[Split],
    held: impl Fn(&Split) -> &[u32],
    mut rank: impl FnMut(&Split) -> Vec<(u32, f64)>,
) -> Quality {
    let mut sum = Quality::default();
    let mut users = 0_usize;
    for one in splits.iter().filter(|one| !held(one).is_empty()) {
        let mut scored = rank(one);
        scored.retain(|(item, _)| one.train.binary_search_by_key(item, |(known, _)| *known).is_err());
        let list: Vec<u32> = best(scored, 20).into_iter().map(|(item, _)| item).collect();
        let found = quality(&list, held(one));
        sum.iter_mut().zip(found).for_each(|(sum, one)| *sum += one);
        users += 1;
    }
    sum.map(|sum| sum / users.max(1) as f64)
}

fn interactions(data: &Data, splits: &[Split]) -> Interactions {
    Interactions::from_rows(splits.iter().map(|one| one.train.iter().map(|(item, _)| *item)), data.items)
}

type Held = fn(&Split) -> &[u32];
/// The weight of so many plays.
type Weigh = fn(u64) -> f64;

fn popularity(data: &Data, splits: &[Split], held: Held) -> (Quality, f64) {
    let start = Instant::now();
    let scored: Vec<(u32, f64)> =
        (0..).zip(interactions(data, splits).item_degrees()).map(|(item, n)| (item, f64::from(n))).collect();
    let seconds = start.elapsed().as_secs_f64();
    (measure(splits, held, |_| scored.clone()), seconds)
}

fn graph(data: &Data, splits: &[Split], held: Held, options: GraphOptions, weigh: Weigh) -> (Quality, f64) {
    let start = Instant::now();
    let graph = ItemGraph::fit(&interactions(data, splits), options);
    let seconds = start.elapsed().as_secs_f64();
    let mut scores = Scores::default();
    let quality = measure(splits, held, |one| {
        let history: Vec<(u32, f64)> = one.train.iter().map(|(item, plays)| (*item, weigh(*plays))).collect();
        scores.fill(&graph, &history);
        scores.touched().iter().map(|item| (*item, scores.get(*item))).collect()
    });
    (quality, seconds)
}

/// Mean and standard deviation over the seeds.
#[expect(clippy::cast_precision_loss, reason = "there are few seeds")]
fn summary(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    (mean, variance.sqrt())
}

const METRICS: [&str; 5] = ["recall@10", "recall@20", "ndcg@10", "ndcg@20", "fit_seconds"];

fn report(rows: &[(String, Vec<(Quality, f64)>)], output: Output) {
    let mut models = Vec::new();
    if output == Output::Table {
        print!("{:<14}", "model");
        METRICS.iter().for_each(|metric| print!(" {metric:>17}"));
        println!();
    }
    for (model, runs) in rows {
        let mut described = json!({ "model": model });
        if output == Output::Table {
            print!("{model:<14}");
        }
        for (at, metric) in METRICS.iter().enumerate() {
            let values: Vec<f64> =
                runs.iter().map(|(quality, seconds)| quality.get(at).copied().unwrap_or(*seconds)).collect();
            let (mean, std) = summary(&values);
            described[metric] = json!({ "mean": mean, "std": std, "by_seed": values });
            if output == Output::Table {
                print!("   {mean:>7.4} ±{std:.4}");
            }
        }
        if output == Output::Table {
            println!();
        }
        models.push(described);
    }
    if output == Output::Json {
        println!("{}", Value::Array(models));
    }
}

const VALIDATION: Held = |one| &one.validation;
const TEST: Held = |one| &one.test;

/// The normalisation with the best mean NDCG@10 on the validation parts.
fn choose(data: &Data, splits: &[Vec<Split>]) -> GraphOptions {
    let mut best = (f64::NEG_INFINITY, GraphOptions::default());
    for user in [0.5, 1.0] {
        for source in [0.5, 0.75, 1.0] {
            for target in [0.0, 0.25, 0.5] {
                let options = GraphOptions { user, source, target, ..GraphOptions::default() };
                let runs = splits.iter().map(|one| graph(data, one, VALIDATION, options, amount).0[2]);
                let (mean, _) = summary(&runs.collect::<Vec<_>>());
                if mean > best.0 {
                    best = (mean, options);
                }
            }
        }
    }
    best.1
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let Set::Hetrec = arguments.set;
    let data = read(&arguments.data)?;
    let splits: Vec<Vec<Split>> = (1..=arguments.seeds).map(|seed| split(&data, seed)).collect();
    let options = choose(&data, &splits);
    let served = options == GraphOptions::default();
    let popular = splits.iter().map(|one| popularity(&data, one, TEST)).collect();
    let linked = splits.iter().map(|one| graph(&data, one, TEST, options, amount)).collect();
    report(&[("popularity".into(), popular), ("item-graph".into(), linked)], arguments.output);
    eprintln!("chosen on the validation parts: {options:?}; {}", if served { "as served" } else { "NOT as served" });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_keeps_every_item_once_in_eight_to_one_to_one_and_is_repeatable() {
        let data = Data { users: vec![(0..50).map(|item| (item, 1)).collect()], items: 50 };
        let parts = |seed| split(&data, seed).remove(0);
        let one = parts(1);
        assert_eq!((one.train.len(), one.validation.len(), one.test.len()), (40, 5, 5));
        let mut all: Vec<u32> = one.train.iter().map(|(item, _)| *item).collect();
        all.extend(one.validation.iter().chain(&one.test));
        all.sort_unstable();
        assert_eq!(all, (0..50).collect::<Vec<_>>());
        assert_eq!(parts(1).test, one.test);
        assert_ne!(parts(2).test, one.test);
    }

    #[test]
    fn quality_is_that_of_the_definition() {
        let [recall, _, gain, _] = quality(&[7, 1, 8], &[1, 2]);
        assert!((recall - 0.5).abs() < 1e-12);
        assert!((gain - (1.0 / 3_f64.log2()) / (1.0 + 1.0 / 3_f64.log2())).abs() < 1e-12);
        assert_eq!(quality(&[1, 2], &[1, 2]), [1.0; 4]);
    }
}
