//! The two faces of a service over CQL.

use std::sync::Arc;

use echotune_api::{Users, UsersClient};
use echotune_kit::{auth::Token, cache::CacheSection, edge::Credentials, telemetry::metrics::Meter};
use echotune_users::{CachedReads, UsersService};

use crate::{place::Place, serve::serve};

/// One service, reachable both ways.
pub(crate) struct Faces {
    pub(crate) object: Arc<dyn Users>,
    pub(crate) remote: UsersClient,
    _place: Place,
}

impl Faces {
    pub(crate) async fn new() -> Self {
        let place = Place::take().await;
        // As the program has it: what is read again and again is kept near.
        let reads = CachedReads::new(&CacheSection::default(), None, &Meter::default());
        let object: Arc<dyn Users> = Arc::new(UsersService::new(place.store("test").await).caching(reads));
        let token = Token::from("secret of the operator".to_owned());
        let channel = serve(Arc::clone(&object), token.clone()).await;
        Self { object, remote: UsersClient::new(channel, Credentials { token }), _place: place }
    }
}
