//! What is told of a part.

use std::{fmt::Display, net::SocketAddr};

use serde::Serialize;

use crate::{State, process::Process};

/// What a part is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartStatus {
    /// Its name.
    pub part: String,
    /// Whether its process runs.
    pub state: State,
    /// Where it serves; some serve nobody.
    pub address: Option<SocketAddr>,
    /// Its process.
    pub pid: Option<i32>,
    /// Resident memory.
    pub resident_kib: Option<u64>,
}

impl PartStatus {
    pub(crate) fn of(part: impl Display, process: Option<Process>, address: Option<SocketAddr>) -> Self {
        Self {
            part: part.to_string(),
            state: process.map_or(State::Down, Process::state),
            address,
            pid: process.map(Process::pid),
            resident_kib: process.and_then(Process::resident_kib),
        }
    }
}
