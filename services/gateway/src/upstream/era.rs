//! Which era a server is of, and what it says of itself (2026-07-28, Versioning, "Backward Compatibility").

use std::time::Duration;

use serde_json::{Value, json};

use super::{Ask, Exchange, Failed, META_SERVER, Said, http_link::code_of};
use crate::{
    abilities::Abilities,
    message::{Json, LATEST_LEGACY, MODERN, Object, Outcome, Revision},
    refusal::{HEADER_MISMATCH, MISSING_CAPABILITY, UNSUPPORTED_VERSION},
};

/// What a server says of itself.
#[derive(Debug, Clone)]
pub(crate) struct Info {
    pub(crate) revision: Revision,
    pub(crate) capabilities: Object,
    pub(crate) server: Option<Json>,
    pub(crate) instructions: Option<Json>,
    /// For how long a server of 2026-07-28 says that this holds.
    pub(crate) kept: Option<Duration>,
}

impl Info {
    /// Whether both say the same of what can be asked of the server, in whichever order and form.
    pub(super) fn can_the_same(&self, other: &Self) -> bool {
        let capabilities = |info: &Self| info.capabilities.write().read::<Value>();
        self.revision == other.revision
            && (self.capabilities == other.capabilities || capabilities(self) == capabilities(other))
    }
}

/// What the gateway says of itself.
pub(crate) fn gateway_info() -> Value {
    json!({ "name": "echotune-gateway", "title": "EchoTune", "version": env!("CARGO_PKG_VERSION") })
}

/// What a probe with `server/discover` tells.
pub(super) enum Probed {
    Modern(Box<Info>),
    Legacy,
}

/// Reads the outcome of `server/discover`. That it went well does not prove the era: what counts is which revisions it
/// names. Nor does any one code of an error prove the other: servers of before answer with whatever they have.
pub(super) fn probed(outcome: &Outcome) -> Result<Probed, Failed> {
    let modern = |versions: Option<Vec<String>>| versions.unwrap_or_default().iter().any(|one| one == MODERN.name());
    match outcome {
        Outcome::Result(result) => {
            let result = Object::read(result).map_err(|why| Failed::Wrong(why.0))?;
            if !modern(result.get("supportedVersions").and_then(Json::read)) {
                return Ok(Probed::Legacy);
            }
            Ok(Probed::Modern(Box::new(Info {
                revision: MODERN,
                capabilities: result.object("capabilities").unwrap_or_default(),
                server: result.object("_meta").and_then(|meta| meta.get(META_SERVER).cloned()),
                instructions: result.get("instructions").cloned(),
                kept: Some(kept(&result)),
            })))
        }
        Outcome::Error(error) => match code_of(error) {
            Some(UNSUPPORTED_VERSION) => {
                let data = Object::read(error).ok().and_then(|error| error.object("data")).unwrap_or_default();
                let supported: Option<Vec<String>> = data.get("supported").and_then(Json::read);
                let legacy =
                    supported.iter().flatten().any(|one| Revision::parse(one).is_some_and(|it| !it.is_modern()));
                if legacy {
                    return Ok(Probed::Legacy);
                }
                Err(Failed::Wrong(format!("it speaks none of {}", Revision::served().join(", "))))
            }
            Some(HEADER_MISMATCH | MISSING_CAPABILITY) => {
                Err(Failed::Wrong("it is of 2026-07-28 and does not let itself be discovered".to_owned()))
            }
            _ => Ok(Probed::Legacy),
        },
    }
}

/// For how long what was discovered holds; not at all where that is not said.
fn kept(result: &Object) -> Duration {
    let ttl_ms = result.get("ttlMs").and_then(|ttl| ttl.read::<i64>());
    Duration::from_millis(ttl_ms.unwrap_or_default().max(0).unsigned_abs())
}

/// The handshake of revisions before 2026-07-28.
pub(super) fn initialize(abilities: Abilities) -> Ask {
    let mut ask = Ask::own("initialize");
    ask.params = [
        ("protocolVersion".to_owned(), Json::of(LATEST_LEGACY.name())),
        ("capabilities".to_owned(), Json::of(&abilities.declared())),
        ("clientInfo".to_owned(), Json::of(&gateway_info())),
    ]
    .into_iter()
    .collect();
    ask
}

/// Reads the answer to a handshake.
pub(super) fn initialized(outcome: &Outcome) -> Result<Info, Failed> {
    let result = match outcome {
        Outcome::Result(result) => Object::read(result).map_err(|why| Failed::Wrong(why.0))?,
        Outcome::Error(error) if code_of(error) == Some(UNSUPPORTED_VERSION) => return Err(Failed::OtherEra),
        Outcome::Error(error) => {
            return Err(Failed::Wrong(format!("it refuses to initialize: {error:?}")));
        }
    };
    let version = result.text("protocolVersion").unwrap_or_default();
    let revision = Revision::parse(&version).filter(|revision| !revision.is_modern());
    Ok(Info {
        revision: revision.ok_or_else(|| Failed::Wrong(format!("it initializes as '{}'", version.escape_debug())))?,
        capabilities: result.object("capabilities").unwrap_or_default(),
        server: result.get("serverInfo").cloned(),
        instructions: result.get("instructions").cloned(),
        kept: None,
    })
}

/// Waits for the answer of a request of the gateway itself; whatever else is said meanwhile is about nobody's.
pub(super) async fn answer(exchange: &mut Exchange) -> Result<Outcome, Failed> {
    loop {
        match exchange.next().await? {
            Said::Answer(outcome) => return Ok(outcome),
            Said::Notice { .. } => {}
            Said::Asks { id, method, .. } => {
                let outcome = if method == "ping" {
                    Outcome::result(&json!({}))
                } else {
                    Outcome::error(crate::refusal::METHOD_NOT_FOUND, "nobody is there to be asked")
                };
                exchange.answer(&id, &outcome).await?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_modern(outcome: &Outcome) -> Option<bool> {
        probed(outcome).ok().map(|probed| matches!(probed, Probed::Modern(_)))
    }

    #[test]
    fn the_era_is_what_the_versions_say() {
        let discovered = |versions: Value| Outcome::result(&json!({"supportedVersions": versions, "capabilities": {}}));
        assert_eq!(is_modern(&discovered(json!(["2026-07-28", "2025-11-25"]))), Some(true));
        assert_eq!(is_modern(&discovered(json!(["2025-11-25"]))), Some(false));
        assert_eq!(is_modern(&Outcome::result(&json!({}))), Some(false));
        for code in [-32601, -32602, -32600, -32000, 7] {
            assert_eq!(is_modern(&Outcome::error(code, "no")), Some(false), "{code}");
        }
        let unsupported = |versions: Value| {
            Outcome::Error(Json::of(&json!({"code": -32022, "message": "no", "data": {"supported": versions}})))
        };
        assert_eq!(is_modern(&unsupported(json!(["2027-01-01"]))), None);
        assert_eq!(is_modern(&unsupported(json!(["2025-06-18"]))), Some(false));
    }
}
