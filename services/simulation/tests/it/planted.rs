//! Faults of the program that are planted to see that they are found. Each is what somebody could well have written.

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Planted {
    /// A member of a group commits what it has read before its effect, as clients of Kafka do by default.
    CommitsBeforeEffect,
    /// A relay removes events from the outbox before they are on the log.
    RemovesBeforePublishing,
    /// A region passes writes on without the caller's key, so that what is repeated is another write.
    PassesOnWithoutKey,
    /// The copying of a log keeps its position before what it has copied.
    CopiesAfterItsPosition,
}

impl Planted {
    pub(crate) const ALL: [Self; 4] = [
        Self::CommitsBeforeEffect,
        Self::RemovesBeforePublishing,
        Self::PassesOnWithoutKey,
        Self::CopiesAfterItsPosition,
    ];
}
