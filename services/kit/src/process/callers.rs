//! Who is known at the edges of a program.

use std::sync::Arc;

use super::{Failure, Settings};
use crate::{
    auth::{Accounts, Authenticator, Callers, Token},
    lifecycle::Life,
    telemetry::metrics::Meter,
};

impl Settings {
    /// Knows the operator by a token, users by what `tokens` says of theirs, and both by JWTs of the issuer of
    /// [`Settings::identity`], if there is one, whose accounts `accounts` finds.
    ///
    /// # Errors
    /// A file with keys or authorities is absent, unreadable or not what it should be.
    pub async fn callers(
        &self,
        operator: Token,
        tokens: Arc<dyn Authenticator>,
        accounts: Arc<dyn Accounts>,
        life: &mut Life,
        meter: &Meter,
    ) -> Result<Callers, Failure> {
        let callers = Callers::new(operator, Some(tokens));
        #[cfg(feature = "identity")]
        if self.identity.is_set() {
            let plain = self.allow_plaintext;
            let issued = crate::identity::Identity::start(&self.identity, plain, accounts, life, meter).await?;
            return Ok(callers.with_issuer(issued));
        }
        #[cfg(not(feature = "identity"))]
        let _ = (accounts, life, meter);
        Ok(callers)
    }
}
