use async_trait::async_trait;
use echotune_kit::edge::Credentials;
use echotune_model::{Call, Drift, Fault, ItemKind, ModelJob, Release, ReleaseDecision, TrainingSpec};
use echotune_proto::recommendations::v1::{self as pb, models_service_client::ModelsServiceClient};
use tonic::{service::interceptor::InterceptedService, transport::Channel};

use super::{
    MAX_RESPONSE_BYTES, Models,
    convert::{decision_from_pb, drift_from_pb, job_from_pb, release_from_pb},
};
use crate::{
    convert::{ask, tell},
    recommendations::kind_to_pb,
};

/// `models` elsewhere, over gRPC.
#[derive(Debug, Clone)]
pub struct ModelsClient(ModelsServiceClient<InterceptedService<Channel, Credentials>>);

impl ModelsClient {
    /// A client on this channel.
    pub fn new(channel: Channel, credentials: Credentials) -> Self {
        let client = ModelsServiceClient::with_interceptor(channel, credentials);
        Self(client.max_decoding_message_size(MAX_RESPONSE_BYTES))
    }
}

#[async_trait]
impl Models for ModelsClient {
    async fn train(&self, call: &Call, spec: TrainingSpec) -> Result<ModelJob, Fault> {
        let TrainingSpec { budget_ms, max_trials, options, seed } = spec;
        let message = pb::TrainModelRequest { budget_ms, max_trials, options: options.into_iter().collect(), seed };
        job_from_pb(tell!(self, call, train_model, message).job)
    }

    async fn promote(&self, call: &Call, version: &str, force: bool, reason: &str) -> Result<ModelJob, Fault> {
        let message = pb::PromoteModelRequest { version: version.to_owned(), force, reason: reason.to_owned() };
        job_from_pb(tell!(self, call, promote_model, message).job)
    }

    async fn rollback(&self, call: &Call, version: &str, reason: &str) -> Result<ModelJob, Fault> {
        let message = pb::RollbackModelRequest { version: version.to_owned(), reason: reason.to_owned() };
        job_from_pb(tell!(self, call, rollback_model, message).job)
    }

    async fn job(&self, call: &Call, id: u64) -> Result<ModelJob, Fault> {
        job_from_pb(ask!(self, call, get_model_job, pb::GetModelJobRequest { id }).job)
    }

    async fn cancel_job(&self, call: &Call, id: u64) -> Result<ModelJob, Fault> {
        job_from_pb(tell!(self, call, cancel_model_job, pb::CancelModelJobRequest { id }).job)
    }

    async fn releases(&self, call: &Call) -> Result<(Vec<Release>, Vec<ReleaseDecision>), Fault> {
        let answer = ask!(self, call, list_models, pb::ListModelsRequest {});
        let releases = answer.releases.into_iter().map(|one| release_from_pb(Some(one)));
        let decisions = answer.decisions.into_iter().map(decision_from_pb);
        Ok((releases.collect::<Result<_, _>>()?, decisions.collect::<Result<_, _>>()?))
    }

    async fn release(&self, call: &Call, version: &str) -> Result<(Release, Vec<ReleaseDecision>), Fault> {
        let answer = ask!(self, call, get_model, pb::GetModelRequest { version: version.to_owned() });
        let decisions = answer.decisions.into_iter().map(decision_from_pb);
        Ok((release_from_pb(answer.release)?, decisions.collect::<Result<_, _>>()?))
    }

    async fn card(&self, call: &Call, kind: ItemKind) -> Result<String, Fault> {
        Ok(ask!(self, call, get_model_card, pb::GetModelCardRequest { kind: kind_to_pb(kind) }).card)
    }

    async fn export(&self, call: &Call, kind: ItemKind) -> Result<Vec<u8>, Fault> {
        Ok(ask!(self, call, export_model, pb::ExportModelRequest { kind: kind_to_pb(kind) }).onnx)
    }

    async fn drift(&self, call: &Call) -> Result<Vec<Drift>, Fault> {
        let answer = ask!(self, call, get_drift, pb::GetDriftRequest {});
        Ok(answer.drift.into_iter().map(drift_from_pb).collect())
    }
}
