//! A condition and the writes that hang on it, within one partition.

use std::future::Future;

use scylla::{
    serialize::row::SerializeRow,
    statement::batch::{Batch as Statements, BatchType},
};

use super::{
    CqlError, CqlSession, Decide, Seen, Write,
    decide::{applied, settle_by},
    error::{Effect, fate_of_decision, of_fate},
};

/// A conditional write and plain ones, all of one partition: all are made at once, or none. Each gets its time
/// from the servers, so that the columns of the plain ones belong to conditional writes too.
pub struct Joint {
    name: &'static str,
    statements: Statements,
    values: Vec<Box<dyn SerializeRow + Send + Sync>>,
}

impl std::fmt::Debug for Joint {
    /// Without values, which may be personal.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Joint").field("name", &self.name).field("writes", &self.values.len()).finish()
    }
}

impl Joint {
    /// What is decided by this write alone, so far.
    pub fn new(decide: &Decide, values: impl SerializeRow + Send + Sync + 'static) -> Self {
        // The log of batches is for several partitions; within one, Paxos keeps all or nothing.
        let mut statements = Statements::new(BatchType::Unlogged);
        statements.set_serial_consistency(decide.prepared.get_serial_consistency());
        statements.set_is_idempotent(false);
        statements.append_statement(decide.prepared.clone());
        Self { name: decide.name, statements, values: vec![Box::new(values)] }
    }

    /// Adds a write of the same partition.
    pub fn add(&mut self, write: &Write, values: impl SerializeRow + Send + Sync + 'static) {
        self.statements.append_statement(write.prepared.clone());
        self.values.push(Box::new(values));
    }
}

impl CqlSession {
    /// As [`CqlSession::settle`], with all that hangs on the condition.
    ///
    /// # Errors
    /// As [`CqlSession::settle`].
    pub async fn settle_joint<L>(&self, joint: &Joint, look: impl Fn() -> L) -> Result<bool, CqlError>
    where
        L: Future<Output = Result<Seen, CqlError>>,
    {
        settle_by(joint.name, || self.decide_joint(joint), look).await
    }

    async fn decide_joint(&self, joint: &Joint) -> Result<bool, CqlError> {
        let _place = self.place(joint.name).await?;
        let answer = self.driver().batch(&joint.statements, &joint.values).await;
        let answer =
            answer.map_err(|cause| of_fate(joint.name, Effect::Writes, fate_of_decision(&cause), cause.to_string()))?;
        applied(joint.name, answer)
    }
}
