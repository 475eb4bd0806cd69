//! Workflows: files that were read, checked and are ready to run.

mod compile;
mod format;
mod schema;
mod shape;
mod tools;
mod yaml;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use echotune_model::Budget;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

pub use format::workflow_schema;
pub(crate) use schema::{Schema, with_defaults};
pub(crate) use yaml::join;

use self::yaml::Place;
use crate::{
    expr::{Expression, Language, Template},
    store::PinnedText,
    tools::ToolInfo,
};

/// Largest workflow file, in bytes.
pub(crate) const MAX_FILE: usize = 256 << 10;
/// Workflows at the most.
pub(crate) const MAX_WORKFLOWS: usize = 1_000;
/// Steps in one file at the most, those within others included.
const MAX_STEPS: usize = 200;
/// Steps within steps, and workflows within workflows, at the most.
const MAX_DEPTH: usize = 8;
/// Faults of one file that are told at the most.
const MAX_FAULTS: usize = 100;

/// What is wrong in a workflow file, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkflowFault {
    /// Name of the file.
    pub file: String,
    /// Line, from 1.
    pub line: u64,
    /// Column, from 1.
    pub column: u64,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for WorkflowFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)
    }
}

/// Collects the faults of one file.
pub(crate) struct Faults<'f> {
    file: &'f str,
    found: Vec<WorkflowFault>,
}

impl Faults<'_> {
    fn add(&mut self, place: Place, message: String) {
        if self.found.len() < MAX_FAULTS {
            let Place { line, column } = place;
            self.found.push(WorkflowFault { file: self.file.to_owned(), line, column, message });
        }
    }
}

/// A workflow that is ready to run.
#[derive(Debug)]
pub(crate) struct Workflow {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) version: u32,
    pub(crate) input: Value,
    pub(crate) input_schema: Schema,
    pub(crate) output: Template,
    pub(crate) output_schema: Option<Schema>,
    pub(crate) budget: Budget,
    pub(crate) steps: Vec<Step>,
    /// The file that it was read from.
    pub(crate) source: PinnedText,
}

/// SHA-256 of a text in hexadecimal digits.
pub(crate) fn digest(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One step.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) id: String,
    pub(crate) kind: Kind,
}

/// What a step does. A further type is one more variant here, in `format.rs`, in `compile.rs`, and one
/// more function in `run/steps.rs`.
#[derive(Debug)]
pub(crate) enum Kind {
    Tool(ToolStep),
    Parallel(Vec<Branch>),
    Gate(Gate),
    Retry(Retry),
    Approval(ApprovalStep),
    Workflow(SubWorkflow),
}

impl Kind {
    /// The name in the file.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Tool(_) => "tool",
            Self::Parallel(_) => "parallel",
            Self::Gate(_) => "gate",
            Self::Retry(_) => "retry",
            Self::Approval(_) => "approval",
            Self::Workflow(_) => "workflow",
        }
    }
}

#[derive(Debug)]
pub(crate) struct ToolStep {
    pub(crate) tool: String,
    pub(crate) args: Arc<Template>,
    pub(crate) timeout_ms: u64,
    pub(crate) attempts: u32,
    pub(crate) output: Option<Schema>,
}

#[derive(Debug)]
pub(crate) struct Branch {
    pub(crate) id: String,
    pub(crate) steps: Vec<Step>,
}

#[derive(Debug, Clone)]
pub(crate) struct Condition {
    pub(crate) name: String,
    pub(crate) that: Expression,
}

#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) conditions: Arc<Vec<Condition>>,
    pub(crate) otherwise: Option<Otherwise>,
}

#[derive(Debug)]
pub(crate) struct Otherwise {
    /// Position of the step to go back to, in the same list.
    pub(crate) target: usize,
    pub(crate) attempts: u32,
    pub(crate) args: Arc<Template>,
}

#[derive(Debug)]
pub(crate) struct Retry {
    pub(crate) attempts: u32,
    pub(crate) steps: Vec<Step>,
    pub(crate) until: Arc<Vec<Condition>>,
}

#[derive(Debug)]
pub(crate) struct ApprovalStep {
    pub(crate) message: Arc<Template>,
    pub(crate) timeout_ms: u64,
}

#[derive(Debug)]
pub(crate) struct SubWorkflow {
    pub(crate) workflow: String,
    pub(crate) args: Arc<Template>,
}

/// Workflows by name.
#[derive(Debug, Default)]
pub(crate) struct Workflows(pub(crate) BTreeMap<String, Arc<Workflow>>);

impl Workflows {
    /// Reads files. With `tools`, tools and their literal arguments are checked too.
    ///
    /// # Errors
    /// All faults of all files, by file and place.
    pub(crate) fn read(
        sources: &[PinnedText],
        language: &Language,
        tools: Option<&BTreeMap<String, ToolInfo>>,
    ) -> Result<Self, Vec<WorkflowFault>> {
        let mut faults = Vec::new();
        let mut read = Vec::new();
        for source in sources {
            let mut of_file = Faults { file: &source.file, found: Vec::new() };
            let one = compile::read(source, language, tools, &mut of_file);
            faults.append(&mut of_file.found);
            read.extend(one);
        }
        let names: BTreeSet<&str> = read.iter().map(|one| one.name.as_str()).collect();
        for one in &read {
            faults.extend(one.check_references(&names));
        }
        faults.extend(compile::cycles(&read));
        if sources.len() > MAX_WORKFLOWS {
            faults.push(WorkflowFault {
                file: sources[MAX_WORKFLOWS].file.clone(),
                line: 1,
                column: 1,
                message: format!("there are {} workflow files; at most {MAX_WORKFLOWS} are read", sources.len()),
            });
        }
        let mut workflows = Self::default();
        for one in read {
            let compile::Read { name, name_place, workflow, .. } = one;
            if let Some(first) = workflows.0.get(&name) {
                let message = format!("workflow '{name}' is already in {}; choose another name", first.source.file);
                faults.push(fault_at(&workflow.source.file, name_place, message));
                continue;
            }
            workflows.0.insert(name, Arc::new(workflow));
        }
        faults.sort();
        if faults.is_empty() { Ok(workflows) } else { Err(faults) }
    }

    /// The files of a workflow and of all that it contains, its own first.
    pub(crate) fn sources_of(&self, workflow: &Workflow) -> Vec<PinnedText> {
        let (mut names, mut sources) = (BTreeSet::from([workflow.name.clone()]), vec![workflow.source.clone()]);
        let mut waiting = vec![&workflow.steps];
        while let Some(steps) = waiting.pop() {
            for step in steps {
                match &step.kind {
                    Kind::Workflow(sub) if names.insert(sub.workflow.clone()) => {
                        if let Some(inner) = self.0.get(&sub.workflow) {
                            sources.push(inner.source.clone());
                            waiting.push(&inner.steps);
                        }
                    }
                    Kind::Parallel(branches) => waiting.extend(branches.iter().map(|branch| &branch.steps)),
                    Kind::Retry(retry) => waiting.push(&retry.steps),
                    Kind::Tool(_) | Kind::Gate(_) | Kind::Approval(_) | Kind::Workflow(_) => {}
                }
            }
        }
        sources
    }
}

fn fault_at(file: &str, place: Place, message: String) -> WorkflowFault {
    WorkflowFault { file: file.to_owned(), line: place.line, column: place.column, message }
}
