//! Decides how many pods an MCP server gets and which of them goes: pure and deterministic bit for bit.
//!
//! [`decide`] is all there is to it. It knows no clock, reads and writes nothing, and draws no lots, so that the
//! operator, the embedded platform (whose pods are child processes), the simulator and a [`replay`] of the
//! [`LedgerEntry`]s come to the same decision. Floats are only added, multiplied, divided and rooted, which IEEE 754
//! defines to the bit; what goes beyond comes from `libm`, which is the same code everywhere.
//!
//! What a server needs is the most of what its parts say:
//!
//! - calls (`need.rs`, `outlook.rs`): the number of pods that costs the least when each call that waits too long has a
//!   price, by Erlang's formula (`queue.rs`) over the load that there will be when another pod can be ready (`lead.rs`):
//!   of what is under way now, and of what comes as in the last minute, or in the last seconds when that is clearly more
//!   (`window.rs`), or in the same minutes of the hour when those tell it better (`clock.rs`);
//! - a profile of the day (`profile.rs`), which can only add; both forecasts count only while nine of ten of their
//!   intervals hold (`forecast.rs`);
//! - sessions, and calls that have waited for too long;
//! - without calls, what the clock or else idle times say of the last pod (`idle.rs`).
//!
//! Fewer pods are held for a while; then the emptiest is marked, and deleted when it is empty (`shrink.rs`). It does
//! not place pods, tell which calls go to which of them, or decide how large one is.

mod clock;
mod decide;
mod decision;
mod forecast;
mod idle;
mod lead;
mod learn;
mod ledger;
mod need;
mod number;
mod observation;
mod outlook;
mod policy;
mod profile;
mod queue;
mod shrink;
mod spill;
mod state;
mod window;

pub use decide::decide;
pub use decision::{Bound, Decision, Forecaster, Foretold, Reason, Spill};
pub use ledger::{Begin, LedgerEntry, LedgerError, LedgerLine, Replayed, replay};
pub use observation::{Load, Observation, Phase, Pod, Region};
pub use policy::{CLASSES, Class, Forecast, Keep, KeepRule, PODS, Policy, PolicyFaults};
pub use state::{State, StateError};
