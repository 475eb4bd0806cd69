//! Who may write: leases, and rights that end before they do.
//!
//! Servers are parted into shards by their names, and each shard has a lease. A lease counts as left alone when it has
//! not changed for its duration by the clock of whoever looks, so that clocks that differ do no harm. The rights of a
//! holder end some time before its lease by its own clock, counted from before it asked for the renewal: a write that
//! is sent by then is over, or given up, before another can hold the lease.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use echotune_api::demand::{MAX_SHARDS, ServerName};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::build::MANAGER;

/// How leases are held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Where they are.
    pub namespace: String,
    /// How they begin to be named; the number of the shard follows.
    pub name: String,
    /// Who holds them: nobody else, and no process before or after.
    pub identity: String,
    /// How many there are.
    pub shards: u16,
    /// How long a lease is held that is not renewed.
    pub duration: Duration,
    /// How long before its end the rights end.
    pub margin: Duration,
    /// How often it is renewed, and looked at by others.
    pub every: Duration,
    /// How long a request may take.
    pub patience: Duration,
}

/// What this process leads. Clones share it.
#[derive(Debug, Clone)]
pub struct Leads(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    base: Instant,
    /// Until when each shard is led, in ms since `base`; 0 for not.
    until: Vec<AtomicU64>,
    /// How often a shard was won.
    wins: AtomicUsize,
    changes: watch::Sender<u64>,
}

/// The right to write to a server, as long as it lasts.
#[derive(Debug, Clone)]
pub struct Permit {
    leads: Leads,
    shard: usize,
}

/// The lease is no longer held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this process no longer leads that server")]
pub struct Lost;

impl Leads {
    /// Nothing is led yet.
    pub fn none(shards: u16) -> Self {
        let until = (0..shards.clamp(1, MAX_SHARDS)).map(|_| AtomicU64::new(0)).collect();
        let (wins, changes) = (AtomicUsize::new(0), watch::Sender::new(0));
        Self(Arc::new(Shared { base: Instant::now(), until, wins, changes }))
    }

    fn until(&self, shard: usize) -> Option<Instant> {
        let ms = self.0.until[shard].load(Ordering::Acquire);
        let until = self.0.base + Duration::from_millis(ms);
        (ms > 0 && Instant::now() < until).then_some(until)
    }

    /// Leads a shard until then; not at all without a time.
    pub(crate) fn set(&self, shard: usize, until: Option<Instant>) {
        let before = self.until(shard).is_some();
        let ms = until.map_or(0, |until| until.saturating_duration_since(self.0.base).as_millis());
        self.0.until[shard].store(u64::try_from(ms).unwrap_or(u64::MAX), Ordering::Release);
        if until.is_some() && !before {
            self.0.wins.fetch_add(1, Ordering::AcqRel);
        }
        if before != until.is_some() {
            self.0.changes.send_modify(|number| *number += 1);
        }
    }

    /// The shard of a server.
    pub fn shard(&self, server: &ServerName) -> usize {
        let shards = u16::try_from(self.count()).expect("at most as many as there may be");
        server.shard(shards).into()
    }

    /// Shards that are led.
    pub fn shards(&self) -> Vec<usize> {
        (0..self.0.until.len()).filter(|shard| self.until(*shard).is_some()).collect()
    }

    /// How often a shard was won. Those that are led are the last of these, and the rest was lost again.
    pub fn wins(&self) -> usize {
        self.0.wins.load(Ordering::Acquire)
    }

    /// How many shards there are.
    pub fn count(&self) -> usize {
        self.0.until.len()
    }

    /// Whether a shard is led.
    pub fn has(&self, shard: usize) -> bool {
        shard < self.count() && self.until(shard).is_some()
    }

    /// Whether any shard is led.
    pub fn any(&self) -> bool {
        !self.shards().is_empty()
    }

    /// Whether all shards are led.
    pub fn all(&self) -> bool {
        self.shards().len() == self.count()
    }

    /// The right to write to a server, if its shard is led.
    pub fn permit(&self, server: &ServerName) -> Option<Permit> {
        let shard = self.shard(server);
        self.until(shard).map(|_| Permit { leads: self.clone(), shard })
    }

    /// Done when a shard is not led.
    pub async fn lost(&self, shard: usize) {
        while let Some(until) = self.until(shard) {
            // Renewals come before this; a lease that is given back is noticed here at the latest.
            sleep_until(until.min(Instant::now() + Duration::from_secs(1))).await;
        }
    }

    /// Whoever waits for shards to be won or lost.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }
}

impl Permit {
    /// Whether it still lasts.
    ///
    /// # Errors
    /// It does not.
    pub fn check(&self) -> Result<(), Lost> {
        self.leads.until(self.shard).map(|_| ()).ok_or(Lost)
    }
}

/// One that holds, or waits for, the lease of a shard.
struct Elector {
    api: Api<Lease>,
    terms: Terms,
    shard: usize,
    leads: Leads,
    /// The lease as it was seen last, and since when it has not changed.
    seen: Option<(LeaseSpec, Instant)>,
    /// The lease as it was written last.
    held: Option<Lease>,
}

/// Holds leases until told to stop, and gives them back then.
pub async fn elect(client: Client, terms: Terms, leads: Leads, stop: CancellationToken) {
    let api = Api::namespaced(client, &terms.namespace);
    let electors = (0..leads.count()).map(|shard| {
        let (api, terms, leads) = (api.clone(), terms.clone(), leads.clone());
        let elector = Elector { api, terms, shard, leads, seen: None, held: None };
        elector.run(stop.clone())
    });
    futures::future::join_all(electors).await;
}

impl Elector {
    fn name(&self) -> String {
        format!("{}-{}", self.terms.name, self.shard)
    }

    async fn run(mut self, stop: CancellationToken) {
        loop {
            if let Err(cause) = self.turn().await {
                tracing::warn!(%cause, "lease {} cannot be had or renewed now", self.name());
            }
            if self.leads.until(self.shard).is_none() {
                self.leads.set(self.shard, None);
            }
            // Whoever leads more waits a little longer for what is free, so that shards spread.
            let more = u32::try_from(self.leads.shards().len()).unwrap_or(0).min(8);
            let wait =
                if self.held.is_some() { self.terms.every } else { self.terms.every + self.terms.every * more / 8 };
            tokio::select! {
                () = sleep(wait) => {}
                () = stop.cancelled() => break,
            }
        }
        self.release().await;
    }

    async fn turn(&mut self) -> Result<(), kube::Error> {
        let asked = Instant::now();
        match self.held.take() {
            Some(held) => match self.write(held, asked).await {
                // Somebody else wrote it: look at who has it now.
                Err(kube::Error::Api(status)) if status.code == 409 => self.look().await,
                other => other,
            },
            None => self.look().await,
        }
    }

    /// Looks at a lease that is not known to be held, and takes it if it is free.
    async fn look(&mut self) -> Result<(), kube::Error> {
        let asked = Instant::now();
        let found = self.within(self.api.get_opt(&self.name())).await?;
        let Some(lease) = found else {
            let metadata = ObjectMeta { name: Some(self.name()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.spec(None, 0)) };
            let made = self.within(self.api.create(&params(), &lease)).await;
            return match made {
                Ok(made) => {
                    self.won(made, asked);
                    Ok(())
                }
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
                Err(cause) => Err(cause),
            };
        };
        let spec = lease.spec.clone().unwrap_or_default();
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != spec) {
            self.seen = Some((spec.clone(), asked));
        }
        let since = self.seen.as_ref().map_or(asked, |(_, since)| *since);
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        let duration = u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0);
        // By what it says and by what is known here, whichever is longer.
        let left_alone = asked.duration_since(since) >= Duration::from_secs(duration).max(self.terms.duration);
        if holder == self.terms.identity || holder.is_empty() || left_alone {
            return match self.write(lease, asked).await {
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
                other => other,
            };
        }
        self.leads.set(self.shard, None);
        Ok(())
    }

    /// Writes the lease as held by this process, over the version that is given.
    async fn write(&mut self, mut lease: Lease, asked: Instant) -> Result<(), kube::Error> {
        let before = lease.spec.take().unwrap_or_default();
        let ours = before.holder_identity.as_deref() == Some(&self.terms.identity);
        let transitions = before.lease_transitions.unwrap_or(0) + i32::from(!ours);
        lease.spec = Some(self.spec(before.acquire_time.filter(|_| ours), transitions));
        let kept = lease.clone();
        let written = self.within(self.api.replace(&self.name(), &params(), &lease)).await;
        match written {
            Ok(written) => {
                self.won(written, asked);
                Ok(())
            }
            Err(cause) => {
                // When the answer was lost it may have been written all the same; the next turn asks.
                let conflict = matches!(&cause, kube::Error::Api(status) if status.code == 409);
                self.held = (ours && !conflict).then_some(kept);
                Err(cause)
            }
        }
    }

    fn won(&mut self, lease: Lease, asked: Instant) {
        self.seen = lease.spec.clone().map(|spec| (spec, asked));
        self.held = Some(lease);
        let rights = self.terms.duration.saturating_sub(self.terms.margin);
        self.leads.set(self.shard, Some(asked + rights));
    }

    fn spec(&self, acquired: Option<MicroTime>, transitions: i32) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        LeaseSpec {
            acquire_time: Some(acquired.unwrap_or_else(|| now.clone())),
            holder_identity: Some(self.terms.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(self.terms.duration.as_secs().max(1)).unwrap_or(i32::MAX)),
            lease_transitions: Some(transitions),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }
    }

    async fn within<T>(&self, request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
        let late = |_| kube::Error::Service("the API server did not answer in time".into());
        timeout(self.terms.patience, request).await.map_err(late)?
    }

    /// Gives the lease back, so that another need not wait for its end. Rights end first.
    async fn release(mut self) {
        let led = self.leads.until(self.shard).is_some();
        self.leads.set(self.shard, None);
        let Some(mut lease) = self.held.take().filter(|_| led) else { return };
        if let Some(spec) = &mut lease.spec {
            (spec.holder_identity, spec.lease_duration_seconds) = (Some(String::new()), Some(1));
        }
        if let Err(cause) = self.within(self.api.replace(&self.name(), &params(), &lease)).await {
            tracing::warn!(%cause, "lease {} is not given back; it ends by itself", self.name());
        }
    }
}

fn params() -> PostParams {
    PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() }
}
