//! What it costs to write a model and to open it again: 100,000 items of rank 128 with 20 links each.
#![allow(missing_docs)]

use std::sync::Arc;

use divan::{Bencher, black_box, counter::BytesCount};
use echotune_engine::{Catalogue, ItemGraph, LinearModel, ModelFile, Random, SharedBytes, dense::Matrix};

const ITEMS: usize = 100_000;
const RANK: usize = 128;
const LINKS: usize = 20;

fn main() {
    divan::main();
}

fn catalogue() -> Catalogue {
    Catalogue::of((0..ITEMS).map(|item| (item as u128).to_le_bytes()))
}

fn model() -> LinearModel {
    let mut random = Random::new(3);
    let row = |_| {
        let start = random.below(ITEMS - LINKS) as u32;
        (start..).map(|other| (other, 0.5)).take(LINKS).collect()
    };
    let rows: Vec<Vec<(u32, f32)>> = (0..ITEMS).map(row).collect();
    let mut factors = || {
        let numbers = (0..ITEMS * RANK).map(|_| random.unit() as f32).collect();
        Matrix::from_vec(ITEMS, RANK, numbers).expect("the length")
    };
    let (from, to) = (factors(), factors());
    LinearModel::new(ItemGraph::from_links(&rows).expect("links"), from, to).expect("shapes")
}

fn bytes() -> SharedBytes {
    Arc::new(model().write("bench", catalogue()).expect("fits").to_bytes())
}

#[divan::bench(sample_count = 20)]
fn write_in_pieces(bencher: Bencher) {
    let (model, catalogue) = (model(), catalogue());
    let length = model.write("bench", catalogue).expect("fits").to_bytes().len();
    bencher.counter(BytesCount::new(length)).bench(|| model.write("bench", catalogue).expect("fits").pieces().len());
}

#[divan::bench(sample_count = 20)]
fn open_and_check(bencher: Bencher) {
    let bytes = bytes();
    let length = BytesCount::new(bytes.as_ref().as_ref().len());
    bencher.counter(length).bench(|| ModelFile::open(Arc::clone(black_box(&bytes))).expect("valid"));
}

#[divan::bench(sample_count = 20)]
fn open_and_read_the_model(bencher: Bencher) {
    let (bytes, catalogue) = (bytes(), catalogue());
    let length = BytesCount::new(bytes.as_ref().as_ref().len());
    let read = || LinearModel::read(&ModelFile::open(Arc::clone(black_box(&bytes)))?, &catalogue);
    bencher.counter(length).bench(|| read().expect("valid"));
}

/// One history of 50 items scored over all items, on lent numbers.
#[divan::bench(sample_count = 50)]
fn score_all_items_lent(bencher: Bencher) {
    let model = LinearModel::read(&ModelFile::open(bytes()).expect("valid"), &catalogue()).expect("valid");
    score(bencher, &model);
}

/// The same on numbers in memory of their own.
#[divan::bench(sample_count = 50)]
fn score_all_items_owned(bencher: Bencher) {
    score(bencher, &model());
}

fn score(bencher: Bencher, model: &LinearModel) {
    let history: Vec<(u32, f64)> = (0..50).map(|item| (item * 1_999, 1.0)).collect();
    let mut scores = Vec::new();
    bencher.bench_local(|| model.score_into(black_box(&history), &mut scores));
}
