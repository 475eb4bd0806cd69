//! Who may call what, how often, and what is written of it.
//!
//! | step | what is asked | when not |
//! |---|---|---|
//! | [`resource`] | was the token issued for this gateway, and for what all need | 401, 403 with a challenge |
//! | [`policy`] | does a rule allow the call, and was the token issued for what the rule needs | `PERMISSION_DENIED`, 403 |
//! | [`rates`] | how often has the caller called | 429 |
//! | [`audit`] | can it be recorded | 503 |

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::response::Response;
use echotune_model::{Principal, Role};
use http::{HeaderValue, StatusCode};

mod audit;
mod config;
mod expression;
mod policy;
mod rates;
mod resource;

pub use self::config::{
    ACCESS_DEFAULTS, AccessConfig, AuditConfig, OnFailure, Rate, RatesConfig, ResourceConfig, RuleConfig, Then,
    ToolRate,
};
pub(crate) use self::resource::WELL_KNOWN;
use self::{
    audit::{Audit, Line, NoPlace, Place},
    expression::Facts,
    policy::{Policy, Verdict},
    rates::Rates,
    resource::{Lacks, Resource},
};
use crate::{caller::Caller, config::Effect, message::Json, refusal::Refusal};

/// Decides about calls.
pub(crate) struct Access {
    resource: Option<Resource>,
    policy: Policy,
    rates: Rates,
    audit: Option<Audit>,
}

/// What may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    Tool,
    Prompt,
    Resource,
}

impl Subject {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::Prompt => "prompt",
            Self::Resource => "resource",
        }
    }
}

/// A call that somebody wants to make.
pub(crate) struct Call<'a> {
    pub(crate) caller: &'a Caller,
    /// The path of the endpoint that was asked.
    pub(crate) path: &'a str,
    pub(crate) method: &'a str,
    pub(crate) server: &'a str,
    pub(crate) subject: Subject,
    /// As the server names it.
    pub(crate) name: &'a str,
    pub(crate) effect: Effect,
    pub(crate) arguments: Option<&'a Json>,
    pub(crate) traceparent: &'a str,
}

/// A call that may be made, and is recorded when it has ended.
pub(crate) struct Admitted {
    line: Option<(Place, Line)>,
    begun: Instant,
}

impl Admitted {
    /// Tells what came of the call: empty when it went well.
    pub(crate) fn ended(mut self, error: &'static str) {
        self.write(if error.is_empty() { "ok" } else { error });
    }

    fn write(&mut self, outcome: &'static str) {
        if let Some((place, line)) = self.line.take() {
            let duration_us = u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
            place.take(Line { outcome, duration_us, ..line });
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.write("abandoned");
    }
}

/// Methods as they are written: a client can make up any number of others.
fn method(of: &str) -> &'static str {
    const KNOWN: [&str; 5] =
        ["tools/call", "prompts/get", "resources/read", "completion/complete", "resources/subscribe"];
    KNOWN.into_iter().find(|known| *known == of).unwrap_or("_OTHER")
}

impl Access {
    /// Reads the rules and opens the record.
    ///
    /// # Errors
    /// All that is wrong, each with the setting it is about.
    pub(crate) fn new(config: &AccessConfig) -> Result<Self, Vec<String>> {
        let mut faults = config.check();
        let policy = Policy::read(&config.rules).map_err(|more| faults.extend(more)).ok();
        let (Some(policy), true) = (policy, faults.is_empty()) else { return Err(faults) };
        let audit = if config.audit.path.as_os_str().is_empty() {
            None
        } else {
            Some(Audit::open(&config.audit).map_err(|cause| vec![format!("access.audit.path: {cause}")])?)
        };
        let (resource, rates) = (Resource::new(&config.resource), Rates::new(&config.rates));
        Ok(Self { resource, policy, rates, audit })
    }

    /// Whether what somebody may see is not what all may see.
    pub(crate) fn tells_apart(&self) -> bool {
        self.policy.is_set()
    }

    /// Decides about a call, and takes its place in the record.
    pub(crate) fn admit(&self, call: &Call<'_>) -> Result<Admitted, Refusal> {
        let begun = Instant::now();
        let place = match self.audit.as_ref().map(Audit::place).transpose() {
            Ok(place) => place,
            Err(NoPlace) => {
                let why = "the record of calls cannot be written now, and no call is made without its line";
                return Err(Refusal::unavailable(why, 1));
            }
        };
        let facts = facts(call.caller, call.server, call.subject, call.name, call.effect);
        let (decision, rule, refusal) = self.decide(call, &facts.of());
        let line = place.map(|place| (place, line(call, decision, rule)));
        let admitted = Admitted { line, begun };
        match refusal {
            None => Ok(admitted),
            Some(refusal) => {
                admitted.ended("refused");
                Err(refusal)
            }
        }
    }

    fn decide(&self, call: &Call<'_>, facts: &Facts<'_>) -> (&'static str, Option<Arc<str>>, Option<Refusal>) {
        let (rule, scopes) = match self.policy.judge(facts, call.arguments) {
            Verdict::Allowed { rule, scopes } => (rule, scopes),
            Verdict::Denied { rule, why } => {
                let refusal = denied(call, rule.as_deref(), why.as_deref());
                return ("deny", rule, Some(refusal));
            }
        };
        if let Err(refusal) = self.check_scopes(call.caller, call.path, &scopes) {
            return ("scope", rule, Some(refusal));
        }
        let taken = self.rates.take_call(call.caller.owner, call.server, call.subject.name(), call.name);
        match taken {
            Ok(()) => ("allow", rule, None),
            Err(wait) => ("rate", rule, Some(too_often(wait))),
        }
    }

    /// Takes a request of a caller that calls nothing: a list, a session to be opened, what a server is, or the level
    /// of its log.
    pub(crate) fn take(&self, caller: &Caller) -> Result<(), Refusal> {
        self.rates.take(caller.owner).map_err(too_often)
    }

    /// Whether somebody may see an entry of a list.
    pub(crate) fn may_see(&self, caller: &Caller, server: &str, subject: Subject, name: &str, effect: Effect) -> bool {
        !self.policy.is_set() || self.policy.may_see(caller.context, &facts(caller, server, subject, name, effect).of())
    }

    /// Checks that a token was issued for the endpoint at a path.
    pub(crate) fn check_token(&self, caller: &Caller, path: &str) -> Result<(), Refusal> {
        let (Some(resource), Some(grant)) = (&self.resource, &caller.grant) else { return Ok(()) };
        resource.check(grant, path).map_err(|lacks| lacking(resource, path, &lacks))
    }

    /// The same of one who showed the token in another region, which has looked for whom it was issued.
    pub(crate) fn check_guest(&self, caller: &Caller, path: &str) -> Result<(), Refusal> {
        let (Some(resource), Some(grant)) = (&self.resource, &caller.grant) else { return Ok(()) };
        resource.check_base(grant).map_err(|lacks| lacking(resource, path, &lacks))
    }

    fn check_scopes(&self, caller: &Caller, path: &str, needed: &[String]) -> Result<(), Refusal> {
        let Some(grant) = caller.grant.as_ref().filter(|_| !needed.is_empty()) else { return Ok(()) };
        match &self.resource {
            Some(resource) => resource.check_scopes(grant, needed).map_err(|lacks| lacking(resource, path, &lacks)),
            None if needed.iter().all(|scope| grant.scopes.contains(scope)) => Ok(()),
            None => Err(Refusal::forbidden(format!("the token was not issued for {}", needed.join(" ")))),
        }
    }

    /// What one who is not known is told besides.
    pub(crate) fn challenge(&self, path: &str, has_token: bool) -> Option<HeaderValue> {
        Some(self.resource.as_ref()?.challenge(path, has_token))
    }

    /// The metadata of the resource at a path; `None` where the gateway is none.
    pub(crate) fn metadata(&self, path: &str) -> Option<Response> {
        Some(self.resource.as_ref()?.metadata(path))
    }

    /// Writes what waits to be written. Called when no call is under way any more.
    pub(crate) async fn close(&self) {
        if let Some(audit) = &self.audit {
            audit.close().await;
        }
    }
}

/// What is known of a call, with what its parts borrow from.
struct Known<'a> {
    id: String,
    caller: &'a Caller,
    server: &'a str,
    subject: Subject,
    name: &'a str,
    effect: Effect,
}

fn facts<'a>(caller: &'a Caller, server: &'a str, subject: Subject, name: &'a str, effect: Effect) -> Known<'a> {
    Known { id: id_of(caller), caller, server, subject, name, effect }
}

impl Known<'_> {
    fn of(&self) -> Facts<'_> {
        let (name, role) = match &self.caller.principal {
            Principal::Operator => ("", "operator"),
            Principal::User { name, role: Role::Writer, .. } => (name.as_str(), "writer"),
            Principal::User { name, role: Role::Reader, .. } => (name.as_str(), "reader"),
        };
        Facts {
            id: &self.id,
            name,
            role,
            server: self.server,
            kind: self.subject.name(),
            subject: self.name,
            effect: self.effect,
            scopes: self.caller.grant.as_ref().map_or(&[][..], |grant| grant.scopes.as_slice()),
        }
    }
}

fn id_of(caller: &Caller) -> String {
    match &caller.principal {
        Principal::Operator => "operator".to_owned(),
        Principal::User { id, .. } => id.to_string(),
    }
}

fn line(call: &Call<'_>, decision: &'static str, rule: Option<Arc<str>>) -> Line {
    let caller_name = match &call.caller.principal {
        Principal::Operator => String::new(),
        Principal::User { name, .. } => name.as_str().to_owned(),
    };
    Line {
        time: Line::now(),
        caller: id_of(call.caller),
        caller_name,
        method: method(call.method),
        server: call.server.to_owned(),
        kind: call.subject.name(),
        name: Line::shown(call.name),
        effect: match call.effect {
            Effect::Reads => "reads",
            Effect::Idempotent => "idempotent",
            Effect::Once => "once",
        },
        decision,
        rule: rule.as_deref().map(str::to_owned),
        outcome: "",
        duration_us: 0,
        trace: call.traceparent.split('-').nth(1).map(Line::shown).unwrap_or_default(),
    }
}

fn denied(call: &Call<'_>, rule: Option<&str>, why: Option<&str>) -> Refusal {
    let kind = call.subject.name();
    let shown: String = call.name.chars().take(128).collect();
    let by = rule.map_or_else(
        || "no rule of the gateway allows it".to_owned(),
        |rule| format!("the rule '{}' of the gateway forbids it", rule.escape_debug()),
    );
    let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
    let text =
        format!("the {kind} '{}' of server '{}' may not be used so: {by}{why}", shown.escape_debug(), call.server);
    Refusal::denied(text)
}

fn too_often(wait: Duration) -> Refusal {
    let seconds = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
    Refusal::exhausted_for(format!("this was called as often as it may be; wait {seconds} s"), seconds)
}

fn lacking(resource: &Resource, path: &str, lacks: &Lacks) -> Refusal {
    let challenge = resource.challenge_lacking(path, lacks);
    match lacks {
        Lacks::Audience { wanted } => {
            let why =
                format!("the token was issued for somebody else; ask its issuer for one whose resource is {wanted}");
            Refusal::unauthenticated(why).challenged(challenge)
        }
        Lacks::Scopes(scopes) => {
            let why = format!("the token was not issued for this; it needs the scopes {}", scopes.join(" "));
            Refusal::new(StatusCode::FORBIDDEN, crate::refusal::INVALID_REQUEST, why).challenged(challenge)
        }
    }
}
