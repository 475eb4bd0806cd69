//! Everything held about a user, one section after the other.

use echotune_model::{ErrorKind, ExportRecord, Page, PageRequest, User};
use serde::Serialize;

use super::{CqlUserStore, pages};
use crate::store::{Answer, UserStoreError};

/// What an export consists of, in its order.
const SECTIONS: [&str; 10] =
    ["account", "profile", "settings", "listen", "play_count", "tagging", "friend", "library", "playlist", "token"];

fn record<T: Serialize>(kind: &str, value: &T) -> Answer<ExportRecord> {
    let json = serde_json::to_string(value).map_err(|cause| UserStoreError::Failed {
        kind: ErrorKind::Internal,
        message: format!("a record of kind '{kind}' cannot be written as JSON: {cause}"),
    })?;
    Ok(ExportRecord { kind: kind.to_owned(), json })
}

fn records<T: Serialize>(kind: &str, page: Page<T>) -> Answer<Page<ExportRecord>> {
    let rows = page.rows.iter().map(|row| record(kind, row)).collect::<Result<_, _>>()?;
    Ok(Page { rows, next: page.next })
}

fn whole<T>(rows: impl IntoIterator<Item = T>) -> Page<T> {
    Page { rows: rows.into_iter().collect(), next: String::new() }
}

impl CqlUserStore {
    async fn section(&self, user: &User, kind: &str, request: &PageRequest) -> Answer<Page<ExportRecord>> {
        let id = user.id;
        match kind {
            "account" => records(kind, whole([user])),
            "profile" => records(kind, whole(self.stored_profile(id).await?)),
            "settings" => records(kind, whole(self.stored_settings(id).await?.map(|(_, settings)| settings))),
            "listen" => {
                let Page { rows, next } = self.history(id, request).await?;
                let rows = rows.into_iter().map(|entry| entry.listen).collect();
                records(kind, Page { rows, next })
            }
            "play_count" => records(kind, self.counts_page(id, request).await?),
            "tagging" => records(kind, self.taggings_page(id, request).await?),
            "friend" => {
                let Page { rows, next } = self.friends_page(id, request).await?;
                let rows = rows.into_iter().map(|name| serde_json::json!({ "name": name })).collect();
                records(kind, Page { rows, next })
            }
            "library" => records(kind, self.library_page(id, request).await?),
            "playlist" => records(kind, self.playlists_page(id, request).await?),
            _ => {
                let skip: usize = pages::after(&request.token)?.unwrap_or_default();
                let tokens = self.tokens_of_user(id).await?;
                let end = skip.saturating_add(request.size as usize).min(tokens.len());
                let next = if end < tokens.len() { pages::token(&end) } else { String::new() };
                let rows = tokens.into_iter().take(end).skip(skip).collect();
                records(kind, Page { rows, next })
            }
        }
    }

    /// One section at a time: the token is the section and the token within it, parted by a dot.
    pub(super) async fn export_page(&self, user: &User, request: &PageRequest) -> Answer<Page<ExportRecord>> {
        let bad = || pages::bad_token(&request.token);
        let (mut at, mut token) = match request.token.split_once('.') {
            None if request.token.is_empty() => (0, String::new()),
            None => return Err(bad()),
            Some((kind, rest)) => {
                (SECTIONS.iter().position(|section| *section == kind).ok_or_else(bad)?, rest.to_owned())
            }
        };
        let (mut rows, mut bytes): (Vec<ExportRecord>, usize) = (Vec::new(), 0);
        while let Some(kind) = SECTIONS.get(at) {
            let room = request.size.saturating_sub(u32::try_from(rows.len()).unwrap_or(u32::MAX));
            if room == 0 || bytes >= pages::PAGE_BYTES {
                return Ok(Page { rows, next: format!("{kind}.{token}") });
            }
            let part = self.section(user, kind, &PageRequest { size: room, token }).await?;
            bytes += part.rows.iter().map(|row| row.json.len()).sum::<usize>();
            rows.extend(part.rows);
            token = part.next;
            if token.is_empty() {
                at += 1;
            }
        }
        Ok(Page { rows, next: String::new() })
    }
}
