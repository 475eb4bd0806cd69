use axum::response::Response;
use http::StatusCode;

use super::{Asking, calls::effect_of, post::Request, respond};
use crate::{
    access::Subject,
    hub::Scope,
    lists::{Asker, Entry, Kind, Page},
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
        self.hub.access.take(&self.caller)?;
        let servers = &self.servers;
        let subject = match kind {
            Kind::Tools => Subject::Tool,
            Kind::Prompts => Subject::Prompt,
            Kind::Resources | Kind::Templates => Subject::Resource,
        };
        let may_see = |server: usize, entry: &Entry| {
            let (server, name) = (&self.servers[server], entry.name.as_str());
            let effect = effect_of(server, subject, name, Some(entry));
            self.hub.access.may_see(&self.caller, &server.config.name, subject, name, effect)
        };
        let table = self.hub.lists.table(servers, kind, &self.asker(request)).await;
        // None that can be had is not one without entries.
        if table.is_unknown() {
            let why = format!("no server answers '{}' now; ask again", kind.method());
            return Err(Refusal::unavailable(why, 2));
        }
        let page = Page {
            keys: &self.hub.keys,
            endpoint: &self.name,
            kind,
            owner: self.caller.owner,
            size: self.hub.limits.page,
            may_see: &may_see,
            is_alike: !self.hub.access.tells_apart(),
        };
        let result = page.result(&table, cursor.as_deref(), request.revision);
        let result = result.map_err(|_| Refusal::params("'cursor' is none of this list; begin without one"))?;
        Ok(respond::message(&Outcome::Result(result).message(&request.incoming.id), StatusCode::OK))
    }
}
