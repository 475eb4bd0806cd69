//! A call per row, or how many calls came per interval.

use std::path::Path;

use super::{Arrivals, Service, TraceError, clock::parse_us, rows::Rows};

/// Calls of one file of times at the most: each takes 8 bytes.
const CALLS: usize = 1 << 27;
/// Intervals of one series at the most.
const BINS: i64 = 1 << 24;

fn name(path: &Path) -> String {
    path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
}

pub(super) fn read(path: &Path) -> Result<Service, TraceError> {
    let mut rows = Rows::open(path)?;
    let mut times: Vec<i64> = Vec::new();
    while let Some(line) = rows.next()? {
        let field = line.split(',').next().unwrap_or_default();
        let read = parse_us(field).ok_or_else(|| format!("'{field}' is no time; 2023-11-16 18:15:46.68 is"));
        match read {
            Ok(time) => times.push(time),
            Err(_) if rows.line == 1 => {}
            Err(what) => return Err(rows.fault(what)),
        }
        if times.len() > CALLS {
            return Err(rows.fault(format!("is the {CALLS}th call, more than fit; count them per minute instead")));
        }
    }
    // Logs of several machines are seldom in order.
    times.sort_unstable();
    let Some(first) = times.first().copied() else { return Err(rows.fault("is the end, and no call came before it")) };
    let since = |time: i64| u64::try_from(time - first).expect("not before the first");
    let times = times.into_iter().map(since).collect();
    Ok(Service { name: name(path), arrivals: Arrivals::Times(times), durations: None, series: false })
}

pub(super) fn read_series(path: &Path) -> Result<Service, TraceError> {
    let mut rows = Rows::open(path)?;
    rows.next()?;
    let (mut origin, mut bin_us, mut counts) = (None, None, Vec::new());
    while let Some(line) = rows.next()? {
        let read = row(line);
        let (time, calls) = read.map_err(|what| rows.fault(what))?;
        let Some(first) = origin else {
            origin = Some(time);
            counts.push(calls);
            continue;
        };
        let since = time - first;
        let bin = match bin_us {
            Some(bin) => bin,
            None if since > 0 => *bin_us.insert(since),
            None => return Err(rows.fault("is not after the line before; intervals are needed in order")),
        };
        // A clock that was set moves by parts of an interval.
        let place = (since + bin / 2) / bin;
        let last = i64::try_from(counts.len()).expect("few intervals") - 1;
        if place < last {
            return Err(rows.fault("goes back in time; intervals are needed in order"));
        }
        if place >= BINS {
            return Err(rows.fault(format!("is more than {BINS} intervals after the first")));
        }
        counts.resize(usize::try_from(place).expect("not below 0") + 1, 0);
        let count = counts.last_mut().expect("resized to one at least");
        *count = u32::saturating_add(*count, calls);
    }
    let Some(bin_us) = bin_us else { return Err(rows.fault("is the end, and two intervals are needed before it")) };
    let bin_ms = u64::try_from(bin_us / 1_000).unwrap_or(0).max(1);
    Ok(Service { name: name(path), arrivals: Arrivals::Counts { bin_ms, counts }, durations: None, series: true })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be a number of calls")]
fn row(line: &str) -> Result<(i64, u32), String> {
    let (time, value) = line.split_once(',').ok_or("has one field; timestamp,value is needed")?;
    let at = parse_us(time).ok_or_else(|| format!("'{time}' is no time; 2014-04-10 00:04:00 is"))?;
    match value.trim().parse::<f64>() {
        Ok(calls) if (0.0..=f64::from(u32::MAX)).contains(&calls) => Ok((at, calls.round() as u32)),
        _ => Err(format!("'{value}' is no number of calls")),
    }
}
