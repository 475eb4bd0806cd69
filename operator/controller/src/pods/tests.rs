use std::time::Duration;

use echotune_autoscaler::{Reason, Region};

use super::*;

const NOW: u64 = 1_000_000;
const WANTED: Wanted<'_> = Wanted { revision: Some("new"), drain_ms: 300_000, now_ms: NOW };

/// `a*` is ready, `a` starts; `<` before it drains, `!` has ended, `~` is being deleted.
fn pod(text: &str) -> (String, PodSeen) {
    let name = text.trim_matches(|letter: char| "*<!~".contains(letter));
    let revision = name.split('-').nth(2).expect("a name of a pod").to_owned();
    let seen = PodSeen {
        uid: format!("uid of {name}"),
        created_ms: 10,
        revision,
        address: None,
        ready_ms: text.ends_with('*').then_some(20),
        draining_ms: text.starts_with('<').then_some(NOW - 10_000),
        deleting: text.starts_with('~'),
        ended: text.starts_with('!'),
        trouble: None,
    };
    (name.to_owned(), seen)
}

fn pods(texts: &[&str]) -> BTreeMap<String, PodSeen> {
    texts.iter().map(|text| pod(text)).collect()
}

fn demand(busy: &[&str]) -> Demand {
    let load = PodLoad { sessions: 1, in_flight: 1, calls_end_ms: Some(NOW + 60_000) };
    let pods = busy.iter().map(|name| ((*name).to_owned(), load)).collect();
    let (loads, age) = (Vec::new(), Duration::ZERO);
    let regions = vec![Region { name: "eu".into(), spare_calls: 2, round_trip_ms: 80 }];
    Demand { age, silent: false, settles: false, told: None, loads, cold: 0, sessions: 0, pods, regions }
}

fn decided(serving: u32, drain: &[&str], undrain: &[&str], delete: &[&str]) -> Goal {
    let names = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
    Goal::Decided(Box::new(Decision {
        replicas: 0,
        serving,
        drain: names(drain),
        undrain: names(undrain),
        delete: names(delete),
        spill: Vec::new(),
        again_ms: 1,
        reason: Reason::Idle { idle_ms: 0 },
        bound: None,
        forecast: None,
    }))
}

fn moved(texts: &[&str], busy: &[&str], serving: u32, goal: &Goal) -> Moves {
    let (pods, demand) = (pods(texts), demand(busy));
    let sorted = sort(&pods, &demand, WANTED, Some(serving));
    moves(&pods, &demand, WANTED, &sorted, goal, false)
}

#[test]
fn new_pods_take_the_least_free_numbers_and_meet_those_that_are_not_seen_yet() {
    let goal = decided(4, &[], &[], &[]);
    let made = moved(&["mcp-s-new-0*", "~mcp-s-new-1*", "mcp-s-new-3"], &[], 2, &goal);
    assert_eq!(made.create, [2, 4]);
    assert_eq!(made.replicas, 4, "the one that is being deleted is none of them");
    let again = moved(&["mcp-s-new-0*", "~mcp-s-new-1*", "mcp-s-new-3"], &[], 4, &goal);
    assert_eq!(again.create, made.create, "before the new ones are seen, the same are made");
}

#[test]
fn what_was_decided_is_done_to_exactly_those_pods() {
    let texts = ["mcp-s-new-0*", "mcp-s-new-1*", "<mcp-s-new-2*"];
    let moves = moved(&texts, &[], 2, &decided(1, &["mcp-s-new-1"], &[], &["mcp-s-new-2"]));
    assert_eq!((moves.drain, moves.delete), (vec!["mcp-s-new-1".into()], vec!["mcp-s-new-2".to_owned()]));
    assert_eq!((moves.create.len(), moves.replicas), (0, 2));
    let moves = moved(&texts, &[], 2, &decided(3, &[], &["mcp-s-new-2"], &[]));
    assert_eq!((moves.undrain, moves.create.len(), moves.replicas), (vec!["mcp-s-new-2".to_owned()], 0, 3));
}

#[test]
fn nothing_is_taken_away_while_a_gateway_is_silent() {
    let texts = ["mcp-s-new-0*", "<mcp-s-new-1*"];
    let (pods, demand) = (pods(&texts), demand(&[]));
    let sorted = sort(&pods, &demand, WANTED, Some(1));
    let goal = decided(0, &["mcp-s-new-0"], &[], &["mcp-s-new-1"]);
    assert_eq!(moves(&pods, &demand, WANTED, &sorted, &goal, true), Moves { replicas: 2, ..Moves::default() });
    let over = Wanted { now_ms: NOW + 300_000, ..WANTED };
    let ended = moves(&pods, &demand, over, &sorted, &Goal::Exactly(1), true);
    assert_eq!(ended.delete, ["mcp-s-new-1"], "but when its time is over it goes");
}

#[test]
fn a_pod_that_was_marked_a_moment_ago_waits_for_what_gateways_say_of_it() {
    let goal = decided(1, &[], &[], &["mcp-s-new-1"]);
    let gone = |since_ms: u64| {
        let mut pods = pods(&["mcp-s-new-0*", "<mcp-s-new-1*", "<mcp-s-old-2*"]);
        for pod in pods.values_mut().filter(|pod| pod.draining_ms.is_some()) {
            pod.draining_ms = Some(since_ms);
        }
        let demand = demand(&[]);
        let sorted = sort(&pods, &demand, WANTED, Some(1));
        moves(&pods, &demand, WANTED, &sorted, &goal, false).delete
    };
    assert_eq!(gone(NOW - 1_000), Vec::<String>::new(), "what is known may be from before the mark");
    assert_eq!(gone(NOW - 2_000), ["mcp-s-new-1", "mcp-s-old-2"]);
}

#[test]
fn no_pod_goes_while_gateways_may_not_be_back_yet() {
    let pods = pods(&["mcp-s-new-0*", "<mcp-s-new-1*"]);
    let demand = Demand { settles: true, ..demand(&[]) };
    let over = Wanted { now_ms: NOW + 300_000, ..WANTED };
    let sorted = sort(&pods, &demand, over, Some(1));
    let told = moves(&pods, &demand, over, &sorted, &Goal::Exactly(1), true);
    assert_eq!(told.delete, Vec::<String>::new(), "a call of it may be told of yet");
}

#[test]
fn a_number_that_somebody_else_says_is_kept_to_by_the_emptiest() {
    let texts = ["mcp-s-new-0*", "mcp-s-new-1*", "mcp-s-new-2*"];
    let moves = moved(&texts, &["mcp-s-new-0", "mcp-s-new-2"], 3, &Goal::Exactly(2));
    assert_eq!((moves.drain, moves.delete), (vec!["mcp-s-new-1".to_owned()], Vec::new()));
    let texts = ["<mcp-s-new-0*", "<mcp-s-new-1*"];
    let moves = moved(&texts, &["mcp-s-new-0"], 0, &Goal::Exactly(0));
    assert_eq!(moves.delete, ["mcp-s-new-1"], "a pod with a call waits for it");
    assert_eq!(moved(&texts, &[], 0, &Goal::Exactly(2)).undrain.len(), 2);
    assert_eq!(moved(&["!mcp-s-new-0"], &[], 1, &Goal::Exactly(1)).delete, ["mcp-s-new-0"], "ended pods go");
}

/// Does what is told, as the cluster would.
fn follow(pods: &mut BTreeMap<String, PodSeen>, moves: &Moves) {
    for name in &moves.drain {
        pods.get_mut(name).expect("a pod").draining_ms = Some(NOW - 10_000);
    }
    for name in &moves.delete {
        assert!(pods[name].draining_ms.is_some(), "{name} is deleted and was not marked before");
        pods.remove(name);
    }
    for number in &moves.create {
        let (name, seen) = pod(&format!("mcp-s-new-{number}"));
        assert!(pods.insert(name, seen).is_none(), "a pod is made twice");
    }
}

#[test]
fn a_rollout_keeps_as_many_ready_as_there_were_and_deletes_no_busy_pod() {
    let texts: Vec<_> = (0..6).map(|at| format!("mcp-s-old-{at}*")).collect();
    let mut pods = pods(&texts.iter().map(String::as_str).collect::<Vec<_>>());
    let mut busy = vec!["mcp-s-old-2"];
    let mut rounds = 0;
    while pods.values().any(|pod| pod.revision == "old") {
        rounds += 1;
        assert!(rounds < 30, "it does not end: {pods:#?}");
        let demand = demand(&busy);
        let sorted = sort(&pods, &demand, WANTED, Some(6));
        let seen = sorted.observed(&pods, &demand);
        assert_eq!(seen.iter().filter(|pod| !matches!(pod.phase, Phase::Draining(_))).count(), 6);
        let told = moves(&pods, &demand, WANTED, &sorted, &decided(6, &[], &[], &[]), false);
        assert!(told.delete.iter().all(|name| !busy.contains(&name.as_str())), "a busy pod is deleted");
        follow(&mut pods, &told);
        let ready = pods.values().filter(|pod| pod.is_ready() && pod.draining_ms.is_none()).count();
        assert!(ready >= 6, "{ready} are ready");
        assert!(pods.len() <= 6 + 2 + 2, "more than a fourth beyond");
        // One that starts becomes ready.
        if let Some(pod) = pods.values_mut().find(|pod| pod.ready_ms.is_none()) {
            pod.ready_ms = Some(NOW);
        }
        if rounds == 20 {
            busy.clear();
        }
    }
    assert_eq!(pods.len(), 6);
}

#[test]
fn a_template_that_never_becomes_ready_harms_nobody() {
    let mut pods = pods(&["mcp-s-old-0*", "mcp-s-old-1*"]);
    for _ in 0..5 {
        let demand = demand(&[]);
        let sorted = sort(&pods, &demand, WANTED, Some(2));
        let told = moves(&pods, &demand, WANTED, &sorted, &decided(2, &[], &[], &[]), false);
        follow(&mut pods, &told);
    }
    assert_eq!(pods.keys().collect::<Vec<_>>(), ["mcp-s-new-0", "mcp-s-old-0", "mcp-s-old-1"]);
    assert!(pods["mcp-s-old-0"].draining_ms.is_none() && pods["mcp-s-old-1"].draining_ms.is_none());
}

#[test]
fn after_a_restart_in_a_rollout_those_that_start_are_not_counted() {
    let pods = pods(&["mcp-s-old-0*", "mcp-s-old-1*", "mcp-s-new-0"]);
    let demand = demand(&[]);
    let sorted = sort(&pods, &demand, WANTED, None);
    assert_eq!(sorted.observed(&pods, &demand).len(), 2);
    assert!(sorted.rolls());
}

#[test]
fn what_other_regions_could_take_over_is_decided_by() {
    let demand = demand(&[]);
    assert_eq!(observation(Vec::new(), &demand, NOW).regions, demand.regions);
}
