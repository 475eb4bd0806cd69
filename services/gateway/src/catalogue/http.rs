//! The MCP registry's API, version 0.1.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, Query, State},
    response::{IntoResponse, Response},
    routing::{get, patch, post},
};
use echotune_kit::auth::Callers;
use echotune_model::{ErrorKind, Principal};
use http::{HeaderMap, HeaderValue, StatusCode, header::WWW_AUTHENTICATE};
use serde::Deserialize;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Catalogue, CatalogueError, ListQuery, Listing, MAX_ENTRY_BYTES, Status};

struct Desk {
    catalogue: Catalogue,
    callers: Callers,
}

type Shared = State<Arc<Desk>>;
type Answer = Result<Json<Value>, Refused>;

/// The routes of a catalogue: whoever reaches them may read, and the operator may write.
///
/// `GET /v0.1/servers`, `GET /v0.1/servers/NAME/versions`, `GET /v0.1/servers/NAME/versions/VERSION` (`latest` is one),
/// `PATCH …/status` of a version or of a server, and `POST /v0.1/publish`. The name of a server is one part of the path:
/// its slash is written `%2F`.
pub fn router(catalogue: Catalogue, callers: Callers) -> Router {
    let versions = get(one).put(unchangeable).delete(unchangeable);
    Router::new()
        .route("/v0.1/servers", get(list))
        .route("/v0.1/servers/{name}/versions", get(all))
        .route("/v0.1/servers/{name}/versions/{version}", versions)
        .route("/v0.1/servers/{name}/versions/{version}/status", patch(status_of_one))
        .route("/v0.1/servers/{name}/status", patch(status_of_all))
        .route("/v0.1/publish", post(publish))
        .layer(DefaultBodyLimit::max(MAX_ENTRY_BYTES))
        .with_state(Arc::new(Desk { catalogue, callers }))
}

/// An answer that is none of what was asked for.
struct Refused {
    status: StatusCode,
    body: Value,
}

impl Refused {
    fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status, body: json!({ "error": why.into() }) }
    }

    fn asked(why: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, why)
    }
}

impl From<CatalogueError> for Refused {
    fn from(error: CatalogueError) -> Self {
        let status = match &error {
            CatalogueError::Asked(_) => StatusCode::BAD_REQUEST,
            CatalogueError::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            CatalogueError::NotFound(_) => StatusCode::NOT_FOUND,
            CatalogueError::Conflict { .. } => StatusCode::CONFLICT,
            CatalogueError::Full(_) => StatusCode::INSUFFICIENT_STORAGE,
            CatalogueError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        if let CatalogueError::Store(cause) = &error {
            tracing::error!(%cause, "the catalogue cannot be read or written");
            return Self::new(status, "the catalogue cannot be read or written");
        }
        let mut refused = Self::new(status, error.to_string());
        if let CatalogueError::Invalid(faults) = error {
            refused.body["faults"] = json!(faults);
        }
        refused
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"echotune\""));
        }
        response
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Asked {
    cursor: Option<String>,
    limit: Option<String>,
    search: String,
    updated_since: Option<String>,
    version: String,
    include_deleted: Option<String>,
}

impl Asked {
    fn includes_deleted(&self) -> Result<bool, Refused> {
        match self.include_deleted.as_deref() {
            None | Some("" | "false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Refused::asked("include_deleted is neither true nor false")),
        }
    }

    fn query(self) -> Result<ListQuery, Refused> {
        let limit = self.limit.as_deref().map(str::parse).transpose();
        let since = self.updated_since.as_deref().map(since_ms).transpose()?;
        Ok(ListQuery {
            include_deleted: self.includes_deleted()?,
            cursor: self.cursor,
            limit: limit.map_err(|_| Refused::asked("limit is no number"))?,
            search: self.search,
            updated_since_ms: since,
            version: self.version,
        })
    }
}

fn since_ms(text: &str) -> Result<u64, Refused> {
    // The plus of an offset is a blank where nobody has escaped it.
    let time = OffsetDateTime::parse(&text.replace(' ', "+"), &Rfc3339);
    let time = time.map_err(|_| Refused::asked("updated_since is no time as in RFC 3339: 2026-11-30T13:15:04.280Z"))?;
    Ok(u64::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap_or(0))
}

fn page(listings: &[Listing], next: Option<String>) -> Value {
    let mut metadata = json!({ "count": listings.len() });
    if let Some(next) = next {
        metadata["nextCursor"] = next.into();
    }
    json!({ "servers": listings.iter().map(Listing::response).collect::<Vec<_>>(), "metadata": metadata })
}

async fn list(State(desk): Shared, Query(asked): Query<Asked>) -> Answer {
    let found = desk.catalogue.list(asked.query()?).await?;
    Ok(Json(page(&found.listings, found.next_cursor)))
}

async fn all(State(desk): Shared, Path(name): Path<String>, Query(asked): Query<Asked>) -> Answer {
    Ok(Json(page(&desk.catalogue.versions(&name, asked.includes_deleted()?).await?, None)))
}

async fn one(State(desk): Shared, Path((name, version)): Path<(String, String)>, Query(asked): Query<Asked>) -> Answer {
    Ok(Json(desk.catalogue.version(&name, &version, asked.includes_deleted()?).await?.response()))
}

/// What was published stays what it is; the registry's API leaves it open whether there is more.
async fn unchangeable() -> Refused {
    let why = "a version that was published stays as it is; publish another, or set its status to deleted";
    Refused::new(StatusCode::NOT_IMPLEMENTED, why)
}

impl Desk {
    async fn operator(&self, headers: &HeaderMap) -> Result<(), Refused> {
        match self.callers.principal(headers).await {
            Ok(Principal::Operator) => Ok(()),
            Ok(Principal::User { .. }) => {
                Err(Refused::new(StatusCode::FORBIDDEN, "the operator alone changes the catalogue"))
            }
            Err(fault) => {
                let status = match fault.kind {
                    ErrorKind::Unauthenticated => StatusCode::UNAUTHORIZED,
                    ErrorKind::PermissionDenied => StatusCode::FORBIDDEN,
                    _ => StatusCode::SERVICE_UNAVAILABLE,
                };
                Err(Refused::new(status, fault.message))
            }
        }
    }
}

fn read<'b, T: Deserialize<'b>>(body: &'b Bytes) -> Result<T, Refused> {
    serde_json::from_slice(body).map_err(|cause| Refused::asked(format!("the body cannot be read: {cause}")))
}

async fn publish(State(desk): Shared, headers: HeaderMap, body: Bytes) -> Answer {
    desk.operator(&headers).await?;
    Ok(Json(desk.catalogue.publish(read(&body)?).await?.response()))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Change {
    status: Status,
    #[serde(default)]
    status_message: Option<String>,
}

async fn status_of_one(
    State(desk): Shared,
    Path((name, version)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    desk.operator(&headers).await?;
    let Change { status, status_message } = read(&body)?;
    let changed = desk.catalogue.set_status(&name, Some(&version), status, status_message).await?;
    let changed = changed.first().ok_or_else(|| Refused::asked("nothing would change"))?;
    Ok(Json(changed.response()))
}

async fn status_of_all(State(desk): Shared, Path(name): Path<String>, headers: HeaderMap, body: Bytes) -> Answer {
    desk.operator(&headers).await?;
    let Change { status, status_message } = read(&body)?;
    let changed = desk.catalogue.set_status(&name, None, status, status_message).await?;
    let servers: Vec<_> = changed.iter().map(Listing::response).collect();
    Ok(Json(json!({ "updatedCount": servers.len(), "servers": servers })))
}
