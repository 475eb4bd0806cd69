//! Long lists, a page at a time: the token of a page is the key of the last row before it.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use echotune_kit::cql::{decode, encode};
use echotune_model::Page;
use serde::{Serialize, de::DeserializeOwned};

use crate::store::{Answer, UserStoreError};

/// Longest page token, in bytes.
const MAX_TOKEN_BYTES: usize = 2_048;
/// Bytes in one page, from which on the page ends early.
pub(super) const PAGE_BYTES: usize = 4 << 20;

pub(super) fn bad_token(token: &str) -> UserStoreError {
    UserStoreError::BadPageToken(token.chars().take(64).flat_map(char::escape_debug).collect())
}

pub(super) fn token<K: Serialize>(key: &K) -> String {
    URL_SAFE_NO_PAD.encode(encode(key))
}

/// The key after which a page begins; nothing for the first page.
pub(super) fn after<K: DeserializeOwned>(token: &str) -> Answer<Option<K>> {
    if token.is_empty() {
        return Ok(None);
    }
    if token.len() > MAX_TOKEN_BYTES {
        return Err(bad_token(token));
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| bad_token(token))?;
    decode("a page token", &bytes).map(Some).map_err(|_| bad_token(token))
}

/// How many rows to read for a page of this size: one more tells that there are more.
pub(super) fn wanted(size: u32) -> i32 {
    i32::try_from(size).unwrap_or(i32::MAX).saturating_add(1)
}

/// The page that these rows begin with, of which there may be one more than fit. A row of which nothing is left is left
/// out.
pub(super) fn page<R, K: Serialize, T>(
    mut rows: Vec<R>,
    size: u32,
    key: impl Fn(&R) -> K,
    row: impl Fn(R) -> Answer<Option<T>>,
) -> Answer<Page<T>> {
    let more = rows.len() > size as usize;
    rows.truncate(size as usize);
    let next = rows.last().filter(|_| more).map(|last| token(&key(last))).unwrap_or_default();
    Ok(Page { rows: rows.into_iter().filter_map(|one| row(one).transpose()).collect::<Result<_, _>>()?, next })
}
