//! Callers that are known by JWTs (RFC 7519) of an issuer, such as one that speaks OpenID Connect. A signature is checked
//! by the issuer's keys (RFC 7517), which are fetched beside serving, and claims by the rules of RFC 8725. What a caller
//! may do is that of an API token: an account reads or writes what is its own, and an operator does everything.
//!
//! Nothing is asked of the issuer while a request waits, unless its JWT is by a key that nobody has seen yet.

mod claims;
mod http;
mod keys;
mod known;
mod provider;
mod remembered;
mod source;
mod verify;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use echotune_model::{ErrorKind, Fault, Principal, User, UserName};

use self::{
    claims::Who,
    known::{Keys, Pace},
    remembered::Memory,
    source::Source,
    verify::Rules,
};
pub use self::{
    keys::KeySet,
    remembered::remembered,
    source::{KeysError, MAX_DOCUMENT_BYTES},
};
use crate::{
    auth::{Accounts, Authenticator, Presented},
    lifecycle::Life,
    process::{Failure, IdentityConfig},
    telemetry::metrics::{KEYS_AGE, Meter},
};

/// Knows callers by JWTs of one issuer.
pub struct Identity {
    rules: Rules,
    keys: Arc<Keys>,
    accounts: Arc<dyn Accounts>,
    /// Accounts by their folded names.
    found: Memory<String, User>,
}

impl Identity {
    /// Looks for the issuer's keys once, and then as often as `config` says for as long as `life` lasts. An issuer that
    /// does not answer keeps nobody from starting: it is told in the log, and JWTs are refused until its keys come.
    /// Accounts are looked up by `accounts`. `allow_plaintext` says that the network is trusted.
    ///
    /// # Errors
    /// A file of `config` is absent, unreadable or not what it should be.
    pub async fn start(
        config: &IdentityConfig,
        allow_plaintext: bool,
        accounts: Arc<dyn Accounts>,
        life: &mut Life,
        meter: &Meter,
    ) -> Result<Arc<Self>, Failure> {
        let source = Source::of(config, allow_plaintext).await?;
        let keys = Arc::new(Keys::new(&config.issuer, Pace::of(config), meter.gauge(KEYS_AGE)));
        if let Err(cause) = keys.look(&source).await
            && source.is_local()
        {
            return Err(format!("identity.jwks_file: {cause}").into());
        }
        let (followed, stop) = (Arc::clone(&keys), life.stop());
        life.consumer("the keys of the issuer", async move {
            followed.follow(&source, &stop).await;
            Ok::<_, std::convert::Infallible>(())
        });
        Ok(Arc::new(Self { rules: Rules::of(config), keys, accounts, found: Memory::new(config.remember.0) }))
    }

    async fn account(&self, name: &UserName) -> Result<User, Fault> {
        self.found.get(name.folded(), self.accounts.account(name)).await.map_err(|fault| match fault.kind {
            ErrorKind::NotFound => Fault::new(
                ErrorKind::PermissionDenied,
                format!(
                    "the JWT is of '{name}', who has no account here; an operator makes one with `echotune user create {name}`"
                ),
            ),
            _ => fault,
        })
    }
}

#[async_trait]
impl Authenticator for Identity {
    async fn principal(&self, jwt: &str) -> Result<Principal, Fault> {
        Ok(self.presented(jwt).await?.principal)
    }

    async fn presented(&self, jwt: &str) -> Result<Presented, Fault> {
        let head = self.rules.head(jwt)?;
        let key = self.keys.get(&head).await?;
        let claims = self.rules.claims(jwt, &head, &key)?;
        let principal = match self.rules.who(&claims)? {
            Who::Operator => Principal::Operator,
            Who::User(name, role) => {
                let user = self.account(&name).await?;
                Principal::User { id: user.id, name: user.name, role }
            }
        };
        Ok(Presented { principal, grant: Some(claims::grant(&claims)) })
    }
}

/// A refusal of a JWT, which is never repeated: it is a secret until it ends.
fn refused(why: impl Into<String>) -> Fault {
    Fault::new(ErrorKind::Unauthenticated, why)
}

/// The longest that what is told of a caller who was refused is believed.
const REFUSAL: Duration = Duration::from_secs(1);
