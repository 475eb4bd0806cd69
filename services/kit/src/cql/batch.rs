use scylla::{
    serialize::row::SerializeRow,
    statement::batch::{Batch as Statements, BatchType},
};

use super::{Write, WriteTime};

/// Writes of which all are kept or none, though not all are seen at once: a logged batch. Each carries the same
/// time. Servers refuse batches from 50 KiB on.
pub struct Batch {
    pub(super) name: &'static str,
    pub(super) statements: Statements,
    pub(super) values: Vec<Box<dyn SerializeRow + Send + Sync>>,
}

impl std::fmt::Debug for Batch {
    /// Without values, which may be personal.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch").field("name", &self.name).field("writes", &self.values.len()).finish()
    }
}

impl Batch {
    /// An empty one of this name and time.
    pub fn new(name: &'static str, at: WriteTime) -> Self {
        let mut statements = Statements::new(BatchType::Logged);
        statements.set_timestamp(Some(at.micros));
        Self { name, statements, values: Vec::new() }
    }

    /// An empty one whose writes are all of one partition, which makes them one write and needs no log, at this time in
    /// microseconds since the Unix epoch.
    pub fn of_partition(name: &'static str, micros: i64) -> Self {
        let mut statements = Statements::new(BatchType::Unlogged);
        statements.set_timestamp(Some(micros));
        Self { name, statements, values: Vec::new() }
    }

    /// Adds a write.
    pub fn add(&mut self, write: &Write, values: impl SerializeRow + Send + Sync + 'static) {
        self.statements.append_statement(write.prepared.clone());
        self.values.push(Box::new(values));
    }

    /// How many writes it holds.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}
