//! The way to the operator: a new connection for each stream.
//!
//! Behind the operator's address stand replicas, of which one leads. A connection stays with the one that it met first,
//! and one that does not lead would be asked again and again.

use async_trait::async_trait;
use echotune_api::demand::{Demand, DemandClient, Hello, Reports, Updates};
use echotune_kit::{
    edge::Credentials,
    process::{Settings, check_upstream, upstream},
};
use echotune_model::{Call, ErrorKind, Fault};
use futures::StreamExt as _;
use tokio_util::sync::CancellationToken;

/// The operator at an address.
pub(super) struct Reach {
    url: String,
    settings: Settings,
    credentials: Credentials,
    stop: CancellationToken,
}

impl Reach {
    /// The way to this address, until the stop.
    ///
    /// # Errors
    /// The address cannot be used.
    pub(super) fn new(
        url: &str,
        settings: &Settings,
        credentials: Credentials,
        stop: CancellationToken,
    ) -> Result<Self, String> {
        check_upstream(url, settings)?;
        Ok(Self { url: url.to_owned(), settings: settings.clone(), credentials, stop })
    }
}

#[async_trait]
impl Demand for Reach {
    async fn exchange(&self, call: &Call, hello: Hello, reports: Reports) -> Result<Updates, Fault> {
        // What watches over the certificates of this connection ends with it.
        let stop = self.stop.child_token();
        let ends = stop.clone().drop_guard();
        let channel = upstream(&self.url, &self.settings, stop)
            .map_err(|cause| Fault::new(ErrorKind::Unavailable, cause.to_string()))?;
        let client = DemandClient::new(channel, self.credentials.clone());
        let updates = client.exchange(call, hello, reports).await?;
        Ok(updates
            .map(move |update| {
                let _until_the_end = (&client, &ends);
                update
            })
            .boxed())
    }
}
