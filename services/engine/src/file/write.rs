use std::borrow::Cow;

use super::{ALIGNMENT, Catalogue, ENTRY, Element, Entry, FORMAT, FileError, HEAD, MAGIC, NAME, SECTIONS, VERSION};

static ZEROS: [u8; ALIGNMENT] = [0; ALIGNMENT];

/// A model file to be written: its sections are lent, not copied.
#[derive(Debug, Clone)]
pub struct FileWriter<'a> {
    kind: String,
    version: String,
    catalogue: Catalogue,
    sections: Vec<(Entry, &'a [u8])>,
}

impl<'a> FileWriter<'a> {
    /// Without sections yet. `kind` is read back by programs, `version` names this one model.
    ///
    /// # Errors
    /// A kind of more than 24 bytes, a version of more than 96, either empty or with a zero byte.
    pub fn new(kind: &str, version: &str, catalogue: Catalogue) -> Result<Self, FileError> {
        check_text("the kind", kind, NAME)?;
        check_text("the version", version, VERSION)?;
        Ok(Self { kind: kind.to_owned(), version: version.to_owned(), catalogue, sections: Vec::new() })
    }

    /// Adds a section: numbers of `rows × columns`, row after row.
    ///
    /// # Errors
    /// A name that is taken, empty, or of more than 24 bytes; numbers of another count; more than 256
    /// sections.
    pub fn section<T: Element>(
        mut self,
        name: &str,
        (rows, columns): (usize, usize),
        numbers: &'a [T],
    ) -> Result<Self, FileError> {
        check_text("the section", name, NAME)?;
        if self.sections.iter().any(|(entry, _)| entry.name == name) {
            return Err(FileError::Room { what: format!("two sections '{name}'") });
        }
        if self.sections.len() == SECTIONS {
            return Err(FileError::Room { what: format!("more than {SECTIONS} sections") });
        }
        if rows.checked_mul(columns) != Some(numbers.len()) {
            let found = format!("{} {}", numbers.len(), T::NAME);
            let expected = format!("{rows} × {columns}");
            return Err(FileError::Type { section: name.to_owned(), found, expected });
        }
        let bytes: &[u8] = bytemuck::cast_slice(numbers);
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(bytes);
        checksum.update(padding(bytes.len()));
        let entry = Entry {
            name: name.to_owned(),
            code: T::CODE,
            checksum: checksum.finalize(),
            rows: rows as u64,
            columns: columns as u64,
            // Known when all sections are.
            offset: 0,
            length: bytes.len() as u64,
        };
        self.sections.push((entry, bytes));
        Ok(self)
    }

    /// The file in pieces, to be written one after the other; the sections themselves are lent.
    pub fn pieces(&self) -> Vec<Cow<'_, [u8]>> {
        let mut end = HEAD + ENTRY * self.sections.len();
        let mut entries = Vec::with_capacity(end);
        for (entry, bytes) in &self.sections {
            write_entry(&Entry { offset: end as u64, ..entry.clone() }, &mut entries);
            end += bytes.len() + padding(bytes.len()).len();
        }
        let mut header = self.head(end as u64);
        header.extend_from_slice(&entries);
        let checksum = crc32fast::hash(&header);
        header[12..16].copy_from_slice(&checksum.to_le_bytes());
        let mut pieces = vec![Cow::Owned(header)];
        for (_, bytes) in &self.sections {
            pieces.extend([Cow::Borrowed(*bytes), Cow::Borrowed(padding(bytes.len()))]);
        }
        pieces
    }

    /// The file in one piece.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.pieces().concat()
    }

    fn head(&self, length: u64) -> Vec<u8> {
        let mut head = Vec::with_capacity(HEAD);
        head.extend_from_slice(&MAGIC);
        head.extend_from_slice(&FORMAT.to_le_bytes());
        head.extend_from_slice(&0_u32.to_le_bytes());
        head.extend_from_slice(&(self.sections.len() as u64).to_le_bytes());
        head.extend_from_slice(&length.to_le_bytes());
        head.extend_from_slice(&self.catalogue.items.to_le_bytes());
        head.extend_from_slice(&self.catalogue.fingerprint);
        write_text(&self.kind, NAME, &mut head);
        write_text(&self.version, VERSION, &mut head);
        debug_assert_eq!(head.len(), HEAD, "the head as the table tells it");
        head
    }
}

fn check_text(what: &str, text: &str, room: usize) -> Result<(), FileError> {
    if text.is_empty() || text.len() > room || text.contains('\0') {
        return Err(FileError::Room { what: format!("{what} '{}'", text.escape_default()) });
    }
    Ok(())
}

/// The zeros that fill a section up.
fn padding(length: usize) -> &'static [u8] {
    &ZEROS[..length.next_multiple_of(ALIGNMENT) - length]
}

fn write_text(text: &str, room: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(text.as_bytes());
    out.resize(out.len() + room - text.len(), 0);
}

fn write_entry(entry: &Entry, out: &mut Vec<u8>) {
    write_text(&entry.name, NAME, out);
    out.extend_from_slice(&entry.code.to_le_bytes());
    out.extend_from_slice(&entry.checksum.to_le_bytes());
    for number in [entry.rows, entry.columns, entry.offset, entry.length] {
        out.extend_from_slice(&number.to_le_bytes());
    }
}
