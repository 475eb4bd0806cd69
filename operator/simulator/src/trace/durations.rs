//! How long calls of a service take.

use std::{collections::HashMap, path::Path, sync::Arc};

use super::{TraceError, counts::key, rows::Rows};

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

/// A distribution of durations by seven of its quantiles, straight between them.
#[derive(Debug, Clone, PartialEq)]
pub struct Durations([f64; 7]);

impl Durations {
    /// By the quantiles 0, 0.01, 0.25, 0.5, 0.75, 0.99 and 1, in milliseconds.
    pub fn new(quantiles_ms: [f64; 7]) -> Self {
        Self(quantiles_ms.map(|ms| ms * 1_000.0))
    }

    /// The duration in microseconds that a part (0 to 1) of calls does not exceed.
    pub fn at(&self, part: f64) -> f64 {
        let upper = KNOTS[1..6].iter().position(|(knot, _)| part < *knot).map_or(6, |place| place + 1);
        let ((from, _), (to, _)) = (KNOTS[upper - 1], KNOTS[upper]);
        let along = (part - from) / (to - from);
        self.0[upper - 1] + along * (self.0[upper] - self.0[upper - 1])
    }
}

pub(super) fn read(path: &Path, into: &mut HashMap<String, Arc<Durations>>) -> Result<(), TraceError> {
    let mut rows = Rows::open(path)?;
    let header = rows.next()?.unwrap_or_default().to_owned();
    let columns: Vec<&str> = header.split(',').map(str::trim).collect();
    let mut places = [0; 7];
    for (place, (_, name)) in places.iter_mut().zip(KNOTS) {
        let found = columns.iter().position(|column| *column == name);
        *place = found.ok_or_else(|| rows.fault(format!("has no column {name}")))?;
    }
    let named = key(&columns);
    while let Some(line) = rows.next()? {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let mut quantiles = [0.0; 7];
        let mut wrong = (fields.len() != columns.len())
            .then(|| format!("has {} fields; the header has {}", fields.len(), columns.len()));
        for ((quantile, place), (_, name)) in quantiles.iter_mut().zip(places).zip(KNOTS) {
            let field = fields.get(place).copied().unwrap_or_default();
            match field.parse::<f64>() {
                Ok(ms) if ms >= 0.0 && ms.is_finite() => *quantile = ms,
                _ => wrong = wrong.or_else(|| Some(format!("{name} is '{field}'; milliseconds are needed"))),
            }
        }
        let name = fields.get(named).copied().unwrap_or_default().to_owned();
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
    }
}
