//! Every tool: what it gives is what its schema says, and what it refuses is named.

use std::collections::{BTreeMap, BTreeSet};

use echotune_mcp_servers::{Limits, SERVERS};
use echotune_model::ItemId;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{
    house::{House, OPERATOR, call, discover, message_of},
    world::{ARTISTS, READER, SONGS, WRITER, artist, song},
};

fn id(index: usize) -> String {
    ItemId::artist(&artist(index)).to_string()
}

async fn listed(house: &House, server: &str) -> Vec<Value> {
    let response = house.modern(server, OPERATOR, "tools/list", json!({})).send().await.expect("answered");
    let message = message_of(response, StatusCode::OK).await;
    message["result"]["tools"].as_array().expect("tools").clone()
}

/// Closes every object of a schema, so that a field which it does not name is an error.
fn closed(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.contains_key("properties") {
                fields.insert("additionalProperties".into(), json!(false));
            }
            fields.values_mut().for_each(closed);
        }
        Value::Array(parts) => parts.iter_mut().for_each(closed),
        _ => {}
    }
}

/// One good call of every tool, in an order in which each finds what it needs.
async fn one_call_of_each(house: &House) -> Vec<(&'static str, &'static str, Value)> {
    let tracks =
        json!([{"artist": "Low", "title": "Lullaby", "album": "Hope"}, {"artist": "Can", "title": "Vitamin C"}]);
    let made = json!({"user": "ann", "title": "Sunday", "description": "slow", "tracks": tracks});
    let playlist = house.does(OPERATOR, "playlists", "create_playlist", made.clone()).await["id"].clone();
    let trace =
        house.does(OPERATOR, "recommendations", "recommend", json!({"user": "ann", "kind": "track"})).await["trace_id"]
            .clone();
    vec![
        ("listening", "top_items", json!({"user": "ann", "kind": "artist", "limit": 5})),
        ("listening", "recent_listens", json!({"user": "ann", "limit": 2})),
        ("listening", "listening_summary", json!({"user": "ann"})),
        (
            "listening",
            "record_listen",
            json!({"user": "ann", "artist": "Low", "title": "Lullaby", "listened_at_ms": 1_700_000_000_000_i64}),
        ),
        ("recommendations", "recommend", json!({"user": "ann", "kind": "track", "limit": 20})),
        ("recommendations", "explain", json!({"user": "ann", "item": id(7)})),
        ("recommendations", "what_if", json!({"user": "ann", "without": [id(0)], "kind": "artist", "limit": 5})),
        ("recommendations", "similar", json!({"item": id(3), "limit": 3})),
        ("recommendations", "trending", json!({"kind": "track", "limit": 3})),
        ("playlists", "create_playlist", made),
        ("playlists", "get_playlist", json!({"id": playlist})),
        ("playlists", "list_playlists", json!({"user": "ann", "limit": 10})),
        ("playlists", "export_playlist", json!({"id": playlist, "format": "xspf"})),
        ("playlists", "delete_playlist", json!({"id": playlist})),
        ("catalogue", "find_items", json!({"kind": "artist", "text": "ARTIST 1", "limit": 50})),
        ("catalogue", "get_item", json!({"id": id(1)})),
        ("experiments", "model_acceptance", json!({})),
        ("experiments", "experiment_status", json!({"name": "two-of-one"})),
        ("status", "platform_status", json!({})),
        ("status", "get_trace", json!({"trace_id": trace})),
    ]
}

#[tokio::test]
async fn every_tool_gives_what_its_schema_says() {
    let house = House::new().await;
    let mut schemas: BTreeMap<String, Value> = BTreeMap::new();
    for server in SERVERS {
        for mut tool in listed(&house, server.name).await {
            for schema in ["inputSchema", "outputSchema"] {
                assert_eq!(tool[schema]["type"], "object", "{tool}");
                let properties = tool[schema]["properties"].as_object().cloned().unwrap_or_default();
                for (name, property) in properties {
                    assert!(property["description"].is_string(), "{}.{name} is not described", tool["name"]);
                }
            }
            assert_eq!(tool["inputSchema"]["additionalProperties"], false, "{tool}");
            let mut output = tool["outputSchema"].take();
            closed(&mut output);
            schemas.insert(tool["name"].as_str().expect("a name").to_owned(), output);
        }
    }
    let calls = one_call_of_each(&house).await;
    let called: BTreeSet<String> = calls.iter().map(|(_, tool, _)| (*tool).to_owned()).collect();
    assert_eq!(called, schemas.keys().cloned().collect(), "every tool is called");
    for (server, tool, arguments) in calls {
        let content = house.does(OPERATOR, server, tool, arguments).await;
        let validator = jsonschema::validator_for(&schemas[tool]).expect("a schema");
        let faults: Vec<_> = validator.iter_errors(&content).map(|fault| fault.to_string()).collect();
        assert!(faults.is_empty(), "{tool}: {faults:?}: {content}");
    }
}

#[tokio::test]
async fn annotations_say_what_may_be_repeated() {
    let house = House::new().await;
    for server in SERVERS {
        for tool in listed(&house, server.name).await {
            let (name, hints) = (tool["name"].as_str().expect("a name"), &tool["annotations"]);
            let (writes, removes) = (["record_listen", "create_playlist", "delete_playlist"], "delete_playlist");
            assert_eq!(hints["readOnlyHint"], !writes.contains(&name), "{name}");
            assert_eq!(hints["destructiveHint"], name == removes, "{name}");
            assert_eq!((&hints["idempotentHint"], &hints["openWorldHint"]), (&json!(true), &json!(false)), "{name}");
        }
    }
}

#[tokio::test]
async fn wrong_arguments_are_refused_by_field() {
    let house = House::new().await;
    let top = |limit: Value| json!({"user": "ann", "kind": "artist", "limit": limit});
    for (server, tool, arguments, field) in [
        ("listening", "top_items", top(json!(0)), "limit"),
        ("listening", "top_items", top(json!(501)), "limit"),
        ("listening", "top_items", top(json!("5")), "limit"),
        ("listening", "top_items", top(json!(1.5)), "limit"),
        ("listening", "top_items", top(json!(-1)), "limit"),
        ("listening", "top_items", top(json!(1e300)), "limit"),
        ("listening", "top_items", json!({"user": 7, "kind": "artist"}), "user"),
        ("listening", "top_items", json!({"kind": "artist"}), "user"),
        ("listening", "top_items", json!({"user": "ann", "kind": "album"}), "kind"),
        ("listening", "top_items", json!({"user": "ann", "kind": "artist", "offset": 1}), "offset"),
        ("listening", "top_items", json!({"user": "no such name!", "kind": "artist"}), "no such name!"),
        ("listening", "listening_summary", json!({"user": "ann", "from_ms": 2, "to_ms": 2}), "from_ms"),
        ("listening", "record_listen", json!({"user": "ann", "artist": "a", "title": "b"}), "listened_at_ms"),
        (
            "listening",
            "record_listen",
            json!({"user": "ann", "artist": "a", "title": "b", "listened_at_ms": 1}),
            "listened_at_ms",
        ),
        ("recommendations", "what_if", json!({"user": "ann", "without": [], "kind": "artist"}), "without"),
        ("recommendations", "similar", json!({"item": "x"}), "'x'"),
        ("playlists", "create_playlist", json!({"user": "ann", "title": "t", "tracks": [{"artist": "a"}]}), "tracks/0"),
        ("playlists", "export_playlist", json!({"id": id(0), "format": "pls"}), "format"),
        ("status", "get_trace", json!({"trace_id": "z".repeat(32)}), "zzz"),
        ("status", "platform_status", json!({"x": 1}), "x"),
    ] {
        let (kind, message) = house.refuses(OPERATOR, server, tool, arguments.clone()).await;
        assert_eq!(kind, "INVALID_ARGUMENT", "{tool} {arguments}: {message}");
        assert!(message.contains(field), "{tool} {arguments}: {message}");
        assert!(message.len() < 2_000, "{message}");
    }
    let big = json!({"user": "ann", "kind": "x".repeat(100_000)});
    assert!(
        house.refuses(OPERATOR, "listening", "top_items", big).await.1.len() < 2_000,
        "a fault is told in few words"
    );
}

#[tokio::test]
async fn unknown_tools_and_things_are_named() {
    let house = House::new().await;
    let params = json!({"name": "sing", "arguments": {}});
    let response = house.modern("listening", OPERATOR, "tools/call", params).send().await.expect("answered");
    let message = message_of(response, StatusCode::OK).await;
    assert_eq!(message["error"]["code"], -32602, "{message}");
    assert!(message["error"]["message"].as_str().expect("text").contains("top_items"), "{message}");
    let nowhere = uuid::Uuid::nil().to_string();
    for (server, tool, arguments) in [
        ("listening", "recent_listens", json!({"user": "nobody"})),
        ("catalogue", "get_item", json!({"id": nowhere})),
        ("playlists", "get_playlist", json!({"id": nowhere})),
        ("status", "get_trace", json!({"trace_id": "0".repeat(32)})),
    ] {
        assert_eq!(house.refuses(OPERATOR, server, tool, arguments).await.0, "NOT_FOUND", "{tool}");
    }
}

/// The reasons of every item are its score.
fn assert_sums(list: &Value) -> Vec<&Value> {
    let items: Vec<&Value> = list["recommendations"].as_array().expect("a list").iter().collect();
    for (rank, item) in (1_u64..).zip(&items) {
        let number = |value: &Value| value.as_f64().expect("a number");
        let reasons = item["reasons"].as_array().expect("reasons");
        let sum = number(&item["base"]) + reasons.iter().map(|reason| number(&reason["contribution"])).sum::<f64>();
        assert!((sum - number(&item["score"])).abs() < 1e-5, "{item}");
        assert_eq!(item["rank"], rank, "{item}");
    }
    items
}

#[tokio::test]
async fn lists_keep_their_sums_when_artists_are_limited_and_excluded() {
    let house = House::new().await;
    let asked = json!({"user": "ann", "kind": "track", "limit": 10, "include_known": true});
    let plain = house.does(OPERATOR, "recommendations", "recommend", asked.clone()).await;
    let change = &plain["changes"][0];
    assert_eq!(
        (&change["stage"], &change["from_rank"], &change["to_rank"]),
        (&json!("calibration"), &json!(0), &json!(10))
    );
    assert_eq!(change["item"], plain["recommendations"][9]["id"], "what a stage changed is told");
    let plain = assert_sums(&plain);
    assert_eq!(plain.len(), 10);
    let first = plain[0]["artist"].as_str().expect("a name");
    let mut asked = asked;
    asked["max_per_artist"] = json!(1);
    asked["exclude_artists"] = json!([first.to_uppercase()]);
    asked["limit"] = json!(ARTISTS * SONGS);
    let list = house.does(OPERATOR, "recommendations", "recommend", asked).await;
    let items = assert_sums(&list);
    let artists: BTreeSet<&str> = items.iter().map(|item| item["artist"].as_str().expect("a name")).collect();
    assert_eq!((items.len(), artists.len()), (ARTISTS - 1, ARTISTS - 1), "one of each artist but the excluded one");
    assert!(!artists.contains(first));
    let without = json!({"user": "ann", "kind": "artist", "without": [id(0)], "limit": 20});
    let what_if = house.does(OPERATOR, "recommendations", "what_if", without).await;
    assert!(assert_sums(&what_if).iter().all(|item| !item["reasons"].to_string().contains("\"Artist 0\"")));
    let explained = house.does(OPERATOR, "recommendations", "explain", json!({"user": "ann", "item": id(9)})).await;
    assert_eq!(assert_sums(&explained)[0]["id"], id(9));
    let short = json!({"user": "ann", "item": id(9), "max_reasons": 2});
    let short = house.does(OPERATOR, "recommendations", "explain", short).await;
    let item = assert_sums(&short)[0];
    assert_eq!(
        (item["score"].clone(), item["reasons"].as_array().map(Vec::len)),
        (explained["recommendations"][0]["score"].clone(), Some(2))
    );
}

#[tokio::test]
async fn histories_are_paged_and_summarised() {
    let house = House::new().await;
    let page = |token: &Value| json!({"user": "ann", "limit": 2, "page_token": token});
    let first = house.does(OPERATOR, "listening", "recent_listens", page(&json!(""))).await;
    let second = house.does(OPERATOR, "listening", "recent_listens", page(&first["next"])).await;
    let titles = |page: &Value| -> Vec<Value> {
        page["listens"].as_array().expect("listens").iter().map(|listen| listen["title"].clone()).collect()
    };
    assert_eq!(titles(&first), [song(2, 0).title, song(1, 0).title]);
    assert_eq!((titles(&second), &second["next"]), (vec![json!(song(0, 0).title)], &json!("")));
    let all = house.does(OPERATOR, "listening", "listening_summary", json!({"user": "ann"})).await;
    assert_eq!((&all["listens"], &all["artists"], &all["truncated"]), (&json!(3), &json!(3), &json!(false)));
    // 2023-11-14, a Tuesday, 22:13.
    assert_eq!((&all["by_hour"][22], &all["by_weekday"][1]), (&json!(3), &json!(3)));
    let range = json!({"user": "ann", "from_ms": 1_700_000_060_000_i64, "to_ms": 1_700_000_120_000_i64});
    let middle = house.does(OPERATOR, "listening", "listening_summary", range).await;
    assert_eq!((&middle["listens"], &middle["top_artists"][0]["artist"]), (&json!(1), &json!(artist(1))));
}

#[tokio::test]
async fn a_repeated_listen_is_a_duplicate_with_and_without_a_time() {
    let house = House::new().await;
    let mut listen =
        json!({"user": "ann", "artist": "Low", "title": "Lullaby", "listened_at_ms": 1_700_000_000_000_i64});
    let record = "record_listen";
    let counts = |content: &Value| (content["recorded"].as_u64(), content["duplicates"].as_u64());
    assert_eq!(counts(&house.does(OPERATOR, "listening", record, listen.clone()).await), (Some(1), Some(0)));
    assert_eq!(counts(&house.does(OPERATOR, "listening", record, listen.clone()).await), (Some(0), Some(1)));
    listen.as_object_mut().expect("an object").remove("listened_at_ms");
    let key = json!({"echotune/idempotency-key": "run 7/step 1"});
    let first = house.call_with(OPERATOR, "listening", record, listen.clone(), key.clone()).await;
    assert_eq!(counts(&first.1), (Some(1), Some(0)), "{first:?}");
    // Time passes, so that the repeat is another now.
    tokio::time::sleep(std::time::Duration::from_millis(3)).await;
    let again = house.call_with(OPERATOR, "listening", record, listen.clone(), key.clone()).await;
    assert_eq!((again.0, counts(&again.1)), (false, (Some(0), Some(1))), "{again:?}");
    listen["title"] = json!("Shame");
    let (kind, _) = house.refuses_with(OPERATOR, "listening", record, listen, key).await;
    assert_eq!(kind, "FAILED_PRECONDITION", "the key was another listen's");
}

#[tokio::test]
async fn a_playlist_is_made_once_by_key_or_by_content() {
    let house = House::new().await;
    let wanted = json!({"user": "ann", "title": "Sunday", "tracks": [{"artist": "Low", "title": "Lullaby"}]});
    let create = async |meta: Value| {
        let (failed, made) = house.call_with(OPERATOR, "playlists", "create_playlist", wanted.clone(), meta).await;
        assert!(!failed, "{made}");
        made["id"].as_str().expect("an id").to_owned()
    };
    let key = json!({"echotune/idempotency-key": "mine"});
    let keyed = create(key.clone()).await;
    assert_eq!(create(key).await, keyed, "by key");
    let first = create(json!({})).await;
    assert_ne!(first, keyed);
    assert_eq!(create(json!({})).await, first, "by content");
    let deleted = house.does(OPERATOR, "playlists", "delete_playlist", json!({"id": first})).await;
    assert_eq!(deleted, json!({"id": first, "deleted": true}));
    let gone = house.does(OPERATOR, "playlists", "delete_playlist", json!({"id": first})).await;
    assert_eq!(gone["deleted"], false);
    let second = create(json!({})).await;
    assert_ne!(second, first, "what was deleted is not given again");
    assert_eq!(create(json!({})).await, second);
    let list = house.does(OPERATOR, "playlists", "list_playlists", json!({"user": "ann", "limit": 1})).await;
    assert_eq!(list["playlists"][0]["tracks"], 1);
    assert_ne!(list["next"], "");
}

#[tokio::test]
async fn playlists_are_read_in_parts_and_exported() {
    let house = House::new().await;
    let tracks: Vec<Value> = (0..5).map(|n| json!({"artist": "A & B", "title": format!("T{n}")})).collect();
    let wanted = json!({"user": "ann", "title": "Five/5", "tracks": tracks});
    let made = house.does(OPERATOR, "playlists", "create_playlist", wanted).await;
    assert_eq!((&made["title"], &made["tracks"]), (&json!("Five/5"), &json!(5)));
    let part =
        house.does(OPERATOR, "playlists", "get_playlist", json!({"id": made["id"], "offset": 3, "limit": 1})).await;
    assert_eq!(
        (&part["total"], &part["tracks"][0]["title"], &part["tracks"][1]),
        (&json!(5), &json!("T3"), &Value::Null)
    );
    for (format, media_type, holds) in [
        ("xspf", "application/xspf+xml", "<creator>A &amp; B</creator>"),
        ("jspf", "application/json", "\"creator\": \"A & B\""),
        ("m3u8", "audio/mpegurl", "#EXTINF:-1,A & B - T4"),
    ] {
        let file =
            house.does(OPERATOR, "playlists", "export_playlist", json!({"id": made["id"], "format": format})).await;
        assert_eq!((&file["format"], &file["media_type"]), (&json!(format), &json!(media_type)));
        assert_eq!(file["file_name"], format!("Five_5.{format}"));
        assert!(file["content"].as_str().expect("text").contains(holds), "{file}");
    }
}

#[tokio::test]
async fn results_that_are_too_long_are_refused_with_a_way_out() {
    let house = House::with(Limits { result_bytes: 2_000, ..Limits::default() }, &[]).await;
    let asked = |limit: u32| json!({"user": "ann", "kind": "track", "limit": limit});
    let (kind, message) = house.refuses(OPERATOR, "recommendations", "recommend", asked(80)).await;
    assert_eq!(kind, "RESOURCE_EXHAUSTED");
    assert!(message.contains("fewer"), "{message}");
    house.does(OPERATOR, "recommendations", "recommend", asked(2)).await;
}

#[tokio::test]
async fn tools_check_permission_even_when_the_services_do_not() {
    let house = House::new().await;
    let (reader, writer, bob) = (format!("{READER}ann"), format!("{WRITER}ann"), format!("{WRITER}bob"));
    let wanted = json!({"user": "ann", "title": "Sunday", "tracks": []});
    let denied = "PERMISSION_DENIED";
    assert_eq!(house.refuses(&reader, "playlists", "create_playlist", wanted.clone()).await.0, denied);
    assert_eq!(house.refuses(&bob, "playlists", "create_playlist", wanted.clone()).await.0, denied);
    let made = house.does(&writer, "playlists", "create_playlist", wanted).await;
    let this = json!({"id": made["id"]});
    assert_eq!(house.refuses(&bob, "playlists", "get_playlist", this.clone()).await.0, "NOT_FOUND");
    let export = json!({"id": made["id"], "format": "xspf"});
    assert_eq!(house.refuses(&bob, "playlists", "export_playlist", export).await.0, "NOT_FOUND");
    assert_eq!(house.does(&bob, "playlists", "delete_playlist", this.clone()).await["deleted"], false);
    assert_eq!(house.refuses(&reader, "playlists", "delete_playlist", this.clone()).await.0, denied);
    assert_eq!(house.does(&reader, "playlists", "get_playlist", this).await["title"], "Sunday");
    let listen = json!({"user": "ann", "artist": "a", "title": "b", "listened_at_ms": 1_700_000_000_000_i64});
    assert_eq!(house.refuses(&reader, "listening", "record_listen", listen).await.0, denied);
    for (server, tool, arguments) in [
        ("listening", "top_items", json!({"user": "bob", "kind": "artist"})),
        ("listening", "recent_listens", json!({"user": "bob"})),
        ("listening", "listening_summary", json!({"user": "bob"})),
        ("recommendations", "recommend", json!({"user": "bob", "kind": "artist"})),
        ("recommendations", "explain", json!({"user": "bob", "item": id(0)})),
        ("recommendations", "what_if", json!({"user": "bob", "kind": "artist", "without": [id(0)]})),
        ("playlists", "list_playlists", json!({"user": "bob"})),
        ("experiments", "model_acceptance", json!({})),
        ("experiments", "experiment_status", json!({"name": "two-of-one"})),
        ("status", "get_trace", json!({"trace_id": "0".repeat(32)})),
    ] {
        assert_eq!(house.refuses(&writer, server, tool, arguments).await.0, denied, "{tool}");
    }
    for (server, tool, arguments) in [
        ("status", "platform_status", json!({})),
        ("catalogue", "get_item", json!({"id": id(0)})),
        ("recommendations", "trending", json!({"kind": "artist"})),
    ] {
        house.does(&reader, server, tool, arguments).await;
    }
}

#[tokio::test]
async fn the_operator_may_call_for_one_user_who_then_has_that_users_rights() {
    let house = House::new().await;
    let for_ann = json!({"echotune/on-behalf-of": "ann"});
    let recent = |user: &str| json!({"user": user});
    let (failed, content) =
        house.call_with(OPERATOR, "listening", "recent_listens", recent("ann"), for_ann.clone()).await;
    assert!(!failed, "{content}");
    let refused = async |token: &str, user: &str, meta: Value| {
        house.refuses_with(token, "listening", "recent_listens", recent(user), meta).await
    };
    assert_eq!(refused(OPERATOR, "bob", for_ann.clone()).await.0, "PERMISSION_DENIED");
    assert_eq!(refused(OPERATOR, "ann", json!({"echotune/on-behalf-of": "nobody"})).await.0, "NOT_FOUND");
    let (kind, message) = refused(&format!("{WRITER}ann"), "ann", for_ann.clone()).await;
    assert_eq!(kind, "PERMISSION_DENIED");
    assert!(message.contains("on-behalf-of"), "{message}");
    let (kind, _) = house.refuses_with(OPERATOR, "experiments", "model_acceptance", json!({}), for_ann).await;
    assert_eq!(kind, "PERMISSION_DENIED");
}

#[tokio::test]
async fn malformed_meta_is_refused_by_name_and_a_malformed_traceparent_ignored() {
    let house = House::new().await;
    for (key, value) in [
        ("echotune/idempotency-key", json!("")),
        ("echotune/idempotency-key", json!("x".repeat(129))),
        ("echotune/idempotency-key", json!("é")),
        ("echotune/idempotency-key", json!(7)),
        ("echotune/on-behalf-of", json!(["ann"])),
        ("echotune/timeout-ms", json!("100")),
        ("echotune/timeout-ms", json!(-1)),
        ("echotune/timeout-ms", json!(0)),
    ] {
        let meta = json!({key: value});
        let (kind, message) = house.refuses_with(OPERATOR, "status", "platform_status", json!({}), meta).await;
        assert_eq!(kind, "INVALID_ARGUMENT", "{key} {value}");
        assert!(message.contains(key), "{message}");
    }
    for traceparent in [json!("00-xyz"), json!(7)] {
        let meta = json!({"traceparent": traceparent});
        assert!(!house.call_with(OPERATOR, "status", "platform_status", json!({}), meta).await.0);
    }
}

#[tokio::test]
async fn a_call_ends_with_its_callers_patience() {
    let house = House::new().await;
    house.world.open.forget_permits(tokio::sync::Semaphore::MAX_PERMITS);
    let meta = json!({"echotune/timeout-ms": 50});
    let (kind, _) = house.refuses_with(OPERATOR, "status", "platform_status", json!({}), meta).await;
    assert_eq!(kind, "DEADLINE_EXCEEDED");
}

#[tokio::test]
async fn a_panic_in_a_service_is_answered() {
    let house = House::new().await;
    house.world.open.close();
    let (kind, _) = house.refuses(OPERATOR, "status", "platform_status", json!({})).await;
    assert_eq!(kind, "INTERNAL");
    house.does(OPERATOR, "catalogue", "get_item", json!({"id": id(1)})).await;
}

#[tokio::test]
async fn rmcp_clients_of_both_eras_call_tools() {
    let house = House::new().await;
    for lifecycle in [rmcp::ClientLifecycleMode::Initialize, discover()] {
        let client = house.client("recommendations", OPERATOR, lifecycle).await;
        let names: Vec<_> = client.list_all_tools().await.expect("tools").into_iter().map(|tool| tool.name).collect();
        assert_eq!(names, ["recommend", "explain", "what_if", "similar", "trending"]);
        let result = call(&client, "recommend", json!({"user": "ann", "kind": "artist", "limit": 3}), json!({})).await;
        let content = result.structured_content.expect("structured");
        assert_eq!(assert_sums(&content).len(), 3);
        let text = result.content.first().and_then(|block| block.as_text()).expect("text").text.clone();
        assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), content, "the text says the same");
        client.cancel().await.expect("closed");
    }
}
