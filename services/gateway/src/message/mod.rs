//! Messages of JSON-RPC whose payloads stay text: a call passes without its arguments or its result being read.

use std::{borrow::Cow, fmt};

use axum::body::Bytes;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

mod depth;
mod object;
mod revision;
mod sentinel;

pub(crate) use self::{
    depth::depth_within,
    object::Object,
    revision::{LATEST_LEGACY, MODERN, Revision},
    sentinel::{decode_header, encode_header},
};

/// Longest id of a message in bytes, as JSON.
const MAX_ID_BYTES: usize = 256;
/// Longest name of a method in bytes.
const MAX_METHOD_BYTES: usize = 128;

/// JSON text that was checked once and is passed on as it is. Clones share it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Json(Bytes);

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl Json {
    /// A value as JSON.
    pub(crate) fn of(value: &(impl Serialize + ?Sized)) -> Self {
        Self(serde_json::to_vec(value).expect("values of this crate are JSON").into())
    }

    /// A part of a text that holds it.
    fn part(of: &Bytes, part: &RawValue) -> Self {
        Self(of.slice_ref(part.get().as_bytes()))
    }

    /// Whole text, which is known to be JSON.
    fn known(text: impl Into<Bytes>) -> Self {
        Self(text.into())
    }

    /// Text that came from outside, if it is JSON.
    pub(crate) fn taken(text: &Bytes) -> Option<Self> {
        serde_json::from_slice::<&RawValue>(text).ok().map(|raw| Self::part(text, raw))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The elements of an array, which stay text.
    pub(crate) fn elements(&self) -> Option<Vec<Self>> {
        let elements: Vec<&RawValue> = serde_json::from_slice(&self.0).ok()?;
        Some(elements.into_iter().map(|element| Self::part(&self.0, element)).collect())
    }

    /// An array of values.
    pub(crate) fn array<'a>(elements: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut text = vec![b'['];
        for (at, element) in elements.into_iter().enumerate() {
            if at > 0 {
                text.push(b',');
            }
            text.extend_from_slice(element.bytes());
        }
        text.push(b']');
        Self(text.into())
    }

    /// Reads it as a type.
    pub(crate) fn read<'a, T: Deserialize<'a>>(&'a self) -> Option<T> {
        serde_json::from_slice(&self.0).ok()
    }
}

/// An id as it was written: a string or a whole number.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Id(Json);

impl Id {
    pub(crate) fn number(id: u64) -> Self {
        Self(Json::of(&id))
    }

    pub(crate) fn text(id: &str) -> Self {
        Self(Json::of(id))
    }

    /// An id that is a part of another message.
    pub(crate) fn read(of: &Json) -> Option<Self> {
        Self::checked(of.clone()).ok()
    }

    fn checked(json: Json) -> Result<Self, Malformed> {
        let text = json.bytes();
        let whole = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
        let right = text.first() == Some(&b'"') || whole(text.strip_prefix(b"-").unwrap_or(text));
        if right && text.len() <= MAX_ID_BYTES {
            Ok(Self(json))
        } else {
            Err(Malformed(format!("'id' is neither a string nor a whole number of at most {MAX_ID_BYTES} bytes")))
        }
    }

    pub(crate) fn json(&self) -> &Json {
        &self.0
    }

    /// The number, when it is one that this crate gave out.
    pub(crate) fn as_number(&self) -> Option<u64> {
        self.0.read()
    }

    pub(crate) fn as_text(&self) -> Option<String> {
        self.0.read()
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// How a request ended: a result or an error, each as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Result(Json),
    Error(Json),
}

impl Outcome {
    pub(crate) fn result(value: &impl Serialize) -> Self {
        Self::Result(Json::of(value))
    }

    pub(crate) fn error(code: i64, message: &str) -> Self {
        Self::Error(Json::of(&serde_json::json!({ "code": code, "message": message })))
    }

    /// The message that carries it.
    pub(crate) fn message(&self, id: &Id) -> Json {
        let (member, value) = match self {
            Self::Result(value) => (&b"\"result\":"[..], value),
            Self::Error(value) => (&b"\"error\":"[..], value),
        };
        let parts = [b"{\"jsonrpc\":\"2.0\",\"id\":", id.0.bytes(), b",", member, value.bytes(), b"}"];
        Json::known(parts.concat())
    }
}

/// Why a text is no message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) String);

/// A message, with what it carries as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    Request { id: Id, method: String, params: Option<Json> },
    Notice { method: String, params: Option<Json> },
    Answer { id: Id, outcome: Outcome },
}

/// Keeps `null` apart from what is absent.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    jsonrpc: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "present")]
    params: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    error: Option<&'a RawValue>,
}

/// Why a text is refused: it is no JSON, or JSON and no message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unread {
    NotJson(String),
    NotMessage(String),
}

impl From<Malformed> for Unread {
    fn from(Malformed(why): Malformed) -> Self {
        Self::NotMessage(why)
    }
}

impl Message {
    /// Reads one message. Its payloads share `text`.
    pub(crate) fn read(text: &Bytes) -> Result<Self, Unread> {
        let first = text.iter().find(|byte| !byte.is_ascii_whitespace());
        if first == Some(&b'[') {
            return Err(Malformed("batches are not taken; send one message at a time".to_owned()).into());
        }
        let read = serde_json::from_slice::<Envelope<'_>>(text);
        let envelope = read.map_err(|cause| match cause.classify() {
            serde_json::error::Category::Data => Unread::NotMessage(cause.to_string()),
            _ => Unread::NotJson(cause.to_string()),
        })?;
        Ok(Self::of(text, envelope)?)
    }

    fn of(text: &Bytes, envelope: Envelope<'_>) -> Result<Self, Malformed> {
        if envelope.jsonrpc != "2.0" {
            return Err(Malformed("'jsonrpc' is not \"2.0\"".to_owned()));
        }
        let part = |raw: &RawValue| Json::part(text, raw);
        let id = envelope.id.map(|id| Id::checked(part(id))).transpose()?;
        let params = envelope.params.map(part);
        if params.as_ref().is_some_and(|params| params.bytes().first() != Some(&b'{')) {
            return Err(Malformed("'params' is not an object".to_owned()));
        }
        match (envelope.method, id, envelope.result, envelope.error) {
            (Some(method), _, None, None) if method.is_empty() || method.len() > MAX_METHOD_BYTES => {
                Err(Malformed(format!("'method' has not 1 to {MAX_METHOD_BYTES} bytes")))
            }
            (Some(method), Some(id), None, None) => Ok(Self::Request { id, method: method.into_owned(), params }),
            (Some(method), None, None, None) => Ok(Self::Notice { method: method.into_owned(), params }),
            (None, Some(id), Some(result), None) => Ok(Self::Answer { id, outcome: Outcome::Result(part(result)) }),
            (None, Some(id), None, Some(error)) => Ok(Self::Answer { id, outcome: Outcome::Error(part(error)) }),
            _ => Err(Malformed("the message is neither a request, a notification nor an answer".to_owned())),
        }
    }
}

/// The text of a request.
pub(crate) fn request(id: &Id, method: &str, params: Option<&Json>) -> Json {
    written(Some(id), method, params)
}

/// The text of a notification.
pub(crate) fn notice(method: &str, params: Option<&Json>) -> Json {
    written(None, method, params)
}

fn written(id: Option<&Id>, method: &str, params: Option<&Json>) -> Json {
    let payload = params.map_or(0, |params| params.bytes().len());
    let mut text = Vec::with_capacity(payload + method.len() + 64);
    text.extend_from_slice(b"{\"jsonrpc\":\"2.0\",");
    if let Some(id) = id {
        text.extend_from_slice(b"\"id\":");
        text.extend_from_slice(id.0.bytes());
        text.push(b',');
    }
    text.extend_from_slice(b"\"method\":");
    text.extend_from_slice(Json::of(method).bytes());
    if let Some(params) = params {
        text.extend_from_slice(b",\"params\":");
        text.extend_from_slice(params.bytes());
    }
    text.push(b'}');
    Json::known(text)
}

#[cfg(test)]
mod tests;
