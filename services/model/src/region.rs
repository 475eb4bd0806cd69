use crate::{Hlc, UserId};

/// A region, as another sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionStatus {
    /// Its name.
    pub region: String,
    /// What its users' data do not leave; empty where there are no jurisdictions.
    pub jurisdiction: String,
    /// The region that makes the writes of its users; itself, unless the operator decided otherwise.
    pub served_by: String,
    /// How often that was decided; 0 when never.
    pub epoch: u64,
    /// When it was decided last, in milliseconds since the Unix epoch; 0 when never.
    pub since_ms: u64,
    /// Time of the newest write of its processes that has come to the region that tells; zero when none has. What the
    /// region wrote after it is not there yet.
    pub newest_write: Hlc,
}

/// Where the writes of a user are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// The region that the user belongs to.
    pub region: String,
    /// What the user's data do not leave; empty where there are no jurisdictions.
    pub jurisdiction: String,
    /// The region that makes the writes of its users now.
    pub served_by: String,
    /// How often a move of this home began or ended; 0 when never.
    pub epoch: u64,
    /// The move that is under way. Nobody writes for the user meanwhile.
    pub moving: Option<Moving>,
}

/// A move that is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moving {
    /// The home after.
    pub to: String,
    /// When it was begun or gone on with last, in milliseconds since the Unix epoch.
    pub since_ms: u64,
}

/// A user who moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HomeMove {
    /// Who.
    pub user: UserId,
    /// The account's name; empty when the account has not come to the region that tells.
    pub name: String,
    /// The home before.
    pub from: String,
    /// The home after.
    pub to: String,
    /// How often a move of this home began or ended.
    pub epoch: u64,
    /// When it was begun or gone on with last, in milliseconds since the Unix epoch.
    pub since_ms: u64,
}

/// What a region holds of a user for whom nobody writes there any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handover {
    /// A time after that of every write made there for the user.
    pub fence: Hlc,
    /// What there is.
    pub holding: Holding,
    /// Idempotency keys are among it that were written since then, in milliseconds since the Unix epoch: none of them
    /// ends while it is compared.
    pub keys_since_ms: u64,
}

/// What a region holds of a user, to be compared with what another does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holding {
    /// Rows.
    pub rows: u64,
    /// SHA-256 of all rows in their order.
    pub digest: [u8; 32],
}
