use crate::Hlc;

/// A region, as another sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionStatus {
    /// Its name.
    pub region: String,
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
    /// The region that makes the writes of its users now.
    pub served_by: String,
}
