//! The one mapping between [`ErrorKind`] and gRPC status codes, both ways.

use echotune_model::{ErrorKind, Fault};
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
    Status::new(code, fault.message.clone())
}

pub(crate) fn to_fault(status: &Status) -> Fault {
    let kind =
        CODES.iter().find(|(_, code)| *code == status.code()).map_or(ErrorKind::Indeterminate, |(kind, _)| *kind);
    Fault::new(kind, status.message())
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
