use std::sync::Arc;

use scylla::{
    deserialize::row::DeserializeRow,
    policies::retry::{DefaultRetryPolicy, FallthroughRetryPolicy},
    statement::{Consistency, SerialConsistency, prepared::PreparedStatement},
};

use super::{
    CqlError, CqlSession,
    error::{Effect, fate, of_fate},
};

/// A row that borrows nothing of the answer: tuples of `Uuid`, `i64`, `String`, `Vec<u8>`, `bool`, `Option` of these.
pub trait OwnedRow: for<'answer, 'columns> DeserializeRow<'answer, 'columns> + Send {}

impl<T: for<'answer, 'columns> DeserializeRow<'answer, 'columns> + Send> OwnedRow for T {}

/// Who must agree on a conditional write. All writes and looks of one partition must have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Most copies of all data centres: unique in the world, at the price of a way around it.
    Everywhere,
    /// Most copies of the own data centre: for what only its region writes.
    Here,
}

impl Scope {
    const fn serial(self) -> SerialConsistency {
        match self {
            Self::Everywhere => SerialConsistency::Serial,
            Self::Here => SerialConsistency::LocalSerial,
        }
    }

    const fn look(self) -> Consistency {
        match self {
            Self::Everywhere => Consistency::Serial,
            Self::Here => Consistency::LocalSerial,
        }
    }
}

macro_rules! statement {
    ($(#[$doc:meta])* $kind:ident $($more:ident: $of:ty)?) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub struct $kind {
            pub(super) name: &'static str,
            pub(super) prepared: PreparedStatement,
            $(pub(super) $more: $of,)?
        }
    };
}

statement!(
    /// A query.
    Read looks: bool
);
statement!(
    /// A plain write of rows that overwrite each other by their time: doing it twice is doing it once.
    Write
);
statement!(
    /// A conditional write. Its columns are written by no plain write, for the two have different clocks.
    Decide
);

impl CqlSession {
    async fn prepare(&self, name: &'static str, cql: &str) -> Result<PreparedStatement, CqlError> {
        let refused = |cause: scylla::errors::PrepareError| {
            let cause = cause.into();
            of_fate(name, Effect::Reads, fate(&cause), cause.to_string())
        };
        let mut prepared = self.driver().prepare(cql).await.map_err(refused)?;
        // The partition must be known before the request is sent, or it goes to a server that has to ask another.
        prepared.set_consistency(Consistency::LocalQuorum);
        prepared.set_page_size(i32::from(self.config().page_rows.cast_signed().max(1)));
        // Answers carry the names and types of their columns: after a change of the schema, those that a client
        // remembers are wrong on servers that cannot say so.
        prepared.set_use_cached_result_metadata(false);
        Ok(prepared)
    }

    /// Prepares a query that most copies of the own data centre answer.
    ///
    /// # Errors
    /// The servers do not understand it, or cannot be reached.
    pub async fn read(&self, name: &'static str, cql: &str) -> Result<Read, CqlError> {
        let mut prepared = self.prepare(name, cql).await?;
        prepared.set_is_idempotent(true);
        prepared.set_retry_policy(Some(Arc::new(DefaultRetryPolicy::new())));
        Ok(Read { name, prepared, looks: false })
    }

    /// Prepares a query that sees every conditional write that was answered, and ends those that were cut off.
    ///
    /// # Errors
    /// The servers do not understand it, or cannot be reached.
    pub async fn look(&self, name: &'static str, cql: &str, scope: Scope) -> Result<Read, CqlError> {
        let mut read = self.read(name, cql).await?;
        read.prepared.set_consistency(scope.look());
        read.looks = true;
        Ok(read)
    }

    /// Prepares a write that most copies of the own data centre keep before it is answered.
    ///
    /// # Errors
    /// The servers do not understand it, or cannot be reached.
    pub async fn write(&self, name: &'static str, cql: &str) -> Result<Write, CqlError> {
        let mut prepared = self.prepare(name, cql).await?;
        prepared.set_is_idempotent(true);
        // Repeats are made here, where it is remembered that an earlier try may have done it.
        prepared.set_retry_policy(Some(Arc::new(FallthroughRetryPolicy::new())));
        Ok(Write { name, prepared })
    }

    /// Prepares a write that an answer rests on, as it does on a logged batch: most copies of the own data centre keep it,
    /// or of every one, as the configuration says.
    ///
    /// # Errors
    /// The servers do not understand it, or cannot be reached.
    pub async fn write_acknowledged(&self, name: &'static str, cql: &str) -> Result<Write, CqlError> {
        let mut write = self.write(name, cql).await?;
        write.prepared.set_consistency(self.config().acknowledge.consistency());
        Ok(write)
    }

    /// Prepares a write that most copies of every data centre keep before it is answered; while one cannot be reached it
    /// fails, and may have been made elsewhere.
    ///
    /// # Errors
    /// The servers do not understand it, or cannot be reached.
    pub async fn write_everywhere(&self, name: &'static str, cql: &str) -> Result<Write, CqlError> {
        let mut write = self.write(name, cql).await?;
        write.prepared.set_consistency(Consistency::EachQuorum);
        Ok(write)
    }

    /// Prepares a conditional write.
    ///
    /// # Errors
    /// The servers do not understand it, or cannot be reached.
    pub async fn conditional(&self, name: &'static str, cql: &str, scope: Scope) -> Result<Decide, CqlError> {
        let mut prepared = self.prepare(name, cql).await?;
        prepared.set_serial_consistency(Some(scope.serial()));
        // One that is sent again may find what it wrote the first time, and would call that refused.
        prepared.set_is_idempotent(false);
        prepared.set_retry_policy(Some(Arc::new(FallthroughRetryPolicy::new())));
        Ok(Decide { name, prepared })
    }
}
