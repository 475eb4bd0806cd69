use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::{Array, ItemGraph, LinearModel, SharedBytes, dense::Matrix};

fn shared(bytes: Vec<u8>) -> SharedBytes {
    Arc::new(bytes)
}

fn catalogue(items: usize) -> Catalogue {
    Catalogue::of((0..items).map(|item| format!("item {item}")))
}

fn rows_of(items: usize) -> impl Strategy<Value = Vec<Vec<(u32, f32)>>> {
    let last = u32::try_from(items).expect("small").max(1);
    let row = proptest::collection::btree_map(0..last, -3.0_f32..3.0, 0..items.max(1));
    proptest::collection::vec(row.prop_map(|row| row.into_iter().collect()), items)
}

fn models() -> impl Strategy<Value = LinearModel> {
    (0..9_usize, 0..5_usize).prop_flat_map(|(items, rank)| {
        let factors = || proptest::collection::vec(-2.0_f32..2.0, items * rank);
        (rows_of(items), factors(), factors()).prop_map(move |(rows, from, to)| {
            let matrix = |data| Matrix::from_vec(items, rank, data).expect("the length");
            LinearModel::new(ItemGraph::from_links(&rows).expect("links"), matrix(from), matrix(to)).expect("shapes")
        })
    })
}

fn read(bytes: Vec<u8>, items: usize) -> Result<LinearModel, FileError> {
    LinearModel::read(&ModelFile::open(shared(bytes))?, &catalogue(items))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_model_that_is_read_is_the_one_that_was_written(model in models()) {
        let items = model.item_count();
        let bytes = model.write("v 1", catalogue(items)).expect("fits").to_bytes();
        let file = ModelFile::open(shared(bytes)).expect("valid");
        prop_assert_eq!((file.kind(), file.version()), ("linear", "v 1"));
        let again = LinearModel::read(&file, &catalogue(items)).expect("valid");
        prop_assert_eq!(&again, &model);
        let history = [(0, 1.5), (3, -0.5), (99, 1.0)];
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        model.score_into(&history, &mut ours);
        again.score_into(&history, &mut theirs);
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn any_changed_byte_and_any_other_length_is_an_error(model in models(), change in 1..=255_u8) {
        let items = model.item_count();
        let bytes = model.write("v", catalogue(items)).expect("fits").to_bytes();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= change;
            prop_assert!(read(changed, items).is_err(), "byte {}", at);
            prop_assert!(read(bytes[..at].to_vec(), items).is_err(), "{} bytes", at);
        }
        prop_assert!(read([&bytes[..], &[0]].concat(), items).is_err());
        prop_assert!(read(bytes, items).is_ok());
    }

    #[test]
    fn no_bytes_make_a_panic(
        head in proptest::collection::vec(any::<u8>(), 0..400),
        numbers in proptest::collection::vec(any::<u64>(), 0..12),
    ) {
        prop_assert!(ModelFile::open(shared(head)).is_err());
        // Valid files of arbitrary numbers: no graph, and no panic either.
        let items = catalogue(numbers.len().saturating_sub(1));
        let links: Vec<u32> = numbers.iter().map(|number| *number as u32).collect();
        let weights: Vec<f32> = links.iter().map(|bits| f32::from_bits(*bits)).collect();
        let file = FileWriter::new("linear", "v", items).expect("fits");
        let file = file.section("graph.offsets", (numbers.len(), 1), &numbers).expect("fits");
        let file = file.section("graph.neighbours", (links.len(), 1), &links).expect("fits");
        let file = file.section("graph.weights", (links.len(), 1), &weights).expect("fits");
        let file = ModelFile::open(shared(file.to_bytes())).expect("valid");
        if let Ok(graph) = ItemGraph::read(&file) {
            prop_assert!((0..20).all(|item| graph.row(item).all(|(_, weight)| weight.is_finite())));
        }
    }
}

fn small() -> (LinearModel, Vec<u8>) {
    let rows = [vec![(1, 0.5)], vec![(0, 2.0), (1, 1.0)]];
    let factors = |data| Matrix::from_vec(2, 1, data).expect("the length");
    let graph = ItemGraph::from_links(&rows).expect("links");
    let model = LinearModel::new(graph, factors(vec![1.0, 2.0]), factors(vec![3.0, 4.0])).expect("shapes");
    let bytes = model.write("2026-11-25", catalogue(2)).expect("fits").to_bytes();
    (model, bytes)
}

#[test]
fn errors_tell_what_is_wrong() {
    let (model, bytes) = small();
    let open = |bytes: Vec<u8>| ModelFile::open(shared(bytes)).map(|_| ());
    assert_eq!(open(b"PK\x03\x04".to_vec()), Err(FileError::NotAModel));
    assert_eq!(open(Vec::new()), Err(FileError::NotAModel));
    let length = bytes.len() as u64;
    assert_eq!(open(bytes[..600].to_vec()), Err(FileError::Length { found: 600, expected: length }));
    let changed = |at: usize| {
        let mut changed = bytes.clone();
        changed[at] ^= 2;
        open(changed)
    };
    assert_eq!(changed(8), Err(FileError::OtherFormat { found: 3 }));
    assert_eq!(changed(100), Err(FileError::Header));
    let sections = ["graph.offsets", "graph.neighbours", "graph.weights", "from", "to"];
    for (place, section) in sections.into_iter().enumerate() {
        let damaged = Err(FileError::Damaged { section: section.to_owned() });
        // The first and the last byte of each, the zeros that fill it up.
        let from = HEAD + sections.len() * ENTRY + place * ALIGNMENT;
        assert_eq!((changed(from), changed(from + ALIGNMENT - 1)), (damaged.clone(), damaged));
    }
    assert_eq!(read(bytes.clone(), 3), Err(FileError::OtherItems { found: 2, expected: 3 }));
    let reversed = Catalogue::of(["item 1", "item 0"]);
    let file = ModelFile::open(shared(bytes)).expect("valid");
    assert_eq!(LinearModel::read(&file, &reversed), Err(FileError::OtherItems { found: 2, expected: 2 }));
    let other = FileWriter::new("index", "v", catalogue(2)).expect("fits").to_bytes();
    let other_kind = FileError::OtherKind { found: "index".into(), expected: "linear".into() };
    assert_eq!(read(other, 2), Err(other_kind));
    let missing = FileError::Missing { section: "norms".into() };
    assert_eq!(file.array::<f32>("norms").map(|_| ()), Err(missing));
    let of_type = FileError::Type { section: "to".into(), found: "f32".into(), expected: "i8".into() };
    assert_eq!(file.array::<i8>("to").map(|_| ()), Err(of_type));
    assert!(model.write("", catalogue(2)).is_err() && model.write(&"v".repeat(97), catalogue(2)).is_err());
    assert!(model.write("v", catalogue(3)).is_err());
}

#[test]
fn sections_are_of_any_type_aligned_and_lent() {
    #[repr(align(64))]
    struct Aligned([u8; 4096]);
    impl AsRef<[u8]> for Aligned {
        fn as_ref(&self) -> &[u8] {
            &self.0[..832]
        }
    }
    let (codes, scales, halves, norms) = ([-1_i8, 2, 3, -4, 5, 6], [0.5_f64, 0.25], [7_u8; 65], [9_u64]);
    let file = FileWriter::new("index", "v", catalogue(3)).expect("fits");
    let file = file.section("codes", (3, 2), &codes).and_then(|file| file.section("scales", (1, 2), &scales));
    let file = file.and_then(|file| file.section("halves", (65, 1), &halves)).expect("fits");
    let file = file.section("norms", (1, 1), &norms).and_then(|file| file.section::<f32>("none", (0, 8), &[]));
    let file = file.expect("fits");
    assert!(file.clone().section("codes", (3, 2), &codes).is_err());
    assert!(file.clone().section("more", (3, 3), &codes).is_err());
    let bytes = file.to_bytes();
    let mut memory = Aligned([0; 4096]);
    memory.0[..bytes.len()].copy_from_slice(&bytes);
    assert_eq!(bytes.len(), memory.as_ref().len());
    let file = ModelFile::open(Arc::new(memory)).expect("valid");
    let (shape, read): (_, Array<i8>) = file.array("codes").expect("there");
    assert!(read.is_shared() && *read == codes && shape == (3, 2));
    let (_, read): (_, Array<f64>) = file.array("scales").expect("there");
    assert!(read.is_shared() && *read == scales && read.as_ptr().addr().is_multiple_of(ALIGNMENT));
    assert_eq!(*file.array::<u8>("halves").expect("there").1, halves);
    assert_eq!(*file.array::<u64>("norms").expect("there").1, norms);
    assert_eq!(file.matrix("none").map(|matrix| (matrix.rows(), matrix.columns())), Ok((0, 8)));
    assert_eq!(file.sections().collect::<Vec<_>>(), ["codes", "scales", "halves", "norms", "none"]);
}
