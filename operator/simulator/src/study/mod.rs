//! Many services, policies and seeds: what came of each, and how they compare.

mod frontier;
mod policy;
mod statistics;
mod survey;

use std::{collections::BTreeMap, fmt};

use rayon::iter::{IntoParallelRefIterator as _, ParallelBridge as _, ParallelIterator as _};
use serde::Serialize;

pub use self::{
    frontier::{Comparison, Curve, Point, against, pareto},
    policy::{Family, Policy, UnknownPolicy},
    statistics::{Interval, interval, paired},
    survey::{Share, Survey},
};
use crate::{
    sim::{Measures, Setting, replay},
    trace::{Service, Trace, TraceError},
};

/// Services alike by how much they are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Fewer than 10 calls a day.
    Rare,
    /// 10 to 300 calls a day.
    Quiet,
    /// 300 to 5,000 calls a day.
    Mid,
    /// More than 5,000 calls a day.
    Busy,
    /// Series over days.
    Series,
}

impl Class {
    /// The class of a service.
    pub fn of(service: &Service) -> Self {
        match service.calls_per_day() {
            _ if service.series => Self::Series,
            calls if calls < 10.0 => Self::Rare,
            calls if calls <= 300.0 => Self::Quiet,
            calls if calls <= 5_000.0 => Self::Mid,
            _ => Self::Busy,
        }
    }

    /// What it is called on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rare => "rare",
            Self::Quiet => "quiet",
            Self::Mid => "mid",
            Self::Busy => "busy",
            Self::Series => "series",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Rare => "rare (fewer than 10 calls a day)",
            Self::Quiet => "quiet (10 to 300 calls a day)",
            Self::Mid => "mid (300 to 5,000 calls a day)",
            Self::Busy => "busy (more than 5,000 calls a day)",
            Self::Series => "series",
        })
    }
}

/// What a study replays.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Under which policies.
    pub policies: Vec<Policy>,
    /// Under how many seeds, from 1.
    pub seeds: u64,
    /// How.
    pub setting: Setting,
    /// Services of each class at the most, the first of the trace.
    pub limit: Option<usize>,
    /// Only one part of so many, from 1: each `parts`-th service of the trace, so that a rule may be tuned on one part
    /// and judged on another.
    pub part: Part,
    /// Only these classes; none for all but the rare.
    pub class: Option<Class>,
    /// Counts are multiplied by it.
    pub scale: f64,
    /// Only that many days, from the beginning.
    pub days: Option<f64>,
}

/// Which of so many parts of a trace; `1/1` is all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    part: u16,
    parts: u16,
}

impl Part {
    /// All of it.
    pub const ALL: Self = Self { part: 1, parts: 1 };

    const fn takes(self, index: u64) -> bool {
        index % self.parts as u64 == self.part as u64 - 1
    }
}

/// What is no part, such as `3/2`.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is no part; 1/2 and 2/2 are, up to 1000/1000")]
pub struct UnknownPart(String);

impl std::str::FromStr for Part {
    type Err = UnknownPart;

    fn from_str(text: &str) -> Result<Self, UnknownPart> {
        let parsed = text.split_once('/').and_then(|(part, parts)| Some((part.parse().ok()?, parts.parse().ok()?)));
        match parsed {
            Some((part, parts)) if (1..=parts).contains(&part) && parts <= 1_000 => Ok(Self { part, parts }),
            _ => Err(UnknownPart(text.to_owned())),
        }
    }
}

/// The measures of one class: of each policy, of each seed.
pub type Measured = Vec<Vec<Measures>>;

/// Measures by class.
pub type Found = BTreeMap<Class, Measured>;

impl Plan {
    pub(crate) fn takes(&self, index: u64, class: Class) -> bool {
        self.part.takes(index) && self.class.map_or(class != Class::Rare, |wanted| wanted == class)
    }

    pub(crate) fn prepared(&self, mut service: Service) -> Service {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "days in milliseconds")]
        if let Some(days) = self.days {
            service.arrivals.truncate((days * 8.64e7) as u64);
        }
        #[expect(clippy::float_cmp, reason = "1 is what nobody asked for")]
        if self.scale != 1.0 {
            service.arrivals.scale(self.scale);
        }
        service
    }

    /// Looks at all services that it would replay, without replaying them.
    ///
    /// # Errors
    ///
    /// [`TraceError`] of the first line found that cannot be read.
    pub fn survey(&self, trace: &Trace) -> Result<Survey, TraceError> {
        Survey::of(self, trace)
    }

    /// All services, as they are replayed, with their place and class, and whether they are replayed.
    fn sorted(&self, trace: &Trace) -> impl Iterator<Item = Result<(u64, Class, Service, bool), TraceError>> + Send {
        let mut taken = BTreeMap::<Class, usize>::new();
        (0_u64..).zip(trace.services()).map(move |(index, service)| {
            let service = self.prepared(service?);
            let class = Class::of(&service);
            let count = taken.entry(class).or_default();
            let takes = self.takes(index, class) && self.limit.is_none_or(|limit| *count < limit);
            *count += usize::from(takes);
            Ok::<_, TraceError>((index, class, service, takes))
        })
    }

    /// Replays all services under all policies and seeds, in as many threads as the current pool has; what is found
    /// does not depend on their number. `done` hears of each replay.
    ///
    /// # Errors
    ///
    /// [`TraceError`] of the first line found that cannot be read.
    pub fn run(&self, trace: &Trace, done: &(dyn Fn() + Sync)) -> Result<Found, TraceError> {
        let services = self.sorted(trace).filter_map(|sorted| match sorted {
            Ok((index, class, service, takes)) => takes.then_some(Ok((index, class, service))),
            Err(error) => Some(Err(error)),
        });
        services
            .par_bridge()
            .map(|service| service.map(|(index, class, service)| (class, self.one(index, &service, done))))
            .try_fold(Found::new, |found, service| {
                let (class, measured) = service?;
                Ok(merged(found, Found::from([(class, measured)])))
            })
            .try_reduce(Found::new, |found, more| Ok(merged(found, more)))
    }

    fn one(&self, index: u64, service: &Service, done: &(dyn Fn() + Sync)) -> Measured {
        let seeds: Vec<u64> = (1..=self.seeds).collect();
        let under = |policy: &Policy| {
            let replayed = seeds.par_iter().map(|seed| {
                let mut rule = policy.rule(&self.setting);
                let measures = replay(service, index, rule.as_mut(), &self.setting, *seed);
                done();
                measures
            });
            replayed.collect()
        };
        self.policies.par_iter().map(under).collect()
    }
}

/// Sums of whole numbers, in any order.
fn merged(mut into: Found, from: Found) -> Found {
    for (class, measured) in from {
        match into.entry(class) {
            std::collections::btree_map::Entry::Vacant(vacant) => _ = vacant.insert(measured),
            std::collections::btree_map::Entry::Occupied(mut there) => {
                for (mine, others) in there.get_mut().iter_mut().flatten().zip(measured.iter().flatten()) {
                    mine.merge(others);
                }
            }
        }
    }
    into
}
