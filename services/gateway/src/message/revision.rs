/// The newest revision with sessions.
pub(crate) const LATEST_LEGACY: Revision = Revision::V2025_11_25;
/// The revision without sessions.
pub(crate) const MODERN: Revision = Revision::V2026_07_28;

/// A revision of the protocol that is spoken here. Those before 2026-07-28 ("legacy" in its page on versioning) begin
/// with a handshake; from it on ("modern") every request says what it needs to be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Revision {
    V2024_11_05,
    V2025_03_26,
    V2025_06_18,
    V2025_11_25,
    V2026_07_28,
}

impl Revision {
    const ALL: [Self; 5] =
        [Self::V2026_07_28, Self::V2025_11_25, Self::V2025_06_18, Self::V2025_03_26, Self::V2024_11_05];
    /// Those that clients are served, the newest first: streamable HTTP came with 2025-03-26.
    pub(crate) const SERVED: [Self; 4] = [Self::V2026_07_28, Self::V2025_11_25, Self::V2025_06_18, Self::V2025_03_26];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::V2024_11_05 => "2024-11-05",
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
            Self::V2026_07_28 => "2026-07-28",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|revision| revision.name() == name)
    }

    pub(crate) fn is_modern(self) -> bool {
        self >= MODERN
    }

    /// A number for it in tokens.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::V2024_11_05 => 0,
            Self::V2025_03_26 => 1,
            Self::V2025_06_18 => 2,
            Self::V2025_11_25 => 3,
            Self::V2026_07_28 => 4,
        }
    }

    pub(crate) fn of_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|revision| revision.number() == number)
    }

    /// The names of those that clients are served.
    pub(crate) fn served() -> [&'static str; 4] {
        Self::SERVED.map(Self::name)
    }
}
