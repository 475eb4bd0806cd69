//! One function per type of step.

use std::{pin::Pin, sync::Arc};

use serde_json::{Map, Value, json};
use tracing::Instrument as _;

use super::{
    Execution, Stop,
    journal::{Known, Uses},
};
use crate::{
    expr::Variables,
    workflow::{ApprovalStep, Branch, Condition, Gate, Kind, Retry, Step, SubWorkflow, with_defaults},
};

type Taken<'e, T> = Pin<Box<dyn Future<Output = Result<T, Stop>> + Send + 'e>>;

/// What a step gave.
enum Gave {
    Result(Value),
    /// A closed gate: go back to the step at this position, with these arguments.
    Back(usize, Map<String, Value>),
}

impl Execution {
    /// Takes steps one after the other; gives what is known after them.
    pub(super) fn list<'e>(
        &'e self,
        steps: &'e [Step],
        prefix: &'e str,
        mut variables: Variables,
    ) -> Taken<'e, Variables> {
        Box::pin(async move {
            let (mut index, mut replaced) = (0, None);
            let mut rounds = vec![1_u32; steps.len()];
            while let Some(step) = steps.get(index) {
                let replacement =
                    replaced.take_if(|(target, _): &mut (usize, _)| *target == index).map(|(_, args)| args);
                match self.step(step, prefix, &variables, replacement, rounds[index]).await? {
                    Gave::Result(result) => {
                        variables.steps.insert(step.id.clone(), Arc::new(result));
                        index += 1;
                    }
                    Gave::Back(target, args) => {
                        rounds[index] += 1;
                        variables.attempt += 1;
                        replaced = Some((target, args));
                        index = target;
                    }
                }
            }
            Ok(variables)
        })
    }

    async fn step(
        &self,
        step: &Step,
        prefix: &str,
        variables: &Variables,
        args: Option<Map<String, Value>>,
        round: u32,
    ) -> Result<Gave, Stop> {
        let path = self.path(prefix, &step.id);
        let known = self.journal.known(&path);
        match &known.ended {
            Some(Ok(result)) => return Ok(Gave::Result(result.clone())),
            Some(Err(message)) => return Err(Stop::Failed(message.clone())),
            None => {}
        }
        // A step that is not done begins only while the process stays.
        if self.stopping.is_cancelled() {
            return Err(Stop::Interrupted);
        }
        let span = tracing::info_span!(
            target: "echotune.agents",
            "step",
            otel.name = format!("step {path}"),
            otel.status_code = tracing::field::Empty,
            echotune.step.path = path,
            echotune.step.type = step.kind.name(),
        );
        let taken = async {
            match &step.kind {
                Kind::Tool(tool) => self.tool(tool, &path, variables, args, known).await.map(Gave::Result),
                Kind::Parallel(branches) => self.parallel(branches, &path, variables, &known).await.map(Gave::Result),
                Kind::Gate(gate) => self.gate(gate, &path, variables, &known, round).await,
                Kind::Retry(retry) => self.retry(retry, &path, variables, &known).await.map(Gave::Result),
                Kind::Approval(approval) => self.approval(approval, &path, variables, known).await.map(Gave::Result),
                Kind::Workflow(sub) => self.sub_workflow(sub, &path, variables, args, known).await.map(Gave::Result),
            }
        };
        let taken = taken.instrument(span.clone()).await;
        if let Err(Stop::Failed(_) | Stop::Ended(_)) = &taken {
            span.record("otel.status_code", "ERROR");
        }
        taken
    }

    /// Enters the start of a step that was not begun before.
    async fn begin(&self, known: &Known, path: &str, detail: Value) -> Result<(), Stop> {
        match known.started {
            Some(_) => Ok(()),
            None => self.journal.start(path, &detail, Uses::Step).await,
        }
    }

    /// The failure of a step before it did anything: its start is entered with it.
    pub(super) async fn fail_unstarted(&self, known: &Known, path: &str, kind: &str, why: String) -> Stop {
        match self.begin(known, path, json!({"type": kind})).await {
            Ok(()) => self.journal.fail(path, format!("step '{path}': {why}")).await,
            Err(stop) => stop,
        }
    }

    async fn parallel(
        &self,
        branches: &[Branch],
        path: &str,
        variables: &Variables,
        known: &Known,
    ) -> Result<Value, Stop> {
        let names: Vec<&str> = branches.iter().map(|branch| branch.id.as_str()).collect();
        self.begin(known, path, json!({"type": "parallel", "branches": names})).await?;
        let paths: Vec<String> = branches.iter().map(|branch| self.path(path, &branch.id)).collect();
        let taken = futures::future::join_all(
            branches.iter().zip(&paths).map(|(branch, path)| self.list(&branch.steps, path, variables.clone())),
        );
        let (mut results, mut stop) = (Map::new(), None);
        for (branch, taken) in branches.iter().zip(taken.await) {
            match taken {
                Ok(after) => drop(results.insert(branch.id.clone(), last(&branch.steps, &after))),
                Err(other) => stop = Some(graver(stop, other)),
            }
        }
        match stop {
            None => {
                let result = Value::Object(results);
                self.journal.succeed(path, &result).await?;
                Ok(result)
            }
            Some(Stop::Failed(message)) => Err(self.journal.fail(path, message).await),
            Some(other) => Err(other),
        }
    }

    async fn gate(
        &self,
        gate: &Gate,
        path: &str,
        variables: &Variables,
        known: &Known,
        round: u32,
    ) -> Result<Gave, Stop> {
        if let (Some(detail), Some(otherwise)) = (known.retried.last(), &gate.otherwise) {
            let detail: Value = serde_json::from_str(detail).unwrap_or(Value::Null);
            return Ok(Gave::Back(otherwise.target, detail["args"].as_object().cloned().unwrap_or_default()));
        }
        self.begin(known, path, json!({"type": "gate"})).await?;
        let closed = match self.closed(&gate.conditions, variables).await {
            Ok(closed) => closed,
            Err(why) => return Err(self.journal.fail(path, format!("step '{path}': {why}")).await),
        };
        if closed.is_empty() {
            self.journal.succeed(path, &json!({"passed": gate.conditions.len()})).await?;
            return Ok(Gave::Result(json!({"passed": gate.conditions.len()})));
        }
        let Some(otherwise) = gate.otherwise.as_ref().filter(|otherwise| round < otherwise.attempts) else {
            let after = if round > 1 { format!(" after {round} attempts") } else { String::new() };
            let message = format!("gate '{path}' stays closed{after}; these do not hold: {}", closed.join("; "));
            return Err(self.journal.fail(path, message).await);
        };
        let (args, seen) = (Arc::clone(&otherwise.args), variables.clone());
        match self.evaluate(move || args.evaluate(&seen)).await {
            Ok(Value::Object(args)) => {
                let detail = json!({"closed": closed, "args": args}).to_string();
                self.journal.retry(path, detail, Uses::Nothing).await?;
                Ok(Gave::Back(otherwise.target, args))
            }
            Ok(_) => Err(self.journal.fail(path, format!("gate '{path}': its arguments are no map")).await),
            Err(why) => Err(self.journal.fail(path, format!("gate '{path}': {why}")).await),
        }
    }

    /// The names of the conditions that do not hold.
    async fn closed(&self, conditions: &Arc<Vec<Condition>>, variables: &Variables) -> Result<Vec<String>, String> {
        let (conditions, variables) = (Arc::clone(conditions), variables.clone());
        self.evaluate(move || {
            let mut closed = Vec::new();
            for condition in conditions.iter() {
                match condition.that.evaluate(&variables) {
                    Ok(Value::Bool(true)) => {}
                    Ok(Value::Bool(false)) => closed.push(condition.name.clone()),
                    Ok(other) => {
                        return Err(format!("condition '{}' gives {other}, not true or false", condition.name));
                    }
                    Err(why) => return Err(format!("condition '{}': {why}", condition.name)),
                }
            }
            Ok(closed)
        })
        .await
    }

    async fn retry(&self, retry: &Retry, path: &str, variables: &Variables, known: &Known) -> Result<Value, Stop> {
        self.begin(known, path, json!({"type": "retry", "attempts": retry.attempts})).await?;
        for attempt in 1..=retry.attempts {
            let inner = Variables { attempt, ..variables.clone() };
            let failure = match self.list(&retry.steps, path, inner).await {
                Ok(after) => match self.closed(&retry.until, &after).await {
                    Ok(closed) if closed.is_empty() => {
                        let result = last(&retry.steps, &after);
                        self.journal.succeed(path, &result).await?;
                        return Ok(result);
                    }
                    Ok(closed) => closed.join("; "),
                    Err(why) => return Err(self.journal.fail(path, format!("step '{path}': {why}")).await),
                },
                Err(Stop::Failed(message)) => message,
                Err(other) => return Err(other),
            };
            if attempt == retry.attempts {
                let message = format!("step '{path}' failed {attempt} times; at last: {failure}");
                return Err(self.journal.fail(path, message).await);
            }
            // Attempts that the journal has are not entered again.
            if known.retried.len() < attempt as usize {
                self.journal.retry(path, format!("attempt {attempt}: {failure}"), Uses::Nothing).await?;
            }
        }
        Err(Stop::Failed(format!("step '{path}' has no attempts")))
    }

    async fn approval(
        &self,
        approval: &ApprovalStep,
        path: &str,
        variables: &Variables,
        known: Known,
    ) -> Result<Value, Stop> {
        if known.asked.is_none() {
            let (message, seen) = (Arc::clone(&approval.message), variables.clone());
            let message = match self.evaluate(move || message.evaluate(&seen)).await {
                Ok(Value::String(text)) => text,
                Ok(other) => other.to_string(),
                Err(why) => return Err(self.fail_unstarted(&known, path, "approval", why).await),
            };
            self.begin(&known, path, json!({"type": "approval"})).await?;
            let until_ms = self.journal.now_ms().saturating_add(approval.timeout_ms);
            self.journal.ask(path, message.clone(), until_ms).await?;
            return Err(Stop::Waiting(vec![(path.to_owned(), message)]));
        }
        match self.decision(path, &known).await? {
            (true, comment) => {
                let result = json!({"approved": true, "comment": comment});
                self.journal.succeed(path, &result).await?;
                Ok(result)
            }
            (false, comment) => {
                let why = if comment.is_empty() { String::new() } else { format!(": {comment}") };
                Err(self.journal.fail(path, format!("step '{path}' was not approved{why}")).await)
            }
        }
    }

    /// What a person decided about a step that asked; waits, or fails the step when the time is over.
    pub(super) async fn decision(&self, path: &str, known: &Known) -> Result<(bool, String), Stop> {
        let Some(asked) = &known.asked else { return Err(Stop::Interrupted) };
        match &asked.decided {
            Some(decided) => Ok(decided.clone()),
            None if self.journal.now_ms() < asked.until_ms => {
                Err(Stop::Waiting(vec![(path.to_owned(), asked.message.clone())]))
            }
            None => Err(self.journal.fail(path, format!("step '{path}': nobody decided in time")).await),
        }
    }

    async fn sub_workflow(
        &self,
        sub: &SubWorkflow,
        path: &str,
        variables: &Variables,
        replaced: Option<Map<String, Value>>,
        known: Known,
    ) -> Result<Value, Stop> {
        let Some(workflow) = self.workflows.0.get(&sub.workflow).cloned() else {
            return Err(Stop::Failed(format!("workflow '{}' is not kept with the run", sub.workflow)));
        };
        let input = match known.started.as_ref().and_then(|started| started["input"].as_object()) {
            Some(input) => input.clone(),
            None => {
                let input = self.arguments(&sub.args, variables, replaced).await;
                let input = input.map(|input| with_defaults(&workflow.input, &input)).and_then(|input| {
                    let object = Value::Object(input.clone());
                    workflow.input_schema.check(&object).map(|()| input).map_err(|why| format!("its input: {why}"))
                });
                match input {
                    Ok(input) => input,
                    Err(why) => return Err(self.fail_unstarted(&known, path, "workflow", why).await),
                }
            }
        };
        self.begin(&known, path, json!({"type": "workflow", "workflow": sub.workflow, "input": input})).await?;
        let within: Taken<'_, Value> = Box::pin(self.within(&workflow, Value::Object(input), path));
        match within.await {
            Ok(output) => {
                self.journal.succeed(path, &output).await?;
                Ok(output)
            }
            Err(Stop::Failed(message)) => Err(self.journal.fail(path, message).await),
            Err(other) => Err(other),
        }
    }

    /// Evaluated arguments of a step, some of them replaced.
    pub(super) async fn arguments(
        &self,
        args: &Arc<crate::expr::Template>,
        variables: &Variables,
        replaced: Option<Map<String, Value>>,
    ) -> Result<Map<String, Value>, String> {
        let (args, variables) = (Arc::clone(args), variables.clone());
        let evaluated = self.evaluate(move || args.evaluate(&variables)).await?;
        let Value::Object(mut evaluated) = evaluated else { return Err("its arguments are no map".into()) };
        evaluated.extend(replaced.into_iter().flatten());
        let bytes = Value::Object(evaluated.clone()).to_string().len();
        if bytes > crate::expr::MAX_VALUE {
            return Err(format!("its arguments have {bytes} bytes; at most {} are sent", crate::expr::MAX_VALUE));
        }
        Ok(evaluated)
    }
}

/// The result of the last of some steps.
fn last(steps: &[Step], after: &Variables) -> Value {
    steps.last().and_then(|step| after.steps.get(&step.id)).map_or(Value::Null, |result| result.as_ref().clone())
}

/// The one of two reasons that decides what becomes of the run; questions add up.
fn graver(first: Option<Stop>, second: Stop) -> Stop {
    const fn weight(stop: &Stop) -> u8 {
        match stop {
            Stop::Store(_) => 4,
            Stop::Interrupted => 3,
            Stop::Ended(_) => 2,
            Stop::Failed(_) => 1,
            Stop::Waiting(_) => 0,
        }
    }
    match (first, second) {
        (None, second) => second,
        (Some(Stop::Waiting(mut all)), Stop::Waiting(more)) => {
            all.extend(more);
            Stop::Waiting(all)
        }
        (Some(first), second) => {
            if weight(&second) > weight(&first) {
                second
            } else {
                first
            }
        }
    }
}
