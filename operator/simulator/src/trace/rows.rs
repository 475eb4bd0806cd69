//! Rows of a file, one at a time, with their numbers.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use super::{
    TraceError,
    fields::{Row, separator},
};

/// Longest line in bytes: a row of a year of minutes has a tenth of it.
const LINE_BYTES: usize = 64 << 20;

/// How files begin that are no text, and what becomes of them.
const NO_TEXT: [(&[u8], &str); 10] = [
    (b"\x1f\x8b", "is compressed; unpack it first, by gzip -d"),
    (b"\x28\xb5\x2f\xfd", "is compressed; unpack it first, by zstd -d"),
    (b"BZh", "is compressed; unpack it first, by bzip2 -d"),
    (b"\xfd7zXZ", "is compressed; unpack it first, by xz -d"),
    (b"PK\x03\x04", "is an archive; unpack it first, by unzip"),
    (b"Rar!", "is an archive; unpack it first, by unrar"),
    (b"7z\xbc\xaf", "is an archive; unpack it first, by 7z"),
    (b"PAR1", "is Parquet; write it as CSV"),
    (b"\xff\xfe", "is UTF-16; write it as UTF-8"),
    (b"\xfe\xff", "is UTF-16; write it as UTF-8"),
];

#[derive(Debug)]
pub(super) struct Rows {
    pub(super) path: PathBuf,
    reader: BufReader<File>,
    buffer: String,
    /// What parts fields, once the first row told.
    separator: Option<char>,
    pub(super) line: u64,
    /// Where the line that was read last begins and ends, in bytes.
    pub(super) begins: u64,
    ends: u64,
}

impl Rows {
    pub(super) fn open(path: &Path) -> Result<Self, TraceError> {
        let unreadable = |cause| TraceError::unreadable(path, cause);
        let mut reader = BufReader::new(File::open(path).map_err(unreadable)?);
        let head = reader.fill_buf().map_err(unreadable)?;
        if let Some((_, what)) = NO_TEXT.iter().find(|(begin, _)| head.starts_with(begin)) {
            return Err(TraceError::line(path, 1, *what));
        }
        let path = path.to_owned();
        Ok(Self { path, reader, buffer: String::new(), separator: None, line: 0, begins: 0, ends: 0 })
    }

    /// The next line that is neither empty nor a comment.
    pub(super) fn next(&mut self) -> Result<Option<Row<'_>>, TraceError> {
        loop {
            self.buffer.clear();
            self.line += 1;
            self.begins = self.ends;
            let read = std::io::Read::take(&mut self.reader, LINE_BYTES as u64).read_line(&mut self.buffer);
            match read {
                Ok(0) => return Ok(None),
                Ok(LINE_BYTES..) => return Err(self.fault(format!("is longer than {LINE_BYTES} bytes"))),
                Ok(bytes) => self.ends += bytes as u64,
                Err(cause) if cause.kind() == std::io::ErrorKind::InvalidData => {
                    return Err(self.fault("is not UTF-8 text; write the file as UTF-8"));
                }
                Err(cause) => return Err(TraceError::unreadable(&self.path, cause)),
            }
            let text = self.buffer.trim_start_matches('\u{feff}').trim();
            if !text.is_empty() && !text.starts_with('#') {
                break;
            }
        }
        let line = self.buffer.trim_end_matches(['\n', '\r']);
        let text = if self.line == 1 { line.trim_start_matches('\u{feff}') } else { line };
        if text.contains('\r') {
            return Err(self.fault("has carriage returns alone between lines; end them with a line feed"));
        }
        if text.matches('"').count() % 2 == 1 {
            return Err(self.fault("has a quote that is not closed; a field must end in the line that it begins in"));
        }
        let separator = *self.separator.get_or_insert_with(|| separator(text));
        Ok(Some(Row { text, separator, line: self.line }))
    }

    /// Goes back to a line that was read, by where it begins and its number.
    pub(super) fn seek(&mut self, begins: u64, line: u64) -> Result<(), TraceError> {
        self.reader.seek(SeekFrom::Start(begins)).map_err(|cause| TraceError::unreadable(&self.path, cause))?;
        (self.ends, self.line) = (begins, line.saturating_sub(1));
        Ok(())
    }

    /// A fault of the line that was read last.
    pub(super) fn fault(&self, what: impl Into<String>) -> TraceError {
        TraceError::line(&self.path, self.line, what)
    }
}
