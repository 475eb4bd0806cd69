//! Taking over what other gateways of the region keep, at the start: a server that sleeps is listed by a gateway that
//! has never seen it awake.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use axum::body::Bytes;
use http::{HeaderValue, Request, StatusCode, Uri, header::AUTHORIZATION};
use http_body_util::{BodyExt as _, Full, Limited};
use tokio::{net::lookup_host, time::timeout};

use super::file::{ListsFile, TEXT};
use crate::{hub::Hub, regions::address};

/// How long it may take in all, and with one of them.
const IN_ALL: Duration = Duration::from_secs(3);
const WITHIN: Duration = Duration::from_secs(1);
/// Gateways that are asked at the most.
const MOST: usize = 16;

impl Hub {
    /// Takes over what gateways at addresses keep, where this one keeps anything; it is not ready meanwhile.
    pub(crate) fn take_lists(self: &Arc<Self>, from: Vec<String>, authorization: Option<HeaderValue>) {
        let Some(file) = self.lists.file.get().cloned() else { return };
        let (hub, unready) = (Arc::clone(self), self.unready());
        file.takes(true);
        self.tasks.spawn(async move {
            let taking = timeout(IN_ALL, take_over(&hub, &file, &from, authorization.as_ref()));
            if let Some(Err(_)) = hub.stop.run_until_cancelled(taking).await {
                tracing::warn!("other gateways do not answer in time; not all that they list is taken over");
            }
            file.takes(false);
            drop(unready);
        });
    }
}

async fn take_over(hub: &Hub, file: &ListsFile, from: &[String], authorization: Option<&HeaderValue>) {
    let mut others = Vec::new();
    for url in from {
        others.extend(places(url).await);
    }
    if others.is_empty() {
        tracing::info!("no other gateway is there whose lists of servers could be taken over");
    }
    // One after the other, so that one text alone is held, and each of them: none knows all that the others do.
    for at in others.into_iter().take(MOST) {
        let asked = timeout(WITHIN, ask(hub, &at, authorization)).await;
        match asked.unwrap_or_else(|_| Err("it does not answer in time".to_owned())) {
            Ok(None) => tracing::debug!(%at, "another gateway keeps no lists of servers, or is of a version before"),
            Ok(Some(text)) => match file.take(&text) {
                Some(lists) => tracing::info!(%at, lists, "lists of servers were taken over of another gateway"),
                None => tracing::warn!(%at, "lists of servers that another gateway keeps are of a form unknown here"),
            },
            Err(why) => tracing::warn!(%at, why, "lists of servers cannot be taken over of another gateway"),
        }
    }
}

/// Where gateways are: in clear at each address of a name, as a connection by the name reaches any one of them; over
/// TLS by the name, which is what the certificate is of.
async fn places(url: &str) -> Vec<Uri> {
    let Some(named) = address(url, "/replicas/lists") else { return Vec::new() };
    if named.scheme_str() == Some("https") {
        return vec![named];
    }
    let host = named.host().unwrap_or_default().trim_matches(['[', ']']);
    let found: BTreeSet<SocketAddr> = match lookup_host((host, named.port_u16().unwrap_or(80))).await {
        Ok(found) => found.collect(),
        Err(cause) => {
            tracing::debug!(url, %cause, "other gateways have no address");
            return Vec::new();
        }
    };
    found.iter().filter_map(|at| address(&format!("http://{at}"), named.path())).collect()
}

/// What one keeps. `None` where that is nothing, or it does not know the question.
async fn ask(hub: &Hub, at: &Uri, authorization: Option<&HeaderValue>) -> Result<Option<Bytes>, String> {
    let mut request = Request::new(Full::new(Bytes::new()));
    *request.uri_mut() = at.clone();
    if let Some(authorization) = authorization {
        request.headers_mut().insert(AUTHORIZATION, authorization.clone());
    }
    let response = hub.peers.0.request(request).await.map_err(|cause| cause.to_string())?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => return Ok(None),
        status => return Err(format!("it answers with status {status}")),
    }
    let whole = Limited::new(response.into_body(), TEXT).collect().await.map_err(|cause| cause.to_string())?;
    Ok(Some(whole.to_bytes()))
}
