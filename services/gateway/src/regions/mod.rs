//! The gateways of other regions: what they have room for, and which calls go there.
//!
//! A call that goes elsewhere is made by the gateway there on behalf of whoever called here, at once or not at all: one
//! that finds no free place there is turned away and waits here. It goes no further from there.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use echotune_api::demand::RegionRoom;
use echotune_kit::{auth::Grant, config::Secret};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use crate::{
    hub::Hub,
    upstream::{Connector, HttpClient, http_client},
};

mod room;
mod shares;

pub(crate) use self::shares::Shares;

/// Other regions at the most.
const MAX_REGIONS: usize = echotune_api::demand::MAX_REGIONS;
/// Longest name of a region.
const MAX_NAME: usize = 63;
/// Calls that are at one other region at once; those beyond stay here.
const AT_ONCE: usize = 1_024;
/// For how long what a region has said of its room is believed.
const HOLDS: Duration = Duration::from_secs(15);
/// Looks in a row that fail until a region is taken to be away.
const AWAY: u32 = 3;
/// The round trip is the shortest of so many looks: what took longer waited for something else.
const TRIPS: usize = 16;

/// Set on what the gateway of another region has sent here, which is sent no further and waits for nothing. It says
/// whether it may be made [`AGAIN`]. It counts where a part of the platform names who calls, and nowhere else.
const SPILLED: HeaderName = HeaderName::from_static("echotune-spilled");
const AGAIN: &str = "again";
const ONCE: &str = "once";
/// Set beside it: what the token of whoever called was issued for, parted by blanks; absent where that opens all.
const SCOPES: HeaderName = HeaderName::from_static("echotune-scopes");

/// The gateways of other regions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegionsConfig {
    /// The name of this region.
    pub here: String,
    /// The others; none where all calls stay here.
    pub others: Vec<RegionConfig>,
    /// Whether calls of a server go to another region when it cannot be had here, also where nobody gives that a share.
    pub failover: bool,
}

/// The gateway of another region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionConfig {
    /// Its name, as the operator has it.
    pub name: String,
    /// Where it is, such as `https://mcp.eu.example.org:7443`: a server is at `/servers/NAME/mcp` below.
    pub url: String,
    /// The `authorization` header by which it knows a part of the platform.
    pub authorization: Secret,
}

impl RegionsConfig {
    /// What is wrong, in sentences.
    pub(crate) fn check(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.others.len() > MAX_REGIONS {
            faults.push(format!("there are {} other regions, and {MAX_REGIONS} are taken", self.others.len()));
        }
        if !self.others.is_empty() && !is_name(&self.here) {
            faults.push("the name of this region is needed where there are others (operator.region)".to_owned());
        }
        for (at, region) in self.others.iter().enumerate() {
            let mut wrong = |why: &str| faults.push(format!("region '{}': {why}", region.name.escape_debug()));
            if !is_name(&region.name) {
                wrong("a name is 1 to 63 letters, digits and hyphens");
            }
            if region.name == self.here || self.others[..at].iter().any(|other| other.name == region.name) {
                wrong("the name comes twice, or is that of this region");
            }
            if address(&region.url, "/").is_none() {
                wrong(&format!("'{}' is not http[s]://HOST[:PORT]", region.url.escape_debug()));
            }
            if header(&region.authorization).is_none() {
                wrong("has no authorization by which the gateway is known there");
            }
        }
        faults
    }
}

fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(fits)
}

/// The header that shows a secret; `None` of one that fits in none.
pub(crate) fn header(secret: &Secret) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(secret.reveal()?).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// What is at a path of a gateway.
pub(crate) fn address(url: &str, path: &str) -> Option<Uri> {
    let uri: Uri = format!("{}{path}", url.trim_end_matches('/')).parse().ok()?;
    let right = matches!(uri.scheme_str(), Some("http" | "https")) && uri.query().is_none();
    let has_host = uri.host().is_some_and(|host| !host.is_empty());
    Some(uri).filter(|_| right && has_host)
}

/// What a gateway tells others of its room: calls that servers could take on at once, those that can none left out.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Room {
    pub(crate) servers: BTreeMap<String, u32>,
}

/// The other regions.
pub(crate) struct Regions {
    others: Vec<Arc<Region>>,
    failover: bool,
}

/// Another region.
pub(crate) struct Region {
    pub(crate) name: String,
    url: String,
    /// Of this region, as it is told there.
    here: HeaderValue,
    authorization: Option<HeaderValue>,
    pub(crate) client: HttpClient,
    places: Arc<Semaphore>,
    seen: Mutex<Seen>,
}

/// What is seen of another region.
#[derive(Debug, Default)]
struct Seen {
    room: Option<(Instant, Room)>,
    trips: VecDeque<Duration>,
    missed: u32,
}

/// What another region is told of a call beside it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark<'a> {
    /// Whether it may be made again.
    pub(crate) may_repeat: bool,
    /// What the token of whoever called was issued for, unless it opens all.
    pub(crate) scopes: Option<&'a HeaderValue>,
}

/// The scopes of a token, as another region is told of them. Those that fit in no header are left out: it is bound to
/// the fewer there, and the rules here have judged by all.
pub(crate) fn scopes_of(grant: &Grant) -> HeaderValue {
    let fits = |scope: &&str| !scope.is_empty() && scope.bytes().all(|byte| byte.is_ascii_graphic());
    let scopes: Vec<_> = grant.scopes.iter().map(String::as_str).filter(fits).collect();
    HeaderValue::from_str(&scopes.join(" ")).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// The region where a call is made, with its place among those that are there.
pub(crate) struct Away {
    pub(crate) region: Arc<Region>,
    _place: OwnedSemaphorePermit,
}

impl Regions {
    /// Those of a configuration that was looked through.
    pub(crate) fn new(config: &RegionsConfig, connector: &Connector) -> Self {
        let here = HeaderValue::from_str(&config.here).unwrap_or_else(|_| HeaderValue::from_static("unknown"));
        let region = |other: &RegionConfig| {
            Arc::new(Region {
                name: other.name.clone(),
                url: other.url.trim_end_matches('/').to_owned(),
                here: here.clone(),
                authorization: header(&other.authorization),
                client: http_client(connector.clone()),
                places: Arc::new(Semaphore::new(AT_ONCE)),
                seen: Mutex::default(),
            })
        };
        Self { others: config.others.iter().map(region).collect(), failover: config.failover }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.others.is_empty()
    }

    /// The region of a name, unless nothing of a server is to be had there, as far as is known.
    pub(crate) fn named(&self, name: &str, server: &str) -> Option<Arc<Region>> {
        let region = self.others.iter().find(|region| region.name == name)?;
        let may_have = region.room(server) != Some(0) && !region.is_away();
        may_have.then(|| Arc::clone(region))
    }

    /// The nearest region that has said lately that it has room, for calls of a server that cannot be had here.
    pub(crate) fn nearest(&self, server: &str) -> Option<Arc<Region>> {
        let having = self.others.iter().filter(|region| region.room(server).is_some_and(|room| room > 0));
        let nearest = having.filter(|region| !region.is_away()).min_by_key(|region| region.round_trip());
        nearest.filter(|_| self.failover).cloned()
    }

    /// What the operator is told of them.
    pub(crate) fn rooms(&self, server: &str) -> Vec<RegionRoom> {
        let room = |region: &Arc<Region>| {
            let trip = u64::try_from(region.round_trip()?.as_millis()).unwrap_or(u64::MAX);
            let (region, spare_calls) = (region.name.clone(), region.room(server)?);
            Some(RegionRoom { region, spare_calls, round_trip_ms: trip.max(1) })
        };
        self.others.iter().filter_map(room).collect()
    }
}

impl Region {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls of a server that could be taken on there, as it has said lately.
    fn room(&self, server: &str) -> Option<u32> {
        let seen = self.seen();
        let (_, room) = seen.room.as_ref().filter(|(at, _)| at.elapsed() <= HOLDS)?;
        Some(room.servers.get(server).copied().unwrap_or(0))
    }

    fn is_away(&self) -> bool {
        self.seen().missed >= AWAY
    }

    fn round_trip(&self) -> Option<Duration> {
        self.seen().trips.iter().min().copied()
    }

    /// It has told of its room.
    fn heard(&self, room: Room, trip: Duration) {
        let mut seen = self.seen();
        if seen.missed >= AWAY {
            tracing::info!(region = self.name, "the gateway of another region is there again");
        }
        seen.missed = 0;
        seen.room = Some((Instant::now(), room));
        seen.trips.push_back(trip);
        if seen.trips.len() > TRIPS {
            seen.trips.pop_front();
        }
    }

    /// It has not.
    fn missed(&self, why: &str) {
        let mut seen = self.seen();
        seen.missed = seen.missed.saturating_add(1);
        if seen.missed == AWAY {
            tracing::warn!(region = self.name, why, "another region's gateway cannot be asked; no call goes there");
        }
    }

    /// Where a server is there.
    fn server(&self, server: &str) -> String {
        format!("{}/servers/{server}/mcp", self.url)
    }

    pub(crate) fn authorization(&self) -> Option<HeaderValue> {
        self.authorization.clone()
    }

    /// Marks a request as one of another region's.
    pub(crate) fn mark(&self, headers: &mut HeaderMap, mark: Mark<'_>) {
        headers.insert(SPILLED, HeaderValue::from_static(if mark.may_repeat { AGAIN } else { ONCE }));
        if let Some(scopes) = mark.scopes {
            headers.insert(SCOPES, scopes.clone());
        }
        headers.insert(HeaderName::from_static(echotune_kit::auth::FORWARDED_BY), self.here.clone());
    }
}

impl Away {
    /// A place among those that are at a region, if one is free.
    pub(crate) fn to(region: Arc<Region>) -> Option<Self> {
        let place = Arc::clone(&region.places).try_acquire_owned().ok()?;
        Some(Self { region, _place: place })
    }
}

/// What another region has sent, as its headers say once it is known who sends them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Guest {
    /// Whether it may be made again, as far as the region knows that it is from.
    pub(crate) may_repeat: bool,
}

impl Guest {
    /// Nobody but a part of the platform names another, and others are refused that do: so the mark is its own. Anybody
    /// else's means nothing.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let mark = headers.get(SPILLED).filter(|_| headers.contains_key(echotune_kit::auth::ON_BEHALF_OF))?;
        Some(Self { may_repeat: mark.as_bytes() == AGAIN.as_bytes() })
    }

    /// What the token was issued for that the caller has shown there; `None` of one that opens all. Nothing is left of
    /// what cannot be read.
    pub(crate) fn grant(headers: &HeaderMap) -> Option<Grant> {
        let told = headers.get(SCOPES)?.to_str().unwrap_or_default();
        let scopes = told.split(' ').filter(|scope| !scope.is_empty()).map(str::to_owned).collect();
        Some(Grant { scopes, audiences: Vec::new() })
    }
}

impl Hub {
    /// What could be taken on here for other regions; nothing on the way down.
    pub(crate) fn room(&self) -> Room {
        if self.stop.is_cancelled() {
            return Room::default();
        }
        let all = self.servers.all();
        let room = all.iter().filter_map(|server| {
            let spare = u32::try_from(server.spare()).unwrap_or(u32::MAX);
            (spare > 0).then(|| (server.config.name.clone(), spare))
        });
        Room { servers: room.take(echotune_api::demand::MAX_SERVERS).collect() }
    }

    /// Asks other regions for their room, until the stop.
    pub(crate) fn follow_regions(self: &Arc<Self>) {
        for region in &self.regions.others {
            let (hub, region) = (Arc::clone(self), Arc::clone(region));
            self.tasks.spawn(async move {
                let _stopped = hub.stop.run_until_cancelled(room::follow(&hub, &region)).await;
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(others: &[(&str, &str)]) -> RegionsConfig {
        let other = |(name, url): &(&str, &str)| RegionConfig {
            name: (*name).to_owned(),
            url: (*url).to_owned(),
            authorization: "Bearer secret".to_owned().into(),
        };
        RegionsConfig { here: "us".to_owned(), others: others.iter().map(other).collect(), failover: true }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_region_and_no_secret() {
        let right = config(&[("eu", "https://mcp.eu.example.org:7443"), ("ap", "http://127.0.0.1:1/")]);
        assert_eq!(right.check(), [""; 0]);
        let wrong = config(&[("us", "http://a:1"), ("e u", "ftp://a"), ("eu", "http://b"), ("eu", "nowhere")]);
        let told = wrong.check().join("\n");
        let twice = ["'us': the name comes twice", "'eu': the name comes twice"];
        for why in [twice[0], twice[1], "'e u': a name is", "'ftp://a' is not"] {
            assert!(told.contains(why), "{why} is not in {told}");
        }
        let unnamed = RegionsConfig { here: String::new(), ..config(&[("eu", "http://b")]) };
        assert!(unnamed.check().join("").contains("operator.region"));
        assert!(!format!("{wrong:?}").contains("secret"));
    }

    #[tokio::test(start_paused = true)]
    async fn room_is_believed_for_a_while_and_a_region_that_says_nothing_is_left_alone() {
        let connector = Connector::new(None).expect("made");
        let regions = Regions::new(&config(&[("eu", "http://a:1"), ("ap", "http://b:1")]), &connector);
        let named = |name: &str| regions.named(name, "a").is_some();
        assert!(named("eu") && !named("moon"), "nothing is known of it yet");
        assert!(regions.nearest("a").is_none() && regions.rooms("a").is_empty());
        let ms = Duration::from_millis;
        let room = |spare: u32| Room { servers: [("a".to_owned(), spare)].into() };
        let [eu, ap] = [&regions.others[0], &regions.others[1]];
        ap.heard(room(7), ms(200));
        eu.heard(room(3), ms(90));
        eu.heard(room(4), ms(80));
        assert_eq!(regions.nearest("a").map(|region| region.name.clone()), Some("eu".to_owned()));
        let told: Vec<_> =
            regions.rooms("a").into_iter().map(|one| (one.region, one.spare_calls, one.round_trip_ms)).collect();
        assert_eq!(told, [("eu".to_owned(), 4, 80), ("ap".to_owned(), 7, 200)]);
        assert!(regions.named("eu", "b").is_none(), "it did not name that one");
        eu.heard(Room::default(), ms(80));
        assert!(!named("eu"));
        assert_eq!(regions.nearest("a").map(|region| region.name.clone()), Some("ap".to_owned()));
        tokio::time::advance(HOLDS + ms(1)).await;
        assert!(regions.nearest("a").is_none() && named("eu") && named("ap"), "what they have is not known any more");
        (0..AWAY).for_each(|_| eu.missed("gone"));
        assert!(!named("eu") && named("ap"));
        eu.heard(room(1), ms(80));
        assert!(named("eu"));
    }

    #[test]
    fn the_mark_of_another_region_counts_where_the_platform_names_who_calls() {
        let mut headers = HeaderMap::new();
        headers.insert(SPILLED, HeaderValue::from_static(AGAIN));
        assert_eq!(Guest::of(&headers), None);
        headers.insert(echotune_kit::auth::ON_BEHALF_OF, HeaderValue::from_static("operator"));
        assert_eq!(Guest::of(&headers), Some(Guest { may_repeat: true }));
        headers.insert(SPILLED, HeaderValue::from_static("whatever"));
        assert_eq!(Guest::of(&headers), Some(Guest { may_repeat: false }));
    }

    #[test]
    fn scopes_arrive_as_they_were_shown_or_not_at_all() {
        let there = |scopes: &[&str]| {
            let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
            let told = scopes_of(&Grant { scopes, audiences: vec!["here".to_owned()] });
            Guest::grant(&HeaderMap::from_iter([(SCOPES, told)])).expect("bound").scopes
        };
        assert_eq!(there(&["files:read", "mail"]), ["files:read", "mail"]);
        assert_eq!(there(&["two words", "\u{e9}t\u{e9}", "", "mail"]), ["mail"]);
        assert_eq!(there(&[]), [""; 0]);
        assert_eq!(Guest::grant(&HeaderMap::new()), None, "one that opens all");
    }
}
