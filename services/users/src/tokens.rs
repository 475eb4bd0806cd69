//! API tokens: `etk_` + id + `_` + 256 random bits. Only an Argon2id hash (RFC 9106) is kept; a
//! bounded cache of SHA-256 digests spares callers that come again the cost of it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use argon2::{
    Argon2,
    password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use echotune_model::{ErrorKind, Fault, Principal, TokenId, User, UserId};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use crate::store::{StoredToken, UserStore};

/// For how long a verified secret is believed; another process may have revoked it meanwhile.
const BELIEVED: Duration = Duration::from_secs(60);
/// Verified secrets remembered at the most.
const REMEMBERED: usize = 10_000;
/// Hashes computed at the same time at the most; each takes 19 MiB.
const HASHING: usize = 2;
/// Callers that wait for a hash at the most.
const QUEUE: usize = 64;
const PREFIX: &str = "etk_";
/// Longest hash of a secret as text, in bytes.
const MAX_HASH_BYTES: usize = 512;
/// Memory that a foreign hash may cost to compute at the most, in KiB.
const MAX_HASH_MEMORY_KIB: u32 = 64 << 10;
/// Passes that it may take at the most.
const MAX_HASH_PASSES: u32 = 10;

struct Known {
    principal: Principal,
    user: UserId,
    token: TokenId,
    expires_at_ms: u64,
    since: Instant,
}

#[derive(Default)]
struct Cache {
    known: HashMap<[u8; 32], Known>,
    /// Goes up with every revocation, so that a check under way does not outlive it.
    revocations: u64,
}

/// Makes and verifies tokens.
pub(crate) struct Tokens {
    cache: Mutex<Cache>,
    hashing: Arc<Semaphore>,
    queue: Arc<Semaphore>,
}

/// A fresh secret and what is kept of it.
pub(crate) struct Minted {
    pub(crate) id: TokenId,
    pub(crate) secret: String,
    pub(crate) hash: String,
}

fn unauthenticated() -> Fault {
    Fault::new(ErrorKind::Unauthenticated, "the token is unknown, revoked or expired; make another one")
}

fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

pub(crate) fn id_of(secret: &str) -> Option<TokenId> {
    let (id, _) = secret.strip_prefix(PREFIX)?.split_once('_')?;
    id.parse().ok()
}

fn expired(expires_at_ms: u64, now_ms: u64) -> bool {
    expires_at_ms != 0 && expires_at_ms <= now_ms
}

/// Checks a hash that was made elsewhere: it is of the kind that is made here, and no dearer than this program can
/// afford to compute for whoever presents a secret.
pub(crate) fn check_hash(hash: &str) -> Result<(), String> {
    let why = "hash is not a PHC string of Argon2id, such as $argon2id$v=19$m=19456,t=2,p=1$SALT$HASH";
    if hash.len() > MAX_HASH_BYTES {
        return Err(format!("hash has {} bytes; at most {MAX_HASH_BYTES} are kept", hash.len()));
    }
    let parsed = PasswordHash::new(hash).map_err(|_| why.to_owned())?;
    if parsed.algorithm.as_str() != "argon2id" || parsed.hash.is_none() || parsed.salt.is_none() {
        return Err(why.to_owned());
    }
    let cost = argon2::Params::try_from(&parsed).map_err(|_| why.to_owned())?;
    if cost.m_cost() > MAX_HASH_MEMORY_KIB || cost.t_cost() > MAX_HASH_PASSES || cost.p_cost() > 4 {
        return Err(format!(
            "hash takes {} KiB and {} passes to compute; at most {MAX_HASH_MEMORY_KIB} KiB and {MAX_HASH_PASSES} are allowed",
            cost.m_cost(),
            cost.t_cost()
        ));
    }
    Ok(())
}

fn principal(stored: &StoredToken, user: &User) -> Principal {
    Principal::User { id: user.id, name: user.name.clone(), role: stored.token.role }
}

impl Tokens {
    pub(crate) fn new() -> Self {
        Self {
            cache: Mutex::default(),
            hashing: Arc::new(Semaphore::new(HASHING)),
            queue: Arc::new(Semaphore::new(QUEUE)),
        }
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a hash away from the threads that serve requests, few at a time.
    async fn hash<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Fault> {
        let busy = || Fault::new(ErrorKind::ResourceExhausted, "too many tokens are being verified; try again");
        let _place = self.queue.try_acquire().map_err(|_| busy())?;
        // The permit goes with the work: a caller that leaves does not make room before it is done.
        let permit = Arc::clone(&self.hashing).acquire_owned().await.map_err(|_| busy())?;
        let work = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(permit);
            done
        });
        work.await.map_err(|cause| Fault::new(ErrorKind::Internal, format!("a hash was given up: {cause}")))
    }

    pub(crate) async fn mint(&self, id: TokenId) -> Result<Minted, Fault> {
        let internal = |cause: String| Fault::new(ErrorKind::Internal, format!("no token can be made: {cause}"));
        let mut bytes = [0_u8; 32];
        getrandom::fill(&mut bytes).map_err(|cause| internal(cause.to_string()))?;
        let secret = format!("{PREFIX}{}_{}", id.0.simple(), URL_SAFE_NO_PAD.encode(bytes));
        let hashed = secret.clone();
        let hash = self.hash(move || Argon2::default().hash_password(hashed.as_bytes()).map(|hash| hash.to_string()));
        let hash = hash.await?.map_err(|cause| internal(cause.to_string()))?;
        Ok(Minted { id, secret, hash })
    }

    fn remembered(&self, digest: &[u8; 32], now_ms: u64) -> Option<Principal> {
        let mut cache = self.cache();
        let known = cache.known.get(digest)?;
        if known.since.elapsed() >= BELIEVED || expired(known.expires_at_ms, now_ms) {
            cache.known.remove(digest);
            return None;
        }
        Some(known.principal.clone())
    }

    /// Who presents this secret.
    pub(crate) async fn verify(&self, store: &dyn UserStore, secret: &str) -> Result<Principal, Fault> {
        let id = id_of(secret).ok_or_else(unauthenticated)?;
        let digest = digest(secret);
        if let Some(principal) = self.remembered(&digest, store.now_ms()) {
            return Ok(principal);
        }
        let before = self.cache().revocations;
        let (stored, user) = store.token(id).await?.ok_or_else(unauthenticated)?;
        if expired(stored.token.expires_at_ms, store.now_ms()) {
            return Err(unauthenticated());
        }
        let (hash, presented) = (stored.hash.clone(), secret.to_owned());
        let matches = self.hash(move || {
            PasswordHash::new(&hash)
                .is_ok_and(|hash| Argon2::default().verify_password(presented.as_bytes(), &hash).is_ok())
        });
        if !matches.await? {
            return Err(unauthenticated());
        }
        // It may have been revoked while the hash was computed.
        let (stored, user) = match store.token(id).await? {
            Some((again, same)) if again.hash == stored.hash && same.id == user.id => (again, same),
            _ => return Err(unauthenticated()),
        };
        let principal = principal(&stored, &user);
        self.remember(digest, &stored, principal.clone(), before);
        Ok(principal)
    }

    fn remember(&self, digest: [u8; 32], stored: &StoredToken, principal: Principal, before: u64) {
        let mut cache = self.cache();
        if cache.revocations != before {
            return;
        }
        if cache.known.len() >= REMEMBERED {
            cache.known.retain(|_, known| known.since.elapsed() < BELIEVED);
        }
        if cache.known.len() < REMEMBERED {
            let known = Known {
                principal,
                user: stored.user,
                token: stored.token.id,
                expires_at_ms: stored.token.expires_at_ms,
                since: Instant::now(),
            };
            cache.known.insert(digest, known);
        }
    }

    /// Believes a token no longer.
    pub(crate) fn forget_token(&self, id: TokenId) {
        let mut cache = self.cache();
        cache.revocations += 1;
        cache.known.retain(|_, known| known.token != id);
    }

    /// Believes no token of a user any longer.
    pub(crate) fn forget_user(&self, id: UserId) {
        let mut cache = self.cache();
        cache.revocations += 1;
        cache.known.retain(|_, known| known.user != id);
    }
}
