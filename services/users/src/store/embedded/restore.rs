//! What comes from another platform and has its identity already.

use echotune_api::events::Payload;
use echotune_kit::embedded::{Key, get};
use echotune_model::{ErasureReceipt, Playlist, User, UserId};

use super::{
    Draft, lists,
    tables::{ACCOUNTS, ERASED, ERASING, NAMES, PLAYLISTS, PLAYLISTS_OF, TOKENS, TOKENS_OF, name_key, of},
};
use crate::store::{Answer, MAX_PLAYLISTS, MAX_TOKENS, StoredToken, UserStoreError};

fn id_key(id: uuid::Uuid) -> Key {
    Key::new().fixed(id.as_bytes())
}

pub(super) fn account(draft: &mut Draft<'_>, user: User) -> Answer<(User, bool)> {
    if let Some(found) = get::<User>(draft.view, ACCOUNTS, &of(user.id))? {
        return Ok((found, false));
    }
    let erased = get::<ErasureReceipt>(draft.view, ERASED, &of(user.id))?.is_some();
    if erased || draft.view.get(ERASING, &of(user.id))?.is_some() {
        return Err(UserStoreError::Erased(user.name));
    }
    if get::<UserId>(draft.view, NAMES, &name_key(&user.name))?.is_some() {
        return Err(UserStoreError::NameTaken(user.name));
    }
    draft.batch.put(NAMES, name_key(&user.name), &user.id);
    draft.batch.put(ACCOUNTS, of(user.id), &user);
    draft.count("users", 1);
    draft.publish(user.id, Payload::UserCreated { name: user.name.clone() });
    Ok((user, true))
}

pub(super) fn playlist(draft: &mut Draft<'_>, user: &User, playlist: Playlist) -> Answer<bool> {
    match lists::playlist(draft.view, playlist.id)? {
        Some(found) if found.owner == user.id => return Ok(false),
        Some(_) => return Err(UserStoreError::Other { what: "playlist", id: playlist.id.to_string() }),
        None => {}
    }
    if lists::how_many(draft.view, PLAYLISTS_OF, user.id, MAX_PLAYLISTS)? == MAX_PLAYLISTS {
        return Err(UserStoreError::TooMany { user: user.name.clone(), what: "playlists", limit: MAX_PLAYLISTS });
    }
    draft.clock.observe(playlist.changed_at);
    draft.batch.put(PLAYLISTS, id_key(playlist.id.0), &playlist);
    draft.batch.put_bytes(PLAYLISTS_OF, of(user.id).fixed(playlist.id.0.as_bytes()), Vec::new());
    draft.count("playlists", 1);
    Ok(true)
}

pub(super) fn token(draft: &mut Draft<'_>, user: &User, stored: StoredToken) -> Answer<bool> {
    let id = stored.token.id;
    match lists::token(draft.view, id)? {
        Some(found) if found == stored => return Ok(false),
        Some(_) => return Err(UserStoreError::Other { what: "token", id: id.to_string() }),
        None => {}
    }
    if lists::how_many(draft.view, TOKENS_OF, user.id, MAX_TOKENS)? == MAX_TOKENS {
        return Err(UserStoreError::TooMany { user: user.name.clone(), what: "tokens", limit: MAX_TOKENS });
    }
    draft.batch.put(TOKENS, id_key(id.0), &stored);
    draft.batch.put_bytes(TOKENS_OF, of(user.id).fixed(id.0.as_bytes()), Vec::new());
    Ok(true)
}
