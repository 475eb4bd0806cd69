//! What a region holds of a user, so that two can be compared, and what waits in its outbox.

use echotune_model::{Holding, Page, PageRequest, User, UserId};
use sha2::{Digest as _, Sha256};

use super::{
    CqlUserStore,
    schema::{minute, shard},
};
use crate::store::Answer;

/// Rows that are read at a time.
const PAGE: u32 = 1_000;

/// Rows as they are compared, each with its length.
struct Sum {
    rows: u64,
    digest: Sha256,
}

impl Sum {
    fn add(&mut self, parts: [&[u8]; 2]) {
        for part in parts {
            self.digest.update((part.len() as u64).to_be_bytes());
            self.digest.update(part);
        }
        self.rows += 1;
    }
}

impl CqlUserStore {
    /// All that is held of a user as far as it has come here: what an export gives, and idempotency keys that were written
    /// since then.
    pub(crate) async fn holding(&self, user: &User, keys_since_ms: u64) -> Answer<Holding> {
        let mut sum = Sum { rows: 0, digest: Sha256::new() };
        let mut page = PageRequest { size: PAGE, token: String::new() };
        loop {
            let Page { rows, next } = self.export_page(user, &page).await?;
            rows.iter().for_each(|row| sum.add([row.kind.as_bytes(), row.json.as_bytes()]));
            if next.is_empty() {
                break;
            }
            page.token = next;
        }
        let since = i64::try_from(keys_since_ms.saturating_mul(1_000)).unwrap_or(i64::MAX);
        let keys: Vec<(Vec<u8>, Vec<u8>, i64)> =
            self.rows(&self.of().keys_of, (user.id.0.as_bytes().to_vec(),)).await?;
        for (key, request, _) in keys.iter().filter(|(.., written)| *written >= since) {
            sum.add([key, request]);
        }
        Ok(Holding { rows: sum.rows, digest: sum.digest.finalize().into() })
    }

    /// Whether an event of a user waits in the outbox of this region.
    pub(crate) async fn waits_for(&self, user: UserId) -> Answer<bool> {
        let (region, shard, now) = (&self.inner.region, shard(user.0), minute(self.inner.times.wall_ms()));
        let mark: Option<(i64,)> = self.one(&self.of().mark, (region, shard)).await?;
        // No mark, nothing was ever written.
        let Some((mark,)) = mark else { return Ok(false) };
        for minute in mark..=now + 1 {
            let waiting: Vec<(uuid::Uuid,)> = self.rows(&self.of().outbox_users, (region, shard, minute)).await?;
            if waiting.iter().any(|(of,)| *of == user.0) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
