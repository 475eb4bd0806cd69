//! How lists are made, beside the model.

use echotune_model::{PolicyChange, ServedModel};

/// What ranking obeys. Experiments change it for those who take part.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// Weight of popularity beside co-listening, per unit of popularity; that of the hottest item is 1.
    pub trending_weight: f64,
    /// Tracks of one artist in a list at the most; 0 for no limit.
    pub max_per_artist: u32,
    /// Places of a list given to items further down.
    pub exploration_slots: u32,
    /// Which model serves.
    pub model: ServedModel,
    /// What calibration adds to an item at the most, as a share of the best score; 0 for no calibration.
    pub diversity_weight: f64,
}

impl Default for Policy {
    /// Popularity breaks ties, and is all there is without history and tags.
    fn default() -> Self {
        Self {
            trending_weight: 1e-3,
            max_per_artist: 0,
            exploration_slots: 0,
            model: ServedModel::Current,
            diversity_weight: 0.0,
        }
    }
}

impl Policy {
    /// The same with another weight of popularity.
    pub(crate) const fn with_trending(self, trending_weight: f64) -> Self {
        Self { trending_weight, ..self }
    }

    /// The same but for what a variant changes.
    pub(crate) fn with(self, change: &PolicyChange) -> Self {
        Self {
            trending_weight: change.trending_weight.unwrap_or(self.trending_weight),
            max_per_artist: change.max_per_artist.unwrap_or(self.max_per_artist),
            exploration_slots: change.exploration_slots.unwrap_or(self.exploration_slots),
            model: change.model.unwrap_or(self.model),
            diversity_weight: change.diversity_weight.unwrap_or(self.diversity_weight),
        }
    }
}
