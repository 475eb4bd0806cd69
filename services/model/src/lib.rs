//! The words of EchoTune as types: identifiers, time, listens, items, recommendations, errors and
//! the context of a call. No I/O, no async, nothing that knows a transport or a store.

mod call;
mod error;
mod id;
mod listen;
mod recommendation;
mod time;

pub use call::{Call, Principal, TraceId, Traceparent};
pub use error::{ErrorKind, Fault};
pub use id::{EventId, ItemId, ListenId, UserId};
pub use listen::{
    EARLIEST_LISTEN_MS, Listen, ListenReceipt, MAX_PLAYED_MS, MAX_TEXT_BYTES, Rejection, Tally, Track, User, UserName,
    fold,
};
pub use recommendation::{ItemKind, Reason, ReasonKind, Recommendation, Recommendations};
pub use time::{Clock, Hlc};
