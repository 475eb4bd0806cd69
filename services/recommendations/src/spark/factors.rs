//! What the job hands back: item factors in Parquet, with what tells where they come from.

use std::{collections::HashMap, path::Path};

use echotune_engine::dense::Matrix;
use echotune_model::ItemId;
use parquet::{column::reader::ColumnReader, file::reader::RowGroupReader};
use serde::{Deserialize, Serialize};

use super::{
    SparkError, below, check_file, read_json, refused,
    table::{column, each_group, id, texts},
};

/// Name of the description in the folder of factors.
const DESCRIPTION: &str = "factors.json";
const FORMAT: &str = "echotune-factors";
const SCHEMA_VERSION: u32 = 1;
/// Dimensions of factors at the most.
const MAX_RANK: usize = 1_024;
/// Items at the most.
const MAX_ITEMS: u64 = 5_000_000;
/// Files at the most.
const MAX_FILES: usize = 10_000;

/// A file of factors.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    path: String,
    bytes: u64,
    sha256: String,
}

/// The export that factors were trained on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Origin {
    pub(super) manifest_sha256: String,
    pub(super) watermark: u64,
}

/// The description of factors. What a later job tells beyond it is passed over.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FactorsFile {
    format: String,
    schema_version: u32,
    /// `artist` or `track`.
    pub kind: String,
    /// Dimensions.
    pub rank: usize,
    /// Items.
    pub items: u64,
    /// Listeners trained on.
    pub listeners: u64,
    /// Rows trained on.
    pub rows: u64,
    pub(super) export: Origin,
    versions: HashMap<String, String>,
    files: Vec<Entry>,
}

impl FactorsFile {
    /// What trained the factors.
    pub fn trainer(&self) -> String {
        self.versions
            .get("spark")
            .map_or_else(|| "Apache Spark".to_owned(), |version| format!("Apache Spark {version}"))
    }

    fn read(folder: &Path) -> Result<Self, SparkError> {
        let path = folder.join(DESCRIPTION);
        let (file, _): (Self, _) = read_json(&path)?;
        let fault = if file.format != FORMAT {
            Some(format!("its format is '{}', not '{FORMAT}'", file.format.escape_debug()))
        } else if file.schema_version != SCHEMA_VERSION {
            Some(format!("its schema_version is {}; this program reads {SCHEMA_VERSION}", file.schema_version))
        } else if !["artist", "track"].contains(&file.kind.as_str()) {
            Some(format!("its kind is '{}', neither artist nor track", file.kind.escape_debug()))
        } else if !(1..=MAX_RANK).contains(&file.rank) {
            Some(format!("its rank is {}; it is from 1 to {MAX_RANK}", file.rank))
        } else if !(1..=MAX_ITEMS).contains(&file.items) {
            Some(format!("it tells of {} items; there are 1 to {MAX_ITEMS}", file.items))
        } else if file.files.len() > MAX_FILES {
            Some(format!("it names more than {MAX_FILES} files"))
        } else {
            None
        };
        fault.map_or(Ok(file), |fault| Err(refused(&path, fault)))
    }
}

/// Reads factors and checks them whole: checksums, dimensions, numbers, and that each item is there once.
/// Answers with the items in the order of their ids and with their factors, items × rank. Time O(bytes).
///
/// # Errors
/// The first thing that is wrong, with the file it is in.
pub fn read_factors(folder: &Path) -> Result<(FactorsFile, Vec<ItemId>, Matrix), SparkError> {
    let file = FactorsFile::read(folder)?;
    let mut rows: Vec<(ItemId, usize)> = Vec::new();
    let mut numbers: Vec<f32> = Vec::new();
    for entry in &file.files {
        let path = below(folder, &entry.path)?;
        check_file(&path, entry.bytes, &entry.sha256)?;
        each_group(&path, |group, count| {
            if (rows.len() + count) as u64 > file.items {
                return Err(format!("there are more than the {} items that are told", file.items));
            }
            let items = texts(group, "item", count)?;
            let features = features(group, count, file.rank)?;
            for (item, row) in items.iter().zip(features.chunks_exact(file.rank)) {
                let item = ItemId(id(item)?);
                if row.iter().any(|x| !x.is_finite()) {
                    return Err(format!("the factors of item {item} are not finite"));
                }
                rows.push((item, rows.len()));
            }
            numbers.extend(features);
            Ok(())
        })?;
    }
    if rows.len() as u64 != file.items {
        let reason = format!("its files hold {} items, and {} are told", rows.len(), file.items);
        return Err(refused(&folder.join(DESCRIPTION), reason));
    }
    rows.sort_unstable();
    if let Some(pair) = rows.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(refused(folder, format!("item {} is there twice", pair[0].0)));
    }
    let mut factors = Matrix::zeros(rows.len(), file.rank);
    for (to, (_, from)) in rows.iter().enumerate() {
        factors.row_mut(to).copy_from_slice(&numbers[from * file.rank..(from + 1) * file.rank]);
    }
    Ok((file, rows.into_iter().map(|(item, _)| item).collect(), factors))
}

/// Lists of `rank` numbers, one after the other.
fn features(group: &dyn RowGroupReader, rows: usize, rank: usize) -> Result<Vec<f32>, String> {
    let (ColumnReader::FloatColumnReader(mut reader), definition, repetition) = column(group, "features")? else {
        return Err("column 'features' does not hold lists of numbers of 32 bits".into());
    };
    if repetition != 1 {
        return Err("column 'features' does not hold lists of numbers".into());
    }
    let (mut values, mut defined, mut repeated) = (Vec::new(), Vec::new(), Vec::new());
    let read = reader.read_records(rows, Some(&mut defined), Some(&mut repeated), &mut values);
    read.map_err(|cause| cause.to_string())?;
    // A list begins where its level is 0, so that lists of other lengths do not pass for lists of this one.
    let even = repeated.iter().enumerate().all(|(at, level)| (*level == 0) == at.is_multiple_of(rank));
    if !even || values.len() != rows * rank || defined.iter().any(|level| *level != definition) {
        return Err(format!("column 'features' does not hold {rank} numbers in every row"));
    }
    Ok(values)
}

#[cfg(test)]
pub(super) mod tests {
    use std::{
        fs::{self, File},
        sync::Arc,
    };

    use parquet::{
        data_type::{ByteArray, ByteArrayType, FloatType},
        file::{properties::WriterProperties, writer::SerializedFileWriter},
        schema::parser::parse_message_type,
    };
    use serde_json::{Value, json};
    use sha2::{Digest as _, Sha256};

    use super::*;

    /// As Spark writes them.
    const SCHEMA: &str = "message spark_schema {
        OPTIONAL BYTE_ARRAY item (UTF8);
        OPTIONAL GROUP features (LIST) { REPEATED GROUP list { REQUIRED FLOAT element; } }
    }";

    /// A folder of factors as the job writes it, changed by `edit` at the end.
    pub(in crate::spark) fn written(
        folder: &Path,
        manifest_sha256: &str,
        rank: usize,
        rows: &[(String, Vec<f32>)],
        edit: impl FnOnce(&mut Value),
    ) {
        fs::create_dir_all(folder.join("factors")).expect("made");
        let path = folder.join("factors/part-0.snappy.parquet");
        let schema = Arc::new(parse_message_type(SCHEMA).expect("a schema"));
        let file = File::create(&path).expect("made");
        let properties = Arc::new(WriterProperties::builder().build());
        let mut writer = SerializedFileWriter::new(file, schema, properties).expect("begun");
        for rows in rows.chunks(7) {
            let mut group = writer.next_row_group().expect("a group");
            let items: Vec<ByteArray> =
                rows.iter().map(|(item, _)| ByteArray::from(item.clone().into_bytes())).collect();
            let mut column = group.next_column().expect("a column").expect("the first");
            let defined = vec![1; items.len()];
            column.typed::<ByteArrayType>().write_batch(&items, Some(&defined), None).expect("written");
            column.close().expect("closed");
            let values: Vec<f32> = rows.iter().flat_map(|(_, row)| row.clone()).collect();
            let repeated: Vec<i16> =
                rows.iter().flat_map(|(_, row)| (0..row.len()).map(|at| i16::from(at > 0))).collect();
            let mut column = group.next_column().expect("a column").expect("the second");
            let defined = vec![2; values.len()];
            column.typed::<FloatType>().write_batch(&values, Some(&defined), Some(&repeated)).expect("written");
            column.close().expect("closed");
            group.close().expect("closed");
        }
        writer.close().expect("closed");
        let bytes = fs::read(&path).expect("read");
        let entry = json!({
            "path": "factors/part-0.snappy.parquet", "bytes": bytes.len(),
            "sha256": super::super::hex(&Sha256::digest(&bytes)),
        });
        let mut told = json!({
            "format": "echotune-factors", "schema_version": 1, "kind": "artist", "rank": rank, "items": rows.len(),
            "listeners": 3, "rows": 9, "export": { "manifest_sha256": manifest_sha256, "watermark": 7 },
            "options": { "alpha": 1.0 }, "versions": { "spark": "4.0.1" }, "files": [entry],
        });
        edit(&mut told);
        fs::write(folder.join("factors.json"), told.to_string()).expect("written");
    }

    fn some() -> Vec<(String, Vec<f32>)> {
        (0..20).map(|n: u8| (ItemId::artist(&n.to_string()).to_string(), vec![f32::from(n), 1.0, -0.5])).collect()
    }

    fn said(rows: &[(String, Vec<f32>)], edit: impl FnOnce(&mut Value)) -> String {
        let folder = tempfile::tempdir().expect("folder");
        written(folder.path(), "x", 3, rows, edit);
        read_factors(folder.path()).expect_err("refused").to_string()
    }

    #[test]
    fn factors_are_read_in_the_order_of_their_items() {
        let folder = tempfile::tempdir().expect("folder");
        written(folder.path(), "x", 3, &some(), |_| {});
        let (file, items, factors) = read_factors(folder.path()).expect("read");
        assert_eq!((file.trainer().as_str(), file.rank, items.len()), ("Apache Spark 4.0.1", 3, 20));
        assert!(items.is_sorted());
        for (at, item) in items.iter().enumerate() {
            let (_, row) = some().into_iter().find(|(id, _)| *id == item.to_string()).expect("one of them");
            assert_eq!(factors.row(at), row);
        }
    }

    #[test]
    fn rows_that_are_none_are_refused_with_what_is_wrong() {
        let with = |at: usize, change: fn(&mut (String, Vec<f32>))| {
            let mut rows = some();
            change(&mut rows[at]);
            rows
        };
        for (rows, why) in [
            (with(4, |row| row.1[2] = f32::NAN), "not finite"),
            (with(4, |row| row.1[0] = f32::INFINITY), "not finite"),
            (with(9, |row| row.1.truncate(2)), "does not hold 3 numbers in every row"),
            (with(9, |row| row.0 = "Björk".into()), "'Björk' is no id"),
            (with(9, |row| row.0 = some()[3].0.clone()), "is there twice"),
        ] {
            let said = said(&rows, |_| {});
            assert!(said.contains(why), "{said}");
        }
        // Two wrong lengths that make the right sum.
        let mut rows = some();
        rows[0].1.pop();
        rows[1].1.push(2.0);
        assert!(said(&rows, |_| {}).contains("does not hold 3 numbers in every row"));
    }

    #[test]
    fn descriptions_that_tell_something_else_are_refused() {
        type Edit = fn(&mut Value);
        let edits: [(Edit, &str); 10] = [
            (|told| told["format"] = "other".into(), "format is 'other'"),
            (|told| told["schema_version"] = 2.into(), "schema_version is 2"),
            (|told| told["kind"] = "album".into(), "neither artist nor track"),
            (|told| told["rank"] = 2_000.into(), "rank is 2000"),
            (|told| told["rank"] = 4.into(), "does not hold 4 numbers"),
            (|told| told["items"] = 21.into(), "hold 20 items, and 21 are told"),
            (|told| told["items"] = 19.into(), "more than the 19 items"),
            (|told| told["items"] = 9_000_000.into(), "9000000 items"),
            (|told| told["files"][0]["path"] = "../factors.json".into(), "is no path below it"),
            (|told| told["files"][0]["sha256"] = "00".into(), "SHA-256"),
        ];
        for (edit, why) in edits {
            let said = said(&some(), edit);
            assert!(said.contains(why), "{said}");
        }
        assert!(said(&some(), |told| *told = json!([])).contains("factors.json"));
        assert!(said(&some(), |told| told["files"][0]["bytes"] = 5.into()).contains("5 are told"));
    }
}
