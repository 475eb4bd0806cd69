//! What the fixture lists, and answers without further ado.

use serde_json::{Value, json};

/// The resource that is subscribed to.
pub(crate) const WATCHED: &str = "test://watched-resource";
/// A red dot, PNG.
const IMAGE: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==";
/// Silence, WAV.
const AUDIO: &str = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA=";

/// Tools without arguments.
const PLAIN: [&str; 25] = [
    "test_simple_text",
    "test_image_content",
    "test_audio_content",
    "test_embedded_resource",
    "test_multiple_content_types",
    "test_tool_with_logging",
    "test_error_handling",
    "test_tool_with_progress",
    "test_elicitation_sep1034_defaults",
    "test_elicitation_sep1330_enums",
    "test_reconnection",
    "test_trigger_tool_change",
    "test_trigger_prompt_change",
    "test_touch_resource",
    "test_missing_capability",
    "test_streaming_elicitation",
    "test_logging_tool",
    "test_input_required_result_elicitation",
    "test_input_required_result_sampling",
    "test_input_required_result_list_roots",
    "test_input_required_result_request_state",
    "test_input_required_result_multiple_inputs",
    "test_input_required_result_multi_round",
    "test_input_required_result_tampered_state",
    "test_input_required_result_capabilities",
];

pub(crate) fn tools() -> Vec<Value> {
    let tool = |name: &str, schema: Value| json!({ "name": name, "description": format!("The tool {name} of the suite"), "inputSchema": schema });
    let text =
        |name: &str| json!({ "type": "object", "properties": { name: { "type": "string" } }, "required": [name] });
    let header = json!({
        "type": "object", "properties": { "value": { "type": "string", "x-mcp-header": "Value" } }, "required": ["value"],
    });
    let plain = PLAIN.iter().map(|name| tool(name, json!({ "type": "object", "properties": {} })));
    let others = [
        tool("test_sampling", text("prompt")),
        tool("test_elicitation", text("message")),
        tool("test_custom_header", header),
        tool("json_schema_2020_12_tool", schema()),
    ];
    plain.chain(others).collect()
}

/// A schema with what JSON Schema 2020-12 has and older drafts have not.
fn schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": { "address": {
            "$anchor": "addressDef", "type": "object",
            "properties": { "street": { "type": "string" }, "city": { "type": "string" } },
        } },
        "properties": {
            "name": { "type": "string" }, "address": { "$ref": "#/$defs/address" },
            "contactMethod": { "type": "string", "enum": ["phone", "email"] },
            "phone": { "type": "string" }, "email": { "type": "string" },
        },
        "allOf": [{ "anyOf": [{ "required": ["phone"] }, { "required": ["email"] }] }],
        "if": { "properties": { "contactMethod": { "const": "phone" } }, "required": ["contactMethod"] },
        "then": { "required": ["phone"] },
        "else": { "required": ["email"] },
        "additionalProperties": false,
    })
}

fn text(text: &str) -> Value {
    json!({ "type": "text", "text": text })
}

fn image() -> Value {
    json!({ "type": "image", "data": IMAGE, "mimeType": "image/png" })
}

fn embedded(uri: &str, kind: &str, text: &str) -> Value {
    json!({ "type": "resource", "resource": { "uri": uri, "mimeType": kind, "text": text } })
}

/// The result of a tool that has the same for everybody.
pub(crate) fn result(tool: &str) -> Option<Value> {
    let mixed = "test://mixed-content-resource";
    let content = match tool {
        "test_simple_text" | "json_schema_2020_12_tool" => vec![text("This is a simple text response for testing.")],
        "test_image_content" => vec![image()],
        "test_audio_content" => vec![json!({ "type": "audio", "data": AUDIO, "mimeType": "audio/wav" })],
        "test_embedded_resource" => {
            vec![embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")]
        }
        "test_multiple_content_types" => {
            let parts = embedded(mixed, "application/json", r#"{"test":"data","value":123}"#);
            vec![text("Multiple content types test:"), image(), parts]
        }
        "test_error_handling" => vec![text("This tool intentionally returns an error for testing")],
        _ => return None,
    };
    Some(json!({ "resultType": "complete", "content": content, "isError": tool == "test_error_handling" }))
}

pub(crate) fn prompts() -> Vec<Value> {
    let prompt = |name: &str, arguments: &[&str]| {
        let arguments: Vec<_> = arguments.iter().map(|name| json!({ "name": name, "required": true })).collect();
        json!({ "name": name, "description": format!("The prompt {name} of the suite"), "arguments": arguments })
    };
    vec![
        prompt("test_simple_prompt", &[]),
        prompt("test_prompt_with_arguments", &["arg1", "arg2"]),
        prompt("test_prompt_with_embedded_resource", &["resourceUri"]),
        prompt("test_prompt_with_image", &[]),
        prompt(super::asks::PROMPT, &[]),
    ]
}

fn messages(of: impl IntoIterator<Item = Value>) -> Value {
    let messages: Vec<_> = of.into_iter().map(|content| json!({ "role": "user", "content": content })).collect();
    json!({ "resultType": "complete", "messages": messages })
}

/// A prompt of one text.
pub(crate) fn message(said: &str) -> Value {
    messages([text(said)])
}

pub(crate) fn prompt(name: &str, given: &Value) -> Option<Value> {
    let given = |name: &str| given[name].as_str().unwrap_or_default();
    Some(match name {
        "test_simple_prompt" => message("This is a simple prompt for testing."),
        "test_prompt_with_arguments" => {
            message(&format!("Prompt with arguments: arg1='{}', arg2='{}'", given("arg1"), given("arg2")))
        }
        "test_prompt_with_embedded_resource" => messages([
            embedded(given("resourceUri"), "text/plain", "Embedded resource content for testing."),
            text("Please process the embedded resource above."),
        ]),
        "test_prompt_with_image" => messages([image(), text("Please analyze the image above.")]),
        _ => return None,
    })
}

pub(crate) fn resources() -> Vec<Value> {
    let resource = |uri: &str, kind: &str| json!({ "uri": uri, "name": uri.trim_start_matches("test://"), "description": "Of the suite", "mimeType": kind });
    vec![
        resource("test://static-text", "text/plain"),
        resource("test://static-binary", "image/png"),
        resource(WATCHED, "text/plain"),
    ]
}

pub(crate) fn templates() -> Vec<Value> {
    vec![json!({
        "uriTemplate": "test://template/{id}/data", "name": "template", "description": "Of the suite",
        "mimeType": "application/json",
    })]
}

pub(crate) fn resource(uri: &str) -> Option<Value> {
    let contents = match uri {
        "test://static-text" | WATCHED => {
            json!({ "uri": uri, "mimeType": "text/plain", "text": "This is the content of the static text resource." })
        }
        "test://static-binary" => json!({ "uri": uri, "mimeType": "image/png", "blob": IMAGE }),
        _ => {
            let id = uri.strip_prefix("test://template/")?.strip_suffix("/data")?;
            let text = json!({ "id": id, "templateTest": true, "data": format!("Data for ID: {id}") }).to_string();
            json!({ "uri": uri, "mimeType": "application/json", "text": text })
        }
    };
    Some(json!({ "resultType": "complete", "contents": [contents] }))
}
