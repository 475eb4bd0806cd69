//! What gateways tell and are told, apart for each shard.
//!
//! A gateway that is heard of one shard has said nothing of another: each has its own count of who is silent.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use echotune_api::demand::{MAX_SHARDS, ServerName};

use super::{Board, Gateways};

/// All shards, also those that others lead.
#[derive(Debug)]
pub struct Shards(Vec<Arc<Shard>>);

/// One shard.
#[derive(Debug)]
pub struct Shard {
    /// What gateways report of its servers.
    pub gateways: Gateways,
    /// What they are told of them.
    pub board: Board,
}

impl Shards {
    /// So many of which nobody has told anything; `forget` and `settle` are those of [`Gateways::new`].
    pub fn new(count: u16, forget: Duration, settle: Duration, now: Instant) -> Self {
        let shard = |_| Arc::new(Shard { gateways: Gateways::new(forget, settle, now), board: Board::default() });
        Self((0..count.clamp(1, MAX_SHARDS)).map(shard).collect())
    }

    /// How many there are.
    pub fn count(&self) -> u16 {
        u16::try_from(self.0.len()).expect("at most as many as there may be")
    }

    /// One of them, if there are so many.
    pub fn get(&self, shard: usize) -> Option<&Arc<Shard>> {
        self.0.get(shard)
    }

    /// That of a server.
    pub fn of(&self, server: &ServerName) -> &Shard {
        &self.0[usize::from(server.shard(self.count()))]
    }

    /// All of them, in their order.
    pub fn all(&self) -> impl Iterator<Item = &Shard> {
        self.0.iter().map(Arc::as_ref)
    }

    /// Gateways that are heard: each has a stream for each shard.
    pub fn gateways(&self) -> usize {
        self.all().map(|shard| shard.gateways.count()).max().unwrap_or(0)
    }
}
