//! API tokens of a person.

use clap::{Subcommand, ValueEnum};
use echotune_kit::config::Period;
use echotune_model::{NewToken, Role};

use super::{Output, call, now_ms};
use crate::{Connection, output};

#[derive(Debug, Subcommand)]
pub(super) enum TokenAction {
    /// Make a token and print its secret, this once.
    Create {
        /// Whose token.
        name: String,
        /// What it is for.
        #[arg(long, default_value = "command line")]
        label: String,
        /// What it allows.
        #[arg(long, value_enum, default_value = "reader")]
        role: TokenRole,
        /// How long it lives, such as "30days"; for ever when not given.
        #[arg(long, value_name = "TIME")]
        expires: Option<Period>,
    },
    /// List the tokens of a person, without their secrets.
    List {
        /// Whose tokens.
        name: String,
    },
    /// Revoke a token at once.
    Revoke {
        /// Whose token.
        name: String,
        /// Which.
        id: String,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum TokenRole {
    /// Reads what belongs to the person.
    Reader,
    /// Reads and writes it.
    Writer,
}

/// What `echotune user token` does.
pub(super) async fn manage(connection: &Connection, action: &TokenAction, output: Output) -> anyhow::Result<()> {
    let users = &connection.users;
    match action {
        TokenAction::Create { name, label, role, expires } => {
            let role = match role {
                TokenRole::Reader => Role::Reader,
                TokenRole::Writer => Role::Writer,
            };
            let ends = |life: Period| u64::try_from(life.0.as_millis() + now_ms().unsigned_abs() as u128);
            let expires_at_ms = expires.map(ends).transpose()?.unwrap_or(0);
            let (token, secret) =
                users.create_token(&call(), name, NewToken { label: label.clone(), role, expires_at_ms }).await?;
            output::new_token(&token, &secret, output)
        }
        TokenAction::List { name } => output::tokens(&users.list_tokens(&call(), name).await?, output),
        TokenAction::Revoke { name, id } => {
            let there = users.revoke_token(&call(), name, id.parse()?).await?;
            output::revoked(id, there, output)
        }
    }
}
