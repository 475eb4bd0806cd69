use proptest::prelude::*;
use serde_json::json;

use super::*;

/// An entry that has everything.
fn whole() -> Value {
    json!({
        "$schema": "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json",
        "name": "com.example/weather",
        "title": "Weather",
        "description": "Tells the weather",
        "version": "1.0.2",
        "websiteUrl": "https://example.com/weather",
        "repository": {"url": "https://example.com/x", "source": "github", "id": "7", "subfolder": "src/weather"},
        "icons": [{"src": "https://example.com/i.png", "mimeType": "image/png", "sizes": ["48x48", "any"], "theme": "dark"}],
        "packages": [{
            "registryType": "npm", "registryBaseUrl": "https://registry.example.com", "identifier": "@example/weather",
            "version": "1.0.2", "runtimeHint": "npx", "fileSha256": "a".repeat(64),
            "transport": {"type": "streamable-http", "url": "http://127.0.0.1:{port}/mcp", "headers": [{"name": "X-Key"}]},
            "runtimeArguments": [{"type": "positional", "value": "-y"}],
            "packageArguments": [
                {"type": "named", "name": "--port", "default": "8080", "format": "number"},
                {"type": "positional", "valueHint": "place", "isRepeated": true, "choices": ["here", "there"]}],
            "environmentVariables": [{"name": "KEY", "isSecret": true, "isRequired": true}]
        }],
        "remotes": [{"type": "sse", "url": "https://{host}/sse", "variables": {"host": {"default": "example.com"}}}],
        "_meta": {
            "io.modelcontextprotocol.registry/publisher-provided": {"tool": "x"},
            "internal.echotune/runtime": {"effects": {"get": "reads"}, "egress": {"policy": "hosts", "hosts": ["example.com:443"]}},
            "internal.echotune/tariff": {"unit_price_micros": 10, "currency": "EUR", "publisher_share_bp": 8500}
        }
    })
}

/// The entry with a value at a JSON pointer.
fn with(pointer: &str, value: Value) -> Value {
    let mut entry = whole();
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    let name = name.replace("~1", "/");
    match entry.pointer_mut(parent).expect("a parent") {
        Value::Object(object) => {
            object.insert(name, value);
        }
        parent => parent[name.parse::<usize>().expect("a place")] = value,
    }
    entry
}

fn without(pointer: &str) -> Value {
    let mut entry = whole();
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    entry.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object").remove(name).expect("a member");
    entry
}

fn paths(entry: &Value) -> Vec<String> {
    validate(entry).into_iter().map(|fault| fault.path).collect()
}

#[test]
fn a_whole_entry_and_the_least_are_valid() {
    assert_eq!(validate(&whole()), []);
    assert_eq!(validate(&json!({"name": "a.b/c", "description": "d", "version": "1"})), []);
    assert_eq!(validate(&with("/repository", json!({}))), []);
    assert_eq!(validate(&with("/title", Value::Null)), []);
}

#[test]
fn a_fault_is_told_with_its_place() {
    let long = "x".repeat(101);
    let cases = [
        ("name", with("/name", json!("weather"))),
        ("name", with("/name", json!("example/weather"))),
        ("name", with("/name", json!("com.example/a/b"))),
        ("name", with("/name", json!("com.example/-a"))),
        ("name", with("/name", json!(7))),
        ("name", without("/name")),
        ("description", with("/description", json!(long))),
        ("description", with("/description", json!(""))),
        ("description", without("/description")),
        ("version", with("/version", json!("^1.0"))),
        ("version", with("/version", json!("latest"))),
        ("title", with("/title", json!("a\u{1b}b"))),
        ("websiteUrl", with("/websiteUrl", json!("http://example.com"))),
        ("repository.url", without("/repository/url")),
        ("repository.subfolder", with("/repository/subfolder", json!("../up"))),
        ("icons[0].src", with("/icons/0/src", json!("data:image/png;base64,x"))),
        ("icons[0].mimeType", with("/icons/0/mimeType", json!("image/gif"))),
        ("icons[0].sizes", with("/icons/0/sizes", json!(["big"]))),
        ("packages", with("/packages", json!({}))),
        ("packages[0]", with("/packages/0", json!("npm"))),
        ("packages[0].registryType", with("/packages/0/registryType", json!("tape"))),
        ("packages[0].identifier", with("/packages/0/identifier", json!("a b"))),
        ("packages[0].version", with("/packages/0/version", json!("1.x"))),
        ("packages[0].version", without("/packages/0/version")),
        ("packages[0].fileSha256", with("/packages/0/fileSha256", json!("A".repeat(64)))),
        ("packages[0].transport", without("/packages/0/transport")),
        ("packages[0].transport.type", with("/packages/0/transport/type", json!("pigeon"))),
        ("packages[0].transport.url", with("/packages/0/transport/url", json!("http://h/{nobody}"))),
        (
            "packages[0].packageArguments[1].name",
            with("/packages/0/packageArguments/1", json!({"type": "named", "name": "--place <n>"})),
        ),
        ("packages[0].packageArguments[1].value", without("/packages/0/packageArguments/1/valueHint")),
        ("packages[0].environmentVariables[0].value", with("/packages/0/environmentVariables/0/value", json!("hush"))),
        ("packages[0].environmentVariables[0].name", with("/packages/0/environmentVariables/0/name", json!("A=B"))),
        ("remotes[0].type", with("/remotes/0/type", json!("stdio"))),
        ("remotes[0].url", with("/remotes/0/url", json!("ftp://example.com"))),
        ("_meta.runtime", with("/_meta/runtime", json!({}))),
        ("_meta.internal.echotune/runtime", with("/_meta/internal.echotune~1runtime", json!({"effect": {}}))),
        (
            "_meta.internal.echotune/runtime",
            with("/_meta/internal.echotune~1runtime", json!({"effects": {"a": "some"}})),
        ),
        (
            "_meta.internal.echotune/runtime.egress.hosts",
            with("/_meta/internal.echotune~1runtime", json!({"egress": {"policy": "hosts"}})),
        ),
        ("_meta.internal.echotune/tariff", with("/_meta/internal.echotune~1tariff", json!({"unit_price_micros": 1}))),
    ];
    for (path, entry) in cases {
        assert_eq!(paths(&entry), [path], "{:?}", validate(&entry));
    }
    assert_eq!(paths(&json!([])), [""]);
    let stdio = with("/packages/0/transport", json!({"type": "stdio", "url": "http://h"}));
    assert_eq!(paths(&stdio), ["packages[0].transport.url"]);
    let mcpb = json!({"registryType": "mcpb", "identifier": "https://h/x.mcpb", "transport": {"type": "stdio"}});
    assert_eq!(paths(&with("/packages/0", mcpb)), ["packages[0].fileSha256"]);
}

#[test]
fn what_is_too_much_is_refused_and_faults_are_few() {
    let huge = with("/_meta/a.b~1c", json!("x".repeat(MAX_ENTRY_BYTES)));
    assert!(validate(&huge)[0].why.contains("bytes"));
    let many: Vec<_> = (0..=MAX_ELEMENTS).map(|_| json!({})).collect();
    assert_eq!(paths(&with("/packages", json!(many))), ["packages"]);
    let bad: Vec<_> = (0..MAX_ELEMENTS).map(|_| json!({})).collect();
    assert_eq!(validate(&with("/packages", json!(bad))).len(), MAX_FAULTS);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-zA-Z_]{1,8}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Every place in the whole entry.
fn pointers(of: &Value, at: &str, to: &mut Vec<String>) {
    let mut below = |name: String, value: &Value| {
        let pointer = format!("{at}/{}", name.replace('/', "~1"));
        pointers(value, &pointer, to);
        to.push(pointer);
    };
    match of {
        Value::Object(map) => map.iter().for_each(|(name, value)| below(name.clone(), value)),
        Value::Array(list) => list.iter().enumerate().for_each(|(at, value)| below(at.to_string(), value)),
        _ => {}
    }
}

proptest! {
    /// Whatever stands anywhere, the answer is an answer, each fault has its reason, and it is the same again.
    #[test]
    fn whatever_stands_anywhere_is_answered(place in any::<prop::sample::Index>(), value in any_json()) {
        let mut places = vec![String::new()];
        pointers(&whole(), "", &mut places);
        let pointer = &places[place.index(places.len())];
        let mut entry = whole();
        *entry.pointer_mut(pointer).expect("a place") = value;
        let faults = validate(&entry);
        prop_assert!(faults.len() <= MAX_FAULTS);
        let is_told = |fault: &Wrong| !fault.why.is_empty() && !fault.why.contains('\u{1b}');
        prop_assert!(faults.iter().all(is_told), "{faults:?}");
        prop_assert_eq!(validate(&entry), faults);
    }
}

/// A fault is told at the place that is wrong, or at one around it.
#[test]
fn whatever_is_no_number_is_told_where_it_stands() {
    let mut places = Vec::new();
    pointers(&whole(), "", &mut places);
    // In what others say of an entry everything is right.
    places.retain(|pointer| !pointer.contains("publisher-provided"));
    for pointer in places {
        let mut entry = whole();
        // Nothing is such a number in an entry.
        *entry.pointer_mut(&pointer).expect("a place") = json!(-1.5);
        let first = pointer.split('/').nth(1).expect("a member");
        let faults = validate(&entry);
        assert!(!faults.is_empty(), "{pointer}");
        assert!(faults.iter().all(|fault| fault.path.starts_with(first)), "{pointer}: {faults:?}");
    }
}
