//! Brings what belongs to a request under way to the replica that has it.

use axum::{
    body::{Body, Bytes},
    response::Response,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body_util::Full;

use crate::upstream::HttpClient;

/// Set on what one replica brings to another, which brings it no further.
const HOP: HeaderName = HeaderName::from_static("echotune-gateway-hop");

/// The other replicas.
pub(crate) struct Peers(pub(crate) HttpClient);

/// A request as it came, to be brought elsewhere.
#[derive(Debug, Clone)]
pub(crate) struct Original {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Original {
    /// Whether another replica has brought it.
    pub(crate) fn is_brought(&self) -> bool {
        self.headers.contains_key(HOP)
    }
}

impl Peers {
    /// Brings a request to another replica, whose address came from a sealed token; what that answers. `None` when it
    /// cannot be reached: then it is no more, and with it what was under way there.
    pub(crate) async fn bring(&self, to: &str, original: &Original) -> Option<Response> {
        let path = original.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::new(Full::new(original.body.clone()));
        *request.method_mut() = original.method.clone();
        *request.uri_mut() = format!("http://{to}{path}").parse().ok()?;
        *request.headers_mut() = original.headers.clone();
        let headers = request.headers_mut();
        for name in [header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::UPGRADE] {
            headers.remove(name);
        }
        headers.insert(HOP, HeaderValue::from_static("1"));
        match self.0.request(request).await {
            Ok(response) => Some(response.map(Body::new)),
            Err(cause) => {
                tracing::warn!(to, %cause, "another replica of the gateway cannot be reached");
                None
            }
        }
    }
}
