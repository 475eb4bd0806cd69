//! `echotune mcp list`.

use std::path::Path;

use clap::Args;

use super::{Output, shelf::Shelf};
use crate::output;

#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// Only servers with this text in their name, title or description.
    #[arg(long, default_value = "", hide_default_value = true)]
    search: String,
    #[command(flatten)]
    shelf: Shelf,
}

impl ListArguments {
    pub(super) async fn run(&self, data: &Path, output: Output) -> anyhow::Result<()> {
        let mut found = self.shelf.search(data, &self.search).await?;
        // The platform's own first, in their order.
        found.sort_by_key(|entry| !entry.is_ours());
        output::servers(&found, output)
    }
}
