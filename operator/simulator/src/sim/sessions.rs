//! Sessions: which one a call belongs to, and which pod holds it.

use super::{events::Place, random::Random};

/// No session.
pub(super) const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Session {
    pod: Option<Place>,
    last_us: u64,
}

/// Sessions of one service. A call begins a new one with the chance 1 / mean, and belongs to any open one otherwise; a
/// session ends when it was idle for long. The more are open, the longer each is idle, so that their number settles.
#[derive(Debug)]
pub(super) struct Sessions {
    chance: f64,
    idle_us: u64,
    random: Random,
    all: Vec<Session>,
    open: Vec<u32>,
    free: Vec<u32>,
    pub(super) begun: u64,
}

impl Sessions {
    pub(super) fn new(mean_calls: f64, idle_ms: u64, random: Random) -> Self {
        let chance = 1.0 / mean_calls.max(1.0);
        Self { chance, idle_us: idle_ms * 1_000, random, all: Vec::new(), open: Vec::new(), free: Vec::new(), begun: 0 }
    }

    pub(super) fn open(&self) -> u32 {
        u32::try_from(self.open.len()).unwrap_or(u32::MAX)
    }

    /// The session of a call that comes now.
    pub(super) fn of_call(&mut self, now_us: u64) -> u32 {
        let (unit, any) = (self.random.unit(), self.random.bits());
        if self.open.is_empty() || unit < self.chance {
            return self.begin(now_us);
        }
        let session = self.open[usize::try_from(any % self.open.len() as u64).expect("below a length")];
        self.all[session as usize].last_us = now_us;
        session
    }

    fn begin(&mut self, now_us: u64) -> u32 {
        self.begun += 1;
        let session = Session { pod: None, last_us: now_us };
        let index = match self.free.pop() {
            Some(index) => {
                self.all[index as usize] = session;
                index
            }
            None => {
                self.all.push(session);
                u32::try_from(self.all.len() - 1).expect("fewer sessions than 2^32")
            }
        };
        self.open.push(index);
        index
    }

    pub(super) fn pod(&self, session: u32) -> Option<Place> {
        self.all.get(session as usize)?.pod
    }

    pub(super) fn pin(&mut self, session: u32, pod: Place) {
        self.all[session as usize].pod = Some(pod);
    }

    /// Ends sessions that were idle for long, and tells the pods that held them.
    pub(super) fn expire(&mut self, now_us: u64, mut ended: impl FnMut(Place)) {
        let mut at = 0;
        while at < self.open.len() {
            let index = self.open[at];
            let session = self.all[index as usize];
            if session.last_us + self.idle_us > now_us {
                at += 1;
                continue;
            }
            self.open.swap_remove(at);
            self.free.push(index);
            if let Some(pod) = session.pod {
                ended(pod);
            }
        }
    }
}
