//! What tools and a prompt of the fixture ask of their client, told once for both eras.

use rmcp::model::ClientCapabilities;
use serde_json::{Map, Value, json};

/// The prompt that asks.
pub(crate) const PROMPT: &str = "test_input_required_result_prompt";

/// What is asked, round after round: by which key, and which request.
pub(crate) struct Asked {
    pub(crate) rounds: Vec<Vec<(&'static str, Value)>>,
    /// Whether a state goes out with it.
    pub(crate) has_state: bool,
    /// What the tool says when it has all answers.
    pub(crate) told: fn(&Map<String, Value>) -> String,
}

fn form(message: &str, properties: &Value, required: &[&str]) -> Value {
    let mut schema = json!({ "type": "object", "properties": properties });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    json!({ "method": "elicitation/create", "params": { "message": message, "requestedSchema": schema } })
}

fn name() -> (&'static str, Value) {
    ("user_name", form("What is your name?", &json!({ "name": { "type": "string" } }), &["name"]))
}

fn confirm() -> (&'static str, Value) {
    ("confirm", form("Please confirm", &json!({ "ok": { "type": "boolean" } }), &["ok"]))
}

fn sample(key: &'static str, text: &str) -> (&'static str, Value) {
    let messages = json!([{ "role": "user", "content": { "type": "text", "text": text } }]);
    (key, json!({ "method": "sampling/createMessage", "params": { "messages": messages, "maxTokens": 100 } }))
}

fn roots() -> (&'static str, Value) {
    ("client_roots", json!({ "method": "roots/list", "params": {} }))
}

fn one(ask: (&'static str, Value), told: fn(&Map<String, Value>) -> String) -> Asked {
    Asked { rounds: vec![vec![ask]], has_state: false, told }
}

fn greeting(all: &Map<String, Value>) -> String {
    format!("Hello, {}!", all["user_name"]["content"]["name"].as_str().unwrap_or("whoever you are"))
}

fn sampled(all: &Map<String, Value>) -> String {
    let answer = all.values().next().unwrap_or(&Value::Null);
    let content = answer["content"].as_array().and_then(|parts| parts.first()).unwrap_or(&answer["content"]);
    format!("LLM response: {}", content["text"].as_str().unwrap_or("none"))
}

fn elicited(all: &Map<String, Value>) -> String {
    let answer = all.values().next().unwrap_or(&Value::Null);
    format!("User response: action={}, content={}", answer["action"].as_str().unwrap_or("none"), answer["content"])
}

fn everything(all: &Map<String, Value>) -> String {
    format!("state-ok: {} answers", all.len())
}

pub(crate) fn of_prompt() -> Asked {
    let asked = form("What context should it use?", &json!({ "context": { "type": "string" } }), &["context"]);
    one(("user_context", asked), |all| format!("In the context of {}", all["user_context"]["content"]["context"]))
}

/// What a tool asks, of those that ask.
pub(crate) fn of_tool(tool: &str, arguments: &Value, able: &ClientCapabilities) -> Option<Asked> {
    Some(match tool {
        "test_sampling" => one(sample("sample", arguments["prompt"].as_str().unwrap_or("Hello")), sampled),
        "test_elicitation" => {
            let message = arguments["message"].as_str().unwrap_or("Who are you?");
            let text = json!({ "type": "string", "description": "Of the user" });
            let asked = form(message, &json!({ "username": text, "email": text }), &["username", "email"]);
            one(("answer", asked), elicited)
        }
        "test_elicitation_sep1034_defaults" => one(("answer", defaults()), elicited),
        "test_elicitation_sep1330_enums" => one(("answer", choices()), elicited),
        "test_streaming_elicitation" | "test_input_required_result_elicitation" => one(name(), greeting),
        "test_input_required_result_sampling" => {
            one(sample("capital_question", "What is the capital of France?"), sampled)
        }
        "test_input_required_result_list_roots" => {
            one(roots(), |all| format!("Roots: {}", all["client_roots"]["roots"]))
        }
        "test_input_required_result_request_state" | "test_input_required_result_tampered_state" => {
            Asked { has_state: true, ..one(confirm(), everything) }
        }
        "test_input_required_result_multiple_inputs" => Asked {
            rounds: vec![vec![name(), sample("greeting", "Generate a greeting"), roots()]],
            has_state: true,
            told: everything,
        },
        "test_input_required_result_multi_round" => {
            let colour = form("Step 2: which colour?", &json!({ "color": { "type": "string" } }), &["color"]);
            Asked {
                rounds: vec![vec![("step1", name().1)], vec![("step2", colour)]],
                has_state: true,
                told: everything,
            }
        }
        "test_input_required_result_capabilities" => {
            let asks = [
                able.elicitation.as_ref().map(|_| name()),
                able.sampling.as_ref().map(|_| sample("greeting", "Generate a greeting")),
                able.roots.as_ref().map(|_| roots()),
            ];
            Asked { rounds: vec![asks.into_iter().flatten().collect()], has_state: false, told: everything }
        }
        _ => return None,
    })
}

fn defaults() -> Value {
    let properties = json!({
        "name": { "type": "string", "description": "A name", "default": "John Doe" },
        "age": { "type": "integer", "description": "An age", "default": 30 },
        "score": { "type": "number", "description": "A score", "default": 95.5 },
        "status": { "type": "string", "enum": ["active", "inactive", "pending"], "default": "active" },
        "verified": { "type": "boolean", "description": "Whether it is so", "default": true },
    });
    form("All of these have defaults", &properties, &[])
}

fn choices() -> Value {
    let plain = json!(["option1", "option2", "option3"]);
    let titled = json!([
        { "const": "value1", "title": "First Option" },
        { "const": "value2", "title": "Second Option" },
        { "const": "value3", "title": "Third Option" },
    ]);
    let properties = json!({
        "untitledSingle": { "type": "string", "enum": plain },
        "titledSingle": { "type": "string", "oneOf": titled },
        "legacyEnum": {
            "type": "string", "enum": ["opt1", "opt2", "opt3"], "enumNames": ["Option One", "Option Two", "Option Three"],
        },
        "untitledMulti": { "type": "array", "items": { "type": "string", "enum": plain } },
        "titledMulti": { "type": "array", "items": { "anyOf": titled } },
    });
    form("Choose", &properties, &[])
}
