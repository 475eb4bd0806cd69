//! A call per row, or how many calls came per interval: of one service, or of several.

use std::{borrow::Cow, collections::HashMap, path::Path, sync::Arc};

use super::{
    Arrivals, Durations, Service, Told, TraceError,
    bins::{BINS, bin, placed, rounded, step_us},
    clock::parse_us,
    fields::{Row, is_hole},
    layout::{Column, Layout},
    rows::Rows,
};

/// Calls of one file at the most: each takes 8 bytes, and 4 where it is known how long it took.
const CALLS: usize = 1 << 27;
/// Counts of one file at the most: each takes 16 bytes.
const COUNTS: usize = 1 << 26;
/// Services of one file at the most.
const SERVICES: usize = 1 << 20;
/// What lasts longer has a wrong time somewhere.
const LONGEST_DAYS: i64 = 3_660;
const MINUTE_US: i64 = 60_000_000;
const DAY_US: i64 = 86_400_000_000;

pub(super) type Services<'a> = Box<dyn Iterator<Item = Service> + Send + 'a>;

/// What was read of one service.
#[derive(Debug, Default)]
struct Group {
    name: String,
    times: Vec<i64>,
    /// How long calls took, in microseconds, where that is known.
    took_us: Vec<f32>,
    /// How many calls came at each of `times`; none where each of these is a call.
    counts: Vec<f64>,
}

/// All that was read of one file.
struct Read<'a> {
    layout: &'a Layout,
    groups: Vec<Group>,
    by_name: HashMap<String, usize>,
    /// Times of intervals, each once if they are in order.
    times: Vec<i64>,
    /// The earliest time and the latest, and their lines.
    range: Option<((i64, u64), (i64, u64))>,
    rows: i64,
    kept: usize,
    /// Rows that do not tell how long the call took, and counts that are none.
    holes: u64,
}

/// The services of a table, in the order in which they are first named.
pub(super) fn read<'a>(path: &'a Path, layout: &'a Layout, told: &'a Told) -> Result<Services<'a>, TraceError> {
    let mut rows = Rows::open(path)?;
    let header = if layout.named { rows.next()?.map(|row| row.text.to_owned()) } else { None };
    let stem = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let mut read = Read::new(layout, stem);
    while let Some(row) = rows.next()? {
        // Files that were put together have their header more than once.
        if header.as_deref() != Some(row.text) {
            read.add(row).map_err(|what| rows.fault(what))?;
        }
    }
    if read.holes > 0 {
        let of = if layout.values.is_empty() { "durations that are empty are" } else { "counts that are empty are" };
        told.add(path, &format!("{of} passed over ({})", read.holes));
    }
    let at_end = |what: &str| rows.fault(format!("is the end, and {what}"));
    if layout.values.is_empty() {
        let Some(range) = read.range else { return Err(at_end("no call came before it")) };
        check_range(path, range)?;
        let ((first, _), (last, _)) = range;
        return Ok(Box::new(read.calls(first, last)));
    }
    let step = if layout.time.is_some() { read.step_us() } else { Some(MINUTE_US.unsigned_abs()) };
    let (Some(range), Some(step_us)) = (read.range, step) else {
        return Err(at_end("two intervals are needed before it"));
    };
    let ((first, _), (last, line)) = range;
    let bins = bin(last, first, step_us) + 1;
    if bins > BINS {
        let what = format!("is more than {BINS} intervals after the first, which are {} ms long", step_us / 1_000);
        return Err(TraceError::line(path, line, what));
    }
    check_range(path, range)?;
    let bins = usize::try_from(bins).unwrap_or(usize::MAX);
    Ok(Box::new(read.counts(path, told, Intervals { first, step_us, bins })))
}

/// Where the intervals of a file are.
#[derive(Debug, Clone, Copy)]
struct Intervals {
    first: i64,
    step_us: u64,
    bins: usize,
}

fn check_range(path: &Path, ((first, begin), (last, end)): ((i64, u64), (i64, u64))) -> Result<(), TraceError> {
    let days = (last - first) / DAY_US;
    if days <= LONGEST_DAYS {
        return Ok(());
    }
    let what = format!("is {days} days after line {begin}, the earliest; one of both has a wrong time");
    Err(TraceError::line(path, end, what))
}

fn text<'a>(fields: &'a [Cow<'_, str>], at: usize) -> &'a str {
    fields.get(at).map_or("", |field| &**field)
}

impl<'a> Read<'a> {
    fn new(layout: &'a Layout, stem: String) -> Self {
        let groups = match layout.values.as_slice() {
            [_, _, ..] => {
                layout.values.iter().map(|value| Group { name: value.name.clone(), ..Group::default() }).collect()
            }
            _ if layout.keys.is_empty() => vec![Group { name: stem, ..Group::default() }],
            _ => Vec::new(),
        };
        Self { layout, groups, by_name: HashMap::new(), times: Vec::new(), range: None, rows: 0, kept: 0, holes: 0 }
    }

    fn add(&mut self, row: Row<'_>) -> Result<(), String> {
        let fields: Vec<Cow<'_, str>> = row.fields().collect();
        let (time, took_us) = self.when(&fields)?;
        self.rows += 1;
        let here = (time, row.line);
        let range = self.range.get_or_insert((here, here));
        if time < range.0.0 {
            range.0 = here;
        }
        if time > range.1.0 {
            range.1 = here;
        }
        if self.layout.values.is_empty() {
            return self.add_call(&fields, time, took_us);
        }
        if self.times.last() != Some(&time) {
            self.times.push(time);
        }
        self.add_counts(&fields, time)
    }

    /// When a call came or an interval began, and how long the call took.
    fn when(&self, fields: &[Cow<'_, str>]) -> Result<(i64, Option<i64>), String> {
        let parsed = |column: Column| {
            let field = text(fields, column.at);
            parse_us(field, column.unit_us).ok_or_else(|| format!("'{field}' is no time; 2023-11-16 18:15:46.68 is"))
        };
        let layout = self.layout;
        let took_us = match layout.took {
            Some((at, unit_us)) => duration_us(text(fields, at), unit_us)?,
            None => None,
        };
        match (layout.time, layout.end) {
            (Some(time), Some(end)) if layout.took.is_none() && !is_hole(text(fields, end.at)) => {
                let (came, ended) = (parsed(time)?, parsed(end)?);
                if ended < came {
                    return Err(format!("ends at '{}', before it came", text(fields, end.at)));
                }
                Ok((came, Some(ended - came)))
            }
            (Some(time), _) => Ok((parsed(time)?, took_us)),
            (None, Some(end)) => Ok((parsed(end)? - took_us.unwrap_or(0), took_us)),
            (None, None) => Ok((self.rows * MINUTE_US, None)),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "seven digits of a duration")]
    fn add_call(&mut self, fields: &[Cow<'_, str>], time: i64, took_us: Option<i64>) -> Result<(), String> {
        self.kept += 1;
        if self.kept > CALLS {
            return Err(format!("is the {CALLS}th call, more than fit; count them per minute instead"));
        }
        let Layout { time: begin, end, took, .. } = self.layout;
        let should_tell = took.is_some() || begin.is_some() && end.is_some();
        self.holes += u64::from(should_tell && took_us.is_none());
        let group = self.group(fields)?;
        group.times.push(time);
        group.took_us.extend(took_us.map(|us| us as f32));
        Ok(())
    }

    fn add_counts(&mut self, fields: &[Cow<'_, str>], time: i64) -> Result<(), String> {
        let layout = self.layout;
        for (place, value) in layout.values.iter().enumerate() {
            let field = text(fields, value.at);
            if is_hole(field) {
                self.holes += 1;
                continue;
            }
            let calls = match field.parse::<f64>() {
                Ok(calls) if (0.0..=f64::from(u32::MAX)).contains(&calls) => calls,
                _ => return Err(format!("'{field}' is no number of calls")),
            };
            self.kept += 1;
            if self.kept > COUNTS {
                return Err(format!("has the {COUNTS}th count, more than fit; part the file"));
            }
            let group = if layout.values.len() > 1 { &mut self.groups[place] } else { self.group(fields)? };
            group.times.push(time);
            group.counts.push(calls);
        }
        Ok(())
    }

    /// Of whom a row is.
    fn group(&mut self, fields: &[Cow<'_, str>]) -> Result<&mut Group, String> {
        let keys = &self.layout.keys;
        if keys.is_empty() {
            return Ok(&mut self.groups[0]);
        }
        let name = keys.iter().map(|at| text(fields, *at)).collect::<Vec<_>>().join("/");
        let place = match self.by_name.get(&name) {
            Some(place) => *place,
            None if self.groups.len() >= SERVICES => {
                return Err(format!("names '{name}', one service more than the {SERVICES} that fit"));
            }
            None => {
                let place = self.groups.len();
                self.groups.push(Group { name: name.clone(), ..Group::default() });
                self.by_name.insert(name, place);
                place
            }
        };
        Ok(&mut self.groups[place])
    }

    fn step_us(&mut self) -> Option<u64> {
        self.times.sort_unstable();
        self.times.dedup();
        step_us(&self.times)
    }

    /// Services whose calls came at `first` and later. Where there are several, all end with the last call of any.
    fn calls(self, first: i64, last: i64) -> impl Iterator<Item = Service> + Send {
        let since = move |time: i64| time.abs_diff(first);
        let end_us = (self.groups.len() > 1).then(|| (since(last) / 1_000_000 + 1) * 1_000_000);
        self.groups.into_iter().map(move |group| {
            let mut us: Vec<u64> = group.times.into_iter().map(since).collect();
            // Logs of several machines are seldom in order.
            us.sort_unstable();
            let durations = Durations::seen(group.took_us).map(Arc::new);
            Service { name: group.name, arrivals: Arrivals::Times { us, end_us }, durations, series: false }
        })
    }

    /// Services whose calls are counted by interval. All begin and end together.
    fn counts(self, path: &'a Path, told: &'a Told, intervals: Intervals) -> impl Iterator<Item = Service> + Send {
        let layout = self.layout;
        let series = layout.values.len() == 1 && layout.keys.is_empty();
        self.groups.into_iter().enumerate().map(move |(place, group)| {
            let of_us = layout.values.get(place).or(layout.values.first()).and_then(|value| value.of_us);
            let (name, rows) = (group.name, group.times.len());
            let (counts, shared) = intervals.counts(group.times, group.counts, of_us);
            if shared > 0 {
                let what = format!("has a row too many for an interval {shared} times, and their calls are added up");
                told.add(path, &what);
            }
            let missing = (intervals.bins + shared).saturating_sub(rows);
            if series && missing > 0 {
                let bins = intervals.bins;
                let what =
                    format!("has no row for {missing} of {bins} intervals, in which no calls are taken to have come");
                told.add(path, &what);
            }
            let arrivals = Arrivals::Counts { bin_ms: intervals.step_us / 1_000, counts };
            Service { name, arrivals, durations: None, series }
        })
    }
}

impl Intervals {
    /// Calls in each, and how many rows share one with a row before. Numbers may be of another time than an interval.
    #[expect(clippy::cast_precision_loss, reason = "microseconds of an interval")]
    fn counts(self, times: Vec<i64>, values: Vec<f64>, of_us: Option<f64>) -> (Vec<u32>, usize) {
        let mut rows: Vec<(i64, f64)> = times.into_iter().zip(values).collect();
        rows.sort_by_key(|(time, _)| *time);
        let part = of_us.map_or(1.0, |us| self.step_us as f64 / us);
        let (times, values): (Vec<i64>, Vec<f64>) = rows.into_iter().map(|(time, value)| (time, value * part)).unzip();
        placed(&times, &rounded(&values), self.first, self.step_us, self.bins)
    }
}

fn duration_us(field: &str, unit_us: f64) -> Result<Option<i64>, String> {
    if is_hole(field) {
        return Ok(None);
    }
    let us = field.parse::<f64>().ok().map(|number| (number * unit_us).round());
    #[expect(clippy::cast_possible_truncation, reason = "checked to be small")]
    let us = us.filter(|us| (0.0..1e15).contains(us)).map(|us| us as i64);
    us.map(Some).ok_or_else(|| format!("'{field}' is no duration; 0.25 is"))
}
