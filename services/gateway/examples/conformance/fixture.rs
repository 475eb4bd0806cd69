//! A server with what the conformance suite asks of one (the requirements in the descriptions of its scenarios), over
//! rmcp. It asks its clients in the way of their revision, so that the gateway can be tried between any two.
#![allow(deprecated, reason = "what is deprecated is in the revisions that are spoken here")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rmcp::{
    ErrorData, Peer, RoleServer, ServerHandler,
    model::{
        CacheScope, CallToolRequestParams, CallToolResponse, CallToolResult, ClientCapabilities, CompleteRequestParams,
        CompleteResult, ErrorCode, GetPromptRequestParams, GetPromptResponse, Implementation, InputRequest,
        InputRequiredResult, ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult,
        LoggingLevel, LoggingMessageNotificationParam, PaginatedRequestParams, ProgressNotificationParam,
        ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult, ResourceUpdatedNotificationParam,
        ServerCapabilities, ServerConfig, SetLevelRequestParams, SubscribeRequestParams, SubscriptionFilter, Tool,
        UnsubscribeRequestParams,
    },
    service::{RequestContext, SubscriptionContext, SubscriptionSink},
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use super::{asks, catalogue};

/// For how long clients may keep what is listed or read.
const KEPT_MS: u64 = 60_000;
/// Between two things that a tool tells of itself.
const STEP: Duration = Duration::from_millis(50);

type Context = RequestContext<RoleServer>;

/// Somebody who is told of changes.
enum Listener {
    /// In the way of 2026-07-28.
    Stream(SubscriptionSink),
    /// In a session, of one resource.
    Session { uri: String, peer: Peer<RoleServer> },
}

/// The server. Its clones are one.
#[derive(Clone)]
pub(crate) struct Everything {
    listeners: Arc<Mutex<BTreeMap<u64, Arc<Listener>>>>,
    /// Makes states that come back known for its own.
    secret: Arc<[u8; 32]>,
    /// How many answers the tool that logs may give after its log, where somebody says so.
    pub(crate) let_go: Option<Arc<Semaphore>>,
}

/// JSON as the library has it.
fn read<T: DeserializeOwned>(value: Value) -> Result<T, ErrorData> {
    serde_json::from_value(value).map_err(|cause| ErrorData::internal_error(cause.to_string(), None))
}

fn said(text: impl Into<String>) -> CallToolResponse {
    CallToolResult::success(vec![rmcp::model::ContentBlock::text(text.into())]).into()
}

fn is_modern(context: &Context) -> bool {
    context.protocol_version().is_some_and(|version| version.as_str() >= "2026-07-28")
}

impl Everything {
    pub(crate) fn new(secret: [u8; 32]) -> Self {
        Self { listeners: Arc::default(), secret: Arc::new(secret), let_go: None }
    }

    fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<u64, Arc<Listener>>) -> T) -> T {
        work(&mut self.listeners.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn listens(&self, listener: Listener) -> u64 {
        self.with(|listeners| {
            let next = listeners.last_key_value().map_or(0, |(last, _)| last + 1);
            listeners.insert(next, Arc::new(listener));
            next
        })
    }

    /// Tells all who listen that something changed.
    async fn changed(&self, what: &str) {
        for listener in self.with(|listeners| listeners.values().cloned().collect::<Vec<_>>()) {
            // Some did not ask for it and some are gone: both is as it should be.
            match (&*listener, what) {
                (Listener::Stream(sink), "tools") => drop(sink.notify_tool_list_changed().await),
                (Listener::Stream(sink), "prompts") => drop(sink.notify_prompt_list_changed().await),
                (Listener::Stream(sink), uri) => drop(sink.notify_resource_updated(uri).await),
                (Listener::Session { uri: known, peer }, uri) if known == uri => {
                    drop(peer.notify_resource_updated(ResourceUpdatedNotificationParam::new(uri)).await);
                }
                (Listener::Session { .. }, _) => {}
            }
        }
    }

    /// The state of a round: nobody else can make one.
    fn seal(&self, round: usize) -> String {
        let digest = Sha256::new_with_prefix(self.secret.as_slice()).chain_update(round.to_be_bytes()).finalize();
        format!("{round}.{}", digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }

    fn open(&self, state: &str) -> Result<usize, ErrorData> {
        let round = state.split_once('.').and_then(|(round, _)| round.parse().ok());
        round
            .filter(|round| self.seal(*round) == state)
            .ok_or_else(|| ErrorData::invalid_params("'requestState' is none that was given here", None))
    }

    /// Asks the client what `asked` says in the way of 2026-07-28: by what is answered until all answers are there.
    fn by_rounds(
        &self,
        asked: &asks::Asked,
        responses: Option<&BTreeMap<String, Value>>,
        state: Option<&str>,
    ) -> Result<Answered, ErrorData> {
        let round = state.map(|state| self.open(state)).transpose()?;
        let at = round.unwrap_or(0);
        let Some(now) = asked.rounds.get(at) else { return Ok(Answered::All(Map::new())) };
        let given = |key: &&str| responses.and_then(|all| all.get(*key)).filter(|value| value.is_object());
        let answered = (!asked.has_state || round.is_some()) && now.iter().all(|(key, _)| given(key).is_some());
        if answered && at + 1 == asked.rounds.len() {
            let all = now.iter().map(|(key, _)| ((*key).to_owned(), given(key).cloned().unwrap_or_default()));
            return Ok(Answered::All(all.collect()));
        }
        let next = if answered { at + 1 } else { at };
        let requests = asked.rounds[next].iter();
        let requests: Result<BTreeMap<String, InputRequest>, ErrorData> =
            requests.map(|(key, request)| Ok(((*key).to_owned(), read(request.clone())?))).collect();
        let state = asked.has_state.then(|| self.seal(next));
        Ok(Answered::Not(Box::new(InputRequiredResult::new(Some(requests?), state))))
    }

    /// Asks the client the same in the way of before: by requests of the server's own.
    async fn by_requests(asked: &asks::Asked, peer: &Peer<RoleServer>) -> Result<Map<String, Value>, ErrorData> {
        let mut all = Map::new();
        for round in &asked.rounds {
            let answers = round.iter().map(|(key, request)| Self::by_request(key, request, peer));
            all.extend(futures::future::try_join_all(answers).await?);
        }
        Ok(all)
    }

    async fn by_request(key: &str, request: &Value, peer: &Peer<RoleServer>) -> Result<(String, Value), ErrorData> {
        let params = request["params"].clone();
        let failed = |cause: rmcp::ServiceError| ErrorData::internal_error(cause.to_string(), None);
        let answer = match request["method"].as_str().unwrap_or_default() {
            "sampling/createMessage" => serde_json::to_value(peer.create_message(read(params)?).await.map_err(failed)?),
            "roots/list" => serde_json::to_value(peer.list_roots().await.map_err(failed)?),
            _ => serde_json::to_value(peer.create_elicitation(read(params)?).await.map_err(failed)?),
        };
        let answer = answer.map_err(|cause| ErrorData::internal_error(cause.to_string(), None))?;
        Ok((key.to_owned(), answer))
    }

    async fn ask(
        &self,
        asked: asks::Asked,
        request: &CallToolRequestParams,
        context: &Context,
    ) -> Result<CallToolResponse, ErrorData> {
        if !is_modern(context) {
            return match Self::by_requests(&asked, &context.peer).await {
                Ok(all) => Ok(said((asked.told)(&all))),
                Err(cause) => {
                    Ok(CallToolResult::error(vec![rmcp::model::ContentBlock::text(cause.message.into_owned())]).into())
                }
            };
        }
        let responses = request.input_responses.as_ref();
        match self.by_rounds(&asked, responses, request.request_state.as_deref())? {
            Answered::All(all) => Ok(said((asked.told)(&all))),
            Answered::Not(required) => Ok((*required).into()),
        }
    }

    async fn logs(context: &Context, texts: &[&str]) {
        for text in texts {
            let message = LoggingMessageNotificationParam::new(LoggingLevel::Info, json!(text));
            // Whoever went away is told nothing.
            drop(context.peer.notify_logging_message(message).await);
            tokio::time::sleep(STEP).await;
        }
    }

    async fn progresses(context: &Context) {
        for progress in [0.0, 50.0, 100.0] {
            if let Some(token) = context.meta.get_progress_token() {
                drop(
                    context
                        .peer
                        .notify_progress(ProgressNotificationParam::new(token, progress).with_total(100.0))
                        .await,
                );
            }
            tokio::time::sleep(STEP).await;
        }
    }

    async fn act(&self, name: &str, arguments: &Value, context: &Context) -> Result<CallToolResponse, ErrorData> {
        match name {
            "test_tool_with_logging" => {
                Self::logs(context, &["Tool execution started", "Tool processing data", "Tool execution completed"])
                    .await;
                if let Some(let_go) = &self.let_go
                    && let Ok(leave) = let_go.acquire().await
                {
                    leave.forget();
                }
            }
            "test_logging_tool" if context.meta.log_level().is_some() => Self::logs(context, &["asked for"]).await,
            "test_logging_tool" => {}
            "test_tool_with_progress" => Self::progresses(context).await,
            "test_trigger_tool_change" => self.changed("tools").await,
            "test_trigger_prompt_change" => self.changed("prompts").await,
            "test_touch_resource" => self.changed(arguments["uri"].as_str().unwrap_or(catalogue::WATCHED)).await,
            "test_reconnection" => tokio::time::sleep(STEP * 2).await,
            "test_missing_capability" => {
                let able = context.meta.client_capabilities().unwrap_or_default();
                if able.sampling.is_none() {
                    let needed = ClientCapabilities::builder().enable_sampling().build();
                    return Err(ErrorData::missing_required_client_capability(needed));
                }
            }
            "test_custom_header" => return Ok(said(arguments["value"].as_str().unwrap_or_default())),
            _ => return Err(ErrorData::invalid_params(format!("there is no tool '{name}'"), None)),
        }
        Ok(said(format!("{name} is done")))
    }
}

/// What came of asking a client.
enum Answered {
    All(Map<String, Value>),
    Not(Box<InputRequiredResult>),
}

impl ServerHandler for Everything {
    fn get_info(&self) -> ServerConfig {
        let able = ServerCapabilities::builder()
            .enable_prompts()
            .enable_prompts_list_changed()
            .enable_resources()
            .enable_resources_subscribe()
            .enable_resources_list_changed()
            .enable_tools()
            .enable_tool_list_changed()
            .enable_logging()
            .enable_completions()
            .build();
        ServerConfig::new(able).with_server_info(Implementation::new("echotune-conformance-fixture", "1.0.0"))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        let tool = catalogue::tools().into_iter().find(|tool| tool["name"] == name)?;
        serde_json::from_value(tool).ok()
    }

    async fn list_tools(
        &self,
        _page: Option<PaginatedRequestParams>,
        _context: Context,
    ) -> Result<ListToolsResult, ErrorData> {
        let list: ListToolsResult = read(json!({ "resultType": "complete", "tools": catalogue::tools() }))?;
        Ok(list.with_ttl_ms(KEPT_MS).with_cache_scope(CacheScope::Public))
    }

    async fn call_tool(&self, request: CallToolRequestParams, context: Context) -> Result<CallToolResponse, ErrorData> {
        let arguments = Value::Object(request.arguments.clone().unwrap_or_default());
        let able = context.client_capabilities().unwrap_or_default();
        if let Some(asked) = asks::of_tool(&request.name, &arguments, &able) {
            return self.ask(asked, &request, &context).await;
        }
        if let Some(result) = catalogue::result(&request.name) {
            return Ok(read::<CallToolResult>(result)?.into());
        }
        self.act(&request.name, &arguments, &context).await
    }

    async fn list_prompts(
        &self,
        _page: Option<PaginatedRequestParams>,
        _context: Context,
    ) -> Result<ListPromptsResult, ErrorData> {
        let list: ListPromptsResult = read(json!({ "resultType": "complete", "prompts": catalogue::prompts() }))?;
        Ok(list.with_ttl_ms(KEPT_MS).with_cache_scope(CacheScope::Public))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        context: Context,
    ) -> Result<GetPromptResponse, ErrorData> {
        let given = Value::Object(request.arguments.clone().unwrap_or_default());
        if request.name == asks::PROMPT {
            let asked = asks::of_prompt();
            let all = if is_modern(&context) {
                match self.by_rounds(&asked, request.input_responses.as_ref(), request.request_state.as_deref())? {
                    Answered::All(all) => all,
                    Answered::Not(required) => return Ok((*required).into()),
                }
            } else {
                Self::by_requests(&asked, &context.peer).await?
            };
            return Ok(read::<rmcp::model::GetPromptResult>(catalogue::message(&(asked.told)(&all)))?.into());
        }
        let prompt = catalogue::prompt(&request.name, &given);
        let prompt = prompt.ok_or_else(|| ErrorData::invalid_params("there is no such prompt", None))?;
        Ok(read::<rmcp::model::GetPromptResult>(prompt)?.into())
    }

    async fn list_resources(
        &self,
        _page: Option<PaginatedRequestParams>,
        _context: Context,
    ) -> Result<ListResourcesResult, ErrorData> {
        let list: ListResourcesResult = read(json!({ "resultType": "complete", "resources": catalogue::resources() }))?;
        Ok(list.with_ttl_ms(KEPT_MS).with_cache_scope(CacheScope::Public))
    }

    async fn list_resource_templates(
        &self,
        _page: Option<PaginatedRequestParams>,
        _context: Context,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let list: ListResourceTemplatesResult =
            read(json!({ "resultType": "complete", "resourceTemplates": catalogue::templates() }))?;
        Ok(list.with_ttl_ms(KEPT_MS).with_cache_scope(CacheScope::Public))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: Context,
    ) -> Result<ReadResourceResponse, ErrorData> {
        match catalogue::resource(&request.uri) {
            Some(found) => {
                let found: ReadResourceResult = read(found)?;
                Ok(found.with_ttl_ms(KEPT_MS).with_cache_scope(CacheScope::Private).into())
            }
            None => {
                let code = if is_modern(&context) { ErrorCode::INVALID_PARAMS } else { ErrorCode::RESOURCE_NOT_FOUND };
                Err(ErrorData::new(code, "there is no such resource", Some(json!({ "uri": request.uri }))))
            }
        }
    }

    async fn complete(&self, _request: CompleteRequestParams, _context: Context) -> Result<CompleteResult, ErrorData> {
        read(json!({ "resultType": "complete", "completion": { "values": [], "total": 0, "hasMore": false } }))
    }

    async fn set_level(&self, _request: SetLevelRequestParams, _context: Context) -> Result<(), ErrorData> {
        Ok(())
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(requested.supported_by(&self.get_info().capabilities))
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        let key = self.listens(Listener::Stream(context.sink().clone()));
        context.cancelled().await;
        self.with(|listeners| listeners.remove(&key));
        Ok(())
    }

    async fn subscribe(&self, request: SubscribeRequestParams, context: Context) -> Result<(), ErrorData> {
        self.listens(Listener::Session { uri: request.uri, peer: context.peer });
        Ok(())
    }

    async fn unsubscribe(&self, request: UnsubscribeRequestParams, _context: Context) -> Result<(), ErrorData> {
        self.with(|listeners| {
            listeners.retain(|_, one| !matches!(&**one, Listener::Session { uri, .. } if *uri == request.uri));
        });
        Ok(())
    }
}
