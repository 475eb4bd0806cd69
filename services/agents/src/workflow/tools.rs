//! Arguments of a step against the schema of its tool, as far as they are known before a run.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::schema::Schema;
use crate::{expr::Template, tools::ToolInfo};

/// What is wrong with the arguments for a tool: the name of the argument (empty for all) and why.
/// `required` is false for arguments that only replace others.
pub(super) fn faults(
    tool: &str,
    info: &ToolInfo,
    args: &BTreeMap<String, Template>,
    required: bool,
) -> Vec<(String, String)> {
    let mut faults = Vec::new();
    let schema = info.input_schema.as_ref();
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if required && !args.contains_key(name) {
            faults.push((String::new(), format!("tool '{tool}' needs the argument '{name}'; add it")));
        }
    }
    for (name, template) in args {
        let property = &schema["properties"][name];
        if property.is_null() {
            if schema["additionalProperties"] == false {
                let known = schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name.as_str());
                let known = known.collect::<Vec<_>>().join(", ");
                faults.push((name.clone(), format!("tool '{tool}' has no argument '{name}'; it has {known}")));
            }
            continue;
        }
        let Some(literal) = template.literal() else { continue };
        // Definitions travel along, so that references within the property still lead somewhere.
        let alone = json!({"$defs": schema["$defs"], "definitions": schema["definitions"], "allOf": [property]});
        let alone = without_null(alone);
        if let Ok(schema) = Schema::read(&alone)
            && let Err(why) = schema.check(&literal)
        {
            faults.push((name.clone(), format!("tool '{tool}' does not take this '{name}': {why}")));
        }
    }
    faults
}

fn without_null(mut schema: Value) -> Value {
    if let Some(map) = schema.as_object_mut() {
        map.retain(|_, value| !value.is_null());
    }
    schema
}
