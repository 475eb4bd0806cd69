//! A tool: its description for clients, and how it is called.

use std::sync::Arc;

use echotune_model::{Call, ErrorKind, Fault};
use futures::future::BoxFuture;
use jsonschema::Validator;
use rmcp::model::{JsonObject, ToolAnnotations};
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::Services;

/// Faults of one call's arguments that are told at the most.
const TOLD: usize = 3;
/// Longest text about one of them, in bytes.
const TOLD_BYTES: usize = 300;

/// What a tool does to the platform. Callers decide by it whether a call may be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Changes nothing.
    Reads,
    /// Adds; the same call again adds nothing.
    Adds,
    /// Takes away; the same call again takes away nothing.
    Removes,
}

type Run = dyn Fn(Services, Call, JsonObject) -> BoxFuture<'static, Result<Value, Fault>> + Send + Sync;

/// A tool of a server.
pub(crate) struct Tool {
    /// What clients are told.
    pub(crate) listed: rmcp::model::Tool,
    pub(crate) effect: Effect,
    arguments: Validator,
    run: Arc<Run>,
}

impl Tool {
    /// A tool that takes an `I` and gives an `O`. Clients read the documentation of their fields.
    pub(crate) fn new<I, O, F, R>(
        name: &'static str,
        title: &'static str,
        description: &'static str,
        effect: Effect,
        run: F,
    ) -> Self
    where
        I: DeserializeOwned + JsonSchema + Send + 'static,
        O: Serialize + JsonSchema + Send + 'static,
        F: Fn(Services, Call, I) -> R + Send + Sync + 'static,
        R: Future<Output = Result<O, Fault>> + Send + 'static,
    {
        let annotations = ToolAnnotations::new()
            .read_only(effect == Effect::Reads)
            .destructive(effect == Effect::Removes)
            .idempotent(true)
            .open_world(false);
        let listed = rmcp::model::Tool::new(name, description, JsonObject::new())
            .with_title(title)
            .with_input_schema::<I>()
            .with_output_schema::<O>()
            .with_annotations(annotations);
        let arguments = jsonschema::validator_for(&listed.schema_as_json_value())
            .expect("a schema derived from a type is a schema");
        let run = Arc::new(move |services: Services, call: Call, arguments: JsonObject| {
            let arguments = serde_json::from_value::<I>(Value::Object(arguments));
            // The schema says the same as the type; what it lets through and the type does not is our fault.
            let answer = arguments.map_err(|cause| Fault::invalid(format!("the arguments of {name}: {cause}")));
            let answer = answer.map(|arguments| run(services, call, arguments));
            let future: BoxFuture<'static, Result<Value, Fault>> = Box::pin(async move {
                serde_json::to_value(answer?.await?)
                    .map_err(|cause| Fault::new(ErrorKind::Internal, format!("the result of {name}: {cause}")))
            });
            future
        });
        Self { listed, effect, arguments, run }
    }

    /// The arguments as the tool takes them.
    ///
    /// # Errors
    /// What is wrong with which field.
    pub(crate) fn check(&self, arguments: Option<JsonObject>) -> Result<JsonObject, Fault> {
        let arguments = arguments.unwrap_or_default();
        self.check_names(&arguments)?;
        let mut value = Value::Object(arguments);
        integers(&mut value);
        let told: Vec<String> = self.arguments.iter_errors(&value).take(TOLD).map(|fault| told(&fault)).collect();
        match value {
            Value::Object(arguments) if told.is_empty() => Ok(arguments),
            _ => Err(Fault::invalid(format!("the arguments of {}: {}", self.listed.name, told.join("; ")))),
        }
    }

    /// Refuses fields that the tool does not have, naming those that it has.
    fn check_names(&self, arguments: &JsonObject) -> Result<(), Fault> {
        let known = self.listed.input_schema.get("properties").and_then(Value::as_object);
        let Some(field) = arguments.keys().find(|field| !known.is_some_and(|known| known.contains_key(*field))) else {
            return Ok(());
        };
        let known = known.map(|known| known.keys().map(String::as_str).collect::<Vec<_>>().join(", "));
        let known = known.filter(|known| !known.is_empty()).unwrap_or_else(|| "none".to_owned());
        let field: String = field.chars().take(64).collect();
        let (name, field) = (&self.listed.name, field.escape_debug());
        Err(Fault::invalid(format!("the arguments of {name}: unknown field '{field}'; the fields are: {known}")))
    }

    /// Calls the tool with arguments that were checked.
    pub(crate) async fn run(&self, services: &Services, call: Call, arguments: JsonObject) -> Result<Value, Fault> {
        (self.run)(services.clone(), call, arguments).await
    }
}

/// One fault with the field it is about, such as `tracks/3/title`.
fn told(fault: &jsonschema::ValidationError<'_>) -> String {
    let path = fault.instance_path().to_string();
    let path = path.trim_start_matches('/');
    let text = if path.is_empty() { fault.to_string() } else { format!("{path}: {fault}") };
    match text.char_indices().nth(TOLD_BYTES) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// JSON knows one kind of number, and some clients write 5 as 5.0; no tool takes fractions.
fn integers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            // 2^53: up to here, a double without fraction is exactly one integer.
            if let Some(float) =
                number.as_f64().filter(|float| number.is_f64() && float.abs() <= 9_007_199_254_740_992.0)
                && float.fract() == 0.0
                && let Ok(whole) = format!("{float:.0}").parse::<i64>()
            {
                *value = whole.into();
            }
        }
        Value::Array(values) => values.iter_mut().for_each(integers),
        Value::Object(fields) => fields.values_mut().for_each(integers),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_without_fraction_are_integers() {
        let mut value = json!({"a": [5.0, 5.5, -3.0, 1e300], "b": "5.0"});
        integers(&mut value);
        assert_eq!(value, json!({"a": [5, 5.5, -3, 1e300], "b": "5.0"}));
    }
}
