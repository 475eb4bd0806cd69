//! The one mapping between [`ErrorKind`] and gRPC status codes, both ways.

use std::error::Error as _;

use echotune_model::{Call, ErrorKind, Fault};
use tokio::time::Instant;
use tonic::{Code, ConnectError, Status};

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
    if status.code() == Code::Unimplemented && status.message().is_empty() {
        let why = "the program that was asked does not serve this; see that each service is sought where it is served";
        return Fault::new(ErrorKind::FailedPrecondition, why);
    }
    let kind = match status.code() {
        // What the transport says of a message beyond its limits.
        Code::OutOfRange => ErrorKind::InvalidArgument,
        code => CODES.iter().find(|(_, known)| *known == code).map_or(ErrorKind::Indeterminate, |(kind, _)| *kind),
    };
    Fault::new(kind, status.message())
}

/// The fault of a read: the transport calls a deadline that passed "cancelled".
pub(crate) fn read_fault(call: &Call, status: &Status) -> Fault {
    // By the clock that timers go by, as the deadline was given out.
    let late = call.deadline.is_some_and(|deadline| Instant::now().into_std() >= deadline);
    match status.code() {
        Code::Cancelled if late => Fault::new(ErrorKind::DeadlineExceeded, "the deadline passed before the answer"),
        _ if cut_off(status) => {
            Fault::new(ErrorKind::Unavailable, format!("the connection was cut: {}", status.message()))
        }
        _ => to_fault(status),
    }
}

/// Whether this is what the transport here says of a connection that broke after the request was sent;
/// what a server says has no source. A connection that is found dead by a ping is called unavailable, as one that
/// never came about is.
fn cut_off(status: &Status) -> bool {
    let causes = || std::iter::successors(status.source(), |&cause| cause.source());
    match status.code() {
        Code::Internal | Code::Unknown => causes().next().is_some(),
        Code::Unavailable => causes().next().is_some() && !causes().any(|cause| cause.is::<ConnectError>()),
        _ => false,
    }
}

/// The fault of a write: one that was sent and not answered may have been made.
pub(crate) fn write_fault(status: &Status) -> Fault {
    match status.code() {
        Code::Cancelled | Code::DeadlineExceeded => Fault::new(
            ErrorKind::Indeterminate,
            "the deadline passed before the answer: the write may have been made; repeat it with the same idempotency key",
        ),
        _ if cut_off(status) => {
            let cause = status.message();
            Fault::new(ErrorKind::Indeterminate, format!("the connection was cut before the answer: {cause}"))
        }
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

    #[test]
    fn a_service_that_is_sought_at_the_wrong_place_is_told_so() {
        let fault = read_fault(&Call::internal(), &Status::unimplemented(""));
        assert_eq!(fault.kind, ErrorKind::FailedPrecondition);
        assert!(fault.message.contains("does not serve"), "{fault}");
    }

    #[test]
    fn a_connection_that_broke_leaves_a_write_unknown_and_a_read_to_be_repeated() {
        let cut = Status::from_error(Box::new(std::io::Error::other("http2 error")));
        assert_eq!(write_fault(&cut).kind, ErrorKind::Indeterminate);
        assert_eq!(read_fault(&Call::internal(), &cut).kind, ErrorKind::Unavailable);
        let said = Status::internal("a fault of the server");
        assert_eq!(write_fault(&said).kind, ErrorKind::Internal);
    }
}
