//! What sessions cost: how long one takes to be opened, and what the gateway holds for many that do nothing.
//!
//! `cargo run --release -p echotune-gateway --example sessions -- [SESSIONS]`
//!
//! Two lines of JSON: sessions of clients alone, and with a session at a server of before 2026-07-28 behind each. The
//! memory is that of the whole process, with the client's list of tokens and, in the second line, the server too.

use std::{sync::Arc, time::Duration};

use echotune_gateway::{Limits, Reach, ServerConfig};
use serde_json::json;
use tokio::{sync::Semaphore, time::Instant};

mod stand;
use stand::{Outcome, gateway, http, listen, open, percentile, resident_mib, server, within};

/// Sessions that are opened at once.
const AT_ONCE: usize = 16;

async fn measure(sessions: u64, modern: bool) -> Outcome<serde_json::Value> {
    let behind = listen(server(modern, Duration::ZERO)).await?;
    let reach = Reach::Http { endpoints: vec![behind], authorization: None };
    let config = ServerConfig { keep_session: true, per_caller: 1_024, ..ServerConfig::new("nothing", reach) };
    let limits = Limits { sessions, session_idle: Duration::from_secs(3_600), ..Limits::default() };
    let stand = gateway(vec![config], limits).await?;
    let http = http();
    stand::ready(&http, &stand.url, "nothing").await?;
    // One after the other first: what one takes, without waiting for others.
    let mut times = Vec::new();
    for _ in 0..1_000 {
        let begun = Instant::now();
        open(&http, &stand.url).await?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    let before = resident_mib()?;
    let (places, begun) = (Arc::new(Semaphore::new(AT_ONCE)), Instant::now());
    let mut tokens = Vec::new();
    for _ in 0..sessions {
        let place = Arc::clone(&places).acquire_owned().await?;
        let (http, url) = (http.clone(), stand.url.clone());
        tokens.push(tokio::spawn(async move {
            let session = open(&http, &url).await?;
            // Only a session that was used is one of which the gateway keeps anything.
            within(&http, &url, &session, &json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await?;
            within(&http, &url, &session, &json!({"jsonrpc": "2.0", "id": 2, "method": "ping"})).await?;
            drop(place);
            Outcome::Ok(session)
        }));
    }
    let mut opened = Vec::new();
    for token in tokens {
        opened.push(token.await??);
    }
    let took = begun.elapsed();
    let after = resident_mib()?;
    // They are sessions still.
    for session in opened.iter().step_by(opened.len() / 100 + 1) {
        let call = json!({"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"name": "nothing"}});
        let answer = within(&http, &stand.url, session, &call).await?;
        if !answer["result"]["content"].is_array() {
            return Err(answer.to_string().into());
        }
    }
    stand.stop.cancel();
    Ok(json!({
        "sessions": sessions, "with_server_sessions": !modern,
        "open_us": {"p50": percentile(&times, 500), "p99": percentile(&times, 990)},
        "seconds_for_all": took.as_secs_f64(), "mib_before": before, "mib_after": after,
    }))
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let sessions = std::env::args().nth(1).map_or(Ok(50_000), |text| text.parse())?;
    println!("{}", measure(sessions, true).await?);
    println!("{}", measure(sessions, false).await?);
    Ok(())
}
