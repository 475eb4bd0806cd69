//! A client of rmcp that does what a scenario of the suite waits for, by way of a gateway.
#![allow(deprecated, reason = "what is deprecated is in the revisions that are spoken here")]

use std::{env, time::Duration};

use echotune_gateway::{EraChoice, OauthConfig, OauthGrant};
use rmcp::{
    ClientHandler, ErrorData, RoleClient,
    model::{
        CallToolRequestParams, ClientCapabilities, ClientInfo, CreateMessageRequestParams, CreateMessageResult,
        ElicitRequestParams, ElicitResult, Implementation, ProtocolVersion, Tool,
    },
    service::{ClientLifecycleMode, ClientServiceExt as _, RequestContext},
    transport::{StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::{Outcome, gateway};

/// Less than the suite waits for a client.
const MOST: Duration = Duration::from_secs(25);

/// What the suite says of the scenario.
#[derive(Default, Deserialize)]
struct Scenario {
    #[serde(default, rename = "toolCalls")]
    calls: Vec<Call>,
    /// As what the client was registered before.
    client_id: Option<String>,
    client_secret: Option<String>,
    private_key_pem: Option<String>,
}

#[derive(Deserialize)]
struct Call {
    name: String,
    #[serde(default)]
    arguments: Map<String, Value>,
}

/// Answers all that it is asked.
struct Driver;

fn read<T: DeserializeOwned>(value: Value) -> Result<T, ErrorData> {
    serde_json::from_value(value).map_err(|cause| ErrorData::internal_error(cause.to_string(), None))
}

impl ClientHandler for Driver {
    fn get_info(&self) -> ClientInfo {
        let able = ClientCapabilities::builder().enable_elicitation().enable_sampling().enable_roots().build();
        ClientInfo::new(able, Implementation::new("echotune-conformance-driver", "1.0.0"))
    }

    async fn create_message(
        &self,
        _request: CreateMessageRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<CreateMessageResult, ErrorData> {
        read(json!({ "role": "assistant", "content": { "type": "text", "text": "An answer." }, "model": "none" }))
    }

    /// Takes what is given as defaults, as one does who has nothing to add.
    async fn create_elicitation(
        &self,
        request: ElicitRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        let asked =
            serde_json::to_value(&request).map_err(|cause| ErrorData::internal_error(cause.to_string(), None))?;
        let properties = asked["requestedSchema"]["properties"].as_object().cloned().unwrap_or_default();
        let given =
            properties.into_iter().filter_map(|(name, property)| Some((name, property.get("default")?.clone())));
        read(json!({ "action": "accept", "content": given.collect::<Map<_, _>>() }))
    }
}

/// Arguments that fit a tool.
fn arguments(tool: &Tool) -> Map<String, Value> {
    let schema = Value::Object(tool.input_schema.as_ref().clone());
    let needed = schema["required"].as_array().cloned().unwrap_or_default();
    let fitting = needed.iter().filter_map(Value::as_str).map(|name| {
        let value = match schema["properties"][name]["type"].as_str() {
            Some("number" | "integer") => json!(1),
            Some("boolean") => json!(true),
            _ => json!("text"),
        };
        (name.to_owned(), value)
    });
    fitting.collect()
}

/// Where the suite's gateway would describe itself: nobody looks.
const DESCRIPTION: &str = "https://conformance-test.local/client-metadata.json";

/// How the gateway gets tokens, in scenarios that want such.
async fn oauth(scenario: &Scenario, url: &str, http: &reqwest::Client) -> Outcome<Option<OauthConfig>> {
    let name = env::var("MCP_CONFORMANCE_SCENARIO").unwrap_or_default();
    if !name.starts_with("auth/") {
        return Ok(None);
    }
    let is_own = name.starts_with("auth/client-credentials");
    // Whoever registers a gateway knows where; the suite does not say it.
    let issuer = match scenario.client_id {
        Some(_) => Some(issuer(url, http).await?),
        None => None,
    };
    Ok(Some(OauthConfig {
        grant: if is_own { OauthGrant::ClientCredentials } else { OauthGrant::AuthorizationCode },
        issuer,
        client_id: scenario.client_id.clone(),
        client_secret: scenario.client_secret.clone().map(Into::into),
        private_key: scenario.private_key_pem.clone().map(Into::into),
        client_metadata_url: Some(DESCRIPTION.to_owned()),
        follow_redirect: true,
        ..OauthConfig::default()
    }))
}

/// The authorization server that the suite's server names.
async fn issuer(url: &str, http: &reqwest::Client) -> Outcome<String> {
    let base = url.strip_suffix("/mcp").ok_or("the suite's server is at /mcp")?;
    let metadata = format!("{base}/.well-known/oauth-protected-resource/mcp");
    let told: Value = serde_json::from_str(&http.get(metadata).send().await?.text().await?)?;
    Ok(told["authorization_servers"][0].as_str().ok_or("it names no authorization server")?.to_owned())
}

/// Lists the tools of the suite's server and calls what the scenario names, or all of them.
pub(crate) async fn run(url: &str) -> Outcome<()> {
    tokio::time::timeout(MOST, drive(url)).await.map_err(|_| "it took too long")?
}

async fn drive(url: &str) -> Outcome<()> {
    let revision = env::var("MCP_CONFORMANCE_PROTOCOL_VERSION").unwrap_or_else(|_| "2025-11-25".to_owned());
    let scenario: Scenario = match env::var("MCP_CONFORMANCE_CONTEXT") {
        Ok(context) => serde_json::from_str(&context)?,
        Err(_) => Scenario::default(),
    };
    let is_modern = revision.as_str() >= "2026-07-28";
    let era = if is_modern { EraChoice::Modern } else { EraChoice::Legacy };
    let stop = CancellationToken::new();
    let http = reqwest::Client::builder().no_proxy().build()?;
    let oauth = oauth(&scenario, url, &http).await?;
    let (gateway, address) = gateway(url, era, oauth, &stop).await?;
    let to = StreamableHttpClientTransportConfig::with_uri(address.as_str());
    let lifecycle = if is_modern {
        ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] }
    } else {
        ClientLifecycleMode::Initialize
    };
    let client = Driver.serve_with_lifecycle(StreamableHttpClientTransport::with_client(http, to), lifecycle).await?;
    let tools = client.list_all_tools().await?;
    let calls = if scenario.calls.is_empty() {
        tools.iter().map(|tool| Call { name: tool.name.to_string(), arguments: arguments(tool) }).collect()
    } else {
        scenario.calls
    };
    for call in calls {
        // What a tool answers is judged by the suite's server, which knows what it was asked.
        let answer =
            client.call_tool(CallToolRequestParams::new(call.name.clone()).with_arguments(call.arguments)).await;
        eprintln!("{}: {answer:?}", call.name);
    }
    client.cancel().await?;
    stop.cancel();
    gateway.close(Duration::from_secs(5)).await;
    Ok(())
}
