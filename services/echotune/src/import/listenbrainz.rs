//! ListenBrainz: the zip as downloaded, its folder, or files of JSON lines.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use echotune_model::{Listen, Track, UserName};
use serde::Deserialize;

use super::{
    Format, ImportError, Request, archive, detect,
    detect::Service,
    lines::{Line, Lines},
    row::{Amount, Kind, Place, Row, Sink, Source},
};

const NAME: &str = "listenbrainz";
/// ListenBrainz itself takes 10,240 bytes in a listen; its exports add what it found out.
const MAX_LINE: usize = 1 << 20;
const MAX_USER_JSON: u64 = 1 << 16;

/// The format.
pub(super) struct ListenBrainz;

impl Format for ListenBrainz {
    fn name(&self) -> &'static str {
        NAME
    }

    fn description(&self) -> &'static str {
        "a ListenBrainz export: the zip as downloaded, or the folder or .jsonl files in it"
    }

    fn open(&self, request: &Request) -> Result<Box<dyn Source>, ImportError> {
        let inputs = request.paths.iter().map(|path| Input::open(path)).collect::<Result<Vec<_>, _>>()?;
        let named = request.user.clone().or_else(|| inputs.iter().find_map(|input| input.user.clone()));
        let user = named.ok_or_else(|| ImportError::UserNeeded { path: inputs[0].path.clone() })?;
        Ok(Box::new(Export { inputs, user: user.into() }))
    }
}

struct Export {
    inputs: Vec<Input>,
    user: Arc<str>,
}

/// A zip, folder or file with the months in it, oldest first.
struct Input {
    path: PathBuf,
    user: Option<String>,
    months: Vec<Month>,
    ignored: usize,
}

struct Month {
    name: String,
    size: u64,
    at: At,
}

enum At {
    Archive(usize),
    File(PathBuf),
}

#[derive(Deserialize)]
struct UserFile {
    username: String,
}

#[derive(Deserialize)]
struct LineRow {
    /// Seconds since the Unix epoch; a number, not always an integer.
    listened_at: f64,
    track_metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    track_name: Option<String>,
    #[serde(default)]
    artist_name: Option<String>,
    #[serde(default)]
    release_name: Option<String>,
}

impl Input {
    fn open(path: &Path) -> Result<Self, ImportError> {
        let meta = fs::metadata(path).map_err(|cause| ImportError::io(path, cause))?;
        if meta.is_dir() {
            return Self::folder(path);
        }
        let head = detect::head(path).map_err(|cause| ImportError::io(path, cause))?;
        if archive::is_zip(&head) { Self::archive(path) } else { Self::file(path, &head, meta.len()) }
    }

    fn archive(path: &Path) -> Result<Self, ImportError> {
        let mut archive = archive::open(path)?;
        let names = archive::names(path, &mut archive)?;
        let mut user_file = None;
        let mut files = Vec::new();
        for (index, name, size) in names {
            if name == "user.json" || name.ends_with("/user.json") {
                user_file = Some(index);
            }
            files.push(Month { name, size, at: At::Archive(index) });
        }
        let mut text = Vec::new();
        if let Some(index) = user_file {
            let reader = archive::unpack(path, &mut archive, index)?;
            reader.take(MAX_USER_JSON).read_to_end(&mut text).map_err(|cause| ImportError::io(path, cause))?;
        }
        Self::of(path, files, &text)
    }

    fn folder(path: &Path) -> Result<Self, ImportError> {
        let mut names = Vec::new();
        detect::list(path, "", 3, &mut names);
        let sized = |name: String| {
            let file = path.join(&name);
            let size = fs::metadata(&file).map_or(0, |meta| meta.len());
            Month { name, size, at: At::File(file) }
        };
        let files: Vec<_> = names.into_iter().map(sized).collect();
        let mut text = Vec::new();
        if let Ok(file) = File::open(path.join("user.json")) {
            file.take(MAX_USER_JSON).read_to_end(&mut text).map_err(|cause| ImportError::io(path, cause))?;
        }
        Self::of(path, files, &text)
    }

    fn of(path: &Path, files: Vec<Month>, user_json: &[u8]) -> Result<Self, ImportError> {
        let user = serde_json::from_slice::<UserFile>(user_json).ok().map(|file| file.username);
        let all = files.len();
        let mut months: Vec<_> =
            files.into_iter().filter_map(|file| Some((detect::month_of(&file.name)?, file))).collect();
        if months.is_empty() && user.is_none() {
            let looks = detect::look(path).filter(|looks| *looks != Service::ListenBrainz);
            return Err(ImportError::WrongService { path: path.to_owned(), wanted: "a ListenBrainz export", looks });
        }
        months.sort_by_key(|(month, _)| *month);
        let months: Vec<_> = months.into_iter().map(|(_, file)| file).collect();
        let ignored = all.saturating_sub(months.len() + usize::from(user.is_some()));
        // A name that no account can have is of no use as a default.
        let user = user.filter(|name| name.parse::<UserName>().is_ok());
        Ok(Self { path: path.to_owned(), user, months, ignored })
    }

    fn file(path: &Path, head: &[u8], size: u64) -> Result<Self, ImportError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let looks = detect::detect(&[&name], head);
        if head.trim_ascii_start().starts_with(b"[") && looks == Some(Service::ListenBrainz) {
            let reason = "this is an export of the time before the zip, one array; request a new export".into();
            return Err(ImportError::Malformed { file: name, line: 1, reason });
        }
        let lines = name.ends_with(".jsonl") && looks.is_none();
        if !lines && looks != Some(Service::ListenBrainz) {
            return Err(ImportError::WrongService { path: path.to_owned(), wanted: "a ListenBrainz export", looks });
        }
        if name.ends_with(".zip") {
            let cause = "it does not begin like a zip archive".to_owned();
            return Err(ImportError::DamagedArchive { path: path.to_owned(), cause });
        }
        let months = vec![Month { name, size, at: At::File(path.to_owned()) }];
        Ok(Self { path: path.to_owned(), user: None, months, ignored: 0 })
    }

    fn read(self, user: &Arc<str>, sink: &mut Sink) -> Result<(), ImportError> {
        for _ in 0..self.ignored {
            sink.ignored()?;
        }
        let mut archive = match self.months.first() {
            Some(Month { at: At::Archive(_), .. }) => Some(archive::open(&self.path)?),
            _ => None,
        };
        for Month { name, at, .. } in self.months {
            let file = Arc::from(name);
            match (at, &mut archive) {
                (At::Archive(index), Some(archive)) => {
                    read_month(archive::unpack(&self.path, archive, index)?, &file, user, sink)?;
                }
                (At::Archive(_), None) => {}
                (At::File(path), _) => {
                    let from = File::open(&path).map_err(|cause| ImportError::io(path, cause))?;
                    read_month(BufReader::with_capacity(1 << 16, from), &file, user, sink)?;
                }
            }
        }
        Ok(())
    }
}

impl Source for Export {
    fn total(&self) -> Amount {
        Amount::Bytes(self.inputs.iter().flat_map(|input| &input.months).map(|month| month.size).sum())
    }

    fn read(self: Box<Self>, sink: &mut Sink) -> Result<(), ImportError> {
        self.inputs.into_iter().try_for_each(|input| input.read(&self.user, sink))
    }
}

fn read_month(from: impl BufRead, file: &Arc<str>, user: &Arc<str>, sink: &mut Sink) -> Result<(), ImportError> {
    let mut lines = Lines::new(from, MAX_LINE);
    let mut buffer = Vec::new();
    loop {
        let line = lines.next(&mut buffer).map_err(|cause| ImportError::Malformed {
            file: file.to_string(),
            line: lines.number() + 1,
            reason: format!("it cannot be read any further ({cause}); download the export again"),
        })?;
        sink.advance(lines.take_read());
        let place = Place { file: Arc::clone(file), line: lines.number() };
        match line {
            Line::End => return Ok(()),
            Line::TooLong(length) => {
                let reason = format!("the line has {length} bytes; at most {MAX_LINE} are read");
                sink.reject(&place, Kind::Listens, reason)?;
            }
            Line::Held if buffer.trim_ascii().is_empty() => {}
            Line::Held => match parse(&buffer) {
                Ok(listen) => sink.row(user, place, Row::Listen(listen))?,
                Err(reason) => sink.reject(&place, Kind::Listens, reason)?,
            },
        }
    }
}

fn parse(line: &[u8]) -> Result<Listen, String> {
    let text = std::str::from_utf8(line)
        .map_err(|cause| format!("byte {} is not UTF-8; every listen is UTF-8 text", cause.valid_up_to() + 1))?;
    let row: LineRow = serde_json::from_str(text).map_err(|cause| {
        let column = cause.column();
        let cause = cause.to_string();
        let cause = cause.split(" at line 1 column").next().unwrap_or_default();
        format!("not a listen: {cause} (column {column})")
    })?;
    let Metadata { track_name, artist_name, release_name } = row.track_metadata;
    #[allow(
        clippy::cast_possible_truncation,
        reason = "what no integer holds becomes the largest one, which is refused"
    )]
    let listened_at_ms = (row.listened_at * 1_000.0).round() as i64;
    Ok(Listen {
        listened_at_ms,
        track: Track {
            title: track_name.unwrap_or_default(),
            artist: artist_name.unwrap_or_default(),
            album: release_name.unwrap_or_default(),
        },
        played_ms: 0,
        source: NAME.into(),
        explicit: None,
    })
}
