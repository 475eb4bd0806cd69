//! Files of a day each that follow one another, and whose rows are of the same services: those of a service are read
//! as one.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use super::{
    Service, Told, TraceError,
    counts::{ByName, HOLES, Shape, of_minutes, opened},
    rows::Rows,
};

/// Minutes of a day.
pub(super) const DAY: usize = 1_440;

/// Where a row is: its first byte, and its number.
type Place = (u64, u64);

/// Some files, and where the rows of each service are in them.
#[derive(Debug)]
pub(super) struct Days {
    pub(super) paths: Vec<PathBuf>,
    services: Vec<Vec<Option<Place>>>,
}

/// Files of one folder whose names differ in their last number only, by one from each to the next.
pub(super) fn sequences(paths: &[PathBuf]) -> Vec<Vec<PathBuf>> {
    let mut alike = BTreeMap::<(PathBuf, String, String), BTreeMap<u64, PathBuf>>::new();
    for path in paths {
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        if let Some((before, number, after)) = last_number(&name) {
            alike.entry((folder, before.to_owned(), after.to_owned())).or_default().insert(number, path.clone());
        }
    }
    let mut found: Vec<Vec<PathBuf>> = Vec::new();
    for numbered in alike.into_values() {
        let mut before = None;
        for (number, path) in numbered {
            match found.last_mut() {
                Some(last) if before.is_some_and(|before: u64| before + 1 == number) => last.push(path),
                _ => found.push(vec![path]),
            }
            before = Some(number);
        }
    }
    found.retain(|sequence| sequence.len() > 1);
    found
}

/// The last number in a name, and what is before and after it.
fn last_number(name: &str) -> Option<(&str, u64, &str)> {
    let end = name.rfind(|one: char| one.is_ascii_digit())? + 1;
    let begin = name[..end]
        .rfind(|one: char| !one.is_ascii_digit())
        .map_or(0, |at| at + name[at..].chars().next().map_or(1, char::len_utf8));
    Some((&name[..begin], name[begin..end].parse::<u64>().ok().filter(|number| *number < u64::MAX)?, &name[end..]))
}

impl Days {
    /// Looks through all files. None where hardly any service is in two of them: then they are parts of one trace.
    pub(super) fn of(paths: Vec<PathBuf>) -> Result<Option<Self>, TraceError> {
        let mut services: Vec<Vec<Option<Place>>> = Vec::new();
        let mut by_key = HashMap::<String, usize>::new();
        let mut fewest = usize::MAX;
        for (day, path) in paths.iter().enumerate() {
            let (mut rows, shape) = opened(path)?;
            let mut times = HashMap::<String, usize>::new();
            let mut count = 0;
            while let Some(row) = rows.next()? {
                let (mut key, line) = (shape.key(row), row.line);
                // One that is there twice in a day is two services.
                let time = times.entry(key.clone()).or_default();
                *time += 1;
                key = format!("{key} {time}");
                let at = *by_key.entry(key).or_insert(services.len());
                if at == services.len() {
                    services.push(vec![None; paths.len()]);
                }
                services[at][day] = Some((rows.begins, line));
                count += 1;
            }
            fewest = fewest.min(count);
        }
        let again = services.iter().filter(|places| places.iter().flatten().count() > 1).count();
        Ok((again > 0 && again >= fewest / 10).then_some(Self { paths, services }))
    }

    /// Its services, in the order in which they are first named; one is read at a time.
    pub(super) fn read<'a>(&'a self, durations: &'a ByName, told: &'a Told) -> Result<Reading<'a>, TraceError> {
        let files = self.paths.iter().map(|path| opened(path)).collect::<Result<Vec<_>, _>>()?;
        if let [first, .., last] = self.paths.as_slice() {
            let last = last.file_name().unwrap_or_default().to_string_lossy();
            let what = format!("begins a trace of {} days, the last of which is {last}", self.paths.len());
            told.add(first, &what);
        }
        Ok(Reading { days: self, files, at: 0, durations, told })
    }
}

/// Reads days.
#[derive(Debug)]
pub(super) struct Reading<'a> {
    days: &'a Days,
    files: Vec<(Rows, Shape)>,
    at: usize,
    durations: &'a ByName,
    told: &'a Told,
}

impl Reading<'_> {
    /// The next service.
    pub(super) fn service(&mut self) -> Result<Option<Service>, TraceError> {
        let Some(places) = self.days.services.get(self.at) else { return Ok(None) };
        self.at += 1;
        let (mut name, mut all) = (None, Vec::with_capacity(places.len() * DAY));
        for ((rows, shape), place) in self.files.iter_mut().zip(places) {
            let Some((begins, line)) = *place else {
                // Nobody called it on that day.
                all.resize(all.len() + shape.minutes, 0);
                continue;
            };
            rows.seek(begins, line)?;
            let read = match rows.next()? {
                Some(row) => shape.read(row),
                None => Err("is missing; was the file changed meanwhile?".into()),
            };
            let counted = read.map_err(|what| rows.fault(what))?;
            if counted.holes > 0 {
                self.told.add(&rows.path, HOLES);
            }
            all.extend(counted.counts);
            name.get_or_insert(counted.name);
        }
        Ok(Some(of_minutes(name.unwrap_or_default(), all, self.durations)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_count_up_by_one_are_a_sequence() {
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        let found =
            sequences(&paths(&["a/x.d1.csv", "a/x.d10.csv", "a/x.d2.csv", "a/x.d9.csv", "b/x.d3.csv", "a/y.csv"]));
        assert_eq!(found, [paths(&["a/x.d1.csv", "a/x.d2.csv"]), paths(&["a/x.d9.csv", "a/x.d10.csv"])]);
        let days = ["2019-07-15.csv", "2019-07-16.csv", "2019-07-18.csv"];
        assert_eq!(sequences(&paths(&days)), [paths(&days[..2])]);
        assert!(sequences(&paths(&["f1250_full.csv", "f1350_full.csv"])).is_empty());
    }

    #[test]
    fn the_last_number_of_a_name_is_found() {
        assert_eq!(last_number("md.anon.d01.csv"), Some(("md.anon.d", 1, ".csv")));
        assert_eq!(last_number("é7"), Some(("é", 7, "")));
        assert_eq!(last_number("12"), Some(("", 12, "")));
        assert_eq!(last_number("none.csv"), None);
        assert_eq!(last_number("99999999999999999999999.csv"), None);
    }
}
