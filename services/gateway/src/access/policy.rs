//! Who may call what: rules in their order.

use std::{sync::Arc, time::Duration};

use moka::sync::Cache;

use super::{
    config::{RuleConfig, Then},
    expression::{Arguments, Condition, Facts, Holds, Language},
};
use crate::{
    caller::{Digest, digest},
    message::Json,
};

/// What is remembered of what may be seen, and for how long.
const SEEN: u64 = 200_000;
const SEEN_FOR: Duration = Duration::from_secs(60);

/// The rules.
pub(super) struct Policy {
    language: Language,
    rules: Vec<Rule>,
    /// Whether somebody may see something, by digests of both.
    seen: Cache<Digest, bool>,
}

struct Rule {
    name: Arc<str>,
    when: Condition,
    then: Then,
    scopes: Vec<String>,
}

/// How a call is judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// By a rule, or because there are none; with the scopes that it needs besides.
    Allowed { rule: Option<Arc<str>>, scopes: Vec<String> },
    /// By a rule, or because none allows it; and what could not be judged on the way.
    Denied { rule: Option<Arc<str>>, why: Option<String> },
}

impl Policy {
    /// Reads rules.
    ///
    /// # Errors
    /// What is wrong, each with its rule.
    pub(super) fn read(rules: &[RuleConfig]) -> Result<Self, Vec<String>> {
        let language = Language::new();
        let texts = rules.iter().map(|rule| rule.when.clone()).collect();
        let read = if rules.is_empty() { Vec::new() } else { language.read_all(texts) };
        let (mut whole, mut faults) = (Vec::new(), Vec::new());
        for (rule, when) in rules.iter().zip(read) {
            match when {
                Ok(when) => whole.push(Rule {
                    name: rule.name.as_str().into(),
                    when,
                    then: rule.then,
                    scopes: rule.scopes.clone(),
                }),
                Err(why) => faults.push(format!("access.rules: '{}': {why}", rule.name.escape_debug())),
            }
        }
        if faults.is_empty() && whole.len() != rules.len() {
            faults.push("access.rules: they could not be read".to_owned());
        }
        let seen = Cache::builder().max_capacity(SEEN).time_to_live(SEEN_FOR).build();
        if faults.is_empty() { Ok(Self { language, rules: whole, seen }) } else { Err(faults) }
    }

    /// Whether who asks makes a difference.
    pub(super) fn is_set(&self) -> bool {
        !self.rules.is_empty()
    }

    /// Judges a call. Its arguments are read where a rule looks at them. What cannot be judged never allows anything: a
    /// rule that allows is passed over then, and one that refuses refuses.
    pub(super) fn judge(&self, facts: &Facts<'_>, arguments: Option<&Json>) -> Verdict {
        if self.rules.is_empty() {
            return Verdict::Allowed { rule: None, scopes: Vec::new() };
        }
        let mut context = self.language.context(facts);
        let (mut given, mut unread, mut doubt) = (None, None, None);
        for rule in &self.rules {
            if rule.when.is_of_arguments && given.is_none() && unread.is_none() {
                match Arguments::read(arguments) {
                    Ok(read) => {
                        read.add_to(&mut context);
                        given = Some(read);
                    }
                    Err(why) => unread = Some(why),
                }
            }
            let holds = match rule.when.holds(&context, given.as_ref()) {
                // Why they are not there tells more than that they are not.
                Holds::Unknown(why) => Holds::Unknown(unread.clone().unwrap_or(why)),
                known => known,
            };
            match (holds, rule.then) {
                (Holds::Yes, Then::Allow) => {
                    return Verdict::Allowed { rule: Some(Arc::clone(&rule.name)), scopes: rule.scopes.clone() };
                }
                (Holds::Yes, Then::Deny) => return Verdict::Denied { rule: Some(Arc::clone(&rule.name)), why: None },
                (Holds::Unknown(why), Then::Deny) => {
                    return Verdict::Denied { rule: Some(Arc::clone(&rule.name)), why: Some(why) };
                }
                (Holds::Unknown(why), Then::Allow) => {
                    doubt.get_or_insert_with(|| format!("'{}' could not be judged: {why}", rule.name));
                }
                (Holds::No, _) => {}
            }
        }
        Verdict::Denied { rule: None, why: doubt }
    }

    /// Whether somebody may see something: with some arguments they may call it, as far as can be told without.
    pub(super) fn may_see(&self, context: Digest, facts: &Facts<'_>) -> bool {
        if self.rules.is_empty() {
            return true;
        }
        let (server, kind, subject) = (facts.server.as_bytes(), facts.kind.as_bytes(), facts.subject.as_bytes());
        let key = digest(&[&context, server, kind, subject, &[facts.effect as u8]]);
        self.seen.get_with(key, || self.sees(facts))
    }

    fn sees(&self, facts: &Facts<'_>) -> bool {
        let context = self.language.context(facts);
        for rule in &self.rules {
            match (rule.when.holds(&context, None), rule.then) {
                (Holds::Yes, then) => return then == Then::Allow,
                // It depends on the arguments.
                (Holds::Unknown(_), Then::Allow) if rule.when.is_of_arguments => return true,
                (Holds::Unknown(_), Then::Deny) if !rule.when.is_of_arguments => return false,
                _ => {}
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Effect;

    fn policy(rules: &[(&str, &str, Then)]) -> Policy {
        let rule = |(name, when, then): &(&str, &str, Then)| RuleConfig {
            name: (*name).to_owned(),
            when: (*when).to_owned(),
            then: *then,
            scopes: if *then == Then::Allow { vec!["s".to_owned()] } else { Vec::new() },
        };
        Policy::read(&rules.iter().map(rule).collect::<Vec<_>>()).unwrap_or_else(|faults| panic!("{faults:?}"))
    }

    fn facts<'a>(role: &'static str, tool: &'a str) -> Facts<'a> {
        Facts {
            id: "1",
            name: "ann",
            role,
            server: "files",
            kind: "tool",
            subject: tool,
            effect: if tool == "read" { Effect::Reads } else { Effect::Once },
            scopes: &[],
        }
    }

    fn of(verdict: Verdict) -> (bool, String) {
        match verdict {
            Verdict::Allowed { rule, .. } => (true, rule.as_deref().unwrap_or_default().to_owned()),
            Verdict::Denied { rule, .. } => (false, rule.as_deref().unwrap_or_default().to_owned()),
        }
    }

    const RULES: [(&str, &str, Then); 4] = [
        ("operators do all", "caller.role == 'operator'", Then::Allow),
        ("no secrets", "arguments.path.contains('secret')", Then::Deny),
        ("all read", "effect == 'reads'", Then::Allow),
        ("writers write below", "caller.role == 'writer' && arguments.path.startsWith('/own/')", Then::Allow),
    ];

    #[test]
    fn the_first_rule_that_holds_decides_and_what_none_allows_is_refused() {
        let policy = policy(&RULES);
        let judge =
            |role, tool, path: &str| of(policy.judge(&facts(role, tool), Some(&Json::of(&json!({"path": path})))));
        assert_eq!(judge("operator", "write", "/secret"), (true, "operators do all".to_owned()));
        assert_eq!(judge("reader", "read", "/secret"), (false, "no secrets".to_owned()));
        assert_eq!(judge("reader", "read", "/a"), (true, "all read".to_owned()));
        assert_eq!(judge("writer", "write", "/own/a"), (true, "writers write below".to_owned()));
        assert_eq!(judge("writer", "write", "/other"), (false, String::new()));
    }

    #[test]
    fn what_cannot_be_judged_allows_nothing() {
        let policy = policy(&RULES);
        let without = policy.judge(&facts("reader", "read"), None);
        assert_eq!(of(without), (false, "no secrets".to_owned()), "a rule that refuses and fails refuses");
        let large = Json::of(&json!({"path": "x".repeat(100_000)}));
        let Verdict::Denied { why, .. } = policy.judge(&facts("writer", "write"), Some(&large)) else {
            panic!("allowed")
        };
        assert!(why.expect("told").contains("bytes"));
        let only = policy_of_allow();
        let Verdict::Denied { rule: None, why } = only.judge(&facts("writer", "write"), None) else {
            panic!("allowed")
        };
        assert!(why.expect("told").contains("'below'"));
    }

    fn policy_of_allow() -> Policy {
        policy(&[("below", "arguments.path.startsWith('/own/')", Then::Allow)])
    }

    #[test]
    fn lists_show_what_some_arguments_may_allow() {
        let policy = policy(&RULES);
        // Whoever has another role presents something else.
        let sees = |role, tool| policy.may_see(digest(&[str::as_bytes(role)]), &facts(role, tool));
        assert!(sees("operator", "write") && sees("reader", "read") && sees("writer", "write"));
        assert!(!sees("reader", "write"));
        // What one caller may see is not what another may, though nothing else differs.
        assert!(policy.may_see([1; 16], &facts("writer", "write")));
        assert!(!policy.may_see([2; 16], &facts("reader", "write")));
        assert!(Policy::read(&[]).is_ok_and(|none| none.may_see([0; 16], &facts("reader", "x"))));
    }

    #[test]
    fn a_rule_that_cannot_be_read_is_told_by_its_name() {
        let rule = RuleConfig { name: "odd".to_owned(), when: "1 +".to_owned(), then: Then::Allow, scopes: Vec::new() };
        let faults = Policy::read(&[rule]).err().expect("no policy");
        assert!(faults[0].contains("'odd'"), "{faults:?}");
    }
}
