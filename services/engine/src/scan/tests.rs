use std::{collections::BTreeSet, sync::atomic::AtomicBool};

use proptest::prelude::*;

use super::*;
use crate::{
    Random,
    dense::{Matrix, dot},
};

/// Every item scored and sorted.
fn brute(factors: &Matrix, request: &Request<'_>) -> Vec<(u32, f32)> {
    let mut extra = vec![0.0; factors.rows()];
    match request.extra {
        Extra::None => {}
        Extra::Sparse(list) => list.iter().for_each(|(item, value)| extra[*item as usize] += value),
        Extra::Dense(all) => extra.copy_from_slice(all),
    }
    let mut scored: Vec<(u32, f32)> = (0..)
        .zip(&extra)
        .filter(|(item, _)| !(request.excluded)(*item))
        .map(|(item, extra)| (item, dot(request.query, factors.row(item as usize)) + extra + 0.0))
        .collect();
    scored.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    scored.truncate(request.count);
    scored
}

/// How the elements of vectors are drawn.
#[derive(Debug, Clone, Copy)]
enum Shape {
    Normal,
    /// Norms far apart.
    Skewed,
    Identical,
    Zero,
    Huge,
    Tiny,
    /// Few different values, so that many scores are equal.
    Coarse,
    /// One element far larger than the others.
    Spiked,
}

const SHAPES: [Shape; 8] = [
    Shape::Normal,
    Shape::Skewed,
    Shape::Identical,
    Shape::Zero,
    Shape::Huge,
    Shape::Tiny,
    Shape::Coarse,
    Shape::Spiked,
];

#[expect(clippy::cast_possible_truncation, reason = "a random number")]
fn draw(shape: Shape, rows: usize, rank: usize, seed: u64) -> Matrix {
    let mut random = Random::new(seed);
    let mut data = Vec::with_capacity(rows * rank);
    for _ in 0..rows {
        let size = (2.0 * random.normal()).exp();
        let spike = random.below(rank.max(1));
        for column in 0..rank {
            let x = random.normal();
            data.push(match shape {
                Shape::Normal => x as f32,
                Shape::Skewed => (x * size) as f32,
                Shape::Identical => column as f32 - 1.5,
                Shape::Zero => 0.0,
                Shape::Huge => (x * 1e16) as f32,
                Shape::Tiny => (x * 1e-30 * size * size * size * size) as f32,
                Shape::Coarse => x.round().clamp(-1.0, 1.0) as f32,
                Shape::Spiked if column == spike => 1e4,
                Shape::Spiked => (x * 1e-2) as f32,
            });
        }
    }
    Matrix::from_vec(rows, rank, data).expect("the length")
}

fn shape() -> impl Strategy<Value = Shape> {
    proptest::sample::select(SHAPES.to_vec())
}

/// Addends for some of the items, some of them twice.
fn extras(rows: usize, size: f32) -> impl Strategy<Value = Vec<(u32, f32)>> {
    let most = u32::try_from(rows).expect("few rows");
    proptest::collection::vec((0..most, (-1.0..1.0_f32).prop_map(move |x| x * size)), 0..2 * rows)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_scan_is_the_sorted_list_of_all_scores(
        (items, queries) in (shape(), shape()),
        (rows, rank, count) in (1..400_usize, 1..40_usize, 0..450_usize),
        seed in 0..u64::MAX,
        modulus in 1..9_u32,
    ) {
        let factors = draw(items, rows, rank, seed);
        let queries = draw(queries, 6, rank, seed ^ 1);
        let scan = Scan::new(&factors).expect("finite factors");
        let excluded = |item: u32| item.is_multiple_of(modulus + 1);
        let requests: Vec<Request<'_>> =
            (0..6).map(|row| Request::new(queries.row(row), count).excluding(&excluded)).collect();
        let together = scan.best_of_each(&requests).expect("finite queries");
        for (request, together) in requests.iter().zip(together) {
            let expected = brute(&factors, request);
            prop_assert_eq!(&scan.best(request).expect("a finite query"), &expected);
            prop_assert_eq!(together, expected);
        }
    }

    #[test]
    fn addends_are_part_of_the_score(
        shape in shape(),
        (extra, zero) in (extras(300, 3.0), any::<bool>()),
        (rank, count, seed) in (1..20_usize, 1..40_usize, 0..u64::MAX),
    ) {
        let factors = draw(shape, 300, rank, seed);
        let queries = draw(if zero { Shape::Zero } else { Shape::Normal }, 5, rank, seed ^ 1);
        let scan = Scan::new(&factors).expect("finite factors");
        let mut dense = vec![0.0; 300];
        extra.iter().for_each(|(item, value)| dense[*item as usize] += value);
        let known: BTreeSet<u32> = extra.iter().take(20).map(|(item, _)| *item).collect();
        let excluded = |item: u32| known.contains(&item);
        let requests: Vec<Request<'_>> = (0..5)
            .flat_map(|row| [(row, Extra::Sparse(&extra)), (row, Extra::Dense(&dense)), (row, Extra::None)])
            .map(|(row, extra)| Request::new(queries.row(row), count).extra(extra).excluding(&excluded))
            .collect();
        let together = scan.best_of_each(&requests).expect("finite queries");
        for (request, together) in requests.iter().zip(together) {
            let expected = brute(&factors, request);
            prop_assert!(expected.iter().all(|(item, _)| !known.contains(item)));
            prop_assert_eq!(&scan.best(request).expect("a finite query"), &expected);
            prop_assert_eq!(together, expected);
        }
    }
}

#[test]
fn a_large_scan_shared_among_threads_is_the_sorted_list_of_all_scores() {
    for (shape, rows) in [(Shape::Normal, 140_000), (Shape::Skewed, 140_001), (Shape::Coarse, 135_000)] {
        let factors = draw(shape, rows, 8, 3);
        let queries = draw(Shape::Normal, 3, 8, 4);
        let scan = Scan::new(&factors).expect("finite factors");
        for threads in [1, 4] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            for row in 0..3 {
                let excluded = |item: u32| item % 3 == 1;
                let request = Request::new(queries.row(row), 50).excluding(&excluded);
                let found = pool.install(|| scan.best(&request)).expect("a finite query");
                assert_eq!(found, brute(&factors, &request), "{shape:?} {threads} threads");
            }
        }
    }
}

#[test]
fn most_items_are_not_scored() {
    // What is asked for exclusion is about what is scored.
    let (factors, queries) = (draw(Shape::Normal, 20_000, 64, 1), draw(Shape::Normal, 1, 64, 2));
    let scan = Scan::new(&factors).expect("finite factors");
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let excluded = |_| {
        asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        false
    };
    scan.best(&Request::new(queries.row(0), 20).excluding(&excluded)).expect("a finite query");
    assert!(asked.into_inner() < 1_000);
}

#[test]
fn an_excluded_item_is_never_answered_even_when_nothing_else_is_left() {
    let (factors, queries) = (draw(Shape::Normal, 500, 16, 1), draw(Shape::Normal, 1, 16, 2));
    let scan = Scan::new(&factors).expect("finite factors");
    let mut blocked = ItemSet::new(500);
    blocked.extend((0..500).filter(|item| item % 250 != 7));
    blocked.insert(9_999);
    let excluded = |item: u32| blocked.contains(item);
    let mut left: Vec<u32> = scan
        .best(&Request::new(queries.row(0), 20).excluding(&excluded))
        .expect("a finite query")
        .into_iter()
        .map(|(item, _)| item)
        .collect();
    left.sort_unstable();
    assert_eq!(left, [7, 257]);
    blocked.remove(7);
    assert!(!blocked.contains(7) && blocked.contains(8) && !blocked.contains(9_999));
    let all = AtomicBool::new(false);
    let nothing = |_| {
        all.store(true, std::sync::atomic::Ordering::Relaxed);
        true
    };
    assert_eq!(scan.best(&Request::new(queries.row(0), 20).excluding(&nothing)), Ok(vec![]));
    assert!(all.into_inner());
}

#[test]
fn what_cannot_be_scored_is_named() {
    let rows = |data: &[f32]| Matrix::from_vec(2, 2, data.to_vec()).expect("the length");
    for bad in [f32::NAN, f32::INFINITY, 3e18] {
        assert_eq!(Scan::new(rows(&[1.0, 2.0, bad, 0.0])).err(), Some(ScanError::Factors { item: 1 }));
    }
    assert!(matches!(Scan::new(Matrix::zeros(1, LARGEST_RANK + 1)), Err(ScanError::Shape { .. })));
    let scan = Scan::new(rows(&[1.0, 2.0, 3.0, 4.0])).expect("finite factors");
    let ask = |query: &[f32], extra: Extra<'_>| scan.best(&Request::new(query, 1).extra(extra));
    assert_eq!(ask(&[1.0], Extra::None), Err(ScanError::Rank { found: 1, expected: 2 }));
    assert_eq!(ask(&[1.0, f32::NAN], Extra::None), Err(ScanError::Query));
    assert_eq!(ask(&[1.0, 1.0], Extra::Dense(&[1.0])), Err(ScanError::Extras { found: 1, expected: 2 }));
    for (item, value) in [(2, 1.0), (0, f32::INFINITY), (1, 2e36)] {
        assert_eq!(ask(&[1.0, 1.0], Extra::Sparse(&[(item, value)])), Err(ScanError::Extra { item, value, items: 2 }));
    }
    assert!(matches!(ask(&[1.0, 1.0], Extra::Dense(&[0.0, f32::NAN])), Err(ScanError::Extra { item: 1, .. })));
    let empty = Scan::new(Matrix::zeros(0, 4)).expect("nothing to refuse");
    assert_eq!(empty.best(&Request::new(&[1.0; 4], 5)), Ok(vec![]));
    let narrow = Scan::new(Matrix::zeros(3, 0)).expect("nothing to refuse");
    let answer = narrow.best(&Request::new(&[], 2).extra(Extra::Sparse(&[(2, 1.0)])));
    assert_eq!(answer, Ok(vec![(2, 1.0), (0, 0.0)]));
}

#[test]
fn a_partition_that_looks_at_all_items_is_exact_and_keeps_to_exclusion_and_addends() {
    for shape in SHAPES {
        let (factors, queries) = (draw(shape, 1_500, 12, 1), draw(Shape::Normal, 3, 12, 2));
        let partition = Partition::new(&factors, PartitionOptions::default()).expect("finite factors");
        let extra: Vec<(u32, f32)> = (0..300).map(|at| (at * 7 % 1_000, (at % 13) as f32 - 6.0)).collect();
        let dense: Vec<f32> = (0..1_500_u16).map(|at| f32::from(at % 11)).collect();
        let excluded = |item: u32| item % 4 == 1;
        for row in 0..3 {
            for extra in [Extra::None, Extra::Sparse(&extra), Extra::Dense(&dense)] {
                for count in [0, 1, 30, 2_000] {
                    let request = Request::new(queries.row(row), count).extra(extra).excluding(&excluded);
                    let found = partition.best(&request, usize::MAX).expect("a finite query");
                    assert_eq!(found, brute(&factors, &request), "{shape:?} {count}");
                    // With little effort too, the answer is full, sorted, and of what is allowed.
                    let found = partition.best(&request, 1).expect("a finite query");
                    assert_eq!(found.len(), count.min(1_125));
                    assert!(found.iter().all(|(item, _)| !excluded(*item)));
                    assert!(found.is_sorted_by(|a, b| a.1 > b.1 || (a.1 == b.1 && a.0 < b.0)));
                }
            }
        }
    }
}

#[test]
fn a_partition_is_the_same_for_any_number_of_threads_and_finds_most_of_the_best() {
    let (factors, queries) = (draw(Shape::Skewed, 20_000, 8, 1), draw(Shape::Normal, 50, 8, 2));
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        pool.install(|| Partition::new(&factors, PartitionOptions::default())).expect("finite factors")
    };
    let (one, four) = (with(1), with(4));
    let scan = Scan::new(&factors).expect("finite factors");
    let requests: Vec<Request<'_>> = (0..50).map(|row| Request::new(queries.row(row), 20)).collect();
    let found = one.best_of_each(&requests, 2_000).expect("finite queries");
    assert_eq!(found, four.best_of_each(&requests, 2_000).expect("finite queries"));
    assert!((100..=566).contains(&one.clusters()));
    let mut audit = Audit::new(1.0);
    let exact = scan.best_of_each(&requests).expect("finite queries");
    exact.iter().zip(&found).for_each(|(exact, found)| audit.compare(found, exact));
    let recall = audit.recall(0.05).expect("many requests");
    assert!(recall.mean > 0.9, "{recall:?}");
}

#[test]
fn a_partition_of_nothing_or_of_one_item_answers() {
    let empty = Partition::new(Matrix::zeros(0, 3), PartitionOptions::default()).expect("nothing to refuse");
    assert_eq!(empty.best(&Request::new(&[1.0; 3], 5), 10), Ok(vec![]));
    let one = Matrix::from_vec(1, 2, vec![1.0, 2.0]).expect("the length");
    let options = PartitionOptions { clusters: 9, rounds: 0, sample: 0, seed: 3, ..PartitionOptions::default() };
    let one = Partition::new(one, options).expect("finite factors");
    assert_eq!(one.best(&Request::new(&[1.0, 1.0], 5), 0), Ok(vec![(0, 3.0)]));
    let bad = Matrix::from_vec(1, 2, vec![1.0, f32::NAN]).expect("the length");
    assert_eq!(Partition::new(bad, PartitionOptions::default()).err(), Some(ScanError::Factors { item: 0 }));
}

#[test]
fn a_second_cluster_is_that_of_the_definition_and_finds_more_with_the_same_effort() {
    let factors = draw(Shape::Skewed, 700, 8, 1);
    let means = draw(Shape::Skewed, 600, 8, 4);
    let first = means::assign(&factors, &means);
    let second = means::assign_second(&factors, &means, &first, 1.5);
    for (item, (first, second)) in first.iter().zip(&second).enumerate() {
        let off = |mean: u32| -> Vec<f64> {
            let pairs = factors.row(item).iter().zip(means.row(mean as usize));
            pairs.map(|(x, m)| f64::from(*x) - f64::from(*m)).collect()
        };
        let times = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let missed = off(*first);
        let loss = |mean: u32| {
            let off = off(mean);
            1.5f64.mul_add(times(&missed, &off).powi(2) / times(&missed, &missed), times(&off, &off))
        };
        let least = (0..600).filter(|mean| mean != first).map(loss).fold(f64::INFINITY, f64::min);
        assert!(first != second && loss(*second) <= least * (1.0 + 1e-4) + 1e-6, "{item}");
    }

    let (factors, queries) = (draw(Shape::Skewed, 20_000, 16, 1), draw(Shape::Normal, 100, 16, 2));
    let requests: Vec<Request<'_>> = (0..100).map(|row| Request::new(queries.row(row), 20)).collect();
    let exact = Scan::new(&factors).and_then(|scan| scan.best_of_each(&requests)).expect("finite factors");
    let recall = |second| {
        let options = PartitionOptions { second, ..PartitionOptions::default() };
        let partition = Partition::new(&factors, options).expect("finite factors");
        let mut audit = Audit::new(1.0);
        let found = partition.best_of_each(&requests, 1_000).expect("finite queries");
        exact.iter().zip(&found).for_each(|(exact, found)| audit.compare(found, exact));
        audit.recall(0.05).expect("many requests").mean
    };
    let (once, twice) = (recall(None), recall(Some(1.0)));
    assert!(twice > once, "{twice} {once}");
}
