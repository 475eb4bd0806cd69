//! Which kind a file is of, by its first lines.

use std::path::Path;

use super::{
    TraceError,
    columns::{Role, role},
    layout::Layout,
    rows::Rows,
};

/// Rows that are looked at to know what the columns of a table hold.
const LOOKED_AT: usize = 64;

#[derive(Debug)]
pub(super) enum Kind {
    /// Rows of so many minutes.
    Counts(usize),
    Table(Layout),
    Durations,
    Memory,
}

pub(super) fn of(path: &Path) -> Result<Kind, TraceError> {
    let mut rows = Rows::open(path)?;
    let Some(first) = rows.next()? else {
        return Err(TraceError::line(path, 1, "is missing: the file is empty"));
    };
    let (line, columns) = (first.line, first.names());
    let has = |name: &str| columns.iter().any(|column| column == name);
    if has("percentile_Average_50") {
        return Ok(Kind::Durations);
    }
    if has("AverageAllocatedMb") {
        return Ok(Kind::Memory);
    }
    if let Some(first) = first_minute(&columns).filter(|first| !is_turned(&columns[..*first])) {
        return Ok(Kind::Counts(columns.len() - first));
    }
    let mut sample = vec![columns];
    // What is wrong further on is told when it is read.
    while sample.len() <= LOOKED_AT
        && let Ok(Some(row)) = rows.next()
    {
        sample.push(row.names());
    }
    Layout::of(&sample).map(Kind::Table).map_err(|what| TraceError::line(path, line, what))
}

/// The place of the column of the first minute, which is 0 or 1, where all after it are the minutes that follow.
pub(super) fn first_minute(columns: &[String]) -> Option<usize> {
    let minute = |name: &str| name.strip_prefix("minute_").unwrap_or(name).parse::<usize>().ok();
    let one = columns.iter().position(|name| minute(name) == Some(1))?;
    let zero = one.checked_sub(1).filter(|before| minute(&columns[*before]) == Some(0));
    let first = zero.unwrap_or(one);
    let begin = if zero.is_some() { 0 } else { 1 };
    let follow = columns[first..].iter().zip(begin..).all(|(name, expected)| minute(name) == Some(expected));
    // Three numbers alone may be a call, and not minutes without a name before them.
    (follow && (first > 0 || columns.len() > 3)).then_some(first)
}

/// Whether rows are times, and columns are services that are numbered.
fn is_turned(keys: &[String]) -> bool {
    !keys.is_empty() && keys.iter().all(|name| matches!(role(name), Role::Time { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_begin_with_0_or_1() {
        let first = |text: &str| first_minute(&text.split(',').map(std::borrow::ToOwned::to_owned).collect::<Vec<_>>());
        assert_eq!(first("f,1,2,3"), Some(1));
        assert_eq!(first("f,minute_1,minute_2"), Some(1));
        assert_eq!(first("f,0,1,2"), Some(1));
        assert_eq!(first("f,minute_0000,minute_0001"), Some(1));
        assert_eq!(first("1,2,3,4"), Some(0));
        assert_eq!(first("1,2,3"), None);
        assert_eq!(first("f,1,2,4"), None);
        assert_eq!(first("f,2,3"), None);
    }
}
