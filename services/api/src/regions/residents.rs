use std::{fmt, sync::Arc};

use echotune_model::{Call, ErrorKind, Fault, Home, Principal};

use super::Regions;

/// Tells users of a jurisdiction from those of others, for services that keep something of the former alone.
#[derive(Clone)]
pub struct Residents {
    regions: Arc<dyn Regions>,
    jurisdiction: String,
}

impl fmt::Debug for Residents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Residents").field("jurisdiction", &self.jurisdiction).finish_non_exhaustive()
    }
}

impl Residents {
    /// Those of this jurisdiction, as the regions tell them.
    pub fn new(regions: Arc<dyn Regions>, jurisdiction: &str) -> Self {
        Self { regions, jurisdiction: jurisdiction.to_owned() }
    }

    /// Refuses a user who is none of the jurisdiction. Whether the caller may know of the user is to be asked before.
    ///
    /// # Errors
    /// [`ErrorKind::FailedPrecondition`] naming the home and its jurisdiction, [`ErrorKind::NotFound`] when there is no
    /// such user, or what the way to the regions says.
    pub async fn check(&self, call: &Call, user: &str) -> Result<(), Fault> {
        let call = Call { principal: Principal::Operator, idempotency_key: String::new(), ..call.clone() };
        let Home { region, jurisdiction, .. } = self.regions.get_home(&call, user).await?;
        if jurisdiction == self.jurisdiction {
            return Ok(());
        }
        let own = &self.jurisdiction;
        let why =
            format!("is at home in region '{region}', of jurisdiction '{jurisdiction}', and this one is of '{own}'");
        Err(Fault::new(ErrorKind::FailedPrecondition, format!("'{user}' {why}; ask there")))
    }

    /// What to say instead of that a user is not known: where the user is, when that is elsewhere.
    pub async fn explain(&self, call: &Call, user: &str, unknown: Fault) -> Fault {
        match self.check(call, user).await {
            Err(elsewhere) if elsewhere.kind == ErrorKind::FailedPrecondition => elsewhere,
            _ => unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use echotune_model::{Handover, HomeMove, RegionStatus};

    use super::*;

    /// `ann` is at home in eu, and nobody else anywhere.
    struct Eu;

    #[async_trait]
    impl Regions for Eu {
        async fn list_regions(&self, _: &Call) -> Result<Vec<RegionStatus>, Fault> {
            Ok(Vec::new())
        }

        async fn get_home(&self, call: &Call, user: &str) -> Result<Home, Fault> {
            call.may_operate()?;
            if user != "ann" {
                return Err(Fault::unknown_user(user));
            }
            let eu = || "eu".to_owned();
            Ok(Home { region: eu(), jurisdiction: "eea".into(), served_by: eu(), epoch: 0, moving: None })
        }

        async fn fail_over(&self, _: &Call, region: &str, _: &str) -> Result<RegionStatus, Fault> {
            Err(Fault::invalid(region))
        }

        async fn fail_back(&self, _: &Call, region: &str) -> Result<RegionStatus, Fault> {
            Err(Fault::invalid(region))
        }

        async fn move_home(&self, _: &Call, user: &str, _: &str) -> Result<Home, Fault> {
            Err(Fault::invalid(user))
        }

        async fn abort_move(&self, _: &Call, user: &str) -> Result<Home, Fault> {
            Err(Fault::invalid(user))
        }

        async fn list_moves(&self, _: &Call) -> Result<Vec<HomeMove>, Fault> {
            Ok(Vec::new())
        }

        async fn release_user(&self, _: &Call, user: &str, _: u64) -> Result<Handover, Fault> {
            Err(Fault::invalid(user))
        }
    }

    #[tokio::test]
    async fn users_of_others_are_named_with_their_home_and_nobody_else_is() {
        let (here, there) = (Residents::new(Arc::new(Eu), "open"), Residents::new(Arc::new(Eu), "eea"));
        let call = Call::internal();
        assert!(there.check(&call, "ann").await.is_ok());
        let refused = here.check(&call, "ann").await.expect_err("of eu");
        assert_eq!(refused.kind, ErrorKind::FailedPrecondition);
        assert!(["'eu'", "'eea'", "'open'"].iter().all(|word| refused.message.contains(word)), "{refused}");
        let unknown = || Fault::unknown_user("ann");
        assert_eq!(here.explain(&call, "ann", unknown()).await, refused);
        assert_eq!(there.explain(&call, "ann", unknown()).await, unknown(), "news of the account has not come yet");
        assert_eq!(here.explain(&call, "ben", unknown()).await, unknown());
        assert_eq!(here.check(&call, "ben").await.expect_err("unknown").kind, ErrorKind::NotFound);
    }
}
