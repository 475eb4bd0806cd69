//! A service per row, and how many calls came in each minute.

use std::{collections::HashMap, path::Path, sync::Arc};

use super::{
    Arrivals, Durations, Service, Told, TraceError,
    fields::{Row, is_hole},
    kind::first_minute,
    rows::Rows,
};

const MINUTE_MS: u64 = 60_000;

/// What is told of a file with minutes of which nothing is known.
pub(super) const HOLES: &str = "has minutes without a number, in which no calls are taken to have come";

/// How long calls take, by the names of services.
pub(super) type ByName = HashMap<String, Arc<Durations>>;

/// Where things are in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    /// Of the name, and of the first minute.
    name: usize,
    first: usize,
    pub(super) minutes: usize,
    /// Of what tells services apart.
    keys: Vec<usize>,
}

/// One row.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) name: String,
    pub(super) counts: Vec<u32>,
    /// Minutes of which nothing is known.
    pub(super) holes: usize,
}

/// The column of a name among those before numbers: the function's where there is one.
pub(super) fn key(columns: &[String]) -> usize {
    let place =
        |names: &[&str]| columns.iter().position(|column| names.iter().any(|name| column.eq_ignore_ascii_case(name)));
    place(&["HashFunction"]).or_else(|| place(&["function", "func", "function_name", "function_id"])).unwrap_or(0)
}

impl Shape {
    /// Of a header.
    pub(super) fn of(columns: &[String]) -> Option<Self> {
        let first = first_minute(columns)?;
        // A function that is called otherwise is still the same.
        let keys = (0..first).filter(|at| !columns[*at].eq_ignore_ascii_case("Trigger")).collect();
        Some(Self { name: key(&columns[..first]), first, minutes: columns.len() - first, keys })
    }

    /// What tells the service of a row from others.
    pub(super) fn key(&self, row: Row<'_>) -> String {
        let fields: Vec<_> = row.fields().take(self.first).collect();
        let keys: Vec<&str> = self.keys.iter().filter_map(|at| fields.get(*at)).map(|field| &**field).collect();
        keys.join("/")
    }

    pub(super) fn read(&self, row: Row<'_>) -> Result<Counted, String> {
        let mut counts = Vec::with_capacity(self.minutes);
        let (mut name, mut holes) = (String::new(), 0);
        for (place, field) in row.fields().enumerate() {
            if place < self.first {
                if place == self.name {
                    name = field.into_owned();
                }
                continue;
            }
            let minute = place - self.first + 1;
            if minute > self.minutes && field.is_empty() {
                // Some programs end each line with a separator.
                continue;
            }
            if let Some(count) = count(&field) {
                counts.push(count);
            } else if is_hole(&field) {
                holes += 1;
                counts.push(0);
            } else {
                return Err(format!("minute {minute} is '{field}'; a number of calls is needed"));
            }
        }
        if counts.len() != self.minutes {
            return Err(format!("has {} minutes; the header has {}", counts.len(), self.minutes));
        }
        if self.first == 0 {
            name = format!("line {}", row.line);
        }
        Ok(Counted { name, counts, holes })
    }
}

/// A whole number, or one that some programs write with a point.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be a number of calls")]
fn count(field: &str) -> Option<u32> {
    let fraction = || field.parse::<f64>().ok().filter(|calls| (0.0..=f64::from(u32::MAX)).contains(calls));
    field.parse().ok().or_else(|| fraction().map(|calls| calls.round() as u32))
}

/// A file and its header.
pub(super) fn opened(path: &Path) -> Result<(Rows, Shape), TraceError> {
    let mut rows = Rows::open(path)?;
    let shape = rows.next()?.and_then(|header| Shape::of(&header.names()));
    match shape {
        Some(shape) => Ok((rows, shape)),
        None => Err(rows.fault("is no header of counts per minute any more; was the file changed meanwhile?")),
    }
}

/// The services of one file.
#[derive(Debug)]
pub(super) struct Counts<'a> {
    rows: Rows,
    shape: Shape,
    durations: &'a ByName,
    told: &'a Told,
}

impl<'a> Counts<'a> {
    pub(super) fn open(path: &Path, durations: &'a ByName, told: &'a Told) -> Result<Self, TraceError> {
        let (rows, shape) = opened(path)?;
        Ok(Self { rows, shape, durations, told })
    }

    /// The next one.
    pub(super) fn service(&mut self) -> Result<Option<Service>, TraceError> {
        let Some(row) = self.rows.next()? else { return Ok(None) };
        let counted = self.shape.read(row).map_err(|what| self.rows.fault(what))?;
        if counted.holes > 0 {
            self.told.add(&self.rows.path, HOLES);
        }
        Ok(Some(of_minutes(counted.name, counted.counts, self.durations)))
    }
}

pub(super) fn of_minutes(name: String, counts: Vec<u32>, durations: &ByName) -> Service {
    let durations = durations.get(&name).cloned();
    Service { name, arrivals: Arrivals::Counts { bin_ms: MINUTE_MS, counts }, durations, series: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(text: &str) -> Row<'_> {
        Row { text, separator: ',', line: 2 }
    }

    #[test]
    fn rows_of_minutes_are_read_however_they_are_written() {
        let shape = |header: &str| Shape::of(&row(header).names()).unwrap();
        let azure = shape("HashOwner,HashApp,HashFunction,Trigger,1,2,3");
        assert_eq!(azure.key(row("o,a,f,http,1,2,3")), "o/a/f");
        assert_eq!(azure.read(row("o,a,f,http,1,0,3")).unwrap().name, "f");
        let read = |text: &str| shape("f,0,1,2").read(row(text));
        assert_eq!(read("x,7,2.0,2.6").unwrap().counts, [7, 2, 3], "the minute 0 is a minute too");
        assert_eq!(read("x,7,,nan").unwrap(), Counted { name: "x".into(), counts: vec![7, 0, 0], holes: 2 });
        assert_eq!(read("x,7,2,3,").unwrap().counts, [7, 2, 3]);
        assert!(read("x,7,2,-1").unwrap_err().contains("minute 3 is '-1'"));
        assert!(read("x,7,2,3,4").unwrap_err().contains("has 4 minutes; the header has 3"));
        assert_eq!(shape("0,1,2,3").read(row("4,5,6,7")).unwrap().name, "line 2");
        assert_eq!(shape("app,function,1,2").read(row("a,f,1,2")).unwrap().name, "f");
    }
}
