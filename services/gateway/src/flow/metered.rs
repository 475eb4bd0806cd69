//! What a conversation that has ended is entered as in the ledger.

use std::time::Duration;

use super::{
    conversation::{Broken, Conversation},
    convert,
};
use crate::{
    message::Outcome,
    metering::{Call, CallOutcome, Usage},
};

impl Conversation {
    /// The entry of a call of a tool; `None` for other requests, and for a round after which its client comes back: the
    /// call is entered when it ends.
    pub(super) fn usage(&self, ended: &Result<Outcome, Broken>, duration: Duration) -> Option<Usage> {
        // What another region has sent is entered there.
        if self.hub.metering.is_none() || self.ask.method != "tools/call" || self.is_guest {
            return None;
        }
        let outcome = match ended {
            Ok(Outcome::Result(result)) if convert::input_required(result).is_some() => return None,
            Ok(outcome) => match convert::error_type(outcome) {
                "" => CallOutcome::Ok,
                "tool_error" => CallOutcome::ToolError,
                _ => CallOutcome::RpcError,
            },
            Err(Broken::Refused(refusal)) if refusal.kind_name() == "INDETERMINATE" => CallOutcome::Unknown,
            Err(Broken::Refused(_)) => CallOutcome::Refused,
            Err(_) => CallOutcome::Cancelled,
        };
        let call = Call {
            on: &self.on,
            server: &self.server.config.name,
            tool: self.ask.name.as_deref().unwrap_or_default(),
            key: self.ask.meta.get(Call::KEY),
            arguments: self.ask.params.get("arguments"),
            era: self.client.revision.name(),
            traceparent: &self.ask.traceparent,
            duration,
        };
        Some(call.ended(outcome, ended.as_ref().ok()))
    }
}
