use std::time::Duration;

/// What all servers of one router, or one server over standard input and output, use at the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest request in bytes.
    pub request_bytes: usize,
    /// Longest result of a tool in bytes, as JSON. It travels twice: as structured content and as text.
    pub result_bytes: usize,
    /// Sessions at once (revisions before 2026-07-28 only), and streams that clients hold open.
    pub sessions: usize,
    /// After how much silence a session ends; a second more than `deadline_max` at the least, so that no
    /// call is cut off in one.
    pub session_idle: Duration,
    /// Tool calls at once.
    pub calls: usize,
    /// Tool calls that wait for their turn; those beyond are refused.
    pub waiting: usize,
    /// How long a call may take whose caller does not say.
    pub deadline_default: Duration,
    /// How long a call may take at the most, whatever its caller says.
    pub deadline_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_bytes: 1 << 20,
            result_bytes: 4 << 20,
            sessions: 256,
            session_idle: Duration::from_secs(300),
            calls: 32,
            waiting: 224,
            deadline_default: Duration::from_secs(30),
            deadline_max: Duration::from_secs(120),
        }
    }
}
