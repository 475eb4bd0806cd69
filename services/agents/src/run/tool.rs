//! A tool step: the intent is durable before a call is sent, the result before it is used.

use std::{sync::Arc, time::Duration};

use echotune_kit::failpoint;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::{
    Execution, Stop,
    journal::{Known, Uses},
};
use crate::{
    expr::Variables,
    store::KEY_LIFE_MS,
    tools::{CallError, Effect, ToolCall},
    workflow::{Schema, ToolStep, hex},
};

/// Longest pause before a call is made again.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// How long a person may take to say what became of a call, in milliseconds: 7 days.
const PATIENCE_MS: u64 = 7 * 24 * 3_600 * 1_000;

/// How long before a key ends it is no longer relied upon, in milliseconds: an hour.
const MARGIN_MS: u64 = 3_600 * 1_000;

/// A call as it was entered before it was sent.
struct Intent {
    arguments: Map<String, Value>,
    key: String,
    effect: Effect,
}

impl Intent {
    fn read(started: &Value) -> Option<Self> {
        Some(Self {
            arguments: started["arguments"].as_object()?.clone(),
            key: started["idempotency_key"].as_str()?.to_owned(),
            effect: serde_json::from_value(started["effect"].clone()).ok()?,
        })
    }
}

/// Whether a call may be made again whose outcome is unknown, `age_ms` milliseconds after it was entered.
/// Tools remember keys for a day at least; an older call may be one more.
const fn may_repeat(effect: Effect, age_ms: u64) -> bool {
    match effect {
        Effect::None => true,
        Effect::Idempotent => age_ms < KEY_LIFE_MS - MARGIN_MS,
        Effect::Once => false,
    }
}

impl Execution {
    /// The key of a step: the same whatever happens in between.
    fn key(&self, path: &str) -> String {
        let digest = hex(&Sha256::digest(path.as_bytes()));
        format!("{}-{}", self.key_prefix, &digest[..32])
    }

    pub(super) async fn tool(
        &self,
        step: &ToolStep,
        path: &str,
        variables: &Variables,
        replaced: Option<Map<String, Value>>,
        known: Known,
    ) -> Result<Value, Stop> {
        if let Some(intent) = known.started.as_ref().and_then(Intent::read) {
            self.resume(step, path, &intent, &known).await?;
            return self.call(step, path, &intent).await;
        }
        let arguments = match self.arguments(&step.args, variables, replaced).await {
            Ok(arguments) => arguments,
            Err(why) => return Err(self.fail_unstarted(&known, path, "tool", why).await),
        };
        let Some(info) = self.shared.tools.known().get(&step.tool).cloned() else {
            let why = format!("no MCP server has a tool '{}' any longer", step.tool);
            return Err(self.fail_unstarted(&known, path, "tool", why).await);
        };
        let intent = Intent { arguments, key: self.key(path), effect: info.effect };
        let detail = json!({
            "type": "tool",
            "tool": step.tool,
            "arguments": intent.arguments,
            "idempotency_key": intent.key,
            "effect": intent.effect,
        });
        self.journal.start(path, &detail, Uses::StepAndCall).await?;
        self.call(step, path, &intent).await
    }

    /// Before a call is made again that was entered before the run was left: whether it may be.
    async fn resume(&self, step: &ToolStep, path: &str, intent: &Intent, known: &Known) -> Result<(), Stop> {
        if may_repeat(intent.effect, self.journal.now_ms().saturating_sub(known.started_at_ms)) {
            let why = "the run was left before the result was entered; the call is repeated under the same key";
            return self.journal.retry(path, why.into(), Uses::Call).await;
        }
        if known.asked.is_none() {
            return Err(self.ask(step, path, "the run was left before the result was entered").await);
        }
        match self.decision(path, known).await? {
            (true, comment) => {
                let why = format!("a person approved that the call is sent again: {comment}");
                self.journal.retry(path, why, Uses::Call).await
            }
            (false, comment) => {
                let message =
                    format!("step '{path}': a person refused that '{}' is called again: {comment}", step.tool);
                Err(self.journal.fail(path, message).await)
            }
        }
    }

    /// Asks a person what became of a call that must not be made twice.
    async fn ask(&self, step: &ToolStep, path: &str, why: &str) -> Stop {
        let message = format!(
            "step '{path}': whether '{}' was carried out is unknown ({why}); approve to call it again, reject to fail the run",
            step.tool
        );
        let until_ms = self.journal.now_ms().saturating_add(PATIENCE_MS);
        match self.journal.ask(path, message.clone(), until_ms).await {
            Ok(()) => Stop::Waiting(vec![(path.to_owned(), message)]),
            Err(stop) => stop,
        }
    }

    /// Calls until there is a result, or none is to be had. Attempts count anew after a restart; the
    /// budget does not.
    async fn call(&self, step: &ToolStep, path: &str, intent: &Intent) -> Result<Value, Stop> {
        let mut attempt = 1_u32;
        loop {
            let call = ToolCall {
                tool: step.tool.clone(),
                arguments: intent.arguments.clone(),
                idempotency_key: intent.key.clone(),
                user: self.user.to_string(),
                timeout: Duration::from_millis(step.timeout_ms),
                traceparent: self.traceparent.clone(),
            };
            let error = match self.shared.tools.call(call).await {
                Ok(result) => return self.accept(step, path, result).await,
                Err(error) => error,
            };
            if intent.effect == Effect::Once && error.is_unknown() {
                return Err(self.ask(step, path, error.message()).await);
            }
            let certain = intent.effect != Effect::Once || matches!(error, CallError::NotSent(_));
            if !(certain && error.passes() && attempt < step.attempts) {
                let times = if attempt > 1 { format!(" {attempt} times, at last") } else { String::new() };
                let message = format!("step '{path}': tool '{}' failed{times}: {}", step.tool, error.message());
                return Err(self.journal.fail(path, message).await);
            }
            self.pause(attempt).await?;
            self.journal.retry(path, format!("attempt {attempt}: {}", error.message()), Uses::Call).await?;
            attempt += 1;
        }
    }

    /// Waits before a further attempt, longer each time.
    async fn pause(&self, attempt: u32) -> Result<(), Stop> {
        let pause = self.shared.backoff.saturating_mul(1 << (attempt - 1).min(16)).min(MAX_PAUSE);
        tokio::select! {
            () = tokio::time::sleep(pause) => Ok(()),
            () = self.stopping.cancelled() => Err(Stop::Interrupted),
        }
    }

    /// Takes a result that has the right shape.
    async fn accept(&self, step: &ToolStep, path: &str, result: Value) -> Result<Value, Stop> {
        failpoint::reach("agents.tool.answered");
        let own = self.shared.tools.known().get(&step.tool).and_then(|info| info.output_schema.clone());
        let (wanted, checked) = (step.output.clone(), Arc::new(result));
        let value = Arc::clone(&checked);
        let check = self.evaluate(move || {
            let schemas: [Option<Schema>; 2] = [own, wanted];
            schemas.iter().flatten().try_for_each(|schema| schema.check(&value))
        });
        if let Err(why) = check.await {
            let message = format!("step '{path}': tool '{}' gave another shape than its schema says: {why}", step.tool);
            return Err(self.journal.fail(path, message).await);
        }
        let result = Arc::unwrap_or_clone(checked);
        self.journal.succeed(path, &result).await?;
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_repeated_only_while_their_key_is_known() {
        let day = KEY_LIFE_MS;
        assert!(may_repeat(Effect::None, 90 * day));
        assert!(may_repeat(Effect::Idempotent, 0) && may_repeat(Effect::Idempotent, day / 2));
        assert!(!may_repeat(Effect::Idempotent, day) && !may_repeat(Effect::Idempotent, u64::MAX));
        assert!(!may_repeat(Effect::Once, 0));
    }
}
