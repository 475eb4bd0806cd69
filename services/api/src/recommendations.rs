use std::sync::Arc;

use async_trait::async_trait;
use echotune_kit::edge::Credentials;
use echotune_model::{Call, Fault, ItemKind, Reason, ReasonKind, Recommendation, TraceId};
use echotune_proto::recommendations::v1::{
    self as pb,
    recommendations_service_client::RecommendationsServiceClient,
    recommendations_service_server::{RecommendationsService, RecommendationsServiceServer},
};
use tonic::{Request, Response, Status, service::interceptor::InterceptedService, transport::Channel};

use crate::{
    convert::{call_of, hlc, missing},
    status::{to_fault, to_status},
};

/// Items in one list at the most.
pub const MAX_LIMIT: u32 = 500;
const DEFAULT_LIMIT: u32 = 10;

/// What list is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecommendQuery {
    /// Kind of item.
    pub kind: ItemKind,
    /// How many: 1 to [`MAX_LIMIT`].
    pub limit: u32,
    /// Whether items the user already knows may appear.
    pub include_known: bool,
}

/// Personal recommendations whose reasons sum exactly to the score.
#[async_trait]
pub trait Recommendations: Send + Sync {
    /// The best items for a user, best first. `NotFound` when the user is unknown.
    async fn recommend(
        &self,
        call: &Call,
        user: &str,
        query: &RecommendQuery,
    ) -> Result<echotune_model::Recommendations, Fault>;
}

fn kind_to_pb(kind: ItemKind) -> pb::ItemKind {
    match kind {
        ItemKind::Artist => pb::ItemKind::Artist,
        ItemKind::Track => pb::ItemKind::Track,
    }
}

fn kind_from_pb(kind: i32) -> Result<ItemKind, Fault> {
    match pb::ItemKind::try_from(kind) {
        Ok(pb::ItemKind::Artist | pb::ItemKind::Unspecified) => Ok(ItemKind::Artist),
        Ok(pb::ItemKind::Track) => Ok(ItemKind::Track),
        Err(_) => {
            Err(Fault::invalid(format!("kind {kind} is not an ItemKind; use ITEM_KIND_ARTIST or ITEM_KIND_TRACK")))
        }
    }
}

fn reason_to_pb(reason: Reason) -> pb::Reason {
    let kind = match reason.kind {
        ReasonKind::Listen => pb::ReasonKind::Listen,
        ReasonKind::OtherListens => pb::ReasonKind::OtherListens,
        ReasonKind::Trending => pb::ReasonKind::Trending,
    };
    pb::Reason { kind: kind.into(), of: reason.of, contribution: reason.contribution }
}

fn reason_from_pb(reason: pb::Reason) -> Result<Reason, Fault> {
    let kind = match reason.kind() {
        pb::ReasonKind::Listen => ReasonKind::Listen,
        pb::ReasonKind::OtherListens => ReasonKind::OtherListens,
        pb::ReasonKind::Trending => ReasonKind::Trending,
        pb::ReasonKind::Unspecified => return Err(missing("reasons.kind")),
    };
    Ok(Reason { kind, of: reason.of, contribution: reason.contribution })
}

fn item_to_pb(item: Recommendation) -> pb::Recommendation {
    let Recommendation { rank, id, kind, title, artist, score, base, reasons } = item;
    let reasons = reasons.into_iter().map(reason_to_pb).collect();
    pb::Recommendation { rank, id: id.to_string(), kind: kind_to_pb(kind).into(), title, artist, score, base, reasons }
}

fn item_from_pb(item: pb::Recommendation) -> Result<Recommendation, Fault> {
    let pb::Recommendation { rank, id, kind, title, artist, score, base, reasons } = item;
    let reasons = reasons.into_iter().map(reason_from_pb).collect::<Result<_, _>>()?;
    Ok(Recommendation { rank, id: id.parse()?, kind: kind_from_pb(kind)?, title, artist, score, base, reasons })
}

struct Server<R: ?Sized>(Arc<R>);

/// The gRPC face of `recommendations`.
pub fn recommendations_server(
    recommendations: Arc<dyn Recommendations>,
) -> RecommendationsServiceServer<impl RecommendationsService> {
    RecommendationsServiceServer::new(Server(recommendations))
}

#[async_trait]
impl<R: Recommendations + ?Sized + 'static> RecommendationsService for Server<R> {
    async fn recommend(
        &self,
        request: Request<pb::RecommendRequest>,
    ) -> Result<Response<pb::RecommendResponse>, Status> {
        let call = call_of(&request)?;
        let pb::RecommendRequest { user_name, kind, limit, include_known } = request.into_inner();
        let kind = kind_from_pb(kind).map_err(|fault| to_status(&fault))?;
        let query = RecommendQuery { kind, limit: limit.unwrap_or(DEFAULT_LIMIT), include_known };
        let list = self.0.recommend(&call, &user_name, &query).await.map_err(|fault| to_status(&fault))?;
        Ok(Response::new(pb::RecommendResponse {
            model_version: list.model_version,
            watermark: list.watermark.0,
            trace_id: list.trace.to_string(),
            cold_start: list.cold_start,
            recommendations: list.items.into_iter().map(item_to_pb).collect(),
        }))
    }
}

/// `recommendations` elsewhere, over gRPC.
#[derive(Debug, Clone)]
pub struct RecommendationsClient(RecommendationsServiceClient<InterceptedService<Channel, Credentials>>);

impl RecommendationsClient {
    /// A client on this channel.
    pub fn new(channel: Channel, credentials: Credentials) -> Self {
        Self(RecommendationsServiceClient::with_interceptor(channel, credentials))
    }
}

#[async_trait]
impl Recommendations for RecommendationsClient {
    async fn recommend(
        &self,
        _call: &Call,
        user: &str,
        query: &RecommendQuery,
    ) -> Result<echotune_model::Recommendations, Fault> {
        let request = pb::RecommendRequest {
            user_name: user.to_owned(),
            kind: kind_to_pb(query.kind).into(),
            limit: Some(query.limit),
            include_known: query.include_known,
        };
        let answer = self.0.clone().recommend(request).await.map_err(|status| to_fault(&status))?.into_inner();
        Ok(echotune_model::Recommendations {
            model_version: answer.model_version,
            watermark: hlc(answer.watermark),
            trace: TraceId(u128::from_str_radix(&answer.trace_id, 16).unwrap_or_default()),
            cold_start: answer.cold_start,
            items: answer.recommendations.into_iter().map(item_from_pb).collect::<Result<_, _>>()?,
        })
    }
}
