//! What the closed forms cost on a generated world, and what a change of it does.
#![allow(missing_docs)]

use divan::{Bencher, black_box};
use echotune_engine::{
    Interactions, Random,
    ease::{Ease, EaseOptions, Gram, SansaOptions, sansa},
};

const ITEMS: usize = 3_000;

fn main() {
    divan::main();
}

/// 4,000 histories of 50 of 3,000 items, popular items more often.
fn world() -> Interactions {
    let mut random = Random::new(1);
    let mut item = || u32::try_from(random.below(ITEMS) * (1 + random.below(ITEMS)) / ITEMS).expect("an item");
    let rows: Vec<Vec<u32>> = (0..4_000).map(|_| (0..50).map(|_| item()).collect()).collect();
    Interactions::from_rows(rows, ITEMS)
}

#[divan::bench(sample_count = 5)]
fn ease(bencher: Bencher) {
    let world = world();
    bencher.bench(|| Ease::fit(black_box(&world), EaseOptions::default()));
}

#[divan::bench(sample_count = 5)]
fn ease_graph(bencher: Bencher) {
    let ease = Ease::fit(&world(), EaseOptions::default()).expect("a fit");
    bencher.bench(|| black_box(&ease).graph(256));
}

#[divan::bench(sample_count = 5)]
fn sansa_of_64(bencher: Bencher) {
    let world = world();
    let options = SansaOptions { density: 64, ..SansaOptions::default() };
    bencher.bench(|| sansa(black_box(&world), options));
}

#[divan::bench(sample_count = 5)]
fn gram(bencher: Bencher) {
    let world = world();
    bencher.bench(|| Gram::of(black_box(&world)));
}

#[divan::bench]
fn gram_forgets_and_learns_a_user(bencher: Bencher) {
    let world = world();
    let mut gram = Gram::of(&world).expect("a matrix");
    let one = Interactions::from_rows([world.row(7).iter().copied()], ITEMS);
    bencher.bench_local(|| {
        gram.remove(&one).expect("it was added");
        gram.add(&one)
    });
}
