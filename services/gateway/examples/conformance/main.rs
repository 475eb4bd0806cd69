//! The gateway as the conformance suite of the protocol sees it.
//!
//! `serve [URL]` serves the fixture of this example, or takes the server at URL instead, with a gateway before it for
//! each era of the server, and writes one line of JSON: where each of them is. It ends when its standard input does.
//!
//! `server ADDRESS` serves the fixture alone, by whatever name it is called: for a pod behind a gateway elsewhere.
//!
//! `client URL` is a client for the suite's scenarios of clients: it asks the suite's server at URL by way of a gateway,
//! so that what the suite judges is how the gateway asks. The suite says in the environment which scenario it is. In
//! those of authorization the gateway gets the tokens; the suite's authorization servers ask nobody, so that it goes
//! there itself.
//!
//! The suite knows of no credentials; what it sends gets the operator's token on the way into the gateway.

mod asks;
mod catalogue;
mod driver;
mod fixture;

use std::error::Error;

use axum::{Router, extract::Request, middleware::map_request};
use echotune_gateway::{
    AccessConfig, Effect, EraChoice, Gateway, GatewayConfig, Keys, Limits, OauthConfig, Reach, ServerConfig,
};
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
const USAGE: &str = "usage: conformance serve [URL] | conformance server ADDRESS | conformance client URL";

async fn bound() -> Outcome<(TcpListener, String)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let base = format!("http://{}", listener.local_addr()?);
    Ok((listener, base))
}

fn listen(listener: TcpListener, router: Router) {
    tokio::spawn(async move { axum::serve(listener, router).await });
}

async fn admitted(mut request: Request) -> Request {
    let token = format!("Bearer {TOKEN}");
    request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_str(&token).expect("the token is ASCII"));
    request
}

/// A gateway before one server, and where it is.
pub(crate) async fn gateway(
    url: &str,
    era: EraChoice,
    oauth: Option<OauthConfig>,
    stop: &CancellationToken,
) -> Outcome<(Gateway, String)> {
    let (listener, base) = bound().await?;
    let oauth = oauth.map(|oauth| OauthConfig { redirect_url: Some(format!("{base}/oauth/callback")), ..oauth });
    let reach = Reach::Http { endpoints: vec![url.to_owned()], authorization: None };
    let mut server = ServerConfig { era, oauth, ..ServerConfig::new("suite", reach) };
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
    listen(listener, gateway.router().layer(map_request(admitted)));
    Ok((gateway, format!("{base}/mcp")))
}

/// The fixture of this example.
fn everything(config: StreamableHttpServerConfig) -> Outcome<Router> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret)?;
    let fixture = fixture::Everything::new(secret);
    let service: StreamableHttpService<_, LocalSessionManager> =
        StreamableHttpService::new(move || Ok(fixture.clone()), Default::default(), config.with_sse_retry(None));
    Ok(Router::new().route_service("/mcp", service))
}

async fn serve_alone(address: &str) -> Outcome<()> {
    let listener = TcpListener::bind(address).await?;
    // A pod's address is whatever it has got.
    let router = everything(StreamableHttpServerConfig::default().disable_allowed_hosts())?;
    Ok(axum::serve(listener, router).await?)
}

async fn serve(other: Option<String>) -> Outcome<()> {
    let stop = CancellationToken::new();
    let server = match other {
        Some(url) => url,
        None => {
            let (listener, base) = bound().await?;
            listen(listener, everything(StreamableHttpServerConfig::default())?);
            format!("{base}/mcp")
        }
    };
    let (_modern, modern) = gateway(&server, EraChoice::Auto, None, &stop).await?;
    let (_legacy, legacy) = gateway(&server, EraChoice::Legacy, None, &stop).await?;
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
        ["server", address] => serve_alone(address).await,
        ["client", url] => driver::run(url).await,
        _ => Err(USAGE.into()),
    }
}
