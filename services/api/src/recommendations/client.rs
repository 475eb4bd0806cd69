use std::collections::BTreeMap;

use async_trait::async_trait;
use echotune_kit::edge::Credentials;
use echotune_model::{
    Acceptance, Call, ExportRecord, Fault, Feedback, Impression, Item, ItemId, ItemKind, Page, PageRequest,
    PastFeedback, Recommendations as List, SimilarItem, TraceId,
};
use echotune_proto::recommendations::v1::{self as pb, recommendations_service_client::RecommendationsServiceClient};
use tonic::{service::interceptor::InterceptedService, transport::Channel};

use super::{
    MAX_RESPONSE_BYTES, RecommendQuery, Recommendations,
    convert::{acceptance_from_pb, ids_to_pb, item_from_pb, kind_to_pb, list_from_pb, scored_from_pb, signal_to_pb},
};
use crate::{
    convert::{ask, missing, tell},
    status::read_fault,
};

/// Records in an export page when the request does not say.
const DEFAULT_PAGE: u32 = 100;

/// `recommendations` elsewhere, over gRPC.
#[derive(Debug, Clone)]
pub struct RecommendationsClient(RecommendationsServiceClient<InterceptedService<Channel, Credentials>>);

impl RecommendationsClient {
    /// A client on this channel.
    pub fn new(channel: Channel, credentials: Credentials) -> Self {
        let client = RecommendationsServiceClient::with_interceptor(channel, credentials);
        Self(client.max_decoding_message_size(MAX_RESPONSE_BYTES))
    }
}

fn trace_to_pb(trace: TraceId) -> String {
    if trace == TraceId::default() { String::new() } else { trace.to_string() }
}

#[async_trait]
impl Recommendations for RecommendationsClient {
    async fn recommend(&self, call: &Call, user: &str, query: &RecommendQuery) -> Result<List, Fault> {
        let message = pb::RecommendRequest {
            user_name: user.to_owned(),
            kind: kind_to_pb(query.kind),
            limit: Some(query.limit),
            include_known: query.include_known,
        };
        let answer = ask!(self, call, recommend, message);
        list_from_pb(Some(pb::RecommendationList {
            model_version: answer.model_version,
            watermark: answer.watermark,
            trace_id: answer.trace_id,
            cold_start: answer.cold_start,
            recommendations: answer.recommendations,
            exposure: answer.exposure,
            changes: answer.changes,
        }))
    }

    async fn explain(&self, call: &Call, user: &str, item: ItemId) -> Result<List, Fault> {
        let message = pb::ExplainRequest { user_name: user.to_owned(), item_id: item.to_string() };
        list_from_pb(ask!(self, call, explain, message).list)
    }

    async fn what_if(
        &self,
        call: &Call,
        user: &str,
        without: &[ItemId],
        query: &RecommendQuery,
    ) -> Result<List, Fault> {
        let message = pb::WhatIfRequest {
            user_name: user.to_owned(),
            without_item_ids: ids_to_pb(without),
            kind: kind_to_pb(query.kind),
            limit: Some(query.limit),
            include_known: query.include_known,
        };
        list_from_pb(ask!(self, call, what_if, message).list)
    }

    async fn similar(&self, call: &Call, item: ItemId, limit: u32) -> Result<Vec<SimilarItem>, Fault> {
        let message = pb::ListSimilarItemsRequest { item_id: item.to_string(), limit: Some(limit) };
        ask!(self, call, list_similar_items, message).items.into_iter().map(scored_from_pb).collect()
    }

    async fn trending(&self, call: &Call, kind: ItemKind, limit: u32) -> Result<Vec<SimilarItem>, Fault> {
        let message = pb::ListTrendingItemsRequest { kind: kind_to_pb(kind), limit: Some(limit) };
        ask!(self, call, list_trending_items, message).items.into_iter().map(scored_from_pb).collect()
    }

    async fn top_items(&self, call: &Call, user: &str, kind: ItemKind, limit: u32) -> Result<Vec<(Item, u64)>, Fault> {
        let message =
            pb::ListTopItemsRequest { user_name: user.to_owned(), kind: kind_to_pb(kind), limit: Some(limit) };
        let items = ask!(self, call, list_top_items, message).items;
        items.into_iter().map(|played| Ok((item_from_pb(played.item)?, played.plays))).collect()
    }

    async fn find_items(&self, call: &Call, kind: ItemKind, text: &str, limit: u32) -> Result<Vec<Item>, Fault> {
        let message = pb::FindItemsRequest { kind: kind_to_pb(kind), text: text.to_owned(), limit: Some(limit) };
        ask!(self, call, find_items, message).items.into_iter().map(|item| item_from_pb(Some(item))).collect()
    }

    async fn get_item(&self, call: &Call, item: ItemId) -> Result<Item, Fault> {
        item_from_pb(ask!(self, call, get_item, pb::GetItemRequest { item_id: item.to_string() }).item)
    }

    async fn record_impression(&self, call: &Call, user: &str, impression: Impression) -> Result<(), Fault> {
        let message = pb::RecordImpressionRequest {
            user_name: user.to_owned(),
            trace_id: trace_to_pb(impression.trace),
            model_version: impression.model_version,
            item_ids: ids_to_pb(&impression.items),
        };
        let pb::RecordImpressionResponse {} = tell!(self, call, record_impression, message);
        Ok(())
    }

    async fn record_feedback(&self, call: &Call, user: &str, feedback: Feedback) -> Result<(), Fault> {
        let message = pb::RecordFeedbackRequest {
            user_name: user.to_owned(),
            item_id: feedback.item.to_string(),
            signal: signal_to_pb(feedback.signal),
            trace_id: trace_to_pb(feedback.trace),
        };
        let pb::RecordFeedbackResponse {} = tell!(self, call, record_feedback, message);
        Ok(())
    }

    async fn acceptance(&self, call: &Call) -> Result<Vec<Acceptance>, Fault> {
        let rows = ask!(self, call, list_acceptance, pb::ListAcceptanceRequest {}).acceptance;
        Ok(rows.into_iter().map(acceptance_from_pb).collect())
    }

    async fn export_user(&self, call: &Call, user: &str, page: &PageRequest) -> Result<Page<ExportRecord>, Fault> {
        let page_size = if page.size == 0 { DEFAULT_PAGE } else { page.size };
        let request = pb::ExportUserRequest { user_name: user.to_owned(), page_size, page_token: page.token.clone() };
        let mut parts = ask!(self, call, export_user, request);
        let answer = parts.message().await.map_err(|status| read_fault(call, &status))?;
        let answer = answer.ok_or_else(|| missing("records"))?;
        let record = |one: pb::ExportRecord| ExportRecord { kind: one.kind, json: one.json };
        Ok(Page { rows: answer.records.into_iter().map(record).collect(), next: answer.next_page_token })
    }

    async fn counts(&self, call: &Call) -> Result<BTreeMap<String, u64>, Fault> {
        Ok(ask!(self, call, get_counts, pb::GetCountsRequest {}).counts.into_iter().collect())
    }

    async fn restore_feedback(&self, call: &Call, user: &str, past: PastFeedback) -> Result<(), Fault> {
        let message = pb::RestoreFeedbackRequest {
            user_name: user.to_owned(),
            signal: signal_to_pb(past.feedback.signal),
            trace_id: trace_to_pb(past.feedback.trace),
            title: past.title,
            artist: past.artist,
            said_at_ms: i64::try_from(past.said_at_ms).unwrap_or(i64::MAX),
        };
        let pb::RestoreFeedbackResponse {} = tell!(self, call, restore_feedback, message);
        Ok(())
    }
}
