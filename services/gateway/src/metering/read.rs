//! Reading a ledger, and proving that it is whole.

use std::{
    fmt,
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    LedgerError,
    entry::{Opened, Record},
    file::FORMAT,
    key::{PublicKey, hex, unhex},
    line::{Hash, Line, MAX_LINE_BYTES},
};

/// Faults of one ledger that are told at the most.
const MAX_FAULTS: usize = 20;

/// Name of the file whose first line has a place.
pub(super) fn file_name(sequence: u64) -> String {
    format!("ledger-{sequence:020}.jsonl")
}

/// The files of a ledger, in their order.
pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>, LedgerError> {
    let listed = match fs::read_dir(folder) {
        Ok(listed) => listed,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(LedgerError::file(folder)(cause)),
    };
    let mut paths = Vec::new();
    for entry in listed {
        let name = entry.map_err(LedgerError::file(folder))?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("ledger-")?.strip_suffix(".jsonl"));
        if number.is_some_and(|number| number.len() == 20 && number.bytes().all(|digit| digit.is_ascii_digit())) {
            paths.push(folder.join(&name));
        }
    }
    paths.sort();
    Ok(paths)
}

/// After which line the first of a file stands.
pub(super) fn head_of(opened: &Opened, key: &PublicKey) -> Result<Hash, String> {
    if opened.format != FORMAT {
        return Err(format!("its form is {}, and this program knows {FORMAT}; update EchoTune", opened.format));
    }
    if opened.public_key != key.to_string() {
        return Err(format!("it is signed by key {}, and not by {key}", shown(&opened.public_key)));
    }
    unhex(&opened.previous).ok_or_else(|| "'previous' is no digest".to_owned())
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect::<String>().escape_debug().to_string()
}

/// Why there is no next line.
pub(super) enum Broken {
    /// What is there is no whole line.
    Line(String),
    File(LedgerError),
}

/// The lines of a file, of which none is longer than one may be.
pub(super) struct Lines {
    from: BufReader<File>,
    path: PathBuf,
    line: Vec<u8>,
    at: u64,
}

impl Lines {
    pub(super) fn open(path: &Path) -> Result<Self, LedgerError> {
        let from = BufReader::with_capacity(256 << 10, File::open(path).map_err(LedgerError::file(path))?);
        Ok(Self { from, path: path.to_owned(), line: Vec::new(), at: 0 })
    }

    /// The next line without its end; `None` at the end of the file.
    pub(super) fn next(&mut self) -> Result<Option<&[u8]>, Broken> {
        self.line.clear();
        let most = MAX_LINE_BYTES as u64;
        let read = (&mut self.from).take(most).read_until(b'\n', &mut self.line);
        let read = read.map_err(|cause| Broken::File(LedgerError::file(&self.path)(cause)))?;
        self.at += read as u64;
        match self.line.split_last() {
            None => Ok(None),
            Some((b'\n', line)) => Ok(Some(line)),
            Some(_) if read == MAX_LINE_BYTES => Err(Broken::Line(format!("a line has more than {most} bytes"))),
            Some(_) => Err(Broken::Line("its last line has no end".to_owned())),
        }
    }

    /// Bytes up to the end of the line that was read last.
    pub(super) const fn at(&self) -> u64 {
        self.at
    }
}

/// Something wrong with a ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LedgerFault {
    /// The file's name.
    pub file: String,
    /// The line, counted from 1; 0 for the file as a whole.
    pub line: u64,
    /// What is wrong.
    pub why: String,
}

impl fmt::Display for LedgerFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.why)
    }
}

/// What a ledger was found to be.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Report {
    /// Which ledger it is.
    pub ledger: String,
    /// By which key it was verified.
    pub public_key: String,
    /// Its files.
    pub files: u64,
    /// Its lines.
    pub lines: u64,
    /// Calls among them.
    pub calls: u64,
    /// Calls that it says are missing: they were made and could not be entered.
    pub lost: u64,
    /// Place of the last line.
    pub head_sequence: u64,
    /// Digest of the last line. Whoever has noted it can tell later whether lines were taken off the end.
    pub head: String,
    /// What is wrong, the first ones.
    pub faults: Vec<LedgerFault>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_whole(&self) -> bool {
        self.faults.is_empty()
    }

    fn fault(&mut self, file: &Path, line: u64, why: impl Into<String>) {
        if self.faults.len() < MAX_FAULTS {
            let file = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            self.faults.push(LedgerFault { file, line, why: why.into() });
        }
    }
}

/// Reads a ledger and proves every line: its digest, that it follows the one before, and its signature. `noted` is the
/// place and digest of a line that was seen before, and must still be there. Blocks.
///
/// # Errors
/// The files cannot be read. What is wrong with what they hold is in the report.
pub fn verify(folder: &Path, key: &PublicKey, noted: Option<(u64, &str)>) -> Result<Report, LedgerError> {
    let mut is_there = noted.is_none();
    let mut report = walk(folder, key, &mut |record, hash| {
        is_there |= noted.is_some_and(|(sequence, head)| record.sequence() == sequence && hex(hash) == head);
        Ok(())
    })?;
    if let (false, Some((sequence, head))) = (is_there, noted) {
        let why = format!("line {sequence} of digest {} is not there any more", shown(head));
        report.fault(folder, 0, why);
    }
    Ok(report)
}

/// Proves every line, and shows those that are right.
pub(super) fn walk(
    folder: &Path,
    key: &PublicKey,
    see: &mut dyn FnMut(&Record, &Hash) -> Result<(), LedgerError>,
) -> Result<Report, LedgerError> {
    let paths = files(folder)?;
    if paths.is_empty() {
        return Err(LedgerError::Absent(folder.to_owned()));
    }
    let mut walk = Walk { report: Report { public_key: key.to_string(), ..Report::default() }, next: 0, head: None };
    for path in &paths {
        walk.report.files += 1;
        walk.file(path, key, see)?;
    }
    let Walk { mut report, next, head } = walk;
    report.head_sequence = next.saturating_sub(1);
    report.head = hex(&head.unwrap_or_default());
    Ok(report)
}

struct Walk {
    report: Report,
    next: u64,
    head: Option<Hash>,
}

impl Walk {
    fn file(
        &mut self,
        path: &Path,
        key: &PublicKey,
        see: &mut dyn FnMut(&Record, &Hash) -> Result<(), LedgerError>,
    ) -> Result<(), LedgerError> {
        let (mut lines, mut number) = (Lines::open(path)?, 0);
        loop {
            number += 1;
            let line = match lines.next() {
                Ok(Some(line)) => line,
                Ok(None) if number == 1 => {
                    self.report.fault(path, 0, "the file is empty");
                    return Ok(());
                }
                Ok(None) => return Ok(()),
                // There is no telling where the next one begins, or it was torn by a crash.
                Err(Broken::Line(why)) => {
                    self.report.fault(path, number, why);
                    return Ok(());
                }
                Err(Broken::File(error)) => return Err(error),
            };
            match self.line(line, number, key) {
                Ok((record, hash)) => see(&record, &hash)?,
                Err(why) => self.report.fault(path, number, why),
            }
        }
    }

    /// Proves a line. What follows is held against what it says of itself, so that one fault is told once.
    fn line(&mut self, line: &[u8], number: u64, key: &PublicKey) -> Result<(Record, Hash), String> {
        let line = Line::read(line)?;
        let record = line.record()?;
        let previous = match (&record, number) {
            (Record::Open(opened), 1) => self.opened(opened, key)?,
            (_, 1) => return Err("a file begins with a line of kind 'open'".to_owned()),
            (Record::Open(_), _) => return Err("a line of kind 'open' stands within a file".to_owned()),
            _ => self.head.ok_or("it follows nothing that could be read")?,
        };
        let (expected, sequence) = (std::mem::replace(&mut self.next, record.sequence() + 1), record.sequence());
        self.head = Some(line.hash);
        self.report.lines += 1;
        if !line.follows(&previous) {
            return Err("it was changed, or the line before it was: its digest is not that of what is there".to_owned());
        }
        if !line.is_signed(key) {
            return Err("its signature is not by the ledger's key".to_owned());
        }
        if sequence != expected {
            return Err(format!("it has place {sequence} where {expected} comes next: lines are missing"));
        }
        match &record {
            Record::Call(_) => self.report.calls += 1,
            Record::Lost(lost) => self.report.lost += lost.calls,
            Record::Open(_) => {}
        }
        Ok((record, line.hash))
    }

    /// The head of a file goes on with the file before.
    fn opened(&mut self, opened: &Opened, key: &PublicKey) -> Result<Hash, String> {
        let previous = head_of(opened, key)?;
        if self.report.ledger.is_empty() {
            self.report.ledger.clone_from(&opened.ledger);
            // Files before the first that is there may have been put into an archive.
            self.next = opened.sequence;
        } else if self.report.ledger != opened.ledger {
            return Err("the file is of another ledger".to_owned());
        } else if self.head.is_some_and(|head| head != previous) {
            return Err("it does not go on with the file before: lines or a file are missing".to_owned());
        }
        Ok(previous)
    }
}
