//! Asking another region what it has room for.

use std::time::Duration;

use axum::body::Bytes;
use http::{Request, StatusCode, header::AUTHORIZATION};
use http_body_util::{BodyExt as _, Full, Limited};
use tokio::time::{Instant, sleep, timeout};

use super::{Region, Room, address};
use crate::hub::Hub;

/// How often it is asked while calls wait here, and otherwise.
const EACH: Duration = Duration::from_secs(1);
const QUIET: Duration = Duration::from_secs(5);
/// How long an answer may take.
const WITHIN: Duration = Duration::from_secs(1);
/// The longest pause after failures: it begins with [`EACH`], and is doubled.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Longest answer: some ten thousand servers.
const MAX_BYTES: usize = 1 << 20;

/// Asks a region again and again.
pub(super) async fn follow(hub: &Hub, region: &Region) {
    let mut pause = EACH;
    loop {
        let asked = Instant::now();
        match timeout(WITHIN, ask(region)).await.unwrap_or_else(|_| Err("it does not answer in time".to_owned())) {
            Ok((room, trip)) => {
                region.heard(room, trip);
                pause = EACH;
            }
            Err(why) => {
                region.missed(&why);
                sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
                continue;
            }
        }
        loop {
            sleep(EACH).await;
            if asked.elapsed() >= QUIET || hub.servers.all().iter().any(|server| server.gate.is_waited_for()) {
                break;
            }
        }
    }
}

/// Its room, and how long it took to begin to tell.
async fn ask(region: &Region) -> Result<(Room, Duration), String> {
    let mut request = Request::new(Full::new(Bytes::new()));
    *request.uri_mut() = address(&region.url, "/regions/room").ok_or("it has no address")?;
    if let Some(authorization) = &region.authorization {
        request.headers_mut().insert(AUTHORIZATION, authorization.clone());
    }
    let asked = Instant::now();
    let response = region.client.request(request).await.map_err(|cause| cause.to_string())?;
    let trip = asked.elapsed();
    if response.status() != StatusCode::OK {
        return Err(format!("it answers with status {}", response.status()));
    }
    let whole = Limited::new(response.into_body(), MAX_BYTES).collect().await.map_err(|cause| cause.to_string())?;
    let room = serde_json::from_slice(&whole.to_bytes()).map_err(|cause| format!("it tells of no room: {cause}"))?;
    Ok((room, trip))
}
