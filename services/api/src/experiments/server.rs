use std::sync::Arc;

use async_trait::async_trait;
use echotune_model::Fault;
use echotune_proto::recommendations::v1::{
    self as pb,
    experiments_service_server::{ExperimentsService, ExperimentsServiceServer},
};
use tonic::{Request, Response, Status};

use super::{
    Experiments,
    convert::{evidence_to_pb, experiment_to_pb, spec_from_pb},
};
use crate::convert::serve;

struct Server(Arc<dyn Experiments>);

/// The gRPC face of `experiments`.
pub fn experiments_server(experiments: Arc<dyn Experiments>) -> ExperimentsServiceServer<impl ExperimentsService> {
    ExperimentsServiceServer::new(Server(experiments))
}

#[async_trait]
impl ExperimentsService for Server {
    async fn create_experiment(
        &self,
        request: Request<pb::CreateExperimentRequest>,
    ) -> Result<Response<pb::CreateExperimentResponse>, Status> {
        let service = &self.0;
        serve(request, |call, m| async move {
            let spec = m.spec.ok_or_else(|| Fault::invalid("spec is missing; send what the experiment asks"))?;
            let experiment = service.create_experiment(&call, spec_from_pb(spec)?).await?;
            Ok(pb::CreateExperimentResponse { experiment: Some(experiment_to_pb(experiment)) })
        })
        .await
    }

    async fn get_experiment(
        &self,
        request: Request<pb::GetExperimentRequest>,
    ) -> Result<Response<pb::GetExperimentResponse>, Status> {
        let service = &self.0;
        serve(request, |call, m| async move {
            let (experiment, evidence) = service.get_experiment(&call, &m.name).await?;
            let (experiment, evidence) = (Some(experiment_to_pb(experiment)), Some(evidence_to_pb(evidence)));
            Ok(pb::GetExperimentResponse { experiment, evidence })
        })
        .await
    }

    async fn list_experiments(
        &self,
        request: Request<pb::ListExperimentsRequest>,
    ) -> Result<Response<pb::ListExperimentsResponse>, Status> {
        let service = &self.0;
        serve(request, |call, _m| async move {
            let experiments = service.list_experiments(&call).await?.into_iter().map(experiment_to_pb).collect();
            Ok(pb::ListExperimentsResponse { experiments })
        })
        .await
    }

    async fn stop_experiment(
        &self,
        request: Request<pb::StopExperimentRequest>,
    ) -> Result<Response<pb::StopExperimentResponse>, Status> {
        let service = &self.0;
        serve(request, |call, m| async move {
            let (experiment, evidence) = service.stop_experiment(&call, &m.name, &m.reason).await?;
            let (experiment, evidence) = (Some(experiment_to_pb(experiment)), Some(evidence_to_pb(evidence)));
            Ok(pb::StopExperimentResponse { experiment, evidence })
        })
        .await
    }
}
