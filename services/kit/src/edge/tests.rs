use echotune_model::Principal;
use http::header::AUTHORIZATION;

use super::*;

const PATIENCE: Patience = Patience { default: Duration::from_secs(30), max: Duration::from_secs(60) };

#[test]
fn a_caller_may_wait_shorter_but_not_for_ever() {
    let of = |seconds| PATIENCE.of(Some(Duration::from_secs(seconds))).as_secs();
    assert_eq!((PATIENCE.of(None).as_secs(), of(1), of(3_600)), (30, 1, 60));
    let endless = Patience { default: Duration::MAX, max: Duration::MAX };
    let now = Instant::now();
    assert!(endless.deadline(now, None) >= now + YEAR, "longer than time can be told");
}

fn timeout(text: &str) -> Result<Option<Duration>, tonic::Code> {
    let mut headers = HeaderMap::new();
    headers.insert(GRPC_TIMEOUT, text.parse().expect("a header"));
    timeout_of(&headers).map_err(|status| status.code())
}

#[test]
fn timeouts_follow_the_specification_and_anything_else_is_refused() {
    assert_eq!(timeout_of(&HeaderMap::new()).expect("none"), None);
    assert_eq!(timeout("100m"), Ok(Some(Duration::from_millis(100))));
    assert_eq!(timeout("99999999H"), Ok(Some(Duration::from_secs(99_999_999 * 3_600))));
    for wrong in ["", "m", "100", "123456789S", "+1S", "1x", "1é"] {
        assert_eq!(timeout(wrong), Err(tonic::Code::InvalidArgument), "{wrong}");
    }
}

/// Hands over what the edge found out about a request, and answers at once or never.
#[derive(Clone)]
struct Inner {
    answers: bool,
    seen: tokio::sync::mpsc::UnboundedSender<(Option<Principal>, bool)>,
}

impl Service<Request<()>> for Inner {
    type Response = Response<()>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<()>, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        let extensions = request.extensions();
        let seen = (extensions.get::<Principal>().cloned(), extensions.get::<Deadline>().is_some());
        self.seen.send(seen).expect("the test listens");
        if self.answers { Box::pin(async { Ok(Response::new(())) }) } else { Box::pin(std::future::pending()) }
    }
}

struct Doorman;

#[async_trait::async_trait]
impl Authenticator for Doorman {
    async fn principal(&self, secret: &str) -> Result<Principal, Fault> {
        match secret {
            "ann" => Ok(Principal::User {
                id: "01890a5d-ac96-774b-bcce-b302099a8057".parse()?,
                name: "ann".parse()?,
                role: echotune_model::Role::Reader,
            }),
            "busy" => Err(Fault::new(ErrorKind::ResourceExhausted, "later")),
            _ => Err(Fault::new(ErrorKind::Unauthenticated, "nobody")),
        }
    }
}

fn request(secret: &str) -> http::request::Builder {
    Request::builder().uri("/service/Method").header(AUTHORIZATION, format!("Bearer {secret}"))
}

fn edge() -> Edge {
    Edge::new(Token::from("root".to_owned()), Some(Arc::new(Doorman)), PATIENCE)
}

async fn ask(answers: bool, secret: &str, timeout: Option<&str>) -> (tonic::Code, Option<(Option<Principal>, bool)>) {
    let (seen, mut was_seen) = tokio::sync::mpsc::unbounded_channel();
    let mut request = request(secret);
    if let Some(timeout) = timeout {
        request = request.header(GRPC_TIMEOUT, timeout);
    }
    let answer = edge().layer(Inner { answers, seen }).call(request.body(()).expect("a request")).await;
    let status = Status::from_header_map(answer.expect("answered").headers());
    (status.map_or(tonic::Code::Ok, |status| status.code()), was_seen.try_recv().ok())
}

#[tokio::test(start_paused = true)]
async fn callers_are_named_and_those_that_stop_waiting_are_cut_off() {
    use tonic::Code;
    let operator = Some((Some(Principal::Operator), true));
    assert_eq!(ask(true, "root", None).await, (Code::Ok, operator.clone()), "every request has a deadline");
    assert_eq!(ask(false, "root", None).await, (Code::DeadlineExceeded, operator));
    let (code, seen) = ask(true, "ann", Some("1S")).await;
    assert!(matches!(seen, Some((Some(Principal::User { .. }), true))), "{seen:?}");
    assert_eq!(code, Code::Ok);
    assert_eq!(ask(true, "nobody", None).await, (Code::Unauthenticated, None));
    assert_eq!(ask(true, &"x".repeat(257), None).await, (Code::Unauthenticated, None));
    assert_eq!(ask(true, "busy", None).await, (Code::ResourceExhausted, None));
    let (code, seen) = ask(false, "root", Some("5S")).await;
    assert_eq!((code, seen.is_some()), (Code::DeadlineExceeded, true));
}

/// What becomes of a request with this secret and these further headers.
async fn on_behalf(secret: &str, headers: &[(&str, &str)]) -> (tonic::Code, Option<Principal>) {
    let (seen, mut was_seen) = tokio::sync::mpsc::unbounded_channel();
    let mut request = request(secret);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = edge().layer(Inner { answers: true, seen }).call(request.body(()).expect("a request")).await;
    (code(&answer.expect("answered")), was_seen.try_recv().ok().and_then(|(principal, _)| principal))
}

#[tokio::test]
async fn only_the_operator_acts_on_behalf_of_another_and_has_no_more_than_that_one() {
    use crate::auth::{FORWARDED_BY, ON_BEHALF_OF};
    use tonic::Code;
    let ann = Doorman.principal("ann").await.expect("known");
    let (named, operator) = (ann.encode(), Principal::Operator.encode());
    let by = (FORWARDED_BY, "eu");
    assert_eq!(on_behalf("root", &[(ON_BEHALF_OF, &named), by]).await, (Code::Ok, Some(ann)));
    assert_eq!(on_behalf("root", &[(ON_BEHALF_OF, &operator), by]).await, (Code::Ok, Some(Principal::Operator)));
    for other in [&named, &operator] {
        let refused = on_behalf("ann", &[(ON_BEHALF_OF, other), by]).await;
        assert_eq!(refused, (Code::PermissionDenied, None), "a user is no part of the platform");
    }
    assert_eq!(on_behalf("nobody", &[(ON_BEHALF_OF, &operator), by]).await, (Code::Unauthenticated, None));
    let malformed: [&[(&str, &str)]; 5] = [
        &[(ON_BEHALF_OF, "root"), by],
        &[(ON_BEHALF_OF, ""), by],
        &[(ON_BEHALF_OF, &named)],
        &[(ON_BEHALF_OF, &named), (FORWARDED_BY, "")],
        &[by],
    ];
    for headers in malformed {
        assert_eq!(on_behalf("root", headers).await, (Code::InvalidArgument, None), "{headers:?}");
    }
}

fn code(answer: &Response<()>) -> tonic::Code {
    Status::from_header_map(answer.headers()).map_or(tonic::Code::Ok, |status| status.code())
}

#[tokio::test]
async fn more_requests_than_there_is_room_for_are_refused_at_once_until_one_ends() {
    let (seen, mut was_seen) = tokio::sync::mpsc::unbounded_channel();
    let edge = edge().admitting(2);
    // Two connections to one server share its room.
    let mut services =
        [edge.layer(Inner { answers: false, seen: seen.clone() }), edge.layer(Inner { answers: false, seen })];
    let ask = |service: &mut EdgeService<Inner>| service.call(request("root").body(()).expect("a request"));
    let mut under_way = services.each_mut().map(ask);
    for waiting in &mut under_way {
        assert!(futures::poll!(waiting).is_pending());
        was_seen.try_recv().expect("admitted");
    }
    for service in &mut services {
        let refused = ask(service).await.expect("answered");
        let status = Status::from_header_map(refused.headers()).expect("refused");
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        assert!(status.message().contains("2 requests are under way"), "{status:?}");
    }
    assert!(was_seen.try_recv().is_err(), "the service never saw them");
    let [first, second] = under_way;
    drop(first);
    let mut third = ask(&mut services[0]);
    assert!(futures::poll!(&mut third).is_pending());
    was_seen.try_recv().expect("there is room again");
    drop(second);
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// What the span of a call says that the service answers like this, and what its caller is told.
async fn traced(answer: Option<Status>) -> (telemetry::FinishedSpan, tonic::Code) {
    let (spans, _guard) = telemetry::on_this_thread();
    let inner = tower::service_fn(move |_: Request<()>| {
        let answer = answer.clone();
        async move {
            match answer {
                Some(status) => Ok::<_, std::convert::Infallible>(status.into_http()),
                None => std::future::pending().await,
            }
        }
    });
    let request = request("root").header(TRACEPARENT, format!("00-{TRACE}-00f067aa0ba902b7-01"));
    let answer = edge().layer(inner).call(request.body(()).expect("a request")).await.expect("answered");
    let mut found = spans.trace(TRACE.parse().expect("a trace id"));
    (found.pop().expect("a span"), code(&answer))
}

#[tokio::test(start_paused = true)]
async fn the_span_of_a_call_tells_how_it_ended() {
    let (span, _) = traced(Some(Status::ok(""))).await;
    assert_eq!((span.error.as_str(), span.attributes["rpc.grpc.status_code"].as_str()), ("", "0"));
    assert_eq!(span.parent_span_id, "00f067aa0ba902b7");
    let (span, code) = traced(Some(Status::not_found("user 'ann' does not exist"))).await;
    assert_eq!(span.error, "NotFound: user 'ann' does not exist");
    assert_eq!((span.attributes["rpc.grpc.status_code"].as_str(), code), ("5", tonic::Code::NotFound));
    let (span, code) = traced(None).await;
    assert!(span.error.contains("the deadline passed"), "{span:?}");
    assert_eq!((span.attributes["rpc.grpc.status_code"].as_str(), code), ("4", tonic::Code::DeadlineExceeded));
}

#[tokio::test]
async fn a_message_that_cannot_be_decoded_is_the_fault_of_its_caller() {
    let undecodable = "failed to decode Protobuf message: GetUserRequest.name: invalid string value";
    let (span, code) = traced(Some(Status::internal(undecodable))).await;
    assert_eq!((span.attributes["rpc.grpc.status_code"].as_str(), code), ("3", tonic::Code::InvalidArgument));
    let (_, code) = traced(Some(Status::internal("a task was lost"))).await;
    assert_eq!(code, tonic::Code::Internal);
}
