//! Services as their callers meet them over gRPC, where that is more than one call.

mod demand;
