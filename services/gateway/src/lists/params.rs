//! Arguments of tools that travel as headers too (2026-07-28, Streamable HTTP, "Custom Headers from Tool Parameters").

use http::{HeaderMap, HeaderName};
use serde_json::{Map, Value};

use crate::message::{Json, Malformed, Object, encode_header};

const ANNOTATION: &str = "x-mcp-header";
const PREFIX: &str = "mcp-param-";

/// Which arguments of a tool are sent as which headers: paths of names, and the header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ParamHeaders(Vec<(Vec<String>, HeaderName)>);

impl ParamHeaders {
    /// Reads the schema of a tool's arguments.
    ///
    /// An annotation where none may be makes the tool one that may not be listed.
    pub(super) fn read(schema: Option<&Json>) -> Result<Self, Malformed> {
        // Few tools have any, and schemas are long.
        let Some(schema) = schema.filter(|schema| contains(schema.bytes(), ANNOTATION.as_bytes())) else {
            return Ok(Self::default());
        };
        let schema: Value = schema.read().ok_or_else(|| Malformed("'inputSchema' cannot be read".to_owned()))?;
        let mut found = Self::default();
        found.properties(&schema, &mut Vec::new())?;
        if found.0.len() != count(&schema) {
            return Err(Malformed(format!("'{ANNOTATION}' stands where no single argument is meant")));
        }
        Ok(found)
    }

    fn properties(&mut self, schema: &Value, path: &mut Vec<String>) -> Result<(), Malformed> {
        let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return Ok(()) };
        for (name, property) in properties {
            path.push(name.clone());
            if let Some(header) = property.get(ANNOTATION) {
                self.add(header, property, path)?;
            }
            self.properties(property, path)?;
            path.pop();
        }
        Ok(())
    }

    fn add(&mut self, header: &Value, property: &Value, path: &[String]) -> Result<(), Malformed> {
        let name = header.as_str().filter(|name| !name.is_empty()).unwrap_or_default();
        let full = HeaderName::from_bytes(format!("{PREFIX}{name}").as_bytes()).ok().filter(|_| !name.is_empty());
        let full = full.ok_or_else(|| Malformed(format!("'{ANNOTATION}' is no name of a header")))?;
        if !matches!(property.get("type").and_then(Value::as_str), Some("string" | "integer" | "boolean")) {
            return Err(Malformed(format!("'{ANNOTATION}: {name}' is at no string, integer or boolean")));
        }
        if self.0.iter().any(|(_, known)| *known == full) {
            return Err(Malformed(format!("'{ANNOTATION}: {name}' comes twice")));
        }
        self.0.push((path.to_vec(), full));
        Ok(())
    }

    /// The headers of a call, for a client that does not know of them.
    pub(crate) fn of(&self, arguments: Option<&Json>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if self.0.is_empty() {
            return headers;
        }
        for (path, name) in &self.0 {
            let value =
                path.iter().try_fold(arguments.cloned(), |of, step| Some(Object::read(&of?).ok()?.get(step).cloned()));
            let text = match value.flatten().and_then(|value| value.read::<Value>()) {
                Some(Value::String(text)) => text,
                Some(value @ (Value::Number(_) | Value::Bool(_))) => value.to_string(),
                _ => continue,
            };
            headers.insert(name.clone(), encode_header(&text));
        }
        headers
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// How many annotations there are anywhere.
fn count(value: &Value) -> usize {
    let of_map = |map: &Map<String, Value>| {
        let here = usize::from(map.contains_key(ANNOTATION));
        // A property may have that name; then it is not the annotation of what has the properties.
        let named = map.get("properties").and_then(|of| of.get(ANNOTATION)).is_some_and(Value::is_object);
        let below: usize = map.values().map(count).sum();
        here + below - usize::from(named)
    };
    match value {
        Value::Object(map) => of_map(map),
        Value::Array(values) => values.iter().map(count).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(schema: &Value) -> Result<ParamHeaders, Malformed> {
        ParamHeaders::read(Some(&Json::of(schema)))
    }

    #[test]
    fn arguments_become_headers_where_they_are_there() {
        let schema = json!({"type": "object", "properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "inner": {"type": "object", "properties": {"count": {"type": "integer", "x-mcp-header": "Count"}}},
        }});
        let headers = read(&schema).expect("valid");
        let of = headers.of(Some(&Json::of(&json!({"region": "zürich", "inner": {"count": 7}}))));
        assert_eq!(of["mcp-param-region"], "=?base64?esO8cmljaA==?=");
        assert_eq!(of["mcp-param-count"], "7");
        assert!(headers.of(Some(&Json::of(&json!({"region": null})))).is_empty());
        assert!(headers.of(None).is_empty());
    }

    #[test]
    fn annotations_elsewhere_make_a_tool_invalid() {
        let string = || json!({"type": "string", "x-mcp-header": "A"});
        for schema in [
            json!({"properties": {"a": {"type": "array", "items": string()}}}),
            json!({"properties": {"a": {"anyOf": [string()]}}}),
            json!({"properties": {"a": {"type": "number", "x-mcp-header": "A"}}}),
            json!({"properties": {"a": {"type": "string", "x-mcp-header": ""}}}),
            json!({"properties": {"a": {"type": "string", "x-mcp-header": "a b"}}}),
            json!({"properties": {"a": string(), "b": {"type": "string", "x-mcp-header": "a"}}}),
            json!({"x-mcp-header": "A", "properties": {}}),
        ] {
            assert!(read(&schema).is_err(), "{schema}");
        }
        assert!(read(&json!({"properties": {"x-mcp-header": {"type": "string"}}})).is_ok());
    }
}
