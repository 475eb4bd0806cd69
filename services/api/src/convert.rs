use echotune_kit::{
    auth::{FORWARDED_BY, ON_BEHALF_OF},
    edge::Deadline,
};
use echotune_model::{Call, Fault, ForwardedBy, Hlc, Principal, TraceId, Traceparent};
use tokio::time::Instant;
use tonic::{Request, Response, Status, metadata::MetadataValue};

use crate::status::{to_fault, to_status};

/// Metadata under which an idempotency key travels.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The context of a request: who calls, in which trace, and until when.
///
/// # Errors
/// Unauthenticated when the edge let the request through without a principal.
pub fn call_of<T>(request: &Request<T>) -> Result<Call, Status> {
    let extensions = request.extensions();
    let principal = extensions
        .get::<Principal>()
        .cloned()
        .ok_or_else(|| Status::unauthenticated("the request carries no principal"))?;
    Ok(Call {
        deadline: extensions.get::<Deadline>().map(|deadline| deadline.0),
        trace: extensions.get::<TraceId>().copied().unwrap_or_default(),
        traceparent: extensions.get::<Traceparent>().cloned().unwrap_or_default().0,
        principal,
        idempotency_key: request
            .metadata()
            .get(IDEMPOTENCY_KEY)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned(),
        forwarded_by: extensions.get::<ForwardedBy>().map(|region| region.0.clone()).unwrap_or_default(),
    })
}

/// Decodes the context, runs one call and maps its fault.
pub(crate) async fn serve<M, R, F>(
    request: Request<M>,
    run: impl FnOnce(Call, M) -> F + Send,
) -> Result<Response<R>, Status>
where
    M: Send,
    F: Future<Output = Result<R, Fault>> + Send,
{
    let call = call_of(&request)?;
    run(call, request.into_inner()).await.map(Response::new).map_err(|fault| to_status(&fault))
}

/// A message with what the context says: deadline, trace, idempotency key, and for whom it is passed on.
///
/// # Errors
/// The deadline has passed, or the idempotency key or the name of the region cannot travel.
pub(crate) fn request_of<T>(call: &Call, message: T) -> Result<Request<T>, Fault> {
    call.check_deadline()?;
    let mut request = Request::new(message);
    if let Some(deadline) = call.deadline {
        request.set_timeout(deadline.saturating_duration_since(Instant::now().into_std()));
    }
    let metadata = request.metadata_mut();
    if !call.idempotency_key.is_empty() {
        let key = MetadataValue::try_from(call.idempotency_key.as_str())
            .map_err(|_| Fault::invalid("the idempotency key is not 1 to 128 printable ASCII characters"))?;
        metadata.insert(IDEMPOTENCY_KEY, key);
    }
    if !call.forwarded_by.is_empty() {
        let unfit = |_| Fault::invalid("the region that passes a call on has a name that is not printable ASCII");
        metadata.insert(FORWARDED_BY, MetadataValue::try_from(call.forwarded_by.as_str()).map_err(unfit)?);
        let principal = MetadataValue::try_from(call.principal.encode());
        metadata.insert(ON_BEHALF_OF, principal.map_err(|_| Fault::invalid("the principal cannot travel"))?);
    }
    if let Ok(traceparent) = MetadataValue::try_from(call.traceparent.as_str()) {
        metadata.insert("traceparent", traceparent);
    }
    Ok(request)
}

/// Asks a client's service for what changes nothing.
macro_rules! ask {
    ($self:ident, $call:ident, $rpc:ident, $message:expr) => {{
        let answer = $self.0.clone().$rpc($crate::convert::request_of($call, $message)?).await;
        answer.map_err(|status| $crate::status::read_fault($call, &status))?.into_inner()
    }};
}

pub(crate) use ask;

/// Tells a client's service something to be written.
macro_rules! tell {
    ($self:ident, $call:ident, $rpc:ident, $message:expr) => {{
        let answer = $self.0.clone().$rpc($crate::convert::request_of($call, $message)?).await;
        answer.map_err(|status| $crate::status::write_fault(&status))?.into_inner()
    }};
}

pub(crate) use tell;

pub(crate) fn missing(field: &str) -> Fault {
    to_fault(&Status::internal(format!("the server's answer lacks '{field}'")))
}

pub(crate) const fn hlc(time: u64) -> Hlc {
    Hlc(time)
}
