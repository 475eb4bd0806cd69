//! What servers tell of themselves: that a list has changed, or a resource that somebody has subscribed to.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::broadcast;

use crate::message::{Json, Object};

/// Changes that one who is told of them may be behind.
const CHANGES: usize = 256;
/// Longest address of a resource that can be subscribed to, in bytes: they are kept for as long as they are.
pub(crate) const MAX_URI_BYTES: usize = 2_048;

/// What has changed at a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Changed {
    Tools,
    Prompts,
    Resources,
}

impl Changed {
    pub(crate) const ALL: [Self; 3] = [Self::Tools, Self::Prompts, Self::Resources];

    pub(crate) const fn method(self) -> &'static str {
        match self {
            Self::Tools => "notifications/tools/list_changed",
            Self::Prompts => "notifications/prompts/list_changed",
            Self::Resources => "notifications/resources/list_changed",
        }
    }

    /// What a notification tells of.
    fn by(method: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|changed| changed.method() == method)
    }
}

/// Tells of changes, and counts them: what was read before a change is not taken for what is there after it.
#[derive(Debug, Clone)]
pub(crate) struct Changes {
    pub(super) server: u32,
    pub(super) counts: Arc<[AtomicU64; 3]>,
    pub(super) told: Told,
}

/// Where changes of all servers are told, with the number of each.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    /// Of lists.
    pub(crate) lists: broadcast::Sender<(u32, Changed)>,
    /// Of single resources that somebody has subscribed to.
    pub(crate) resources: broadcast::Sender<(u32, Arc<str>)>,
}

impl Changes {
    pub(crate) fn tell(&self, changed: Changed) {
        self.counts[changed as usize].fetch_add(1, Ordering::AcqRel);
        // Nobody may be listening.
        drop(self.told.lists.send((self.server, changed)));
    }

    /// Tells that a resource has changed.
    pub(super) fn updated(&self, uri: Arc<str>) {
        drop(self.told.resources.send((self.server, uri)));
    }

    /// Takes a notification of the server; whether it was one of a change.
    pub(crate) fn hear(&self, method: &str, params: Option<&Json>) -> bool {
        if let Some(changed) = Changed::by(method) {
            self.tell(changed);
            return true;
        }
        let is_updated = method == "notifications/resources/updated";
        if is_updated
            && let Some(uri) = Object::read_optional(params).ok().and_then(|told| told.text("uri"))
            && uri.len() <= MAX_URI_BYTES
        {
            self.updated(uri.into());
        }
        is_updated
    }

    pub(crate) fn count(&self, of: Changed) -> u64 {
        self.counts[of as usize].load(Ordering::Acquire)
    }
}

/// Where changes of all servers are told.
pub(crate) fn changes() -> Told {
    Told { lists: broadcast::channel(CHANGES).0, resources: broadcast::channel(CHANGES).0 }
}
