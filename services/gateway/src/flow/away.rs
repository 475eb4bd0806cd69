//! A request that another region makes: because it is its turn, or since the server cannot be had here.

use std::sync::Arc;

use super::conversation::{Broken, Conversation};
use crate::{
    message::Outcome,
    regions::{Away, Region},
    upstream::Failed,
};

impl Conversation {
    /// Finds out where it is made: elsewhere, or here as soon as there is a place.
    pub(super) async fn set_out(&mut self) -> Result<(), Broken> {
        if self.may_leave {
            let name = &self.server.config.name;
            let told = self.server.shares.turn().and_then(|region| self.hub.regions.named(&region, name));
            if self.goes_to(told) || self.server.is_down() && self.flees() {
                return Ok(());
            }
        }
        self.enter(None).await
    }

    /// Goes to a region, if one is given and there is a place on the way; whether it does.
    fn goes_to(&mut self, region: Option<Arc<Region>>) -> bool {
        let Some(away) = region.filter(|_| self.may_leave).and_then(Away::to) else { return false };
        // Whoever was turned away there waits here.
        self.may_leave = false;
        self.leave();
        self.away = Some(away);
        true
    }

    /// Goes to whichever region can take it; whether it does.
    pub(super) fn flees(&mut self) -> bool {
        let region = if self.may_leave { self.hub.regions.nearest(&self.server.config.name) } else { None };
        self.goes_to(region)
    }

    /// Whether nothing of the server is to be had here, though the server is still served.
    pub(super) fn has_none(&self) -> bool {
        (self.server.is_asleep() || self.server.is_down()) && !self.server.end.is_cancelled()
    }

    /// Whether another region has not begun with it: then it is made here.
    pub(super) fn is_turned_away(&self, failed: &Failed) -> bool {
        self.away.is_some() && !matches!(failed, Failed::Cut(_) | Failed::Late | Failed::Wrong(_))
    }

    /// Counts what became of it at another region.
    pub(super) fn count_away(&self, outcome: &Result<Outcome, Broken>) {
        let Some(away) = &self.away else { return };
        let result = match outcome {
            Ok(_) => "taken",
            Err(Broken::Failed(failed)) if self.is_turned_away(failed) => "refused",
            Err(Broken::Gone) => "cancelled",
            Err(_) => "failed",
        };
        self.hub.meters.spilled(&away.region.name, &self.server.config.name, result);
    }
}
