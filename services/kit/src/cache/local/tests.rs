use std::{sync::atomic::AtomicUsize, task::Poll};

use echotune_model::ErrorKind;
use futures::{FutureExt as _, future::join_all};
use proptest::prelude::*;
use tokio::sync::Notify;

use super::*;

const LONG: Duration = Duration::from_secs(60);
const LIMITS: LocalLimits = LocalLimits { capacity: 1 << 20, time_to_live: LONG, time_to_idle: LONG };

fn cache_of(limits: LocalLimits) -> LocalCache<u64> {
    LocalCache::with_absence("test", limits, |_| 8, |value| *value == 0, &Meter::default())
}

/// A value that can be read, with the number of times that it was.
#[derive(Default)]
struct Source {
    value: AtomicUsize,
    reads: AtomicUsize,
}

impl Source {
    fn read(&self) -> Compute<'_, u64> {
        async {
            self.reads.fetch_add(1, Relaxed);
            Ok(self.value.load(Relaxed) as u64)
        }
        .boxed()
    }

    fn reads(&self) -> usize {
        self.reads.swap(0, Relaxed)
    }
}

async fn get(cache: &LocalCache<u64>, source: &Source) -> u64 {
    *cache.get_or_compute(Key::of("ann"), source.read()).await.expect("read")
}

#[tokio::test]
async fn a_value_is_read_once_until_it_ends_or_is_invalidated() {
    let cache = cache_of(LIMITS);
    let source = Source { value: 1.into(), ..Source::default() };
    for _ in 0..10 {
        assert_eq!(get(&cache, &source).await, 1);
    }
    assert_eq!(source.reads(), 1);
    source.value.store(2, Relaxed);
    cache.invalidate("ben", Duration::ZERO).await;
    cache.invalidate("ann", Duration::ZERO).await;
    assert_eq!((get(&cache, &source).await, source.reads()), (2, 1));
}

#[tokio::test]
async fn a_change_that_nobody_tells_of_is_served_once_the_value_has_ended() {
    let life = Duration::from_millis(100);
    let cache = cache_of(LocalLimits { time_to_live: life, ..LIMITS });
    let source = Source { value: 1.into(), ..Source::default() };
    assert_eq!(get(&cache, &source).await, 1);
    source.value.store(2, Relaxed);
    tokio::time::sleep(life).await;
    assert_eq!((get(&cache, &source).await, source.reads()), (2, 2));
}

#[tokio::test]
async fn what_is_not_asked_for_goes_before_its_time() {
    let cache = cache_of(LocalLimits { time_to_idle: Duration::from_millis(50), ..LIMITS });
    let source = Source { value: 1.into(), ..Source::default() };
    get(&cache, &source).await;
    tokio::time::sleep(Duration::from_millis(80)).await;
    get(&cache, &source).await;
    assert_eq!(source.reads(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_callers_at_once_make_one_value_and_share_its_fault() {
    let (cache, made) = (cache_of(LIMITS), Arc::new(AtomicUsize::new(0)));
    for outcome in [Err(Fault::new(ErrorKind::Unavailable, "away")), Ok(7)] {
        let asking = Arc::new(AtomicUsize::new(0));
        let callers = (0..1_000).map(|_| {
            let (cache, made, outcome) = (cache.clone(), Arc::clone(&made), outcome.clone());
            let asking = Arc::clone(&asking);
            tokio::spawn(async move {
                let all = Arc::clone(&asking);
                let compute = async move {
                    made.fetch_add(1, Relaxed);
                    // Whoever came after the end would make another.
                    while all.load(Relaxed) < 1_000 {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    outcome
                };
                let mut answer = cache.get_or_compute(Key::of("ann"), compute.boxed());
                // It counts once it waits: a thread that stands still before that is waited for.
                let early = futures::poll!(&mut answer);
                asking.fetch_add(1, Relaxed);
                match early {
                    Poll::Ready(answer) => answer,
                    Poll::Pending => answer.await,
                }
            })
        });
        for answer in join_all(callers).await {
            assert_eq!(answer.expect("joined").map(|value| *value), outcome);
        }
        assert_eq!(made.swap(0, Relaxed), 1, "{outcome:?}; a fault is not held");
    }
}

#[tokio::test]
async fn a_caller_that_leaves_takes_nobody_along() {
    let cache = cache_of(LIMITS);
    let leaves = cache.get_or_compute(Key::of("ann"), std::future::pending().boxed());
    assert!(tokio::time::timeout(Duration::from_millis(20), leaves).await.is_err());
    let source = Source { value: 1.into(), ..Source::default() };
    assert_eq!(get(&cache, &source).await, 1);
}

#[tokio::test]
async fn what_began_before_an_invalidation_is_given_to_none_who_ask_after_it() {
    let (cache, go) = (cache_of(LIMITS), Arc::new(Notify::new()));
    let (slow, wait) = (cache.clone(), Arc::clone(&go));
    let old = tokio::spawn(async move {
        let compute = async move {
            wait.notified().await;
            Ok(1)
        };
        slow.get_or_compute(Key::of("ann"), compute.boxed()).await
    });
    tokio::task::yield_now().await;
    cache.invalidate("ann", Duration::ZERO).await;
    let source = Source { value: 2.into(), ..Source::default() };
    assert_eq!(get(&cache, &source).await, 2, "it does not join what is under way");
    go.notify_one();
    assert_eq!(*old.await.expect("joined").expect("made"), 1, "who asked before may have it");
    assert_eq!((get(&cache, &source).await, source.reads()), (2, 1), "and it was not kept");
}

#[tokio::test]
async fn nothing_is_kept_while_a_subject_is_held() {
    let cache = cache_of(LIMITS);
    let source = Source { value: 1.into(), ..Source::default() };
    cache.invalidate("ann", LONG).await;
    for value in 1..5 {
        source.value.store(value, Relaxed);
        assert_eq!(get(&cache, &source).await, value as u64);
    }
}

#[tokio::test]
async fn after_a_hold_values_are_kept_again() {
    let cache = cache_of(LIMITS);
    let source = Source { value: 1.into(), ..Source::default() };
    let hold = Duration::from_millis(100);
    cache.invalidate("ann", hold).await;
    tokio::time::sleep(hold).await;
    get(&cache, &source).await;
    get(&cache, &source).await;
    assert_eq!(source.reads(), 1);
}

#[tokio::test]
async fn that_there_is_nothing_is_believed_for_a_second() {
    let source = Source::default();
    let cache = loop {
        let (cache, since) = (cache_of(LIMITS), Instant::now());
        let twice = (get(&cache, &source).await, get(&cache, &source).await, source.reads());
        // A machine that stood still for longer than that in between shows nothing.
        if since.elapsed() < ABSENT {
            assert_eq!(twice, (0, 0, 1));
            break cache;
        }
    };
    tokio::time::sleep(ABSENT).await;
    source.value.store(5, Relaxed);
    assert_eq!(get(&cache, &source).await, 5);
}

#[tokio::test]
async fn bytes_are_bounded_by_the_capacity() {
    let limits = LocalLimits { capacity: 100 * (ENTRY_BYTES as u64 + 1_000), ..LIMITS };
    let cache = LocalCache::<u64>::new("test", limits, |_| 1_000, &Meter::default());
    for n in 0..1_000 {
        let key = Key { subject: format!("{n}"), detail: String::new() };
        cache.get_or_compute(key, async { Ok(1) }.boxed()).await.expect("made");
    }
    cache.inner.held.run_pending_tasks().await;
    let held = cache.inner.held.entry_count();
    assert!((50..=100).contains(&held), "{held} values, each of a hundredth");
}

#[tokio::test]
async fn a_dear_value_is_made_anew_by_one_before_it_ends_and_a_failure_costs_nothing() {
    let limits = LocalLimits { time_to_live: Duration::from_secs(5), ..LIMITS };
    let source = Source { value: 1.into(), ..Source::default() };
    let slow = |value: Result<u64, Fault>| {
        async {
            source.reads.fetch_add(1, Relaxed);
            tokio::time::sleep(Duration::from_millis(500)).await;
            value
        }
        .boxed()
    };
    let cache = loop {
        let (cache, since) = (cache_of(limits), Instant::now());
        cache.get_or_compute(Key::of("ann"), slow(Ok(1))).await.expect("made");
        // 4.5 s before the end of a value of 500 ms one of eight thousand readers draws it, and ever more do until
        // then. When none has, the value is gone, and the failure is told.
        let mut found = Ok(Arc::new(1));
        while source.reads.load(Relaxed) == 1 && found == Ok(Arc::new(1)) {
            let failing = slow(Err(Fault::new(ErrorKind::Unavailable, "away")));
            found = cache.get_or_compute(Key::of("ann"), failing).await;
        }
        let reads = source.reads();
        // A machine that stood still until the value had ended shows nothing.
        if found.is_ok() || since.elapsed() < limits.time_to_live {
            assert_eq!(*found.expect("what is here"), 1);
            assert_eq!(reads, 2, "somebody tried before the end");
            break cache;
        }
    };
    cache.get_or_compute(Key::of("ann"), async { Ok(2) }.boxed()).await.expect("a value");
}

/// What happens in the model below.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// The value changes where it is kept, and this process is told.
    Write,
    /// A read begins that takes so many steps.
    Read(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![Just(Step::Write), (0..4_usize).prop_map(Step::Read)]
}

proptest! {
    /// Reads of any length, overlapping each other and invalidations: none that begins after an invalidation is given a
    /// value from before it.
    #[test]
    fn nothing_older_than_the_last_invalidation_seen_is_served(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let (cache, source) = (cache_of(LIMITS), Arc::new(AtomicUsize::new(1)));
            let mut under_way = Vec::new();
            for step in steps {
                match step {
                    Step::Write => {
                        source.fetch_add(1, Relaxed);
                        cache.invalidate("ann", Duration::ZERO).await;
                    }
                    Step::Read(length) => {
                        let least = source.load(Relaxed) as u64;
                        let (cache, source) = (cache.clone(), Arc::clone(&source));
                        under_way.push((least, tokio::spawn(async move {
                            let compute = async move {
                                let read = source.load(Relaxed) as u64;
                                for _ in 0..length {
                                    tokio::task::yield_now().await;
                                }
                                Ok(read)
                            };
                            *cache.get_or_compute(Key::of("ann"), compute.boxed()).await.expect("read")
                        })));
                    }
                }
                tokio::task::yield_now().await;
            }
            for (least, read) in under_way {
                let read = read.await.expect("joined");
                prop_assert!(read >= least, "{read} is served, and {least} was told of before");
            }
            Ok(())
        })?;
    }
}
