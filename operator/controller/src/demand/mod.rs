//! What gateways tell of demand, and what they are told of servers.

mod board;
mod gateways;
mod service;
mod shards;

pub use self::{
    board::Board,
    gateways::{Demand, Gateways, PodLoad},
    service::Exchange,
    shards::{Shard, Shards},
};
