use async_trait::async_trait;
use echotune_kit::edge::Credentials;
use echotune_model::{Call, Evidence, Experiment, ExperimentSpec, Fault};
use echotune_proto::recommendations::v1::{self as pb, experiments_service_client::ExperimentsServiceClient};
use tonic::{service::interceptor::InterceptedService, transport::Channel};

use super::{
    Experiments, MAX_RESPONSE_BYTES,
    convert::{evidence_from_pb, experiment_from_pb, spec_to_pb},
};
use crate::convert::{ask, tell};

/// `experiments` elsewhere, over gRPC.
#[derive(Debug, Clone)]
pub struct ExperimentsClient(ExperimentsServiceClient<InterceptedService<Channel, Credentials>>);

impl ExperimentsClient {
    /// A client on this channel.
    pub fn new(channel: Channel, credentials: Credentials) -> Self {
        let client = ExperimentsServiceClient::with_interceptor(channel, credentials);
        Self(client.max_decoding_message_size(MAX_RESPONSE_BYTES))
    }
}

#[async_trait]
impl Experiments for ExperimentsClient {
    async fn create_experiment(&self, call: &Call, spec: ExperimentSpec) -> Result<Experiment, Fault> {
        let message = pb::CreateExperimentRequest { spec: Some(spec_to_pb(spec)) };
        experiment_from_pb(tell!(self, call, create_experiment, message).experiment)
    }

    async fn get_experiment(&self, call: &Call, name: &str) -> Result<(Experiment, Evidence), Fault> {
        let answer = ask!(self, call, get_experiment, pb::GetExperimentRequest { name: name.to_owned() });
        Ok((experiment_from_pb(answer.experiment)?, evidence_from_pb(answer.evidence)?))
    }

    async fn list_experiments(&self, call: &Call) -> Result<Vec<Experiment>, Fault> {
        let answer = ask!(self, call, list_experiments, pb::ListExperimentsRequest {});
        answer.experiments.into_iter().map(|one| experiment_from_pb(Some(one))).collect()
    }

    async fn stop_experiment(&self, call: &Call, name: &str, reason: &str) -> Result<(Experiment, Evidence), Fault> {
        let message = pb::StopExperimentRequest { name: name.to_owned(), reason: reason.to_owned() };
        let answer = tell!(self, call, stop_experiment, message);
        Ok((experiment_from_pb(answer.experiment)?, evidence_from_pb(answer.evidence)?))
    }
}
