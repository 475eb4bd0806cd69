//! Lines of a file, one at a time, with their numbers.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
};

use super::TraceError;

/// Longest line in bytes: a row of two weeks of minutes has a tenth of it.
const LINE_BYTES: usize = 4 << 20;

#[derive(Debug)]
pub(super) struct Rows {
    pub(super) path: PathBuf,
    reader: BufReader<File>,
    buffer: String,
    pub(super) line: u64,
}

impl Rows {
    pub(super) fn open(path: &Path) -> Result<Self, TraceError> {
        let file = File::open(path).map_err(|cause| TraceError::unreadable(path, cause))?;
        Ok(Self { path: path.to_owned(), reader: BufReader::new(file), buffer: String::new(), line: 0 })
    }

    /// The next line that is not empty, without its end.
    pub(super) fn next(&mut self) -> Result<Option<&str>, TraceError> {
        loop {
            self.buffer.clear();
            self.line += 1;
            let read = std::io::Read::take(&mut self.reader, LINE_BYTES as u64).read_line(&mut self.buffer);
            match read {
                Ok(0) => return Ok(None),
                Ok(LINE_BYTES..) => return Err(self.fault(format!("is longer than {LINE_BYTES} bytes"))),
                Ok(_) if self.buffer.trim().is_empty() => {}
                Ok(_) => break,
                Err(cause) if cause.kind() == std::io::ErrorKind::InvalidData => {
                    return Err(self.fault("is not UTF-8 text"));
                }
                Err(cause) => return Err(TraceError::unreadable(&self.path, cause)),
            }
        }
        if self.buffer.contains('"') {
            return Err(self.fault("has quotes, which are not understood here; write the fields without them"));
        }
        let line = self.buffer.trim_end_matches(['\n', '\r']);
        Ok(Some(if self.line == 1 { line.trim_start_matches('\u{feff}') } else { line }))
    }

    /// A fault of the line that was read last.
    pub(super) fn fault(&self, what: impl Into<String>) -> TraceError {
        TraceError::line(&self.path, self.line, what)
    }
}
