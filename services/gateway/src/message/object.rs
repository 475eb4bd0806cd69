use std::{borrow::Cow, fmt};

use axum::body::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{Json, Malformed};

/// The members of an object, whose values stay text. A name that comes twice is refused: two readers would choose
/// differently among its values, and one of them is the server that was not asked about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Object(Vec<(Box<str>, Json)>);

/// Members of an object at the most, of those that are looked into: a name that comes twice is searched for.
const MAX_MEMBERS: usize = 256;

struct Shallow<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

#[derive(Deserialize, PartialEq, Eq)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Shallow<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Shallow<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members: Vec<(Cow<'de, str>, &RawValue)> = Vec::new();
                while let Some((Name(name), value)) = map.next_entry::<Name<'de>, &RawValue>()? {
                    if members.iter().any(|(known, _)| *known == name) {
                        let shown: String = name.chars().take(64).collect();
                        return Err(A::Error::custom(format!("'{}' comes twice", shown.escape_debug())));
                    }
                    if members.len() == MAX_MEMBERS {
                        return Err(A::Error::custom(format!("the object has more than {MAX_MEMBERS} members")));
                    }
                    members.push((name, value));
                }
                Ok(Shallow(members))
            }
        }
        from.deserialize_map(Members)
    }
}

impl Object {
    /// Reads the members of an object.
    pub(crate) fn read(json: &Json) -> Result<Self, Malformed> {
        let text: &Bytes = &json.0;
        let Shallow(members) = serde_json::from_slice(text).map_err(|cause| Malformed(cause.to_string()))?;
        let part = |(name, value): (Cow<'_, str>, &RawValue)| (name.into(), Json::part(text, value));
        Ok(Self(members.into_iter().map(part).collect()))
    }

    /// The members of an object that may be absent.
    pub(crate) fn read_optional(json: Option<&Json>) -> Result<Self, Malformed> {
        json.map_or_else(|| Ok(Self::default()), Self::read)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Json> {
        self.0.iter().find(|(known, _)| &**known == name).map(|(_, value)| value)
    }

    /// A member that is a string.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.get(name)?.read()
    }

    /// A member that is an object.
    pub(crate) fn object(&self, name: &str) -> Option<Self> {
        Self::read(self.get(name)?).ok()
    }

    /// Sets a member in its place, or adds it.
    pub(crate) fn set(&mut self, name: &str, value: Json) {
        match self.0.iter_mut().find(|(known, _)| &**known == name) {
            Some((_, held)) => *held = value,
            None => self.0.push((name.into(), value)),
        }
    }

    pub(crate) fn remove(&mut self, name: &str) -> Option<Json> {
        let at = self.0.iter().position(|(known, _)| &**known == name)?;
        Some(self.0.remove(at).1)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Json)> {
        self.0.iter().map(|(name, value)| (&**name, value))
    }

    /// The object as text.
    pub(crate) fn write(&self) -> Json {
        let size: usize = self.0.iter().map(|(name, value)| name.len() + value.bytes().len() + 4).sum();
        let mut text = Vec::with_capacity(size + 2);
        text.push(b'{');
        for (index, (name, value)) in self.0.iter().enumerate() {
            if index > 0 {
                text.push(b',');
            }
            text.extend_from_slice(Json::of(&**name).bytes());
            text.push(b':');
            text.extend_from_slice(value.bytes());
        }
        text.push(b'}');
        Json::known(text)
    }
}

impl FromIterator<(String, Json)> for Object {
    fn from_iter<T: IntoIterator<Item = (String, Json)>>(members: T) -> Self {
        Self(members.into_iter().map(|(name, value)| (name.into(), value)).collect())
    }
}
