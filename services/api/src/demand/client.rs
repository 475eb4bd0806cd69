use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use async_trait::async_trait;
use echotune_kit::edge::Credentials;
use echotune_model::{Call, ErrorKind, Fault};
use echotune_proto::operator::v1::{self as pb, demand_service_client::DemandServiceClient, exchange_request::Message};
use futures::{
    Stream, StreamExt as _,
    stream::{self, BoxStream},
};
use tonic::{Code, Status, Streaming, transport::Channel};

use super::{
    Demand, MAX_DEMAND_BYTES, Reports, Updates,
    convert::{hello_to_pb, report_to_pb, update_from_pb},
    types::Hello,
};
use crate::{convert::request_of, status::read_fault};

/// The operator elsewhere, over gRPC.
#[derive(Clone)]
pub struct DemandClient {
    connect: Arc<dyn Fn() -> Result<Channel, Fault> + Send + Sync>,
    credentials: Credentials,
}

impl fmt::Debug for DemandClient {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("DemandClient").field("credentials", &self.credentials).finish_non_exhaustive()
    }
}

impl DemandClient {
    /// A client on this channel.
    pub fn new(channel: Channel, credentials: Credentials) -> Self {
        Self::connecting(move || Ok(channel.clone()), credentials)
    }

    /// A client with a channel of its own for each exchange. Of several replicas of the operator behind one address only
    /// one leads, and a connection that is there already leads to the same one again.
    pub fn connecting(
        connect: impl Fn() -> Result<Channel, Fault> + Send + Sync + 'static,
        credentials: Credentials,
    ) -> Self {
        Self { connect: Arc::new(connect), credentials }
    }
}

/// A stream whose place another one took is in nobody's way any more.
fn fault(call: &Call, status: &Status) -> Fault {
    match status.code() {
        Code::Aborted => Fault::new(ErrorKind::FailedPrecondition, status.message()),
        _ => read_fault(call, status),
    }
}

/// What is sent. A type of its own, without a lifetime in sight: within the call the compiler does not see that a boxed
/// stream may move between threads.
struct Messages(BoxStream<'static, pb::ExchangeRequest>);

impl Messages {
    fn new(hello: Hello, reports: Reports) -> Self {
        let message = |message| pb::ExchangeRequest { message: Some(message) };
        let hello = message(Message::Hello(hello_to_pb(hello)));
        let reports = reports.map(move |report| message(Message::Report(report_to_pb(report))));
        Self(stream::iter([hello]).chain(reports).boxed())
    }
}

impl Stream for Messages {
    type Item = pb::ExchangeRequest;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}

/// What is told. The channel lives as long as its stream.
fn updates(answer: Streaming<pb::ExchangeResponse>, call: Call, channel: Channel) -> Updates {
    let updates = answer.map(move |part| {
        let _held = &channel;
        update_from_pb(part.map_err(|status| fault(&call, &status))?)
    });
    updates.boxed()
}

#[async_trait]
impl Demand for DemandClient {
    async fn exchange(&self, call: &Call, hello: Hello, reports: Reports) -> Result<Updates, Fault> {
        let request = request_of(call, Messages::new(hello, reports))?;
        let channel = (self.connect)()?;
        let client = DemandServiceClient::with_interceptor(channel.clone(), self.credentials.clone());
        let mut client = client.max_decoding_message_size(MAX_DEMAND_BYTES).max_encoding_message_size(MAX_DEMAND_BYTES);
        let answer = client.exchange(request).await.map_err(|status| fault(call, &status))?;
        Ok(updates(answer.into_inner(), call.clone(), channel))
    }
}
