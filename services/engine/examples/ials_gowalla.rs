//! Trains iALS on a data set of lines `user item item …` and prints one line of JSON: the time of the
//! fit, the loss, and with a second file of the same form the quality of the full ranking.
//!
//! `ials_gowalla TRAIN [TEST] [factors=128] [iterations=15] [steps=3] [unobserved=…] [regularization=…]
//! [exponent=…] [seed=…]`
#![allow(clippy::print_stdout, reason = "a program that measures")]

use std::{error::Error, fs, time::Instant};

use echotune_engine::{
    Interactions, best,
    dense::{Matrix, dot, multiply},
    ials::{FoldIn, Model, Options},
};

/// Length of the lists that are judged.
const TOP: usize = 20;

/// Users scored together.
const BATCH: usize = 256;

fn main() -> Result<(), Box<dyn Error>> {
    let (mut paths, mut options) = (Vec::new(), Options::default());
    for argument in std::env::args().skip(1) {
        match argument.split_once('=') {
            Some((name, value)) => set(&mut options, name, value)?,
            None => paths.push(argument),
        }
    }
    let train = read(paths.first().ok_or("usage: ials_gowalla TRAIN [TEST] [option=value …]")?)?;
    let test = paths.get(1).map(|path| read(path)).transpose()?;
    let items = train.iter().chain(test.iter().flatten()).flatten().max().map_or(0, |item| *item as usize + 1);
    let interactions = Interactions::from_rows(train, items);
    let begun = Instant::now();
    let model = Model::fit(&interactions, &options, &|progress| {
        eprintln!("{:>3} of {}: loss {:.1}", progress.iteration, progress.iterations, progress.loss);
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    print!(
        "{{\"factors\":{},\"iterations\":{},\"steps\":{},\"fit_seconds\":{seconds:.3},\"loss\":{:.1}",
        options.factors,
        options.iterations,
        options.steps,
        model.loss()
    );
    if let Some(test) = test {
        let (recall, gain) = quality(&model, &interactions, &test);
        print!(",\"recall_at_20\":{recall:.5},\"ndcg_at_20\":{gain:.5}");
    }
    print!("{}", latencies(&model, &interactions)?);
    println!("}}");
    Ok(())
}

/// Of up to 5,000 users, on one thread: folding in, explaining ten items, leaving out one listen; each in
/// microseconds at the median and the 99th percentile. Beside these the largest difference between the sum
/// of an explanation and the score that the factors serve.
fn latencies(model: &Model, train: &Interactions) -> Result<String, Box<dyn Error>> {
    let fold = FoldIn::new(model.items(), model.options())?;
    let (mut folds, mut explanations, mut what_ifs, mut difference) = (Vec::new(), Vec::new(), Vec::new(), 0.0_f64);
    for user in (0..train.user_count()).step_by(train.user_count().div_ceil(5_000).max(1)) {
        let history: Vec<(u32, f32)> = train.entries(user).collect();
        let Some((first, _)) = history.first() else { continue };
        let begun = Instant::now();
        let folded = fold.fold(&history)?;
        let factors = folded.factors();
        folds.push(begun.elapsed());
        let targets: Vec<u32> = (0..10).map(|place| (place * 997) % train.item_count() as u32).collect();
        let begun = Instant::now();
        let explained: Vec<_> = targets.iter().map(|item| folded.explain(*item)).collect();
        explanations.push(begun.elapsed());
        let begun = Instant::now();
        std::hint::black_box(folded.without(&[*first]).factors());
        what_ifs.push(begun.elapsed());
        for (item, parts) in targets.iter().zip(explained) {
            let sum: f64 = parts.iter().map(|(_, part)| part).sum();
            difference = difference.max((sum - f64::from(dot(&factors, model.items().row(*item as usize)))).abs());
        }
    }
    let mut out = format!(",\"explained_less_served\":{difference:.1e}");
    for (name, mut times) in [("fold_in", folds), ("explain_10", explanations), ("without_1", what_ifs)] {
        times.sort_unstable();
        let at = |share: usize| times.get(times.len() * share / 100).map_or(0.0, |time| time.as_secs_f64() * 1e6);
        out += &format!(",\"{name}_us_p50\":{:.0},\"{name}_us_p99\":{:.0}", at(50), at(99));
    }
    Ok(out)
}

fn set(options: &mut Options, name: &str, value: &str) -> Result<(), Box<dyn Error>> {
    match name {
        "factors" => options.factors = value.parse()?,
        "iterations" => options.iterations = value.parse()?,
        "steps" => options.steps = value.parse()?,
        "unobserved" => options.unobserved = value.parse()?,
        "regularization" => options.regularization = value.parse()?,
        "exponent" => options.exponent = value.parse()?,
        "seed" => options.seed = value.parse()?,
        _ => return Err(format!("no option is called {name}").into()),
    }
    Ok(())
}

/// Lines `user item item …`, placed by user.
fn read(path: &str) -> Result<Vec<Vec<u32>>, Box<dyn Error>> {
    let mut rows = Vec::new();
    for line in fs::read_to_string(path)?.lines() {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        let Some(user) = numbers.next() else { continue };
        let user = user? as usize;
        if rows.len() <= user {
            rows.resize(user + 1, Vec::new());
        }
        rows[user] = numbers.collect::<Result<_, _>>()?;
    }
    Ok(rows)
}

/// Recall and NDCG at 20 of the ranking of all items that the user does not know, averaged over users with
/// tests.
fn quality(model: &Model, train: &Interactions, test: &[Vec<u32>]) -> (f64, f64) {
    let users: Vec<usize> = (0..test.len().min(train.user_count())).filter(|user| !test[*user].is_empty()).collect();
    let (mut recall, mut gain) = (0.0, 0.0);
    for batch in users.chunks(BATCH) {
        let mut factors = Matrix::zeros(batch.len(), model.factors());
        for (place, user) in batch.iter().enumerate() {
            factors.row_mut(place).copy_from_slice(model.users().row(*user));
        }
        let mut scores = Matrix::zeros(batch.len(), train.item_count());
        multiply(1.0, factors.view(), model.items().view().t(), 0.0, &mut scores);
        for (place, user) in batch.iter().enumerate() {
            let row = scores.row_mut(place);
            for item in train.row(*user) {
                row[*item as usize] = f32::NEG_INFINITY;
            }
            let scored = (0..).zip(row.iter().map(|score| f64::from(*score))).collect();
            let hits = best(scored, TOP).into_iter().map(|(item, _)| test[*user].contains(&item)).collect::<Vec<_>>();
            let found = hits.iter().filter(|hit| **hit).count();
            recall += found as f64 / test[*user].len() as f64;
            let discount = |place: usize| 1.0 / (place as f64 + 2.0).log2();
            let ideal: f64 = (0..TOP.min(test[*user].len())).map(discount).sum();
            gain +=
                hits.iter().enumerate().filter(|(_, hit)| **hit).map(|(place, _)| discount(place)).sum::<f64>() / ideal;
        }
    }
    let users = users.len().max(1) as f64;
    (recall / users, gain / users)
}
