//! Policies by name: `kpa`, `kpa-keep5`, `kpa-t55-keep5`, `hpa-t60`, `keda`, `ours`, `ours-p60`.

use std::{fmt, str::FromStr};

use thiserror::Error;

use crate::{
    rule::{
        Rule,
        hpa::{self, Concurrency},
        keda::Keda,
        kpa::Kpa,
        ours::Ours,
    },
    sim::Setting,
};

/// Utilisation that autoscalers aim for unless told otherwise, in percent: Knative's default, and taken for the
/// external metric of HPA and KEDA too, which have none.
const TARGET: u32 = 70;

/// Which rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// EchoTune's autoscaler.
    Ours,
    /// Knative's.
    Kpa,
    /// Kubernetes'.
    Hpa,
    /// KEDA over the latter.
    Keda,
}

/// A rule with what it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Which rule.
    pub family: Family,
    /// Utilisation that it aims for, in percent. Ours has none.
    pub target: u32,
    /// Minutes that the last pod is kept without calls (`scale-to-zero-pod-retention-period`), where that was said.
    pub keep: Option<u32>,
    /// Price of a slow call in pod-seconds, where that was said.
    pub price: Option<u32>,
}

/// A name that is no policy's.
#[derive(Debug, Error)]
#[error(
    "'{0}' is no policy; ours, kpa, hpa and keda are, with -tPERCENT (kpa, hpa, keda), -keepMINUTES (kpa) or \
     -pPOD_SECONDS (ours), such as kpa-t55-keep5"
)]
pub struct UnknownPolicy(String);

impl FromStr for Policy {
    type Err = UnknownPolicy;

    fn from_str(name: &str) -> Result<Self, UnknownPolicy> {
        let unknown = || UnknownPolicy(name.to_owned());
        // Lists are often written with a space after each comma.
        let mut parts = name.trim().split('-');
        let family = match parts.next() {
            Some("ours") => Family::Ours,
            Some("kpa") => Family::Kpa,
            Some("hpa") => Family::Hpa,
            Some("keda") => Family::Keda,
            _ => return Err(unknown()),
        };
        let mut policy = Self::plain(family);
        for part in parts {
            let number = |text: &str, most| text.parse().ok().filter(|number| (0..=most).contains(number));
            let (keep, price, target) = (part.strip_prefix("keep"), part.strip_prefix('p'), part.strip_prefix('t'));
            match (family, keep, price, target) {
                (Family::Kpa, Some(minutes), ..) => policy.keep = Some(number(minutes, 10_080).ok_or_else(unknown)?),
                (Family::Ours, _, Some(price), _) => policy.price = Some(number(price, 1_000_000).ok_or_else(unknown)?),
                (Family::Kpa | Family::Hpa | Family::Keda, .., Some(percent)) => {
                    policy.target = number(percent, 100).filter(|percent| *percent > 0).ok_or_else(unknown)?;
                }
                _ => return Err(unknown()),
            }
        }
        Ok(policy)
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self.family {
            Family::Ours => "ours",
            Family::Kpa => "kpa",
            Family::Hpa => "hpa",
            Family::Keda => "keda",
        })?;
        if self.target != TARGET {
            write!(out, "-t{}", self.target)?;
        }
        if let Some(minutes) = self.keep {
            write!(out, "-keep{minutes}")?;
        }
        self.price.map_or(Ok(()), |price| write!(out, "-p{price}"))
    }
}

impl Policy {
    const fn plain(family: Family) -> Self {
        Self { family, target: TARGET, keep: None, price: None }
    }

    /// A fresh rule.
    pub fn rule(&self, setting: &Setting) -> Box<dyn Rule> {
        let (concurrency, utilization) = (setting.concurrency, f64::from(self.target) / 100.0);
        let most = setting.most_pods;
        let target = f64::from(concurrency) * utilization;
        match self.family {
            Family::Ours => Box::new(Ours::new(Ours::policy(concurrency, most, setting.slow_ms, self.price))),
            Family::Kpa => {
                let keep_ms = u64::from(self.keep.unwrap_or(0)) * 60_000;
                Box::new(Kpa::new(concurrency, utilization, keep_ms, most))
            }
            Family::Hpa => {
                let spec = hpa::Spec { max: most, ..hpa::Spec::default() };
                Box::new(Concurrency::new(spec, target))
            }
            Family::Keda => Box::new(Keda::new(most, target)),
        }
    }

    /// This policy over the range of what it may be told, itself among them: the price of a slow call for ours, the
    /// utilisation for the others and, for Knative's, the minutes that the last pod is kept unless they were said.
    pub fn sweep(&self) -> Vec<Self> {
        const TARGETS: [u32; 6] = [25, 40, 55, 70, 85, 100];
        const KEEPS: [u32; 5] = [0, 2, 5, 15, 60];
        const PRICES: [u32; 8] = [3, 10, 30, 100, 300, 1_000, 3_000, 10_000];
        let mut swept: Vec<Self> = match self.family {
            Family::Ours => PRICES.map(|price| Self { price: Some(price), ..*self }).to_vec(),
            Family::Kpa if self.keep.is_none() => TARGETS
                .iter()
                .flat_map(|target| {
                    KEEPS.map(|keep| Self { target: *target, keep: (keep > 0).then_some(keep), ..*self })
                })
                .collect(),
            _ => TARGETS.map(|target| Self { target, ..*self }).to_vec(),
        };
        if !swept.contains(self) {
            swept.push(*self);
        }
        swept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in ["ours", "ours-p60", "kpa", "kpa-keep5", "kpa-t55-keep5", "hpa", "hpa-t60", "keda"] {
            assert_eq!(name.parse::<Policy>().unwrap().to_string(), name);
        }
        assert_eq!(" kpa-t55 ".parse::<Policy>().unwrap().to_string(), "kpa-t55");
        for name in ["", "vpa", "ours-t50", "hpa-keep5", "kpa-t0", "kpa-t101", "kpa-keep", "kpa-x"] {
            assert!(name.parse::<Policy>().is_err(), "{name}");
        }
    }

    #[test]
    fn a_sweep_holds_its_default() {
        for name in ["ours", "kpa", "kpa-keep5", "hpa", "keda"] {
            let policy: Policy = name.parse().unwrap();
            let swept = policy.sweep();
            assert_eq!(swept.iter().filter(|one| **one == policy).count(), 1, "{name}");
            assert!(swept.len() > 5, "{name}");
        }
    }
}
