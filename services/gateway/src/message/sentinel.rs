//! Values of headers that mirror parts of a body (revision 2026-07-28, Streamable HTTP, "Value Encoding").

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::HeaderValue;

const BEFORE: &str = "=?base64?";
const AFTER: &str = "?=";

/// What a value stands for; `None` when it is malformed.
pub(crate) fn decode_header(value: &HeaderValue) -> Option<Cow<'_, str>> {
    let text = value.to_str().ok()?;
    match text.strip_prefix(BEFORE).and_then(|rest| rest.strip_suffix(AFTER)) {
        Some(encoded) => String::from_utf8(STANDARD.decode(encoded).ok()?).ok().map(Cow::Owned),
        None => Some(Cow::Borrowed(text)),
    }
}

/// A value that stands for a text.
pub(crate) fn encode_header(text: &str) -> HeaderValue {
    let visible = |byte: u8| byte.is_ascii_graphic() || byte == b' ' || byte == b'\t';
    let plain = text.bytes().all(visible)
        && text.trim_matches([' ', '\t']).len() == text.len()
        && !(text.starts_with(BEFORE) && text.ends_with(AFTER));
    let written =
        if plain { Cow::Borrowed(text) } else { Cow::Owned(format!("{BEFORE}{}{AFTER}", STANDARD.encode(text))) };
    HeaderValue::from_str(&written).expect("visible ASCII")
}
