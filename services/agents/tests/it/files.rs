//! Workflow files with faults: each is told with its file, line and column, and what to do.

use echotune_agents::{LoadError, WorkflowFault, workflow_schema};

use crate::{
    faces::{load, quick},
    server::toolbox,
};

const GOOD: &str = r#"name: good
description: A workflow without faults.
version: 1
input:
  properties:
    n: {type: integer, default: 1}
budget: {steps: 10, tool_calls: 10, wall_ms: 1000}
steps:
  - id: one
    type: tool
    tool: strict
    args: {user: "${ user }", limit: 5}
  - id: two
    type: tool
    tool: echo
    args: {seen: "${ steps.one.user }"}
  - id: three
    type: gate
    conditions:
      - {name: fine, that: steps.two.seen == user}
    otherwise: {retry: one, attempts: 2, args: {limit: 6}}
output: {value: "${ steps.two.seen }"}
"#;

async fn faults(texts: &[&str]) -> Vec<WorkflowFault> {
    let (folder, toolbox) = (tempfile::tempdir().expect("folder"), toolbox());
    let served = toolbox.serve("test", None).await;
    match load(&folder, vec![served.server()], texts, quick()).await {
        Ok(_) => Vec::new(),
        Err(LoadError::Workflows(faults)) => faults,
        Err(other) => panic!("{other}"),
    }
}

/// The one fault of the good file with one part replaced: line, and words of its message.
async fn refused(from: &str, to: &str, line: u64, words: &[&str]) {
    assert!(GOOD.contains(from), "{from}");
    let text = GOOD.replacen(from, to, 1);
    let found = faults(&[&text]).await;
    assert_eq!(found.len(), 1, "{to}: {found:?}");
    assert_eq!((found[0].file.as_str(), found[0].line), ("1.yaml", line), "{to}: {found:?}");
    for word in words {
        assert!(found[0].message.contains(word), "{to}: {found:?} has no {word:?}");
    }
    assert!(found[0].to_string().starts_with(&format!("1.yaml:{line}:{}: ", found[0].column)));
}

macro_rules! refusals {
    ($($test:ident: $from:expr => $to:expr, line $line:expr, $words:expr;)*) => {$(
        #[tokio::test]
        async fn $test() {
            refused($from, $to, $line, &$words).await;
        }
    )*};
}

refusals! {
    an_unknown_step_type: "type: gate" => "type: model", line 18, ["step type 'model'", "tool, parallel, gate"];
    an_unknown_field: "version: 1" => "version: 1\nverson: 2", line 4, ["field 'verson' is unknown", "version"];
    an_unknown_field_of_a_step: "    tool: echo" => "    tool: echo\n    retries: 3", line 16, ["'retries'", "attempts"];
    a_missing_field: "    tool: echo\n" => "", line 13, ["'tool' is missing"];
    a_missing_type: "    type: gate\n" => "", line 17, ["no 'type'"];
    a_wrong_type_of_value: "version: 1" => "version: one", line 3, ["'version' is a text", "whole number"];
    a_value_out_of_range: "attempts: 2" => "attempts: 99", line 21, ["'attempts' is 99", "20 at the most"];
    a_bad_name: "name: good" => "name: Good One", line 1, ["'Good One' is no name", "lower-case"];
    a_bad_id: "id: two" => "id: Two!", line 13, ["'Two!' is no id"];
    no_yaml: "version: 1" => "version: [1", line 4, ["no YAML"];
    a_key_twice: "version: 1" => "version: 1\nversion: 2", line 4, ["no YAML", "version"];
    an_unknown_step: "steps.one.user" => "steps.won.user", line 16, ["no step 'won'", "one"];
    a_later_step: "\"${ user }\"" => "\"${ steps.two.x }\"", line 12, ["'two' comes later"];
    the_step_itself: "steps.one.user" => "steps.two.user", line 16, ["'two' is not known here"];
    steps_as_a_whole: "steps.one.user" => "steps['one']", line 16, ["steps.ID"];
    an_expression_that_cannot_be_read: "steps.one.user" => "steps.one..", line 16, ["no expression of CEL"];
    an_expression_without_end: "${ steps.one.user }\"}" => "${ steps.one.user\"}", line 16, ["without its '}'"];
    an_unknown_variable: "steps.one.user" => "inputs.n", line 16, ["'inputs' is unknown", "input, user, attempt"];
    an_unknown_function: "steps.one.user" => "now()", line 16, ["function 'now'"];
    a_condition_that_cannot_be_read: "steps.two.seen == user" => "steps.two.seen ==", line 20, ["no expression"];
    a_missing_tool: "tool: echo" => "tool: ecco", line 15, ["no MCP server has a tool 'ecco'", "echo, effect"];
    a_missing_argument: "user: \"${ user }\", " => "", line 11, ["needs the argument 'user'"];
    an_unknown_argument: "limit: 5" => "limits: 5", line 12, ["has no argument 'limits'", "limit, user"];
    a_literal_argument_of_the_wrong_type: "limit: 5" => "limit: 501", line 12, ["does not take this 'limit'", "500"];
    a_changed_argument_of_the_wrong_type: "{limit: 6}" => "{limit: six}", line 21, ["does not take this 'limit'"];
    an_id_twice: "id: three" => "id: two", line 17, ["id 'two' is used twice"];
    a_gate_that_goes_nowhere: "retry: one" => "retry: won", line 21, ["no step 'won'"];
    a_gate_that_goes_forward: "retry: one" => "retry: three", line 21, ["no earlier step"];
    a_default_that_is_not_allowed: "default: 1" => "default: one", line 6, ["default of 'n'"];
    an_input_that_is_no_schema: "type: integer, default: 1" => "type: whole", line 5, ["no JSON Schema"];
    an_output_schema_that_is_none: "output: {value: \"${ steps.two.seen }\"}" => "output: {value: 1, schema: {type: 7}}", line 22, ["no JSON Schema"];
    a_workflow_that_is_not_there: "    type: tool\n    tool: echo" => "    type: workflow\n    workflow: gone", line 15, ["no workflow 'gone'", "good"];
    a_workflow_within_itself: "    type: tool\n    tool: echo" => "    type: workflow\n    workflow: good", line 15, ["contains itself: good → good"];
}

#[tokio::test]
async fn the_good_file_has_no_faults() {
    assert_eq!(faults(&[GOOD]).await, []);
}

#[tokio::test]
async fn all_faults_of_all_files_are_told_at_once() {
    let one = GOOD.replace("tool: echo", "tool: ecco").replace("steps.one.user", "steps.won.user");
    let two = GOOD.replace("type: gate", "type: model").replace("version: 1", "version: 0").replace("good", "other");
    let found = faults(&[&one, &two]).await;
    let places: Vec<_> = found.iter().map(|fault| (fault.file.as_str(), fault.line)).collect();
    // Line 15 is the one of 'tool' in the first file, and its arguments are on line 16.
    assert_eq!(places.len(), 4, "{found:?}");
    assert!(places[..2].iter().all(|place| place.0 == "1.yaml") && places[2..].iter().all(|place| place.0 == "2.yaml"));
}

#[tokio::test]
async fn two_workflows_of_one_name_and_a_circle_of_two_are_told() {
    let found = faults(&[GOOD, GOOD]).await;
    assert!(found.len() == 1 && found[0].message.contains("already in 1.yaml"), "{found:?}");
    let calls = |name: &str, other: &str| {
        GOOD.replace("name: good", &format!("name: {name}")).replace(
            "type: tool\n    tool: echo\n    args: {seen: \"${ steps.one.user }\"}",
            &format!("type: workflow\n    workflow: {other}"),
        )
    };
    let found = faults(&[&calls("a", "b"), &calls("b", "a")]).await;
    assert!(found.len() == 2 && found[0].message.contains("a → b → a"), "{found:?}");
}

#[tokio::test]
async fn limits_are_told() {
    let long = format!("{GOOD}# {}\n", "x".repeat(262_144));
    let found = faults(&[&long]).await;
    assert!(found[0].message.contains("at most 262144"), "{found:?}");
    let step = "  - {id: sN, type: tool, tool: echo}\n";
    let many: String = (0..201).map(|number| step.replace("sN", &format!("s{number}"))).collect();
    let found = faults(&[&GOOD.replace("steps:\n", &format!("steps:\n{many}"))]).await;
    assert!(
        found.iter().any(|fault| fault.message.contains("at most 200") || fault.message.contains("more than 200")),
        "{found:?}"
    );
    let mut deep = "{id: s9, type: tool, tool: echo}".to_owned();
    for level in (0..9).rev() {
        deep = format!("{{id: s{level}, type: retry, attempts: 2, steps: [{deep}]}}");
    }
    let found = faults(&[&GOOD.replace("steps:\n", &format!("steps:\n  - {deep}\n"))]).await;
    assert!(found.len() == 1 && found[0].message.contains("at most 8"), "{found:?}");
    let long = GOOD.replace("steps.one.user", &format!("'{}'", "x".repeat(3_000)));
    let found = faults(&[&long]).await;
    assert!(found.len() == 1 && found[0].message.contains("at most 2048"), "{found:?}");
}

#[test]
fn the_schema_of_the_format_says_what_the_reader_does() {
    let schema = workflow_schema();
    let kept: serde_json::Value =
        serde_json::from_str(include_str!("../../workflows/workflow.schema.json")).expect("JSON");
    assert!(kept == schema, "workflows/workflow.schema.json is not the schema of the format: write\n{schema:#}");
    assert!(jsonschema::meta::is_valid(&schema));
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let json = |text: &str| serde_saphyr::from_str::<serde_json::Value>(text).expect("YAML");
    assert!(validator.is_valid(&json(GOOD)));
    for (_, text) in echotune_agents::bundled() {
        assert!(validator.is_valid(&json(&text)), "{text}");
    }
    for (from, to) in [
        ("type: gate", "type: model"),
        ("version: 1", "verson: 1"),
        ("attempts: 2", "attempts: 99"),
        ("id: two", "id: Two!"),
        ("    tool: echo", "    tool: echo\n    retries: 3"),
    ] {
        assert!(!validator.is_valid(&json(&GOOD.replacen(from, to, 1))), "{to}");
    }
}
