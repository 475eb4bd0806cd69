//! What a result of one era has to look like in the other.

use http::StatusCode;
use serde_json::json;

use super::stream::Ending;
use crate::{
    lists::Hints,
    message::{Json, Object, Outcome, Revision},
    refusal::{HEADER_MISMATCH, METHOD_NOT_FOUND, MISSING_CAPABILITY, Refusal, UNSUPPORTED_VERSION},
};

/// A result that asks the client for something (2026-07-28, Multi Round-Trip Requests).
pub(super) fn input_required(result: &Json) -> Option<Object> {
    // Few are, and results are long.
    let marked = result.bytes().windows(MARK.len()).any(|window| window == MARK);
    let object = Object::read(result).ok().filter(|_| marked)?;
    (object.text("resultType").as_deref() == Some("input_required")).then_some(object)
}

const MARK: &[u8] = b"input_required";

/// A whole result of a server for a client.
pub(super) fn result(result: Json, method: &str, from: Revision, to: Revision) -> Result<Json, Refusal> {
    if from.is_modern() == to.is_modern() {
        return Ok(result);
    }
    let mut object = Object::read(&result).map_err(|why| Refusal::broken(format!("its result is none: {}", why.0)))?;
    if to.is_modern() {
        if object.get("resultType").is_none() {
            object.set("resultType", Json::of("complete"));
        }
        if method == "resources/read" {
            Hints { ttl_ms: 0, is_public: false }.add(&mut object);
        }
    } else {
        let kind = object.remove("resultType").and_then(|kind| kind.read::<String>());
        if kind.is_some_and(|kind| kind != "complete") {
            return Err(Refusal::broken("its result is of a kind that the client's revision does not know"));
        }
        object.remove("ttlMs");
        object.remove("cacheScope");
    }
    Ok(object.write())
}

/// With which status an outcome is answered where it is alone in its response.
pub(crate) fn status(outcome: &Outcome, to: Revision) -> StatusCode {
    let Outcome::Error(error) = outcome else { return StatusCode::OK };
    let code = Object::read(error).ok().and_then(|error| error.get("code")?.read::<i64>());
    match code {
        Some(METHOD_NOT_FOUND) if to.is_modern() => StatusCode::NOT_FOUND,
        Some(HEADER_MISMATCH | MISSING_CAPABILITY | UNSUPPORTED_VERSION) if to.is_modern() => StatusCode::BAD_REQUEST,
        _ => StatusCode::OK,
    }
}

/// The value of `error.type` for an outcome; empty when it went well.
pub(super) fn error_type(outcome: &Outcome) -> &'static str {
    const FAILED: &[u8] = b"\"isError\"";
    match outcome {
        Outcome::Error(_) => "jsonrpc_error",
        Outcome::Result(result) if result.bytes().windows(FAILED.len()).any(|window| window == FAILED) => {
            let failed = Object::read(result).ok().and_then(|result| result.get("isError")?.read::<bool>());
            if failed == Some(true) { "tool_error" } else { "" }
        }
        Outcome::Result(_) => "",
    }
}

/// What a client is told of a request that no server has answered. What came of a tool is for whoever decides what to
/// do next, which is the model, and models see results alone.
pub(crate) fn refused(refusal: &Refusal, method: &str, to: Revision) -> (Outcome, Ending) {
    if method != "tools/call" || refusal.status != StatusCode::OK || refusal.kind_name().is_empty() {
        return (refusal.outcome(), Ending { status: refusal.status, retry_after: refusal.retry_after });
    }
    let (kind, message) = (refusal.kind_name(), refusal.told());
    let mut result = json!({
        "content": [{ "type": "text", "text": format!("{kind}: {message}") }],
        "structuredContent": { "error": { "kind": kind, "message": message } },
        "isError": true,
    });
    if to.is_modern() {
        result["resultType"] = json!("complete");
    }
    (Outcome::result(&result), StatusCode::OK.into())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::message::{LATEST_LEGACY, MODERN};

    fn converted(value: &Value, method: &str, from: Revision, to: Revision) -> Option<Value> {
        result(Json::of(value), method, from, to).ok()?.read()
    }

    #[test]
    fn results_say_what_their_revision_asks_and_no_more() {
        let plain = json!({"content": [], "isError": false});
        let modern = json!({"content": [], "isError": false, "resultType": "complete"});
        assert_eq!(converted(&plain, "tools/call", LATEST_LEGACY, MODERN), Some(modern.clone()));
        assert_eq!(converted(&modern, "tools/call", MODERN, LATEST_LEGACY), Some(plain));
        let read = json!({"contents": [], "resultType": "complete", "ttlMs": 5, "cacheScope": "public"});
        assert_eq!(converted(&read, "resources/read", MODERN, LATEST_LEGACY), Some(json!({"contents": []})));
        let again = converted(&json!({"contents": []}), "resources/read", LATEST_LEGACY, MODERN).expect("a result");
        assert_eq!((&again["ttlMs"], &again["cacheScope"]), (&json!(0), &json!("private")));
        assert_eq!(converted(&json!({"resultType": "task"}), "tools/call", MODERN, LATEST_LEGACY), None);
    }

    #[test]
    fn the_fate_of_a_tool_is_a_result_and_that_of_others_an_error() {
        let unknown = Refusal::unknown("who knows");
        let (outcome, _) = refused(&unknown, "tools/call", MODERN);
        let Outcome::Result(result) = outcome else { panic!("a result") };
        let result: Value = result.read().expect("JSON");
        assert_eq!(result["structuredContent"]["error"]["kind"], "INDETERMINATE");
        assert!(matches!(refused(&unknown, "prompts/get", MODERN).0, Outcome::Error(_)));
        let full = Refusal::unavailable("full", 1);
        assert_eq!(refused(&full, "tools/call", MODERN).1.status, StatusCode::SERVICE_UNAVAILABLE);
    }

    #[test]
    fn what_is_to_be_opened_is_told_to_who_asked_and_is_not_in_the_message() {
        let refusal = Refusal::unauthorized("there is no token").opened_at("https://a.example/?state=s");
        assert_eq!(refusal.message, "there is no token");
        for method in ["tools/call", "resources/read"] {
            let (Outcome::Result(told) | Outcome::Error(told)) = refused(&refusal, method, MODERN).0;
            let told = told.read::<Value>().expect("JSON").to_string();
            assert!(told.contains("there is no token; open https://a.example/?state=s"), "{told}");
        }
    }
}
