//! What is answered to a request that goes no further.

use axum::response::{IntoResponse as _, Response};
use http::{
    HeaderValue, StatusCode,
    header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde_json::{Value, json};

use crate::message::{Id, Json, Outcome, Revision};

pub(crate) const PARSE_ERROR: i64 = -32700;
pub(crate) const INVALID_REQUEST: i64 = -32600;
pub(crate) const METHOD_NOT_FOUND: i64 = -32601;
pub(crate) const INVALID_PARAMS: i64 = -32602;
pub(crate) const INTERNAL_ERROR: i64 = -32603;
pub(crate) const HEADER_MISMATCH: i64 = -32020;
pub(crate) const MISSING_CAPABILITY: i64 = -32021;
pub(crate) const UNSUPPORTED_VERSION: i64 = -32022;
/// For a resource that is not there, in revisions before 2026-07-28.
const NO_RESOURCE: i64 = -32002;
/// For an address that has to be opened before, in 2025-11-25.
const URL_ELICITATION: i64 = -32042;
/// Codes of this gateway: outside of the range that JSON-RPC keeps for itself, as the protocol asks of new ones.
pub(crate) const UNAVAILABLE: i64 = 1001;
pub(crate) const EXHAUSTED: i64 = 1002;
const LATE: i64 = 1003;
const INDETERMINATE: i64 = 1004;
const DENIED: i64 = 1005;
const UNAUTHORIZED: i64 = 1006;

/// Why a request is not answered by a server.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) code: i64,
    pub(crate) message: String,
    data: Option<Value>,
    /// In seconds.
    pub(crate) retry_after: Option<u32>,
    /// What `WWW-Authenticate` says, where there is more to say than that a token is wanted.
    challenge: Option<HeaderValue>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: i64, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), data: None, retry_after: None, challenge: None }
    }

    fn kind(mut self, kind: &str) -> Self {
        self.data = Some(json!({ "kind": kind }));
        self
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, message)
    }

    /// Parameters that a server of the revision would refuse with an answer of its own.
    pub(crate) fn params(message: impl Into<String>) -> Self {
        Self::new(StatusCode::OK, INVALID_PARAMS, message)
    }

    pub(crate) fn no_method(method: &str, revision: Revision) -> Self {
        let shown: String = method.chars().take(64).collect();
        let status = if revision.is_modern() { StatusCode::NOT_FOUND } else { StatusCode::OK };
        Self::new(status, METHOD_NOT_FOUND, format!("method '{}' is not served here", shown.escape_debug()))
    }

    /// No server has a resource.
    pub(crate) fn no_resource(uri: &str, revision: Revision) -> Self {
        let code = if revision.is_modern() { INVALID_PARAMS } else { NO_RESOURCE };
        let shown: String = uri.chars().take(2_048).collect();
        let mut refusal = Self::new(StatusCode::OK, code, "no server has this resource");
        refusal.data = Some(json!({ "uri": shown }));
        refusal
    }

    pub(crate) fn headers(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, HEADER_MISMATCH, message)
    }

    pub(crate) fn version(asked: &str) -> Self {
        let shown: String = asked.chars().take(64).collect();
        let mut refusal = Self::new(StatusCode::BAD_REQUEST, UNSUPPORTED_VERSION, "Unsupported protocol version");
        refusal.data = Some(json!({ "supported": Revision::served(), "requested": shown }));
        refusal
    }

    /// The client has to say that it can do something.
    pub(crate) fn capability(needed: &Value) -> Self {
        let message = "the server needs a capability that the client did not declare";
        let mut refusal = Self::new(StatusCode::BAD_REQUEST, MISSING_CAPABILITY, message);
        refusal.data = Some(json!({ "requiredCapabilities": needed }));
        refusal
    }

    pub(crate) fn unauthenticated(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, INVALID_REQUEST, message).kind("UNAUTHENTICATED")
    }

    /// Tells what a token is to be.
    pub(crate) fn challenged(mut self, challenge: HeaderValue) -> Self {
        self.challenge = Some(challenge);
        self
    }

    /// A rule does not let the caller do this. It is told as what came of a tool is.
    pub(crate) fn denied(message: impl Into<String>) -> Self {
        Self::new(StatusCode::OK, DENIED, message).kind("PERMISSION_DENIED")
    }

    /// There is no token for a server: somebody has to let the gateway in there before.
    pub(crate) fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::OK, UNAUTHORIZED, message).kind("FAILED_PRECONDITION")
    }

    /// Tells who asked which address to open. It is not in the message, which is in traces too: whoever opens it first
    /// chooses as whom the gateway acts.
    pub(crate) fn opened_at(mut self, url: &str) -> Self {
        self.data = Some(json!({ "kind": self.kind_name(), "open": url }));
        self
    }

    /// The same for a client that can have the address opened (2025-11-25, "URL Elicitation Required Error").
    pub(crate) fn to_open(message: impl Into<String>, url: &str, id: &str) -> Self {
        let mut refusal = Self::new(StatusCode::OK, URL_ELICITATION, message);
        let asked = json!({ "mode": "url", "elicitationId": id, "url": url, "message": refusal.message });
        refusal.data = Some(json!({ "elicitations": [asked] }));
        refusal
    }

    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, INVALID_REQUEST, message).kind("PERMISSION_DENIED")
    }

    /// A session that is not known any more; the client opens another.
    pub(crate) fn no_session() -> Self {
        let message = "no such session, or it has ended; initialize a new one";
        Self::new(StatusCode::NOT_FOUND, INVALID_REQUEST, message).kind("NOT_FOUND")
    }

    /// Surely nothing was done; later it may be.
    pub(crate) fn unavailable(message: impl Into<String>, retry_after: u32) -> Self {
        let mut refusal = Self::new(StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, message).kind("UNAVAILABLE");
        refusal.retry_after = Some(retry_after.max(1));
        refusal
    }

    /// The caller has too much under way.
    pub(crate) fn exhausted(message: impl Into<String>) -> Self {
        let mut refusal = Self::new(StatusCode::TOO_MANY_REQUESTS, EXHAUSTED, message).kind("RESOURCE_EXHAUSTED");
        refusal.retry_after = Some(1);
        refusal
    }

    /// The caller has called too often.
    pub(crate) fn exhausted_for(message: impl Into<String>, seconds: u32) -> Self {
        Self { retry_after: Some(seconds.max(1)), ..Self::exhausted(message) }
    }

    pub(crate) fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, INVALID_REQUEST, message).kind("RESOURCE_EXHAUSTED")
    }

    /// A server did not answer in time, and the request changes nothing.
    pub(crate) fn late(message: impl Into<String>) -> Self {
        Self::new(StatusCode::OK, LATE, message).kind("DEADLINE_EXCEEDED")
    }

    /// The request was sent, and nobody knows what came of it.
    pub(crate) fn unknown(message: impl Into<String>) -> Self {
        Self::new(StatusCode::OK, INDETERMINATE, message).kind("INDETERMINATE")
    }

    /// A server answered with something that is no answer, or refused the gateway itself.
    pub(crate) fn broken(message: impl Into<String>) -> Self {
        Self::new(StatusCode::OK, INTERNAL_ERROR, message).kind("INTERNAL")
    }

    /// What kind it is, by the names that all parts of the platform use; empty for what the protocol names itself.
    pub(crate) fn kind_name(&self) -> &str {
        self.data.as_ref().and_then(|data| data["kind"].as_str()).unwrap_or_default()
    }

    /// What who asked is told: the message, and which address to open.
    pub(crate) fn told(&self) -> String {
        let open = self.data.as_ref().and_then(|data| data["open"].as_str());
        open.map_or_else(|| self.message.clone(), |url| format!("{}; open {url}", self.message))
    }

    pub(crate) fn outcome(&self) -> Outcome {
        let mut error = json!({ "code": self.code, "message": self.told() });
        if let Some(data) = &self.data {
            error["data"] = data.clone();
        }
        Outcome::Error(Json::of(&error))
    }

    /// The answer to a request, or to something that is none.
    pub(crate) fn response(&self, id: Option<&Id>) -> Response {
        let error = self.outcome();
        let body = match (id, &error) {
            (Some(id), _) => error.message(id),
            // No id is known, and that of the member would be a lie.
            (None, Outcome::Error(error) | Outcome::Result(error)) => {
                Json::of(&json!({ "jsonrpc": "2.0", "error": error.read::<Value>() }))
            }
        };
        let mut response = (self.status, body.bytes().to_vec()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(challenge) = &self.challenge {
            headers.insert(WWW_AUTHENTICATE, challenge.clone());
        } else if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"echotune\""));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::PAYLOAD_TOO_LARGE {
            // The rest of the body is not read, so nothing can follow it on this connection (RFC 9110, 15.5.14).
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
