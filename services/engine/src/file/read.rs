use std::{fmt, ops::Range};

use super::{
    ALIGNMENT, Catalogue, ENTRY, Element, Entry, FORMAT, FileError, HEAD, MAGIC, NAME, SECTIONS, TYPES, VERSION,
};
use crate::{
    array::{Array, SharedBytes},
    dense::Matrix,
};

/// A model file that was checked whole. Its arrays are lent by the bytes it was opened on.
#[derive(Clone)]
pub struct ModelFile {
    bytes: SharedBytes,
    kind: String,
    version: String,
    catalogue: Catalogue,
    entries: Vec<Entry>,
}

impl fmt::Debug for ModelFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.sections().collect();
        f.debug_struct("ModelFile")
            .field("kind", &self.kind)
            .field("version", &self.version)
            .field("items", &self.catalogue.items)
            .field("sections", &names)
            .finish_non_exhaustive()
    }
}

impl ModelFile {
    /// Checks the header and every section. Time O(bytes), at the speed of a CRC-32.
    ///
    /// # Errors
    /// Bytes that are not a model file, of another format, of another length, or damaged: then with the
    /// name of the damaged section.
    pub fn open(bytes: SharedBytes) -> Result<Self, FileError> {
        let file = Self::header(bytes)?;
        let bytes = file.bytes.as_ref().as_ref();
        for entry in &file.entries {
            // With the zeros behind it, so that no byte of a file is left out.
            let range = entry.range();
            let whole = &bytes[range.start..range.end.next_multiple_of(ALIGNMENT)];
            if crc32fast::hash(whole) != entry.checksum {
                return Err(FileError::Damaged { section: entry.name.clone() });
            }
        }
        Ok(file)
    }

    /// Checks the header alone: that sections are where and as long as it tells, not what they hold.
    fn header(bytes: SharedBytes) -> Result<Self, FileError> {
        let all = bytes.as_ref().as_ref();
        let found = all.len() as u64;
        if !all.starts_with(&MAGIC[..all.len().min(MAGIC.len())]) || all.is_empty() {
            return Err(FileError::NotAModel);
        }
        let head = all.get(..HEAD).ok_or(FileError::Length { found, expected: HEAD as u64 })?;
        let format = u32_at(head, 8);
        if format != FORMAT {
            return Err(FileError::OtherFormat { found: format });
        }
        let sections = usize::try_from(u64_at(head, 16)).unwrap_or(usize::MAX);
        if sections > SECTIONS {
            return Err(FileError::Header);
        }
        let end = HEAD + ENTRY * sections;
        let header = all.get(..end).ok_or(FileError::Length { found, expected: end as u64 })?;
        let mut checksum = crc32fast::Hasher::new();
        for part in [&header[..12], &[0; 4], &header[16..]] {
            checksum.update(part);
        }
        if checksum.finalize() != u32_at(head, 12) {
            return Err(FileError::Header);
        }
        let expected = u64_at(head, 24);
        if expected != found {
            return Err(FileError::Length { found, expected });
        }
        let entries = read_entries(&header[HEAD..], found).ok_or(FileError::Header)?;
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(&head[40..72]);
        let catalogue = Catalogue { items: u64_at(head, 32), fingerprint };
        let text = |range: Range<usize>| read_text(&head[range]).ok_or(FileError::Header);
        let (kind, version) = (text(72..72 + NAME)?, text(96..96 + VERSION)?);
        Ok(Self { kind, version, catalogue, entries, bytes })
    }

    /// Kind of the model.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Which model this is.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The items that the model was fitted on.
    pub const fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Names of the sections, in order.
    pub fn sections(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.name.as_str())
    }

    /// That this is a model of a kind.
    ///
    /// # Errors
    /// It is one of another.
    pub fn expect_kind(&self, expected: &str) -> Result<(), FileError> {
        if self.kind != expected {
            return Err(FileError::OtherKind { found: self.kind.clone(), expected: expected.to_owned() });
        }
        Ok(())
    }

    /// That the model was fitted on these items in this order.
    ///
    /// # Errors
    /// It was fitted on others.
    pub fn expect_items(&self, catalogue: &Catalogue) -> Result<(), FileError> {
        if self.catalogue != *catalogue {
            return Err(FileError::OtherItems { found: self.catalogue.items, expected: catalogue.items });
        }
        Ok(())
    }

    /// Rows and columns of a section, and its numbers.
    ///
    /// # Errors
    /// There is no such section, or it is of another type.
    pub fn array<T: Element>(&self, section: &str) -> Result<((usize, usize), Array<T>), FileError> {
        let missing = || FileError::Missing { section: section.to_owned() };
        let entry = self.entries.iter().find(|entry| entry.name == section).ok_or_else(missing)?;
        if entry.code != T::CODE {
            let found = TYPES.iter().find(|(code, ..)| *code == entry.code).map_or("", |(_, name, _)| name);
            let (found, expected) = (found.to_owned(), T::NAME.to_owned());
            return Err(FileError::Type { section: section.to_owned(), found, expected });
        }
        let shape = (entry.rows, entry.columns);
        let fits = "the entry was checked to lie within the bytes";
        let size = |number: u64| usize::try_from(number).expect(fits);
        Ok(((size(shape.0), size(shape.1)), Array::shared(self.bytes.clone(), entry.range()).expect(fits)))
    }

    /// A section of f32 as a matrix, without copying it.
    ///
    /// # Errors
    /// As of [`Self::array`].
    pub fn matrix(&self, section: &str) -> Result<Matrix, FileError> {
        let ((rows, columns), numbers) = self.array(section)?;
        Ok(Matrix::from_array(rows, columns, numbers).expect("the entry was checked to be of its shape"))
    }
}

impl Entry {
    fn range(&self) -> Range<usize> {
        let size = |number: u64| usize::try_from(number).expect("the entry was checked to lie within the bytes");
        size(self.offset)..size(self.offset + self.length)
    }
}

/// Entries that lie one behind the other up to the end of the file; None when they do not.
fn read_entries(bytes: &[u8], length: u64) -> Option<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut end = (HEAD + bytes.len()) as u64;
    for entry in bytes.chunks_exact(ENTRY) {
        let entry = Entry {
            name: read_text(&entry[..NAME])?,
            code: u32_at(entry, 24),
            checksum: u32_at(entry, 28),
            rows: u64_at(entry, 32),
            columns: u64_at(entry, 40),
            offset: u64_at(entry, 48),
            length: u64_at(entry, 56),
        };
        let (.., size) = TYPES.iter().find(|(code, ..)| *code == entry.code)?;
        let numbers = usize::try_from(entry.rows).ok()?.checked_mul(usize::try_from(entry.columns).ok()?)?;
        let right = numbers.checked_mul(*size)? as u64 == entry.length
            && entry.offset == end
            && entries.iter().all(|other| other.name != entry.name);
        end = entry.offset.checked_add(entry.length)?.checked_next_multiple_of(ALIGNMENT as u64)?;
        if !right || end > length {
            return None;
        }
        entries.push(entry);
    }
    (end == length).then_some(entries)
}

/// A text filled up with zeros; None when it is empty, no UTF-8, or goes on behind a zero.
fn read_text(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?.trim_end_matches('\0');
    (!text.is_empty() && !text.contains('\0')).then(|| text.to_owned())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
