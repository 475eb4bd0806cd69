use std::sync::Arc;

use jsonschema::Validator;
use serde_json::{Map, Value};

/// Faults of one value that are told at the most.
const TOLD: usize = 5;

/// A JSON Schema that is ready to check values. It reads nothing from elsewhere.
#[derive(Debug, Clone)]
pub(crate) struct Schema(Arc<Validator>);

impl Schema {
    /// Reads a schema.
    ///
    /// # Errors
    /// Why it is none.
    pub(crate) fn read(schema: &Value) -> Result<Self, String> {
        jsonschema::validator_for(schema).map(|validator| Self(Arc::new(validator))).map_err(|error| error.to_string())
    }

    /// Whether a value satisfies it.
    ///
    /// # Errors
    /// The first few ways in which it does not.
    pub(crate) fn check(&self, value: &Value) -> Result<(), String> {
        let faults: Vec<String> = self
            .0
            .iter_errors(value)
            .take(TOLD)
            .map(|error| {
                let at = error.instance_path().to_string();
                let message: String = error.to_string().chars().take(300).collect();
                if at.is_empty() { message } else { format!("{at}: {message}") }
            })
            .collect();
        if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) }
    }
}

/// An input with the defaults of the schema's properties filled in.
pub(crate) fn with_defaults(schema: &Value, input: &Map<String, Value>) -> Map<String, Value> {
    let mut filled = input.clone();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        if let (None, Some(default)) = (filled.get(name), property.get("default")) {
            filled.insert(name.clone(), default.clone());
        }
    }
    filled
}
