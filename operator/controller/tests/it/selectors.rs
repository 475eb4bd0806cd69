//! Paths and selectors of requests, as an API server reads them.

use std::collections::HashMap;

use serde_json::Value;

/// What a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// The plural of the kind.
    pub(crate) plural: String,
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) part: Option<String>,
}

impl Target {
    pub(crate) fn of(path: &str) -> Option<Self> {
        let parts: Vec<_> = path.trim_matches('/').split('/').collect();
        let rest = match parts.as_slice() {
            ["api", _, rest @ ..] | ["apis", _, _, rest @ ..] => rest,
            _ => return None,
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some((*namespace).to_owned()), rest),
            rest => (None, rest),
        };
        let part = |at: usize| rest.get(at).map(|text| (*text).to_owned());
        Some(Self { plural: part(0)?, namespace, name: part(1), part: part(2) })
    }
}

/// The parameters of a query, decoded.
pub(crate) fn parameters(query: &str) -> HashMap<String, String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), decoded(value))).collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let digits = |rest: &mut std::str::Bytes<'_>| {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            Some(digit(rest.next()?)? * 16 + digit(rest.next()?)?)
        };
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => bytes.push(u8::try_from(digits(&mut rest).expect("two digits")).expect("a byte")),
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).expect("text")
}

/// Whether an object has the labels of a selector of equalities.
pub(crate) fn selected(object: &Value, selector: &str) -> bool {
    let labels = &object["metadata"]["labels"];
    selector.split(',').filter_map(|one| one.split_once('=')).all(|(name, value)| labels[name] == value)
}

/// RFC 7386.
pub(crate) fn merge(into: &mut Value, change: &Value) {
    let Value::Object(changes) = change else {
        *into = change.clone();
        return;
    };
    if !into.is_object() {
        *into = Value::Object(serde_json::Map::new());
    }
    for (name, value) in changes {
        if value.is_null() {
            into.as_object_mut().expect("an object").remove(name);
        } else {
            merge(&mut into[name.as_str()], value);
        }
    }
}
