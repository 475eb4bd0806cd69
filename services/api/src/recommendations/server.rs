use std::{pin::Pin, sync::Arc};

use async_trait::async_trait;
use echotune_model::{ExportRecord, Fault, MAX_PAGE, PageRequest};
use echotune_proto::recommendations::v1::{
    self as pb,
    recommendations_service_server::{RecommendationsService, RecommendationsServiceServer},
};
use futures::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{
    DEFAULT_LIMIT, RecommendQuery, Recommendations,
    convert::{
        acceptance_to_pb, feedback_from_pb, ids_from_pb, impression_from_pb, item_to_pb, kind_from_pb, list_to_pb,
        past_from_pb, scored_to_pb,
    },
};
use crate::{
    convert::{call_of, serve},
    status::to_status,
};

/// Pages of an export that wait for a slow reader.
const PAGES_AHEAD: usize = 2;

struct Server(Arc<dyn Recommendations>);

/// The gRPC face of `recommendations`.
pub fn recommendations_server(
    recommendations: Arc<dyn Recommendations>,
) -> RecommendationsServiceServer<impl RecommendationsService> {
    RecommendationsServiceServer::new(Server(recommendations))
}

fn query_of(kind: i32, limit: Option<u32>, include_known: bool) -> Result<RecommendQuery, Fault> {
    Ok(RecommendQuery { kind: kind_from_pb(kind)?, limit: limit.unwrap_or(DEFAULT_LIMIT), include_known })
}

#[async_trait]
impl RecommendationsService for Server {
    type ExportUserStream = Pin<Box<dyn Stream<Item = Result<pb::ExportUserResponse, Status>> + Send>>;

    async fn recommend(
        &self,
        request: Request<pb::RecommendRequest>,
    ) -> Result<Response<pb::RecommendResponse>, Status> {
        let service = &self.0;
        serve(request, |call, m| async move {
            let query = query_of(m.kind, m.limit, m.include_known)?;
            let list = list_to_pb(service.recommend(&call, &m.user_name, &query).await?);
            Ok(pb::RecommendResponse {
                model_version: list.model_version,
                watermark: list.watermark,
                trace_id: list.trace_id,
                cold_start: list.cold_start,
                recommendations: list.recommendations,
                exposure: list.exposure,
                changes: list.changes,
            })
        })
        .await
    }

    async fn explain(&self, request: Request<pb::ExplainRequest>) -> Result<Response<pb::ExplainResponse>, Status> {
        let service = &self.0;
        serve(request, |call, m| async move {
            let list = service.explain(&call, &m.user_name, m.item_id.parse()?).await?;
            Ok(pb::ExplainResponse { list: Some(list_to_pb(list)) })
        })
        .await
    }

    async fn what_if(&self, request: Request<pb::WhatIfRequest>) -> Result<Response<pb::WhatIfResponse>, Status> {
        let service = &self.0;
        serve(request, |call, m| async move {
            let query = query_of(m.kind, m.limit, m.include_known)?;
            let without = ids_from_pb(&m.without_item_ids)?;
            let list = service.what_if(&call, &m.user_name, &without, &query).await?;
            Ok(pb::WhatIfResponse { list: Some(list_to_pb(list)) })
        })
        .await
    }

    async fn list_similar_items(
        &self,
        request: Request<pb::ListSimilarItemsRequest>,
    ) -> Result<Response<pb::ListSimilarItemsResponse>, Status> {
        let service = &self.0;
        serve(request, |call, m| async move {
            let items = service.similar(&call, m.item_id.parse()?, m.limit.unwrap_or(DEFAULT_LIMIT)).await?;
            Ok(pb::ListSimilarItemsResponse { items: items.into_iter().map(scored_to_pb).collect() })
        })
        .await
    }

    async fn list_trending_items(
        &self,
        request: Request<pb::ListTrendingItemsRequest>,
    ) -> Result<Response<pb::ListTrendingItemsResponse>, Status> {
        let service = &self.0;
        serve(request, |call, m| async move {
            let limit = m.limit.unwrap_or(DEFAULT_LIMIT);
            let items = service.trending(&call, kind_from_pb(m.kind)?, limit).await?;
            Ok(pb::ListTrendingItemsResponse { items: items.into_iter().map(scored_to_pb).collect() })
        })
        .await
    }

    async fn list_top_items(
        &self,
        request: Request<pb::ListTopItemsRequest>,
    ) -> Result<Response<pb::ListTopItemsResponse>, Status> {
        let service = &self.0;
        serve(request, |call, m| async move {
            let limit = m.limit.unwrap_or(DEFAULT_LIMIT);
            let items = service.top_items(&call, &m.user_name, kind_from_pb(m.kind)?, limit).await?;
            let played = |(item, plays)| pb::PlayedItem { item: Some(item_to_pb(item)), plays };
            Ok(pb::ListTopItemsResponse { items: items.into_iter().map(played).collect() })
        })
        .await
    }

    async fn find_items(
        &self,
        request: Request<pb::FindItemsRequest>,
    ) -> Result<Response<pb::FindItemsResponse>, Status> {
        let service = &self.0;
        serve(request, |call, m| async move {
            let limit = m.limit.unwrap_or(DEFAULT_LIMIT);
            let items = service.find_items(&call, kind_from_pb(m.kind)?, &m.text, limit).await?;
            Ok(pb::FindItemsResponse { items: items.into_iter().map(item_to_pb).collect() })
        })
        .await
    }

    async fn get_item(&self, request: Request<pb::GetItemRequest>) -> Result<Response<pb::GetItemResponse>, Status> {
        let service = &self.0;
        serve(request, |call, m| async move {
            let item = service.get_item(&call, m.item_id.parse()?).await?;
            Ok(pb::GetItemResponse { item: Some(item_to_pb(item)) })
        })
        .await
    }

    async fn record_impression(
        &self,
        request: Request<pb::RecordImpressionRequest>,
    ) -> Result<Response<pb::RecordImpressionResponse>, Status> {
        let service = &self.0;
        serve(request, |call, m| async move {
            service.record_impression(&call, &m.user_name, impression_from_pb(&m)?).await?;
            Ok(pb::RecordImpressionResponse {})
        })
        .await
    }

    async fn record_feedback(
        &self,
        request: Request<pb::RecordFeedbackRequest>,
    ) -> Result<Response<pb::RecordFeedbackResponse>, Status> {
        let service = &self.0;
        serve(request, |call, m| async move {
            service.record_feedback(&call, &m.user_name, feedback_from_pb(&m)?).await?;
            Ok(pb::RecordFeedbackResponse {})
        })
        .await
    }

    async fn restore_feedback(
        &self,
        request: Request<pb::RestoreFeedbackRequest>,
    ) -> Result<Response<pb::RestoreFeedbackResponse>, Status> {
        let service = &self.0;
        serve(request, |call, m| async move {
            let user = m.user_name.clone();
            service.restore_feedback(&call, &user, past_from_pb(m)?).await?;
            Ok(pb::RestoreFeedbackResponse {})
        })
        .await
    }

    async fn list_acceptance(
        &self,
        request: Request<pb::ListAcceptanceRequest>,
    ) -> Result<Response<pb::ListAcceptanceResponse>, Status> {
        let service = &self.0;
        serve(request, |call, _m| async move {
            let acceptance = service.acceptance(&call).await?.into_iter().map(acceptance_to_pb).collect();
            Ok(pb::ListAcceptanceResponse { acceptance })
        })
        .await
    }

    async fn export_user(
        &self,
        request: Request<pb::ExportUserRequest>,
    ) -> Result<Response<Self::ExportUserStream>, Status> {
        let call = call_of(&request)?;
        let pb::ExportUserRequest { user_name, page_size, page_token } = request.into_inner();
        let everything = page_size == 0;
        let mut page = PageRequest { size: if everything { MAX_PAGE } else { page_size }, token: page_token };
        let service = Arc::clone(&self.0);
        // The first page is fetched here, so that a refusal is the answer and not part of a stream.
        let mut part = service.export_user(&call, &user_name, &page).await.map_err(|fault| to_status(&fault))?;
        let (send, receive) = mpsc::channel(PAGES_AHEAD);
        tokio::spawn(async move {
            loop {
                page.token.clone_from(&part.next);
                let record = |one: ExportRecord| pb::ExportRecord { kind: one.kind, json: one.json };
                let records = part.rows.into_iter().map(record).collect();
                let answer = pb::ExportUserResponse { records, next_page_token: part.next };
                if send.send(Ok(answer)).await.is_err() || page.token.is_empty() || !everything {
                    return;
                }
                part = match service.export_user(&call, &user_name, &page).await {
                    Ok(part) => part,
                    Err(fault) => return drop(send.send(Err(to_status(&fault))).await),
                };
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receive))))
    }

    async fn get_counts(
        &self,
        request: Request<pb::GetCountsRequest>,
    ) -> Result<Response<pb::GetCountsResponse>, Status> {
        let service = &self.0;
        serve(request, |call, _m| async move {
            let counts = service.counts(&call).await?.into_iter().collect();
            Ok(pb::GetCountsResponse { counts })
        })
        .await
    }
}
