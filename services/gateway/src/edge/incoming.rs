//! What a client has sent, and which revision it speaks.

use http::HeaderMap;

use crate::{
    message::{Id, Json, MODERN, Malformed, Object, Revision, decode_header},
    refusal::{INVALID_PARAMS, Refusal},
    upstream::{
        Declared, MCP_METHOD, MCP_NAME, META_CAPABILITIES, META_CLIENT, META_LOG_LEVEL, META_VERSION, PROTOCOL_VERSION,
    },
};

/// A request of a client.
pub(super) struct Incoming {
    pub(super) id: Id,
    pub(super) method: String,
    /// Without `_meta`.
    pub(super) params: Object,
    /// Without what 2026-07-28 puts there.
    pub(super) meta: Object,
    pub(super) declared: Declared,
}

/// Which revision a request is of, as far as it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    Modern,
    /// Before 2026-07-28; the session knows which.
    Legacy(Revision),
}

impl Incoming {
    /// Reads what a request carries, and checks it by the rules of its revision.
    pub(super) fn read(
        id: &Id,
        method: String,
        params: Option<&Json>,
        headers: &HeaderMap,
    ) -> Result<(Self, Said), Refusal> {
        let malformed = |Malformed(why)| Refusal::new(http::StatusCode::BAD_REQUEST, INVALID_PARAMS, why);
        let mut params = Object::read_optional(params).map_err(malformed)?;
        let meta = params.remove("_meta");
        let mut meta = Object::read_optional(meta.as_ref()).map_err(malformed)?;
        let version = meta.remove(META_VERSION).map(|version| version.read::<String>());
        let declared = Declared {
            capabilities: meta.remove(META_CAPABILITIES),
            info: meta.remove(META_CLIENT),
            log_level: meta.remove(META_LOG_LEVEL),
        };
        let said = said(version.as_ref().map(|version| version.as_deref().unwrap_or_default()), headers)?;
        let incoming = Self { id: id.clone(), method, params, meta, declared };
        if said == Said::Modern {
            incoming.check(headers)?;
        }
        Ok((incoming, said))
    }

    /// What the name of a request's subject is, where headers name it.
    pub(super) fn subject(&self) -> Option<String> {
        match self.method.as_str() {
            "tools/call" | "prompts/get" => self.params.text("name"),
            "resources/read" => self.params.text("uri"),
            _ => None,
        }
    }

    /// Headers must say what the body says (2026-07-28, Streamable HTTP, "Server Validation").
    fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let method = headers.get(MCP_METHOD).ok_or_else(|| Refusal::headers("'Mcp-Method' is missing"))?;
        if method.as_bytes() != self.method.as_bytes() {
            return Err(Refusal::headers("'Mcp-Method' is not the method of the body"));
        }
        if let Some(subject) = self.subject() {
            let name = headers.get(MCP_NAME).ok_or_else(|| Refusal::headers("'Mcp-Name' is missing"))?;
            if decode_header(name).as_deref() != Some(subject.as_str()) {
                return Err(Refusal::headers("'Mcp-Name' is not the name in the body"));
            }
        }
        let declared = self.declared.capabilities.as_ref().is_some_and(|json| Object::read(json).is_ok());
        if !declared {
            let why = format!("_meta has no '{META_CAPABILITIES}'");
            return Err(Refusal::new(http::StatusCode::BAD_REQUEST, INVALID_PARAMS, why));
        }
        Ok(())
    }
}

/// Which era a request is of. What its body says counts; headers must agree.
fn said(body: Option<&str>, headers: &HeaderMap) -> Result<Said, Refusal> {
    let header = headers.get(PROTOCOL_VERSION).map(|value| value.to_str().unwrap_or_default());
    match (body, header) {
        (Some(body), None) if Revision::parse(body).is_none() => Err(Refusal::version(body)),
        (Some(_), None) => Err(Refusal::headers("'MCP-Protocol-Version' is missing")),
        (Some(body), Some(header)) if body != header => {
            Err(Refusal::headers("'MCP-Protocol-Version' is not the version in _meta"))
        }
        (None, Some(header)) if Revision::parse(header) == Some(MODERN) => {
            let why = format!("_meta has no '{META_VERSION}'");
            Err(Refusal::new(http::StatusCode::BAD_REQUEST, INVALID_PARAMS, why))
        }
        (_, Some(version)) => match Revision::parse(version) {
            Some(revision) if revision.is_modern() => Ok(Said::Modern),
            Some(revision) => Ok(Said::Legacy(revision)),
            None => Err(Refusal::version(version)),
        },
        // Revisions before 2025-06-18 knew no such header.
        (None, None) => Ok(Said::Legacy(Revision::V2025_03_26)),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::{Value, json};

    use super::*;
    use crate::refusal::{HEADER_MISMATCH, UNSUPPORTED_VERSION};

    fn read(method: &str, params: &Value, headers: &[(&'static str, &str)]) -> Result<Said, i64> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, HeaderValue::from_str(value).expect("a value"));
        }
        let read = Incoming::read(&Id::number(1), method.to_owned(), Some(&Json::of(params)), &map);
        read.map(|(_, said)| said).map_err(|refusal| refusal.code)
    }

    fn params(version: &str) -> Value {
        json!({"name": "a", "_meta": {META_VERSION: version, META_CAPABILITIES: {}}})
    }

    #[test]
    fn the_revision_is_told_by_body_and_headers_together() {
        const VERSION: &str = "mcp-protocol-version";
        let named = [(VERSION, "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", "=?base64?YQ==?=")];
        assert_eq!(read("tools/call", &params("2026-07-28"), &named), Ok(Said::Modern));
        assert_eq!(read("tools/call", &params("2026-07-28"), &named[..2]), Err(HEADER_MISMATCH), "no name");
        assert_eq!(read("tools/call", &params("2026-07-28"), &named[..1]), Err(HEADER_MISMATCH), "no method");
        assert_eq!(read("tools/call", &params("2026-07-28"), &[]), Err(HEADER_MISMATCH), "no version");
        assert_eq!(read("prompts/get", &params("2026-07-28"), &named), Err(HEADER_MISMATCH), "another method");
        assert_eq!(read("tools/call", &params("2025-11-25"), &named), Err(HEADER_MISMATCH), "another version");
        let future = [(VERSION, "2027-01-01")];
        assert_eq!(read("tools/call", &params("2027-01-01"), &future), Err(UNSUPPORTED_VERSION));
        assert_eq!(read("tools/call", &json!({}), &future), Err(UNSUPPORTED_VERSION));
        assert_eq!(read("tools/call", &json!({"name": "a"}), &named), Err(INVALID_PARAMS), "nothing in the body");
        let bare = json!({"name": "a", "_meta": {META_VERSION: "2026-07-28"}});
        assert_eq!(read("tools/call", &bare, &named), Err(INVALID_PARAMS), "no capabilities");
        assert_eq!(read("tools/call", &json!({}), &[(VERSION, "2025-06-18")]), Ok(Said::Legacy(Revision::V2025_06_18)));
        assert_eq!(read("tools/call", &json!({}), &[]), Ok(Said::Legacy(Revision::V2025_03_26)));
    }
}
