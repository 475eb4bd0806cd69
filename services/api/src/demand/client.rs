use async_trait::async_trait;
use echotune_kit::edge::Credentials;
use echotune_model::{Call, ErrorKind, Fault};
use echotune_proto::operator::v1::{
    self as pb, demand_service_client::DemandServiceClient, exchange_request::Message,
};
use futures::{StreamExt as _, stream};
use tonic::{Code, Status, service::interceptor::InterceptedService, transport::Channel};

use super::{
    Demand, MAX_DEMAND_BYTES, Reports, Updates,
    convert::{hello_to_pb, report_to_pb, update_from_pb},
    types::Hello,
};
use crate::{convert::request_of, status::read_fault};

/// The operator elsewhere, over gRPC.
#[derive(Debug, Clone)]
pub struct DemandClient(DemandServiceClient<InterceptedService<Channel, Credentials>>);

impl DemandClient {
    /// A client on this channel.
    pub fn new(channel: Channel, credentials: Credentials) -> Self {
        let client = DemandServiceClient::with_interceptor(channel, credentials);
        Self(client.max_decoding_message_size(MAX_DEMAND_BYTES).max_encoding_message_size(MAX_DEMAND_BYTES))
    }
}

/// A stream whose place another one took is in nobody's way any more.
fn fault(call: &Call, status: &Status) -> Fault {
    match status.code() {
        Code::Aborted => Fault::new(ErrorKind::FailedPrecondition, status.message()),
        _ => read_fault(call, status),
    }
}

#[async_trait]
impl Demand for DemandClient {
    async fn exchange(&self, call: &Call, hello: Hello, reports: Reports) -> Result<Updates, Fault> {
        let message = |message| pb::ExchangeRequest { message: Some(message) };
        let hello = message(Message::Hello(hello_to_pb(hello)));
        let reports = reports.map(move |report| message(Message::Report(report_to_pb(report))));
        let request = request_of(call, stream::iter([hello]).chain(reports))?;
        let answer = self.0.clone().exchange(request).await.map_err(|status| fault(call, &status))?;
        let call = call.clone();
        let updates = answer.into_inner().map(move |part| {
            update_from_pb(part.map_err(|status| fault(&call, &status))?)
        });
        Ok(updates.boxed())
    }
}
