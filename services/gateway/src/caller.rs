//! Who asks, and what must not pass from one who asks to another.

use echotune_kit::auth::{Callers, Grant, ON_BEHALF_OF, Presented};
use echotune_model::{Fault, Principal};
use http::{HeaderMap, header::AUTHORIZATION};
use sha2::{Digest as _, Sha256};

/// A name of something that tells nothing of it, in tokens and as the key of what is kept.
pub(crate) type Digest = [u8; 16];

/// A digest of some parts, of which none can pass for another.
pub(crate) fn digest(of: &[&[u8]]) -> Digest {
    let mut hash = Sha256::new();
    for part in of {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    *hash.finalize().first_chunk().expect("32 bytes")
}

/// Who asks.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Caller {
    pub(crate) principal: Principal,
    /// What a JWT was issued for; nothing for other tokens.
    pub(crate) grant: Option<Grant>,
    /// Whose sessions are theirs: the account, by whichever of its tokens.
    pub(crate) owner: Digest,
    /// Whose private lists are theirs: what was presented. A token may see less than another of the same account.
    pub(crate) context: Digest,
}

impl Caller {
    /// Finds out who sends these headers.
    pub(crate) async fn of(callers: &Callers, headers: &HeaderMap) -> Result<Self, Fault> {
        let Presented { principal, grant } = callers.presented(headers).await?;
        let presented = headers.get(AUTHORIZATION).map_or(&b""[..], |value| value.as_bytes());
        let other = headers.get(ON_BEHALF_OF).map_or(&b""[..], |value| value.as_bytes());
        let account = match &principal {
            Principal::Operator => "operator".to_owned(),
            Principal::User { id, .. } => id.to_string(),
        };
        let context = digest(&[b"context", presented, other]);
        Ok(Self { owner: digest(&[b"owner", account.as_bytes()]), context, principal, grant })
    }

    /// The same, who showed a token elsewhere that was issued for this.
    pub(crate) fn bound_to(self, grant: Grant) -> Self {
        let scopes = grant.scopes.join(" ");
        let context = digest(&[b"bound", &self.context, scopes.as_bytes()]);
        Self { context, grant: Some(grant), ..self }
    }
}
