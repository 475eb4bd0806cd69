//! What is held of a server's tokens, in memory alone.

use std::time::Duration;

use echotune_kit::config::Secret;
use http::HeaderValue;
use tokio::time::Instant;

use super::{
    client::Client,
    discovery::Place,
    grant::{Given, hidden},
    scopes::Scopes,
};

/// How long an address that is to be opened is good.
const PENDING: Duration = Duration::from_secs(600);
/// How long before its end a token is replaced, or half of what it lasts where that is less.
const AHEAD: Duration = Duration::from_secs(30);
/// For how long nobody is asked again after a failure, doubled up to the longest.
const REST: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_secs(60);

/// A request for somebody's leave that was not answered yet. What it says of the authorization server was looked
/// through before, so that nothing that comes back decides where its code is shown.
pub(super) struct Pending {
    pub(super) place: Place,
    pub(super) client: Client,
    pub(super) scopes: Scopes,
    pub(super) verifier: String,
    pub(super) url: String,
    state: [u8; 32],
    until: Instant,
}

impl Pending {
    pub(super) fn new(
        place: Place,
        client: Client,
        scopes: Scopes,
        state: [u8; 32],
        verifier: String,
        url: &str,
    ) -> Self {
        Self { place, client, scopes, verifier, url: url.to_owned(), state, until: Instant::now() + PENDING }
    }

    fn is_good(&self) -> bool {
        self.until > Instant::now()
    }

    /// Whether an answer is to this.
    pub(super) fn is_of(&self, state: &str) -> bool {
        self.is_good() && self.state == hidden(state)
    }
}

/// A token.
struct Token {
    header: HeaderValue,
    until: Option<Instant>,
    /// Whether the server has ever taken it.
    is_taken: bool,
}

/// All that is held.
#[derive(Default)]
pub(super) struct Held {
    token: Option<Token>,
    refresh: Option<Secret>,
    /// Where they are from, and for what: those of another authorization server are of no use there.
    pub(super) place: Option<Place>,
    /// What the gateway is there.
    pub(super) client: Option<Client>,
    /// What was asked for.
    pub(super) asked: Scopes,
    pub(super) pending: Option<Pending>,
    /// Tokens that there have been.
    pub(super) number: u64,
    /// Why none could be had, until when nobody is asked again, and for how long that is.
    failed: Option<(String, Instant, Duration)>,
}

impl Held {
    pub(super) fn header(&self) -> Option<HeaderValue> {
        self.token.as_ref().map(|token| token.header.clone())
    }

    pub(super) fn is_over(&self) -> bool {
        let until = self.token.as_ref().and_then(|token| token.until);
        until.is_some_and(|until| until <= Instant::now())
    }

    pub(super) const fn has_refresh(&self) -> bool {
        self.refresh.is_some()
    }

    /// The server has taken the token of a number.
    pub(super) fn taken(&mut self, number: u64) {
        if let Some(token) = self.token.as_mut().filter(|token| self.number == number && !token.is_taken) {
            token.is_taken = true;
            self.failed = None;
        }
    }

    /// Whether the token of a number is new and the server does not take it.
    pub(super) fn is_useless(&mut self, number: u64) -> bool {
        let is_useless = self.number == number && self.token.as_ref().is_some_and(|token| !token.is_taken);
        if is_useless {
            self.fail("there is no token for it: it does not take the one that was got for it", false);
            // The next is got when the rest is over, by whoever asks without any.
            self.token = None;
            self.refresh = None;
        }
        is_useless
    }

    /// None could be had. A registration that is not known any more is made anew.
    pub(super) fn fail(&mut self, why: &str, is_unknown: bool) {
        let rest = self.failed.take().map_or(REST, |(_, _, rest)| (rest * 2).min(REST_MAX));
        self.failed = Some((why.to_owned(), Instant::now() + rest, rest));
        if is_unknown {
            self.client = None;
        }
    }

    /// Why nobody is asked now.
    pub(super) fn rests(&self) -> Option<String> {
        self.failed.as_ref().filter(|(_, until, _)| *until > Instant::now()).map(|(why, _, _)| why.clone())
    }

    /// What is awaited, while it can still come.
    pub(super) fn pending(&self) -> Option<&Pending> {
        self.pending.as_ref().filter(|pending| pending.is_good())
    }

    /// Whether somebody's leave for all of this is awaited already.
    pub(super) fn waits_for(&self, scopes: &Scopes) -> bool {
        self.pending().is_some_and(|pending| pending.scopes.has(scopes))
    }

    /// Whether an answer is to what is awaited.
    pub(super) fn awaits(&self, state: &str) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.is_of(state))
    }

    /// Takes out what is awaited, for its answer: once.
    pub(super) fn take_pending(&mut self, state: &str) -> Option<Pending> {
        let is_of = self.awaits(state);
        self.pending.take_if(|_| is_of)
    }

    /// Tokens come from there from now on. What another authorization server gave stays with nobody.
    pub(super) fn be_at(&mut self, place: &Place) {
        let is_same = |before: &Place| before.server.issuer == place.server.issuer && before.resource == place.resource;
        if !self.place.as_ref().is_some_and(is_same) {
            (self.token, self.refresh, self.client, self.pending) = (None, None, None, None);
            self.asked = Scopes::default();
        }
        self.place = Some(place.clone());
    }

    /// What another token is got by without anybody.
    pub(super) fn refreshing(&self) -> Option<(Secret, Client)> {
        self.refresh.clone().zip(self.client.clone())
    }

    pub(super) fn forget_refresh(&mut self) {
        self.refresh = None;
    }

    pub(super) fn keep(&mut self, given: Given, client: Client, asked: Scopes) {
        let ahead = |lasts: Duration| lasts - AHEAD.min(lasts / 2);
        let until = given.lasts.map(|lasts| Instant::now() + ahead(lasts));
        self.number += 1;
        self.token = Some(Token { header: given.header, until, is_taken: false });
        self.refresh = given.refresh;
        self.asked = given.scopes.map_or_else(|| asked.clone(), |given| given.with(&asked));
        self.client = Some(client);
    }

    pub(super) fn forget(&mut self) {
        let (number, client, place) = (self.number, self.client.take(), self.place.take());
        *self = Self { number, client, place, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::authorization::{OauthConfig, discovery::ServerMetadata};

    fn place(issuer: &str) -> Place {
        let text = format!(r#"{{"issuer": "{issuer}", "token_endpoint": "{issuer}/token"}}"#);
        let server: ServerMetadata = serde_json::from_str(&text).expect("metadata");
        Place { resource: "https://mcp.example.org/mcp".to_owned(), scopes: None, server, told: None }
    }

    fn client(place: &Place) -> Client {
        let config = OauthConfig { client_id: Some("gateway".to_owned()), ..OauthConfig::default() };
        Client::known(&config, None, &place.server).expect("fits").expect("known")
    }

    fn given(lasts: u64) -> Given {
        Given {
            header: HeaderValue::from_static("Bearer token"),
            lasts: Some(Duration::from_secs(lasts)),
            refresh: Some(Secret::from("again".to_owned())),
            scopes: None,
        }
    }

    fn held(lasts: u64) -> Held {
        let (mut held, place) = (Held::default(), place("https://one.example"));
        held.be_at(&place);
        held.keep(given(lasts), client(&place), Scopes::read("read"));
        held
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_replaced_before_its_end() {
        let held = held(100);
        assert!(held.header().is_some() && !held.is_over());
        tokio::time::sleep(Duration::from_secs(100) - AHEAD).await;
        assert!(held.is_over() && held.has_refresh());
    }

    #[test]
    fn nothing_of_one_authorization_server_is_left_for_another() {
        let mut held = held(100);
        held.be_at(&place("https://one.example"));
        assert!(held.header().is_some() && held.refreshing().is_some());
        held.be_at(&place("https://two.example"));
        assert!(held.header().is_none() && held.refreshing().is_none() && held.client.is_none());
        assert!(held.asked.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_taken_is_not_asked_for_again_at_once_and_ever_later() {
        let mut held = held(100);
        assert!(!held.is_useless(0), "of another that was before");
        assert!(held.is_useless(1) && held.header().is_none() && held.rests().is_some());
        tokio::time::sleep(REST).await;
        assert!(held.rests().is_none());
        held.keep(given(100), client(&place("https://one.example")), Scopes::default());
        assert!(held.is_useless(2));
        tokio::time::sleep(REST).await;
        assert!(held.rests().is_some(), "twice as long");
        tokio::time::sleep(REST).await;
        assert!(held.rests().is_none());
        held.keep(given(100), client(&place("https://one.example")), Scopes::default());
        held.taken(3);
        assert!(!held.is_useless(3), "it was good once");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_taken_once_and_in_time() {
        let mut held = held(100);
        let pending = || {
            let place = place("https://one.example");
            let client = client(&place);
            Pending::new(
                place,
                client,
                Scopes::read("read write"),
                hidden("state"),
                String::new(),
                "https://one.example/",
            )
        };
        held.pending = Some(pending());
        assert!(held.waits_for(&Scopes::read("write")) && !held.waits_for(&Scopes::read("admin")));
        assert!(held.take_pending("another").is_none());
        assert!(held.take_pending("state").is_some() && held.take_pending("state").is_none());
        held.pending = Some(pending());
        tokio::time::sleep(PENDING).await;
        assert!(held.take_pending("state").is_none() && held.pending().is_none());
    }
}
