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

impl Principal {
    /// The principal as printable ASCII for a header, which [`Principal::decode`] reads: `operator`, or
    /// `user/ID/ROLE/NAME` with the name's bytes as hexadecimal digits, for names have letters of all scripts.
    pub fn encode(&self) -> String {
        match self {
            Self::Operator => OPERATOR.to_owned(),
            Self::User { id, name, role } => {
                let role = if *role == Role::Writer { WRITER } else { READER };
                let name: String = name.as_str().bytes().map(|byte| format!("{byte:02x}")).collect();
                format!("{USER}/{id}/{role}/{name}")
            }
        }
    }

    /// The principal of [`Principal::encode`].
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for anything else, without repeating it.
    pub fn decode(text: &str) -> Result<Self, Fault> {
        let malformed = || Fault::invalid("a principal is malformed: expected 'operator' or 'user/ID/ROLE/NAME'");
        if text == OPERATOR {
            return Ok(Self::Operator);
        }
        let parts: Vec<_> = text.split('/').collect();
        let [USER, id, role, name] = parts.as_slice() else { return Err(malformed()) };
        let role = match *role {
            READER => Role::Reader,
            WRITER => Role::Writer,
            _ => return Err(malformed()),
        };
        let name = bytes_of_hex(name).and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(malformed)?;
        let (id, name) = (id.parse().map_err(|_| malformed())?, name.parse().map_err(|_| malformed())?);
        Ok(Self::User { id, name, role })
    }
}

const OPERATOR: &str = "operator";
const USER: &str = "user";
const READER: &str = "reader";
const WRITER: &str = "writer";

fn bytes_of_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let byte = |pair: &[u8]| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    };
    text.as_bytes().chunks(2).map(byte).collect()
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
    /// The region that passed the call on, on behalf of the principal; empty when the caller itself sent it. Such a
    /// call is not passed on again.
    pub forwarded_by: String,
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
            forwarded_by: String::new(),
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

/// The region that passed a request on, as the edge found it; absent from requests that came straight here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardedBy(pub String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_comes_out_of_a_header_as_it_went_in() {
        let id: UserId = "01890a5d-ac96-774b-bcce-b302099a8057".parse().expect("an id");
        let user = |name: &str, role| Principal::User { id, name: name.parse().expect("a name"), role };
        let all = [Principal::Operator, user("ann", Role::Reader), user("björk.Γ-1", Role::Writer)];
        for principal in all {
            let text = principal.encode();
            assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text}");
            assert_eq!(Principal::decode(&text), Ok(principal));
        }
        let whole = user("ann", Role::Writer).encode();
        let cut = (0..whole.len()).filter(|end| Principal::decode(&whole[..*end]).is_ok()).collect::<Vec<_>>();
        // What is left of a name is a name: a header is never cut, but an empty or half one must not pass.
        assert_eq!(cut, [whole.len() - 4, whole.len() - 2]);
        for wrong in ["", "Operator", "operator/", "user", "user/x/reader/616e6e", "root", "user//reader/616e6e"] {
            assert!(Principal::decode(wrong).is_err(), "{wrong}");
        }
        let (role, owner) = (whole.replace("writer", "owner"), whole.replace("616e6e", "6120"));
        assert!(Principal::decode(&role).is_err() && Principal::decode(&owner).is_err());
    }
}
