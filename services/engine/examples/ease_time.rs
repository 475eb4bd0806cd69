//! Measures the closed forms on a file of listening data: `ease_time TRAIN [TEST] [OPTION=VALUE]…`, one line
//! of JSON. TRAIN and TEST are lines of numbers: `user item item…`; or with a header line, `user item weight`
//! or `user item` (with `pairs=1` without a header). With TEST, recall@20 and NDCG@20 of the users with test
//! items, the whole catalogue ranked without what they know.
//!
//! Options: `model` (ease or sansa), `lambda`, `dropout`, `target`, `user` (exponent on the length of histories), `head`,
//! `neighbours` (0: the uncut model), `threads`, and for the sparse model `density`, `drop` and `refinements`.

use std::{collections::BTreeMap, fs, time::Instant};

use echotune_engine::{
    Interactions, ItemGraph, best,
    ease::{Ease, EaseOptions, SansaOptions, sansa},
};

type Error = Box<dyn std::error::Error>;

/// Per user: its items.
type Histories = BTreeMap<u32, Vec<u32>>;

fn read(path: &str, pairs: bool) -> Result<Histories, Error> {
    let text = fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    let headed = text.starts_with(|first: char| !first.is_ascii_digit());
    let mut histories = Histories::new();
    for line in text.lines().skip(usize::from(headed)) {
        let kept = if headed || pairs { 2 } else { usize::MAX };
        let numbers: Vec<u32> = line.split_whitespace().take(kept).map(str::parse).collect::<Result<_, _>>()?;
        let Some((user, items)) = numbers.split_first() else { continue };
        histories.entry(*user).or_default().extend(items);
    }
    Ok(histories)
}

struct Options(BTreeMap<String, String>);

impl Options {
    fn get<T: std::str::FromStr>(&self, name: &str, otherwise: T) -> Result<T, Error>
    where
        T::Err: std::error::Error + 'static,
    {
        Ok(self.0.get(name).map_or(Ok(otherwise), |value| value.parse())?)
    }
}

fn score(graph: &ItemGraph, history: &[(u32, f32)], scores: &mut Vec<f32>) {
    scores.clear();
    scores.resize(graph.item_count(), 0.0);
    for (item, amount) in history {
        graph.row(*item).for_each(|(other, weight)| scores[other as usize] += amount * weight);
    }
}

/// Recall@20 and NDCG@20.
fn measure(train: &Histories, test: &Histories, mut score: impl FnMut(&[(u32, f32)], &mut Vec<f32>)) -> (f64, f64) {
    let (mut recall, mut gain, mut users, mut scores) = (0.0, 0.0, 0.0, Vec::new());
    let discount = |rank: usize| 1.0 / (rank as f64 + 2.0).log2();
    for (user, relevant) in test.iter().filter(|(_, items)| !items.is_empty()) {
        let known = train.get(user).map_or(&[][..], Vec::as_slice);
        let history: Vec<(u32, f32)> = known.iter().map(|item| (*item, 1.0)).collect();
        score(&history, &mut scores);
        known.iter().for_each(|item| scores[*item as usize] = f32::NEG_INFINITY);
        let scored = (0..).zip(&scores).map(|(item, score)| (item, f64::from(*score))).collect();
        let list = best(scored, 20);
        let hits = list.iter().enumerate().filter(|(_, (item, _))| relevant.contains(item));
        let (mut count, mut sum) = (0, 0.0);
        hits.for_each(|(rank, _)| {
            count += 1;
            sum += discount(rank);
        });
        recall += f64::from(count) / relevant.len() as f64;
        gain += sum / (0..relevant.len().min(20)).map(discount).sum::<f64>();
        users += 1.0;
    }
    (recall / users, gain / users)
}

fn main() -> Result<(), Error> {
    let (options, files): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(|one| one.contains('='));
    let split = |one: String| one.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    let options = Options(options.into_iter().filter_map(split).collect());
    let train_path = files.first().ok_or("usage: ease_time TRAIN [TEST] [OPTION=VALUE]…")?;
    let pairs = options.get("pairs", 0)? == 1;
    let train = read(train_path, pairs)?;
    let test = files.get(1).map_or(Ok(Histories::new()), |path| read(path, pairs))?;
    let items = train.values().chain(test.values()).flatten().max().map_or(0, |item| *item as usize + 1);
    let interactions = Interactions::from_rows(train.values().map(|row| row.iter().copied()), items);
    let exponent: f32 = options.get("user", 0.0)?;
    let interactions = if exponent == 0.0 {
        interactions
    } else {
        let lengths: Vec<f32> =
            (0..interactions.user_count()).map(|user| interactions.row(user).len() as f32).collect();
        interactions.reweighted(|user, _, weight| weight * lengths[user].powf(-exponent))
    };
    rayon::ThreadPoolBuilder::new().num_threads(options.get("threads", 2)?).build_global()?;
    let (seconds, recall, gain) = if options.get("model", String::from("ease"))? == "ease" {
        of_ease(&interactions, &options, &train, &test)?
    } else {
        of_sansa(&interactions, &options, &train, &test)?
    };
    let quality =
        if test.is_empty() { String::new() } else { format!(r#","recall@20":{recall:.4},"ndcg@20":{gain:.4}"#) };
    println!(r#"{{"users":{},"items":{items},"fit_seconds":{seconds:.3}{quality}}}"#, train.len());
    Ok(())
}

/// Seconds of the fit, recall@20 and NDCG@20.
type Outcome = Result<(f64, f64, f64), Error>;

fn of_ease(interactions: &Interactions, options: &Options, train: &Histories, test: &Histories) -> Outcome {
    let fit = EaseOptions {
        head: options.get("head", 20_000)?,
        lambda: options.get("lambda", 200.0)?,
        dropout: options.get("dropout", 0.0)?,
        target: options.get("target", 0.0)?,
    };
    let start = Instant::now();
    let ease = Ease::fit(interactions, fit)?;
    let seconds = start.elapsed().as_secs_f64();
    let neighbours = options.get("neighbours", 0)?;
    let (recall, gain) = if neighbours == 0 {
        measure(train, test, |history, scores| ease.score_into(history, scores))
    } else {
        let graph = ease.graph(neighbours);
        measure(train, test, |history, scores| score(&graph, history, scores))
    };
    Ok((seconds, recall, gain))
}

fn of_sansa(interactions: &Interactions, options: &Options, train: &Histories, test: &Histories) -> Outcome {
    let otherwise = SansaOptions::default();
    let fit = SansaOptions {
        lambda: options.get("lambda", 200.0)?,
        dropout: options.get("dropout", 0.0)?,
        target: options.get("target", 0.0)?,
        density: options.get("density", otherwise.density)?,
        drop: options.get("drop", otherwise.drop)?,
        refinements: options.get("refinements", otherwise.refinements)?,
        neighbours: options.get("neighbours", otherwise.neighbours)?,
    };
    let start = Instant::now();
    let graph = sansa(interactions, fit)?;
    let seconds = start.elapsed().as_secs_f64();
    let (recall, gain) = measure(train, test, |history, scores| score(&graph, history, scores));
    Ok((seconds, recall, gain))
}
