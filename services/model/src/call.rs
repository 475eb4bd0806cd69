use std::{fmt, time::Instant};

use crate::{ErrorKind, Fault};

/// Identity of a trace (W3C Trace Context section 3.2.2.3); zero when there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct TraceId(pub u128);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// The owner of the data folder, or a part of the platform itself.
    Operator,
}

/// The context of one call, handed from the edge to the store.
#[derive(Debug, Clone)]
pub struct Call {
    /// When the caller stops waiting.
    pub deadline: Option<Instant>,
    /// The trace that this call is part of.
    pub trace: TraceId,
    /// W3C `traceparent` of the span that called; empty when not traced.
    pub traceparent: String,
    /// Who calls.
    pub principal: Principal,
}

impl Call {
    /// A call that the platform makes on its own account, without a deadline.
    pub fn internal() -> Self {
        Self { deadline: None, trace: TraceId::default(), traceparent: String::new(), principal: Principal::Operator }
    }

    /// Refuses work for a caller that has stopped waiting.
    ///
    /// # Errors
    /// [`ErrorKind::DeadlineExceeded`] when the deadline has passed.
    pub fn check_deadline(&self) -> Result<(), Fault> {
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => {
                Err(Fault::new(ErrorKind::DeadlineExceeded, "the deadline passed before the work began"))
            }
            _ => Ok(()),
        }
    }
}

/// W3C `traceparent` of the span that serves a request; empty when not traced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traceparent(pub String);
