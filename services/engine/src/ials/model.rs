use super::{Error, Options, kernel, sweep};
use crate::{
    Interactions, Random,
    dense::{Matrix, dot},
};

/// Where a fit is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Sweeps done, from 1.
    pub iteration: usize,
    /// Sweeps in all.
    pub iterations: usize,
    /// The loss after this sweep; see the [module](super).
    pub loss: f64,
}

/// Factors of users and items.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    users: Matrix,
    items: Matrix,
    options: Options,
    loss: f64,
}

/// Length of a first factor in standard deviations, before it is shared by the dimensions (Rendle et al.
/// 2021, section 4.3).
const FIRST_LENGTH: f64 = 0.1;

impl Model {
    /// Trains on interactions, from random item factors. Deterministic to the bit for a seed on one
    /// kind of processor, whatever the number of threads. Time O(iterations × (entries × d × steps +
    /// (users + items) × d² + d³)) with the last two as plain products; memory O((users + items) × d).
    ///
    /// # Errors
    /// An option out of its range.
    pub fn fit(interactions: &Interactions, options: &Options, progress: &dyn Fn(Progress)) -> Result<Self, Error> {
        Self::fit_from(None, interactions, options, progress)
    }

    /// Trains on interactions from the factors of this model, row by row: of users and items that it
    /// does not have, items start at random and users at zero; those beyond the interactions are
    /// dropped. Needs fewer sweeps than [`Self::fit`] for the same loss, and does not forget at once.
    ///
    /// # Errors
    /// An option out of its range; another number of factors than this model has.
    pub fn refit(
        &self,
        interactions: &Interactions,
        options: &Options,
        progress: &dyn Fn(Progress),
    ) -> Result<Self, Error> {
        if self.factors() != options.factors {
            return Err(Error::Factors { found: self.factors(), expected: options.factors });
        }
        Self::fit_from(Some(self), interactions, options, progress)
    }

    fn fit_from(
        earlier: Option<&Self>,
        interactions: &Interactions,
        options: &Options,
        progress: &dyn Fn(Progress),
    ) -> Result<Self, Error> {
        options.validate()?;
        let size = options.factors;
        let by_item = sweep::Side::new(interactions.transposed());
        let by_user = sweep::Side::new(interactions.clone());
        let width = size.next_multiple_of(kernel::LANES);
        let mut users = Matrix::zeros(interactions.user_count(), width);
        let mut items = Matrix::zeros(interactions.item_count(), width);
        start(&mut items, &by_item.rows, options);
        if let Some(earlier) = earlier {
            copy(&earlier.users, &mut users, &by_user.rows);
            copy(&earlier.items, &mut items, &by_item.rows);
        }
        let (mut users, mut items) = (sweep::Factors::new(users), sweep::Factors::new(items));
        let mut loss = 0.0;
        for iteration in 1..=options.iterations {
            let values = sweep::rotate(&mut items, &mut users, size);
            sweep::solve(&mut users.now, &items.now, &values, (&by_user, &by_item), options);
            let values = sweep::rotate(&mut users, &mut items, size);
            loss = sweep::solve(&mut items.now, &users.now, &values, (&by_item, &by_user), options)
                + sweep::penalty(&users.now, &by_user, by_item.live, options);
            progress(Progress { iteration, iterations: options.iterations, loss });
        }
        Ok(Self { users: narrow(&users.now, size), items: narrow(&items.now, size), options: *options, loss })
    }

    /// d, dimensions of the factors.
    pub const fn factors(&self) -> usize {
        self.items.columns()
    }

    /// The factors of users: users × d. Zero for those without interactions.
    pub const fn users(&self) -> &Matrix {
        &self.users
    }

    /// The factors of items: items × d. Zero for those without interactions.
    pub const fn items(&self) -> &Matrix {
        &self.items
    }

    /// What it was trained with.
    pub const fn options(&self) -> &Options {
        &self.options
    }

    /// The loss after the last sweep; see the [module](super).
    pub const fn loss(&self) -> f64 {
        self.loss
    }

    /// The score of an item for a user of the training data; 0 when the model does not know one of them.
    /// Time O(d).
    pub fn score(&self, user: usize, item: u32) -> f32 {
        if user >= self.users.rows() || item as usize >= self.items.rows() {
            return 0.0;
        }
        dot(self.users.row(user), self.items.row(item as usize))
    }
}

/// Random factors for the items that somebody knows. An item's depend on the seed and its number alone, so that
/// they are the same beside any other items.
fn start(items: &mut Matrix, by_item: &Interactions, options: &Options) {
    #[expect(clippy::cast_precision_loss, reason = "at most 1,024")]
    let length = FIRST_LENGTH / (options.factors as f64).sqrt();
    for item in (0..items.rows()).filter(|item| !by_item.row(*item).is_empty()) {
        let mut random = Random::new(Random::new(options.seed ^ (item as u64).rotate_left(32)).bits());
        for x in &mut items.row_mut(item)[..options.factors] {
            #[expect(clippy::cast_possible_truncation, reason = "factors are f32")]
            let draw = (length * random.normal()) as f32;
            *x = draw;
        }
    }
}

/// Copies the rows that both have and that are not empty.
fn copy(from: &Matrix, to: &mut Matrix, rows: &Interactions) {
    for row in (0..from.rows().min(to.rows())).filter(|row| !rows.row(*row).is_empty()) {
        // A row that was empty before has no factors yet: it starts as it is.
        if from.row(row).iter().any(|x| *x != 0.0) {
            to.row_mut(row)[..from.columns()].copy_from_slice(from.row(row));
        }
    }
}

/// Without the padding.
fn narrow(factors: &Matrix, size: usize) -> Matrix {
    let mut out = Matrix::zeros(factors.rows(), size);
    for row in 0..factors.rows() {
        out.row_mut(row).copy_from_slice(&factors.row(row)[..size]);
    }
    out
}
