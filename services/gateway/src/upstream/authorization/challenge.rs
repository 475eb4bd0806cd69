//! What a refusal says of the token that is wanted: `WWW-Authenticate` (RFC 9110 section 11.6.1, RFC 6750 section 3,
//! RFC 9728 section 5.1).

use http::{HeaderMap, header::WWW_AUTHENTICATE};

use super::scopes::Scopes;

/// Headers of a refusal, and bytes of one, that are looked at.
const HEADERS: usize = 8;
const BYTES: usize = 8 << 10;

/// What servers ask of whoever presents a token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// Where the metadata of the resource is.
    pub(super) metadata: Option<String>,
    /// What the token has to be for, to do what was asked.
    pub(super) scopes: Scopes,
    pub(super) error: Option<String>,
}

impl Challenge {
    /// Reads the challenges for bearer tokens; what is said first holds.
    pub(super) fn read(headers: &HeaderMap) -> Self {
        let mut challenge = Self::default();
        let texts = headers.get_all(WWW_AUTHENTICATE).iter().take(HEADERS).filter_map(|value| value.to_str().ok());
        for text in texts.filter(|text| text.len() <= BYTES) {
            let mut is_bearer = false;
            for item in items(text) {
                let (scheme, parameter) = parts(item);
                is_bearer = scheme.map_or(is_bearer, |scheme| scheme.eq_ignore_ascii_case("Bearer"));
                if let Some((name, value)) = parameter.split_once('=').filter(|_| is_bearer) {
                    challenge.take(name.trim(), unquoted(value.trim()));
                }
            }
        }
        challenge
    }

    fn take(&mut self, name: &str, value: String) {
        if name.eq_ignore_ascii_case("resource_metadata") {
            self.metadata.get_or_insert(value);
        } else if name.eq_ignore_ascii_case("error") {
            self.error.get_or_insert(value);
        } else if name.eq_ignore_ascii_case("scope") && self.scopes.is_empty() {
            self.scopes = Scopes::read(&value);
        }
    }

    /// Whether a token is taken that is for more.
    pub(super) fn wants_more(&self) -> bool {
        self.error.as_deref() == Some("insufficient_scope")
    }
}

/// What stands between commas, outside of quotes.
fn items(text: &str) -> Vec<&str> {
    let (mut items, mut from, mut is_quoted, mut is_escaped) = (Vec::new(), 0, false, false);
    for (at, one) in text.char_indices() {
        match one {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => {
                items.push(text[from..at].trim());
                from = at + 1;
            }
            _ => {}
        }
    }
    items.push(text[from..].trim());
    items.retain(|item| !item.is_empty());
    items
}

/// The scheme that an item begins with, if it does, and its parameter.
fn parts(item: &str) -> (Option<&str>, &str) {
    match item.split_once([' ', '\t']) {
        Some((first, rest)) if !first.contains('=') && !rest.trim_start().starts_with('=') => {
            (Some(first), rest.trim_start())
        }
        None if !item.contains('=') => (Some(item), ""),
        _ => (None, item),
    }
}

fn unquoted(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return value.to_owned() };
    let mut is_escaped = false;
    let kept = inner.chars().filter(|one| {
        is_escaped = *one == '\\' && !is_escaped;
        !is_escaped
    });
    kept.collect()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn read(texts: &[&str]) -> Challenge {
        let mut headers = HeaderMap::new();
        for text in texts {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(text).expect("a header"));
        }
        Challenge::read(&headers)
    }

    #[test]
    fn a_challenge_is_found_among_others_whatever_its_form() {
        let at = Some("https://a.example/.well-known/oauth-protected-resource".to_owned());
        for texts in [
            &[r#"Bearer resource_metadata="https://a.example/.well-known/oauth-protected-resource", scope="b a""#][..],
            &[r#"bearer scope = "a b" ,resource_metadata=https://a.example/.well-known/oauth-protected-resource"#],
            &[
                r#"Basic realm="a, Bearer scope=\"evil\"", Bearer scope="a b""#,
                r#"DPoP algs="ES256", Bearer resource_metadata="https://a.example/.well-known/oauth-protected-resource""#,
            ],
        ] {
            let challenge = read(texts);
            assert_eq!((&challenge.metadata, challenge.scopes.to_string().as_str()), (&at, "a b"), "{texts:?}");
        }
        let more = read(&[r#"Bearer error="insufficient_scope", scope="c", error_description="a \"b\", c=d""#]);
        assert!(more.wants_more() && more.scopes.to_string() == "c");
    }

    #[test]
    fn what_is_none_says_nothing() {
        for text in ["", "Negotiate", "Basic realm=\"x\", scope=\"a\"", "Bearer", "=,=\",", "Bearer realm=\"a"] {
            let challenge = read(&[text]);
            assert_eq!(challenge, Challenge::default(), "{text}");
        }
    }
}
