//! The format of workflow files. What serde reads and what the JSON Schema promises come from the
//! same types.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::{Map, Value};

/// A declared workflow: steps taken in order, durably, through the tools of MCP servers.
///
/// Text of the form `${ EXPRESSION }` is evaluated (CEL). Expressions may use `input`, `user` (the name
/// of the listener), `attempt` (from 1, within what is repeated) and `steps.ID` for the result of an
/// earlier step.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WorkflowFile {
    /// Unique name: lower-case letters, digits and '-'.
    #[schemars(regex(pattern = r"^[a-z][a-z0-9-]{0,63}$"))]
    pub(crate) name: String,
    /// What it does, in one sentence.
    #[schemars(length(min = 1, max = 1024))]
    pub(crate) description: String,
    /// Version of this text, counted by its author.
    #[schemars(range(min = 1))]
    pub(crate) version: u32,
    /// JSON Schema of the input: an object whose properties may have defaults.
    #[serde(default)]
    pub(crate) input: Map<String, Value>,
    /// What the run answers.
    pub(crate) output: OutputFile,
    /// What a run may use at the most.
    pub(crate) budget: BudgetFile,
    /// The steps, in order.
    #[schemars(length(min = 1, max = 200))]
    pub(crate) steps: Vec<StepFile>,
}

/// What a run answers.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OutputFile {
    /// The answer, with expressions over the results of the steps.
    pub(crate) value: Value,
    /// JSON Schema that the answer must satisfy.
    #[serde(default)]
    pub(crate) schema: Option<Map<String, Value>>,
}

/// What a run may use at the most, its sub-workflows included.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BudgetFile {
    /// Steps begun, repetitions included.
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) steps: u32,
    /// Tool calls, retries included.
    #[schemars(range(min = 0, max = 1000))]
    pub(crate) tool_calls: u32,
    /// Time in which steps are taken, in milliseconds; waiting for a person, for a place among the
    /// running ones or for a restart does not count.
    #[schemars(range(min = 1, max = 86_400_000))]
    pub(crate) wall_ms: u64,
}

/// A call of one tool.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ToolFile {
    /// Name of the step, unique in the file.
    pub(crate) id: Id,
    /// Name of the tool.
    #[schemars(length(min = 1, max = 128))]
    pub(crate) tool: String,
    /// Arguments, with expressions.
    #[serde(default)]
    pub(crate) args: Map<String, Value>,
    /// How long one call may take, in milliseconds.
    #[serde(default = "default_timeout")]
    #[schemars(range(min = 1, max = 3_600_000))]
    pub(crate) timeout_ms: u64,
    /// How often a call that failed without harm is made at the most: one that was not sent, or one of
    /// a tool that is read-only or idempotent.
    #[serde(default = "default_attempts")]
    #[schemars(range(min = 1, max = 20))]
    pub(crate) attempts: u32,
    /// JSON Schema that the result must satisfy, besides the tool's own.
    #[serde(default)]
    pub(crate) output: Option<Map<String, Value>>,
}

const fn default_timeout() -> u64 {
    30_000
}

const fn default_attempts() -> u32 {
    3
}

/// Branches that are taken side by side. Its result has the result of the last step of each branch.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ParallelFile {
    /// Name of the step, unique in the file.
    pub(crate) id: Id,
    /// The branches.
    #[schemars(length(min = 1, max = 32))]
    pub(crate) branches: Vec<BranchFile>,
}

/// One of several branches.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BranchFile {
    /// Name of the branch, unique in the file.
    pub(crate) id: Id,
    /// Its steps, in order.
    #[schemars(length(min = 1, max = 200))]
    pub(crate) steps: Vec<StepFile>,
}

/// Something that must be true.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConditionFile {
    /// What it says, for people.
    #[schemars(length(min = 1, max = 256))]
    pub(crate) name: String,
    /// The expression, without `${ }`; it must give true or false.
    #[schemars(length(min = 1, max = 2048))]
    pub(crate) that: String,
}

/// Goes on only when all conditions hold.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GateFile {
    /// Name of the step, unique in the file.
    pub(crate) id: Id,
    /// What must be true.
    #[schemars(length(min = 1, max = 32))]
    pub(crate) conditions: Vec<ConditionFile>,
    /// What happens otherwise; the run fails when nothing is said.
    #[serde(default)]
    pub(crate) otherwise: Option<OtherwiseFile>,
}

/// What happens when a gate is closed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OtherwiseFile {
    /// The earlier step of the same list, of type `tool` or `workflow`, to go back to.
    pub(crate) retry: Id,
    /// How often that step is taken at the most, the first time included.
    #[schemars(range(min = 2, max = 20))]
    pub(crate) attempts: u32,
    /// Arguments that replace those of the step, with expressions over what is known at the gate.
    #[serde(default)]
    pub(crate) args: Map<String, Value>,
}

/// Steps that are repeated when one of them fails or a condition does not hold after them. `attempt`
/// tells their expressions which time it is. Its result is that of its last step.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RetryFile {
    /// Name of the step, unique in the file.
    pub(crate) id: Id,
    /// How often at the most, the first time included.
    #[schemars(range(min = 2, max = 20))]
    pub(crate) attempts: u32,
    /// The steps, in order.
    #[schemars(length(min = 1, max = 200))]
    pub(crate) steps: Vec<StepFile>,
    /// What must be true after them.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub(crate) until: Vec<ConditionFile>,
}

/// Waits for a person. Its result is `{approved: true, comment}`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApprovalFile {
    /// Name of the step, unique in the file.
    pub(crate) id: Id,
    /// What is asked, with expressions.
    #[schemars(length(min = 1, max = 4096))]
    pub(crate) message: String,
    /// For how long, in milliseconds; the step fails when nobody has decided by then.
    #[serde(default = "default_patience")]
    #[schemars(range(min = 1, max = 7_776_000_000_u64))]
    pub(crate) timeout_ms: u64,
}

const fn default_patience() -> u64 {
    7 * 24 * 3_600 * 1_000
}

/// Another workflow as one step. Its result is the output of that workflow.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SubWorkflowFile {
    /// Name of the step, unique in the file.
    pub(crate) id: Id,
    /// Name of the other workflow.
    #[schemars(length(min = 1, max = 64))]
    pub(crate) workflow: String,
    /// Its input, with expressions.
    #[serde(default)]
    pub(crate) args: Map<String, Value>,
}

/// Name of a step or branch: a lower-case letter, then lower-case letters, digits and '_'.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(transparent)]
pub(crate) struct Id(#[schemars(regex(pattern = r"^[a-z][a-z0-9_]{0,63}$"))] pub(crate) String);

/// A step, by its `type`.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum StepFile {
    Tool(ToolFile),
    Parallel(ParallelFile),
    Gate(GateFile),
    Retry(RetryFile),
    Approval(ApprovalFile),
    Workflow(SubWorkflowFile),
}

type Subschema = fn(&mut SchemaGenerator) -> Schema;

/// The types of steps; what is added to [`StepFile`] is added here.
const STEP_TYPES: [(&str, Subschema); 6] = [
    ("tool", ToolFile::json_schema),
    ("parallel", ParallelFile::json_schema),
    ("gate", GateFile::json_schema),
    ("retry", RetryFile::json_schema),
    ("approval", ApprovalFile::json_schema),
    ("workflow", SubWorkflowFile::json_schema),
];

impl JsonSchema for StepFile {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Step".into()
    }

    /// Each type as one closed object with its tag, so that other validators refuse what this one does.
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let variants: Vec<Value> = STEP_TYPES
            .iter()
            .map(|(tag, subschema)| {
                let mut schema = subschema(generator).to_value();
                schema["properties"]["type"] = serde_json::json!({"const": tag});
                if let Some(required) = schema["required"].as_array_mut() {
                    required.insert(0, "type".into());
                }
                schema
            })
            .collect();
        json_schema!({"oneOf": variants})
    }
}

/// The JSON Schema (draft 2020-12) of workflow files.
pub fn workflow_schema() -> Value {
    schemars::schema_for!(WorkflowFile).to_value()
}
