use std::fmt;

/// Dead letters told of at once at the most.
pub const MAX_DEAD_LETTERS: u32 = 10_000;
/// Dead letters named in one question at the most.
pub const MAX_DEAD_LETTER_IDS: usize = 1_000;

/// What became of a dead letter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DeadLetterState {
    /// It lies there.
    #[default]
    Dead,
    /// It was handed to its consumer again, which has not set it aside again.
    Replayed,
    /// It was handed to its consumer again, which set it aside again.
    FailedAgain,
}

impl DeadLetterState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Dead, Self::Replayed, Self::FailedAgain];

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Replayed => "replayed",
            Self::FailedAgain => "failed again",
        }
    }
}

impl fmt::Display for DeadLetterState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A record that a consumer could not apply and set aside. What the record says is not told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadLetter {
    /// `STREAM@POSITION` of the record; the same for every consumer that set it aside.
    pub id: String,
    /// Who set it aside.
    pub consumer: String,
    /// Topic that the consumer follows.
    pub topic: String,
    /// Region whose log the record was appended to.
    pub region: String,
    /// Stream that it was read from.
    pub stream: String,
    /// Its position there.
    pub position: u64,
    /// Its key.
    pub key: String,
    /// Why it cannot be applied; nothing of what the record says.
    pub reason: String,
    /// When it was set aside last, in milliseconds since the Unix epoch.
    pub failed_at_ms: u64,
    /// How often it was tried: 1 at least.
    pub tries: u32,
    /// W3C `traceparent` of what the record tells; empty when not traced.
    pub traceparent: String,
    /// What became of it.
    pub state: DeadLetterState,
    /// When it was handed to its consumer again last, in milliseconds since the Unix epoch; 0 when never.
    pub replayed_at_ms: u64,
}

/// Which dead letters are asked about: those that fit all that is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadLetterFilter {
    /// Of this topic; empty for any.
    pub topic: String,
    /// Of this consumer; empty for any.
    pub consumer: String,
    /// With these ids, [`MAX_DEAD_LETTER_IDS`] at the most; empty for any.
    pub ids: Vec<String>,
}

impl DeadLetterFilter {
    /// Whether a letter is asked about.
    pub fn fits(&self, letter: &DeadLetter) -> bool {
        let fits = |asked: &str, has: &str| asked.is_empty() || asked == has;
        fits(&self.topic, &letter.topic)
            && fits(&self.consumer, &letter.consumer)
            && (self.ids.is_empty() || self.ids.contains(&letter.id))
    }
}

/// What was replayed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReplayReceipt {
    /// Letters handed to their consumers.
    pub replayed: u64,
    /// Letters left alone because they had been handed over before.
    pub left: u64,
}
