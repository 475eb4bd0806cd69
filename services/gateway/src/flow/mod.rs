//! Requests on their way: one conversation each, from a client's message to a server's answer.

mod asks;
mod away;
mod conversation;
pub(crate) mod convert;
mod live;
mod metered;
mod shelf;
mod stream;

pub(crate) use self::{
    asks::Asks,
    conversation::{Client, Conversation},
    live::{Control, Live},
    shelf::Shelf,
    stream::{Ending, Reader, Stream},
};
