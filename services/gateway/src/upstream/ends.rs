//! Ends of sessions with servers, so many at once: all of a server's end together when it is taken away, and all that
//! there are when the gateway stops.

use std::{pin::pin, sync::Arc, time::Duration};

use futures::{StreamExt as _, stream};
use tokio::{sync::Semaphore, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Sessions that are ended at once, and how many of them are of one server: one that hangs leaves room for others.
const AT_ONCE: usize = 64;
const OF_ONE: usize = 32;
/// For how long those are ended that end together.
const LASTS: Duration = Duration::from_secs(60);

/// Ends sessions. Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Ends {
    at_once: Arc<Semaphore>,
    of_one: Arc<Semaphore>,
    /// Nothing is sent any more.
    over: CancellationToken,
    /// What is done beside, which the way down waits for.
    pub(super) tasks: TaskTracker,
}

/// Sessions of a server that are not ended yet. They are told of when this is dropped.
struct Left<'a> {
    server: &'a str,
    sessions: usize,
}

impl Drop for Left<'_> {
    fn drop(&mut self) {
        let Self { server, sessions } = *self;
        if sessions > 0 {
            let why = "there was no time left; they end by the server's own clock";
            tracing::warn!(server, sessions, why, "sessions with an MCP server were not ended");
        }
    }
}

impl Ends {
    pub(super) fn new(tasks: &TaskTracker) -> Self {
        let (at_once, of_one) = (Arc::new(Semaphore::new(AT_ONCE)), Arc::new(Semaphore::new(OF_ONE)));
        Self { at_once, of_one, over: CancellationToken::new(), tasks: tasks.clone() }
    }

    /// The same for one server more, whose sessions are ended so many at once however few are given up at a time.
    pub(super) fn of_one(&self) -> Self {
        Self { of_one: Arc::new(Semaphore::new(OF_ONE)), ..self.clone() }
    }

    /// Does what ends sessions of a server, and tells how many were not ended when there was no time left, or when
    /// whoever waits for this gives up.
    pub(super) async fn all<E: Future<Output = ()>>(&self, server: &str, sessions: Vec<E>) {
        let mut left = Left { server, sessions: sessions.len() };
        let one = |end: E| {
            let (of_one, at_once) = (Arc::clone(&self.of_one), Arc::clone(&self.at_once));
            async move {
                // They are never closed. That of the server comes first: who waits for it takes no place of another's.
                let _permits = (of_one.acquire_owned().await, at_once.acquire_owned().await);
                end.await;
            }
        };
        let ending = async {
            let mut ended = pin!(stream::iter(sessions.into_iter().map(one)).buffer_unordered(OF_ONE));
            while ended.next().await.is_some() {
                left.sessions -= 1;
            }
        };
        let _ended = self.over.run_until_cancelled(timeout(LASTS, ending)).await;
    }

    /// Tells of sessions that nobody ends any more.
    pub(super) fn give_up(&self, server: &str, sessions: usize) {
        drop(Left { server, sessions });
    }

    /// Sends nothing from now on.
    pub(crate) fn stop(&self) {
        self.over.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fmt::Debug,
        future::pending,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use futures::future::join_all;
    use tokio::time::sleep;
    use tracing::{
        Event, Metadata, Subscriber,
        field::{Field, Visit},
        span,
    };

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// How many sessions end at once, each for a second.
    #[derive(Default)]
    struct Seen {
        now: AtomicUsize,
        most: AtomicUsize,
        ended: AtomicUsize,
    }

    impl Seen {
        async fn end(&self) {
            let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
            self.most.fetch_max(now, Ordering::Relaxed);
            sleep(SECOND).await;
            self.now.fetch_sub(1, Ordering::Relaxed);
            self.ended.fetch_add(1, Ordering::Relaxed);
        }

        fn told(&self) -> (usize, usize) {
            (self.most.load(Ordering::Relaxed), self.ended.load(Ordering::Relaxed))
        }
    }

    /// Hears of how many sessions it is told that they were not ended.
    #[derive(Clone, Default)]
    struct Heard(Arc<AtomicUsize>);

    impl Heard {
        fn sessions(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    impl Visit for Heard {
        fn record_u64(&mut self, field: &Field, value: u64) {
            if field.name() == "sessions" {
                self.0.fetch_add(usize::try_from(value).expect("a count"), Ordering::Relaxed);
            }
        }

        fn record_debug(&mut self, _field: &Field, _value: &dyn Debug) {}
    }

    impl Subscriber for Heard {
        fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _span: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }

        fn record(&self, _span: &span::Id, _values: &span::Record<'_>) {}

        fn record_follows_from(&self, _span: &span::Id, _follows: &span::Id) {}

        fn event(&self, event: &Event<'_>) {
            event.record(&mut self.clone());
        }

        fn enter(&self, _span: &span::Id) {}

        fn exit(&self, _span: &span::Id) {}
    }

    /// From when its turn comes.
    async fn lasts_a_second() {
        sleep(SECOND).await;
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_end_at_once_than_may_and_those_of_one_server_leave_room() {
        let (ends, seen) = (Ends::new(&TaskTracker::new()), Seen::default());
        ends.all("a", (0..200).map(|_| seen.end()).collect()).await;
        assert_eq!(seen.told(), (OF_ONE, 200));
        let seen = Seen::default();
        join_all((0..100).map(|_| ends.all("a", (0..4).map(|_| seen.end()).collect()))).await;
        assert_eq!(seen.told(), (OF_ONE, 400), "however few are given up at a time");
        let (seen, servers) = (Seen::default(), [(); 4].map(|()| ends.of_one()));
        join_all(servers.iter().map(|one| one.all("a", (0..100).map(|_| seen.end()).collect()))).await;
        assert_eq!(seen.told(), (AT_ONCE, 400));
    }

    #[tokio::test(start_paused = true)]
    async fn what_there_was_no_time_for_is_told_with_its_count() {
        let (ends, heard) = (Ends::new(&TaskTracker::new()), Heard::default());
        let _heard = tracing::subscriber::set_default(heard.clone());
        ends.all("a", (0..40).map(|_| lasts_a_second()).collect()).await;
        assert_eq!(heard.sessions(), 0, "all had time");
        ends.all("a", (0..100).map(|_| pending()).collect()).await;
        assert_eq!(heard.sessions(), 100, "it does not wait for ever");
        let given_up = timeout(SECOND * 3 / 2, ends.all("a", (0..100).map(|_| lasts_a_second()).collect())).await;
        assert!(given_up.is_err());
        assert_eq!(heard.sessions(), 100 + (100 - OF_ONE), "those of the first second are ended");
        let before = heard.sessions();
        ends.give_up("a", 0);
        ends.give_up("a", 5);
        ends.stop();
        ends.all("a", (0..7).map(|_| async {}).collect()).await;
        assert_eq!(heard.sessions(), before + 5 + 7);
    }
}
