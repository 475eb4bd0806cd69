//! Which region makes the writes of which users.

use std::sync::Arc;

use clap::Subcommand;
use echotune_api::Regions;
use echotune_model::{ErrorKind, Fault};

use super::{Output, call};
use crate::{Connection, output};

#[derive(Debug, Subcommand)]
pub(super) enum RegionAction {
    /// List all regions and who serves each, as the region that is asked sees them.
    List,
    /// Show where the writes of a user are made.
    Home {
        /// Whose.
        user: String,
    },
    /// Have the region that is asked make the writes of the users of another, which is lost. What had not come here by
    /// then is missing until the other is back.
    FailOver {
        /// The lost region.
        region: String,
        /// The region that is asked.
        #[arg(long)]
        to: String,
    },
    /// Have the region that is asked make the writes of its own users again, once it has caught up.
    FailBack {
        /// The region that is asked.
        region: String,
    },
}

/// What `echotune region` does.
pub(super) async fn manage(connection: &Connection, action: &RegionAction, output: Output) -> anyhow::Result<()> {
    let regions: &Arc<dyn Regions> = connection.regions.as_ref().ok_or_else(|| {
        let message = "the platform on a data folder is one region alone; connect.services tells where others are";
        Fault::new(ErrorKind::FailedPrecondition, message)
    })?;
    match action {
        RegionAction::List => output::regions(&regions.list_regions(&call()).await?, output),
        RegionAction::Home { user } => output::home(user, &regions.get_home(&call(), user).await?, output),
        RegionAction::FailOver { region, to } => {
            output::regions(&[regions.fail_over(&call(), region, to).await?], output)
        }
        RegionAction::FailBack { region } => output::regions(&[regions.fail_back(&call(), region).await?], output),
    }
}
