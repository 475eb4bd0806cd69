//! Loads for a running platform. Owns the schedule of arrivals and the measuring of latencies, and
//! promises that a stalled answer is counted against every request that should have begun meanwhile.
//! Does not start a platform and knows it only by its contracts.

pub mod drive;
pub mod scenario;
pub mod target;
