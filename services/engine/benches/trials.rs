//! What experiments cost while serving and when they are looked at.
#![allow(missing_docs)]

use divan::{Bencher, black_box};
use echotune_engine::{
    Random,
    trials::{
        assignment::{SLOTS, Split},
        bandit::{Arms, Exploration, Posterior, choose},
        interleave::team_draft,
        ope::{Logged, Options, evaluate},
        sequence::{Proportion, Sequence},
    },
};

fn main() {
    divan::main();
}

#[divan::bench]
fn assign(bencher: Bencher) {
    let split = Split::new(b"experiment", b"layer", 0..SLOTS, &[1, 1]).expect("a split");
    bencher.bench(|| split.assign(black_box(b"0198c0de-0000-7000-8000-000000000001")));
}

#[divan::bench]
fn difference_of_proportions(bencher: Bencher) {
    let sequence = Sequence::new(0.01, 100_000, 0).expect("a level");
    let of = |successes| Proportion::new(successes, 50_000).expect("a part");
    bencher.bench(|| sequence.proportions(black_box(&of(5_000)), black_box(&of(5_300))));
}

/// A list of 50 out of two rankings of 200.
#[divan::bench]
fn interleave(bencher: Bencher) {
    let (a, b): (Vec<u32>, Vec<u32>) = ((0..200).collect(), (0..200).rev().collect());
    bencher.bench(|| team_draft(black_box(&a), black_box(&b), 50, 1));
}

/// Arms of 16 features; 1000 draws.
#[divan::bench(args = [2, 10, 50])]
fn choose_an_arm(bencher: Bencher, arms: usize) {
    let (mut random, mut posterior) = (Random::new(1), Posterior::new(16, 1.0).expect("a posterior"));
    let arms: Vec<Vec<f64>> = (0..arms).map(|_| (0..16).map(|_| random.normal()).collect()).collect();
    for arm in arms.iter().cycle().take(500) {
        posterior.update(arm, random.normal()).expect("features");
    }
    let exploration = Exploration { scale: 0.5, floor: 0.01, draws: 1_000 };
    bencher.bench(|| choose(Arms::Shared(&posterior, black_box(&arms)), &exploration, 1));
}

/// The rank-one update of a posterior.
#[divan::bench(args = [16, 128])]
fn learn(bencher: Bencher, dimension: usize) {
    let (mut random, mut posterior) = (Random::new(1), Posterior::new(dimension, 1.0).expect("a posterior"));
    let features: Vec<f64> = (0..dimension).map(|_| random.normal()).collect();
    bencher.bench_local(|| posterior.update(black_box(&features), 1.0));
}

/// A hundred thousand rows of ten thousand units; 1000 resamples.
#[divan::bench(sample_count = 10)]
fn evaluate_a_policy(bencher: Bencher) {
    let mut random = Random::new(1);
    let row = |at: u64| Logged { unit: at % 10_000, reward: random.unit(), propensity: 0.2, target: 0.2, model: None };
    let rows: Vec<Logged> = (0..100_000).map(row).collect();
    bencher.bench(|| evaluate(black_box(&rows), &Options::default()));
}
