//! What a token is asked to be for (2026-07-28, Authorization, "Scope Selection Strategy").

use std::{collections::BTreeSet, fmt};

/// Scopes of one request, and characters of one, at the most: those beyond are left out.
const MOST: usize = 64;
const CHARS: usize = 256;
/// By which authorization servers know that a refresh token is wanted.
const OFFLINE: &str = "offline_access";

/// A set of scopes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Scopes(BTreeSet<String>);

impl Scopes {
    /// Reads a list with spaces between.
    pub(super) fn read(text: &str) -> Self {
        text.split(' ').collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all of these are in it.
    pub(super) fn has(&self, others: &Self) -> bool {
        others.0.is_subset(&self.0)
    }

    /// Those of both.
    pub(super) fn with(&self, others: &Self) -> Self {
        self.0.iter().chain(&others.0).map(String::as_str).collect()
    }
}

impl<'a> FromIterator<&'a str> for Scopes {
    fn from_iter<T: IntoIterator<Item = &'a str>>(all: T) -> Self {
        // The characters that RFC 6749 section 3.3 lets one be of.
        let is_one = |one: &&str| {
            let fits = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
            !one.is_empty() && one.len() <= CHARS && one.bytes().all(fits)
        };
        let mut scopes = BTreeSet::new();
        for one in all.into_iter().filter(is_one) {
            if scopes.len() < MOST {
                scopes.insert(one.to_owned());
            }
        }
        Self(scopes)
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, one) in self.0.iter().enumerate() {
            write!(f, "{}{one}", if at == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

/// What scopes are chosen by.
#[derive(Default)]
pub(super) struct Choice<'a> {
    /// What the challenge names, which is what is needed now.
    pub(super) challenged: Scopes,
    /// What the configuration names.
    pub(super) configured: &'a [String],
    /// What the resource says that it knows.
    pub(super) of_resource: Option<&'a [String]>,
    /// What the authorization server says that it knows.
    pub(super) of_server: Option<&'a [String]>,
    /// What the token before was for: what other requests need must not be lost.
    pub(super) before: Scopes,
    /// Whether a refresh token is of use.
    pub(super) refreshes: bool,
}

impl Choice<'_> {
    /// The scopes to ask for; none where nobody names any, which is for the authorization server to decide.
    pub(super) fn choose(&self) -> Scopes {
        let configured: Scopes = self.configured.iter().map(String::as_str).collect();
        let named = self.challenged.with(&configured);
        let base = if named.is_empty() {
            self.of_resource.unwrap_or_default().iter().map(String::as_str).collect()
        } else {
            named
        };
        let all = base.with(&self.before);
        let offers = self.of_server.is_some_and(|known| known.iter().any(|one| one == OFFLINE));
        // Alone it would take the place of what the authorization server gives by itself.
        if self.refreshes && offers && !all.is_empty() { all.with(&Scopes::read(OFFLINE)) } else { all }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn what_is_challenged_comes_before_what_is_known_and_nothing_held_is_lost() {
        let known = own(&["read", "write"]);
        let of_resource = Some(&known[..]);
        let chosen = |choice: Choice<'_>| choice.choose().to_string();
        assert_eq!(chosen(Choice::default()), "", "omitted where nobody names any");
        assert_eq!(chosen(Choice { of_resource, ..Choice::default() }), "read write");
        let challenged = Scopes::read("admin");
        assert_eq!(chosen(Choice { of_resource, challenged: challenged.clone(), ..Choice::default() }), "admin");
        let before = Scopes::read("read");
        assert_eq!(chosen(Choice { of_resource, challenged, before, ..Choice::default() }), "admin read");
        let configured = &own(&["mine"])[..];
        assert_eq!(chosen(Choice { of_resource, configured, ..Choice::default() }), "mine");
    }

    #[test]
    fn refresh_tokens_are_asked_for_where_the_authorization_server_offers_them() {
        let (known, offers) = (own(&["read"]), own(&["read", "offline_access"]));
        let of =
            |of_server, refreshes| Choice { of_resource: Some(&known[..]), of_server, refreshes, ..Choice::default() };
        assert_eq!(of(Some(&offers[..]), true).choose().to_string(), "offline_access read");
        assert_eq!(of(Some(&offers[..]), false).choose().to_string(), "read");
        assert_eq!(of(Some(&known[..]), true).choose().to_string(), "read");
        let alone = Choice { of_server: Some(&offers[..]), refreshes: true, ..Choice::default() };
        assert!(alone.choose().is_empty());
    }

    #[test]
    fn no_server_makes_a_request_grow_without_end() {
        let many: Vec<String> = (0..1_000).map(|number| format!("scope{number}")).collect();
        let scopes: Scopes = many.iter().map(String::as_str).collect();
        assert_eq!(scopes.0.len(), MOST);
        assert_eq!(scopes.with(&Scopes::read("zzz")).0.len(), MOST);
        assert!(Scopes::read(&format!("a\"b {} \u{e4}", "x".repeat(CHARS + 1))).is_empty());
    }
}
