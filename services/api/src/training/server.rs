use std::{pin::Pin, sync::Arc};

use async_trait::async_trait;
use echotune_proto::recommendations::v1::{
    self as pb,
    training_service_server::{TrainingService, TrainingServiceServer},
};
use futures::{Stream, StreamExt as _, stream};
use tonic::{Request, Response, Status};

use super::{Histories, Training, convert::history_to_pb};
use crate::{convert::call_of, status::to_status};

struct Server(Arc<dyn Training>);

/// The gRPC face of `training`.
pub fn training_server(training: Arc<dyn Training>) -> TrainingServiceServer<impl TrainingService> {
    TrainingServiceServer::new(Server(training))
}

#[async_trait]
impl TrainingService for Server {
    type ExportHistoriesStream = Pin<Box<dyn Stream<Item = Result<pb::ExportHistoriesResponse, Status>> + Send>>;

    async fn export_histories(
        &self,
        request: Request<pb::ExportHistoriesRequest>,
    ) -> Result<Response<Self::ExportHistoriesStream>, Status> {
        let call = call_of(&request)?;
        let name = request.into_inner().user_name;
        let user = (!name.is_empty()).then_some(name.as_str());
        let found = self.0.export_histories(&call, user).await.map_err(|fault| to_status(&fault))?;
        let Histories { watermark, listeners, rows, parts } = found;
        // At least one message, which tells how much there is.
        let parts = stream::iter([Ok(Vec::new())]).chain(parts).map(move |part| {
            let histories = part.map_err(|fault| to_status(&fault))?.into_iter().map(history_to_pb).collect();
            Ok(pb::ExportHistoriesResponse { watermark: watermark.0, listeners, rows, histories })
        });
        Ok(Response::new(parts.boxed()))
    }
}
