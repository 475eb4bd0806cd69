//! A server of rmcp that speaks one era or both, over whichever transport.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ElicitRequest, ElicitRequestParams, Implementation,
        InputRequest, InputRequests, InputRequiredResult, ListToolsResult, PaginatedRequestParams,
        ProgressNotificationParam, ProtocolVersion, ServerCapabilities, ServerConfig, Tool, ToolAnnotations,
    },
    service::RequestContext,
};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

/// Which revisions it speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Era {
    Modern,
    Legacy,
}

#[derive(Clone)]
pub(crate) struct Fixture {
    name: String,
    era: Era,
    tools: Vec<&'static str>,
    pub(crate) calls: Arc<AtomicU64>,
    /// How many calls of `held` may end: the test says when, and no clock does.
    pub(crate) let_go: Arc<Semaphore>,
}

impl Fixture {
    pub(crate) fn new(name: &str, era: Era, tools: &[&'static str]) -> Self {
        let let_go = Arc::new(Semaphore::new(0));
        Self { name: name.to_owned(), era, tools: tools.to_vec(), calls: Arc::default(), let_go }
    }
}

/// All tools that there are, but for `held`, which is of use to a test in the same process alone.
pub(crate) const TOOLS: [&str; 6] = ["echo", "count", "slow", "progress", "ask", "die"];

fn tool(name: &'static str) -> Tool {
    let schema = json!({"type": "object"}).as_object().cloned().expect("an object");
    let hints = ToolAnnotations::new().read_only(matches!(name, "echo" | "slow" | "held" | "progress" | "ask"));
    Tool::new(name, format!("The tool {name}"), Arc::new(schema)).with_annotations(hints)
}

fn form() -> ElicitRequestParams {
    serde_json::from_value(json!({
        "mode": "form",
        "message": "What is your name?",
        "requestedSchema": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
    }))
    .expect("a form")
}

impl Fixture {
    async fn ask(
        &self,
        request: &CallToolRequestParams,
        context: &RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let greeted = |name: &Value| CallToolResult::structured(json!({"hello": name}));
        if self.era == Era::Legacy {
            let answer = context.peer.create_elicitation(form()).await;
            let answer = answer.map_err(|cause| ErrorData::internal_error(cause.to_string(), None))?;
            return Ok(greeted(&answer.content.unwrap_or_default()["name"]).into());
        }
        match &request.input_responses {
            Some(responses) if request.request_state.as_deref() == Some("a state") => {
                Ok(greeted(&responses["who"]["content"]["name"]).into())
            }
            _ => {
                let mut requests = InputRequests::new();
                requests.insert("who".to_owned(), InputRequest::Elicitation(ElicitRequest::new(form())));
                Ok(InputRequiredResult::new(Some(requests), Some("a state".to_owned())).into())
            }
        }
    }
}

impl ServerHandler for Fixture {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().enable_tool_list_changed().build())
            .with_server_info(Implementation::new(self.name.clone(), "1.0.0"))
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        match self.era {
            Era::Modern => Cow::Borrowed(&[ProtocolVersion::V_2026_07_28]),
            Era::Legacy => Cow::Borrowed(&[ProtocolVersion::V_2025_11_25]),
        }
    }

    async fn list_tools(
        &self,
        _page: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(self.tools.iter().map(|name| tool(name)).collect()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let calls = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let arguments = Value::Object(request.arguments.clone().unwrap_or_default());
        if !self.tools.contains(&request.name.as_ref()) {
            return Err(ErrorData::invalid_params("unknown tool", None));
        }
        let content = match request.name.as_ref() {
            "echo" => json!({
                "server": self.name, "arguments": arguments, "pid": std::process::id(),
                "traceparent": context.meta.get("traceparent"),
            }),
            "count" => json!({"calls": calls}),
            "slow" => {
                tokio::time::sleep(Duration::from_millis(arguments["ms"].as_u64().unwrap_or(50))).await;
                json!({"server": self.name, "arguments": arguments, "pid": std::process::id()})
            }
            "held" => {
                self.let_go.acquire().await.expect("open").forget();
                json!({"server": self.name, "arguments": arguments})
            }
            "progress" => {
                for step in 1..=3 {
                    if let Some(token) = context.meta.get_progress_token() {
                        let progress = ProgressNotificationParam::new(token, f64::from(step)).with_total(3.0);
                        context.peer.notify_progress(progress).await.expect("told");
                    }
                }
                json!({"steps": 3})
            }
            "ask" => return self.ask(&request, &context).await,
            _ => std::process::exit(9),
        };
        Ok(CallToolResult::structured(content).into())
    }
}
