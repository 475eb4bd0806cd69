//! What JSON.md tells of the JSON that commands print; for the tests of the commands and for those of what prints it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

const PAGE: &str = include_str!("../../JSON.md");
/// Objects whose keys are data.
const MAPS: [&str; 6] = ["addresses", "attributes", "by", "counts", "erased", "rows"];
/// What workflows define.
const ANY: [&str; 7] = ["content", "detail", "input", "input_schema", "output", "record", "structured"];

/// The type of a value as JSON.md writes it.
pub(crate) fn shape(name: &str, value: &Value) -> String {
    if ANY.contains(&name) {
        return "any".to_owned();
    }
    if ["was", "bound", "measured"].contains(&name) {
        return "null | number".to_owned();
    }
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "boolean".to_owned(),
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "string".to_owned(),
        Value::Array(rows) => format!("[{}]", one_of(rows.iter().map(|row| shape("", row)))),
        Value::Object(map) if MAPS.contains(&name) => {
            format!("{{NAME: {}}}", one_of(map.values().map(|value| shape("", value))))
        }
        // Null for most.
        Value::Object(_) if name == "moving" => format!("null | {}", shape("", value)),
        Value::Object(map) => {
            let fields: Vec<_> = map.iter().map(|(key, value)| format!("{key}: {}", shape(key, value))).collect();
            format!("{{{}}}", fields.join(", "))
        }
    }
}

fn one_of(shapes: impl Iterator<Item = String>) -> String {
    shapes.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(" | ")
}

/// The shapes of the page, by the command above them, with the option by which it prints another.
pub(crate) fn told() -> BTreeMap<String, String> {
    let mut told = BTreeMap::new();
    for section in PAGE.split("\n## ").skip(1) {
        let (command, rest) = section.split_once('\n').expect("a heading");
        let command = command.trim();
        let mut name = command.to_owned();
        for block in rest.split("```text\n").skip(1) {
            let (shape, below) = block.split_once("```").expect("the end of a shape");
            let shape = shape.split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(told.insert(name, shape), None, "{command} is told twice");
            // Above a further shape stands "With `--option`:".
            name = format!("{command} {}", below.split('`').nth(1).unwrap_or_default());
        }
        assert!(told.contains_key(command), "{command} has no shape");
    }
    told
}

/// That what a command prints has the shape that the page tells.
pub(crate) fn check(command: &str, value: &Value) {
    assert_eq!(told().remove(command), Some(shape("", value)), "{command}");
}
