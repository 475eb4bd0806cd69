use futures::FutureExt as _;

use super::*;
use crate::{
    config::{BreakerConfig, PodConfig},
    upstream::breaker::Verdict,
};

fn room(each: usize, queue: usize) -> Room {
    let second = Duration::from_secs(1);
    Room { calls: 100, each, queue, wait: second * 5, wake: Some(second * 20), classes: 2 }
}

fn pods(names: &[&str]) -> (super::super::endpoints::Endpoints, Vec<PodConfig>) {
    let endpoints = super::super::endpoints::Endpoints::new(BreakerConfig::default());
    let pod = |name: &&str| PodConfig { name: (*name).to_owned(), url: format!("http://{name}/mcp"), draining: false };
    (endpoints, names.iter().map(pod).collect())
}

fn wanted(class: usize) -> Wanted {
    let ends = Instant::now() + Duration::from_secs(60);
    Wanted { ends, class, pin: None, failed_on: None, is_call: true, is_guest: false }
}

fn name(taken: &Taken) -> &str {
    &taken.pod.as_ref().expect("a pod").pod
}

#[tokio::test(start_paused = true)]
async fn each_pod_gets_as_many_as_it_has_places_and_the_first_that_waits_the_first_that_is_free() {
    let (endpoints, configs) = pods(&["a", "b"]);
    let places = Places::new(room(2, 10), Some(endpoints.set(&configs)), Arc::default());
    let mut taken = Vec::new();
    for _ in 0..4 {
        taken.push(places.enter(wanted(0)).await.expect("a place"));
    }
    assert_eq!(taken.iter().filter(|taken| name(taken) == "a").count(), 2);
    let waiting: Vec<_> = (0..2)
        .map(|class| {
            let places = Arc::clone(&places);
            tokio::spawn(async move { places.enter(wanted(class)).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let counts = places.counts();
    assert_eq!((counts.classes[0].in_flight, counts.classes[0].queued, counts.classes[1].queued), (4, 1, 1));
    assert_eq!(counts.classes[1].oldest_queued, Duration::from_secs(2));
    assert_eq!(counts.classes[0].busy, Duration::from_secs(8), "four for two seconds");
    let freed = taken.pop().expect("one");
    let on = name(&freed).to_owned();
    drop(freed);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(waiting[0].is_finished() && !waiting[1].is_finished(), "in their order");
    let mut waiting = waiting.into_iter();
    let first = waiting.next().expect("one").await.expect("ran").expect("a place");
    assert_eq!(name(&first), on);
    // The other has waited for as long as it may.
    assert_eq!(waiting.next().expect("one").await.expect("ran").expect_err("in vain"), Full::Late);
    assert_eq!(places.counts().cold, 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_a_pod_longer_than_for_its_turn_and_its_turn_begins_when_there_is_one() {
    let (endpoints, configs) = pods(&["a"]);
    let urgent = Arc::new(Notify::new());
    let places = Places::new(room(1, 2), Some(endpoints.set(&[])), Arc::clone(&urgent));
    let begun = Instant::now();
    assert_eq!(places.enter(wanted(0)).await.expect_err("in vain"), Full::NotWoken);
    assert_eq!(begun.elapsed(), Duration::from_secs(20));
    urgent.notified().await;
    let enter = || {
        let places = Arc::clone(&places);
        tokio::spawn(async move { places.enter(wanted(0)).await })
    };
    let (first, second) = (enter(), enter());
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(places.enter(wanted(0)).await.expect_err("refused"), Full::Queue);
    places.set_pods(endpoints.set(&configs));
    let first = first.await.expect("ran").expect("a place");
    let woken = Instant::now();
    assert_eq!(second.await.expect("ran").expect_err("in vain"), Full::Late);
    assert_eq!(woken.elapsed().as_secs(), 5, "its turn is counted from then");
    drop(first);
    assert_eq!(places.counts().cold, 3);
    let without = Room { wake: None, ..room(1, 2) };
    places.set_room(without);
    places.set_pods(endpoints.set(&[]));
    assert_eq!(places.enter(wanted(0)).await.expect_err("at once"), Full::NoPod);
}

#[tokio::test(start_paused = true)]
async fn a_session_waits_for_its_own_pod_and_lets_others_pass_and_is_free_when_that_is_gone() {
    let (endpoints, mut configs) = pods(&["a", "b"]);
    let all = endpoints.set(&configs);
    let places = Places::new(room(1, 10), Some(Arc::clone(&all)), Arc::default());
    let pinned = |at: usize| Wanted { pin: Some(Arc::clone(&all[at])), ..wanted(0) };
    let on_a = places.enter(pinned(0)).await.expect("a place");
    let waiting = {
        let (places, wanted) = (Arc::clone(&places), pinned(0));
        tokio::spawn(async move { places.enter(wanted).await })
    };
    tokio::time::sleep(Duration::from_millis(1)).await;
    let other = places.enter(wanted(0)).await.expect("a place on the other");
    assert_eq!((name(&on_a), name(&other)), ("a", "b"));
    // A pod that drains is for its sessions alone.
    configs[1].draining = true;
    places.set_pods(endpoints.set(&configs));
    drop(other);
    let on_b = places.enter(pinned(1)).await.expect("its own");
    assert_eq!(name(&on_b), "b");
    assert_eq!(all[1].placed().0, 1);
    drop(on_b);
    configs.remove(0);
    configs[0].draining = false;
    places.set_pods(endpoints.set(&configs));
    assert_eq!(name(&waiting.await.expect("ran").expect("moved")), "b");
}

#[tokio::test(start_paused = true)]
async fn whoever_gives_up_leaves_nothing_and_a_server_that_is_taken_away_turns_all_away() {
    let (endpoints, configs) = pods(&["a"]);
    let places = Places::new(room(1, 1), Some(endpoints.set(&configs)), Arc::default());
    let taken = places.enter(wanted(0)).await.expect("a place");
    let impatient = tokio::time::timeout(Duration::from_secs(1), places.enter(wanted(0))).await;
    assert!(impatient.is_err());
    assert_eq!(places.counts().classes[0].queued, 0);
    let waiting = {
        let places = Arc::clone(&places);
        tokio::spawn(async move { places.enter(wanted(0)).await })
    };
    tokio::time::sleep(Duration::from_secs(1)).await;
    places.close();
    assert_eq!(waiting.await.expect("ran").expect_err("turned away"), Full::Closed);
    assert_eq!(places.enter(wanted(0)).await.expect_err("turned away"), Full::Closed);
    drop(taken);
    assert!(places.is_idle());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_has_failed_somewhere_is_tried_elsewhere_first() {
    let (endpoints, configs) = pods(&["a", "b"]);
    let all = endpoints.set(&configs);
    let places = Places::new(room(2, 1), Some(Arc::clone(&all)), Arc::default());
    let busy = places.enter(Wanted { pin: Some(Arc::clone(&all[1])), ..wanted(0) }).await.expect("a place");
    let again = Wanted { failed_on: Some(Arc::clone(&all[0])), ..wanted(0) };
    let taken = places.enter(again.clone()).await.expect("a place");
    assert_eq!(name(&taken), "b", "though the other has less to do");
    assert_eq!(places.counts().classes[0].arrivals, 1, "it has come once");
    let last = places.enter(again).await.expect("a place");
    assert_eq!(name(&last), "a", "where nothing else is free");
    drop((busy, taken));
}

/// The only pod of a server, left alone for longer than anybody waits.
fn left_alone() -> (super::super::endpoints::Endpoints, Vec<PodConfig>) {
    let rest = Duration::from_secs(3_600);
    let endpoints = super::super::endpoints::Endpoints::new(BreakerConfig { failures: 1, rest, rest_max: rest });
    let (_, configs) = pods(&["a", "b"]);
    let all = endpoints.set(&configs[..1]);
    assert!(all[0].breaker.pass().expect("asked").tell(Verdict::Failed));
    (endpoints, configs)
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_pods_that_fail_as_for_a_server_that_cannot_be_reached() {
    let (endpoints, configs) = left_alone();
    let places = Places::new(room(1, 10), Some(endpoints.all()), Arc::default());
    let begun = Instant::now();
    assert_eq!(places.enter(wanted(0)).await.expect_err("in vain"), Full::Unreached);
    assert_eq!(begun.elapsed(), HOLD);
    let enter = || {
        let places = Arc::clone(&places);
        tokio::spawn(async move { places.enter(wanted(0)).await })
    };
    let (first, second) = (enter(), enter());
    // Longer than one waits for its turn.
    tokio::time::sleep(Duration::from_secs(8)).await;
    places.set_pods(endpoints.set(&configs));
    let first = first.await.expect("ran").expect("a place");
    assert_eq!(name(&first), "b");
    let well = Instant::now();
    assert_eq!(second.await.expect("ran").expect_err("in vain"), Full::Late);
    assert!(well.elapsed() >= Duration::from_secs(4), "its turn is counted from then: {:?}", well.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_only_pod_is_tried_after_the_shortest_rest_however_long_it_is_left_alone() {
    let second = Duration::from_secs(1);
    let config = BreakerConfig { failures: 1, rest: second, rest_max: second * 60 };
    let endpoints = super::super::endpoints::Endpoints::new(config);
    let (_, configs) = pods(&["a", "b"]);
    let all = endpoints.set(&configs[..1]);
    for rest in [0, 1, 2, 4, 8, 16] {
        tokio::time::sleep(second * rest).await;
        assert!(all[0].breaker.pass().expect("asked").tell(Verdict::Failed));
    }
    let places = Places::new(room(1, 10), Some(all), Arc::default());
    let begun = Instant::now();
    let taken = places.enter(wanted(0)).await.expect("a place");
    assert!(begun.elapsed() < second * 2, "not after half a minute: {:?}", begun.elapsed());
    assert_eq!(name(&taken), "a");
    drop(taken);
    // Where another can be asked it is left alone for as long as it is said.
    places.set_pods(endpoints.set(&configs));
    let _busy = places.enter(wanted(0)).await.expect("a place");
    assert_eq!(places.enter(wanted(0)).await.expect_err("in vain"), Full::Late);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_could_not_be_reached_just_now_is_passed_by_for_a_moment() {
    let (endpoints, configs) = pods(&["a", "b"]);
    let all = endpoints.set(&configs);
    let places = Places::new(room(2, 1), Some(Arc::clone(&all)), Arc::default());
    let on_b = places.enter(Wanted { pin: Some(Arc::clone(&all[1])), ..wanted(0) }).await.expect("a place");
    all[0].away.note(true);
    let second = places.enter(wanted(0)).await.expect("a place");
    assert_eq!(name(&second), "b", "though the other has less to do");
    assert_eq!(name(&places.enter(wanted(0)).await.expect("a place")), "a", "where nothing else is free");
    drop(second);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(name(&places.enter(wanted(0)).await.expect("a place")), "a");
    drop(on_b);
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_turn_is_almost_over_waits_on_when_the_last_pod_goes() {
    let (endpoints, configs) = pods(&["a", "b"]);
    let places = Places::new(room(1, 10), Some(endpoints.set(&configs[..1])), Arc::default());
    let _busy = places.enter(wanted(0)).await.expect("a place");
    let waiting = {
        let places = Arc::clone(&places);
        tokio::spawn(async move { places.enter(wanted(0)).await })
    };
    // Later than it has looked last before its turn is over, after five seconds.
    tokio::time::sleep(Duration::from_millis(4_980)).await;
    places.set_pods(endpoints.set(&[]));
    tokio::time::sleep(Duration::from_secs(10)).await;
    places.set_pods(endpoints.set(&configs[1..]));
    assert_eq!(name(&waiting.await.expect("ran").expect("a pod came")), "b");
}

#[tokio::test(start_paused = true)]
async fn what_another_region_sends_gets_a_place_at_once_or_none_and_wakes_nobody() {
    let (endpoints, configs) = pods(&["a", "b"]);
    let urgent = Arc::new(Notify::new());
    let places = Places::new(room(2, 10), Some(endpoints.set(&[])), Arc::clone(&urgent));
    let guest = || Wanted { is_guest: true, ..wanted(0) };
    assert_eq!(places.spare(), 0);
    assert_eq!(places.enter(guest()).await.expect_err("no pod"), Full::Now);
    assert!(urgent.notified().now_or_never().is_none(), "nobody is told that it waits");
    places.set_pods(endpoints.set(&configs));
    assert_eq!(places.spare(), 4);
    let mut taken = vec![places.enter(guest()).await.expect("a place")];
    for _ in 0..3 {
        taken.push(places.enter(wanted(0)).await.expect("a place"));
    }
    assert_eq!(places.enter(guest()).await.expect_err("all are taken"), Full::Now);
    let counts = places.counts();
    assert_eq!((counts.classes[0].arrivals, counts.cold, places.spare()), (4, 0, 0));
    let waiting = tokio::spawn({
        let places = Arc::clone(&places);
        async move { places.enter(wanted(0)).await }
    });
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(places.is_waited_for());
    drop(taken);
    let _placed = waiting.await.expect("ran").expect("a place");
    assert_eq!(places.spare(), 3);
    places.close();
    assert_eq!(places.spare(), 0);
}
