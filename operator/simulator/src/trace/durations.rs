//! How long calls of a service take.

use std::{collections::HashMap, path::Path, sync::Arc};

use super::{TraceError, counts::key, fields::Row, rows::Rows};

/// Parts of calls whose durations are told, and the columns that tell them.
const KNOTS: [(f64, &str); 7] = [
    (0.0, "percentile_Average_0"),
    (0.01, "percentile_Average_1"),
    (0.25, "percentile_Average_25"),
    (0.5, "percentile_Average_50"),
    (0.75, "percentile_Average_75"),
    (0.99, "percentile_Average_99"),
    (1.0, "percentile_Average_100"),
];

/// Durations of one service that are kept at the most: so many say the same as all.
const KEPT: usize = 1 << 16;
/// Parts of calls by whose durations a mean is told.
const LOOKED_AT: u32 = 400;

/// A distribution of durations.
#[derive(Debug, Clone, PartialEq)]
pub struct Durations(Known);

/// In microseconds.
#[derive(Debug, Clone, PartialEq)]
enum Known {
    /// Seven quantiles, straight between them.
    Quantiles([f64; 7]),
    /// Those of calls that were seen, in order, and none between them.
    Seen(Box<[f32]>),
}

impl Durations {
    /// By the quantiles 0, 0.01, 0.25, 0.5, 0.75, 0.99 and 1, in milliseconds.
    pub fn new(quantiles_ms: [f64; 7]) -> Self {
        Self(Known::Quantiles(quantiles_ms.map(|ms| ms * 1_000.0)))
    }

    /// By durations of calls, in microseconds; none of none.
    pub fn seen(mut durations_us: Vec<f32>) -> Option<Self> {
        if durations_us.is_empty() {
            return None;
        }
        durations_us.sort_by(f32::total_cmp);
        let count = durations_us.len();
        if count > KEPT {
            // The middle of each of as many parts.
            durations_us = (0..KEPT).map(|at| durations_us[(2 * at + 1) * count / (2 * KEPT)]).collect();
        }
        Some(Self(Known::Seen(durations_us.into())))
    }

    /// The duration in microseconds that a part (0 to 1) of calls does not exceed.
    pub fn at(&self, part: f64) -> f64 {
        match &self.0 {
            Known::Quantiles(quantiles) => Self::between(quantiles, part),
            Known::Seen(seen) => {
                #[expect(
                    clippy::cast_precision_loss,
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a place among few"
                )]
                let place = (part.max(0.0) * seen.len() as f64) as usize;
                f64::from(seen[place.min(seen.len() - 1)])
            }
        }
    }

    /// The mean in microseconds of durations that end at `limit_us`, about.
    pub fn mean_us(&self, limit_us: f64) -> f64 {
        let parts = (0..LOOKED_AT).map(|at| (f64::from(at) + 0.5) / f64::from(LOOKED_AT));
        parts.map(|part| self.at(part).min(limit_us)).sum::<f64>() / f64::from(LOOKED_AT)
    }

    fn between(quantiles: &[f64; 7], part: f64) -> f64 {
        let upper = KNOTS[1..6].iter().position(|(knot, _)| part < *knot).map_or(6, |place| place + 1);
        let ((from, _), (to, _)) = (KNOTS[upper - 1], KNOTS[upper]);
        let along = (part - from) / (to - from);
        quantiles[upper - 1] + along * (quantiles[upper] - quantiles[upper - 1])
    }
}

pub(super) fn read(path: &Path, into: &mut HashMap<String, Arc<Durations>>) -> Result<(), TraceError> {
    let mut rows = Rows::open(path)?;
    let columns = rows.next()?.map(Row::names).unwrap_or_default();
    let mut places = [0; 7];
    for (place, (_, name)) in places.iter_mut().zip(KNOTS) {
        let found = columns.iter().position(|column| column == name);
        *place = found.ok_or_else(|| rows.fault(format!("has no column {name}")))?;
    }
    let named = key(&columns);
    while let Some(row) = rows.next()? {
        let fields = row.names();
        let mut quantiles = [0.0; 7];
        let mut wrong = (fields.len() != columns.len())
            .then(|| format!("has {} fields; the header has {}", fields.len(), columns.len()));
        for ((quantile, place), (_, name)) in quantiles.iter_mut().zip(places).zip(KNOTS) {
            let field = fields.get(place).map_or("", String::as_str);
            match field.parse::<f64>() {
                Ok(ms) if ms >= 0.0 && ms.is_finite() => *quantile = ms,
                _ => wrong = wrong.or_else(|| Some(format!("{name} is '{field}'; milliseconds are needed"))),
            }
        }
        let name = fields.get(named).cloned().unwrap_or_default();
        if let Some(what) = wrong {
            return Err(rows.fault(what));
        }
        // Quantiles that a sample left out of order would make durations fall.
        for place in 1..quantiles.len() {
            quantiles[place] = quantiles[place].max(quantiles[place - 1]);
        }
        into.insert(name, Arc::new(Durations::new(quantiles)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_straight_between_their_quantiles() {
        let durations = Durations::new([1.0, 2.0, 10.0, 20.0, 40.0, 100.0, 200.0]);
        for (part, ms) in
            [(0.0, 1.0), (0.01, 2.0), (0.25, 10.0), (0.375, 15.0), (0.5, 20.0), (0.995, 150.0), (1.0, 200.0)]
        {
            assert!((durations.at(part) - ms * 1_000.0).abs() < 1e-6, "{part}: {}", durations.at(part));
        }
        // By halves: (1.5 + 24 · 6 + 25 · 15 + 25 · 30 + 24 · 70 + 150) / 100.
        assert!((durations.mean_us(1e9) / 1e3 - 31.005).abs() < 0.01, "{}", durations.mean_us(1e9));
        assert!((durations.mean_us(1.0) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn durations_that_were_seen_are_those_that_come() {
        let seen = Durations::seen(vec![30.0, 10.0, 20.0]).unwrap();
        for (part, us) in [(0.0, 10.0), (0.3, 10.0), (0.34, 20.0), (0.67, 30.0), (1.0, 30.0)] {
            assert_eq!(seen.at(part), us, "{part}");
        }
        assert!((seen.mean_us(1e9) - 20.0).abs() < 0.1);
        let many = Durations::seen((0..200_000_u32).map(|us| us as f32).collect()).unwrap();
        assert!((many.mean_us(1e9) / 100_000.0 - 1.0).abs() < 1e-3, "{}", many.mean_us(1e9));
        assert!(Durations::seen(Vec::new()).is_none());
    }
}
