//! From the claims of a JWT to who calls and what they may do. Pure.

use echotune_model::{Fault, Role, UserName};
use serde_json::Value;

use super::{refused, verify::Rules};
use crate::auth::Grant;

/// Claims whose text is words with a space between (RFC 8693 section 4.2; `scp` is the same at some issuers).
const WORDS: [&str; 2] = ["scope", "scp"];

/// Who calls, by the claims.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// Whoever may do everything.
    Operator,
    /// Whoever has the account of this name.
    User(UserName, Role),
}

impl Rules {
    /// Who has these claims.
    ///
    /// # Errors
    /// `Unauthenticated`: the claim that names the account is not there, or holds something else than a name.
    pub(super) fn who(&self, claims: &Value) -> Result<Who, Fault> {
        let has = |pair: &(String, String)| holds(claims, &pair.0, &pair.1);
        if self.operator.as_ref().is_some_and(has) {
            return Ok(Who::Operator);
        }
        let name = claim(claims, &self.account).and_then(Value::as_str);
        let name =
            name.ok_or_else(|| refused(format!("the JWT has no claim '{}' that names an account", self.account)))?;
        let name: UserName = name.parse().map_err(|_| {
            let what = "holds no user name, which is 1 to 64 letters, digits, '.', '_' or '-'";
            refused(format!("the JWT's claim '{}' {what}; see identity.account_claim", self.account))
        })?;
        let may_write = self.writer.as_ref().is_none_or(has);
        Ok(Who::User(name, if may_write { Role::Writer } else { Role::Reader }))
    }
}

/// What a JWT was issued for, by its claims.
pub(super) fn grant(claims: &Value) -> Grant {
    let scopes = WORDS.iter().flat_map(|name| words(claims.get(name), true));
    Grant { scopes: scopes.collect(), audiences: words(claims.get("aud"), false) }
}

/// Texts of a claim: one of them, or an array; one with spaces is several where it `is_split`.
fn words(claim: Option<&Value>, is_split: bool) -> Vec<String> {
    match claim {
        Some(Value::String(text)) if is_split => {
            text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()
        }
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

/// A claim by its name, or by a path that begins with a slash (RFC 6901).
fn claim<'c>(claims: &'c Value, name: &str) -> Option<&'c Value> {
    if name.starts_with('/') { claims.pointer(name) } else { claims.get(name) }
}

/// Whether a claim is, or has among others, what is wanted.
fn holds(claims: &Value, name: &str, wanted: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or(name);
    match claim(claims, name) {
        Some(Value::String(text)) if WORDS.contains(&last) => text.split(' ').any(|word| word == wanted),
        Some(Value::String(text)) => text == wanted,
        Some(Value::Array(all)) => all.iter().any(|one| one.as_str() == Some(wanted)),
        Some(Value::Bool(true)) => wanted == "true",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::process::{DEFAULTS, IdentityConfig, Settings};

    fn rules(operator: (&str, &str), writer: (&str, &str)) -> Rules {
        let text = format!("listen = \"127.0.0.1:0\"\nallow_plaintext = false\n{DEFAULTS}");
        let defaults = toml::from_str::<Settings>(&text).expect("defaults that are read").identity;
        let own = |text: &str| text.to_owned();
        Rules::of(&IdentityConfig {
            operator_claim: own(operator.0),
            operator_value: own(operator.1),
            writer_claim: own(writer.0),
            writer_value: own(writer.1),
            ..defaults
        })
    }

    fn user(name: &str, role: Role) -> Who {
        Who::User(name.parse().expect("a name"), role)
    }

    #[test]
    fn an_operator_is_whose_claim_has_the_value_as_a_whole() {
        let by_roles = rules(("roles", "echotune-operator"), ("", ""));
        for roles in [json!("echotune-operator"), json!(["a", "echotune-operator"])] {
            assert_eq!(by_roles.who(&json!({ "sub": "ann", "roles": roles })), Ok(Who::Operator));
        }
        let others = [json!("not echotune-operator"), json!("echotune-operators"), json!([["echotune-operator"]])];
        for roles in others.into_iter().chain([json!({ "echotune-operator": true }), json!(true), json!(null)]) {
            let who = by_roles.who(&json!({ "sub": "ann", "roles": roles })).expect("a user");
            assert_eq!(who, user("ann", Role::Writer), "{roles}");
        }
        let nested = rules(("/realm_access/roles", "admin"), ("", ""));
        assert_eq!(nested.who(&json!({ "realm_access": { "roles": ["admin"] } })), Ok(Who::Operator));
        let named = rules(("https://example.org/roles", "admin"), ("", ""));
        assert_eq!(named.who(&json!({ "https://example.org/roles": ["admin"] })), Ok(Who::Operator));
        let flag = rules(("is_operator", "true"), ("", ""));
        assert_eq!(flag.who(&json!({ "is_operator": true })), Ok(Who::Operator));
        let nobody = rules(("", ""), ("", ""));
        assert_eq!(nobody.who(&json!({ "sub": "ann", "": "" })), Ok(user("ann", Role::Writer)));
    }

    #[test]
    fn a_scope_is_words_and_without_the_one_that_is_wanted_a_user_only_reads() {
        let scoped = rules(("", ""), ("scope", "music.write"));
        for (scope, role) in [
            (json!("openid music.write"), Role::Writer),
            (json!(["music.write"]), Role::Writer),
            (json!("music.writer"), Role::Reader),
            (json!(""), Role::Reader),
        ] {
            assert_eq!(scoped.who(&json!({ "sub": "ann", "scope": scope })), Ok(user("ann", role)));
        }
        assert_eq!(scoped.who(&json!({ "sub": "ann" })), Ok(user("ann", Role::Reader)));
    }

    #[test]
    fn what_it_was_issued_for_is_words_or_a_list() {
        let read = grant(&json!({ "scope": "a  b", "scp": ["c"], "aud": "https://one.example" }));
        assert_eq!(
            (read.scopes, read.audiences),
            (vec!["a".into(), "b".into(), "c".into()], vec!["https://one.example".into()])
        );
        assert_eq!(grant(&json!({ "aud": ["x", "y", 7] })).audiences, ["x", "y"]);
        assert_eq!(grant(&json!({ "scope": 7 })), Grant::default());
    }

    #[test]
    fn what_is_no_name_is_told_without_being_repeated() {
        let plain = rules(("", ""), ("", ""));
        for sub in [json!("auth0|secret"), json!(""), json!("a b"), json!(7), json!(["ann"]), json!(null)] {
            let fault = plain.who(&json!({ "sub": sub })).expect_err("no name");
            assert!(fault.message.contains("'sub'") && !fault.message.contains("secret"), "{fault}");
        }
    }
}
