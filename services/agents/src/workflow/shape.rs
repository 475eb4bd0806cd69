//! Whether a file has the shape that the JSON Schema of the format promises: every fault, with its
//! place and the way out. It knows the keywords that the generated schema uses.

use serde_json::{Map, Value};

use super::{
    Faults,
    yaml::{Document, join},
};

/// Checks a document against the schema of the format.
pub(crate) fn check(document: &Document, schema: &Value, faults: &mut Faults<'_>) {
    Shape { document, root: schema, faults }.check(schema, &document.value, "");
}

struct Shape<'s, 'f> {
    document: &'s Document,
    root: &'s Value,
    faults: &'s mut Faults<'f>,
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

fn is(value: &Value, kind: &str) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        _ => true,
    }
}

fn wanted(kind: &Value) -> String {
    let name = |kind: &Value| match kind.as_str() {
        Some("object") => "a map",
        Some("array") => "a list",
        Some("string") => "a text",
        Some("integer") => "a whole number",
        Some("number") => "a number",
        Some("boolean") => "true or false",
        _ => "nothing",
    };
    kind.as_array().map_or_else(
        || name(kind).to_owned(),
        |kinds| kinds.iter().filter(|kind| *kind != "null").map(name).collect::<Vec<_>>().join(" or "),
    )
}

impl<'s> Shape<'s, '_> {
    fn fault(&mut self, pointer: &str, message: String) {
        let place = self.document.place(pointer);
        self.faults.add(place, message);
    }

    fn resolve(&self, schema: &'s Value) -> &'s Value {
        let mut schema = schema;
        while let Some(pointer) = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix('#')) {
            schema = self.root.pointer(pointer).unwrap_or(&Value::Null);
        }
        schema
    }

    fn check(&mut self, schema: &'s Value, value: &Value, pointer: &str) {
        let schema = self.resolve(schema);
        if let Some(variants) = schema["oneOf"].as_array() {
            return self.check_tagged(variants, value, pointer);
        }
        if let Some(options) = schema["anyOf"].as_array() {
            // The one form that the format has: something, or null for its absence.
            let some = options.iter().find(|option| option["type"] != "null");
            if let (Some(some), false) = (some, value.is_null()) {
                self.check(some, value, pointer);
            }
            return;
        }
        let kind = &schema["type"];
        let fits = kind.as_array().map_or_else(
            || kind.as_str().is_none_or(|kind| is(value, kind)),
            |kinds| kinds.iter().filter_map(Value::as_str).any(|kind| is(value, kind)),
        );
        if !fits {
            let name = pointer.rsplit('/').next().unwrap_or_default();
            let found = type_of(value);
            return self.fault(pointer, format!("'{name}' is {found}; write {} here", wanted(kind)));
        }
        match value {
            Value::Object(map) => self.check_map(schema, map, pointer),
            Value::Array(items) => self.check_list(schema, items, pointer),
            Value::String(text) => self.check_text(schema, text, pointer),
            Value::Number(number) => self.check_number(schema, number, pointer),
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn check_tagged(&mut self, variants: &'s [Value], value: &Value, pointer: &str) {
        let tag = |schema: &'s Value| schema["properties"]["type"]["const"].as_str().unwrap_or_default();
        let known = || variants.iter().map(tag).collect::<Vec<_>>().join(", ");
        let Some(map) = value.as_object() else {
            return self.fault(pointer, format!("a step is a map with 'id' and 'type', not {}", type_of(value)));
        };
        let Some(given) = map.get("type") else {
            return self.fault(pointer, format!("the step has no 'type'; write one of {}", known()));
        };
        match variants.iter().find(|schema| Some(tag(schema)) == given.as_str()) {
            Some(schema) => self.check_map(schema, map, pointer),
            None => {
                let given = given.as_str().map_or_else(|| given.to_string(), str::to_owned);
                self.fault(&join(pointer, "type"), format!("step type '{given}' is unknown; write one of {}", known()));
            }
        }
    }

    fn check_map(&mut self, schema: &'s Value, map: &Map<String, Value>, pointer: &str) {
        let none = Map::new();
        let properties: &Map<String, Value> = schema["properties"].as_object().unwrap_or(&none);
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !map.contains_key(name) {
                self.fault(pointer, format!("'{name}' is missing; add it"));
            }
        }
        let closed = schema["additionalProperties"] == false;
        for (name, value) in map {
            let inner = join(pointer, name);
            match schema["properties"].get(name) {
                Some(property) => self.check(property, value, &inner),
                None if closed => {
                    let place = self.document.key_place(&inner);
                    let known = properties.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                    self.faults.add(place, format!("field '{name}' is unknown; there are {known}"));
                }
                None => {}
            }
        }
    }

    fn check_list(&mut self, schema: &'s Value, items: &[Value], pointer: &str) {
        let name = pointer.rsplit('/').next().unwrap_or_default().to_owned();
        if schema["minItems"].as_u64().is_some_and(|least| (items.len() as u64) < least) {
            self.fault(pointer, format!("'{name}' is empty; add at least one entry"));
        }
        if let Some(most) = schema["maxItems"].as_u64().filter(|most| items.len() as u64 > *most) {
            self.fault(pointer, format!("'{name}' has {} entries; at most {most} are allowed", items.len()));
        }
        for (index, item) in items.iter().enumerate() {
            self.check(&schema["items"], item, &format!("{pointer}/{index}"));
        }
    }

    fn check_text(&mut self, schema: &Value, text: &str, pointer: &str) {
        let name = pointer.rsplit('/').next().unwrap_or_default().to_owned();
        let length = text.chars().count() as u64;
        if schema["minLength"].as_u64().is_some_and(|least| length < least) {
            self.fault(pointer, format!("'{name}' is empty; write something"));
        }
        if let Some(most) = schema["maxLength"].as_u64().filter(|most| length > *most) {
            self.fault(pointer, format!("'{name}' has {length} characters; at most {most} are allowed"));
        }
        if schema["pattern"].is_string() && !jsonschema::is_valid(&keyword(schema, "pattern"), &text.into()) {
            let shown: String = text.chars().take(80).collect();
            let (letters, most) = if name == "name" { ("'-'", 64) } else { ("'_'", 64) };
            self.fault(
                pointer,
                format!(
                    "'{shown}' is no {name}; use a lower-case letter, then lower-case letters, digits and {letters}, {most} at the most"
                ),
            );
        }
    }

    fn check_number(&mut self, schema: &Value, number: &serde_json::Number, pointer: &str) {
        let name = pointer.rsplit('/').next().unwrap_or_default().to_owned();
        let value = number.as_f64().unwrap_or(f64::NAN);
        let (least, most) = (schema["minimum"].as_f64(), schema["maximum"].as_f64());
        if least.is_some_and(|least| value < least) || most.is_some_and(|most| value > most) {
            let most = most.map_or_else(String::new, |most| format!(" and {most} at the most"));
            self.fault(pointer, format!("'{name}' is {number}; it must be at least {}{most}", least.unwrap_or(0.0)));
        }
    }
}

fn keyword(schema: &Value, name: &str) -> Value {
    Value::Object([(name.to_owned(), schema[name].clone())].into_iter().collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::workflow::format::workflow_schema;

    /// A value that has every type of step.
    fn whole() -> Value {
        json!({
            "name": "whole", "description": "All of it.", "version": 1, "input": {"properties": {}},
            "budget": {"steps": 1, "tool_calls": 0, "wall_ms": 1},
            "output": {"value": [1, {"a": null}], "schema": {"type": "array"}},
            "steps": [
                {"id": "a", "type": "tool", "tool": "t", "args": {"x": 1}, "timeout_ms": 5, "attempts": 2, "output": {}},
                {"id": "b", "type": "parallel", "branches": [{"id": "c", "steps": [{"id": "d", "type": "approval", "message": "?"}]}]},
                {"id": "e", "type": "gate", "conditions": [{"name": "n", "that": "true"}], "otherwise": {"retry": "a", "attempts": 2, "args": {}}},
                {"id": "f", "type": "retry", "attempts": 2, "steps": [{"id": "g", "type": "workflow", "workflow": "w"}], "until": []},
            ],
        })
    }

    fn pointers(value: &Value, at: &str, all: &mut Vec<String>) {
        all.push(at.to_owned());
        match value {
            Value::Object(map) => map.iter().for_each(|(key, inner)| pointers(inner, &join(at, key), all)),
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(index, inner)| pointers(inner, &format!("{at}/{index}"), all));
            }
            _ => {}
        }
    }

    fn anything() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-5_i64..200).prop_map(Value::from),
            (0.0..2.0_f64).prop_map(Value::from),
            "[a-zA-Z_-]{0,12}".prop_map(Value::from),
            Just(json!([])),
            Just(json!({})),
            Just(json!({"id": "z", "type": "tool", "tool": "t"})),
            Just(json!([{"id": "z", "type": "model"}])),
        ]
    }

    proptest! {
        /// The reader refuses what a validator of JSON Schema refuses, and nothing else.
        #[test]
        fn shapes_are_what_the_schema_says(place in any::<prop::sample::Index>(), value in anything(), key in "[a-z]{1,6}", how in 0..3) {
            let (mut document, mut all) = (whole(), Vec::new());
            pointers(&document, "", &mut all);
            let at = place.get(&all).clone();
            let target = document.pointer_mut(&at).expect("a pointer of the document");
            match (how, target) {
                (0, Value::Object(map)) => drop(map.insert(key, value)),
                (1, Value::Object(map)) => drop(map.remove(&key).or_else(|| map.keys().next().cloned().and_then(|key| map.remove(&key)))),
                (_, target) => *target = value,
            }
            let schema = workflow_schema();
            let text = document.to_string();
            let mut faults = Faults { file: "test", found: Vec::new() };
            let read = Document::read(&text).expect("JSON is YAML");
            prop_assert_eq!(&read.value, &document);
            check(&read, &schema, &mut faults);
            prop_assert_eq!(faults.found.is_empty(), jsonschema::is_valid(&schema, &document), "{}: {:?}", text, faults.found);
        }
    }
}
