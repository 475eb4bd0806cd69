//! The gateway as the conformance suite of the protocol sees it.
//!
//! `serve [URL]` serves the fixture of this example, or takes the server at URL instead, with a gateway before it for
//! each era of the server, and writes one line of JSON: where each of them is. It ends when its standard input does.
//!
//! `client URL` is a client for the suite's scenarios of clients: it asks the suite's server at URL by way of a gateway,
//! so that what the suite judges is how the gateway asks. The suite says in the environment which scenario it is.
//!
//! The suite knows of no credentials; what it sends gets the operator's token on the way into the gateway.

mod asks;
mod catalogue;
mod driver;
mod fixture;

use std::error::Error;

use axum::{Router, extract::Request, middleware::map_request};
use echotune_gateway::{AccessConfig, Effect, EraChoice, Gateway, GatewayConfig, Keys, Limits, Reach, ServerConfig};
use echotune_kit::{
    auth::{Callers, Token},
    telemetry::metrics::Meter,
};
use http::{HeaderValue, header::AUTHORIZATION};
use rmcp::transport::streamable_http_server::{
    StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
};
use serde_json::json;
use tokio::{io::AsyncReadExt as _, net::TcpListener};
use tokio_util::sync::CancellationToken;

/// Errors of an example are for people.
pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const TOKEN: &str = "the token of the operator, which is long enough";
const USAGE: &str = "usage: conformance serve [URL] | conformance client URL";

async fn listen(router: Router) -> Outcome<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(format!("http://{address}/mcp"))
}

async fn admitted(mut request: Request) -> Request {
    let token = format!("Bearer {TOKEN}");
    request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_str(&token).expect("the token is ASCII"));
    request
}

/// A gateway before one server, and where it is.
pub(crate) async fn gateway(url: &str, era: EraChoice, stop: &CancellationToken) -> Outcome<(Gateway, String)> {
    let reach = Reach::Http { endpoints: vec![url.to_owned()], authorization: None };
    let mut server = ServerConfig { era, ..ServerConfig::new("suite", reach) };
    server.effects.insert("test_simple_text".to_owned(), Effect::Reads);
    let config = GatewayConfig {
        servers: vec![server],
        callers: Callers::new(Token::from(TOKEN.to_owned()), None),
        access: AccessConfig::default(),
        keys: Keys::random()?,
        advertise: String::new(),
        hosts: Vec::new(),
        origins: Vec::new(),
        authorities: None,
        metering: None,
        limits: Limits::default(),
        regions: echotune_gateway::RegionsConfig::default(),
        meter: Meter::default(),
    };
    let gateway = Gateway::start(config, stop.clone())?;
    let address = listen(gateway.router().layer(map_request(admitted))).await?;
    Ok((gateway, address))
}

async fn serve(other: Option<String>) -> Outcome<()> {
    let stop = CancellationToken::new();
    let server = match other {
        Some(url) => url,
        None => {
            let mut secret = [0; 32];
            getrandom::fill(&mut secret)?;
            let fixture = fixture::Everything::new(secret);
            let service: StreamableHttpService<_, LocalSessionManager> = StreamableHttpService::new(
                move || Ok(fixture.clone()),
                Default::default(),
                StreamableHttpServerConfig::default().with_sse_retry(None),
            );
            listen(Router::new().route_service("/mcp", service)).await?
        }
    };
    let (_modern, modern) = gateway(&server, EraChoice::Auto, &stop).await?;
    let (_legacy, legacy) = gateway(&server, EraChoice::Legacy, &stop).await?;
    println!("{}", json!({ "server": server, "gateway": modern, "gateway_to_sessions": legacy }));
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    stop.cancel();
    Ok(())
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["serve"] => serve(None).await,
        ["serve", url] => serve(Some((*url).to_owned())).await,
        ["client", url] => driver::run(url).await,
        _ => Err(USAGE.into()),
    }
}
