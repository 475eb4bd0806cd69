//! What the store keeps for experiments.

use echotune_engine::trials::{InvalidInput, sequence::Moments};
use echotune_model::{Evidence, Experiment, Hlc, ItemId, UserId};
use serde::{Deserialize, Serialize};

/// Numbers that describe an item to explore.
pub const FEATURES: usize = 5;
/// What 1 is among features and shares: they are kept as whole numbers, so that what is taken away again
/// leaves nothing behind.
pub const ONE: u32 = 1 << 16;

/// How a list was made, as it is kept with its impression.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Served {
    /// Name of the experiment.
    pub experiment: String,
    /// The variant by its place; 0 when variants are interleaved.
    pub variant: u8,
    /// The chance of a listener who takes part to have this variant.
    pub share: f64,
    /// The chance of each item to take its place, given those before; empty when all are 1.
    #[serde(default)]
    pub propensities: Vec<f64>,
    /// When variants are interleaved: the place of the variant that each item was drawn from, 0 or 1.
    #[serde(default)]
    pub teams: Vec<u8>,
    /// What was explored: the place in the list and its features, where 1 is [`ONE`].
    #[serde(default)]
    pub explored: Vec<(u16, [u32; FEATURES])>,
}

impl Served {
    /// The same of those of `items` that were shown, in the order of `shown`; none when something was
    /// shown that is not among them.
    pub fn of(&self, items: &[ItemId], shown: &[ItemId]) -> Option<Self> {
        let places = shown.iter().map(|item| items.iter().position(|one| one == item));
        let places: Vec<usize> = places.collect::<Option<_>>()?;
        let at = |place: usize| places.iter().position(|one| *one == place).and_then(|now| u16::try_from(now).ok());
        let explored = self.explored.iter().filter_map(|(place, x)| Some((at(usize::from(*place))?, *x)));
        Some(Self {
            propensities: picked(&self.propensities, &places),
            teams: picked(&self.teams, &places),
            explored: explored.collect(),
            ..self.clone()
        })
    }

    /// The chance of the item at a place.
    pub fn propensity(&self, place: usize) -> f64 {
        self.propensities.get(place).copied().unwrap_or(1.0)
    }

    /// Whether the list was drafted from two.
    pub const fn is_interleaved(&self) -> bool {
        !self.teams.is_empty()
    }
}

fn picked<T: Copy>(all: &[T], places: &[usize]) -> Vec<T> {
    places.iter().filter_map(|place| all.get(*place).copied()).collect()
}

/// Lists made for a listener, since they were last noted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListNote {
    /// For whom.
    pub user: UserId,
    /// Name of the experiment.
    pub experiment: String,
    /// The variant by its place; 0 when variants are interleaved.
    pub variant: u8,
    /// Lists made.
    pub lists: u64,
    /// Those with nothing in them.
    pub empty: u64,
    /// Those that were slow.
    pub slow: u64,
}

/// A share over listeners, as sums where 1 is 2^32: each listener is a number between 0 and 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shares {
    /// Listeners.
    pub count: u64,
    /// Σ x.
    pub sum: u128,
    /// Σ x².
    pub squares: u128,
}

impl Shares {
    /// Σ x, rounded down: how many are 1 where every x is 0 or 1.
    pub fn whole(&self) -> u64 {
        u64::try_from(self.sum >> 32).unwrap_or(u64::MAX)
    }

    /// The same as moments of real numbers.
    ///
    /// # Errors
    /// The sums are not of shares.
    #[expect(clippy::cast_precision_loss, reason = "rounded once, at the end")]
    pub fn moments(&self) -> Result<Moments, InvalidInput> {
        if self.count == 0 {
            return Ok(Moments::default());
        }
        let (count, one) = (u128::from(self.count), (1_u64 << 32) as f64);
        let mean = self.sum as f64 / count as f64 / one;
        // Exact in whole numbers below 2^31 listeners; n Σx² is never below (Σx)².
        let spread = count.saturating_mul(self.squares).saturating_sub(self.sum.saturating_mul(self.sum));
        Moments::from_parts(self.count, mean, spread as f64 / count as f64 / one / one)
    }
}

/// What was counted of one variant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ArmSums {
    /// Listeners to whom a list was shown.
    pub listeners: u64,
    /// Lists shown.
    pub impressions: u64,
    /// Items shown; when interleaving, those drawn from this variant. So below.
    pub items: u64,
    /// Of them liked or played afterwards.
    pub accepted: u64,
    /// Of them disliked or skipped afterwards.
    pub refused: u64,
    /// Lists made.
    pub lists: u64,
    /// Lists made with nothing in them.
    pub empty_lists: u64,
    /// Lists made that were slow.
    pub slow_lists: u64,
    /// In the order of [`echotune_model::Metric::ALL`], of listeners whose window has passed.
    pub metrics: [Shares; 4],
    /// When interleaving: 1 for each listener who accepted more of the second variant, 0 for each who did of
    /// the first.
    pub preference: Shares,
}

/// An experiment as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// The experiment.
    pub experiment: Experiment,
    /// What its decision rested on, once it was stopped.
    #[serde(default)]
    pub evidence: Option<Evidence>,
}

/// What was learnt of items that were explored: sums where 1 is [`ONE`] squared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learnt {
    /// Explored items shown.
    pub count: u64,
    /// Σ x xᵀ.
    pub products: [[u64; FEATURES]; FEATURES],
    /// Σ x over those that were accepted, where 1 is [`ONE`].
    pub rewards: [u64; FEATURES],
}

impl Learnt {
    /// Adds an explored item that was shown, or takes it away.
    pub fn shown(&mut self, features: &[u32; FEATURES], add: bool) {
        let change = |sum: &mut u64, by: u64| *sum = if add { *sum + by } else { sum.saturating_sub(by) };
        change(&mut self.count, 1);
        for (row, a) in self.products.iter_mut().zip(features) {
            row.iter_mut().zip(features).for_each(|(sum, b)| change(sum, u64::from(*a) * u64::from(*b)));
        }
    }

    /// Adds that one was accepted, or takes it back.
    pub fn accepted(&mut self, features: &[u32; FEATURES], add: bool) {
        for (sum, x) in self.rewards.iter_mut().zip(features) {
            *sum = if add { *sum + u64::from(*x) } else { sum.saturating_sub(u64::from(*x)) };
        }
    }

    /// Adds what was learnt elsewhere.
    pub fn with(&mut self, part: &Self) {
        self.count += part.count;
        let sums = self.products.iter_mut().flatten().zip(part.products.iter().flatten());
        for (sum, by) in sums.chain(self.rewards.iter_mut().zip(&part.rewards)) {
            *sum += by;
        }
    }

    /// Takes away what is part of it.
    pub fn without(&mut self, part: &Self) {
        self.count = self.count.saturating_sub(part.count);
        let sums = self.products.iter_mut().flatten().zip(part.products.iter().flatten());
        for (sum, by) in sums.chain(self.rewards.iter_mut().zip(&part.rewards)) {
            *sum = sum.saturating_sub(*by);
        }
    }
}

/// An impression as it is to be kept.
#[derive(Debug, Clone)]
pub struct ShownAt {
    /// Of an experiment's list, how it was made.
    pub served: Option<Served>,
    /// When it was shown.
    pub at: Hlc,
}

impl From<Hlc> for ShownAt {
    fn from(at: Hlc) -> Self {
        Self { served: None, at }
    }
}
