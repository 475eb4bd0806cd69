//! From the text of a file to a workflow, with all faults on the way.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use echotune_model::Budget;
use serde_json::{Map, Value, json};

use super::{
    ApprovalStep, Branch, Condition, Faults, Gate, Kind, MAX_DEPTH, MAX_FILE, MAX_STEPS, Otherwise, Retry, Step,
    SubWorkflow, ToolStep, Workflow, WorkflowFault, fault_at,
    format::{
        ApprovalFile, BudgetFile, ConditionFile, GateFile, OtherwiseFile, OutputFile, ParallelFile, RetryFile,
        StepFile, SubWorkflowFile, ToolFile, WorkflowFile, workflow_schema,
    },
    join,
    schema::Schema,
    shape, tools,
    yaml::{Document, Place},
};
use crate::{
    expr::{Expression, Language, Template},
    store::PinnedText,
    tools::ToolInfo,
};

/// A workflow and what only the other files can tell about it.
pub(super) struct Read {
    pub(super) name: String,
    pub(super) name_place: Place,
    pub(super) workflow: Workflow,
    /// The workflows that it contains, and where.
    pub(super) subs: Vec<(String, Place)>,
}

/// Reads one file; nothing when it has faults that hide the rest.
pub(super) fn read(
    source: &PinnedText,
    language: &Language,
    tools: Option<&BTreeMap<String, ToolInfo>>,
    faults: &mut Faults<'_>,
) -> Option<Read> {
    if source.text.len() > MAX_FILE {
        let bytes = source.text.len();
        faults.add(Place { line: 1, column: 1 }, format!("the file has {bytes} bytes; at most {MAX_FILE} are allowed"));
        return None;
    }
    let document = match Document::read(&source.text) {
        Ok(document) => document,
        Err((place, why)) => {
            faults.add(place, format!("the file is no YAML: {why}"));
            return None;
        }
    };
    shape::check(&document, &workflow_schema(), faults);
    if !faults.found.is_empty() {
        return None;
    }
    let file: WorkflowFile = match serde_json::from_value(document.value.clone()) {
        Ok(file) => file,
        Err(why) => {
            faults.add(Place { line: 1, column: 1 }, format!("the file is no workflow: {why}"));
            return None;
        }
    };
    let all = ids(&file.steps);
    let compiler = Compiler {
        document: &document,
        language,
        tools,
        faults,
        all,
        seen: BTreeSet::new(),
        steps: 0,
        subs: Vec::new(),
    };
    Some(compiler.workflow(file, source))
}

/// Ids of all steps and branches, those within others included.
fn ids(steps: &[StepFile]) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for step in steps {
        all.insert(id_of(step).to_owned());
        match step {
            StepFile::Parallel(parallel) => {
                for branch in &parallel.branches {
                    all.insert(branch.id.0.clone());
                    all.append(&mut ids(&branch.steps));
                }
            }
            StepFile::Retry(retry) => all.append(&mut ids(&retry.steps)),
            StepFile::Tool(_) | StepFile::Gate(_) | StepFile::Approval(_) | StepFile::Workflow(_) => {}
        }
    }
    all
}

fn id_of(step: &StepFile) -> &str {
    match step {
        StepFile::Tool(ToolFile { id, .. })
        | StepFile::Parallel(ParallelFile { id, .. })
        | StepFile::Gate(GateFile { id, .. })
        | StepFile::Retry(RetryFile { id, .. })
        | StepFile::Approval(ApprovalFile { id, .. })
        | StepFile::Workflow(SubWorkflowFile { id, .. }) => &id.0,
    }
}

struct Compiler<'c, 'f> {
    document: &'c Document,
    language: &'c Language,
    tools: Option<&'c BTreeMap<String, ToolInfo>>,
    faults: &'c mut Faults<'f>,
    all: BTreeSet<String>,
    /// Ids met so far.
    seen: BTreeSet<String>,
    steps: usize,
    subs: Vec<(String, Place)>,
}

/// Where a list of steps stands.
#[derive(Clone)]
struct Scope {
    /// Ids of earlier steps whose results can be used.
    known: BTreeSet<String>,
    depth: usize,
}

impl Compiler<'_, '_> {
    fn fault(&mut self, at: &str, message: String) {
        self.faults.add(self.document.place(at), message);
    }

    fn workflow(mut self, file: WorkflowFile, source: &PinnedText) -> Read {
        let WorkflowFile { name, description, version, input, output, budget, steps } = file;
        let (input, input_schema) = self.input(input);
        let mut scope = Scope { known: BTreeSet::new(), depth: 1 };
        let steps = self.list(steps, "/steps", &mut scope);
        let OutputFile { value, schema } = output;
        let output = self.template(&value, "/output/value", &scope);
        let output_schema = self.schema(schema, "/output/schema");
        let BudgetFile { steps: most, tool_calls, wall_ms } = budget;
        let budget = Budget { steps: most, tool_calls, wall_ms };
        let workflow = Workflow {
            name: name.clone(),
            description,
            version,
            input,
            input_schema,
            output,
            output_schema,
            budget,
            steps,
            source: source.clone(),
        };
        Read { name, name_place: self.document.place("/name"), workflow, subs: self.subs }
    }

    /// The schema of the input, which is always that of an object.
    fn input(&mut self, input: Map<String, Value>) -> (Value, Schema) {
        let mut schema = Value::Object(input);
        if schema["type"].is_null() {
            schema["type"] = "object".into();
        }
        if schema["additionalProperties"].is_null() {
            schema["additionalProperties"] = false.into();
        }
        if schema["type"] != "object" {
            self.fault("/input/type", "the input is an object; write 'type: object', or leave it out".into());
        }
        for (name, property) in schema["properties"].as_object().cloned().into_iter().flatten() {
            let Some(default) = property.get("default") else { continue };
            let at = join("/input/properties", &name);
            match Schema::read(&property).and_then(|read| read.check(default)) {
                Ok(()) => {}
                Err(why) => self.fault(&join(&at, "default"), format!("the default of '{name}' is not allowed: {why}")),
            }
        }
        let read = Schema::read(&schema).unwrap_or_else(|why| {
            self.fault("/input", format!("'input' is no JSON Schema: {why}"));
            Schema::read(&json!(true)).expect("'true' is a schema")
        });
        (schema, read)
    }

    fn schema(&mut self, schema: Option<Map<String, Value>>, at: &str) -> Option<Schema> {
        let read = Schema::read(&Value::Object(schema?));
        read.map_err(|why| self.fault(at, format!("this is no JSON Schema: {why}"))).ok()
    }

    fn list(&mut self, steps: Vec<StepFile>, at: &str, scope: &mut Scope) -> Vec<Step> {
        if scope.depth > MAX_DEPTH {
            self.fault(
                at,
                format!("steps are within each other {} deep; at most {MAX_DEPTH} are allowed", scope.depth),
            );
            return Vec::new();
        }
        let earlier: Vec<(String, bool)> = steps
            .iter()
            .map(|step| (id_of(step).to_owned(), matches!(step, StepFile::Tool(_) | StepFile::Workflow(_))))
            .collect();
        let tools_of: Vec<Option<String>> = steps
            .iter()
            .map(|step| if let StepFile::Tool(tool) = step { Some(tool.tool.clone()) } else { None })
            .collect();
        let mut done = Vec::new();
        for (index, step) in steps.into_iter().enumerate() {
            let at = format!("{at}/{index}");
            let id = id_of(&step).to_owned();
            self.count(&id, &at);
            let kind = match step {
                StepFile::Gate(gate) => {
                    let before: Vec<_> = earlier[..index].iter().cloned().zip(tools_of.iter().cloned()).collect();
                    self.gate(gate, &at, scope, &before)
                }
                other => self.kind(other, &at, scope),
            };
            scope.known.insert(id.clone());
            done.push(Step { id, kind });
        }
        done
    }

    fn count(&mut self, id: &str, at: &str) {
        self.unique(id, at);
        self.steps += 1;
        if self.steps == MAX_STEPS + 1 {
            self.fault(at, format!("the workflow has more than {MAX_STEPS} steps; move some into another workflow"));
        }
    }

    fn unique(&mut self, id: &str, at: &str) {
        if !self.seen.insert(id.to_owned()) {
            self.fault(&join(at, "id"), format!("id '{id}' is used twice; choose another one"));
        }
    }

    fn kind(&mut self, step: StepFile, at: &str, scope: &Scope) -> Kind {
        match step {
            StepFile::Tool(tool) => self.tool(tool, at, scope),
            StepFile::Parallel(parallel) => self.parallel(parallel, at, scope),
            StepFile::Gate(gate) => self.gate(gate, at, scope, &[]),
            StepFile::Retry(retry) => self.retry(retry, at, scope),
            StepFile::Approval(approval) => {
                let message = self.template(&approval.message.into(), &join(at, "message"), scope);
                Kind::Approval(ApprovalStep { message: Arc::new(message), timeout_ms: approval.timeout_ms })
            }
            StepFile::Workflow(sub) => {
                self.subs.push((sub.workflow.clone(), self.document.place(&join(at, "workflow"))));
                let args = self.template(&Value::Object(sub.args), &join(at, "args"), scope);
                Kind::Workflow(SubWorkflow { workflow: sub.workflow, args: Arc::new(args) })
            }
        }
    }

    fn tool(&mut self, tool: ToolFile, at: &str, scope: &Scope) -> Kind {
        let args_at = join(at, "args");
        let args = self.template(&Value::Object(tool.args), &args_at, scope);
        self.check_tool(&tool.tool, &args, at, &args_at, true);
        let output = self.schema(tool.output, &join(at, "output"));
        Kind::Tool(ToolStep {
            tool: tool.tool,
            args: Arc::new(args),
            timeout_ms: tool.timeout_ms,
            attempts: tool.attempts,
            output,
        })
    }

    fn check_tool(&mut self, tool: &str, args: &Template, at: &str, args_at: &str, required: bool) {
        let (Some(known), Template::Map(args)) = (self.tools, args) else { return };
        let Some(info) = known.get(tool) else {
            if required {
                let names = known.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                self.fault(&join(at, "tool"), format!("no MCP server has a tool '{tool}'; there are {names}"));
            }
            return;
        };
        for (name, why) in tools::faults(tool, info, args, required) {
            let at = if name.is_empty() { join(at, "tool") } else { join(args_at, &name) };
            self.fault(&at, why);
        }
    }

    fn parallel(&mut self, parallel: ParallelFile, at: &str, scope: &Scope) -> Kind {
        let mut branches = Vec::new();
        for (index, branch) in parallel.branches.into_iter().enumerate() {
            let at = format!("{at}/branches/{index}");
            self.unique(&branch.id.0, &at);
            let mut inner = Scope { depth: scope.depth + 1, ..scope.clone() };
            let steps = self.list(branch.steps, &join(&at, "steps"), &mut inner);
            branches.push(Branch { id: branch.id.0, steps });
        }
        Kind::Parallel(branches)
    }

    fn retry(&mut self, retry: RetryFile, at: &str, scope: &Scope) -> Kind {
        let mut inner = Scope { depth: scope.depth + 1, ..scope.clone() };
        let steps = self.list(retry.steps, &join(at, "steps"), &mut inner);
        let until = self.conditions(retry.until, &join(at, "until"), &inner);
        Kind::Retry(Retry { attempts: retry.attempts, steps, until: Arc::new(until) })
    }

    /// `before` are the earlier steps of the list: id, whether a gate may go back to it, and its tool.
    fn gate(&mut self, gate: GateFile, at: &str, scope: &Scope, before: &[((String, bool), Option<String>)]) -> Kind {
        let conditions = self.conditions(gate.conditions, &join(at, "conditions"), scope);
        let at = join(at, "otherwise");
        let otherwise = gate.otherwise.and_then(|OtherwiseFile { retry, attempts, args }| {
            let args_at = join(&at, "args");
            let args = self.template(&Value::Object(args), &args_at, scope);
            let target = before.iter().position(|((id, _), _)| *id == retry.0);
            match target.map(|index| (index, &before[index])) {
                Some((target, ((_, true), tool))) => {
                    if let Some(tool) = tool {
                        self.check_tool(tool, &args, &at, &args_at, false);
                    }
                    Some(Otherwise { target, attempts, args: Arc::new(args) })
                }
                Some((_, ((id, false), _))) => {
                    self.fault(
                        &join(&at, "retry"),
                        format!("step '{id}' takes no arguments; go back to a step of type tool or workflow"),
                    );
                    None
                }
                None => {
                    self.fault(&join(&at, "retry"), self.no_target(&retry.0));
                    None
                }
            }
        });
        Kind::Gate(Gate { conditions: Arc::new(conditions), otherwise })
    }

    fn no_target(&self, id: &str) -> String {
        if self.all.contains(id) {
            format!("step '{id}' is no earlier step of the same list; a gate goes back to one of those")
        } else {
            format!("there is no step '{id}'; a gate goes back to an earlier step of the same list")
        }
    }

    fn conditions(&mut self, conditions: Vec<ConditionFile>, at: &str, scope: &Scope) -> Vec<Condition> {
        let mut read = Vec::new();
        for (index, ConditionFile { name, that }) in conditions.into_iter().enumerate() {
            let at = format!("{at}/{index}/that");
            match self.language.read(&that) {
                Ok(expression) => {
                    self.names(&expression, &at, scope);
                    read.push(Condition { name, that: expression });
                }
                Err(why) => self.fault(&at, why),
            }
        }
        read
    }

    fn template(&mut self, value: &Value, at: &str, scope: &Scope) -> Template {
        let mut wrong = Vec::new();
        let template = Template::read(value, at, self.language, &mut |at, why| wrong.push((at.to_owned(), why)));
        for (at, why) in wrong {
            self.fault(&at, why);
        }
        let mut found = Vec::new();
        template.each(at, &mut |at, expression| found.push((at.to_owned(), expression.clone())));
        for (at, expression) in found {
            self.names(&expression, &at, scope);
        }
        template
    }

    /// Whether everything that an expression names is there.
    fn names(&mut self, expression: &Expression, at: &str, scope: &Scope) {
        let names = &expression.names;
        for name in names.roots.iter().filter(|name| !["input", "user", "attempt"].contains(&name.as_str())) {
            self.fault(at, format!("'{name}' is unknown; use input, user, attempt or steps.ID"));
        }
        for name in &names.unknown_functions {
            self.fault(
                at,
                format!(
                    "function '{name}' is unknown or not allowed in a workflow; see the list of functions of the format"
                ),
            );
        }
        if names.steps_as_whole {
            self.fault(at, "'steps' is used as a whole; name the step, as in steps.ID".into());
        }
        for name in names.steps.iter().filter(|name| !scope.known.contains(*name)) {
            let message = if self.seen.contains(name) {
                format!("the result of step '{name}' is not known here; it is this step or within another one")
            } else if self.all.contains(name) {
                format!("step '{name}' comes later; only results of earlier steps are known")
            } else {
                format!("there is no step '{name}'; steps before this one are {}", listed(&scope.known))
            };
            self.fault(at, message);
        }
    }
}

fn listed(names: &BTreeSet<String>) -> String {
    if names.is_empty() { "none".into() } else { names.iter().map(String::as_str).collect::<Vec<_>>().join(", ") }
}

impl Read {
    /// Faults of the workflows that this one contains.
    pub(super) fn check_references(&self, names: &BTreeSet<&str>) -> Vec<WorkflowFault> {
        let file = &self.workflow.source.file;
        let missing = self.subs.iter().filter(|(name, _)| !names.contains(name.as_str()));
        missing
            .map(|(name, place)| {
                let known = names.iter().copied().collect::<Vec<_>>().join(", ");
                fault_at(file, *place, format!("there is no workflow '{name}'; there are {known}"))
            })
            .collect()
    }
}

/// Workflows that contain themselves, or that are too deep within each other.
pub(super) fn cycles(read: &[Read]) -> Vec<WorkflowFault> {
    let subs: Subs<'_> = read.iter().map(|one| (one.name.as_str(), &one.subs)).collect();
    let mut faults = Vec::new();
    for one in read {
        for (name, place) in &one.subs {
            if let Some(path) = way_back(&subs, name, &one.name) {
                let path = path.join(" → ");
                let name = &one.name;
                let message =
                    format!("workflow '{name}' contains itself: {name} → {path}; take one of these steps out");
                faults.push(fault_at(&one.workflow.source.file, *place, message));
            }
        }
    }
    if faults.is_empty() {
        let mut known = BTreeMap::new();
        for one in read {
            let depth = depth(&subs, &one.name, &mut known);
            if depth > MAX_DEPTH {
                let name = &one.name;
                let message = format!(
                    "workflow '{name}' has {depth} workflows within each other; at most {MAX_DEPTH} are allowed"
                );
                faults.push(fault_at(&one.workflow.source.file, one.name_place, message));
            }
        }
    }
    faults
}

/// What each workflow contains, and where.
type Subs<'r> = BTreeMap<&'r str, &'r Vec<(String, Place)>>;

/// The shortest way from one workflow to another through what they contain, both named.
fn way_back<'r>(subs: &Subs<'r>, from: &'r str, to: &'r str) -> Option<Vec<&'r str>> {
    let (mut before, mut waiting) = (BTreeMap::from([(from, None)]), VecDeque::from([from]));
    while let Some(name) = waiting.pop_front() {
        if name == to {
            let mut path = vec![name];
            while let Some(Some(earlier)) = before.get(path[path.len() - 1]) {
                path.push(*earlier);
            }
            path.reverse();
            return Some(path);
        }
        for (inner, _) in subs.get(name).into_iter().copied().flatten() {
            before.entry(inner.as_str()).or_insert_with(|| {
                waiting.push_back(inner);
                Some(name)
            });
        }
    }
    None
}

/// How many workflows are within each other, this one included; there must be no circle.
fn depth<'r>(subs: &Subs<'r>, name: &'r str, known: &mut BTreeMap<&'r str, usize>) -> usize {
    if let Some(depth) = known.get(name) {
        return *depth;
    }
    let inner = subs.get(name).into_iter().copied().flatten();
    let depth = 1 + inner.map(|(inner, _)| depth(subs, inner, known)).max().unwrap_or(0);
    known.insert(name, depth);
    depth
}
