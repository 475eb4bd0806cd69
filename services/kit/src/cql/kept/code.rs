//! Groups and rows as bytes: pure.

use std::{borrow::Cow, collections::BTreeMap};

use super::{super::CqlError, schema::BUCKETS};
use crate::embedded::Row;

/// Bytes of a group, of a key or of a value as they are: numbers are big-endian, texts and bytes follow their length.
const PLAIN: u8 = 1;
/// The length of a value that was removed.
const REMOVED: u32 = u32::MAX;

/// The bytes of a group: its tables by name, then its rows, each with the place of its table.
pub(super) fn encode(rows: &[Row]) -> Vec<u8> {
    let mut tables: BTreeMap<&str, u32> = rows.iter().map(|row| (row.table.as_ref(), 0)).collect();
    tables.values_mut().zip(0..).for_each(|(place, n)| *place = n);
    let mut bytes = vec![PLAIN];
    put_length(&mut bytes, tables.len());
    tables.keys().for_each(|name| put(&mut bytes, name.as_bytes()));
    for row in rows {
        bytes.extend_from_slice(&tables[row.table.as_ref()].to_be_bytes());
        put(&mut bytes, &row.key);
        match &row.value {
            Some(value) => put(&mut bytes, value),
            None => bytes.extend_from_slice(&REMOVED.to_be_bytes()),
        }
    }
    bytes
}

fn put(bytes: &mut Vec<u8>, part: &[u8]) {
    put_length(bytes, part.len());
    bytes.extend_from_slice(part);
}

fn put_length(bytes: &mut Vec<u8>, length: usize) {
    // What is larger was refused before.
    bytes.extend_from_slice(&u32::try_from(length).unwrap_or(REMOVED - 1).to_be_bytes());
}

/// The rows of a group.
///
/// # Errors
/// [`CqlError::Damaged`] when the bytes are no group, or of a format that this program does not know.
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<Row>, CqlError> {
    const WHAT: &str = "a group of writes";
    let short = || CqlError::Damaged { what: WHAT, cause: "it ends too early".into() };
    let mut rest = plain(WHAT, bytes)?;
    let tables = number(&mut rest).ok_or_else(short)?;
    let mut names = Vec::new();
    for _ in 0..tables {
        let name = part(&mut rest).flatten().ok_or_else(short)?;
        names.push(String::from_utf8(name).map_err(|_| short())?);
    }
    let mut rows = Vec::new();
    while !rest.is_empty() {
        let place = number(&mut rest).and_then(|place| usize::try_from(place).ok());
        let table = place.and_then(|place| names.get(place)).ok_or_else(short)?;
        let key = part(&mut rest).flatten().ok_or_else(short)?;
        let value = part(&mut rest).ok_or_else(short)?;
        rows.push(Row { table: Cow::Owned(table.clone()), key, value });
    }
    Ok(rows)
}

fn number(rest: &mut &[u8]) -> Option<u32> {
    let (first, after) = rest.split_first_chunk::<4>()?;
    *rest = after;
    Some(u32::from_be_bytes(*first))
}

/// The next part; what is there may say that it was removed.
fn part(rest: &mut &[u8]) -> Option<Option<Vec<u8>>> {
    let length = number(rest)?;
    if length == REMOVED {
        return Some(None);
    }
    let (part, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    *rest = after;
    Some(Some(part.to_vec()))
}

/// A key or value as it is kept. None is empty, which not every server takes.
pub(super) fn wrap(bytes: &[u8]) -> Vec<u8> {
    [&[PLAIN], bytes].concat()
}

/// A key or value that was kept so.
///
/// # Errors
/// [`CqlError::Damaged`] when it is of a format that this program does not know.
pub(super) fn plain<'b>(what: &'static str, bytes: &'b [u8]) -> Result<&'b [u8], CqlError> {
    match bytes.split_first() {
        Some((&PLAIN, rest)) => Ok(rest),
        Some((format, _)) => {
            let cause = format!("format {format} is not known; a newer EchoTune may have written it");
            Err(CqlError::Damaged { what, cause })
        }
        None => Err(CqlError::Damaged { what, cause: "it is empty".into() }),
    }
}

/// Where a row is kept. Not all rows of a listener are in one place, so that none grows with a history. Never to be
/// changed: FNV-1a of 64 bits over table, NUL and key (<http://www.isthe.com/chongo/tech/comp/fnv/>), folded.
pub(super) fn bucket(table: &str, key: &[u8]) -> i32 {
    let bytes = table.bytes().chain([0]).chain(key.iter().copied());
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let folded = (hash ^ (hash >> 32)) % u64::from(BUCKETS.unsigned_abs());
    i32::try_from(folded).unwrap_or(0)
}
