use std::sync::Arc;

use async_trait::async_trait;
use echotune_model::TrainingSpec;
use echotune_proto::recommendations::v1::{
    self as pb,
    models_service_server::{ModelsService, ModelsServiceServer},
};
use tonic::{Request, Response, Status};

use super::{
    Models,
    convert::{decision_to_pb, drift_to_pb, job_to_pb, release_to_pb},
};
use crate::{convert::serve, recommendations::kind_from_pb};

struct Server(Arc<dyn Models>);

/// The gRPC face of `models`.
pub fn models_server(models: Arc<dyn Models>) -> ModelsServiceServer<impl ModelsService> {
    ModelsServiceServer::new(Server(models))
}

#[async_trait]
impl ModelsService for Server {
    async fn train_model(
        &self,
        request: Request<pb::TrainModelRequest>,
    ) -> Result<Response<pb::TrainModelResponse>, Status> {
        let service = &self.0;
        serve(request, |call, m| async move {
            let mut options: Vec<(String, f64)> = m.options.into_iter().collect();
            options.sort_by(|a, b| a.0.cmp(&b.0));
            let spec = TrainingSpec { budget_ms: m.budget_ms, max_trials: m.max_trials, options, seed: m.seed };
            Ok(pb::TrainModelResponse { job: Some(job_to_pb(service.train(&call, spec).await?)) })
        })
        .await
    }

    async fn promote_model(
        &self,
        request: Request<pb::PromoteModelRequest>,
    ) -> Result<Response<pb::PromoteModelResponse>, Status> {
        let service = &self.0;
        serve(request, |call, m| async move {
            let job = service.promote(&call, &m.version, m.force, &m.reason).await?;
            Ok(pb::PromoteModelResponse { job: Some(job_to_pb(job)) })
        })
        .await
    }

    async fn rollback_model(
        &self,
        request: Request<pb::RollbackModelRequest>,
    ) -> Result<Response<pb::RollbackModelResponse>, Status> {
        let service = &self.0;
        serve(request, |call, m| async move {
            let job = service.rollback(&call, &m.version, &m.reason).await?;
            Ok(pb::RollbackModelResponse { job: Some(job_to_pb(job)) })
        })
        .await
    }

    async fn get_model_job(
        &self,
        request: Request<pb::GetModelJobRequest>,
    ) -> Result<Response<pb::GetModelJobResponse>, Status> {
        let service = &self.0;
        serve(request, |call, m| async move {
            Ok(pb::GetModelJobResponse { job: Some(job_to_pb(service.job(&call, m.id).await?)) })
        })
        .await
    }

    async fn cancel_model_job(
        &self,
        request: Request<pb::CancelModelJobRequest>,
    ) -> Result<Response<pb::CancelModelJobResponse>, Status> {
        let service = &self.0;
        serve(request, |call, m| async move {
            Ok(pb::CancelModelJobResponse { job: Some(job_to_pb(service.cancel_job(&call, m.id).await?)) })
        })
        .await
    }

    async fn list_models(
        &self,
        request: Request<pb::ListModelsRequest>,
    ) -> Result<Response<pb::ListModelsResponse>, Status> {
        let service = &self.0;
        serve(request, |call, _m| async move {
            let (releases, decisions) = service.releases(&call).await?;
            Ok(pb::ListModelsResponse {
                releases: releases.into_iter().map(release_to_pb).collect(),
                decisions: decisions.into_iter().map(decision_to_pb).collect(),
            })
        })
        .await
    }

    async fn get_model(&self, request: Request<pb::GetModelRequest>) -> Result<Response<pb::GetModelResponse>, Status> {
        let service = &self.0;
        serve(request, |call, m| async move {
            let (release, decisions) = service.release(&call, &m.version).await?;
            let decisions = decisions.into_iter().map(decision_to_pb).collect();
            Ok(pb::GetModelResponse { release: Some(release_to_pb(release)), decisions })
        })
        .await
    }

    async fn get_model_card(
        &self,
        request: Request<pb::GetModelCardRequest>,
    ) -> Result<Response<pb::GetModelCardResponse>, Status> {
        let service = &self.0;
        serve(request, |call, m| async move {
            Ok(pb::GetModelCardResponse { card: service.card(&call, kind_from_pb(m.kind)?).await? })
        })
        .await
    }

    async fn export_model(
        &self,
        request: Request<pb::ExportModelRequest>,
    ) -> Result<Response<pb::ExportModelResponse>, Status> {
        let service = &self.0;
        serve(request, |call, m| async move {
            Ok(pb::ExportModelResponse { onnx: service.export(&call, kind_from_pb(m.kind)?).await? })
        })
        .await
    }

    async fn get_drift(&self, request: Request<pb::GetDriftRequest>) -> Result<Response<pb::GetDriftResponse>, Status> {
        let service = &self.0;
        serve(request, |call, _m| async move {
            Ok(pb::GetDriftResponse { drift: service.drift(&call).await?.into_iter().map(drift_to_pb).collect() })
        })
        .await
    }
}
