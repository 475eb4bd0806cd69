//! Follows what a server says of its lists, so that what is kept of them is not kept too long.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{Changed, Failed, Info, Said, server::Server};
use crate::message::{Json, Object, Outcome};

/// The first pause before a stream that broke is opened again, doubled up to the longest.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What came of following a server.
enum Followed {
    /// It tells nothing, for as long as it is what it is.
    Nothing,
    /// The stream ended after it was open for so long.
    Ended(Duration),
    /// It has to be opened elsewhere.
    Moved,
    /// It can something else than before.
    Changed,
}

/// The pauses between one stream and the next.
#[derive(Debug)]
struct Pauses(Duration);

impl Pauses {
    const fn new() -> Self {
        Self(PAUSE)
    }

    /// A stream ended after so long: one that outlived the last pause ended as any may.
    fn ended(&mut self, lived: Duration) {
        if lived > self.0 {
            *self = Self::new();
        } else {
            self.lengthen();
        }
    }

    fn lengthen(&mut self) {
        self.0 = (self.0 * 2).min(PAUSE_MAX);
    }

    /// The next pause, longer or shorter by up to a quarter: not all replicas open theirs at the same time.
    fn next(&self, random: u8) -> Duration {
        self.0.mul_f64(0.75 + f64::from(random) / 512.0)
    }
}

impl Server {
    /// Asks the server what it is and follows its changes until `stop`; children tell of them by themselves.
    pub(crate) async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let mut pauses = Pauses::new();
        loop {
            if stop.run_until_cancelled(self.until_awake()).await.is_none() {
                return;
            }
            let mut news = self.news();
            let followed = stop.run_until_cancelled(self.follow(&mut news)).await;
            match followed {
                None => return,
                Some(Ok(Followed::Nothing)) => {
                    if stop.run_until_cancelled(another(&mut news)).await.is_none() {
                        return;
                    }
                    pauses = Pauses::new();
                }
                Some(Ok(Followed::Changed)) => pauses = Pauses::new(),
                Some(Ok(Followed::Moved)) => {
                    // It may be another that is there next.
                    self.doubt(Duration::ZERO);
                    pauses = Pauses::new();
                }
                Some(Ok(Followed::Ended(lived))) => {
                    // So it may here.
                    self.doubt(Duration::ZERO);
                    pauses.ended(lived);
                }
                // It has gone to sleep meanwhile, which is no fault.
                Some(Err(_)) if self.is_asleep() => pauses = Pauses::new(),
                Some(Err(failed)) => {
                    tracing::warn!(server = self.config.name, why = failed.why(), "an MCP server cannot be followed");
                    self.doubt(Duration::ZERO);
                    pauses.lengthen();
                }
            }
            let [random] = crate::token::random();
            if stop.run_until_cancelled(tokio::time::sleep(pauses.next(random))).await.is_none() {
                return;
            }
        }
    }

    async fn follow(&self, news: &mut watch::Receiver<()>) -> Result<Followed, Failed> {
        let info = self.info_now().await?;
        // What was found out until here is no news for what follows.
        news.mark_unchanged();
        let info = self.known().unwrap_or(info);
        let wanted = wanted(&info);
        if (wanted.is_empty() && !self.needs_stream(&info)) || self.is_process() {
            return Ok(Followed::Nothing);
        }
        let Some(mut exchange) = self.listen(&info, wanted).await? else { return Ok(Followed::Nothing) };
        let opened = Instant::now();
        // What changed while nobody listened was not told.
        Changed::ALL.into_iter().for_each(|changed| self.changes.tell(changed));
        // It may be another session, which knows of no subscription.
        if !info.revision.is_modern() {
            self.subscriptions.renew();
        }
        let mut changes = self.endpoint_changes();
        loop {
            let said = tokio::select! {
                said = exchange.next() => said,
                () = changed(&mut changes) => {
                    // What the gateway has for itself keeps no pod.
                    if exchange.must_move() {
                        return Ok(Followed::Moved);
                    }
                    continue;
                }
                // It may tell more than it was asked for.
                () = another(news) => return Ok(Followed::Changed),
            };
            match said {
                Ok(Said::Notice { method, params }) => drop(self.changes.hear(&method, params.as_ref())),
                Ok(Said::Asks { id, .. }) => {
                    let outcome = Outcome::error(crate::refusal::METHOD_NOT_FOUND, "nobody is there to be asked");
                    exchange.answer(&id, &outcome).await?;
                }
                Ok(Said::Answer(Outcome::Error(error))) => {
                    tracing::debug!(server = self.config.name, ?error, "an MCP server does not tell of changes");
                    return Ok(Followed::Nothing);
                }
                Ok(Said::Answer(Outcome::Result(_))) | Err(Failed::Cut(_)) => {
                    return Ok(Followed::Ended(opened.elapsed()));
                }
                Err(failed) => return Err(failed),
            }
        }
    }

    /// Whether it tells of single resources in a session's stream.
    fn needs_stream(&self, info: &Info) -> bool {
        !info.revision.is_modern() && self.tells_of_resources(info)
    }
}

/// Waits for a change of the pods; for ever where there are none.
pub(super) async fn changed(changes: &mut Option<watch::Receiver<()>>) {
    let told = match changes {
        Some(changes) => changes.changed().await.is_ok(),
        None => false,
    };
    if !told {
        std::future::pending().await
    }
}

/// Waits until the server can something else than before.
async fn another(news: &mut watch::Receiver<()>) {
    // The sender is the server's, as this is.
    drop(news.changed().await);
}

/// The changes that a server says it tells of, as a filter of subscriptions.
fn wanted(info: &Info) -> Object {
    let kinds =
        [("tools", "toolsListChanged"), ("prompts", "promptsListChanged"), ("resources", "resourcesListChanged")];
    let told = |kind: &str| info.capabilities.object(kind)?.get("listChanged")?.read::<bool>();
    let wanted = kinds.into_iter().filter(|(kind, _)| told(kind) == Some(true));
    wanted.map(|(_, filter)| (filter.to_owned(), Json::of(&json!(true)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_ends_at_once_is_opened_less_and_less_often() {
        let mut pauses = Pauses::new();
        let mut after = |lived| {
            pauses.ended(lived);
            pauses.0
        };
        let at_once: Vec<_> = (0..8).map(|_| after(Duration::ZERO).as_secs()).collect();
        assert_eq!(at_once, [2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(after(PAUSE_MAX), PAUSE_MAX, "it has not outlived the pause");
        assert_eq!(after(PAUSE_MAX * 2), PAUSE, "it has");
        assert_eq!(after(PAUSE * 2), PAUSE);
        assert_eq!((pauses.next(0), pauses.next(128)), (PAUSE * 3 / 4, PAUSE));
        assert!(pauses.next(255) < PAUSE * 5 / 4);
    }
}
