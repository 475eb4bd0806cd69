//! One request by streamable HTTP, as its client.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::body::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER},
};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use tokio::time::{Instant, timeout_at};

use super::{
    Ask, Failed, OnBehalf, Said,
    authorization::Tokens,
    breaker::{Pass, Verdict},
    cancelled,
    connect::Connector,
    endpoints::Endpoint,
    sse::Parser,
};
use crate::{
    message::{Json, Message, Object, Outcome, Revision, encode_header},
    refusal::{EXHAUSTED, UNAVAILABLE, UNSUPPORTED_VERSION},
};

pub(crate) const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
pub(crate) const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
pub(crate) const MCP_METHOD: HeaderName = HeaderName::from_static("mcp-method");
pub(crate) const MCP_NAME: HeaderName = HeaderName::from_static("mcp-name");
pub(crate) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const ON_BEHALF_OF: HeaderName = HeaderName::from_static(echotune_kit::auth::ON_BEHALF_OF);
const FORWARDED_BY: HeaderName = HeaderName::from_static(echotune_kit::auth::FORWARDED_BY);

/// How long an unused connection is kept: shorter than most servers do, so that none is closed as it is used.
const IDLE: Duration = Duration::from_secs(20);
/// How long an answer, a notification or the end of a session may take to be taken.
const SHORT: Duration = Duration::from_secs(10);
/// How often a broken stream is taken up again in a row.
const RESUMES: u32 = 5;
/// How long after it broke, in milliseconds, where the server does not say; and at the most when it does.
const RESUME_MS: u64 = 100;
const RESUME_MS_MAX: u64 = 5_000;
/// Bytes of a refusal that are looked at.
const REFUSAL_BYTES: usize = 16 << 10;
/// How often another token is got for one request.
const TOKENS: u32 = 2;
/// How long before the end of a request nobody waits for a token any more, so that it is told that it was not sent.
const BEFORE_END: Duration = Duration::from_millis(100);
/// Notifications in the course of one request: more are a flood.
const MAX_NOTICES: u32 = 100_000;

/// A client with connections of its own, so that no server uses up those of another.
pub(crate) type HttpClient = Client<Connector, Full<Bytes>>;

pub(crate) fn client(connector: Connector) -> HttpClient {
    Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE).build(connector)
}

/// A request counted among those of its endpoint.
#[derive(Debug)]
struct Busy(Arc<Endpoint>);

impl Busy {
    fn with(endpoint: Arc<Endpoint>) -> Self {
        endpoint.busy.fetch_add(1, Ordering::Relaxed);
        Self(endpoint)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where and how requests go.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    pub(crate) client: HttpClient,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) revision: Revision,
    pub(crate) session: Option<HeaderValue>,
    pub(crate) authorization: Option<HeaderValue>,
    /// Those that are shown instead, where they are got.
    pub(crate) tokens: Option<Arc<Tokens>>,
    /// Set where the server is told for whom.
    pub(crate) on_behalf: Option<HeaderValue>,
    pub(crate) answer_bytes: usize,
    /// Whether it is the gateway of another region that is asked, and not the server itself.
    pub(crate) is_region: bool,
}

impl Route {
    fn request(&self, method: Method, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = self.endpoint.uri.clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        headers.insert(PROTOCOL_VERSION, HeaderValue::from_static(self.revision.name()));
        if let Some(session) = &self.session {
            headers.insert(SESSION_ID, session.clone());
        }
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        if let Some(principal) = &self.on_behalf {
            headers.insert(ON_BEHALF_OF, principal.clone());
            headers.insert(FORWARDED_BY, HeaderValue::from_static("gateway"));
        }
        request
    }

    /// Sends what has to be answered until then; again with another token where the server wants one and one is got.
    async fn exchange(&self, request: Request<Full<Bytes>>, until: Instant) -> Result<Response<Incoming>, Failed> {
        let Some(tokens) = &self.tokens else { return self.once(request).await };
        let until = until.checked_sub(BEFORE_END).unwrap_or(until);
        let late = |_| Failed::Unauthorized("there is no token for it yet".to_owned());
        let mut shown = timeout_at(until, tokens.current()).await.map_err(late)?;
        let mut left = TOKENS;
        loop {
            let mut sent = request.clone();
            if let Some(token) = &shown.header {
                sent.headers_mut().insert(AUTHORIZATION, token.clone());
            }
            let response = self.once(sent).await?;
            let wanted = tokens.judge(&shown, response.status(), response.headers());
            let Some(wanted) = wanted.filter(|_| left > 0) else { return Ok(response) };
            left -= 1;
            // Nobody reads the rest of it, and getting a token may take long.
            drop(response);
            shown = timeout_at(until, tokens.renew(&shown, wanted)).await.map_err(late)??;
        }
    }

    async fn once(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Failed> {
        let answered = self.client.request(request).await;
        match &answered {
            Ok(_) => self.endpoint.away.note(false),
            Err(cause) if cause.is_connect() => self.endpoint.away.note(true),
            // A connection of before that breaks now does not tell that another can be made.
            Err(_) => {}
        }
        answered.map_err(|cause| {
            let why = format!("{}: {}", self.endpoint.uri, told(&cause));
            if cause.is_connect() { Failed::not_sent(why) } else { Failed::Cut(why) }
        })
    }

    /// Sends a request whose answer is awaited.
    pub(crate) async fn send(self, ask: &Ask, id: u64, pass: Pass) -> Result<HttpExchange, Failed> {
        let message = ask.message(id, self.revision);
        let mut request = self.request(Method::POST, Bytes::copy_from_slice(message.bytes()));
        let headers = request.headers_mut();
        if self.revision.is_modern() {
            headers.extend(ask.headers.clone());
            headers.insert(MCP_METHOD, encode_header(&ask.method));
            if let Some(name) = &ask.name {
                headers.insert(MCP_NAME, encode_header(name));
            }
        }
        if let Ok(parent) = HeaderValue::from_str(&ask.traceparent) {
            headers.insert(HeaderName::from_static("traceparent"), parent);
        }
        if ask.method == "initialize" {
            // Nothing is agreed on yet.
            headers.remove(PROTOCOL_VERSION);
        }
        let busy = Busy::with(Arc::clone(&self.endpoint));
        let mut exchange = HttpExchange::new(self, id, busy, pass);
        exchange.may_repeat = ask.may_repeat;
        match timeout_at(ask.deadline, exchange.begin(request, ask.deadline)).await {
            Ok(begun) => begun.map(|()| exchange),
            Err(_) => {
                exchange.late();
                Err(Failed::Late)
            }
        }
    }

    /// Opens the stream of what a server has to say beside requests, or goes on with a broken one.
    async fn get(&self, last: Option<&str>) -> Result<Response<Incoming>, Failed> {
        let mut request = self.request(Method::GET, Bytes::new());
        let headers = request.headers_mut();
        headers.remove(CONTENT_TYPE);
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        if let Some(last) = last.and_then(|last| HeaderValue::from_str(last).ok()) {
            headers.insert(LAST_EVENT_ID, last);
        }
        self.exchange(request, Instant::now() + SHORT).await
    }

    /// The stream of what a server has to say beside requests; `None` when it has none, which is not unusual.
    pub(crate) async fn listen(self, pass: Pass) -> Result<Option<HttpExchange>, Failed> {
        let busy = Busy::with(Arc::clone(&self.endpoint));
        let mut exchange = HttpExchange::new(self, 0, busy, pass);
        let response = exchange.route.get(None).await?;
        if response.status() == StatusCode::METHOD_NOT_ALLOWED {
            return Ok(None);
        }
        exchange.take(response).await?;
        // It may say nothing for hours, which tells nothing of its endpoint.
        exchange.verdict(Verdict::Well);
        Ok(Some(exchange))
    }

    /// Sends an answer or a notification.
    pub(crate) async fn tell(&self, message: Json) -> Result<(), Failed> {
        let request = self.request(Method::POST, Bytes::copy_from_slice(message.bytes()));
        let sent = tokio::time::timeout(SHORT, self.exchange(request, Instant::now() + SHORT)).await;
        let response = sent.map_err(|_| Failed::Cut(format!("{} did not take a message", self.endpoint.uri)))??;
        match response.status() {
            status if status.is_success() => Ok(()),
            StatusCode::NOT_FOUND if self.session.is_some() => Err(Failed::Gone),
            status @ (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) => {
                Err(full(status, response.headers(), &self.endpoint))
            }
            status if status.is_server_error() => {
                Err(Failed::Cut(format!("{} answers a message with status {status}", self.endpoint.uri)))
            }
            status => Err(Failed::Refused { status: status.as_u16(), why: "a message was not taken".to_owned() }),
        }
    }

    /// Ends the session.
    pub(crate) async fn end(&self) {
        if self.session.is_some() {
            let request = self.request(Method::DELETE, Bytes::new());
            // A server may keep its sessions to itself; then they end by their own clock.
            drop(tokio::time::timeout(SHORT, self.exchange(request, Instant::now() + SHORT)).await);
        }
    }
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct HttpExchange {
    route: Route,
    id: u64,
    _busy: Busy,
    pass: Option<Pass>,
    /// The session that the server has opened.
    pub(crate) opened: Option<HeaderValue>,
    /// Shows that the session which it is in is in use.
    pub(crate) _used: Option<Arc<()>>,
    said: VecDeque<Said>,
    body: Option<Incoming>,
    parser: Parser,
    last: Option<String>,
    resumes: u32,
    notices: u32,
    /// Whether what was asked may be made again.
    may_repeat: bool,
    /// Whether the stream broke, and was not ended.
    is_broken: bool,
}

impl HttpExchange {
    fn new(route: Route, id: u64, busy: Busy, pass: Pass) -> Self {
        let parser = Parser::new(route.answer_bytes);
        Self {
            route,
            id,
            _busy: busy,
            pass: Some(pass),
            opened: None,
            _used: None,
            said: VecDeque::new(),
            body: None,
            parser,
            last: None,
            resumes: 0,
            notices: 0,
            may_repeat: false,
            is_broken: false,
        }
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.route.endpoint
    }

    pub(crate) fn revision(&self) -> Revision {
        self.route.revision
    }

    fn verdict(&mut self, verdict: Verdict) {
        if let Some(pass) = self.pass.take()
            && pass.tell(verdict)
        {
            tracing::warn!(endpoint = %self.route.endpoint.uri, "an endpoint of a server fails and is left alone");
        }
    }

    fn gone_wrong(&mut self, failed: Failed) -> Failed {
        let verdict = if failed.is_trouble() { Verdict::Failed } else { Verdict::Well };
        self.verdict(verdict);
        failed
    }

    pub(crate) fn late(&mut self) {
        self.verdict(Verdict::Failed);
    }

    async fn begin(&mut self, request: Request<Full<Bytes>>, until: Instant) -> Result<(), Failed> {
        match self.route.exchange(request, until).await {
            Ok(response) => self.take(response).await,
            Err(failed) => Err(self.gone_wrong(failed)),
        }
    }

    async fn take(&mut self, response: Response<Incoming>) -> Result<(), Failed> {
        let (head, body) = response.into_parts();
        if head.status.is_success() {
            if head.headers.get(SESSION_ID).is_some() {
                self.opened = head.headers.get(SESSION_ID).cloned();
            }
            if is(&head.headers, "text/event-stream") {
                self.body = Some(body);
                return Ok(());
            }
        }
        let most = if head.status.is_success() { self.route.answer_bytes } else { REFUSAL_BYTES };
        let whole = Limited::new(body, most).collect().await.map(|whole| whole.to_bytes());
        let read = match (head.status.is_success(), whole) {
            (true, Ok(text)) => self.whole(&text),
            (true, Err(cause)) => Err(unread(cause.as_ref(), most)),
            (false, text) => self.refused(head.status, &head.headers, &text.unwrap_or_default()),
        };
        read.map_err(|failed| self.gone_wrong(failed))
    }

    /// A body that is one message.
    fn whole(&mut self, text: &Bytes) -> Result<(), Failed> {
        match Message::read(text) {
            Ok(Message::Answer { id, outcome }) if id.as_number() == Some(self.id) => {
                self.said.push_back(Said::Answer(outcome));
                Ok(())
            }
            Ok(_) => Err(Failed::Wrong("it answered something else than what it was asked".to_owned())),
            Err(why) => Err(Failed::Wrong(format!("its answer is no message: {why:?}"))),
        }
    }

    /// A status that is none of success. Servers of 2026-07-28 answer errors with such.
    fn refused(&mut self, status: StatusCode, headers: &HeaderMap, text: &Bytes) -> Result<(), Failed> {
        let why = || format!("{} answers with status {status}", self.route.endpoint.uri);
        let answer = error_of(text);
        if self.route.is_region {
            let why = why();
            return self.turned_away(status, answer, why);
        }
        let modern = self.route.revision.is_modern();
        let legacy_session = self.route.session.is_some() && !modern;
        // Some servers tell of a session that they do not know by the text alone.
        let about_session = || String::from_utf8_lossy(text).to_ascii_lowercase().contains("session");
        match status {
            StatusCode::NOT_FOUND if legacy_session => Err(Failed::Gone),
            StatusCode::BAD_REQUEST if legacy_session && about_session() => Err(Failed::Gone),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                Err(full(status, headers, &self.route.endpoint))
            }
            status if status.is_server_error() => match answer {
                // It names this request, so it is the answer to it, whatever the status says besides. One without its
                // id may be of somebody before the server, who does not know what came of the request.
                Some((Some(id), error)) if id == self.id => {
                    self.said.push_back(Said::Answer(Outcome::Error(error)));
                    Ok(())
                }
                _ => Err(Failed::Cut(why())),
            },
            _ => match answer {
                Some((_, error)) if modern && code_of(&error) == Some(UNSUPPORTED_VERSION) => Err(Failed::OtherEra),
                // A server need not have read so far as to know the id.
                Some((id, error)) if id.is_none() || id == Some(self.id) => {
                    self.said.push_back(Said::Answer(Outcome::Error(error)));
                    Ok(())
                }
                _ if modern && !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                    Err(Failed::OtherEra)
                }
                _ => Err(Failed::Refused { status: status.as_u16(), why: excerpt(text) }),
            },
        }
    }

    /// The same of the gateway of another region, which says itself that nothing was done: whoever is on the way there
    /// knows nothing of that when it has nobody to pass a request on to, or has passed it on.
    fn turned_away(
        &mut self,
        status: StatusCode,
        answer: Option<(Option<u64>, Json)>,
        why: String,
    ) -> Result<(), Failed> {
        let refused = Failed::Refused { status: status.as_u16(), why: why.clone() };
        let is_full = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        match answer {
            Some((_, error)) if is_full && matches!(code_of(&error), Some(UNAVAILABLE | EXHAUSTED)) => Err(refused),
            Some((Some(id), error)) if id == self.id => {
                self.said.push_back(Said::Answer(Outcome::Error(error)));
                Ok(())
            }
            // Nobody has read so far as to know its id.
            _ if status.is_client_error() && status != StatusCode::REQUEST_TIMEOUT => Err(refused),
            _ => Err(Failed::Cut(why)),
        }
    }

    pub(crate) async fn next(&mut self) -> Result<Said, Failed> {
        loop {
            if let Some(said) = self.said.pop_front() {
                self.verdict(Verdict::Well);
                return Ok(said);
            }
            if let Err(failed) = self.read_on().await {
                return Err(self.gone_wrong(failed));
            }
        }
    }

    /// Reads a piece of the stream, or takes it up again where it broke.
    async fn read_on(&mut self) -> Result<(), Failed> {
        let Some(body) = &mut self.body else { return self.resume().await };
        match body.frame().await {
            Some(Ok(frame)) => {
                let Ok(piece) = frame.into_data() else { return Ok(()) };
                let events = self.parser.take(&piece);
                let most = self.route.answer_bytes;
                let events =
                    events.map_err(|_| Failed::Wrong(format!("it sends a message of more than {most} bytes")))?;
                for event in events {
                    if event.id.is_some() {
                        self.last = event.id;
                    }
                    if !event.data.is_empty() {
                        self.event(&event.data)?;
                    }
                }
                Ok(())
            }
            ended @ (Some(Err(_)) | None) => {
                (self.body, self.is_broken) = (None, ended.is_some());
                self.parser.begin_anew();
                Ok(())
            }
        }
    }

    fn event(&mut self, data: &Bytes) -> Result<(), Failed> {
        self.resumes = 0;
        let message =
            Message::read(data).map_err(|why| Failed::Wrong(format!("it sends what is no message: {why:?}")))?;
        self.said.push_back(match message {
            Message::Answer { id, outcome } if id.as_number() == Some(self.id) => Said::Answer(outcome),
            // An answer to what nobody asked.
            Message::Answer { .. } => return Ok(()),
            Message::Notice { method, params } => {
                self.notices += 1;
                if self.notices > MAX_NOTICES {
                    return Err(Failed::Wrong(format!("it sends more than {MAX_NOTICES} notifications")));
                }
                Said::Notice { method, params }
            }
            Message::Request { id, method, params } => Said::Asks { id, method, params },
        });
        Ok(())
    }

    /// Takes up a broken stream after its last event, where the revision and the server let it.
    async fn resume(&mut self) -> Result<(), Failed> {
        let broken = || Failed::Cut(format!("{} ended its answer before its end", self.route.endpoint.uri));
        let last = self.last.clone().filter(|_| !self.route.revision.is_modern()).ok_or_else(broken)?;
        if self.resumes == RESUMES {
            return Err(broken());
        }
        self.resumes += 1;
        let asked = self.parser.retry.unwrap_or(RESUME_MS).min(RESUME_MS_MAX);
        // Who ended it in order is come back to when it says. One that broke is of no use where the call can be made
        // again, before its time is over, unless it can be taken up at once.
        let wait = if self.is_broken && self.may_repeat { asked.min(RESUME_MS) } else { asked };
        tokio::time::sleep(Duration::from_millis(wait)).await;
        match self.route.get(Some(&last)).await {
            Ok(response) if response.status().is_success() && is(response.headers(), "text/event-stream") => {
                self.body = Some(response.into_body());
                Ok(())
            }
            // It is there no more; what was asked may have been done.
            Ok(_) => Err(broken()),
            // It may be starting again, but what can be made again need not wait for that.
            Err(_) if self.may_repeat => Err(broken()),
            Err(_) => Ok(()),
        }
    }

    pub(crate) async fn tell(&self, message: Json) -> Result<(), Failed> {
        self.route.tell(message).await
    }

    pub(crate) async fn cancel(self, why: &str) {
        // The end of the connection says so in 2026-07-28, and nothing before.
        if !self.route.revision.is_modern() && self.id != 0 {
            drop(self.route.tell(cancelled(self.id, why)).await);
        }
    }
}

/// It says that it takes no more for now.
fn full(status: StatusCode, headers: &HeaderMap, endpoint: &Endpoint) -> Failed {
    let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let retry_after = Some(Duration::from_secs(seconds.unwrap_or(1)));
    Failed::NotSent { why: format!("{} answers with status {status}", endpoint.uri), retry_after, by_server: true }
}

/// The header for whom a server is asked, where it is told.
pub(crate) fn on_behalf(of: &OnBehalf, told: bool) -> Option<HeaderValue> {
    of.header().filter(|_| told)
}

/// The error of a refusal, with the number of the request if it has one: it may have none, or `null`.
fn error_of(text: &Bytes) -> Option<(Option<u64>, Json)> {
    let message = Object::read(&Json::taken(text)?).ok()?;
    let error = message.get("error").filter(|error| code_of(error).is_some())?.clone();
    Some((message.get("id").and_then(Json::read), error))
}

/// The code of an error.
pub(crate) fn code_of(error: &Json) -> Option<i64> {
    Object::read(error).ok()?.get("code")?.read()
}

fn is(headers: &HeaderMap, media_type: &str) -> bool {
    let named = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    named.split(';').next().is_some_and(|named| named.trim().eq_ignore_ascii_case(media_type))
}

fn unread(cause: &(dyn std::error::Error + 'static), most: usize) -> Failed {
    if cause.is::<http_body_util::LengthLimitError>() {
        return Failed::Wrong(format!("its answer has more than {most} bytes"));
    }
    Failed::Cut(format!("its answer broke off: {}", told(cause)))
}

fn excerpt(text: &Bytes) -> String {
    String::from_utf8_lossy(text).chars().take(200).map(|one| if one.is_control() { ' ' } else { one }).collect()
}

/// An error with its causes, in one line.
pub(crate) fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let (mut text, mut source) = (error.to_string(), error.source());
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text.chars().map(|one| if one.is_control() { ' ' } else { one }).take(500).collect()
}

#[cfg(test)]
#[path = "http_link_tests.rs"]
mod tests;
