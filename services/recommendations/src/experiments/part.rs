//! Who takes part in what: pure.

use std::{ops::Range, sync::Arc};

use echotune_engine::trials::{
    InvalidInput,
    assignment::{SLOTS, Split},
};
use echotune_model::{Experiment, ExperimentKind, Exposure, UserId};

use crate::{policy::Policy, store::Served};

/// All experiments share one layer: a listener takes part in one at the most.
const LAYER: &[u8] = b"recommend";

/// An experiment that runs.
#[derive(Debug)]
pub(crate) struct Running {
    experiment: Experiment,
    split: Split,
    /// By variant.
    policies: Vec<Policy>,
}

/// The part that a listener takes.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    running: Arc<Running>,
    /// By its place; 0 when variants are interleaved.
    variant: usize,
    /// The chance of a listener who takes part to have this variant.
    propensity: f64,
}

impl Running {
    pub(super) fn new(experiment: Experiment, base: Policy) -> Result<Self, InvalidInput> {
        let spec = &experiment.spec;
        let slots = slots_of(&experiment);
        let weights: Vec<u32> = spec.variants.iter().map(|variant| variant.weight).collect();
        let split = Split::new(spec.name.as_bytes(), LAYER, slots, &weights)?;
        let policies = spec.variants.iter().map(|variant| base.with(&variant.change)).collect();
        Ok(Self { experiment, split, policies })
    }

    pub(super) const fn experiment(&self) -> &Experiment {
        &self.experiment
    }

    pub(super) fn policies(&self) -> &[Policy] {
        &self.policies
    }

    pub(super) fn part_of(self: &Arc<Self>, user: UserId) -> Option<Part> {
        let assigned = self.split.assign(user.0.as_bytes())?;
        let running = Arc::clone(self);
        Some(match self.experiment.spec.kind {
            ExperimentKind::Split => Part { running, variant: assigned.variant, propensity: assigned.propensity },
            ExperimentKind::Interleaving => Part { running, variant: 0, propensity: 1.0 },
        })
    }
}

impl Part {
    /// By what the listener's lists are made; by what the control's are when variants are interleaved.
    pub(crate) fn policy(&self) -> &Policy {
        &self.running.policies[self.variant]
    }

    /// The policies that are interleaved, if they are.
    pub(super) fn interleaved(&self) -> Option<(&Policy, &Policy)> {
        match (self.running.experiment.spec.kind, self.running.policies.as_slice()) {
            (ExperimentKind::Interleaving, [first, second, ..]) => Some((first, second)),
            _ => None,
        }
    }

    #[cfg(feature = "cache")]
    pub(crate) fn is_interleaved(&self) -> bool {
        self.interleaved().is_some()
    }

    pub(super) fn variant_name(&self, place: usize) -> &str {
        &self.running.experiment.spec.variants[place].name
    }

    pub(crate) fn exposure(&self) -> Exposure {
        let experiment = self.running.experiment.spec.name.clone();
        let whole = self.interleaved().is_none();
        let variant = if whole { self.variant_name(self.variant).to_owned() } else { String::new() };
        Exposure { experiment, variant, propensity: self.propensity }
    }

    /// What is kept of a list of which every item was certain.
    pub(crate) fn served(&self) -> Served {
        Served {
            experiment: self.running.experiment.spec.name.clone(),
            variant: u8::try_from(self.variant).expect("few variants"),
            share: self.propensity,
            propensities: Vec::new(),
            teams: Vec::new(),
            explored: Vec::new(),
        }
    }

    pub(super) fn is_slow(&self, took: std::time::Duration) -> bool {
        took.as_millis() > u128::from(self.running.experiment.spec.slow_list_ms)
    }
}

/// The slots of an experiment in the traffic.
fn slots_of(experiment: &Experiment) -> Range<u32> {
    experiment.first_slot..experiment.first_slot.saturating_add(experiment.spec.share)
}

/// The first of `share` slots side by side that no other experiment has; how many are free when there are
/// none.
pub(super) fn free_slot(running: &[Arc<Running>], share: u32) -> Result<u32, u32> {
    let mut taken: Vec<Range<u32>> = running.iter().map(|one| slots_of(&one.experiment)).collect();
    taken.push(SLOTS..SLOTS);
    taken.sort_unstable_by_key(|slots| slots.start);
    let (mut at, mut most) = (0, 0);
    for slots in taken {
        let free = slots.start.saturating_sub(at);
        if free >= share {
            return Ok(at);
        }
        most = most.max(free);
        at = at.max(slots.end);
    }
    Err(most)
}
