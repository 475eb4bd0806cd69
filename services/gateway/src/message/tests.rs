use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn read(text: &str) -> Result<Message, Unread> {
    Message::read(&Bytes::copy_from_slice(text.as_bytes()))
}

#[test]
fn payloads_pass_as_they_were_written() {
    let odd = r#"{"name":"a","arguments":{ "x" : 1.0e2 , "y":"\u00e9", "z":12345678901234567890123 }}"#;
    let text = format!(r#"{{"jsonrpc":"2.0","id":"7","method":"tools/call","params":{odd}}}"#);
    let Message::Request { id, method, params } = read(&text).expect("read") else { panic!("a request") };
    let params = params.expect("there");
    assert_eq!(params.bytes(), odd.as_bytes());
    assert_eq!(request(&id, &method, Some(&params)).bytes(), text.as_bytes());
    let mut object = Object::read(&params).expect("an object");
    object.set("name", Json::of("b"));
    let rest = r#"{"name":"b","arguments":{ "x" : 1.0e2 , "y":"\u00e9", "z":12345678901234567890123 }}"#;
    assert_eq!(object.write().bytes(), rest.as_bytes());
}

#[test]
fn what_is_no_single_message_is_refused_by_its_kind() {
    for text in ["", "{", "nonsense", "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\"} x", "\u{1}"] {
        assert!(matches!(read(text), Err(Unread::NotJson(_))), "{text}");
    }
    for text in [
        "[]",
        r#" [{"jsonrpc":"2.0","id":1,"method":"ping"}]"#,
        "7",
        "{}",
        r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":""}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"a","params":[]}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"a","result":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#,
        r#"{"jsonrpc":"2.0","result":{}}"#,
    ] {
        assert!(matches!(read(text), Err(Unread::NotMessage(_))), "{text}: {:?}", read(text));
    }
}

#[test]
fn a_name_that_comes_twice_is_refused() {
    let twice = Json::known(&br#"{"name":"a","\u006eame":"b"}"#[..]);
    assert!(Object::read(&twice).expect_err("refused").0.contains("'name' comes twice"));
}

#[test]
fn depth_is_that_of_brackets_outside_of_strings() {
    assert!(depth_within(br#"{"a":["[[[[\"[[[["]}"#, 2));
    assert!(!depth_within(br#"{"a":[{}]}"#, 2));
    let deep = [vec![b'['; 1_000_000], vec![b']'; 1_000_000]].concat();
    assert!(!depth_within(&deep, 64));
}

#[test]
fn headers_carry_every_text() {
    assert_eq!(encode_header("us-west1"), "us-west1");
    assert_eq!(encode_header("Hello, 世界"), "=?base64?SGVsbG8sIOS4lueVjA==?=");
    assert_eq!(encode_header(" padded "), "=?base64?IHBhZGRlZCA=?=");
    assert_eq!(encode_header("=?base64?literal?="), "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?=");
    assert_eq!(decode_header(&HeaderValue::from_static("=?base64?!?=")), None);
}

use http::HeaderValue;

proptest! {
    #[test]
    fn any_text_comes_back_from_its_header(text in any::<String>()) {
        let header = encode_header(&text);
        let read = decode_header(&header);
        prop_assert_eq!(read.as_deref(), Some(text.as_str()));
    }

    #[test]
    fn no_bytes_make_the_reader_fail_otherwise_than_by_refusing(text in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _either_way = Message::read(&Bytes::from(text.clone()));
        let _either_way = depth_within(&text, 3);
    }

    #[test]
    fn objects_are_written_as_they_were_read(members in proptest::collection::btree_map("[a-z\"\\\\]{0,8}", any::<i64>(), 0..20)) {
        let value = json!(members);
        let object = Object::read(&Json::of(&value)).expect("an object");
        prop_assert_eq!(object.write().read::<Value>().expect("JSON"), value);
    }
}
