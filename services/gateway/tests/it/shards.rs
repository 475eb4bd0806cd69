//! An operator whose servers are in shards, each led by another of its replicas.

use std::{sync::Arc, time::Duration};

use echotune_api::demand::Served;
use echotune_gateway::{Limits, Operator};
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::{
    fixture::{Era, Fixture},
    house::{self, House, OPERATOR, Port, SOON, config, message_of, rmcp},
    operator::{Running, Scripted, operators, served, with},
    pods::{server_of, until_served},
};

/// Of two shards: `music/a` and `music/c` are of the first, `music/b` and `music/d` of the second.
fn leaders() -> [Scripted; 2] {
    let of = |name: &str| served(name).server.shard(2);
    assert_eq!(["a", "b", "c", "d"].map(of), [0, 1, 0, 1]);
    [Scripted::of(0, 2), Scripted::of(1, 2)]
}

async fn following(operator: Operator) -> House {
    let house = House::with(config(Vec::new(), Limits::default())).await;
    house.gateway.as_ref().expect("open").follow(operator);
    house
}

async fn listening(leaders: &[Scripted; 2], ports: &[Port; 2]) -> [Running; 2] {
    [leaders[0].listen(&ports[0].address).await, leaders[1].listen(&ports[1].address).await]
}

fn replicas(ports: &[Port; 2]) -> Operator {
    operators(ports.iter().map(|port| port.address.parse().expect("an address")).collect())
}

async fn pod(name: &str) -> house::Served {
    rmcp(Fixture::new(name, Era::Modern, &["echo"])).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_of_each_shard_tells_of_its_servers_and_hears_of_them_alone() {
    let (leaders, ports) = (leaders(), [Port::new(), Port::new()]);
    let _running = listening(&leaders, &ports).await;
    let house = Arc::new(following(replicas(&ports)).await);
    let [first, second] = &leaders;
    let (one, two) = (pod("a-1").await, pod("b-1").await);
    first.put(with(served("a"), &[("a-1", &one, false)]));
    // So that no list has to be read before it is known what may be repeated.
    let sleeps = || Served { trust_annotations: false, ..served("b") };
    second.put(sleeps());
    until_served(&house, "a", true).await;
    until_served(&house, "b", true).await;
    let caller = Arc::clone(&house);
    let call = tokio::spawn(async move { caller.call("/servers/b/mcp", "echo", json!({})).await });
    second.hears("music/b", "that a call waits", |told| told.classes[0].queued == 1).await;
    second.put(with(sleeps(), &[("b-1", &two, false)]));
    assert_eq!(server_of(&call.await.expect("answered")), "b-1");
    assert_eq!(server_of(&house.call("/servers/a/mcp", "echo", json!({})).await), "a-1");
    first.hears("music/a", "of a call", |told| told.classes[0].arrivals == 1).await;
    assert_eq!((first.named(), second.named()), (vec!["music/a".to_owned()], vec!["music/b".to_owned()]));
    Arc::into_inner(house).expect("the last").close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_is_ready_when_the_leaders_of_all_shards_have_told() {
    let ([first, second], ports) = (leaders(), [Port::new(), Port::new()]);
    let _first = first.listen(&ports[0].address).await;
    first.put(served("a"));
    second.put(served("b"));
    let house = following(Operator { patience: Duration::from_secs(3_600), ..replicas(&ports) }).await;
    until_served(&house, "a", true).await;
    let gateway = house.gateway.clone().expect("open");
    assert!(!gateway.is_ready(), "the other shard may have servers");
    let _second = second.listen(&ports[1].address).await;
    let ready = async {
        while !gateway.is_ready() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, ready).await.expect("in time");
    until_served(&house, "b", true).await;
    drop(gateway);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_leader_tells_says_nothing_of_the_servers_of_another_that_is_away() {
    let ([first, second], ports) = (leaders(), [Port::new(), Port::new()]);
    let (one, two) = (first.listen(&ports[0].address).await, second.listen(&ports[1].address).await);
    let house = following(replicas(&ports)).await;
    let there = pod("b-1").await;
    first.put(served("a"));
    first.put(served("c"));
    second.put(with(served("b"), &[("b-1", &there, false)]));
    for name in ["a", "b", "c"] {
        until_served(&house, name, true).await;
    }
    drop((one, two));
    first.remove("music/c");
    let _one = first.listen(&ports[0].address).await;
    // It has told of all that it leads.
    until_served(&house, "c", false).await;
    assert_eq!(server_of(&house.call("/servers/b/mcp", "echo", json!({})).await), "b-1");
    // Whoever leads that shard now knows of no such server.
    let _two = Scripted::of(1, 2).listen(&ports[1].address).await;
    until_served(&house, "b", false).await;
    until_served(&house, "a", true).await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_goes_from_the_server_of_one_leader_to_that_of_another_in_whichever_order_they_tell() {
    let (leaders, ports) = (leaders(), [Port::new(), Port::new()]);
    let _running = listening(&leaders, &ports).await;
    let house = following(replicas(&ports)).await;
    let [first, second] = &leaders;
    let (one, two) = (pod("a-1").await, pod("b-1").await);
    first.put(with(served("a"), &[("a-1", &one, false)]));
    until_served(&house, "a", true).await;
    let heir = Served { route: "a".parse().expect("a name"), ..served("b") };
    second.put(with(heir, &[("b-1", &two, false)]));
    // What is told after it has come.
    second.put(served("d"));
    until_served(&house, "d", true).await;
    assert_eq!(server_of(&house.call("/servers/a/mcp", "echo", json!({})).await), "a-1");
    first.remove("music/a");
    let moved = async {
        loop {
            let params = json!({"name": "echo", "arguments": {}});
            let response = house.modern("/servers/a/mcp", OPERATOR, "tools/call", params).send().await;
            let response = response.expect("answered");
            // In between there is nobody of that name.
            if response.status() == 200 && message_of(response).await["result"]["structuredContent"]["server"] == "b-1"
            {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, moved).await.expect("in time");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_server_goes_when_there_are_other_shards_than_before() {
    let ([first, second], ports) = (leaders(), [Port::new(), Port::new()]);
    let whole = Scripted::new();
    let running = whole.listen(&ports[0].address).await;
    let house = following(replicas(&ports)).await;
    let there = pod("b-1").await;
    whole.put(served("a"));
    whole.put(with(served("b"), &[("b-1", &there, false)]));
    until_served(&house, "b", true).await;
    assert_eq!(server_of(&house.call("/servers/b/mcp", "echo", json!({})).await), "b-1");
    drop(running);
    first.put(served("a"));
    first.put(served("c"));
    let _first = first.listen(&ports[0].address).await;
    until_served(&house, "c", true).await;
    assert_eq!(server_of(&house.call("/servers/b/mcp", "echo", json!({})).await), "b-1", "of the other shard");
    second.put(with(served("b"), &[("b-1", &there, false)]));
    let _second = second.listen(&ports[1].address).await;
    second.hears("music/b", "of both calls", |told| told.classes[0].arrivals == 2).await;
    second.remove("music/b");
    until_served(&house, "b", false).await;
    house.close().await;
}
