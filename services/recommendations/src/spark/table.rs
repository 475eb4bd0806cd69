//! Rows of histories in Parquet, column by column.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    sync::Arc,
};

use echotune_model::{ItemId, UserId};
use parquet::{
    basic::Compression,
    column::reader::ColumnReader,
    data_type::{ByteArray, ByteArrayType, Int64Type},
    errors::ParquetError,
    file::{
        properties::WriterProperties,
        reader::{FileReader as _, RowGroupReader},
        serialized_reader::SerializedFileReader,
        writer::SerializedFileWriter,
    },
    schema::parser::parse_message_type,
};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{SparkError, disk, hex, refused};

const SCHEMA: &str = "message listens {
    REQUIRED BYTE_ARRAY user (UTF8);
    REQUIRED BYTE_ARRAY item (UTF8);
    REQUIRED INT64 plays;
    OPTIONAL INT64 last_listened_at (TIMESTAMP_MILLIS);
}";

/// Rows of one group at the most, as they are read: they are held in memory.
const MAX_GROUP: i64 = 1 << 20;

/// A listener and an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// Who.
    pub user: UserId,
    /// Knows what.
    pub item: ItemId,
    /// Plays: 1 or more.
    pub plays: u64,
    /// Latest playback in milliseconds since the Unix epoch; 0 when unknown.
    pub last_listened_at_ms: i64,
}

/// A file that knows its length and SHA-256 when it is whole.
struct Hashed {
    file: File,
    bytes: u64,
    hash: Sha256,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Rows on their way to a file: as many as make a group are held.
pub(super) struct TableWriter {
    writer: SerializedFileWriter<Hashed>,
    held: Vec<Row>,
    group: usize,
    rows: u64,
}

impl TableWriter {
    pub(super) fn create(path: &Path, group: usize) -> Result<Self, SparkError> {
        let file = File::create_new(path).map_err(disk("make", path))?;
        let schema = Arc::new(parse_message_type(SCHEMA).expect("the schema is one"));
        let created_by = format!("echotune {}", env!("CARGO_PKG_VERSION"));
        let properties =
            WriterProperties::builder().set_compression(Compression::SNAPPY).set_created_by(created_by).build();
        let hashed = Hashed { file, bytes: 0, hash: Sha256::new() };
        let writer =
            SerializedFileWriter::new(hashed, schema, Arc::new(properties)).map_err(|cause| refused(path, cause))?;
        Ok(Self { writer, held: Vec::new(), group, rows: 0 })
    }

    pub(super) fn push(&mut self, path: &Path, row: Row) -> Result<(), SparkError> {
        self.held.push(row);
        self.rows += 1;
        if self.held.len() >= self.group {
            self.write_group().map_err(|cause| written(path, cause))?;
        }
        Ok(())
    }

    /// Writes the rest, and lets it reach the disk. Answers with rows, bytes and SHA-256.
    pub(super) fn finish(mut self, path: &Path) -> Result<(u64, u64, String), SparkError> {
        if !self.held.is_empty() {
            self.write_group().map_err(|cause| written(path, cause))?;
        }
        let hashed = self.writer.into_inner().map_err(|cause| written(path, cause))?;
        hashed.file.sync_all().map_err(disk("write", path))?;
        Ok((self.rows, hashed.bytes, hex(&hashed.hash.finalize())))
    }

    fn write_group(&mut self) -> Result<(), ParquetError> {
        let rows = std::mem::take(&mut self.held);
        let text = |id: Uuid| ByteArray::from(id.to_string().into_bytes());
        let mut users: Vec<ByteArray> = Vec::with_capacity(rows.len());
        for (at, row) in rows.iter().enumerate() {
            // Rows of one listener follow each other and share the text.
            let same = at.checked_sub(1).filter(|before| rows[*before].user == row.user);
            users.push(same.map_or_else(|| text(row.user.0), |before| users[before].clone()));
        }
        let items: Vec<ByteArray> = rows.iter().map(|row| text(row.item.0)).collect();
        let plays: Vec<i64> = rows.iter().map(|row| i64::try_from(row.plays).unwrap_or(i64::MAX)).collect();
        let timed = rows.iter().map(|row| row.last_listened_at_ms).filter(|time| *time > 0);
        let times: Vec<i64> = timed.collect();
        let levels: Vec<i16> = rows.iter().map(|row| i16::from(row.last_listened_at_ms > 0)).collect();
        let mut group = self.writer.next_row_group()?;
        let mut at = 0;
        while let Some(mut column) = group.next_column()? {
            match at {
                0 => column.typed::<ByteArrayType>().write_batch(&users, None, None)?,
                1 => column.typed::<ByteArrayType>().write_batch(&items, None, None)?,
                2 => column.typed::<Int64Type>().write_batch(&plays, None, None)?,
                _ => column.typed::<Int64Type>().write_batch(&times, Some(&levels), None)?,
            };
            column.close()?;
            at += 1;
        }
        group.close()?;
        Ok(())
    }
}

/// What the disk said, out of what the format makes of it.
fn written(path: &Path, cause: ParquetError) -> SparkError {
    disk("write", path)(io::Error::other(cause))
}

/// Opens a table.
pub(super) fn open(path: &Path) -> Result<SerializedFileReader<File>, SparkError> {
    let file = File::open(path).map_err(disk("read", path))?;
    SerializedFileReader::new(file).map_err(|cause| refused(path, cause))
}

/// Groups of rows of a table, each with its number of rows.
pub(super) fn each_group(
    path: &Path,
    mut visit: impl FnMut(&dyn RowGroupReader, usize) -> Result<(), String>,
) -> Result<(), SparkError> {
    let reader = open(path)?;
    for at in 0..reader.num_row_groups() {
        let group = reader.get_row_group(at).map_err(|cause| refused(path, cause))?;
        let rows = group.metadata().num_rows();
        if !(0..=MAX_GROUP).contains(&rows) {
            return Err(refused(path, format!("a group of rows has {rows} of them; at most {MAX_GROUP} are read")));
        }
        let rows = usize::try_from(rows).expect("at most 2^20 rows");
        visit(group.as_ref(), rows).map_err(|reason| refused(path, reason))?;
    }
    Ok(())
}

/// The place of a column by the first part of its name.
pub(super) fn column(group: &dyn RowGroupReader, name: &str) -> Result<(ColumnReader, i16, i16), String> {
    let schema = group.metadata().schema_descr();
    let named = |at: &usize| schema.column(*at).path().parts().first().is_some_and(|part| part == name);
    let at = (0..schema.num_columns()).find(named).ok_or_else(|| format!("it has no column '{name}'"))?;
    let column = schema.column(at);
    let (definition, repetition) = (column.max_def_level(), column.max_rep_level());
    let reader = group.get_column_reader(at).map_err(|cause| cause.to_string())?;
    Ok((reader, definition, repetition))
}

/// Texts of a column without gaps.
pub(super) fn texts(group: &dyn RowGroupReader, name: &str, rows: usize) -> Result<Vec<ByteArray>, String> {
    let (ColumnReader::ByteArrayColumnReader(mut reader), _, repetition) = column(group, name)? else {
        return Err(format!("column '{name}' does not hold texts"));
    };
    if repetition > 0 {
        return Err(format!("column '{name}' holds lists"));
    }
    let (mut values, mut levels) = (Vec::new(), Vec::new());
    reader.read_records(rows, Some(&mut levels), None, &mut values).map_err(|cause| cause.to_string())?;
    if values.len() != rows {
        return Err(format!("column '{name}' has {} texts for {rows} rows", values.len()));
    }
    Ok(values)
}

/// Numbers of a column, None for gaps.
fn numbers(group: &dyn RowGroupReader, name: &str, rows: usize) -> Result<Vec<Option<i64>>, String> {
    let (ColumnReader::Int64ColumnReader(mut reader), definition, repetition) = column(group, name)? else {
        return Err(format!("column '{name}' does not hold whole numbers of 64 bits"));
    };
    if repetition > 0 {
        return Err(format!("column '{name}' holds lists"));
    }
    let (mut values, mut levels) = (Vec::new(), Vec::new());
    reader.read_records(rows, Some(&mut levels), None, &mut values).map_err(|cause| cause.to_string())?;
    let mut values = values.into_iter();
    let numbers: Vec<Option<i64>> = if definition == 0 {
        values.map(Some).collect()
    } else {
        levels.iter().map(|level| if *level == definition { values.next() } else { None }).collect()
    };
    if numbers.len() != rows {
        return Err(format!("column '{name}' has {} numbers for {rows} rows", numbers.len()));
    }
    Ok(numbers)
}

/// The id that a text tells.
pub(super) fn id(text: &ByteArray) -> Result<Uuid, String> {
    let parsed = std::str::from_utf8(text.data()).ok().and_then(|text| Uuid::try_parse(text).ok());
    parsed.ok_or_else(|| {
        let shown: String = String::from_utf8_lossy(text.data()).chars().take(64).collect();
        format!("'{}' is no id", shown.escape_debug())
    })
}

/// Hands over every row of a table, a group at a time.
///
/// # Errors
/// A file that cannot be read, or is no such table.
pub fn read_rows(path: &Path, mut take: impl FnMut(Row)) -> Result<(), SparkError> {
    each_group(path, |group, rows| {
        let (users, items) = (texts(group, "user", rows)?, texts(group, "item", rows)?);
        let (plays, times) = (numbers(group, "plays", rows)?, numbers(group, "last_listened_at", rows)?);
        for at in 0..rows {
            let plays = plays[at].and_then(|plays| u64::try_from(plays).ok()).filter(|plays| *plays > 0);
            let plays = plays.ok_or("column 'plays' holds a number below 1")?;
            let (user, item) = (UserId(id(&users[at])?), ItemId(id(&items[at])?));
            take(Row { user, item, plays, last_listened_at_ms: times[at].unwrap_or(0) });
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_has_the_columns_that_the_job_reads() {
        let schema = parse_message_type(SCHEMA).expect("a schema");
        let names: Vec<&str> = schema.get_fields().iter().map(|field| field.name()).collect();
        assert_eq!(names, ["user", "item", "plays", "last_listened_at"]);
    }

    #[test]
    fn rows_are_read_as_they_were_written_over_several_groups_and_other_files_are_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("rows.parquet");
        let row = |n: u64| Row {
            user: UserId(Uuid::from_u128(u128::from(n / 3))),
            item: ItemId::artist(&n.to_string()),
            plays: n + 1,
            last_listened_at_ms: if n.is_multiple_of(4) {
                0
            } else {
                1_700_000_000_000 + i64::try_from(n).expect("small")
            },
        };
        let rows: Vec<Row> = (0..23).map(row).collect();
        let mut writer = TableWriter::create(&path, 10).expect("made");
        rows.iter().for_each(|row| writer.push(&path, *row).expect("written"));
        let (count, bytes, sha256) = writer.finish(&path).expect("written");
        assert_eq!((count, bytes), (23, std::fs::metadata(&path).expect("there").len()));
        super::super::check_file(&path, bytes, &sha256).expect("as it was written");
        let mut read = Vec::new();
        read_rows(&path, |row| read.push(row)).expect("read");
        assert_eq!(read, rows);
        assert!(TableWriter::create(&path, 10).is_err(), "nothing is overwritten");
        std::fs::write(folder.path().join("x"), "no table").expect("written");
        let error = read_rows(&folder.path().join("x"), |_| {}).expect_err("refused");
        assert!(matches!(error, SparkError::Refused { .. }), "{error}");
    }
}
