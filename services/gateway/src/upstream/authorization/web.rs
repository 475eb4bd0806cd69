//! Requests to authorization servers: short ones, whose answers are short, and who is sent elsewhere does not follow.

use std::time::Duration;

use axum::body::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode, Uri,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use tokio::time::timeout;
use url::Url;

use super::{Wrong, guard::place};
use crate::upstream::http_link::{HttpClient, told};

/// How long one request may take.
const STEP: Duration = Duration::from_secs(10);
/// Longest answer, in bytes.
const BYTES: usize = 64 << 10;

/// A client with connections of its own.
#[derive(Debug, Clone)]
pub(super) struct Web(pub(super) HttpClient);

/// A whole answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Web {
    pub(super) async fn get(&self, url: &Url) -> Result<Answer, Wrong> {
        self.ask(Method::GET, url, None, Bytes::new()).await
    }

    /// Sends a form, with what shows who sends it where that is a header.
    pub(super) async fn form(&self, url: &Url, form: String, shown: Option<HeaderValue>) -> Result<Answer, Wrong> {
        let headers = [(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"))];
        let shown = shown.map(|shown| (AUTHORIZATION, shown));
        self.ask(Method::POST, url, headers.into_iter().chain(shown), form.into()).await
    }

    pub(super) async fn json(&self, url: &Url, body: &serde_json::Value) -> Result<Answer, Wrong> {
        let headers = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        self.ask(Method::POST, url, headers, body.to_string().into()).await
    }

    async fn ask(
        &self,
        method: Method,
        url: &Url,
        headers: impl IntoIterator<Item = (http::HeaderName, HeaderValue)>,
        body: Bytes,
    ) -> Result<Answer, Wrong> {
        let shown = place(url);
        let unreachable = |why: &str| Wrong::Unreachable(format!("{shown}: {why}"));
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() =
            url.as_str().parse::<Uri>().map_err(|_| Wrong::Refused(format!("{shown} is no address")))?;
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        request.headers_mut().extend(headers);
        let asked = timeout(STEP, async {
            let (head, body) = self.0.request(request).await.map_err(|cause| unreachable(&told(&cause)))?.into_parts();
            let broken = |cause: Box<dyn std::error::Error + Send + Sync>| {
                if cause.is::<LengthLimitError>() {
                    return Wrong::Refused(format!("{shown}: its answer has more than {BYTES} bytes"));
                }
                unreachable("its answer broke off")
            };
            let whole = Limited::new(body, BYTES).collect().await.map_err(broken)?;
            Ok::<_, Wrong>(Answer { status: head.status, headers: head.headers, body: whole.to_bytes() })
        });
        asked.await.unwrap_or_else(|_| Err(unreachable("it does not answer")))
    }
}
