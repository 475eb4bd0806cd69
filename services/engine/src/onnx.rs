//! The linear model as an ONNX graph, for other runtimes and as an artefact beside the model.
//!
//! Input `history` is [batch, items], output `scores` [batch, items]: `history · S + (history · A) · Bᵀ`.
//! With a list wanted, `best_scores` and `best_items` are [batch, limit], best first. Messages and field
//! numbers are those of onnx.proto, IR version 8; operators those of opset 17.

use crate::LinearModel;

const IR_VERSION: u64 = 8;
const OPSET: u64 = 17;
/// `TensorProto.DataType`.
const FLOAT: u64 = 1;
const INT64: u64 = 7;
/// `AttributeProto.AttributeType`.
const INT: u64 = 2;

/// Items of a model with links at the most: they are exported as a dense matrix of items × items f32.
pub const DENSE_ITEMS: usize = 16_384;
/// Bytes of an export at the most: messages of 2 GiB and more cannot be read.
const BYTES: usize = (1 << 31) - 1;
/// Room for everything but the numbers.
const REST: usize = 64 << 10;

/// Why a model cannot be exported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OnnxError {
    /// There is nothing to score.
    #[error("a model without items cannot be exported")]
    Empty,
    /// Links are exported as a dense matrix.
    #[error("a model with links can be exported up to {DENSE_ITEMS} items; this one has {items}")]
    Items {
        /// Items of the model.
        items: usize,
    },
    /// The export would be larger than a message can be.
    #[error("the export would have {bytes} bytes; at most {BYTES} can be read")]
    Bytes {
        /// Bytes of the numbers.
        bytes: usize,
    },
}

/// What an export tells of itself, and what it answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OnnxOptions {
    /// Version of the model, as the metadata `version`.
    pub version: String,
    /// Length of the list to answer beside the scores, at most the number of items; 0 for none.
    pub list: usize,
}

/// A `ModelProto` in bytes. Time and memory O(items² + items × rank) with links, else O(items × rank).
///
/// # Errors
/// A model without items, or too large: with links above [`DENSE_ITEMS`], or of 2 GiB and more.
pub fn export(model: &LinearModel, options: &OnnxOptions) -> Result<Vec<u8>, OnnxError> {
    let (items, rank) = (model.item_count(), model.rank());
    if items == 0 {
        return Err(OnnxError::Empty);
    }
    // Without either part every score is 0, which links of nothing but zeros say.
    let linked = rank == 0 || (0..number(items)).any(|item| model.sparse().row(item).len() > 0);
    if linked && items > DENSE_ITEMS {
        return Err(OnnxError::Items { items });
    }
    let bytes = rank.saturating_mul(items).saturating_mul(8).saturating_add(if linked { items * items * 4 } else { 0 });
    if bytes > BYTES - REST {
        return Err(OnnxError::Bytes { bytes });
    }
    let list = options.list.min(items);
    let mut out = Message(Vec::with_capacity(bytes + REST));
    out.number(1, IR_VERSION);
    out.text(2, "echotune");
    out.text(3, env!("CARGO_PKG_VERSION"));
    out.message(7, &graph(model, linked, list));
    out.message(8, &Message::default().with(|opset| opset.number(2, OPSET)));
    for (key, value) in [("version", &options.version), ("kind", &"linear".to_owned())] {
        let property = Message::default().with(|property| {
            property.text(1, key);
            property.text(2, value);
        });
        out.message(14, &property);
    }
    Ok(out.0)
}

/// A `GraphProto`.
fn graph(model: &LinearModel, linked: bool, list: usize) -> Message {
    let (items, rank) = (model.item_count(), model.rank());
    let mut graph = Message::default();
    let sparse = if rank > 0 { "linked" } else { "scores" };
    let low = if linked { "low" } else { "scores" };
    if linked {
        graph.message(1, &node("MatMul", &["history", "links"], &[sparse]));
    }
    if rank > 0 {
        graph.message(1, &node("MatMul", &["history", "from"], &["folded"]));
        graph.message(1, &node("MatMul", &["folded", "to"], &[low]));
    }
    if linked && rank > 0 {
        graph.message(1, &node("Add", &["linked", "low"], &["scores"]));
    }
    if list > 0 {
        let best = node("TopK", &["scores", "list"], &["best_scores", "best_items"]);
        graph.message(1, &best.with(|best| best.message(5, &int("axis", 1))));
    }
    graph.text(2, "linear");
    if linked {
        graph.message(5, &tensor("links", &[items, items], FLOAT, bytemuck::cast_slice(&dense(model))));
    }
    if rank > 0 {
        let to = model.to().transposed();
        graph.message(5, &tensor("from", &[items, rank], FLOAT, bytemuck::cast_slice(model.from().as_slice())));
        graph.message(5, &tensor("to", &[rank, items], FLOAT, bytemuck::cast_slice(to.as_slice())));
    }
    graph.message(11, &value("history", FLOAT, items));
    graph.message(12, &value("scores", FLOAT, items));
    if list > 0 {
        graph.message(5, &tensor("list", &[1], INT64, &(list as u64).to_le_bytes()));
        graph.message(12, &value("best_scores", FLOAT, list));
        graph.message(12, &value("best_items", INT64, list));
    }
    graph
}

/// The links as a matrix, history item by history item.
fn dense(model: &LinearModel) -> Vec<f32> {
    let items = model.item_count();
    let mut out = vec![0.0; items * items];
    for (row, item) in out.chunks_exact_mut(items).zip(0..) {
        for (other, weight) in model.sparse().row(item) {
            row[other as usize] = weight;
        }
    }
    out
}

/// A `NodeProto`.
fn node(operator: &str, inputs: &[&str], outputs: &[&str]) -> Message {
    let mut node = Message::default();
    inputs.iter().for_each(|input| node.text(1, input));
    outputs.iter().for_each(|output| node.text(2, output));
    // Named by what it makes.
    node.text(3, outputs[0]);
    node.text(4, operator);
    node
}

/// An `AttributeProto`.
fn int(name: &str, value: u64) -> Message {
    Message::default().with(|attribute| {
        attribute.text(1, name);
        attribute.number(3, value);
        attribute.number(20, INT);
    })
}

/// A `TensorProto` of numbers as they lie in memory.
fn tensor(name: &str, shape: &[usize], of: u64, numbers: &[u8]) -> Message {
    let mut tensor = Message(Vec::with_capacity(numbers.len() + 128));
    shape.iter().for_each(|edge| tensor.number(1, *edge as u64));
    tensor.number(2, of);
    tensor.text(8, name);
    tensor.bytes(9, numbers);
    tensor
}

/// A `ValueInfoProto` of [batch, columns].
fn value(name: &str, of: u64, columns: usize) -> Message {
    let shape = Message::default().with(|shape| {
        shape.message(1, &Message::default().with(|edge| edge.text(2, "batch")));
        shape.message(1, &Message::default().with(|edge| edge.number(1, columns as u64)));
    });
    let tensor = Message::default().with(|tensor| {
        tensor.number(1, of);
        tensor.message(2, &shape);
    });
    Message::default().with(|value| {
        value.text(1, name);
        value.message(2, &Message::default().with(|of| of.message(1, &tensor)));
    })
}

fn number(items: usize) -> u32 {
    u32::try_from(items).unwrap_or(u32::MAX)
}

/// A message of protocol buffers as it is written: each field a key and a value (Protocol Buffers,
/// "Encoding"). Fields may come in any order.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn with(mut self, fill: impl FnOnce(&mut Self)) -> Self {
        fill(&mut self);
        self
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    fn text(&mut self, field: u64, value: &str) {
        self.bytes(field, value.as_bytes());
    }

    fn message(&mut self, field: u64, value: &Self) {
        self.bytes(field, &value.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ItemGraph, dense::Matrix};

    fn factors(items: usize, rank: usize) -> Matrix {
        Matrix::from_vec(items, rank, vec![0.5; items * rank]).expect("the length")
    }

    #[test]
    fn numbers_are_written_as_the_encoding_shows_them() {
        // Examples of Protocol Buffers, "Encoding": field 1 = 150, field 2 = "testing", field 3 = { 1: 150 }.
        let mut message = Message::default();
        message.number(1, 150);
        let inner = Message(message.0.clone());
        message.text(2, "testing");
        message.message(3, &inner);
        assert_eq!(message.0, b"\x08\x96\x01\x12\x07testing\x1a\x03\x08\x96\x01");
    }

    #[test]
    fn models_that_no_message_holds_are_refused() {
        let options = OnnxOptions::default();
        assert_eq!(export(&LinearModel::default(), &options), Err(OnnxError::Empty));
        let items = DENSE_ITEMS + 1;
        let mut links = vec![Vec::new(); items];
        let bare =
            LinearModel::new(ItemGraph::from_links(&links).expect("links"), factors(items, 1), factors(items, 1));
        let bytes = export(&bare.expect("shapes"), &options).expect("without links there is no such limit");
        assert!(bytes.len() > items * 8 && bytes.len() < items * 8 + REST);
        links[3].push((1, 1.0));
        let linked =
            LinearModel::new(ItemGraph::from_links(&links).expect("links"), factors(items, 1), factors(items, 1));
        assert_eq!(export(&linked.expect("shapes"), &options), Err(OnnxError::Items { items }));
    }

    #[test]
    fn the_export_holds_the_links_by_history_item_and_names_what_it_answers() {
        let links = [vec![(1, 2.0_f32)], vec![(0, 3.0)]];
        let model = LinearModel::new(ItemGraph::from_links(&links).expect("links"), factors(2, 0), factors(2, 0));
        let model = model.expect("shapes");
        let holds = |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
        let numbers: Vec<u8> = [0.0_f32, 2.0, 3.0, 0.0].into_iter().flat_map(f32::to_le_bytes).collect();
        let plain = export(&model, &OnnxOptions { version: "v 7".into(), list: 0 }).expect("small");
        assert!(holds(&plain, &numbers) && holds(&plain, b"v 7") && holds(&plain, b"scores"));
        assert!(!holds(&plain, b"TopK") && !holds(&plain, b"folded"));
        let list = export(&model, &OnnxOptions { version: String::new(), list: 99 }).expect("small");
        // A list is no longer than there are items.
        assert!(holds(&list, b"TopK") && holds(&list, &2_u64.to_le_bytes()));
    }
}
