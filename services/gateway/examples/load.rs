//! What the gateway adds to a call: the same calls to a server directly and by way of a gateway, at a fixed rate, and
//! as many as it takes.
//!
//! `cargo run --release -p echotune-gateway --example load -- [CALLS_A_SECOND] [SECONDS] [CONNECTIONS]`
//!
//! One line of JSON: percentiles of both in microseconds, their differences, and calls a second without a rate. Client,
//! gateway and server share this machine. Calls begin when the clock says, not when the one before has ended, and the
//! time of each counts from then on.

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Bytes, routing::post, serve::ListenerExt as _};
use echotune_gateway::{AccessConfig, Gateway, GatewayConfig, Keys, Limits, Reach, ServerConfig};
use echotune_kit::{
    auth::{Callers, Token},
    telemetry::metrics::Meter,
};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, time::Instant};
use tokio_util::sync::CancellationToken;

const TOKEN: &str = "the token of the operator, which is long enough";

/// Errors of an example are for people.
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

type Http = Client<HttpConnector, Full<Bytes>>;

/// A server that does nothing, so that what is measured is the way.
async fn answer(body: Bytes) -> axum::Json<Value> {
    let request: Value = serde_json::from_slice(&body).unwrap_or_default();
    let result = match request["method"].as_str().unwrap_or_default() {
        "server/discover" => json!({"resultType": "complete", "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "public"}),
        "tools/list" => json!({"resultType": "complete", "ttlMs": 3_600_000, "cacheScope": "public",
            "tools": [{"name": "nothing", "inputSchema": {"type": "object"}}]}),
        _ => json!({"resultType": "complete", "content": [{"type": "text", "text": "done"}]}),
    };
    axum::Json(json!({"jsonrpc": "2.0", "id": request["id"], "result": result}))
}

async fn listen(router: Router) -> Outcome<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener.tap_io(|io| drop(io.set_nodelay(true))), router).await });
    Ok(format!("http://{address}/mcp"))
}

fn request(url: &str) -> Outcome<http::Request<Full<Bytes>>> {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
        "name": "nothing", "arguments": {"text": "x".repeat(200)},
        "_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {}}}});
    let request = http::Request::post(url)
        .header("authorization", format!("Bearer {TOKEN}"))
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", "tools/call")
        .header("mcp-name", "nothing");
    Ok(request.body(Full::new(body.to_string().into()))?)
}

async fn call(http: &Http, url: &str) -> Outcome<()> {
    let response = http.request(request(url)?).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    let answer: Value = serde_json::from_slice(&body)?;
    if answer["result"]["content"].is_array() { Ok(()) } else { Err(format!("{status}: {answer}").into()) }
}

/// Times of calls that begin at a rate, in microseconds and sorted.
async fn paced(http: &Http, url: &str, rate: u64, seconds: u64) -> Outcome<Vec<u64>> {
    let begun = Instant::now();
    let calls = (0..rate * seconds).map(|at| {
        let (http, url) = (http.clone(), url.to_owned());
        let due = begun + Duration::from_nanos(at * 1_000_000_000 / rate);
        tokio::spawn(async move {
            tokio::time::sleep_until(due).await;
            // Timers tick by the millisecond: what is left until the very moment is no part of the call.
            let due = due.max(Instant::now());
            call(&http, &url).await.map(|()| due.elapsed())
        })
    });
    let mut times = Vec::new();
    for call in calls.collect::<Vec<_>>() {
        times.push(u64::try_from(call.await??.as_micros())?);
    }
    times.sort_unstable();
    Ok(times)
}

/// Calls a second of connections that call one after the other.
async fn most(http: &Http, url: &str, connections: usize, seconds: u64) -> Outcome<f64> {
    let end = Instant::now() + Duration::from_secs(seconds);
    let callers = (0..connections).map(|_| {
        let (http, url) = (http.clone(), url.to_owned());
        tokio::spawn(async move {
            let mut calls = 0_u32;
            while Instant::now() < end {
                call(&http, &url).await?;
                calls += 1;
            }
            Outcome::<u32>::Ok(calls)
        })
    });
    let mut calls = 0;
    for caller in callers.collect::<Vec<_>>() {
        calls += caller.await??;
    }
    Ok(f64::from(calls) / f64::from(u32::try_from(seconds)?))
}

fn percentile(times: &[u64], share: usize) -> u64 {
    times.get((times.len() * share / 1_000).min(times.len().saturating_sub(1))).copied().unwrap_or_default()
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>());
    let mut next = |otherwise: u64| arguments.next().unwrap_or(Ok(otherwise));
    let (rate, seconds, connections) = (next(1_000)?.max(1), next(10)?.max(1), usize::try_from(next(32)?)?);
    let direct = listen(Router::new().route("/mcp", post(answer))).await?;
    let reach = Reach::Http { endpoints: vec![direct.clone()], authorization: None };
    let server =
        ServerConfig { concurrency: 1_024, per_caller: 4_096, queue: 4_096, ..ServerConfig::new("load", reach) };
    let config = GatewayConfig {
        servers: vec![server],
        callers: Callers::new(Token::from(TOKEN.to_owned()), None),
        access: AccessConfig::default(),
        keys: Keys::random()?,
        advertise: String::new(),
        hosts: Vec::new(),
        origins: Vec::new(),
        authorities: None,
        limits: Limits::default(),
        regions: echotune_gateway::RegionsConfig::default(),
        meter: Meter::default(),
        metering: None,
    };
    let stop = CancellationToken::new();
    let gateway = Arc::new(Gateway::start(config, stop.clone())?);
    let through = listen(gateway.router()).await?;
    let http: Http = {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Client::builder(TokioExecutor::new()).build(connector)
    };
    // Connections are made and lists read before anything is measured.
    paced(&http, &direct, rate, 1).await?;
    paced(&http, &through, rate, 1).await?;
    let (plain, led) = (paced(&http, &direct, rate, seconds).await?, paced(&http, &through, rate, seconds).await?);
    let most_direct = most(&http, &direct, connections, seconds).await?;
    let most_through = most(&http, &through, connections, seconds).await?;
    let at = |share| (percentile(&plain, share), percentile(&led, share));
    let ((plain_50, led_50), (plain_99, led_99)) = (at(500), at(990));
    println!(
        "{}",
        json!({
            "calls_a_second": rate, "seconds": seconds, "connections": connections,
            "direct_us": {"p50": plain_50, "p99": plain_99}, "gateway_us": {"p50": led_50, "p99": led_99},
            "added_us": {"p50": led_50.saturating_sub(plain_50), "p99": led_99.saturating_sub(plain_99)},
            "most_direct": most_direct, "most_gateway": most_through,
        })
    );
    stop.cancel();
    Ok(())
}
