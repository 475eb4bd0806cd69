//! What a lost region costs: what was acknowledged there and is nowhere else, and how soon another makes its writes.

use std::time::{Duration, Instant};

use echotune_api::Regions as _;
use echotune_model::Fault;
use serde::Serialize;

use super::{
    DriveError, Notes,
    clients::{Client, Listener, REST, call, elements, listen},
};
use crate::{
    Region,
    history::{Op, Outcome},
    random::Random,
};

/// How long another region may take to make the writes of the lost one.
const TAKE_OVER: Duration = Duration::from_secs(300);

/// What a lost region cost.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Lost {
    /// Listens that it had acknowledged.
    pub acknowledged: usize,
    /// Those of them that another region did not hold while it was gone.
    pub missing: usize,
    /// How long before the loss the first of these was acknowledged, in seconds: the recovery point.
    pub recovery_point_s: f64,
    /// How long after the command to take over another region had acknowledged a write of one of its listeners, in
    /// seconds: the recovery time.
    pub recovery_time_s: f64,
}

/// Looks in another region for what a region had acknowledged until it was lost, and has it take over.
pub(super) async fn take_over(
    lost: Region,
    at: u64,
    (clients, listeners): (&[Client], &[Listener]),
    notes: &Notes,
) -> Result<Lost, DriveError> {
    let other = clients.iter().find(|client| client.region != lost);
    let other = other.ok_or_else(|| DriveError::Program(format!("there is no region but {lost}")))?;
    let homes: Vec<_> = listeners.iter().filter(|one| clients[one.home].region == lost).collect();
    let unasked = |cause| DriveError::Unasked { region: other.region, cause };
    let (mut acknowledged, mut missing, mut first) = (0, 0, at);
    for listener in &homes {
        let mut held = elements(other, listener).await.map_err(unasked)?;
        held.sort_unstable();
        let entries = notes.entries();
        let added = entries.iter().filter_map(|entry| match &entry.op {
            Op::Add { set, element } if *set == listener.name && entry.outcome == Outcome::Ok && entry.ended <= at => {
                Some((entry.ended, *element))
            }
            _ => None,
        });
        for (ended, element) in added {
            acknowledged += 1;
            if held.binary_search(&element).is_err() {
                missing += 1;
                first = first.min(ended);
            }
        }
    }
    let asked = Instant::now();
    let (name, to) = (lost.to_string(), other.region.to_string());
    let take = async || other.regions.fail_over(&call(String::new()), &name, &to).await.map(drop);
    until_done(other.region, take).await?;
    if let Some(listener) = homes.first() {
        let mut random = Random(at);
        while listen(other, listener, &mut random, notes).await != Outcome::Ok {
            if asked.elapsed() > TAKE_OVER {
                let told = format!("{} took over from {lost}, and makes no writes of its listeners", other.region);
                return Err(DriveError::Program(told));
            }
        }
    }
    let recovery_point_s = Duration::from_micros(at - first).as_secs_f64();
    Ok(Lost { acknowledged, missing, recovery_point_s, recovery_time_s: asked.elapsed().as_secs_f64() })
}

/// Gives writes back to a region that is there again.
pub(super) async fn give_back(region: Region, clients: &[Client]) -> Result<(), DriveError> {
    let Some(own) = clients.iter().find(|client| client.region == region) else { return Ok(()) };
    // It is refused until the region has what the others wrote for it.
    let name = region.to_string();
    until_done(region, async || own.regions.fail_back(&call(String::new()), &name).await.map(drop)).await
}

/// Asks again until it is done, for a time.
async fn until_done(region: Region, ask: impl AsyncFn() -> Result<(), Fault>) -> Result<(), DriveError> {
    let end = Instant::now() + TAKE_OVER;
    loop {
        match ask().await {
            Ok(()) => return Ok(()),
            Err(cause) if Instant::now() >= end => return Err(DriveError::Unasked { region, cause }),
            Err(_) => tokio::time::sleep(REST).await,
        }
    }
}
