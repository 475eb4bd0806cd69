//! A service per row, and how many calls came in each minute.

use std::{collections::HashMap, path::Path, sync::Arc};

use super::{Arrivals, Durations, Service, TraceError, kind::first_minute, rows::Rows};

const MINUTE_MS: u64 = 60_000;

#[derive(Debug)]
pub(super) struct Counts {
    rows: Rows,
    /// Of the name among the columns, and of the first minute.
    name: usize,
    first: usize,
    minutes: usize,
    durations: Arc<HashMap<String, Arc<Durations>>>,
    failed: bool,
}

/// The column of a name among those before numbers: the function's where there is one.
pub(super) fn key(columns: &[&str]) -> usize {
    columns.iter().position(|name| name.trim() == "HashFunction").unwrap_or(0)
}

impl Counts {
    pub(super) fn open(path: &Path, durations: Arc<HashMap<String, Arc<Durations>>>) -> Result<Self, TraceError> {
        let mut rows = Rows::open(path)?;
        let header = rows.next()?.unwrap_or_default().to_owned();
        let columns: Vec<&str> = header.split(',').map(str::trim).collect();
        let Some(first) = first_minute(&columns) else {
            return Err(rows.fault("is no header of counts per minute any more; was the file changed meanwhile?"));
        };
        let minutes = columns.len() - first;
        Ok(Self { name: key(&columns[..first]), first, minutes, rows, durations, failed: false })
    }

    fn service(&mut self) -> Result<Option<Service>, TraceError> {
        let (first, minutes, named) = (self.first, self.minutes, self.name);
        let Some(line) = self.rows.next()? else { return Ok(None) };
        let mut counts = Vec::with_capacity(minutes);
        let (mut name, mut wrong) = (String::new(), None);
        for (place, field) in line.split(',').enumerate() {
            if place == named {
                field.trim().clone_into(&mut name);
            } else if place >= first {
                match field.trim().parse() {
                    Ok(count) => counts.push(count),
                    Err(_) => {
                        wrong = Some((place - first + 1, field.to_owned()));
                        break;
                    }
                }
            }
        }
        if let Some((minute, field)) = wrong {
            return Err(self.rows.fault(format!("minute {minute} is '{field}'; a number of calls is needed")));
        }
        if counts.len() != minutes {
            let what = format!("has {} minutes; the header has {minutes}", counts.len());
            return Err(self.rows.fault(what));
        }
        let durations = self.durations.get(&name).cloned();
        Ok(Some(Service { name, arrivals: Arrivals::Counts { bin_ms: MINUTE_MS, counts }, durations, series: false }))
    }
}

impl Iterator for Counts {
    type Item = Result<Service, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.service().transpose();
        self.failed = matches!(next, Some(Err(_)));
        next
    }
}
