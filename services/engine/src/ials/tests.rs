use proptest::prelude::*;

use super::*;
use crate::{Interactions, Random, dense::Matrix};

const SMALL: Options = Options {
    factors: 12,
    iterations: 6,
    steps: 30,
    unobserved: 0.2,
    observed: 1.5,
    regularization: 0.02,
    exponent: 1.0,
    seed: 3,
};

/// Histories of tastes: items of one of five kinds, with weights. Some users and items have nothing.
fn world(users: usize, items: u32, seed: u64) -> Vec<Vec<(u32, f32)>> {
    let mut random = Random::new(seed);
    let mut row = |user: usize| {
        let count = if user % 7 == 3 { 0 } else { 2 + random.below(9) };
        let mut draw = || {
            let item = random.below(items as usize / 5) as u32 * 5 + user as u32 % 5;
            (item, 0.5 + random.unit() as f32 * 2.0)
        };
        (0..count).map(|_| draw()).collect::<Vec<_>>()
    };
    (0..users).map(&mut row).collect()
}

fn interactions(rows: &[Vec<(u32, f32)>], items: u32) -> Interactions {
    Interactions::from_weighted(rows.iter().map(|row| row.iter().copied()), items as usize).expect("weights")
}

fn fit(interactions: &Interactions, options: &Options) -> Model {
    Model::fit(interactions, options, &|_| {}).expect("options in range")
}

fn live(interactions: &Interactions) -> usize {
    (0..interactions.user_count()).filter(|row| !interactions.row(*row).is_empty()).count()
}

fn product(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// The solution of the normal equations of one row, by their definition and Gauss's elimination.
fn reference(entries: &[(u32, f64)], factors: &Matrix, live: usize, options: &Options) -> Vec<f64> {
    let size = factors.columns();
    let own = options.regularization * (options.unobserved * live as f64 + entries.len() as f64).powf(options.exponent);
    let mut rows = vec![vec![0.0; size + 1]; size];
    for (a, row) in rows.iter_mut().enumerate() {
        for item in 0..factors.rows() {
            let confidence = entries.iter().find(|(one, _)| *one as usize == item).map_or(0.0, |(_, c)| *c);
            let at = |k: usize| f64::from(factors.row(item)[k]);
            for (b, x) in row[..size].iter_mut().enumerate() {
                *x += (options.unobserved + confidence) * at(a) * at(b);
            }
            row[size] += confidence * at(a);
        }
        row[a] += own;
    }
    for pivot in 0..size {
        let row = rows[pivot].clone();
        for (at, other) in rows.iter_mut().enumerate().filter(|(at, _)| *at != pivot) {
            let factor = other[pivot] / row[pivot];
            other.iter_mut().zip(&row).for_each(|(x, y)| *x -= factor * y);
            assert!(at < size);
        }
    }
    (0..size).map(|at| rows[at][size] / rows[at][at]).collect()
}

/// The loss of the module's description, pair by pair.
fn loss(model: &Model, interactions: &Interactions) -> f64 {
    let options = model.options();
    let by_item = interactions.transposed();
    let mut sum = 0.0;
    for user in 0..interactions.user_count() {
        for item in 0..interactions.item_count() {
            let score = product(model.users().row(user), model.items().row(item));
            sum += options.unobserved * score * score;
        }
        for (item, weight) in interactions.entries(user) {
            let score = product(model.users().row(user), model.items().row(item as usize));
            sum += options.observed * f64::from(weight) * (1.0 - score).powi(2);
        }
    }
    for (factors, rows, others) in
        [(model.users(), interactions, live(&by_item)), (model.items(), &by_item, live(interactions))]
    {
        for row in 0..factors.rows() {
            let entries = rows.row(row).len() as f64;
            let own = (options.unobserved * others as f64 + entries).powf(options.exponent);
            sum += options.regularization * own * product(factors.row(row), factors.row(row));
        }
    }
    sum
}

#[test]
fn each_item_solves_its_normal_equations_and_the_loss_is_that_of_the_definition() {
    for exponent in [0.0, 0.7, 1.0] {
        let matrix = interactions(&world(60, 40, 1), 40);
        let model = fit(&matrix, &Options { exponent, ..SMALL });
        let by_item = matrix.transposed();
        for item in 0..by_item.user_count() {
            let entries: Vec<(u32, f64)> =
                by_item.entries(item).map(|(user, weight)| (user, 1.5 * f64::from(weight))).collect();
            let exact = reference(&entries, model.users(), live(&matrix), model.options());
            for (x, exact) in model.items().row(item).iter().zip(exact) {
                assert!((f64::from(*x) - exact).abs() < 1e-4, "item {item}: {x} {exact}");
            }
        }
        let exact = loss(&model, &matrix);
        assert!((model.loss() - exact).abs() < 1e-4 * exact, "{} {exact}", model.loss());
    }
}

#[test]
fn every_sweep_lowers_the_loss_and_few_steps_reach_nearly_that_of_exact_solutions() {
    let matrix = interactions(&world(400, 150, 2), 150);
    let losses = |steps| {
        let losses = std::cell::RefCell::new(Vec::new());
        let options = Options { factors: 24, iterations: 12, steps, ..SMALL };
        Model::fit(&matrix, &options, &|progress| losses.borrow_mut().push(progress.loss)).expect("options");
        losses.into_inner()
    };
    let (few, exact) = (losses(Options::default().steps), losses(40));
    for losses in [&few, &exact, &losses(1)] {
        assert_eq!(losses.len(), 12);
        assert!(losses.windows(2).all(|pair| pair[1] < pair[0] * (1.0 + 1e-6)), "{losses:?}");
    }
    assert!((few[11] - exact[11]).abs() < 5e-3 * exact[11], "{few:?} {exact:?}");
}

#[test]
fn a_fit_and_a_refit_are_the_same_to_the_bit_for_any_number_of_threads() {
    let matrix = interactions(&world(3_000, 700, 4), 700);
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        pool.install(|| {
            let model = fit(&matrix, &Options { factors: 20, steps: 3, ..SMALL });
            let again = model.refit(&matrix, model.options(), &|_| {}).expect("options");
            (model, again)
        })
    };
    assert_eq!(with(1), with(5));
}

#[test]
fn a_model_learns_who_likes_what() {
    let matrix = interactions(&world(300, 100, 5), 100);
    let model = fit(&matrix, &SMALL);
    let mut right = 0;
    for user in (0..300).filter(|user| user % 7 != 3) {
        let best = (0..100_u32).filter(|item| !matrix.row(user).contains(item));
        let best = best.max_by(|a, b| model.score(user, *a).total_cmp(&model.score(user, *b))).expect("items");
        right += usize::from(best as usize % 5 == user % 5);
    }
    assert!(right > 240, "{right}");
    assert_eq!((model.score(3, 1), model.score(999, 1), model.score(0, 100)), (0.0, 0.0, 0.0));
}

#[test]
fn a_model_without_someone_is_the_one_that_never_knew_them_and_a_refit_is_soon_as_good() {
    let rows = world(200, 60, 6);
    let full = interactions(&rows, 60);
    let erased = full.reweighted(|user, _, weight| if user == 8 { 0.0 } else { weight });
    let erased = Interactions::from_weighted((0..200).map(|user| erased.entries(user).collect::<Vec<_>>()), 60)
        .expect("weights");
    let mut never = rows.clone();
    never[8].clear();
    let fitted = fit(&erased, &SMALL);
    assert_eq!(fitted, fit(&interactions(&never, 60), &SMALL));
    assert_ne!(fitted.items(), fit(&full, &SMALL).items());

    // Whether the empty row is kept or taken out changes nothing but the rounding.
    never.remove(8);
    let without = fit(&interactions(&never, 60), &SMALL);
    for item in 0..60 {
        assert!((without.score(0, item) - fitted.score(0, item)).abs() < 1e-3);
    }

    let long = fit(&erased, &Options { iterations: 60, ..SMALL });
    let few = Options { iterations: 2, ..SMALL };
    let refit = fit(&full, &Options { iterations: 60, ..SMALL }).refit(&erased, &few, &|_| {}).expect("options");
    assert!(refit.loss() < fit(&erased, &few).loss());
    assert!((refit.loss() - long.loss()).abs() < 1e-2 * long.loss(), "{} {}", refit.loss(), long.loss());
    let error = refit.refit(&erased, &Options { factors: 8, ..SMALL }, &|_| {}).expect_err("other dimensions");
    assert_eq!(error, Error::Factors { found: 12, expected: 8 });
}

#[test]
fn a_refit_takes_in_new_users_and_items_and_drops_those_gone() {
    let before = fit(&interactions(&world(50, 40, 7), 40), &SMALL);
    for (users, items) in [(80, 60), (30, 20)] {
        let matrix = interactions(&world(users, items, 7), items);
        let after = before.refit(&matrix, &SMALL, &|_| {}).expect("options");
        assert_eq!((after.users().rows(), after.items().rows()), (users, items as usize));
        let fresh = fit(&matrix, &Options { iterations: 40, ..SMALL });
        assert!(after.loss() < fresh.loss() * 1.05, "{} {}", after.loss(), fresh.loss());
    }
}

#[test]
fn worlds_of_nothing_of_one_and_of_extremes_give_finite_models() {
    let cases: [Vec<Vec<(u32, f32)>>; 6] = [
        vec![],
        vec![vec![], vec![]],
        vec![vec![(0, 1.0)]],
        vec![vec![(1, 1.0), (2, 1.0)]; 30],
        vec![vec![(0, f32::MAX), (1, f32::MIN_POSITIVE)], vec![(1, f32::MAX)]],
        vec![vec![(0, 1.0)]; 1_000],
    ];
    for rows in cases {
        for items in [3, 200] {
            for options in [SMALL, Options { steps: 3, unobserved: 1e-6, regularization: 1e-6, observed: 1e3, ..SMALL }]
            {
                let matrix = interactions(&rows, items);
                let model = fit(&matrix, &options);
                let finite = |factors: &Matrix| factors.as_slice().iter().all(|x| x.is_finite());
                assert!(finite(model.users()) && finite(model.items()) && model.loss().is_finite(), "{rows:?}");
                let dead = model.items().row(items as usize - 1);
                assert!(items == 3 || dead.iter().all(|x| *x == 0.0));
                let fold = FoldIn::new(model.items(), &options).expect("a model");
                let folded = fold.fold(&[(0, 1.0), (1, f32::MAX), (77, 2.0), (900, 1.0)]).expect("weights");
                assert!(folded.factors().iter().all(|x| x.is_finite()));
                assert!(folded.without(&[1]).score(0).is_finite());
            }
        }
    }
    let nothing = fit(&Interactions::from_rows(Vec::<Vec<u32>>::new(), 0), &SMALL);
    assert_eq!((nothing.users().rows(), nothing.items().rows()), (0, 0));
    assert_eq!(
        FoldIn::new(nothing.items(), &SMALL).expect("a model").fold(&[(0, 1.0)]).expect("weights").score(0),
        0.0
    );
}

#[test]
fn options_out_of_range_and_bad_histories_are_named() {
    let matrix = interactions(&world(5, 10, 1), 10);
    for (options, message) in [
        (Options { factors: 0, ..SMALL }, "factors is 0; it is from 1 to 1024"),
        (Options { factors: 2_000, ..SMALL }, "factors is 2000; it is from 1 to 1024"),
        (Options { iterations: 0, ..SMALL }, "iterations is 0; it is from 1 to 1000"),
        (Options { steps: 0, ..SMALL }, "steps is 0; it is from 1 to 100"),
        (Options { unobserved: 0.0, ..SMALL }, "unobserved is 0; it is from 0.000001 to 1000"),
        (Options { observed: f64::INFINITY, ..SMALL }, "observed is inf; it is from 0.000001 to 1000"),
        (Options { regularization: f64::NAN, ..SMALL }, "regularization is NaN; it is from 0.000001 to 1000000"),
        (Options { exponent: -1.0, ..SMALL }, "exponent is -1; it is from 0 to 2"),
    ] {
        assert_eq!(Model::fit(&matrix, &options, &|_| {}).expect_err("refused").to_string(), message);
        assert_eq!(FoldIn::new(&Matrix::zeros(1, 12), &options).expect_err("refused").to_string(), message);
    }
    let fold = FoldIn::new(fit(&matrix, &SMALL).items(), &SMALL).expect("a model");
    for weight in [f32::NAN, f32::INFINITY, -1.0] {
        assert!(matches!(fold.fold(&[(1, weight)]), Err(Error::Weight { item: 1, .. })));
    }
    let error = fold.fold(&vec![(0, 1.0); 20_000]).expect_err("too long");
    assert_eq!(error, Error::History { entries: 20_000, most: 16_384 });
    let mut factors = Matrix::zeros(3, 12);
    factors.row_mut(2)[5] = f32::NAN;
    assert_eq!(FoldIn::new(&factors, &SMALL).expect_err("refused"), Error::NotFinite { item: 2 });
    assert_eq!(
        FoldIn::new(&Matrix::zeros(3, 5), &SMALL).expect_err("refused"),
        Error::Factors { found: 5, expected: 12 }
    );
}

/// Item factors of 50 items, the last ten without any.
fn factors(size: usize, seed: u64) -> Matrix {
    let mut random = Random::new(seed);
    let mut out = Matrix::zeros(50, size);
    for item in 0..40 {
        out.row_mut(item).iter_mut().for_each(|x| *x = random.normal() as f32 * 0.3);
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_fold_is_the_exact_solution_its_parts_sum_and_what_if_is_a_fold_of_the_rest(
        history in proptest::collection::vec((0..60_u32, 0.0..5.0_f32), 0..60),
        size in prop_oneof![Just(4_usize), Just(12), Just(32)],
        exponent in 0.0..2.0_f64,
        gone in proptest::collection::btree_set(0..60_u32, 0..8),
        unobserved in prop_oneof![Just(0.01), Just(0.3), Just(5.0)],
        seed in 0..1_000_u64,
    ) {
        let options = Options { factors: size, exponent, unobserved, ..SMALL };
        let items = factors(size, seed);
        let fold = FoldIn::new(&items, &options).expect("factors");
        let folded = fold.fold(&history).expect("weights");
        let exact = reference(folded.entries(), &items, 40, &options);
        for (x, exact) in folded.factors().iter().zip(&exact) {
            prop_assert!((f64::from(*x) - exact).abs() < 1e-5, "{} {}", x, exact);
        }
        let gone: Vec<u32> = gone.into_iter().collect();
        let rest: Vec<(u32, f32)> = history.iter().filter(|(item, _)| !gone.contains(item)).copied().collect();
        let (rest, without) = (fold.fold(&rest).expect("weights"), folded.without(&gone));
        for item in 0..55_u32 {
            let parts = folded.explain(item);
            prop_assert_eq!(parts.len(), folded.entries().len());
            let sum: f64 = parts.iter().map(|(_, part)| part).sum();
            prop_assert!((sum - folded.score(item)).abs() < 1e-10, "{} {}", sum, folded.score(item));
            if item < 50 {
                let served = product(&folded.factors(), items.row(item as usize));
                prop_assert!((sum - served).abs() < 1e-5, "{} {}", sum, served);
            }
            prop_assert!((without.score(item) - rest.score(item)).abs() < 1e-10);
        }
        prop_assert_eq!(without.factors(), rest.factors().iter().zip(without.factors()).map(|(a, b)| {
            if (a - b).abs() < 1e-6 { b } else { *a }
        }).collect::<Vec<_>>());
    }

    #[test]
    fn the_parts_are_those_of_the_inverse_of_the_normal_equations(
        history in proptest::collection::btree_map(0..40_u32, 0.1..5.0_f32, 1..30),
        seed in 0..1_000_u64,
    ) {
        let options = Options { factors: 12, ..SMALL };
        let items = factors(12, seed);
        let history: Vec<(u32, f32)> = history.into_iter().collect();
        let fold = FoldIn::new(&items, &options).expect("factors");
        let folded = fold.fold(&history).expect("weights");
        // The equations are linear in their right side: a part is the score of a solution in which one
        // past item alone is liked, and the confidences are as they are.
        for (item, part) in folded.explain(5) {
            let exact = inverse_product(&items, folded.entries(), item, 5, &options);
            prop_assert!((part - exact).abs() < 1e-5, "{} {}", part, exact);
        }
    }
}

/// `c_j · y_iᵀ W y_j`, as the derivative of the score by what item `j` was liked: the difference of two
/// solutions whose right sides differ by `c_j y_j`.
fn inverse_product(items: &Matrix, entries: &[(u32, f64)], j: u32, i: usize, options: &Options) -> f64 {
    let size = items.columns();
    // W y_j by conjugate gradients in f64 on the normal equations as they are defined.
    let own = options.regularization * (options.unobserved * 40.0 + entries.len() as f64).powf(options.exponent);
    let apply = |v: &[f64]| {
        let mut out: Vec<f64> = v.iter().map(|x| own * x).collect();
        for item in 0..items.rows() {
            let confidence = entries.iter().find(|(one, _)| *one as usize == item).map_or(0.0, |(_, c)| *c);
            let along: f64 = items.row(item).iter().zip(v).map(|(y, v)| f64::from(*y) * v).sum();
            for (out, y) in out.iter_mut().zip(items.row(item)) {
                *out += (options.unobserved + confidence) * along * f64::from(*y);
            }
        }
        out
    };
    let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    let mut x = vec![0.0; size];
    let mut residual: Vec<f64> = items.row(j as usize).iter().map(|y| f64::from(*y)).collect();
    let mut direction = residual.clone();
    for _ in 0..3 * size {
        let (image, before) = (apply(&direction), dot(&residual, &residual));
        if before < 1e-26 {
            break;
        }
        let length = before / dot(&direction, &image);
        for k in 0..size {
            x[k] += length * direction[k];
            residual[k] -= length * image[k];
        }
        let keep = dot(&residual, &residual) / before;
        direction = residual.iter().zip(&direction).map(|(r, p)| r + keep * p).collect();
    }
    let confidence = entries.iter().find(|(one, _)| *one == j).map_or(0.0, |(_, c)| *c);
    confidence * items.row(i).iter().zip(&x).map(|(y, x)| f64::from(*y) * x).sum::<f64>()
}
