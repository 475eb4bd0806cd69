//! The one mapping between [`ErrorKind`] and gRPC status codes, both ways.

use std::time::Instant;

use echotune_model::{Call, ErrorKind, Fault};
use tonic::{Code, Status};

const CODES: [(ErrorKind, Code); 12] = [
    (ErrorKind::InvalidArgument, Code::InvalidArgument),
    (ErrorKind::NotFound, Code::NotFound),
    (ErrorKind::AlreadyExists, Code::AlreadyExists),
    (ErrorKind::FailedPrecondition, Code::FailedPrecondition),
    (ErrorKind::Unauthenticated, Code::Unauthenticated),
    (ErrorKind::PermissionDenied, Code::PermissionDenied),
    (ErrorKind::ResourceExhausted, Code::ResourceExhausted),
    (ErrorKind::Unavailable, Code::Unavailable),
    (ErrorKind::DeadlineExceeded, Code::DeadlineExceeded),
    // The transport's own code for "something happened, nobody knows what".
    (ErrorKind::Indeterminate, Code::Unknown),
    (ErrorKind::DataLoss, Code::DataLoss),
    (ErrorKind::Internal, Code::Internal),
];

pub(crate) fn to_status(fault: &Fault) -> Status {
    let code = CODES.iter().find(|(kind, _)| *kind == fault.kind).map_or(Code::Internal, |(_, code)| *code);
    Status::new(code, cut(&fault.message))
}

/// Longest message of a status, in characters: it travels in a header, and headers are small.
const MESSAGE_CHARS: usize = 1_024;

fn cut(message: &str) -> String {
    match message.char_indices().nth(MESSAGE_CHARS) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message.to_owned(),
    }
}

pub(crate) fn to_fault(status: &Status) -> Fault {
    let kind = match status.code() {
        // What the transport says of a message beyond its limits.
        Code::OutOfRange => ErrorKind::InvalidArgument,
        code => CODES.iter().find(|(_, known)| *known == code).map_or(ErrorKind::Indeterminate, |(kind, _)| *kind),
    };
    Fault::new(kind, status.message())
}

/// The fault of a read: the transport calls a deadline that passed "cancelled".
pub(crate) fn read_fault(call: &Call, status: &Status) -> Fault {
    let late = call.deadline.is_some_and(|deadline| Instant::now() >= deadline);
    match status.code() {
        Code::Cancelled if late => Fault::new(ErrorKind::DeadlineExceeded, "the deadline passed before the answer"),
        _ => to_fault(status),
    }
}

/// The fault of a write: one that was sent and not answered may have been made.
pub(crate) fn write_fault(status: &Status) -> Fault {
    match status.code() {
        Code::Cancelled | Code::DeadlineExceeded => Fault::new(
            ErrorKind::Indeterminate,
            "the deadline passed before the answer: the write may have been made; repeat it with the same idempotency key",
        ),
        _ => to_fault(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_the_wire() {
        for (kind, _) in CODES {
            let fault = Fault::new(kind, "why");
            assert_eq!(to_fault(&to_status(&fault)), fault);
        }
    }
}
