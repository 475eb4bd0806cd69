use std::sync::Arc;

use echotune_api::{Regions, Users};

/// Another region, as this one reaches it: clients with that platform's own token.
#[derive(Clone)]
pub struct Peer {
    /// Its users.
    pub users: Arc<dyn Users>,
    /// Its homes.
    pub regions: Arc<dyn Regions>,
}
