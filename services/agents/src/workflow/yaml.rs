//! A YAML text as JSON, with the place of every value.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};
use serde_saphyr::{Location, Options, Spanned};

/// Nodes that aliases may expand to at the most.
const MAX_ALIASED: usize = 10_000;
/// Nodes in one file at the most.
const MAX_NODES: usize = 50_000;
/// Levels of maps and lists at the most.
const MAX_LEVELS: usize = 64;

/// Line and column, from 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) line: u64,
    pub(crate) column: u64,
}

impl From<Location> for Place {
    fn from(location: Location) -> Self {
        Self { line: location.line(), column: location.column() }
    }
}

/// A file as JSON, and where in the text each value is, by JSON pointer (RFC 6901).
#[derive(Debug, Default)]
pub(crate) struct Document {
    pub(crate) value: Value,
    places: BTreeMap<String, Place>,
    keys: BTreeMap<String, Place>,
}

impl Document {
    /// Reads a text.
    ///
    /// # Errors
    /// Where it is no YAML, and why.
    pub(crate) fn read(text: &str) -> Result<Self, (Place, String)> {
        let mut options = Options::default();
        options.alias_limits.max_total_replayed_events = MAX_ALIASED;
        // 'n' and 'on' are names, not booleans.
        options.strict_booleans = true;
        if let Some(budget) = &mut options.budget {
            budget.max_nodes = MAX_NODES;
            budget.max_depth = MAX_LEVELS;
        }
        let root: Spanned<Node> = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let place = error.location().map(Place::from).unwrap_or(Place { line: 1, column: 1 });
            (place, first_line(&error.without_snippet().to_string()))
        })?;
        let mut document = Self::default();
        document.value = document.take(root, String::new());
        Ok(document)
    }

    fn take(&mut self, node: Spanned<Node>, pointer: String) -> Value {
        let value = match node.value {
            Node::Scalar(value) => value,
            Node::List(items) => {
                let items = items.into_iter().enumerate();
                items.map(|(index, item)| self.take(item, format!("{pointer}/{index}"))).collect()
            }
            Node::Map(entries) => {
                let mut map = Map::new();
                for (key, value) in entries {
                    let inner = join(&pointer, &key.value);
                    self.keys.insert(inner.clone(), key.referenced.into());
                    let value = self.take(value, inner);
                    map.insert(key.value, value);
                }
                Value::Object(map)
            }
        };
        self.places.insert(pointer, node.referenced.into());
        value
    }

    /// Where a value is; the nearest enclosing one when there is none at the pointer.
    pub(crate) fn place(&self, pointer: &str) -> Place {
        let mut pointer = pointer;
        loop {
            if let Some(place) = self.places.get(pointer) {
                return *place;
            }
            let Some((outer, _)) = pointer.rsplit_once('/') else { return Place { line: 1, column: 1 } };
            pointer = outer;
        }
    }

    /// Where the key of a property is.
    pub(crate) fn key_place(&self, pointer: &str) -> Place {
        self.keys.get(pointer).copied().unwrap_or_else(|| self.place(pointer))
    }
}

/// The pointer of a property.
pub(crate) fn join(pointer: &str, key: &str) -> String {
    format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

enum Node {
    Scalar(Value),
    List(Vec<Spanned<Node>>),
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value of JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Node, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom(format!("{value} is no number of JSON")))?;
        Ok(Node::Scalar(Value::Number(number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Node, D::Error> {
        Node::deserialize(inner)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_have_places() {
        let document = Document::read("a: 1\nb:\n  - x: true\n    y: \"${ z }\"\n  - 0.5\n").expect("YAML");
        assert_eq!(document.value, json!({"a": 1, "b": [{"x": true, "y": "${ z }"}, 0.5]}));
        assert_eq!(document.place("/b/0/y"), Place { line: 4, column: 8 });
        assert_eq!(document.key_place("/b/0/y"), Place { line: 4, column: 5 });
        assert_eq!(document.place("/b/1/absent"), Place { line: 5, column: 5 });
    }

    #[test]
    fn what_is_no_yaml_is_named_with_its_place() {
        for (text, line) in [("a: [1\nb: 2", 2), ("a: 1\na: 2\n", 2), ("a: 1\n\tb: 2\n", 2)] {
            let (place, why) = Document::read(text).expect_err("refused");
            assert!(place.line >= line - 1 && !why.is_empty(), "{text:?}: {place:?} {why}");
        }
    }

    #[test]
    fn bombs_are_refused() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..9 {
            let uses = vec![format!("*a{}", level - 1); 10].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{uses}]\n"));
        }
        assert!(Document::read(&text).is_err());
        assert!(Document::read(&format!("a: {}{}", "[".repeat(5_000), "]".repeat(5_000))).is_err());
    }
}
