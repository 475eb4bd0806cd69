use echotune_eventlog::EventLog;
use futures::future::try_join_all;
use tokio_util::sync::CancellationToken;

use super::{Homes, rules::Rules};
use crate::{
    relay::{RelayError, relay},
    store::CqlUserStore,
};

/// Moves events from the outboxes of the regions that are served here to the log, until told to stop: the own one,
/// unless another region serves it, and those that this region stands in for. What two regions give out while they
/// learn of a change is applied once. Regions are followed as [`Homes::watch`] sees them.
///
/// # Errors
/// The store or the log cannot be used.
pub async fn relays(homes: &Homes, log: &dyn EventLog, stop: CancellationToken) -> Result<(), RelayError> {
    let mut seen = homes.seen();
    let relayed = |rules: &Option<Rules>| match rules {
        Some(rules) => rules.relayed(),
        // Nobody else may be giving out what waits here.
        None => vec![homes.region().to_owned()],
    };
    while !stop.is_cancelled() {
        let now = relayed(&seen.borrow_and_update());
        let turn = stop.child_token();
        let moving = async {
            let outboxes = try_join_all(now.iter().map(|region| outbox(homes, region))).await?;
            if outboxes.is_empty() {
                turn.cancelled().await;
            }
            let moved = try_join_all(outboxes.iter().map(|store| relay(store.clone(), log, turn.clone()))).await;
            if moved.is_ok() {
                // They are given out elsewhere from now on, and who is held back is told there.
                outboxes.iter().for_each(CqlUserStore::tell_none_held);
            }
            moved.map(drop)
        };
        let changing = async {
            // The sender lives as long as the homes do.
            let _ = seen.wait_for(|rules| relayed(rules) != now).await;
            tracing::info!(region = homes.region(), "the regions whose events are given out here change");
            turn.cancel();
        };
        tokio::pin!(moving);
        tokio::select! {
            moved = &mut moving => moved?,
            () = changing => moving.await?,
        }
    }
    Ok(())
}

async fn outbox(homes: &Homes, region: &str) -> Result<CqlUserStore, RelayError> {
    if region == homes.region() { Ok(homes.store.clone()) } else { Ok(homes.store.stand_in(region).await?) }
}
