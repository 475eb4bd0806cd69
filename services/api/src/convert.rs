use std::time::{Duration, Instant};

use echotune_model::{Call, Fault, Hlc, Listen, Principal, Rejection, TraceId, Traceparent, Track, User};
use echotune_proto::users::v1 as pb;
use tonic::{Request, Status};

use crate::status::to_fault;

/// The context of a request: who calls, in which trace, and until when.
///
/// # Errors
/// Unauthenticated when the edge let the request through without a principal.
pub fn call_of<T>(request: &Request<T>) -> Result<Call, Status> {
    let extensions = request.extensions();
    let principal = extensions
        .get::<Principal>()
        .cloned()
        .ok_or_else(|| Status::unauthenticated("the request carries no principal"))?;
    let timeout = request.metadata().get("grpc-timeout").and_then(|value| parse_timeout(value.to_str().ok()?));
    Ok(Call {
        deadline: timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
        trace: extensions.get::<TraceId>().copied().unwrap_or_default(),
        traceparent: extensions.get::<Traceparent>().cloned().unwrap_or_default().0,
        principal,
        idempotency_key: request
            .metadata()
            .get("idempotency-key")
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned(),
    })
}

/// `grpc-timeout` of the gRPC over HTTP/2 specification: at most eight digits and a unit.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3_600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

pub(crate) fn missing(field: &str) -> Fault {
    to_fault(&Status::internal(format!("the server's answer lacks '{field}'")))
}

pub(crate) fn user_to_pb(user: &User) -> pb::User {
    pb::User {
        id: user.id.to_string(),
        name: user.name.to_string(),
        created_at_ms: i64::try_from(user.created_at_ms).unwrap_or(i64::MAX),
    }
}

pub(crate) fn user_from_pb(user: Option<pb::User>) -> Result<User, Fault> {
    let user = user.ok_or_else(|| missing("user"))?;
    Ok(User {
        id: user.id.parse()?,
        name: user.name.parse()?,
        created_at_ms: u64::try_from(user.created_at_ms).unwrap_or(0),
    })
}

pub(crate) fn listen_to_pb(listen: Listen) -> pb::Listen {
    let Listen { listened_at_ms, track: Track { title, artist, album }, played_ms, source } = listen;
    pb::Listen { listened_at_ms, title, artist, album, played_ms, source }
}

pub(crate) fn listen_from_pb(listen: pb::Listen) -> Listen {
    let pb::Listen { listened_at_ms, title, artist, album, played_ms, source } = listen;
    Listen { listened_at_ms, track: Track { title, artist, album }, played_ms, source }
}

pub(crate) fn rejection_to_pb(rejection: Rejection) -> pb::Rejection {
    pb::Rejection { index: rejection.index, reason: rejection.reason }
}

pub(crate) fn rejection_from_pb(rejection: pb::Rejection) -> Rejection {
    Rejection { index: rejection.index, reason: rejection.reason }
}

pub(crate) const fn hlc(time: u64) -> Hlc {
    Hlc(time)
}
