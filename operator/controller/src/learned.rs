//! What was learned of servers, kept over restarts: a ConfigMap for each that has had calls.
//!
//! The state tells its own version; one of another version is left alone and learned anew.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use echotune_api::demand::ServerName;
use echotune_autoscaler::State;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client, api::ListParams};
use tokio::time::timeout;

use crate::{
    build::{MANAGED_BY, MANAGER, Subject, learned_metadata},
    world::server_of,
};

/// The label of what was learned.
pub const LEARNED: &str = "mcp.echotune.internal/learned";
/// The key of the state.
const STATE: &str = "state";
/// ConfigMaps in a page of a list.
const PAGE: u32 = 500;

/// The ConfigMap that keeps what was learned of a server.
pub fn kept(subject: Subject<'_>, state: &State) -> ConfigMap {
    let mut metadata = learned_metadata(subject);
    metadata.labels.get_or_insert_default().insert(LEARNED.to_owned(), "true".to_owned());
    let data = BTreeMap::from([(STATE.to_owned(), state.to_string())]);
    ConfigMap { metadata, data: Some(data), ..ConfigMap::default() }
}

/// What was learned before, of all servers, and why some of it cannot be read. Each page may take so long.
///
/// # Errors
/// The API server does not say.
pub async fn learned(
    client: &Client,
    namespace: Option<&str>,
    patience: Duration,
) -> Result<(HashMap<ServerName, State>, Vec<String>), kube::Error> {
    let api: Api<ConfigMap> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let mut params = ListParams::default().labels(&format!("{MANAGED_BY}={MANAGER},{LEARNED}=true")).limit(PAGE);
    let (mut states, mut faults) = (HashMap::new(), Vec::new());
    // Servers are looked at meanwhile, but nobody is told that they are all.
    let late = |_| kube::Error::Service("the API server did not answer in time".into());
    loop {
        let page = timeout(patience, api.list(&params)).await.map_err(late)??;
        for one in page.items {
            let Some(server) = server_of(&one.metadata) else { continue };
            let text = one.data.as_ref().and_then(|data| data.get(STATE)).map_or("", String::as_str);
            match text.parse() {
                Ok(state) => drop(states.insert(server, state)),
                Err(cause) => faults.push(format!("what was learned of {server} is not taken up: {cause}")),
            }
        }
        match page.metadata.continue_.filter(|more| !more.is_empty()) {
            Some(more) => params = params.continue_token(&more),
            None => return Ok((states, faults)),
        }
    }
}
