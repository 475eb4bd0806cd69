//! Accounts, their settings and their tokens.

use echotune_model::{ApiToken, Role, Settings, User};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{print_json, printable, say, table};
use crate::commands::Output;

/// A time for people; what no calendar holds stays a number.
pub(super) fn moment(at_ms: u64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(at_ms) * 1_000_000);
    time.ok().and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| at_ms.to_string())
}

/// Accounts, by creation.
pub(crate) fn users(users: &[User], output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        let users = users.iter().map(|user| {
            json!({"id": user.id.to_string(), "name": user.name.to_string(), "created_at_ms": user.created_at_ms})
        });
        return print_json(&json!({"users": users.collect::<Vec<_>>()}));
    }
    let mut shown = table(&["user", "since", "id"]);
    for user in users {
        shown.add_row([user.name.to_string(), moment(user.created_at_ms), user.id.to_string()]);
    }
    say(shown)
}

/// How a person wants to be served.
pub(crate) fn settings(settings: &Settings, output: Output) -> anyhow::Result<()> {
    let Settings { blocked_artists, private, explicit } = settings;
    if output == Output::Json {
        return print_json(
            &json!({"blocked_artists": blocked_artists, "private": private, "explicit": explicit.name()}),
        );
    }
    let mut shown = table(&["setting", "value"]);
    shown.add_row(["private".to_owned(), private.to_string()]);
    shown.add_row(["explicit".to_owned(), explicit.name().to_owned()]);
    shown.add_row(["blocked artists".to_owned(), printable(&blocked_artists.join(", "))]);
    say(shown)
}

const fn role_name(role: Role) -> &'static str {
    match role {
        Role::Reader => "reader",
        Role::Writer => "writer",
    }
}

fn token_json(token: &ApiToken) -> Value {
    let ApiToken { id, label, role, created_at_ms, expires_at_ms } = token;
    json!({
        "id": id.to_string(), "label": label, "role": role_name(*role), "created_at_ms": created_at_ms,
        "expires_at_ms": expires_at_ms,
    })
}

/// A token that was made, with its secret.
pub(crate) fn new_token(token: &ApiToken, secret: &str, output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        let mut shown = token_json(token);
        shown["secret"] = secret.into();
        return print_json(&shown);
    }
    say(format_args!("{secret}\ntoken {} ({}); the secret is not shown again", token.id, role_name(token.role)))
}

/// Tokens, without their secrets.
pub(crate) fn tokens(tokens: &[ApiToken], output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        return print_json(&json!({"tokens": tokens.iter().map(token_json).collect::<Vec<_>>()}));
    }
    let mut shown = table(&["token", "for", "role", "since", "until"]);
    for token in tokens {
        let until = if token.expires_at_ms == 0 { "for ever".to_owned() } else { moment(token.expires_at_ms) };
        let (id, role) = (token.id.to_string(), role_name(token.role).to_owned());
        shown.add_row([id, printable(&token.label), role, moment(token.created_at_ms), until]);
    }
    say(shown)
}

/// What became of a token to be revoked.
pub(crate) fn revoked(id: &str, there: bool, output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        return print_json(&json!({"id": id, "revoked": there}));
    }
    say(if there { format!("token {id} is revoked") } else { format!("there is no token {id}; nothing was revoked") })
}
