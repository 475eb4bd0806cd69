//! Model files: named arrays behind a checked header, read in place. Bytes in, bytes out; where they are
//! kept is left to the callers.
//!
//! A file is a head, one entry for each section, and the sections, each from a multiple of 64 bytes on.
//! Numbers are little-endian; texts are UTF-8, filled up with zeros.
//!
//! | head: from byte | holds |
//! |---|---|
//! | 0 | the magic `89 45 54 4d 0d 0a 1a 0a` |
//! | 8, 12 | format version; CRC-32 of head and entries with this field zero |
//! | 16, 24 | number of sections; length of the file |
//! | 32, 40 | number of items; SHA-256 of their ids in order |
//! | 72, 96, 192 | kind of model (24 bytes); version of the model (96 bytes); end |
//!
//! | entry: from byte | holds |
//! |---|---|
//! | 0 | name (24 bytes) |
//! | 24, 28 | type of the numbers; CRC-32 of the section with the zeros behind it |
//! | 32, 40 | rows; columns |
//! | 48, 56 | first byte in the file; length in bytes |
//!
//! A CRC-32 finds every change within four neighbouring bytes, and any other with odds of 2³² to one. It
//! is there against accidents: whoever may write files can write valid ones.

mod read;
#[cfg(test)]
mod tests;
mod write;

pub use read::ModelFile;
use sha2::{Digest as _, Sha256};
pub use write::FileWriter;

use crate::ShapeError;

const MAGIC: [u8; 8] = *b"\x89ETM\r\n\x1a\n";
/// The format that is written, and the only one that is read.
pub const FORMAT: u32 = 1;
const HEAD: usize = 192;
const ENTRY: usize = 64;
/// What sections are aligned to: a cache line, and more than any number needs.
const ALIGNMENT: usize = 64;
const NAME: usize = 24;
const VERSION: usize = 96;
/// Sections of a file at the most.
const SECTIONS: usize = 256;

/// Why bytes are not the model that was wanted, or a model cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// The bytes do not begin as a model file does.
    #[error("this is not a model file")]
    NotAModel,
    /// Written in another format.
    #[error("the model file is of format {found}; this program reads format {FORMAT}")]
    OtherFormat {
        /// Format of the file.
        found: u32,
    },
    /// The file ends early, or goes on beyond its end.
    #[error("the model file has {found} bytes; its header tells of {expected}")]
    Length {
        /// Bytes that are there.
        found: u64,
        /// Bytes that the header tells of.
        expected: u64,
    },
    /// The header is not as it was written.
    #[error("the header of the model file is damaged")]
    Header,
    /// A section is not as it was written.
    #[error("section '{section}' of the model file is damaged")]
    Damaged {
        /// Its name.
        section: String,
    },
    /// A model of another kind.
    #[error("the model file holds a model of kind '{found}'; '{expected}' was wanted")]
    OtherKind {
        /// Kind of the file.
        found: String,
        /// Kind that was wanted.
        expected: String,
    },
    /// Fitted on other items, or on the same in another order.
    #[error("the model was fitted on other items: {found} of them, where the catalogue has {expected}")]
    OtherItems {
        /// Number of items of the file.
        found: u64,
        /// Number of items of the catalogue.
        expected: u64,
    },
    /// There is no such section.
    #[error("the model file has no section '{section}'")]
    Missing {
        /// Its name.
        section: String,
    },
    /// A section of another type, or of a shape that its length does not fit.
    #[error("section '{section}' holds {found}; {expected} were wanted")]
    Type {
        /// Its name.
        section: String,
        /// What it holds.
        found: String,
        /// What was wanted.
        expected: String,
    },
    /// The sections do not make a model.
    #[error("the sections of the model file do not make a model: {0}")]
    Shape(#[from] ShapeError),
    /// A name, a version or a number of sections that files have no room for.
    #[error("a model file has no room for {what}")]
    Room {
        /// What does not fit.
        what: String,
    },
}

/// The items that a model was fitted on: how many, and which, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Catalogue {
    /// Number of items.
    pub items: u64,
    /// SHA-256 of the ids in order, each behind its length.
    pub fingerprint: [u8; 32],
}

impl Catalogue {
    /// Of item ids in the order of their numbers. Time O(bytes of the ids).
    pub fn of<I: AsRef<[u8]>>(ids: impl IntoIterator<Item = I>) -> Self {
        let (mut hash, mut items) = (Sha256::new(), 0);
        for id in ids {
            let id = id.as_ref();
            hash.update((id.len() as u64).to_le_bytes());
            hash.update(id);
            items += 1;
        }
        Self { items, fingerprint: hash.finalize().into() }
    }
}

/// A type of numbers that files hold.
pub trait Element: bytemuck::Pod + sealed::Sealed {
    /// How a file tells the type.
    const CODE: u32;
    /// Its name.
    const NAME: &'static str;
}

mod sealed {
    pub trait Sealed {}
}

/// Types by their codes; the codes of a format never change.
const TYPES: [(u32, &str, usize); 6] = [
    (f32::CODE, f32::NAME, 4),
    (f64::CODE, f64::NAME, 8),
    (u8::CODE, u8::NAME, 1),
    (i8::CODE, i8::NAME, 1),
    (u32::CODE, u32::NAME, 4),
    (u64::CODE, u64::NAME, 8),
];

macro_rules! elements {
    ($($type:ty = $code:literal),+) => {
        $(impl sealed::Sealed for $type {}
        impl Element for $type {
            const CODE: u32 = $code;
            const NAME: &'static str = stringify!($type);
        })+
    };
}

elements!(f32 = 1, f64 = 2, u8 = 3, i8 = 4, u32 = 5, u64 = 6);

/// What an entry tells of a section.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    name: String,
    code: u32,
    checksum: u32,
    rows: u64,
    columns: u64,
    offset: u64,
    length: u64,
}
