//! Answers as they go out: one message, or a stream of them.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    response::{IntoResponse as _, Response},
};
use http::{
    HeaderName, HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER},
};
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    caller::Digest,
    flow::{Ending, Live, Reader, Stream},
    hub::Hub,
    message::Json,
};

/// Tells proxies not to hold events back.
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// A message as the whole answer.
pub(super) fn message(message: &Json, status: StatusCode) -> Response {
    let body = Bytes::copy_from_slice(message.bytes());
    (status, [(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}

/// A session in which a stream can be taken up again.
pub(super) struct Kept {
    pub(super) live: Arc<Live>,
    /// Of the endpoint.
    pub(super) name: String,
    /// Id of the request, as JSON.
    pub(super) request: Vec<u8>,
}

impl Kept {
    /// Keeps a stream; what ids of its events begin with.
    fn keep(&self, hub: &Hub, stream: &Arc<Stream>) -> String {
        let key: Digest = crate::token::random();
        self.live.keep(key, stream);
        stream.keep();
        // It may have ended meanwhile.
        hub.shelf.put(stream);
        hub.seal_stream(&self.name, self.live.ticket.key, key, &self.request)
    }
}

/// The answer to a request: its one message if that comes within `after`, else a stream. `gone` is cancelled when the
/// client goes away, where that means something.
pub(super) async fn answer(
    hub: &Arc<Hub>,
    stream: &Arc<Stream>,
    kept: Option<Kept>,
    gone: Option<CancellationToken>,
    after: Duration,
) -> Response {
    let guard = gone.map(CancellationToken::drop_guard);
    drop(timeout(after, stream.begun()).await);
    if let Some(frame) = stream.only() {
        return ended(&frame.message, frame.last.unwrap_or(StatusCode::OK.into()));
    }
    // What was answered at once need not be kept.
    let is_primed = kept.as_ref().is_some_and(|kept| kept.live.ticket.revision >= crate::message::LATEST_LEGACY);
    let ids = kept.map(|kept| kept.keep(hub, stream));
    let prime = ids.as_ref().filter(|_| is_primed).map(|ids| event(Some(&(ids.clone(), 0)), b""));
    events(stream.read(0), ids, prime, guard, hub.limits.keep_alive)
}

fn ended(last: &Json, ending: Ending) -> Response {
    let mut response = message(last, ending.status);
    if let Some(seconds) = ending.retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// A stream, whose events have ids where it can be taken up again.
pub(super) fn events(
    reader: Reader,
    ids: Option<String>,
    prime: Option<Bytes>,
    guard: Option<DropGuard>,
    keep_alive: Duration,
) -> Response {
    let state = State { reader, ids, prime, keep_alive, _guard: guard };
    let body = futures::stream::unfold(state, |mut state| async move {
        let piece = state.next().await?;
        Some((Ok::<_, std::convert::Infallible>(piece), state))
    });
    sse(body)
}

struct State {
    reader: Reader,
    ids: Option<String>,
    prime: Option<Bytes>,
    keep_alive: Duration,
    _guard: Option<DropGuard>,
}

impl State {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(prime) = self.prime.take() {
            return Some(prime);
        }
        tokio::select! {
            frame = self.reader.next() => {
                let (at, frame) = frame?;
                let id = self.ids.as_ref().map(|ids| (ids.clone(), at + 1));
                Some(event(id.as_ref(), frame.message.bytes()))
            }
            () = sleep(self.keep_alive) => Some(ALIVE),
        }
    }
}

/// A comment, which clients take no notice of.
pub(super) const ALIVE: Bytes = Bytes::from_static(b":\n\n");

/// An event. Its id says from where on to read next.
pub(super) fn event(id: Option<&(String, u64)>, data: &[u8]) -> Bytes {
    let mut text = Vec::with_capacity(data.len() + 256);
    if let Some((ids, next)) = id {
        text.extend_from_slice(format!("id: {ids}.{next}\n").as_bytes());
    }
    text.extend_from_slice(b"data: ");
    // Ends of lines stand between parts of JSON alone, where blanks are as good.
    text.extend(data.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }));
    text.extend_from_slice(b"\n\n");
    text.into()
}

/// The response that carries events.
pub(super) fn sse<S>(body: S) -> Response
where
    S: futures::Stream<Item = Result<Bytes, std::convert::Infallible>> + Send + 'static,
{
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (BUFFERING, HeaderValue::from_static("no")),
    ];
    (StatusCode::OK, headers, Body::from_stream(body)).into_response()
}
