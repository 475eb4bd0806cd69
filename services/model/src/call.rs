use std::{fmt, str::FromStr, time::Instant};

use crate::{ErrorKind, Fault, Role, UserId, UserName};

/// Identity of a trace (W3C Trace Context section 3.2.2.3); zero when there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct TraceId(pub u128);

impl FromStr for TraceId {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        u128::from_str_radix(text, 16).ok().filter(|_| digits).map(Self).ok_or_else(|| {
            let shown: String = text.chars().take(64).collect();
            Fault::invalid(format!("'{}' is not a trace id: expected 32 hexadecimal digits", shown.escape_debug()))
        })
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// The owner of the data folder, or a part of the platform itself: may do everything.
    Operator,
    /// A user, by an API token.
    User {
        /// Who.
        id: UserId,
        /// The account's name.
        name: UserName,
        /// What the token allows.
        role: Role,
    },
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
    /// A key under which a repeated write gives the first one's answer; empty when not given.
    pub idempotency_key: String,
}

impl Call {
    /// A call that the platform makes on its own account, without a deadline.
    pub fn internal() -> Self {
        Self {
            deadline: None,
            trace: TraceId::default(),
            traceparent: String::new(),
            principal: Principal::Operator,
            idempotency_key: String::new(),
        }
    }

    /// Allows reading what belongs to `owner`.
    ///
    /// # Errors
    /// [`ErrorKind::PermissionDenied`] naming what would be needed.
    pub fn may_read(&self, owner: &UserName) -> Result<(), Fault> {
        match &self.principal {
            Principal::Operator => Ok(()),
            Principal::User { name, .. } if name.folded() == owner.folded() => Ok(()),
            Principal::User { name, .. } => Err(Fault::new(
                ErrorKind::PermissionDenied,
                format!("the token of '{name}' does not open what belongs to '{owner}'"),
            )),
        }
    }

    /// Allows writing what belongs to `owner`.
    ///
    /// # Errors
    /// [`ErrorKind::PermissionDenied`] naming what would be needed.
    pub fn may_write(&self, owner: &UserName) -> Result<(), Fault> {
        self.may_read(owner)?;
        match &self.principal {
            Principal::User { role: Role::Reader, name, .. } => Err(Fault::new(
                ErrorKind::PermissionDenied,
                format!("the token of '{name}' only reads; a token with the role 'writer' is needed"),
            )),
            Principal::Operator | Principal::User { .. } => Ok(()),
        }
    }

    /// Allows what concerns the whole platform.
    ///
    /// # Errors
    /// [`ErrorKind::PermissionDenied`] for everyone but the operator.
    pub fn may_operate(&self) -> Result<(), Fault> {
        match &self.principal {
            Principal::Operator => Ok(()),
            Principal::User { name, .. } => Err(Fault::new(
                ErrorKind::PermissionDenied,
                format!("'{name}' may not do this; the operator's token is needed"),
            )),
        }
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
