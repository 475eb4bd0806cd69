use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use echotune_kit::edge::Credentials;
use echotune_model::{
    Acceptance, Call, ErrorKind, Fault, Feedback, Impression, Item, ItemId, ItemKind, Reason, ReasonKind,
    Recommendation, Recommendations as List, SimilarItem, TraceId,
};
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
    async fn recommend(&self, call: &Call, user: &str, query: &RecommendQuery) -> Result<List, Fault>;

    /// One item's score for a user with every single reason, whether or not it would be recommended.
    async fn explain(&self, _call: &Call, _user: &str, _item: ItemId) -> Result<List, Fault> {
        not_served()
    }

    /// The list as it were if the user had not played `without` (1 to 1,000 items).
    async fn what_if(
        &self,
        _call: &Call,
        _user: &str,
        _without: &[ItemId],
        _query: &RecommendQuery,
    ) -> Result<List, Fault> {
        not_served()
    }

    /// The items nearest to an item in the model, nearest first.
    async fn similar(&self, _call: &Call, _item: ItemId, _limit: u32) -> Result<Vec<SimilarItem>, Fault> {
        not_served()
    }

    /// What is played most now, decayed by age. Scores are between 0 and 1.
    async fn trending(&self, _call: &Call, _kind: ItemKind, _limit: u32) -> Result<Vec<SimilarItem>, Fault> {
        not_served()
    }

    /// The items a user knows best, most played first.
    async fn top_items(
        &self,
        _call: &Call,
        _user: &str,
        _kind: ItemKind,
        _limit: u32,
    ) -> Result<Vec<(Item, u64)>, Fault> {
        not_served()
    }

    /// Catalogue items whose name contains `text`, without case and marks; most listened first.
    async fn find_items(&self, _call: &Call, _kind: ItemKind, _text: &str, _limit: u32) -> Result<Vec<Item>, Fault> {
        not_served()
    }

    /// An item of the catalogue. `NotFound` names it.
    async fn get_item(&self, _call: &Call, _item: ItemId) -> Result<Item, Fault> {
        not_served()
    }

    /// Notes that a list was shown.
    async fn record_impression(&self, _call: &Call, _user: &str, _impression: Impression) -> Result<(), Fault> {
        not_served()
    }

    /// Notes what a listener made of an item; effective in the next list.
    async fn record_feedback(&self, _call: &Call, _user: &str, _feedback: Feedback) -> Result<(), Fault> {
        not_served()
    }

    /// What listeners made of what each model showed, newest model first.
    async fn acceptance(&self, _call: &Call) -> Result<Vec<Acceptance>, Fault> {
        not_served()
    }

    /// How much is held: artists, tracks, items, impressions, feedback.
    async fn counts(&self, _call: &Call) -> Result<BTreeMap<String, u64>, Fault> {
        not_served()
    }
}

/// Stands until every method is served.
fn not_served<T>() -> Result<T, Fault> {
    Err(Fault::new(ErrorKind::FailedPrecondition, "this call is not served yet"))
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
        ReasonKind::Tag => pb::ReasonKind::Tag,
        ReasonKind::Trending => pb::ReasonKind::Trending,
    };
    pb::Reason { kind: kind.into(), of: reason.of, contribution: reason.contribution }
}

fn reason_from_pb(reason: pb::Reason) -> Result<Reason, Fault> {
    let kind = match reason.kind() {
        pb::ReasonKind::Listen => ReasonKind::Listen,
        pb::ReasonKind::OtherListens => ReasonKind::OtherListens,
        pb::ReasonKind::Tag => ReasonKind::Tag,
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
    async fn recommend(&self, _call: &Call, user: &str, query: &RecommendQuery) -> Result<List, Fault> {
        let request = pb::RecommendRequest {
            user_name: user.to_owned(),
            kind: kind_to_pb(query.kind).into(),
            limit: Some(query.limit),
            include_known: query.include_known,
        };
        let answer = self.0.clone().recommend(request).await.map_err(|status| to_fault(&status))?.into_inner();
        Ok(List {
            model_version: answer.model_version,
            watermark: hlc(answer.watermark),
            trace: TraceId(u128::from_str_radix(&answer.trace_id, 16).unwrap_or_default()),
            cold_start: answer.cold_start,
            items: answer.recommendations.into_iter().map(item_from_pb).collect::<Result<_, _>>()?,
        })
    }
}
