//! What rows of a table mean, by its header and its first rows.

use super::{
    clock::{is_date, parse_us},
    columns::{Role, role},
    fields::is_hole,
};

/// Times below that many seconds are since a beginning of their own.
const SMALL: f64 = 1e8;

/// A column of times, and what a number in it counts, in microseconds, where that is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Column {
    pub(super) at: usize,
    pub(super) unit_us: Option<f64>,
}

/// A column of how many calls came.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Value {
    pub(super) at: usize,
    pub(super) name: String,
    /// It tells how many come in that many microseconds, rather than in an interval.
    pub(super) of_us: Option<f64>,
}

/// What is where in a table. A row is a call, unless there are values.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Layout {
    /// Whether the first row is a header.
    pub(super) named: bool,
    /// When a call came, or an interval began. Without it and an end, rows are minutes that follow one another.
    pub(super) time: Option<Column>,
    pub(super) end: Option<Column>,
    /// How long a call took, and in which unit, in microseconds.
    pub(super) took: Option<(usize, f64)>,
    /// Whose calls these are, by columns that are read together.
    pub(super) keys: Vec<usize>,
    /// More than one are of a service each.
    pub(super) values: Vec<Value>,
    /// What was taken so without being said, or passed over.
    pub(super) told: Vec<String>,
}

impl Layout {
    /// By the first rows of a file; of no file, a fault of the first of them.
    pub(super) fn of(rows: &[Vec<String>]) -> Result<Self, String> {
        let Some((first, data)) = rows.split_first() else { return Err("is missing".into()) };
        let begin = first.first().map_or("", String::as_str);
        if parse_us(begin, None).is_some() {
            return Self::unnamed(rows);
        }
        let roles: Vec<Role> = first.iter().map(|name| role(name)).collect();
        let says_nothing = roles.iter().all(|role| matches!(role, Role::Other | Role::Unknown));
        if says_nothing && dates(first.len(), data).is_none() {
            let begin: String = begin.chars().take(40).collect();
            return Err(format!(
                "begins with '{begin}', which is no header that is known: columns 1,2,… or minute_1,minute_2,… after \
                 a key (counts per minute), timestamp (a call per row), or timestamp,value (a series)"
            ));
        }
        Self::named(first, &roles, data)
    }

    /// Rows without a header: the first column is a time.
    fn unnamed(rows: &[Vec<String>]) -> Result<Self, String> {
        let mut layout = Self { time: Some(Column { at: 0, unit_us: None }), ..Self::default() };
        let width = rows[0].len();
        if width == 1 {
            if falls(rows) {
                return Err("begins with numbers that rise and fall, which are no times; where they are counts per \
                            minute, write a header 'count' above them, else 'timestamp'"
                    .into());
            }
            layout.tell_unit("timestamp", rows);
            return Ok(layout);
        }
        let even = is_even(rows, Column { at: 0, unit_us: None });
        if width == 2 && even && is_counted(rows, 1) {
            layout.values.push(Value { at: 1, name: String::new(), of_us: None });
            layout.told.push(
                "has no header and evenly spaced times: the second column is read as the calls of each interval".into(),
            );
        } else if even || width > 3 && rows.iter().flatten().all(|field| small(field).is_some()) {
            return Err("has no header, and what its columns hold is not clear; write one above, such as \
                        timestamp,value or function,1,2,3"
                .into());
        } else {
            layout.told.push("has no header: each row is read as a call, and its first column as the time".into());
        }
        layout.tell_unit("timestamp", rows);
        Ok(layout)
    }

    fn named(names: &[String], roles: &[Role], data: &[Vec<String>]) -> Result<Self, String> {
        let mut layout = Self { named: true, ..Self::default() };
        let all = || roles.iter().enumerate();
        let times = all().filter_map(|(at, role)| match role {
            Role::Time { rank, unit_us } => Some((*rank, Column { at, unit_us: *unit_us })),
            _ => None,
        });
        layout.time = times.min_by_key(|(rank, _)| *rank).map(|(_, column)| column);
        layout.end = all().find_map(|(at, role)| match role {
            Role::End { unit_us } => Some(Column { at, unit_us: *unit_us }),
            _ => None,
        });
        if layout.time.is_none() && layout.end.is_none() {
            layout.time = dates(names.len(), data).map(|at| Column { at, unit_us: None });
        }
        layout.keys = all().filter(|(_, role)| **role == Role::Key).map(|(at, _)| at).collect();
        layout.values = counted(names, roles);
        layout.check_times()?;
        if layout.values.is_empty() {
            layout.find_took(names, roles, data);
            layout.find_series(names, roles, data);
        }
        layout.tell(names);
        if let Some(column) = layout.time.or(layout.end) {
            layout.tell_unit(&names[column.at], data);
        }
        Ok(layout)
    }

    /// Counts alone are of minutes that follow one another; nothing else may be without times.
    fn check_times(&mut self) -> Result<(), String> {
        if self.time.is_some() || self.end.is_some() {
            return Ok(());
        }
        if self.values.is_empty() || !self.keys.is_empty() {
            return Err("names no column of times; call it timestamp".into());
        }
        self.told.push("has no column of times: each row is read as the calls of a minute".into());
        Ok(())
    }

    fn find_took(&mut self, names: &[String], roles: &[Role], data: &[Vec<String>]) {
        let all = roles.iter().enumerate().filter_map(|(at, role)| match role {
            Role::Took { rank, unit_us } => Some((*rank, at, *unit_us)),
            _ => None,
        });
        let Some((_, at, unit_us)) = all.min_by_key(|(rank, ..)| *rank) else { return };
        // Traces that tell when calls ended tell seconds, as that of Azure Functions of 2021 does.
        let ends = self.end.filter(|_| self.time.is_none()).map(|_| 1e6);
        let Some(us) = unit_us.or(ends).or_else(|| likely_unit(data, at)) else {
            let name = &names[at];
            self.told.push(format!(
                "tells {name} without a unit, so it is passed over; call it {name}_ms or {name}_s, and it is used"
            ));
            return;
        };
        if unit_us.is_none() {
            let unit = if us < 1e6 { "milliseconds" } else { "seconds" };
            self.told.push(format!("tells {} without a unit: it is read as {unit}", names[at]));
        }
        self.took = Some((at, us));
    }

    /// Where times are evenly spaced and nothing else is known, each column of numbers is a series.
    fn find_series(&mut self, names: &[String], roles: &[Role], data: &[Vec<String>]) {
        let Some(time) = self.time.filter(|_| self.end.is_none() && self.took.is_none() && self.keys.is_empty()) else {
            return;
        };
        // A column without a name numbers the rows.
        let is_series = move |at: &usize| *at != time.at && roles[*at] == Role::Unknown && !names[*at].is_empty();
        let places = || (0..names.len()).filter(is_series);
        let numbered = places().count() > 2 && places().all(|at| names[at].parse::<u32>().is_ok());
        if !numbered && !is_even(data, time) || places().any(|at| !is_counted(data, at)) {
            return;
        }
        self.values = places().map(|at| Value { at, name: names[at].clone(), of_us: None }).collect();
        if !self.values.is_empty() {
            let columns = some(self.values.iter().map(|value| value.name.as_str()));
            self.told.push(format!("has evenly spaced times: {columns} are read as the calls of each interval"));
        }
    }

    /// Numbers that are not since 1970 may be of any unit.
    fn tell_unit(&mut self, name: &str, data: &[Vec<String>]) {
        let Some(column) = self.time.or(self.end).filter(|column| column.unit_us.is_none()) else { return };
        if data.first().is_some_and(|row| small(field(row, column.at)).is_some()) {
            self.told.push(format!(
                "tells times by numbers without a unit, which are read as seconds; call the column {name}_ms where \
                 they are milliseconds"
            ));
        }
    }

    /// Which columns are not read.
    fn tell(&mut self, names: &[String]) {
        let columns = [self.time, self.end].into_iter().flatten().map(|column| column.at);
        let used: Vec<usize> = columns
            .chain(self.took.map(|(at, _)| at))
            .chain(self.keys.iter().copied())
            .chain(self.values.iter().map(|value| value.at))
            .collect();
        let left = names.iter().enumerate().filter(|(at, name)| !name.is_empty() && !used.contains(at));
        let left: Vec<&str> = left.map(|(_, name)| name.as_str()).collect();
        if !left.is_empty() {
            self.told.push(format!("has columns that are passed over: {}", some(left.into_iter())));
        }
        if let Some(rate) = self.values.iter().find(|value| value.of_us.is_some()) {
            let per = match rate.of_us {
                Some(us) if us > 1e9 => "an hour",
                Some(us) if us > 1e6 => "a minute",
                _ => "a second",
            };
            self.told.push(format!("tells {}, which is read as calls {per}", rate.name));
        }
        if self.values.is_empty() && self.time.is_none() && self.took.is_none() {
            self.told.push("tells when calls ended, and they are taken to have come then".into());
        }
    }
}

/// The column that tells how many calls came, or how many come.
fn counted(names: &[String], roles: &[Role]) -> Vec<Value> {
    let value = |at: usize, of_us| Value { at, name: names[at].clone(), of_us };
    let counts = roles.iter().enumerate().filter_map(|(at, role)| match role {
        Role::Count { rank } => Some((*rank, at)),
        _ => None,
    });
    let count = counts.min_by_key(|(rank, _)| *rank).map(|(_, at)| value(at, None));
    let rate = || {
        roles.iter().enumerate().find_map(|(at, role)| match role {
            Role::Rate { of_us } => Some(value(at, Some(*of_us))),
            _ => None,
        })
    };
    count.or_else(rate).into_iter().collect()
}

/// The first few of some names.
fn some<'a>(mut names: impl Iterator<Item = &'a str>) -> String {
    let shown: Vec<&str> = names.by_ref().take(5).collect();
    let more = names.count();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

fn field(row: &[String], at: usize) -> &str {
    row.get(at).map_or("", String::as_str)
}

/// The first column that holds dates in all rows.
fn dates(columns: usize, data: &[Vec<String>]) -> Option<usize> {
    (0..columns).find(|at| !data.is_empty() && data.iter().all(|row| is_date(field(row, *at))))
}

/// Whether a column holds nothing but numbers that may be counts.
fn is_counted(data: &[Vec<String>], at: usize) -> bool {
    data.iter()
        .map(|row| field(row, at))
        .all(|text| is_hole(text) || text.parse::<f64>().is_ok_and(|number| number >= 0.0 && number.is_finite()))
}

fn small(text: &str) -> Option<f64> {
    text.parse::<f64>().ok().filter(|number| number.abs() < SMALL)
}

/// Whether there are three times at least, most as long after the one before, and others some times as long: rows are
/// left out of series too.
fn is_even(data: &[Vec<String>], time: Column) -> bool {
    let times: Option<Vec<i64>> = data.iter().map(|row| parse_us(field(row, time.at), time.unit_us)).collect();
    times.is_some_and(|times| {
        let apart: Vec<i64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let least = apart.iter().map(|us| us.abs()).min().unwrap_or(0);
        let usual = apart.iter().filter(|us| us.abs() == least).count();
        let one_way = apart.iter().all(|us| *us > 0) || apart.iter().all(|us| *us < 0);
        apart.len() > 1 && one_way && usual * 4 >= apart.len() * 3 && apart.iter().all(|us| us % least == 0)
    })
}

/// Whether numbers that are no times since 1970 fall as often as counts do and times do not.
fn falls(rows: &[Vec<String>]) -> bool {
    let numbers: Option<Vec<f64>> = rows.iter().map(|row| small(field(row, 0))).collect();
    numbers.is_some_and(|numbers| {
        let falls = numbers.windows(2).filter(|pair| pair[1] < pair[0]).count();
        numbers.len() > 3 && falls * 4 > numbers.len()
    })
}

/// In microseconds: seconds where half of the durations are below 1, milliseconds where half are above 60.
fn likely_unit(data: &[Vec<String>], at: usize) -> Option<f64> {
    let mut numbers: Vec<f64> = data.iter().filter_map(|row| field(row, at).parse().ok()).collect();
    numbers.sort_by(f64::total_cmp);
    let half = *numbers.get(numbers.len() / 2)?;
    if half > 60.0 { Some(1e3) } else { (half > 0.0 && half < 1.0).then_some(1e6) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(text: &str) -> Result<Layout, String> {
        let rows: Vec<Vec<String>> =
            text.split(' ').map(|row| row.split(',').map(|field| field.replace('_', " ")).collect()).collect();
        Layout::of(&rows)
    }

    fn at(place: usize) -> Option<Column> {
        Some(Column { at: place, unit_us: None })
    }

    #[test]
    fn tables_are_known_by_their_headers() {
        let calls = layout("TIMESTAMP,ContextTokens 2023-11-16_18:15:46,3 2023-11-16_18:15:47,4").unwrap();
        assert_eq!((calls.time, calls.values.len(), calls.named), (at(0), 0, true));
        assert_eq!(calls.told, ["has columns that are passed over: ContextTokens"]);
        let series = layout("timestamp,value 1700000000,3").unwrap();
        assert_eq!((series.time, series.values[0].at, series.told.len()), (at(0), 1, 0));
        let counts = layout("function,minute,count a,0,3").unwrap();
        assert_eq!((counts.keys, counts.time.unwrap().unit_us), (vec![0], Some(6e7)));
        let ended = layout("app,func,end_timestamp,duration a,f,1.5,0.25").unwrap();
        assert_eq!((ended.time, ended.took, ended.keys), (None, Some((3, 1e6)), vec![0, 1]));
        let indexed = layout(",when,requests 0,2014-04-10,3 1,2014-04-11,3").unwrap();
        assert_eq!((indexed.time, indexed.values[0].at), (at(1), 2), "a column of dates, whatever it is called");
        let rate = layout("time,qps 0,0.5").unwrap();
        assert_eq!(rate.values[0].of_us, Some(1e6));
        let minutes = layout("count 3 0 4").unwrap();
        assert_eq!((minutes.time, minutes.values[0].at), (None, 0));
        assert!(layout("function,count a,3").unwrap_err().contains("no column of times"));
        assert!(layout("a,b 1,2").unwrap_err().starts_with("begins with 'a'"));
    }

    #[test]
    fn evenly_spaced_times_are_of_series() {
        let wide = layout("Time,cart,search 0,1,2 60,1,0.5 120,,3").unwrap();
        assert_eq!(wide.values.iter().map(|value| value.name.as_str()).collect::<Vec<_>>(), ["cart", "search"]);
        assert!(layout("Time,cart,search 0,1,2 60,1,2 130,1,2").unwrap().values.is_empty());
        let holed = layout("Time,cart 0,1 60,2 120,0 180,1 300,2").unwrap();
        assert_eq!(holed.values.len(), 1, "a row is left out");
        assert_eq!(layout(",Time,cart 0,0,1 1,60,2 2,120,0").unwrap().values.len(), 1, "rows are numbered");
        assert!(layout("Time,cart,search 0,1,2 60,x,2 120,1,2").unwrap().values.is_empty());
        assert!(layout("Time,ContextTokens 0,1 60,1 120,1").unwrap().values.is_empty());
        // Functions that are numbered are series at any times.
        assert_eq!(layout("day,time,0,1,2 3,0,1,2,0 3,70,0,1,0").unwrap().values.len(), 3);
    }

    #[test]
    fn without_a_header_rows_are_calls_unless_they_cannot_be() {
        let alone = layout("10.5 12").unwrap();
        assert!(alone.told[0].contains("read as seconds; call the column timestamp_ms"), "{:?}", alone.told);
        assert_eq!(Layout { told: Vec::new(), ..alone }, Layout { time: at(0), ..Layout::default() });
        assert!(layout("1700000010.5 1700000012").unwrap().told.is_empty());
        assert!(layout("10.5,3 12,4 19,2").unwrap().values.is_empty());
        assert_eq!(layout("0,3 60,4 120,2").unwrap().values.len(), 1);
        assert!(layout("0,3,1 60,4,1 120,2,1").unwrap_err().contains("has no header"));
        assert!(layout("4,0,3,1 5,4,0,1").unwrap_err().contains("has no header"));
        assert!(layout("3 0 4 1 5").unwrap_err().contains("rise and fall"));
        assert!(layout("1700000003 1700000000 1700000002 1700000001").is_ok(), "calls that are out of order");
    }

    #[test]
    fn units_of_durations_are_known_or_not_used() {
        let took = |text: &str| layout(text).unwrap().took;
        assert_eq!(took("ts,duration_ms 0,5"), Some((1, 1e3)));
        assert_eq!(took("ts,latency 0,0.2 1,0.3"), Some((1, 1e6)));
        assert_eq!(took("ts,latency 0,200 1,300"), Some((1, 1e3)));
        let unknown = layout("ts,latency 0,5 1,30").unwrap();
        assert!(unknown.took.is_none() && unknown.told[0].contains("latency_ms"), "{:?}", unknown.told);
    }
}
