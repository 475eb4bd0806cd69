//! What is known of a server: it is asked when nothing is, and each session, child and stream that is opened with it
//! later tells whether it is still the same, for it may have been replaced by another version.

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::{Mutex as AsyncMutex, watch},
    time::{Instant, timeout},
};

use super::{
    Changed, Failed,
    era::Info,
    server::{Kind, Server},
};

/// How long a server may take to say which era it is of and to open a session.
const GREETING: Duration = Duration::from_secs(10);
/// How long one that is known may take to say what it is now: until then it is taken for what it was.
const ANEW: Duration = Duration::from_secs(1);
/// For how long what it said is taken to hold when it does not say so now.
const REST: Duration = Duration::from_secs(10);
/// For how long what a server of 2026-07-28 says of itself holds at the least and at the most, whatever it says.
pub(super) const KEPT_MIN: Duration = Duration::from_secs(1);
const KEPT_MAX: Duration = Duration::from_secs(3_600);
/// How often clients are told at the most that it can something else: while its replicas are of two versions, each
/// that is asked would say so, and clients who are told ask again.
const NEWS: Duration = Duration::from_secs(5);

/// What is known of a server.
pub(super) struct Known {
    inner: Mutex<Inner>,
    /// Held by who asks it.
    asking: AsyncMutex<()>,
    /// Told when it can something else than before.
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct Inner {
    /// `None` while nobody knows.
    info: Option<Arc<Info>>,
    /// What it said when clients were told last, or first.
    told: Option<Arc<Info>>,
    /// Until when they are not told again, and whether it said something else meanwhile.
    rests: Option<Instant>,
    has_varied: bool,
    /// When it has to be asked again; never by itself where each session tells.
    due: Option<Instant>,
}

impl Inner {
    /// Whether clients have to be told now that it can something else than they know.
    fn has_news(&mut self) -> bool {
        let Some(info) = &self.info else { return false };
        let Some(told) = &self.told else {
            self.told = Some(Arc::clone(info));
            return false;
        };
        let differs = !told.can_the_same(info);
        if self.rests.is_some_and(|until| until > Instant::now()) {
            self.has_varied |= differs;
            return false;
        }
        // Whoever looked in between has seen what it is no more.
        if !std::mem::take(&mut self.has_varied) && !differs {
            return false;
        }
        (self.told, self.rests) = (Some(Arc::clone(info)), Some(Instant::now() + NEWS));
        true
    }

    /// It has to be asked again after a while, if not before.
    fn ask_within(&mut self, wait: Duration) {
        let at = Instant::now() + wait;
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }
}

impl Known {
    pub(super) fn new() -> Self {
        Self { inner: Mutex::default(), asking: AsyncMutex::default(), changed: watch::Sender::new(()) }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        work(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_due(&self) -> bool {
        self.with(|inner| inner.due.is_some_and(|due| due <= Instant::now()))
    }

    fn ask_in(&self, wait: Duration) {
        self.with(|inner| inner.due = Some(Instant::now() + wait));
    }
}

impl Server {
    /// What the server says of itself, as far as it was asked.
    pub(crate) fn known(&self) -> Option<Arc<Info>> {
        self.ways.known.with(|inner| inner.info.clone())
    }

    /// Tells each time from now on that the server can something else than before.
    pub(super) fn news(&self) -> watch::Receiver<()> {
        self.ways.known.changed.subscribe()
    }

    /// It is not what it was taken for: the next who needs to know asks.
    pub(super) fn unlearn(&self) {
        // Another of its kind may have what this one had not.
        self.has_no_stream.store(false, Ordering::Relaxed);
        self.ways.known.with(|inner| inner.info = None);
    }

    /// Takes what the server has just said of itself. When it can something else than before, what was read of it is
    /// read anew, and clients are told so.
    pub(super) fn learn(&self, info: Info) -> Arc<Info> {
        let info = Arc::new(info);
        // Each child tells by itself, and none is started only to be asked.
        let kept = info.kept.filter(|_| !self.is_process()).map(|kept| kept.clamp(KEPT_MIN, KEPT_MAX));
        self.ways.known.with(|inner| {
            inner.info = Some(Arc::clone(&info));
            inner.due = kept.map(|kept| Instant::now() + kept);
        });
        self.tell_news();
        info
    }

    /// Tells clients when the server can something else than they were told. Called now and then too, for what is not
    /// told while they were told something a moment ago.
    pub(super) fn tell_news(&self) {
        if self.ways.known.with(Inner::has_news) {
            tracing::info!(server = self.config.name, "an MCP server says that it can something else than before");
            self.has_no_stream.store(false, Ordering::Relaxed);
            Changed::ALL.into_iter().for_each(|changed| self.changes.tell(changed));
            self.ways.known.changed.send_replace(());
        }
    }

    /// What the server says of itself; it is asked when that is not known.
    pub(crate) async fn info(&self) -> Result<Arc<Info>, Failed> {
        if let Some(info) = self.known() {
            return Ok(info);
        }
        let _one = self.ways.known.asking.lock().await;
        if let Some(info) = self.known() {
            return Ok(info);
        }
        if !self.awake(Duration::MAX).await {
            return Err(Failed::not_sent(format!("'{}' is asleep, and no pod came in time", self.config.name)));
        }
        let greeted = timeout(self.greeting(), self.greet()).await;
        let greeted = greeted.map_err(|_| Failed::not_sent(format!("'{}' does not answer", self.config.name)))?;
        Ok(self.learn(greeted.map_err(|failed| self.not_yet_sent(failed))?))
    }

    /// The same as it is now: asked again where what was said before does not hold any more. One that cannot be asked
    /// is taken for what it was.
    pub(crate) async fn info_now(&self) -> Result<Arc<Info>, Failed> {
        let info = self.info().await?;
        let known = &self.ways.known;
        if !known.is_due() || self.is_asleep() {
            return Ok(info);
        }
        let asked = timeout(ANEW, async {
            let _one = known.asking.lock().await;
            // Another has just asked.
            if !known.is_due() {
                return Ok(None);
            }
            self.greet().await.map(|info| Some(self.learn(info)))
        });
        match asked.await {
            Ok(Ok(Some(info))) => Ok(info),
            Ok(Ok(None)) => self.info().await,
            Ok(Err(_)) | Err(_) => {
                known.ask_in(REST);
                Ok(info)
            }
        }
    }

    /// What it is has to be asked again within a while where nothing else would tell: something has ended that a
    /// restart ends.
    pub(super) fn doubt(&self, within: Duration) {
        let is_told = |info: Arc<Info>| !info.revision.is_modern() && self.is_alike();
        if !self.is_process() && !self.known().is_some_and(is_told) {
            self.ways.known.with(|inner| inner.ask_within(within));
        }
    }

    pub(super) fn greeting(&self) -> Duration {
        match &self.kind {
            Kind::Http { .. } => GREETING,
            Kind::Process(process) => process.start,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::message::{Json, MODERN};

    fn info(can: &str) -> Info {
        let capabilities = [(can.to_owned(), Json::of(&json!({})))].into_iter().collect();
        Info { revision: MODERN, capabilities, server: None, instructions: None, kept: None }
    }

    #[tokio::test(start_paused = true)]
    async fn what_replicas_of_two_versions_say_is_told_once_in_a_while() {
        let mut inner = Inner::default();
        let mut says = |can| {
            inner.info = Some(Arc::new(info(can)));
            inner.has_news()
        };
        assert!(!says("tools"), "nobody was told of anything else");
        assert!(says("prompts"), "the first change is told at once");
        assert!(!says("tools") && !says("prompts") && !says("tools"));
        tokio::time::sleep(NEWS).await;
        assert!(says("tools"), "how it ended is told");
        assert!(!says("prompts") && !says("tools"));
        tokio::time::sleep(NEWS).await;
        assert!(says("tools"), "it was another in between");
        tokio::time::sleep(NEWS).await;
        assert!(!says("tools"), "it stays what it is");
    }
}
