use async_trait::async_trait;
use echotune_kit::edge::Credentials;
use echotune_model::{Call, Fault};
use echotune_proto::recommendations::v1::{self as pb, training_service_client::TrainingServiceClient};
use futures::{StreamExt as _, stream};
use tonic::{service::interceptor::InterceptedService, transport::Channel};

use super::{Histories, Training, convert::history_from_pb};
use crate::{
    convert::{ask, hlc, missing},
    status::read_fault,
};

/// `training` elsewhere, over gRPC.
#[derive(Debug, Clone)]
pub struct TrainingClient(TrainingServiceClient<InterceptedService<Channel, Credentials>>);

impl TrainingClient {
    /// A client on this channel.
    pub fn new(channel: Channel, credentials: Credentials) -> Self {
        Self(TrainingServiceClient::with_interceptor(channel, credentials))
    }
}

#[async_trait]
impl Training for TrainingClient {
    async fn export_histories(&self, call: &Call, user: Option<&str>) -> Result<Histories, Fault> {
        let message = pb::ExportHistoriesRequest { user_name: user.unwrap_or_default().to_owned() };
        let mut answers = ask!(self, call, export_histories, message);
        let first = answers.message().await.map_err(|status| read_fault(call, &status))?;
        let first = first.ok_or_else(|| missing("histories"))?;
        let (watermark, listeners, rows) = (hlc(first.watermark), first.listeners, first.rows);
        let call = call.clone();
        let rest = answers.map(move |answer| answer.map_err(|status| read_fault(&call, &status)));
        let parts = stream::iter([Ok(first)]).chain(rest).map(|answer| {
            let histories = answer?.histories;
            histories.into_iter().map(history_from_pb).collect()
        });
        Ok(Histories { watermark, listeners, rows, parts: parts.boxed() })
    }
}
