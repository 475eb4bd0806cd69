//! The definitions as they are installed.

use echotune_controller::crd::{definitions, yaml};
use serde_json::Value;

fn schemas() -> Vec<(String, Value)> {
    let schema =
        |definition: k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition| {
            let name = definition.metadata.name.clone().expect("a name");
            let version = &definition.spec.versions[0];
            (name, serde_json::to_value(&version.schema).expect("JSON")["openAPIV3Schema"].clone())
        };
    definitions().map(schema).into()
}

/// What Kubernetes refuses in a structural schema.
fn structural(path: &str, schema: &Value, faults: &mut Vec<String>) {
    let Some(fields) = schema.as_object() else { return };
    for forbidden in ["$ref", "definitions", "patternProperties", "$defs", "const", "if"] {
        if fields.contains_key(forbidden) {
            faults.push(format!("{path} has {forbidden}"));
        }
    }
    if !fields.contains_key("type") && !fields.contains_key("x-kubernetes-int-or-string") {
        faults.push(format!("{path} has no type: {schema}"));
    }
    for (name, value) in fields.get("properties").and_then(Value::as_object).into_iter().flatten() {
        structural(&format!("{path}.{name}"), value, faults);
    }
    for within in ["items", "additionalProperties"] {
        if let Some(value) = fields.get(within).filter(|value| value.is_object()) {
            structural(&format!("{path}.{within}"), value, faults);
        }
    }
}

#[test]
fn schemas_are_structural_and_every_field_is_explained() {
    let mut faults = Vec::new();
    for (name, schema) in schemas() {
        structural(&name, &schema, &mut faults);
        let spec = schema["properties"]["spec"]["properties"].as_object().expect("fields");
        let silent = spec.iter().filter(|(_, field)| field["description"].is_null()).map(|(name, _)| name);
        faults.extend(silent.map(|field| format!("{name} does not explain {field}")));
    }
    assert_eq!(faults, Vec::<String>::new());
}

#[test]
fn defaults_are_those_of_the_program_and_the_rules_are_there() {
    let all = schemas();
    let spec = &all[0].1["properties"]["spec"];
    assert_eq!(spec["properties"]["port"]["default"], 8080);
    assert_eq!(spec["properties"]["sessions"]["default"], "OnPod");
    let rules = spec["x-kubernetes-validations"].as_array().expect("rules");
    assert!(rules.len() >= 4 && rules.iter().all(|rule| rule["message"].is_string()), "{rules:?}");
    assert!(all[0].1["x-kubernetes-validations"].is_array(), "the name is bounded");
    assert_eq!(all[1].1["properties"]["spec"]["properties"]["maxPods"]["default"], 10);
}

#[test]
fn both_definitions_are_one_file_with_scale_and_status() {
    let text = yaml().expect("YAML");
    assert_eq!(text.matches("---\n").count(), 2);
    for part in ["mcpservers.mcp.echotune.internal", "mcpscalingpolicies.mcp.echotune.internal", "specReplicasPath"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let [servers, _] = definitions();
    let version = &servers.spec.versions[0];
    let parts = version.subresources.as_ref().expect("subresources");
    assert!(parts.status.is_some());
    assert_eq!(parts.scale.as_ref().and_then(|scale| scale.label_selector_path.as_deref()), Some(".status.selector"));
    assert!(version.served && version.storage);
}
