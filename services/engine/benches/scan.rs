//! What retrieval of the best items costs, on generated factors without structure, which prune least, and on
//! clustered ones.
#![allow(missing_docs)]

use divan::{Bencher, black_box, counter::ItemsCount};
use echotune_engine::{
    dense::Matrix,
    scan::{Extra, ItemSet, Request, Scan},
};

#[path = "support/world.rs"]
mod world;

const RANK: usize = 128;
const SMALL: usize = 40_981;
const LARGE: usize = 1_000_000;

fn main() {
    divan::main();
}

#[derive(Debug, Clone, Copy)]
enum World {
    Normal,
    Clustered,
}

const WORLDS: [World; 2] = [World::Normal, World::Clustered];

fn make(world: World, items: usize, queries: usize) -> (Scan, Matrix) {
    let (items, queries) = match world {
        World::Normal => (world::normal(items, RANK, 1), world::normal(queries, RANK, 2)),
        World::Clustered => (world::world(items, RANK, 1, 0.35), world::world(queries, RANK, 2, 0.0)),
    };
    (Scan::new(items).expect("finite factors"), queries)
}

#[divan::bench(args = WORLDS, sample_count = 2_000, sample_size = 1)]
fn top_20_of_41k(bencher: Bencher, world: World) {
    let (scan, queries) = make(world, SMALL, 256);
    let mut row = 0;
    bencher.bench_local(|| {
        row = (row + 1) % queries.rows();
        scan.best(black_box(&Request::new(queries.row(row), 20)))
    });
}

#[divan::bench(args = WORLDS, sample_count = 2_000, sample_size = 1)]
fn top_20_of_41k_with_addends_and_a_filter(bencher: Bencher, world: World) {
    let (scan, queries) = make(world, SMALL, 256);
    let extra: Vec<(u32, f32)> = (0..10_000_u16).map(|item| (u32::from(item) * 4, f32::from(item % 97))).collect();
    let mut known = ItemSet::new(SMALL);
    known.extend((0..SMALL as u32).step_by(100));
    let excluded = |item: u32| known.contains(item);
    let mut row = 0;
    bencher.bench_local(|| {
        row = (row + 1) % queries.rows();
        let request = Request::new(queries.row(row), 20).extra(Extra::Sparse(&extra)).excluding(&excluded);
        scan.best(black_box(&request))
    });
}

#[divan::bench(args = WORLDS, sample_count = 5, sample_size = 1)]
fn top_20_of_41k_batched(bencher: Bencher, world: World) {
    let (scan, queries) = make(world, SMALL, 4_096);
    let requests: Vec<Request<'_>> = (0..queries.rows()).map(|row| Request::new(queries.row(row), 20)).collect();
    bencher.counter(ItemsCount::new(requests.len())).bench_local(|| scan.best_of_each(black_box(&requests)));
}

#[divan::bench(args = WORLDS, sample_count = 100, sample_size = 1)]
fn top_20_of_1m(bencher: Bencher, world: World) {
    let (scan, queries) = make(world, LARGE, 256);
    let mut row = 0;
    bencher.bench_local(|| {
        row = (row + 1) % queries.rows();
        scan.best(black_box(&Request::new(queries.row(row), 20)))
    });
}
