//! What gateways tell of demand, and what they are told of servers.

mod board;
mod gateways;
mod service;

pub use self::{
    board::Board,
    gateways::{Demand, Gateways, PodLoad},
    service::Exchange,
};
