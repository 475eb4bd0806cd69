//! Which kind a file is of, by its first line.

use std::path::Path;

use super::{TraceError, clock, rows::Rows};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counts,
    Times,
    Series,
    Durations,
    Memory,
}

pub(super) fn of(path: &Path) -> Result<Kind, TraceError> {
    let mut rows = Rows::open(path)?;
    let Some(first) = rows.next()? else {
        return Err(TraceError::line(path, 1, "is missing: the file is empty"));
    };
    let columns: Vec<&str> = first.split(',').map(str::trim).collect();
    let has = |name: &str| columns.contains(&name);
    if has("percentile_Average_50") {
        return Ok(Kind::Durations);
    }
    if has("AverageAllocatedMb") {
        return Ok(Kind::Memory);
    }
    if first_minute(&columns).is_some() {
        return Ok(Kind::Counts);
    }
    let is_time =
        ["timestamp", "time", "ts", "date", "datetime"].iter().any(|name| columns[0].eq_ignore_ascii_case(name));
    if is_time && columns.len() == 2 && columns[1].eq_ignore_ascii_case("value") {
        return Ok(Kind::Series);
    }
    if is_time || clock::parse_us(columns[0]).is_some() {
        return Ok(Kind::Times);
    }
    let what = format!(
        "begins with '{}', which is no header that is known: columns 1,2,… or minute_1,minute_2,… after a key (counts per \
         minute), a first column timestamp (a call per row), or timestamp,value (a series)",
        columns[0].chars().take(40).collect::<String>()
    );
    Err(rows.fault(what))
}

/// The place of the column of the first minute, where all after it are the minutes that follow.
pub(super) fn first_minute(columns: &[&str]) -> Option<usize> {
    let minute = |name: &str| name.strip_prefix("minute_").unwrap_or(name).parse::<usize>().ok();
    let first = columns.iter().position(|name| minute(name) == Some(1))?;
    let follow = columns[first..].iter().zip(1..).all(|(name, expected)| minute(name) == Some(expected));
    (follow && first > 0).then_some(first)
}
