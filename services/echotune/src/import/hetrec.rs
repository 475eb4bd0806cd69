//! The HetRec 2011 Last.fm data set: a folder of tables separated by tabs. Counts stay counts.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::{self, File},
    io::BufReader,
    path::{Path, PathBuf},
    sync::Arc,
};

use echotune_model::{EARLIEST_LISTEN_MS, PlayCount, Tagging, fold};
use time::{Date, Month};

use super::{
    Format, ImportError, Request, detect,
    detect::Service,
    lines::{Line, Lines},
    row::{Amount, Kind, Place, Row, Sink, Source},
};

const NAME: &str = "lastfm-hetrec";
const MAX_LINE: usize = 64 << 10;
/// Names in one table, which are held in memory.
const MAX_NAMES: usize = 2_000_000;
const ARTISTS: &str = "artists.dat";
const TAGS: &str = "tags.dat";
const COUNTS: &str = "user_artists.dat";
const TAGGINGS: &str = "user_taggedartists.dat";
const TIMED_TAGGINGS: &str = "user_taggedartists-timestamps.dat";
const FRIENDS: &str = "user_friends.dat";

/// The format.
pub(super) struct LastfmHetrec;

impl Format for LastfmHetrec {
    fn name(&self) -> &'static str {
        NAME
    }

    fn description(&self) -> &'static str {
        "the folder of the HetRec 2011 Last.fm data set; its users become hetrec-2, hetrec-3, …"
    }

    fn open(&self, request: &Request) -> Result<Box<dyn Source>, ImportError> {
        let only = request.user.as_deref().map(|user| {
            let id = user.strip_prefix("hetrec-").and_then(|id| id.parse().ok());
            id.ok_or_else(|| unknown_user(user, &request.paths[0]))
        });
        let only = only.transpose()?;
        let folders = request.paths.iter().map(|path| Folder::open(path, only)).collect::<Result<_, _>>()?;
        Ok(Box::new(Folders(folders)))
    }
}

fn unknown_user(user: &str, path: &Path) -> ImportError {
    ImportError::UserNotInExport {
        user: user.to_owned(),
        path: path.to_owned(),
        example: "hetrec-2, hetrec-3 and so on",
    }
}

struct Folders(Vec<Folder>);

impl Source for Folders {
    fn total(&self) -> Amount {
        Amount::Bytes(self.0.iter().map(|folder| folder.size).sum())
    }

    fn read(self: Box<Self>, sink: &mut Sink) -> Result<(), ImportError> {
        self.0.into_iter().try_for_each(|folder| folder.read(sink))
    }
}

struct Folder {
    path: PathBuf,
    taggings: &'static str,
    only: Option<u32>,
    size: u64,
}

impl Folder {
    fn open(path: &Path, only: Option<u32>) -> Result<Self, ImportError> {
        let meta = fs::metadata(path).map_err(|cause| ImportError::io(path, cause))?;
        let wanted = "a folder of the HetRec 2011 Last.fm data set";
        let present = |file: &str| path.join(file).is_file();
        let all = [ARTISTS, TAGS, COUNTS, TAGGINGS, TIMED_TAGGINGS, FRIENDS];
        if !meta.is_dir() || !all.into_iter().any(present) {
            let looks = detect::look(path).filter(|looks| *looks != Service::LastfmHetrec);
            return Err(ImportError::WrongService { path: path.to_owned(), wanted, looks });
        }
        let taggings = if present(TIMED_TAGGINGS) { TIMED_TAGGINGS } else { TAGGINGS };
        let mut size = 0;
        for file in [ARTISTS, TAGS, COUNTS, taggings, FRIENDS] {
            let found = fs::metadata(path.join(file)).ok().filter(fs::Metadata::is_file);
            let missing = || ImportError::MissingFile { folder: path.to_owned(), file: file.to_owned() };
            size += found.ok_or_else(missing)?.len();
        }
        Ok(Self { path: path.to_owned(), taggings, only, size })
    }

    fn read(self, sink: &mut Sink) -> Result<(), ImportError> {
        let artists = Names::read(&self, ARTISTS, &["id", "name", "url", "pictureURL"], sink)?;
        let tags = Names::read(&self, TAGS, &["tagID", "tagValue"], sink)?;
        let mut users = Users { only: self.only, names: HashMap::new() };
        self.counts(&artists, &mut users, sink)?;
        if self.taggings == TIMED_TAGGINGS {
            let columns = ["userID", "artistID", "tagID", "timestamp"];
            self.taggings(&columns, &artists, &tags, &mut users, sink, timestamp)?;
        } else {
            let columns = ["userID", "artistID", "tagID", "day", "month", "year"];
            self.taggings(&columns, &artists, &tags, &mut users, sink, date)?;
        }
        self.friends(&mut users, sink)?;
        match self.only {
            Some(id) if !users.names.contains_key(&id) => Err(unknown_user(&format!("hetrec-{id}"), &self.path)),
            _ => Ok(()),
        }
    }

    fn counts(&self, artists: &Names, users: &mut Users, sink: &mut Sink) -> Result<(), ImportError> {
        // One artist under two ids is one artist here: its counts are added up before they are set.
        let mut held = BTreeMap::<(u32, usize), (u64, Place)>::new();
        let count = |artist: usize, plays: u64| {
            let plays = u32::try_from(plays).unwrap_or(u32::MAX);
            Row::PlayCount(PlayCount { artist: artists.names[artist].clone(), plays, source: NAME.into() })
        };
        self.table(COUNTS, Kind::PlayCounts, &["userID", "artistID", "weight"], sink, |fields, place, sink| {
            let (id, plays) = (number(fields, 0, "userID")?, number(fields, 2, "weight")?);
            let artist = artists.of(fields, 1, "artistID", ARTISTS)?;
            let Some(user) = users.wanted(id) else { return Ok(Ok(())) };
            if !artists.shared.contains(&artist) {
                return Ok(sink.row(&user, place.clone(), count(artist, plays.into())));
            }
            if let Some((total, _)) = held.get_mut(&(id, artist)) {
                *total += u64::from(plays);
                return Ok(sink.merged(Kind::PlayCounts));
            }
            held.insert((id, artist), (plays.into(), place.clone()));
            Ok(Ok(()))
        })?;
        for ((id, artist), (plays, place)) in held {
            if let Some(user) = users.wanted(id) {
                sink.row(&user, place, count(artist, plays))?;
            }
        }
        Ok(())
    }

    fn taggings(
        &self,
        columns: &[&str],
        artists: &Names,
        tags: &Names,
        users: &mut Users,
        sink: &mut Sink,
        at: fn(&[&str]) -> Result<i64, String>,
    ) -> Result<(), ImportError> {
        self.table(self.taggings, Kind::Taggings, columns, sink, |fields, place, sink| {
            let id = number(fields, 0, "userID")?;
            let artist = artists.of(fields, 1, "artistID", ARTISTS)?;
            let tag = tags.of(fields, 2, "tagID", TAGS)?;
            // Some dates lie before the service: the tag stays, the time is unknown.
            let at = at(fields)?;
            let tagged_at_ms = if at < EARLIEST_LISTEN_MS { 0 } else { at };
            let Some(user) = users.wanted(id) else { return Ok(Ok(())) };
            let (artist, tag) = (artists.names[artist].clone(), tags.names[tag].clone());
            Ok(sink.row(&user, place.clone(), Row::Tagging(Tagging { artist, tag, tagged_at_ms })))
        })
    }

    fn friends(&self, users: &mut Users, sink: &mut Sink) -> Result<(), ImportError> {
        self.table(FRIENDS, Kind::Friendships, &["userID", "friendID"], sink, |fields, place, sink| {
            let (id, friend) = (number(fields, 0, "userID")?, number(fields, 1, "friendID")?);
            let Some(user) = users.wanted(id) else { return Ok(Ok(())) };
            Ok(sink.row(&user, place.clone(), Row::Friend(format!("hetrec-{friend}"))))
        })
    }

    /// Reads one table. `each` gives the reason for which a row is rejected, or what the sink said.
    fn table(
        &self,
        file: &str,
        kind: Kind,
        columns: &[&str],
        sink: &mut Sink,
        mut each: impl FnMut(&[&str], &Place, &mut Sink) -> Result<Result<(), ImportError>, String>,
    ) -> Result<(), ImportError> {
        let path = self.path.join(file);
        let from = File::open(&path).map_err(|cause| ImportError::io(&path, cause))?;
        let mut lines = Lines::new(BufReader::with_capacity(1 << 16, from), MAX_LINE);
        let mut buffer = Vec::new();
        let name: Arc<str> = file.into();
        let header = columns.join("\t");
        let mut is_first = true;
        loop {
            let line = lines.next(&mut buffer).map_err(|cause| ImportError::io(&path, cause))?;
            sink.advance(lines.take_read());
            let place = Place { file: Arc::clone(&name), line: lines.number() };
            if std::mem::take(&mut is_first) {
                if line != Line::Held || buffer != header.as_bytes() {
                    let reason = format!("expected the columns '{}'", header.escape_debug());
                    return Err(ImportError::Malformed { file: file.to_owned(), line: 1, reason });
                }
                continue;
            }
            match line {
                Line::End => return Ok(()),
                Line::TooLong(length) => {
                    sink.reject(&place, kind, format!("the line has {length} bytes; at most {MAX_LINE} are read"))?;
                }
                Line::Held if buffer.is_empty() => {}
                Line::Held => {
                    let text = decode(&buffer);
                    let fields: Vec<&str> = text.split('\t').collect();
                    let done = if fields.len() == columns.len() {
                        each(&fields, &place, sink)
                    } else {
                        Err(format!("the row has {} fields; expected {}", fields.len(), columns.len()))
                    };
                    match done {
                        Ok(done) => done?,
                        Err(reason) => sink.reject(&place, kind, reason)?,
                    }
                }
            }
        }
    }
}

/// A row as text: UTF-8, or ISO 8859-1 (whose bytes are the first code points) where it is not.
fn decode(row: &[u8]) -> String {
    std::str::from_utf8(row).map_or_else(|_| row.iter().copied().map(char::from).collect(), str::to_owned)
}

fn number(fields: &[&str], at: usize, column: &str) -> Result<u32, String> {
    let shown = |text: &str| text.chars().take(40).collect::<String>().escape_debug().to_string();
    fields[at].parse().map_err(|_| format!("{column} '{}' is not a whole number", shown(fields[at])))
}

fn date(fields: &[&str]) -> Result<i64, String> {
    let (day, month, year) = (number(fields, 3, "day")?, number(fields, 4, "month")?, number(fields, 5, "year")?);
    let month_of_year = u8::try_from(month).ok().and_then(|month| Month::try_from(month).ok());
    let whole = month_of_year.zip(u8::try_from(day).ok()).zip(i32::try_from(year).ok());
    let date = whole.and_then(|((month, day), year)| Date::from_calendar_date(year, month, day).ok());
    let date = date.ok_or_else(|| format!("{year}-{month}-{day} is not a date"))?;
    Ok(date.midnight().assume_utc().unix_timestamp() * 1_000)
}

fn timestamp(fields: &[&str]) -> Result<i64, String> {
    fields[3].parse().map_err(|_| "timestamp is not a whole number of milliseconds".to_owned())
}

/// Account names by user id.
struct Users {
    only: Option<u32>,
    names: HashMap<u32, Arc<str>>,
}

impl Users {
    /// The account of a user, unless the import is restricted to another one.
    fn wanted(&mut self, id: u32) -> Option<Arc<str>> {
        if self.only.is_some_and(|only| only != id) {
            return None;
        }
        Some(Arc::clone(self.names.entry(id).or_insert_with(|| format!("hetrec-{id}").into())))
    }
}

/// A table of names by id. Ids whose names are spellings of one name share an entry.
struct Names {
    entries: HashMap<u32, usize>,
    names: Vec<String>,
    shared: HashSet<usize>,
}

impl Names {
    fn read(folder: &Folder, file: &str, columns: &[&str], sink: &mut Sink) -> Result<Self, ImportError> {
        let mut found = Self { entries: HashMap::new(), names: Vec::new(), shared: HashSet::new() };
        let mut folded = HashMap::<String, usize>::new();
        folder.table(file, Kind::Names, columns, sink, |fields, _, _| {
            let id = number(fields, 0, columns[0])?;
            let name = fields[1].trim();
            if name.is_empty() {
                return Err(format!("{} is empty", columns[1]));
            }
            if found.entries.contains_key(&id) {
                return Err(format!("{} {id} is given twice; the first one is used", columns[0]));
            }
            if found.entries.len() == MAX_NAMES {
                let (path, what) = (folder.path.join(file), "number of names".to_owned());
                let (found, limit) = (MAX_NAMES as u64 + 1, MAX_NAMES as u64);
                return Ok(Err(ImportError::TooLarge { path, what, found, limit }));
            }
            let next = found.names.len();
            let entry = *folded.entry(fold(name)).or_insert(next);
            if entry == next {
                found.names.push(name.to_owned());
            } else {
                found.shared.insert(entry);
            }
            found.entries.insert(id, entry);
            Ok(Ok(()))
        })?;
        Ok(found)
    }

    fn of(&self, fields: &[&str], at: usize, column: &str, table: &str) -> Result<usize, String> {
        let id = number(fields, at, column)?;
        self.entries.get(&id).copied().ok_or_else(|| format!("{column} {id} is not in {table}"))
    }
}
