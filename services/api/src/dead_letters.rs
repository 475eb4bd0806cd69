use std::sync::Arc;

use async_trait::async_trait;
use echotune_kit::edge::Credentials;
use echotune_model::{Call, DeadLetter, DeadLetterFilter, DeadLetterState, Fault, ReplayReceipt};
use echotune_proto::operations::v1::{
    self as pb,
    dead_letters_service_client::DeadLettersServiceClient,
    dead_letters_service_server::{DeadLettersService, DeadLettersServiceServer},
};
use tonic::{Request, Response, Status, service::interceptor::InterceptedService, transport::Channel};

use crate::convert::{ask, missing, serve, tell};

/// Longest answer, in bytes: as many letters as are told of at once, each with its reason.
const MAX_RESPONSE_BYTES: usize = 64 << 20;

/// Records of the event log that a consumer could not apply. For the operator only.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// The newest dead letters that are asked about, newest first: at most `limit`, which is 1 to
    /// [`echotune_model::MAX_DEAD_LETTERS`], or 0 for 100. `NotFound` when the filter names what there is none of.
    async fn list_dead_letters(
        &self,
        call: &Call,
        filter: &DeadLetterFilter,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, Fault>;

    /// Hands dead letters to their consumers once more; those that were handed over before only if `again` says so. After
    /// an error some may have been.
    async fn replay_dead_letters(
        &self,
        call: &Call,
        filter: &DeadLetterFilter,
        again: bool,
    ) -> Result<ReplayReceipt, Fault>;
}

struct Server(Arc<dyn DeadLetters>);

/// The gRPC face of dead letters.
pub fn dead_letters_server(letters: Arc<dyn DeadLetters>) -> DeadLettersServiceServer<impl DeadLettersService> {
    DeadLettersServiceServer::new(Server(letters))
}

#[async_trait]
impl DeadLettersService for Server {
    async fn list_dead_letters(
        &self,
        request: Request<pb::ListDeadLettersRequest>,
    ) -> Result<Response<pb::ListDeadLettersResponse>, Status> {
        let letters = &self.0;
        serve(request, |call, m| async move {
            let filter = DeadLetterFilter { topic: m.topic, consumer: m.consumer, ids: m.ids };
            let listed = letters.list_dead_letters(&call, &filter, m.limit).await?;
            Ok(pb::ListDeadLettersResponse { dead_letters: listed.into_iter().map(letter_to_pb).collect() })
        })
        .await
    }

    async fn replay_dead_letters(
        &self,
        request: Request<pb::ReplayDeadLettersRequest>,
    ) -> Result<Response<pb::ReplayDeadLettersResponse>, Status> {
        let letters = &self.0;
        serve(request, |call, m| async move {
            let filter = DeadLetterFilter { topic: m.topic, consumer: m.consumer, ids: m.ids };
            let ReplayReceipt { replayed, left } = letters.replay_dead_letters(&call, &filter, m.again).await?;
            Ok(pb::ReplayDeadLettersResponse { replayed, left })
        })
        .await
    }
}

/// Dead letters of a platform elsewhere, over gRPC.
#[derive(Debug, Clone)]
pub struct DeadLettersClient(DeadLettersServiceClient<InterceptedService<Channel, Credentials>>);

impl DeadLettersClient {
    /// A client on this channel.
    pub fn new(channel: Channel, credentials: Credentials) -> Self {
        let client = DeadLettersServiceClient::with_interceptor(channel, credentials);
        Self(client.max_decoding_message_size(MAX_RESPONSE_BYTES))
    }
}

#[async_trait]
impl DeadLetters for DeadLettersClient {
    async fn list_dead_letters(
        &self,
        call: &Call,
        filter: &DeadLetterFilter,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, Fault> {
        let DeadLetterFilter { topic, consumer, ids } = filter.clone();
        let message = pb::ListDeadLettersRequest { topic, consumer, limit, ids };
        let answer = ask!(self, call, list_dead_letters, message);
        answer.dead_letters.into_iter().map(letter_from_pb).collect()
    }

    async fn replay_dead_letters(
        &self,
        call: &Call,
        filter: &DeadLetterFilter,
        again: bool,
    ) -> Result<ReplayReceipt, Fault> {
        let DeadLetterFilter { topic, consumer, ids } = filter.clone();
        let message = pb::ReplayDeadLettersRequest { topic, consumer, ids, again };
        let pb::ReplayDeadLettersResponse { replayed, left } = tell!(self, call, replay_dead_letters, message);
        Ok(ReplayReceipt { replayed, left })
    }
}

const fn state_to_pb(state: DeadLetterState) -> pb::DeadLetterState {
    match state {
        DeadLetterState::Dead => pb::DeadLetterState::Dead,
        DeadLetterState::Replayed => pb::DeadLetterState::Replayed,
        DeadLetterState::FailedAgain => pb::DeadLetterState::FailedAgain,
    }
}

fn letter_to_pb(letter: DeadLetter) -> pb::DeadLetter {
    let DeadLetter { id, consumer, topic, region, stream, position, key, .. } = letter;
    let DeadLetter { reason, failed_at_ms, tries, traceparent, state, replayed_at_ms, .. } = letter;
    let state = state_to_pb(state).into();
    pb::DeadLetter {
        id,
        consumer,
        topic,
        region,
        stream,
        position,
        key,
        reason,
        failed_at_ms,
        tries,
        traceparent,
        state,
        replayed_at_ms,
    }
}

fn letter_from_pb(letter: pb::DeadLetter) -> Result<DeadLetter, Fault> {
    let state = match letter.state() {
        pb::DeadLetterState::Unspecified => return Err(missing("state")),
        pb::DeadLetterState::Dead => DeadLetterState::Dead,
        pb::DeadLetterState::Replayed => DeadLetterState::Replayed,
        pb::DeadLetterState::FailedAgain => DeadLetterState::FailedAgain,
    };
    let pb::DeadLetter { id, consumer, topic, region, stream, position, key, .. } = letter;
    let pb::DeadLetter { reason, failed_at_ms, tries, traceparent, replayed_at_ms, .. } = letter;
    Ok(DeadLetter {
        id,
        consumer,
        topic,
        region,
        stream,
        position,
        key,
        reason,
        failed_at_ms,
        tries,
        traceparent,
        state,
        replayed_at_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_comes_back_as_it_went() {
        for state in DeadLetterState::ALL {
            let letter = DeadLetter {
                id: "users.v1/3@7".into(),
                consumer: "agents".into(),
                topic: "users.v1".into(),
                region: "eu".into(),
                stream: "users.v1/3".into(),
                position: 7,
                key: "ann".into(),
                reason: "odd".into(),
                failed_at_ms: 5,
                tries: 2,
                traceparent: "00".into(),
                state,
                replayed_at_ms: 9,
            };
            assert_eq!(letter_from_pb(letter_to_pb(letter.clone())), Ok(letter));
        }
        assert!(letter_from_pb(pb::DeadLetter::default()).is_err());
    }
}
