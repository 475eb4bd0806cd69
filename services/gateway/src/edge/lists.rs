use axum::response::Response;
use http::StatusCode;

use super::{Asking, post::Request, respond};
use crate::{
    hub::Scope,
    lists::{Asker, Kind, Page},
    message::Outcome,
    refusal::Refusal,
};

impl Asking {
    pub(super) fn asker(&self, request: &Request) -> Asker {
        Asker {
            caller: self.caller.clone(),
            abilities: request.abilities,
            declared: request.incoming.declared.clone(),
            is_alone: self.scope == Scope::One,
        }
    }

    /// A page of the merged list.
    pub(super) async fn list(&self, kind: Kind, request: &Request) -> Result<Response, Refusal> {
        let cursor = match request.incoming.params.get("cursor") {
            Some(cursor) => {
                Some(cursor.read::<String>().ok_or_else(|| Refusal::params("'cursor' is none of this list"))?)
            }
            None => None,
        };
        let table = self.hub.lists.table(&self.servers, kind, &self.asker(request)).await;
        let page = Page {
            keys: &self.hub.keys,
            endpoint: &self.name,
            kind,
            owner: self.caller.owner,
            size: self.hub.limits.page,
        };
        let result = page.result(&table, cursor.as_deref(), request.revision);
        let result = result.map_err(|_| Refusal::params("'cursor' is none of this list; begin without one"))?;
        Ok(respond::message(&Outcome::Result(result).message(&request.incoming.id), StatusCode::OK))
    }
}
