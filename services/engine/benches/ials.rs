//! What folding in, explaining and leaving out cost, d = 128.
#![allow(missing_docs)]

use divan::{Bencher, black_box};
use echotune_engine::{
    Random,
    dense::Matrix,
    ials::{FoldIn, Options},
};

const ITEMS: usize = 20_000;

fn main() {
    divan::main();
}

fn fold_in() -> (FoldIn, Random) {
    let mut random = Random::new(1);
    let options = Options { factors: 128, ..Options::default() };
    let data = (0..ITEMS * options.factors).map(|_| random.normal() as f32 * 0.1).collect();
    let items = Matrix::from_vec(ITEMS, options.factors, data).expect("the length");
    (FoldIn::new(&items, &options).expect("factors"), random)
}

fn history(entries: usize, random: &mut Random) -> Vec<(u32, f32)> {
    (0..entries).map(|_| (random.below(ITEMS) as u32, 1.0)).collect()
}

#[divan::bench(args = [5, 30, 100, 200, 1_000])]
fn fold(bencher: Bencher, entries: usize) {
    let (fold, mut random) = fold_in();
    bencher
        .with_inputs(|| history(entries, &mut random))
        .bench_local_values(|history| fold.fold(black_box(&history)).expect("weights").factors());
}

#[divan::bench(args = [5, 30, 100, 200, 1_000])]
fn explain_ten(bencher: Bencher, entries: usize) {
    let (fold, mut random) = fold_in();
    let history = history(entries, &mut random);
    let folded = fold.fold(&history).expect("weights");
    bencher.bench_local(|| (0..10).map(|item| folded.explain(black_box(item))).collect::<Vec<_>>());
}

#[divan::bench(args = [5, 30, 100, 200, 1_000])]
fn what_if_without_one(bencher: Bencher, entries: usize) {
    let (fold, mut random) = fold_in();
    let history = history(entries, &mut random);
    let folded = fold.fold(&history).expect("weights");
    bencher.bench_local(|| folded.without(black_box(&[history[0].0])).factors());
}
