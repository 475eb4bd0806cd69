//! The gateway as a client of OAuth 2.1: it gets the tokens that servers want to be shown (both revisions,
//! "Authorization"), and shows each to the one server that it is for.
//!
//! Where tokens come from is `discovery`, where the gateway goes for that `guard`; who it is there `client`; what it
//! asks for `scopes` and `grant`; what there is `held`. Here they are got anew, once for all who wait. Nothing of it
//! outlives the process.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{HeaderMap, HeaderValue, StatusCode, header::LOCATION};
use tokio::{
    sync::{Mutex as AsyncMutex, OwnedMutexGuard},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use url::Url;

mod challenge;
mod client;
mod config;
mod discovery;
mod grant;
mod guard;
mod held;
mod scopes;
mod web;

pub use self::config::{OauthConfig, OauthGrant};
use self::{
    challenge::Challenge,
    client::{Client, Signer},
    discovery::{Place, Search},
    grant::{Endpoint, Given, Request, hidden, unguessable},
    guard::Guard,
    held::{Held, Pending},
    scopes::{Choice, Scopes},
    web::Web,
};
pub(crate) use self::{config::CALLBACK, grant::Brought};
use super::{Failed, http_link::HttpClient};

/// How long getting a token may take, with all that belongs to it.
const WHOLE: Duration = Duration::from_secs(30);

/// Why there is no token.
#[derive(Debug)]
enum Wrong {
    /// Somebody has to open an address before.
    Waits,
    /// What is presented is over: a refresh token, or a code.
    Spent(String),
    /// The authorization server does not know the gateway, or does not any more.
    Unknown(String),
    /// Somebody does not answer; later they may.
    Unreachable(String),
    Refused(String),
}

impl Wrong {
    fn why(self) -> String {
        match self {
            Self::Waits => "an operator has to let the gateway in there before".to_owned(),
            Self::Spent(why) | Self::Unknown(why) | Self::Unreachable(why) | Self::Refused(why) => why,
        }
    }
}

/// What a request is sent with.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    pub(crate) header: Option<HeaderValue>,
    /// Which of the tokens that there have been.
    number: u64,
    /// Whether its time is over and another can be had without anybody.
    is_over: bool,
}

/// Why another token is wanted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    challenge: Option<Challenge>,
    /// Whether the token is good, and is for too little.
    is_more: bool,
}

/// How it stands with a server's token, for who looks after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    Held,
    /// The address to open.
    Waits(String),
    Absent(String),
}

/// The tokens of one server.
pub(crate) struct Tokens {
    name: String,
    url: Url,
    config: OauthConfig,
    signer: Option<Signer>,
    guard: Guard,
    web: Web,
    held: Mutex<Held>,
    /// Held by who gets one.
    getting: Arc<AsyncMutex<()>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens({})", self.name)
    }
}

impl Tokens {
    /// None yet, for a server at an address; nothing where that is none.
    pub(crate) fn new(
        name: &str,
        url: &str,
        config: &OauthConfig,
        client: HttpClient,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Option<Arc<Self>> {
        let url = Url::parse(url).ok()?;
        Some(Arc::new(Self {
            name: name.to_owned(),
            guard: Guard::new(&url, config.issuer()),
            url,
            signer: config.signer(),
            config: config.clone(),
            web: Web(client),
            held: Mutex::default(),
            getting: Arc::default(),
            tasks: tasks.clone(),
            stop: stop.clone(),
        }))
    }

    fn with<T>(&self, work: impl FnOnce(&mut Held) -> T) -> T {
        work(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn shown(&self) -> Shown {
        let is_own = self.config.grant == OauthGrant::ClientCredentials;
        self.with(|held| Shown {
            header: held.header(),
            number: held.number,
            is_over: held.is_over() && (is_own || held.has_refresh()),
        })
    }

    /// What a request is sent with now: another token where the time of the one before is over.
    pub(crate) async fn current(self: &Arc<Self>) -> Shown {
        let shown = self.shown();
        if !shown.is_over {
            return shown;
        }
        // Where none can be had the server says what it thinks of the old one.
        self.renew(&shown, Wanted::default()).await.unwrap_or(shown)
    }

    /// What an answer says of the token that it was asked with: why another is wanted, if one is. `None` too where
    /// another would be of no more use.
    pub(crate) fn judge(&self, shown: &Shown, status: StatusCode, headers: &HeaderMap) -> Option<Wanted> {
        match status {
            StatusCode::UNAUTHORIZED => {
                let challenge = Some(Challenge::read(headers));
                // A token that was never taken would be followed by others without end.
                let is_useless = shown.header.is_some() && self.with(|held| held.is_useless(shown.number));
                (!is_useless).then_some(Wanted { challenge, is_more: false })
            }
            StatusCode::FORBIDDEN if shown.header.is_some() => {
                let challenge = Challenge::read(headers);
                if !challenge.wants_more() {
                    return None;
                }
                // What was asked for in vain is not given the next time.
                let is_asked = self.with(|held| {
                    held.taken(shown.number);
                    held.asked.has(&challenge.scopes)
                });
                (!is_asked).then_some(Wanted { challenge: Some(challenge), is_more: true })
            }
            status if status.is_server_error() => None,
            _ => {
                if shown.header.is_some() {
                    self.with(|held| held.taken(shown.number));
                }
                None
            }
        }
    }

    /// Gets another token than the one that was shown, once for all who want one.
    pub(crate) async fn renew(self: &Arc<Self>, shown: &Shown, wanted: Wanted) -> Result<Shown, Failed> {
        let one = Arc::clone(&self.getting).lock_owned().await;
        let now = self.shown();
        if now.number != shown.number && now.header.is_some() {
            return Ok(now);
        }
        if let Some(why) = self.with(|held| held.rests()) {
            return Err(Failed::Unauthorized(why));
        }
        let tokens = Arc::clone(self);
        // To its end, also when nobody waits any more: a refresh token that was shown may be good for nothing else.
        let got = self.alone(one, async move { tokens.get(&wanted).await }).await;
        got.map(|()| self.shown()).map_err(Failed::Unauthorized)
    }

    /// Does something beside whoever waits for it, while nobody else gets a token.
    async fn alone(
        self: &Arc<Self>,
        one: OwnedMutexGuard<()>,
        work: impl Future<Output = Result<(), Wrong>> + Send + 'static,
    ) -> Result<(), String> {
        let tokens = Arc::clone(self);
        let working = self.tasks.spawn(async move {
            let _one = one;
            let worked = tokens.stop.run_until_cancelled(timeout(WHOLE, work)).await;
            let late = |_| Err(Wrong::Unreachable("getting a token took too long".to_owned()));
            match worked.map(|worked| worked.unwrap_or_else(late)) {
                Some(Ok(())) => Ok(()),
                Some(Err(wrong)) => Err(tokens.failed(wrong)),
                None => Err("the gateway is stopping".to_owned()),
            }
        });
        working.await.unwrap_or_else(|_| Err("no token was got".to_owned()))
    }

    /// Takes note that none could be had, and says so.
    fn failed(&self, wrong: Wrong) -> String {
        let (is_waiting, is_unknown) = (matches!(wrong, Wrong::Waits), matches!(wrong, Wrong::Unknown(_)));
        let why = format!("there is no token for it: {}", wrong.why());
        if !is_waiting {
            tracing::warn!(server = self.name, why, "there is no token for an MCP server");
            self.with(|held| held.fail(&why, is_unknown));
        }
        why
    }

    async fn get(&self, wanted: &Wanted) -> Result<(), Wrong> {
        let challenged = wanted.challenge.as_ref().map(|challenge| challenge.scopes.clone()).unwrap_or_default();
        if self.with(|held| held.waits_for(&challenged) && (wanted.is_more || !held.has_refresh())) {
            return Err(Wrong::Waits);
        }
        let place = self.find(wanted).await?;
        self.with(|held| held.be_at(&place));
        if !wanted.is_more && self.refresh(&place).await? {
            return Ok(());
        }
        let is_code = self.config.grant == OauthGrant::AuthorizationCode;
        let before = self.with(|held| held.asked.clone());
        let choice = Choice {
            challenged,
            configured: &self.config.scopes,
            of_resource: place.scopes.as_deref(),
            of_server: place.server.scopes_supported.as_deref(),
            before: before.clone(),
            refreshes: is_code,
        };
        let scopes = choice.choose();
        if wanted.is_more && scopes == before {
            return Err(Wrong::Refused("it wants a token that is for more than can be asked for".to_owned()));
        }
        let client = self.client(&place).await?;
        if is_code {
            self.ask_somebody(place, client, scopes).await
        } else {
            self.ask_for_itself(&place, client, scopes).await
        }
    }

    /// Where tokens come from now, which may be elsewhere than before.
    async fn find(&self, wanted: &Wanted) -> Result<Place, Wrong> {
        let told = wanted.challenge.as_ref().map(|challenge| challenge.metadata.clone());
        let (told, before) = self.with(|held| {
            let known = held.place.as_ref();
            let told = told.unwrap_or_else(|| known.and_then(|place| place.told.clone()));
            (told, known.map(|place| place.server.issuer.clone()))
        });
        let (configured, before) = (self.config.issuer(), before.as_deref());
        Search { web: &self.web, guard: &self.guard, server: &self.url, told, configured, before }.find().await
    }

    fn endpoint<'a>(&'a self, place: &'a Place, client: &'a Client) -> Endpoint<'a> {
        Endpoint { web: &self.web, guard: &self.guard, place, client, signer: self.signer.as_ref() }
    }

    /// Gets another token by what came with the one before; whether there was such.
    async fn refresh(&self, place: &Place) -> Result<bool, Wrong> {
        let Some((refresh, client)) = self.with(|held| held.refreshing()) else { return Ok(false) };
        let token = refresh.reveal().unwrap_or_default();
        let none = Scopes::default();
        let given = self.endpoint(place, &client).token("refresh_token", &[("refresh_token", token)], &none).await;
        match given {
            Ok(mut given) => {
                // One that is not replaced goes on.
                given.refresh.get_or_insert(refresh);
                let asked = self.with(|held| held.asked.clone());
                self.keep(given, client, asked);
                Ok(true)
            }
            Err(Wrong::Spent(_)) => {
                self.with(Held::forget_refresh);
                Ok(false)
            }
            Err(wrong) => Err(wrong),
        }
    }

    /// What the gateway is to an authorization server; it is registered there where it has to be.
    async fn client(&self, place: &Place) -> Result<Client, Wrong> {
        if let Some(client) = Client::known(&self.config, self.signer.as_ref(), &place.server)? {
            return Ok(client);
        }
        if let Some(client) = self.with(|held| held.client.clone()).filter(|client| client.is_registered) {
            return Ok(client);
        }
        let Some(endpoint) = &place.server.registration_endpoint else {
            let why =
                "the authorization server knows no way to register the gateway; set oauth.client_id and oauth.issuer";
            return Err(Wrong::Refused(why.to_owned()));
        };
        let url = self.guard.check(endpoint).map_err(Wrong::Refused)?;
        let client = Client::register(&self.config, &place.server, &self.web, &url).await?;
        self.with(|held| held.client = Some(client.clone()));
        Ok(client)
    }

    async fn ask_for_itself(&self, place: &Place, client: Client, scopes: Scopes) -> Result<(), Wrong> {
        let given = self.endpoint(place, &client).token("client_credentials", &[], &scopes).await?;
        self.keep(given, client, scopes);
        Ok(())
    }

    /// Asks for somebody's leave: has them sent to the authorization server.
    async fn ask_somebody(&self, place: Place, client: Client, scopes: Scopes) -> Result<(), Wrong> {
        let (state, verifier) = (unguessable(), unguessable());
        let request = Request {
            place: &place,
            client: &client,
            scopes: &scopes,
            redirect: self.config.redirect_url(),
            state: &state,
            verifier: &verifier,
        };
        let url = request.url(&self.guard)?;
        let pending = Pending::new(place, client, scopes, hidden(&state), verifier, url.as_str());
        if !self.config.follow_redirect {
            self.with(|held| held.pending = Some(pending));
            tracing::info!(server = self.name, "an operator has to let the gateway in at an authorization server");
            return Err(Wrong::Waits);
        }
        let brought = self.follow(&url).await?;
        if !brought.state.as_deref().is_some_and(|state| pending.is_of(state)) {
            return Err(Wrong::Refused("what was brought was not asked for".to_owned()));
        }
        self.redeem(pending, &brought).await
    }

    /// Goes to an authorization server that asks nobody, as far as it sends back here at once.
    async fn follow(&self, url: &Url) -> Result<Brought, Wrong> {
        let answer = self.web.get(url).await?;
        let location = answer.headers.get(LOCATION).and_then(|value| value.to_str().ok());
        let to = location.filter(|_| answer.status.is_redirection()).and_then(|location| url.join(location).ok());
        let back = Url::parse(self.config.redirect_url()).ok();
        let is_here = |to: &Url| back.is_some_and(|back| to.origin() == back.origin() && to.path() == back.path());
        let to = to.filter(is_here);
        let brought = to.and_then(|to| Brought::read(to.query().unwrap_or_default()));
        brought.ok_or_else(|| Wrong::Refused("the authorization server does not send back at once".to_owned()))
    }

    /// Turns what somebody has brought into a token.
    async fn redeem(&self, pending: Pending, brought: &Brought) -> Result<(), Wrong> {
        let Pending { place, client, scopes, verifier, .. } = pending;
        let code = brought.code(&place)?;
        let of = [("code", code), ("redirect_uri", self.config.redirect_url()), ("code_verifier", verifier.as_str())];
        let endpoint = self.endpoint(&place, &client);
        let given = endpoint.token("authorization_code", &of, &Scopes::default()).await?;
        self.with(|held| held.be_at(&place));
        self.keep(given, client, scopes);
        Ok(())
    }

    fn keep(&self, given: Given, client: Client, asked: Scopes) {
        self.with(|held| held.keep(given, client, asked));
        tracing::info!(server = self.name, "the gateway has got a token for an MCP server");
    }

    /// Takes what somebody brings from an authorization server, if it is for this server; what came of it.
    pub(crate) async fn take(self: &Arc<Self>, brought: Arc<Brought>) -> Option<Result<(), String>> {
        let state = brought.state.as_deref()?;
        if !self.with(|held| held.awaits(state)) {
            return None;
        }
        let one = Arc::clone(&self.getting).lock_owned().await;
        // Until then nobody asks for the same again. It may have been forgotten meanwhile, or brought by another.
        let pending = self.with(|held| held.take_pending(state))?;
        let tokens = Arc::clone(self);
        Some(self.alone(one, async move { tokens.redeem(pending, &brought).await }).await)
    }

    /// The address that somebody has to open, where the gateway waits for that.
    pub(crate) fn waits_for(&self) -> Option<String> {
        self.with(|held| held.pending().map(|pending| pending.url.clone()))
    }

    /// How it stands; the way to a token is begun where there is none.
    pub(crate) async fn standing(self: &Arc<Self>) -> Standing {
        let shown = self.shown();
        if shown.header.is_none() && self.waits_for().is_none() {
            // How it ended is seen below.
            if let Err(failed) = self.renew(&shown, Wanted::default()).await
                && self.waits_for().is_none()
            {
                return Standing::Absent(failed.why());
            }
        }
        self.waits_for().map_or(Standing::Held, Standing::Waits)
    }

    /// Forgets what there is, and what is just being got: the next who needs a token has one got anew.
    pub(crate) async fn forget(&self) {
        let _one = self.getting.lock().await;
        self.with(Held::forget);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::{discovery::ServerMetadata, *};
    use crate::upstream::{Connector, http_client};

    #[tokio::test]
    async fn what_is_got_or_brought_meanwhile_is_forgotten_too() {
        let config = OauthConfig { client_id: Some("gateway".to_owned()), ..OauthConfig::default() };
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let http = http_client(Connector::new(None).expect("usable"));
        let tokens = Tokens::new("a", "https://mcp.example.org/mcp", &config, http, &tasks, &stop).expect("an address");
        let metadata = r#"{"issuer": "https://a.example", "token_endpoint": "https://a.example/token"}"#;
        let server: ServerMetadata = serde_json::from_str(metadata).expect("metadata");
        let client = Client::known(&config, None, &server).expect("fits").expect("known");
        let place = Place { resource: "https://mcp.example.org/mcp".to_owned(), scopes: None, server, told: None };
        let url = "https://a.example/";
        let pending = Pending::new(place, client.clone(), Scopes::default(), hidden("state"), String::new(), url);
        tokens.with(|held| held.pending = Some(pending));
        let getting = Arc::clone(&tokens.getting).lock_owned().await;
        let mut forgetting = pin!(tokens.forget());
        assert!(futures::poll!(forgetting.as_mut()).is_pending());
        let brought = Arc::new(Brought::read("state=state&code=code").expect("read"));
        let mut taking = pin!(tokens.take(brought));
        assert!(futures::poll!(taking.as_mut()).is_pending());
        let header = HeaderValue::from_static("Bearer token");
        tokens.keep(Given { header, lasts: None, refresh: None, scopes: None }, client, Scopes::default());
        drop(getting);
        forgetting.await;
        assert!(tokens.shown().header.is_none() && tokens.waits_for().is_none());
        assert!(taking.await.is_none(), "it was forgotten before");
    }
}
