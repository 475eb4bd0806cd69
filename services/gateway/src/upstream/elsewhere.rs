//! Requests to a server that the gateway of another region passes on to it.

use tokio::time::Instant;

use super::{
    Ask, Exchange, Failed, OnBehalf, TIMEOUT_MS,
    http_link::{Route, on_behalf},
    server::Server,
};
use crate::{
    message::{Json, MODERN},
    regions::{Mark, Region},
};

impl Server {
    /// Sends a request to another region, on behalf of whoever asks and with the time that is left.
    pub(crate) async fn send_to(
        &self,
        region: &Region,
        on: &OnBehalf,
        ask: &Ask,
        mark: Mark<'_>,
    ) -> Result<Exchange, Failed> {
        let Some(endpoint) = self.shares.way(region, &self.config) else {
            return Err(Failed::not_sent(format!("region '{}' has no address of the server", region.name)));
        };
        let resting = |left| Failed::resting("another region fails and is left alone for a moment", left);
        let pass = endpoint.breaker.pass().map_err(resting)?;
        let mut ask = ask.clone();
        let left = ask.deadline.saturating_duration_since(Instant::now());
        ask.meta.set(TIMEOUT_MS, Json::of(&u64::try_from(left.as_millis()).unwrap_or(u64::MAX)));
        let route = Route {
            client: region.client.clone(),
            endpoint,
            // Gateways speak both eras, whatever the server speaks there.
            revision: MODERN,
            session: None,
            authorization: region.authorization(),
            on_behalf: on_behalf(on, true),
            // What is shown to another region is the platform's, and never what a server wants.
            tokens: None,
            answer_bytes: self.answer_bytes,
            is_region: true,
        };
        // These replace what a route says of who passes a request on.
        region.mark(&mut ask.headers, mark);
        Ok(Exchange::Http(Box::new(route.send(&ask, self.id(), pass).await?)))
    }
}
