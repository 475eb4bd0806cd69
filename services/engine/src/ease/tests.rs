use proptest::prelude::*;

use super::*;
use crate::{Interactions, ItemGraph, Random};

/// `B` by the definition, in double precision: Gauss and Jordan with pivots, then the division.
fn naive(rows: &[Vec<(u32, f32)>], items: usize, options: EaseOptions) -> Vec<Vec<f64>> {
    let mut a = vec![vec![0.0; 2 * items]; items];
    for row in rows {
        for (i, x) in row {
            for (j, y) in row {
                a[*i as usize][*j as usize] += f64::from(*x) * f64::from(*y);
            }
        }
    }
    let degrees: Vec<f64> = (0..items).map(|i| a[i][i]).collect();
    for (i, row) in a.iter_mut().enumerate() {
        let dropout = f64::from(options.dropout);
        row[i] += f64::from(options.lambda) + dropout / (1.0 - dropout) * degrees[i];
        row[items + i] = 1.0;
    }
    for k in 0..items {
        let pivot = (k..items).max_by(|x, y| a[*x][k].abs().total_cmp(&a[*y][k].abs())).expect("a row");
        a.swap(k, pivot);
        let divisor = a[k][k];
        a[k].iter_mut().for_each(|value| *value /= divisor);
        let of_pivot = a[k].clone();
        for (_, row) in a.iter_mut().enumerate().filter(|(i, _)| *i != k) {
            let factor = row[k];
            row.iter_mut().zip(&of_pivot).for_each(|(value, by)| *value -= factor * by);
        }
    }
    let weight = |i: usize, j: usize| {
        let favour = degrees[j].max(1.0).powf(-f64::from(options.target));
        if i == j { 0.0 } else { -a[i][items + j] / a[j][items + j] * favour }
    };
    (0..items).map(|i| (0..items).map(|j| weight(i, j)).collect()).collect()
}

fn weighted(rows: &[Vec<(u32, f32)>], items: usize) -> Interactions {
    Interactions::from_weighted(rows.iter().map(|row| row.iter().copied()), items).expect("weights")
}

/// Histories of 20 of so many items, popular items more often.
fn world(users: usize, items: usize, seed: u64) -> Interactions {
    let mut random = Random::new(seed);
    let mut item = || (random.below(items) * (1 + random.below(items)) / items) as u32;
    let rows: Vec<Vec<u32>> = (0..users).map(|_| (0..20).map(|_| item()).collect()).collect();
    Interactions::from_rows(rows, items)
}

fn with_threads<T: Send>(threads: usize, run: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads").install(run)
}

fn bits(graph: &ItemGraph) -> Vec<Vec<(u32, u32)>> {
    let row = |item| graph.row(item).map(|(other, weight)| (other, weight.to_bits())).collect();
    (0..graph.item_count() as u32).map(row).collect()
}

const EXACT: SansaOptions = SansaOptions {
    lambda: 2.0,
    dropout: 0.0,
    target: 0.0,
    density: 1_000,
    drop: 0.0,
    refinements: 0,
    neighbours: usize::MAX,
};

/// Rows of up to 8 of 12 items with weights that are whole steps.
fn some_rows() -> impl Strategy<Value = Vec<Vec<(u32, f32)>>> {
    let weight = (1..64_u16).prop_map(|steps| f32::from(steps) / 16.0);
    let row = proptest::collection::btree_map(0..12_u32, weight, 0..8).prop_map(|row| row.into_iter().collect());
    proptest::collection::vec(row, 0..20)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn weights_are_those_of_the_definition_and_the_sparse_ones_too_when_nothing_is_dropped(
        rows in some_rows(), lambda in 0.5..20.0_f32, dropout in 0.0..0.8_f32, target in -0.5..1.0_f32,
    ) {
        let interactions = weighted(&rows, 12);
        let options = EaseOptions { head: 12, lambda, dropout, target };
        let ease = Ease::fit(&interactions, options).expect("a fit");
        let refined = SansaOptions { refinements: 1, ..EXACT };
        let sparse = [EXACT, refined].map(|exact| {
            sansa(&interactions, SansaOptions { lambda, dropout, target, ..exact }).expect("a fit")
        });
        let expected = naive(&rows, 12, options);
        let graph = ease.graph(12);
        for (item, expected) in (0..12_u32).zip(expected) {
            let mut row = [0.0; 12];
            ease.row(item).for_each(|(other, weight)| row[other as usize] = weight);
            prop_assert_eq!(row[item as usize], 0.0);
            for (other, (found, expected)) in (0..12).zip(row.into_iter().zip(expected)) {
                let near = |weight: f32| (f64::from(weight) - expected).abs() < 2e-4 * (1.0 + expected.abs());
                prop_assert!(near(found), "{} {}: {} for {}", item, other, found, expected);
                prop_assert_eq!(graph.weight(item, other), found);
                prop_assert!(sparse.iter().all(|graph| near(graph.weight(item, other))), "{} {}", item, other);
            }
        }
    }

    #[test]
    fn a_matrix_with_users_added_changed_and_removed_is_that_of_those_who_remain_and_so_is_the_fit(
        rows in some_rows(), changed in some_rows(), order in any::<u64>(),
    ) {
        let one = |row: &[(u32, f32)]| weighted(&[row.to_vec()], 12);
        let mut gram = Gram::of(&weighted(&rows, 12)).expect("a matrix");
        // All of `changed` comes, all of `rows` goes, in a random order of single users.
        let mut steps: Vec<(bool, &Vec<(u32, f32)>)> =
            changed.iter().map(|row| (true, row)).chain(rows.iter().map(|row| (false, row))).collect();
        Random::new(order).shuffle(&mut steps);
        for (comes, row) in steps {
            if comes { gram.add(&one(row)) } else { gram.remove(&one(row)) }.expect("within bounds");
        }
        let afresh = weighted(&changed, 12);
        prop_assert_eq!(&gram, &Gram::of(&afresh).expect("a matrix"));
        let options = EaseOptions { lambda: 2.0, ..EaseOptions::default() };
        prop_assert_eq!(Ease::fit_gram(&gram, options).expect("a fit"), Ease::fit(&afresh, options).expect("a fit"));
        let sparse = SansaOptions { density: 3, ..EXACT };
        prop_assert_eq!(sansa_gram(&gram, sparse).expect("a fit"), sansa(&afresh, sparse).expect("a fit"));
    }
}

#[test]
fn fits_are_the_same_to_the_bit_for_any_number_of_threads() {
    let world = world(3_000, 700, 5);
    let fit = || {
        let options = EaseOptions { head: 600, lambda: 20.0, dropout: 0.2, target: 0.1 };
        let ease = Ease::fit(&world, options).expect("a fit");
        let sparse = SansaOptions { density: 20, drop: 1e-2, refinements: 1, neighbours: 10, ..EXACT };
        (bits(&ease.graph(50)), bits(&sansa(&world, sparse).expect("a fit")), Gram::of(&world).expect("a matrix"))
    };
    let one = with_threads(1, fit);
    assert_eq!(one, with_threads(2, fit));
    assert_eq!(one, with_threads(5, fit));
}

#[test]
fn the_head_is_the_most_popular_and_its_graph_names_items_of_the_catalogue() {
    let rows = [vec![1, 4, 7], vec![4, 7], vec![4, 7, 2], vec![1, 2], vec![9]];
    let interactions = Interactions::from_rows(rows.clone(), 10);
    // Items 1 and 2 are alike; the first is taken. Items nobody knows are never of the head.
    let ease = Ease::fit(&interactions, EaseOptions { head: 3, lambda: 1.0, ..EaseOptions::default() }).expect("a fit");
    assert_eq!((ease.head(), ease.item_count(), ease.weights().rows()), (&[1, 4, 7][..], 10, 3));
    let alone: Vec<Vec<(u32, f32)>> = rows
        .iter()
        .map(|row| {
            row.iter().filter_map(|item| Some(([1, 4, 7].iter().position(|h| h == item)? as u32, 1.0))).collect()
        })
        .collect();
    let expected = naive(&alone, 3, EaseOptions { lambda: 1.0, ..EaseOptions::default() });
    let graph = ease.graph(1);
    assert_eq!(graph.item_count(), 10);
    let links: Vec<(u32, f32)> = graph.row(7).collect();
    assert_eq!((links.len(), links[0].0), (1, 4));
    assert!((f64::from(links[0].1) - expected[2][1]).abs() < 1e-5);
    assert_eq!((graph.row(2).len(), ease.row(2).count(), ease.row(99).count()), (0, 0, 0));
    let mut scores = Vec::new();
    ease.score_into(&[(7, 2.0), (2, 5.0), (99, 1.0)], &mut scores);
    assert!((f64::from(scores[4]) - 2.0 * expected[2][1]).abs() < 1e-5);
    assert_eq!((scores.len(), scores[2], scores[7]), (10, 0.0, 0.0));
    let all = Ease::fit(&interactions, EaseOptions { head: 10, lambda: 1.0, ..EaseOptions::default() }).expect("a fit");
    assert_eq!(all.head(), [1, 2, 4, 7, 9]);
}

#[test]
fn catalogues_of_nothing_and_of_one_item_and_users_who_are_all_alike_have_fits() {
    let options = EaseOptions { lambda: 1.0, ..EaseOptions::default() };
    let both = |rows: Vec<Vec<u32>>, items| {
        let interactions = Interactions::from_rows(rows, items);
        let sparse = sansa(&interactions, SansaOptions { lambda: 1.0, ..EXACT }).expect("a fit");
        (Ease::fit(&interactions, options).expect("a fit").graph(9), sparse)
    };
    for (rows, items) in [(vec![], 0), (vec![vec![]], 0), (vec![], 5), (vec![vec![], vec![]], 5), (vec![vec![0]], 1)] {
        let (dense, sparse) = both(rows, items);
        assert_eq!((dense.item_count(), sparse.item_count()), (items, items));
        assert!((0..items as u32).all(|item| dense.row(item).len() + sparse.row(item).len() == 0));
    }
    // XᵀX = 4 · 11ᵀ: P_ij = −4 / 13, P_ii = 9 / 13, by Sherman and Morrison.
    for graph in <[ItemGraph; 2]>::from(both(vec![vec![0, 1, 2]; 4], 3)) {
        let weights = [(0, 1), (1, 0), (2, 1)].map(|(item, other)| graph.weight(item, other));
        assert!(weights.iter().all(|weight| (weight - 4.0 / 9.0).abs() < 1e-5), "{weights:?}");
    }
}

#[test]
fn the_sparse_fit_is_the_nearer_the_more_is_kept() {
    let world = world(1_000, 200, 9);
    let dense = Ease::fit(&world, EaseOptions { lambda: 20.0, ..EaseOptions::default() }).expect("a fit");
    let weights = || (0..200).flat_map(|item| dense.row(item).map(move |(other, weight)| (item, other, weight)));
    let whole: f32 = weights().map(|(_, _, weight)| weight * weight).sum();
    let gaps = [(40, 1e-3), (80, 1e-3), (200, 1e-6)].map(|(density, drop)| {
        let options = SansaOptions { lambda: 20.0, density, drop, ..EXACT };
        let sparse = sansa(&world, options).expect("a fit");
        weights().map(|(item, other, weight)| (weight - sparse.weight(item, other)).powi(2)).sum::<f32>() / whole
    });
    assert!(gaps[1] < gaps[0] / 2.0 && gaps[1] < 0.5 && gaps[2] < 1e-6, "{gaps:?}");
}

#[test]
fn the_sparse_fit_has_links_even_when_all_pairs_are_equally_strong() {
    let alike = Interactions::from_rows(vec![0..40_u32; 3], 40);
    let graph = sansa(&alike, SansaOptions { density: 4, ..EXACT }).expect("a fit");
    assert!((0..4).all(|item| graph.row(item).len() >= 3), "{graph:?}");
}

#[test]
fn options_and_weights_out_of_range_are_named() {
    let one = Interactions::from_rows([vec![0, 1]], 2);
    let ease = EaseOptions::default();
    for (options, expected) in [
        (EaseOptions { lambda: 0.0, ..ease }, "lambda is 0"),
        (EaseOptions { lambda: f32::NAN, ..ease }, "lambda is NaN"),
        (EaseOptions { dropout: 1.0, ..ease }, "dropout is 1"),
        (EaseOptions { target: 3.0, ..ease }, "target is 3"),
        (EaseOptions { head: 40_000, ..ease }, "head is 40000"),
    ] {
        let error = Ease::fit(&one, options).expect_err("refused").to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    for options in [
        SansaOptions { density: 0, ..EXACT },
        SansaOptions { drop: -1.0, ..EXACT },
        SansaOptions { refinements: 33, ..EXACT },
        SansaOptions { lambda: f32::INFINITY, ..EXACT },
    ] {
        assert!(matches!(sansa(&one, options), Err(EaseError::Option { .. })));
    }
    let error = Ease::fit(&one.reweighted(|_, item, _| if item == 1 { f32::NAN } else { 1.0 }), ease);
    assert!(matches!(error, Err(EaseError::Gram(GramError::Weight { row: 0, item: 1, .. }))));
    let heavy = Interactions::from_rows(vec![vec![0]; 2_048], 1).reweighted(|_, _, _| 1_024.0);
    assert_eq!(Gram::of(&heavy), Err(GramError::Overflow { item: 0 }));
}

#[test]
fn items_that_depend_on_each_other_are_told_with_too_small_a_lambda() {
    let twins = Interactions::from_rows(vec![vec![0, 2]; 50], 3);
    let error = Ease::fit(&twins, EaseOptions { lambda: 1e-5, ..EaseOptions::default() }).expect_err("dependent");
    assert_eq!(error, EaseError::Dependent { item: 2, lambda: 1e-5 });
    assert!(Ease::fit(&twins, EaseOptions { lambda: 0.1, ..EaseOptions::default() }).is_ok());
}

#[test]
fn who_was_never_added_cannot_be_removed_and_a_catalogue_grows() {
    let mut gram = Gram::of(&Interactions::from_rows([vec![0, 1]], 2)).expect("a matrix");
    let before = gram.clone();
    assert_eq!(gram.remove(&Interactions::from_rows([vec![0], vec![0]], 2)), Err(GramError::Absent { item: 0 }));
    assert_eq!(gram, before);
    gram.add(&Interactions::from_rows([vec![1, 3]], 4)).expect("within bounds");
    assert_eq!((gram.item_count(), gram.len()), (4, 5));
    assert_eq!((gram.get(1, 1), gram.get(3, 1), gram.get(0, 3), gram.get(9, 9)), (2.0, 1.0, 0.0, 0.0));
    gram.remove(&Interactions::from_rows([vec![1, 3], vec![0, 1]], 4)).expect("they were added");
    assert!(gram.is_empty());
}

#[test]
fn the_strongest_links_are_the_first_of_the_whole_order_whatever_their_sign() {
    let links: Vec<(u32, f32)> = (0..1_000).map(|item| (item, (item * 37 % 101) as f32 - 50.0)).collect();
    let mut whole: Vec<(u32, f32)> = links.iter().copied().filter(|link| link.1 != 0.0).collect();
    whole.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()).then(a.0.cmp(&b.0)));
    for count in [0, 1, 17, 64, 300, 2_000] {
        let mut expected = whole[..count.min(whole.len())].to_vec();
        expected.sort_by_key(|link| link.0);
        let mut kept = Vec::new();
        strongest(links.iter().copied(), count, &mut kept);
        assert_eq!(kept, expected, "{count}");
    }
}
