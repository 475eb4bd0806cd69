//! Readers of text. Rows are `user item [weight [time]]` separated by tabs, commas or blanks; lines of the
//! LightGCN data sets (He et al., SIGIR 2020) are `user item item …`.

use std::io::{BufRead, Read as _};

use thiserror::Error;

use super::{Dropped, Event, Names, Tagging};

/// Bytes of a line at the most: 2 million items of one listener.
const MAX_LINE: usize = 16 << 20;
/// Bytes of an id at the most.
const MAX_ID: usize = 512;
/// Rows of a file at the most.
const MAX_ROWS: usize = 200_000_000;
/// Listeners, items or tags at the most.
const MAX_NAMES: usize = 20_000_000;
/// Lines by which the format is told.
const HEAD: usize = 200;

/// A line that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{file} line {line}: {what}")]
pub struct ReadError {
    /// The file as its reader calls it.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// What is wrong, and what was expected.
    pub what: String,
}

/// How interactions are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `user item [weight [time]]`, each row with the same number of fields.
    Rows,
    /// `user item item …`, separated by blanks.
    LightGcn,
}

/// One file of interactions.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// In the order of the file.
    pub rows: Vec<Event>,
    /// Whether every row has a time.
    pub timed: bool,
    /// What was left out.
    pub dropped: Dropped,
    /// As told by its lines, or as asked for.
    pub format: Format,
}

/// What stands between fields: the same in every line of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Separator {
    Tab,
    Comma,
    Blank,
}

impl Separator {
    fn of(line: &str) -> Self {
        if line.contains('\t') {
            Self::Tab
        } else if line.contains(',') {
            Self::Comma
        } else {
            Self::Blank
        }
    }

    fn fields(self, line: &str) -> Vec<&str> {
        match self {
            Self::Tab => line.split('\t').map(unquoted).collect(),
            Self::Comma => line.split(',').map(unquoted).collect(),
            Self::Blank => line.split_ascii_whitespace().collect(),
        }
    }
}

/// Without blanks and one pair of quotation marks around it.
fn unquoted(field: &str) -> &str {
    let field = field.trim();
    field.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(field)
}

/// The lines of a file that are not empty, with their numbers.
struct Lines<R> {
    reader: R,
    file: String,
    number: usize,
    bytes: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    fn new(reader: R, file: &str) -> Self {
        Self { reader, file: file.to_owned(), number: 0, bytes: Vec::new() }
    }

    fn fault(&self, what: impl Into<String>) -> ReadError {
        ReadError { file: self.file.clone(), line: self.number, what: what.into() }
    }

    fn next(&mut self) -> Result<Option<String>, ReadError> {
        loop {
            self.bytes.clear();
            self.number += 1;
            let limit = MAX_LINE as u64 + 1;
            let read = self.reader.by_ref().take(limit).read_until(b'\n', &mut self.bytes);
            let read = read.map_err(|cause| self.fault(format!("cannot be read: {cause}")))?;
            if read > MAX_LINE {
                return Err(self.fault(format!("longer than {MAX_LINE} bytes")));
            }
            if read == 0 {
                return Ok(None);
            }
            let text = std::str::from_utf8(&self.bytes).map_err(|_| self.fault("not UTF-8"))?;
            let text = if self.number == 1 { text.strip_prefix('\u{feff}').unwrap_or(text) } else { text };
            if !text.trim().is_empty() {
                return Ok(Some(text.trim_end_matches(['\n', '\r']).to_owned()));
            }
        }
    }

    fn name(&self, names: &mut Names, what: &str, id: &str) -> Result<u32, ReadError> {
        if id.is_empty() || id.len() > MAX_ID {
            return Err(self.fault(format!("the {what} has {} bytes, expected 1 to {MAX_ID}", id.len())));
        }
        let number = names.number(id).filter(|number| (*number as usize) < MAX_NAMES);
        number.ok_or_else(|| self.fault(format!("more than {MAX_NAMES} names of {what}s")))
    }
}

/// Tells the format by the first lines, already without empty ones. LightGCN's are whole numbers separated by
/// blanks, and have more than four fields or not all the same number; anything else is rows.
pub fn detect(head: &[&str]) -> Format {
    let counts: Vec<usize> = head.iter().map(|line| line.split_ascii_whitespace().count()).collect();
    let number = |field: &str| field.bytes().all(|byte| byte.is_ascii_digit());
    let numbers = head.iter().all(|line| !line.contains(['\t', ',']) && line.split_ascii_whitespace().all(number));
    let wide = counts.iter().any(|count| *count > 4 || *count != counts[0]);
    if numbers && wide { Format::LightGcn } else { Format::Rows }
}

/// Reads interactions; new names are added to `users` and `items`. Without a `format` it is told as by
/// [`detect`]. A first line is a header when its third field is no number or its first is a name such as
/// `user_id`; a header that calls its third or fourth column `time`, `timestamp`, `ts` or `date` says which it is.
///
/// Rows of weight 0, below 0, infinite or NaN are left out and counted.
///
/// # Errors
/// A line with another number of fields than the first, an empty or overlong field, a weight or time that is no
/// number; limits: lines of 16 MiB, ids of 512 bytes, 200 million rows, 20 million names.
pub fn read_interactions(
    reader: impl BufRead,
    file: &str,
    format: Option<Format>,
    users: &mut Names,
    items: &mut Names,
) -> Result<Table, ReadError> {
    let mut lines = Lines::new(reader, file);
    let mut head = Vec::new();
    while head.len() < HEAD
        && let Some(line) = lines.next()?
    {
        head.push((lines.number, line));
    }
    let texts: Vec<&str> = head.iter().map(|(_, line)| line.as_str()).collect();
    let format = format.unwrap_or_else(|| detect(&texts));
    let columns = texts.first().map(|line| Columns::of(line));
    let mut table = Table { rows: Vec::new(), timed: false, dropped: Dropped::default(), format };
    let Some(columns) = columns else { return Ok(table) };
    table.timed = format == Format::Rows && columns.time.is_some();
    let after = lines.number;
    let mut head = head.into_iter().skip(usize::from(format == Format::Rows && columns.header));
    loop {
        let line = match head.next() {
            Some((number, line)) => {
                lines.number = number;
                line
            }
            None => {
                lines.number = lines.number.max(after);
                let Some(line) = lines.next()? else { return Ok(table) };
                line
            }
        };
        match format {
            Format::LightGcn => light_gcn(&lines, &line, users, items, &mut table)?,
            Format::Rows => row(&lines, &line, columns, users, items, &mut table)?,
        }
        if table.rows.len() > MAX_ROWS {
            return Err(lines.fault(format!("more than {MAX_ROWS} rows")));
        }
    }
}

fn light_gcn<R: BufRead>(
    lines: &Lines<R>,
    line: &str,
    users: &mut Names,
    items: &mut Names,
    table: &mut Table,
) -> Result<(), ReadError> {
    let mut fields = line.split_ascii_whitespace();
    let user = lines.name(users, "user", fields.next().unwrap_or_default())?;
    for item in fields {
        let item = lines.name(items, "item", item)?;
        table.rows.push(Event { user, item, weight: 1.0, time: 0 });
    }
    Ok(())
}

/// Where the fields of a row are.
#[derive(Debug, Clone, Copy)]
struct Columns {
    separator: Separator,
    count: usize,
    header: bool,
    weight: Option<usize>,
    time: Option<usize>,
}

impl Columns {
    /// By the first line.
    fn of(line: &str) -> Self {
        let separator = Separator::of(line);
        let fields = separator.fields(line);
        let header =
            is_header(&fields, &USER_COLUMNS) || fields.get(2).is_some_and(|field| field.parse::<f64>().is_err());
        let timed = |at: usize| header && fields.get(at).is_some_and(|field| TIME_COLUMNS.contains(&&*column(field)));
        let there = |at: usize| (fields.len() > at).then_some(at);
        let (weight, time) = if timed(2) { (there(3), Some(2)) } else { (there(2), there(3)) };
        Self { separator, count: fields.len(), header, weight, time }
    }
}

const USER_COLUMNS: [&str; 6] = ["user", "userid", "uid", "users", "listener", "listenerid"];
const ITEM_COLUMNS: [&str; 7] = ["id", "item", "itemid", "artistid", "trackid", "songid", "movieid"];
const TIME_COLUMNS: [&str; 4] = ["time", "timestamp", "ts", "date"];

/// A name of a column in lower case, without what differs between files: `user_id:token` is `userid`.
fn column(field: &str) -> String {
    let name = field.split(':').next().unwrap_or_default();
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

fn is_header(fields: &[&str], names: &[&str]) -> bool {
    fields.first().is_some_and(|field| names.contains(&&*column(field)))
}

fn row<R: BufRead>(
    lines: &Lines<R>,
    line: &str,
    columns: Columns,
    users: &mut Names,
    items: &mut Names,
    table: &mut Table,
) -> Result<(), ReadError> {
    let fields = columns.separator.fields(line);
    if fields.len() != columns.count || !(2..=4).contains(&fields.len()) {
        let expected = if (2..=4).contains(&columns.count) {
            format!("the {} of the first line", columns.count)
        } else {
            "`user item [weight [time]]`".into()
        };
        return Err(lines.fault(format!("{} fields, expected {expected}", fields.len())));
    }
    let number = |at: usize, what: &str| {
        let parsed = fields[at].parse::<f64>();
        parsed.map_err(|_| lines.fault(format!("the {what} '{}' is no number", shortened(fields[at]))))
    };
    let weight = columns.weight.map_or(Ok(1.0), |at| number(at, "weight"))?;
    let time = columns.time.map_or(Ok(0), |at| match fields[at].parse::<i64>() {
        Ok(time) => Ok(time),
        Err(_) => number(at, "time").and_then(|time| whole(lines, time)),
    })?;
    if weight == 0.0 {
        table.dropped.zero += 1;
    } else if !weight.is_finite() || weight < 0.0 {
        table.dropped.unusable += 1;
    } else {
        #[expect(clippy::cast_possible_truncation, reason = "bounded; more than f32 holds is not needed")]
        let weight = weight.clamp(f64::from(f32::MIN_POSITIVE), f64::from(f32::MAX)) as f32;
        let (user, item) = (lines.name(users, "user", fields[0])?, lines.name(items, "item", fields[1])?);
        table.rows.push(Event { user, item, weight, time });
    }
    Ok(())
}

fn whole<R: BufRead>(lines: &Lines<R>, time: f64) -> Result<i64, ReadError> {
    if time.abs() < 9e18 {
        #[expect(clippy::cast_possible_truncation, reason = "within i64")]
        return Ok(time as i64);
    }
    Err(lines.fault(format!("the time {time} is no moment")))
}

fn shortened(field: &str) -> String {
    field.chars().take(40).collect()
}

/// Pairs of friends, `user friend` and whatever follows, with the number of rows that name a listener who is
/// not among `users`.
///
/// # Errors
/// A line with fewer than two fields; the limits of [`read_interactions`].
pub fn read_social(reader: impl BufRead, file: &str, users: &Names) -> Result<(Vec<(u32, u32)>, usize), ReadError> {
    let (mut pairs, mut unknown) = (Vec::new(), 0);
    each_row(reader, file, 2, &USER_COLUMNS, |_, fields| {
        match (users.find(fields[0]), users.find(fields[1])) {
            (Some(one), Some(other)) => pairs.push((one, other)),
            _ => unknown += 1,
        }
        Ok(())
    })?;
    Ok((pairs, unknown))
}

/// Taggings, `user item tag` and whatever follows, with the number of rows that name an item that is not among
/// `items`. New tags are added to `tags`; a listener who is not among `users` becomes `u32::MAX`.
///
/// # Errors
/// A line with fewer than three fields; the limits of [`read_interactions`].
pub fn read_taggings(
    reader: impl BufRead,
    file: &str,
    users: &Names,
    items: &Names,
    tags: &mut Names,
) -> Result<(Vec<Tagging>, usize), ReadError> {
    let (mut taggings, mut unknown) = (Vec::new(), 0);
    each_row(reader, file, 3, &USER_COLUMNS, |lines, fields| {
        let Some(item) = items.find(fields[1]) else {
            unknown += 1;
            return Ok(());
        };
        let tag = lines.name(tags, "tag", fields[2])?;
        taggings.push(Tagging { user: users.find(fields[0]).unwrap_or(u32::MAX), item, tag });
        Ok(())
    })?;
    Ok((taggings, unknown))
}

/// Adds the items of a catalogue, the first field of each line, and says how many were new.
///
/// # Errors
/// An id that is empty or too long; the limits of [`read_interactions`].
pub fn read_items(reader: impl BufRead, file: &str, items: &mut Names) -> Result<usize, ReadError> {
    let before = items.len();
    each_row(reader, file, 1, &ITEM_COLUMNS, |lines, fields| lines.name(items, "item", fields[0]).map(drop))?;
    Ok(items.len() - before)
}

fn each_row<R: BufRead>(
    reader: R,
    file: &str,
    least: usize,
    header: &[&str],
    mut then: impl FnMut(&Lines<R>, &[&str]) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    let mut lines = Lines::new(reader, file);
    let (mut separator, mut rows) = (None, 0_usize);
    while let Some(line) = lines.next()? {
        let first = separator.is_none();
        let fields = separator.get_or_insert_with(|| Separator::of(&line)).fields(&line);
        if fields.len() < least {
            return Err(lines.fault(format!("{} fields, expected {least} or more", fields.len())));
        }
        rows += 1;
        if rows > MAX_ROWS {
            return Err(lines.fault(format!("more than {MAX_ROWS} rows")));
        }
        if !(first && is_header(&fields, header)) {
            then(&lines, &fields)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str, format: Option<Format>) -> Result<(Table, Names, Names), ReadError> {
        let (mut users, mut items) = (Names::default(), Names::default());
        let table = read_interactions(text.as_bytes(), "given.txt", format, &mut users, &mut items)?;
        Ok((table, users, items))
    }

    fn rows(text: &str) -> Vec<(String, String, f32, i64)> {
        let (table, users, items) = read(text, None).expect(text);
        let name = |names: &Names, number| names.name(number).expect("named").to_owned();
        table.rows.iter().map(|row| (name(&users, row.user), name(&items, row.item), row.weight, row.time)).collect()
    }

    #[test]
    fn rows_of_all_separators_headers_and_widths_are_read() {
        let row = |user: &str, item: &str, weight, time| (user.to_owned(), item.to_owned(), weight, time);
        assert_eq!(rows("a b\nc d\n\n"), [row("a", "b", 1.0, 0), row("c", "d", 1.0, 0)]);
        assert_eq!(rows("\u{feff}userID\tartistID\tweight\r\n2\t51\t13883\r\n"), [row("2", "51", 13_883.0, 0)]);
        assert_eq!(
            rows("user1,item1,2.5,100\nuser2,item1,1,99.7"),
            [row("user1", "item1", 2.5, 100), row("user2", "item1", 1.0, 99)]
        );
        assert_eq!(rows("user_id:token,item_id:token,timestamp:float\n1,2,33"), [row("1", "2", 1.0, 33)]);
        assert_eq!(rows("u i ts plays\n1 2 33 4"), [row("1", "2", 4.0, 33)]);
        assert_eq!(rows("\"Ann Lee\"\tDaft Punk\t3"), [row("Ann Lee", "Daft Punk", 3.0, 0)]);
        assert_eq!(rows(""), []);
        assert!(read("1 2 3 4", None).expect("rows").0.timed);
    }

    #[test]
    fn lines_of_many_items_are_told_from_rows() {
        let light = "0 5 6 7 8\n1 5\n2\n";
        let (table, users, _) = read(light, None).expect("lines");
        assert_eq!((table.format, table.rows.len(), users.len()), (Format::LightGcn, 5, 3));
        assert_eq!(detect(&["0 1 2", "1 4 2"]), Format::Rows);
        assert_eq!(detect(&["0 1 2", "1 4"]), Format::LightGcn);
        assert_eq!(detect(&["0,1,2", "1,4"]), Format::Rows);
        assert_eq!(detect(&["0 1 2 3 4"]), Format::LightGcn);
        assert_eq!(detect(&[]), Format::Rows);
        let asked = read("0 1 2\n1 4 2", Some(Format::LightGcn)).expect("lines").0;
        assert_eq!(asked.rows.len(), 4);
        // Told by the first lines alone: what differs later is a fault of rows.
        let long = "1 2\n".repeat(HEAD) + "1 2 3\n";
        let error = read(&long, None).expect_err("refused");
        assert_eq!(error.to_string(), "given.txt line 201: 3 fields, expected the 2 of the first line");
    }

    #[test]
    fn weights_that_count_for_nothing_are_counted() {
        let (table, users, _) = read("a x 0\nb x NaN\nc x -1\nd x inf\ne x 1e300\nf x 1e-300", None).expect("rows");
        assert_eq!(table.dropped, Dropped { zero: 1, unusable: 3 });
        assert_eq!((table.rows.len(), users.len()), (2, 2));
        assert!(table.rows.iter().all(|row| row.weight.is_finite() && row.weight > 0.0));
    }

    #[test]
    fn faults_name_the_file_and_the_line() {
        for (text, expected) in [
            ("a b 1\n\nc d much", "given.txt line 3: the weight 'much' is no number"),
            ("a b 1 2\na b 1 never", "given.txt line 2: the time 'never' is no number"),
            ("a b 1 1e30", "given.txt line 1: the time 1000000000000000000000000000000 is no moment"),
            ("a,b\nc", "given.txt line 2: 1 fields, expected the 2 of the first line"),
            ("a", "given.txt line 1: 1 fields, expected `user item [weight [time]]`"),
            ("a\tb\n\tc", "given.txt line 2: the user has 0 bytes, expected 1 to 512"),
        ] {
            assert_eq!(read(text, None).expect_err(text).to_string(), expected);
        }
        let error =
            read_interactions(&b"a b\n\xff c\n"[..], "given.txt", None, &mut Names::default(), &mut Names::default());
        assert_eq!(error.expect_err("no text").to_string(), "given.txt line 2: not UTF-8");
        let long = "x".repeat(MAX_LINE + 1);
        assert!(read(&long, None).expect_err("too long").what.starts_with("longer than"));
    }

    #[test]
    fn friends_tags_and_catalogues_are_read_by_name() {
        let (mut users, mut items, mut tags) = (Names::default(), Names::default(), Names::default());
        for name in ["2", "275"] {
            users.number(name).expect("few");
        }
        items.number("52").expect("few");
        let social = "userID\tfriendID\n2\t275\n2\t428\n";
        assert_eq!(read_social(social.as_bytes(), "f", &users), Ok((vec![(0, 1)], 1)));
        let given = "userID\tartistID\ttagID\tday\n2\t52\t13\t1\n9\t52\t15\t1\n2\t63\t13\t1\n";
        let (taggings, unknown) = read_taggings(given.as_bytes(), "t", &users, &items, &mut tags).expect("taggings");
        let tagging = |user, tag| Tagging { user, item: 0, tag };
        assert_eq!((taggings, unknown), (vec![tagging(0, 0), tagging(u32::MAX, 1)], 1));
        let catalogue = "id\tname\n52\tMorcheeba\n53\tEnigma\n";
        assert_eq!(read_items(catalogue.as_bytes(), "i", &mut items), Ok(1));
        let error = read_taggings("2\t52".as_bytes(), "t", &users, &items, &mut tags).expect_err("short");
        assert_eq!(error.to_string(), "t line 1: 2 fields, expected 3 or more");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_text_makes_the_readers_panic(text in "[ab01.,\t\n\" -]{0,80}") {
            for format in [None, Some(Format::Rows), Some(Format::LightGcn)] {
                if let Ok((table, users, items)) = read(&text, format) {
                    let (users, items) = (users.len(), items.len());
                    let fits = |row: &Event| (row.user as usize) < users && (row.item as usize) < items;
                    prop_assert!(table.rows.iter().all(|row| fits(row) && row.weight > 0.0));
                }
            }
        }
    }
}
