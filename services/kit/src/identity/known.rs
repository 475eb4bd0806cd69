//! The keys of the issuer that are known now. One task looks for them: as often as it is told, sooner when a JWT is by a
//! key that nobody has seen, and after pauses while the issuer does not answer. Requests use what is there.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use echotune_model::{ErrorKind, Fault};
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    keys::{Key, KeySet},
    refused,
    source::{KeysError, Source},
    verify::Head,
};
use crate::{process::IdentityConfig, telemetry::metrics::Gauge};

/// The first pause after a look that failed, doubled up to the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Requests that wait for a look at the most; whoever makes up keys must not take all the room there is.
const WAITING: usize = 64;

/// How often is looked, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    every: Duration,
    again_after: Duration,
    timeout: Duration,
}

impl Pace {
    pub(super) const fn of(config: &IdentityConfig) -> Self {
        let IdentityConfig { refresh_every, ask_again_after, fetch_timeout, .. } = config;
        Self { every: refresh_every.0, again_after: ask_again_after.0, timeout: fetch_timeout.0 }
    }
}

/// What came of the looks so far.
#[derive(Debug, Clone, Default)]
struct Looks {
    /// How many have ended.
    ended: u64,
    /// When the last one began; `None` before the first.
    began: Option<Instant>,
    under_way: bool,
    /// Why the last one failed.
    fault: Option<KeysError>,
    /// When keys came last.
    came: Option<Instant>,
}

/// The keys of one issuer.
pub(super) struct Keys {
    issuer: String,
    pace: Pace,
    keys: ArcSwap<KeySet>,
    looks: watch::Sender<Looks>,
    wanted: Notify,
    waiting: Semaphore,
    age: Gauge,
}

impl Keys {
    pub(super) fn new(issuer: &str, pace: Pace, age: Gauge) -> Self {
        Self {
            issuer: issuer.to_owned(),
            pace,
            keys: ArcSwap::default(),
            looks: watch::Sender::default(),
            wanted: Notify::new(),
            waiting: Semaphore::new(WAITING),
            age,
        }
    }

    /// The key that a JWT is said to be signed by. One that is not known makes for a look, which is waited for, if the last
    /// one found the issuer there and is not of a moment ago.
    ///
    /// # Errors
    /// `Unauthenticated` when the issuer has no such key, `Unavailable` when nobody can tell, and `ResourceExhausted` when
    /// too many wait to be told.
    pub(super) async fn get(&self, head: &Head) -> Result<Arc<Key>, Fault> {
        if let Some(key) = self.keys.load().find(head)? {
            return Ok(key);
        }
        let mut looks = self.looks.subscribe();
        let seen = looks.borrow_and_update().clone();
        // A look may have ended since.
        if let Some(key) = self.keys.load().find(head)? {
            return Ok(key);
        }
        if seen.fault.is_some() {
            return Err(self.away());
        }
        if !seen.under_way && self.is_fresh(&seen) {
            return Err(self.unknown());
        }
        let Ok(_place) = self.waiting.try_acquire() else {
            let why = "too many callers wait for the keys of the issuer of their JWTs; try again";
            return Err(Fault::new(ErrorKind::ResourceExhausted, why));
        };
        self.wanted.notify_one();
        let told = timeout(self.pace.timeout, looks.wait_for(|now| now.ended > seen.ended)).await;
        let answered = told.is_ok_and(|looks| looks.is_ok_and(|looks| looks.fault.is_none()));
        match self.keys.load().find(head)? {
            Some(key) => Ok(key),
            None if answered => Err(self.unknown()),
            None => Err(self.away()),
        }
    }

    fn unknown(&self) -> Fault {
        refused(format!("the JWT is signed by a key that {} does not have", self.issuer))
    }

    /// What is wrong with the issuer is for the log: callers whom nobody knows are not told of addresses.
    fn away(&self) -> Fault {
        let why =
            format!("the key of the JWT is not known here, and {} cannot be asked at present; try again", self.issuer);
        Fault::new(ErrorKind::Unavailable, why)
    }

    fn is_fresh(&self, looks: &Looks) -> bool {
        looks.began.is_some_and(|began| began.elapsed() < self.pace.again_after)
    }

    /// Looks for the keys once. What was there stays when they do not come, or none of them can be used.
    pub(super) async fn look(&self, source: &Source) -> Result<(), KeysError> {
        self.looks.send_modify(|looks| (looks.began, looks.under_way) = (Some(Instant::now()), true));
        let fetched = timeout(self.pace.timeout, source.fetch()).await.unwrap_or(Err(KeysError::Late));
        let before = self.looks.borrow().fault.clone();
        let fault = match fetched {
            Ok(keys) => {
                self.keep(keys, before.is_some());
                None
            }
            Err(fault) => {
                if before.as_ref() != Some(&fault) {
                    let held = self.keys.load().len();
                    tracing::warn!(issuer = self.issuer, cause = %fault, held, "the issuer's keys did not come; {}",
                        if held == 0 { "JWTs are refused until they do" } else { "those that are held serve on" });
                }
                Some(fault)
            }
        };
        self.looks.send_modify(|looks| {
            looks.under_way = false;
            looks.ended += 1;
            if fault.is_none() {
                looks.came = Some(Instant::now());
            }
            looks.fault.clone_from(&fault);
        });
        if let Some(came) = self.looks.borrow().came {
            self.age.record(came.elapsed().as_secs_f64(), &[]);
        }
        fault.map_or(Ok(()), Err)
    }

    fn keep(&self, keys: KeySet, was_away: bool) {
        let before = self.keys.swap(Arc::new(keys));
        let keys = self.keys.load();
        if was_away {
            tracing::warn!(issuer = self.issuer, keys = keys.len(), "the issuer's keys came");
        } else if before.names() != keys.names() {
            tracing::info!(issuer = self.issuer, keys = ?keys.names(), "the issuer has other keys");
        }
    }

    /// Looks again and again, until told to stop.
    pub(super) async fn follow(&self, source: &Source, stop: &CancellationToken) {
        let longest = PAUSES.1.min(self.pace.every);
        let mut pause = PAUSES.0.min(longest);
        loop {
            let is_away = self.looks.borrow().fault.is_some();
            let next = if is_away { pause } else { self.pace.every };
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(next) => {}
                () = self.asked(), if !is_away => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                looked = self.look(source) => {
                    pause = if looked.is_ok() { PAUSES.0.min(longest) } else if is_away { (pause * 2).min(longest) } else { pause };
                }
            }
        }
    }

    /// Done when a key is wanted that is not known, and the last look was not a moment ago.
    async fn asked(&self) {
        loop {
            self.wanted.notified().await;
            if !self.is_fresh(&self.looks.borrow()) {
                return;
            }
        }
    }
}
