//! What a fit and a list cost, on a generated world of the size of a small service.
#![allow(missing_docs)]

use divan::{Bencher, black_box};
use echotune_engine::{GraphOptions, Interactions, ItemGraph, Scores, best};

const USERS: u32 = 2_000;
const ITEMS: u32 = 20_000;

fn main() {
    divan::main();
}

/// 2,000 histories of 250 of 20,000 items, popular items more often.
fn world() -> Interactions {
    let mut seed = 1_u64;
    let mut draw = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as u32
    };
    let rows: Vec<Vec<u32>> = (0..USERS)
        .map(|_| {
            (0..250)
                .map(|_| (u64::from(draw() % ITEMS) * u64::from(draw() % ITEMS) / u64::from(ITEMS)) as u32)
                .collect()
        })
        .collect();
    Interactions::from_rows(rows, ITEMS as usize)
}

#[divan::bench(sample_count = 10)]
fn fit(bencher: Bencher) {
    let world = world();
    bencher.bench(|| ItemGraph::fit(black_box(&world), GraphOptions::default()));
}

#[divan::bench]
fn score_and_explain_ten(bencher: Bencher) {
    let world = world();
    let graph = ItemGraph::fit(&world, GraphOptions::default());
    let mut scores = Scores::default();
    let history: Vec<(u32, f64)> = world.row(7).iter().map(|item| (*item, 1.0)).collect();
    bencher.bench_local(|| {
        scores.fill(&graph, black_box(&history));
        let scored = scores.touched().iter().map(|item| (*item, scores.get(*item))).collect();
        let targets: Vec<u32> = best(scored, 10).into_iter().map(|(item, _)| item).collect();
        scores.parts(&graph, &history, &targets)
    });
}
