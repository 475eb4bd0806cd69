//! What servers ask of the client in the course of its request, in each pair of eras.
//!
//! | client | server | what happens |
//! |---|---|---|
//! | before 2026-07-28 | the same | a request on the client's stream; its answer goes to the server |
//! | 2026-07-28 | before | its request is answered with `input_required` and waits here; its repeat brings answers |
//! | before 2026-07-28 | 2026-07-28 | requests on the client's stream; the server is asked again with the answers |
//! | 2026-07-28 | the same | passes as it is |

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    conversation::{Broken, Conversation},
    live::{Control, Live},
};
use crate::{
    caller::{Digest, digest},
    hub::Parked,
    message::{Id, Json, Object, Outcome, request},
    refusal::{METHOD_NOT_FOUND, Refusal},
    token::{Purpose, Writer},
    upstream::Exchange,
};

/// For how long more is gathered after the first thing that a client of 2026-07-28 is asked.
const GATHER: Duration = Duration::from_millis(5);
/// Rounds of one request at the most: a server that is never content would keep its client for ever.
const ROUNDS: u32 = 16;
/// Things that a client is asked at once.
const AT_ONCE: usize = 32;
/// The number of an answer to no question.
const NOTHING: u64 = 0;

/// Something that the client is asked.
struct Open {
    /// Where its answer goes: the server's own id, or the name that it gave it in its result.
    to: To,
    /// By which it is known to a client of 2026-07-28.
    key: String,
    /// By which it is known in the session of one of before.
    number: u64,
    method: String,
    params: Option<Json>,
}

enum To {
    Server(Id),
    Result(String),
}

/// What is open between a server and a client.
pub(crate) struct Asks {
    me: mpsc::Sender<Control>,
    /// What the request is, so that its state is of no use to another.
    pub(super) about: Digest,
    /// Of the gateway.
    pub(super) scope: String,
    open: Vec<Open>,
    /// Answers that came before their questions: of a request that begins anew elsewhere.
    given: BTreeMap<String, Json>,
    /// Those for a server of 2026-07-28.
    results: Object,
    gather: Option<Instant>,
    parked: Option<(Instant, Duration)>,
    /// By which its client finds it when it is back.
    _waits: Option<Parked>,
    /// Since when a client of before 2026-07-28 is asked: that time is not the server's.
    since: Option<Instant>,
    rounds: u32,
    wait: Duration,
}

impl Asks {
    pub(crate) fn new(me: mpsc::Sender<Control>, about: Digest, scope: &str, wait: Duration) -> Self {
        Self {
            me,
            about,
            scope: scope.to_owned(),
            open: Vec::new(),
            given: BTreeMap::new(),
            results: Object::default(),
            gather: None,
            parked: None,
            _waits: None,
            since: None,
            rounds: 0,
            wait,
        }
    }

    /// Takes answers of a request that begins anew.
    pub(crate) fn give(&mut self, given: BTreeMap<String, Json>) {
        self.given = given;
    }

    /// A new attempt begins: what was asked in one before is asked no more, and its answers are nobody's.
    pub(super) fn begin(&mut self, live: Option<&Live>) {
        self.open.retain(|open| {
            let stays = matches!(open.to, To::Result(_));
            if let (false, Some(live)) = (stays, live) {
                live.not_asked(open.number);
            }
            stays
        });
    }

    /// When something has to be done though nobody says anything.
    pub(super) fn until(&self, deadline: Instant) -> Instant {
        match (self.parked, self.gather) {
            (Some((until, _)), _) => until,
            (None, Some(gather)) => gather,
            // People take their time.
            (None, None) if !self.open.is_empty() => deadline + self.wait,
            (None, None) => deadline,
        }
    }

    pub(super) const fn must_park(&self) -> bool {
        self.gather.is_some() && self.parked.is_none()
    }

    pub(super) fn forget(&self, live: &Live) {
        self.open.iter().for_each(|open| live.not_asked(open.number));
    }

    /// Bytes of what is asked and not answered yet.
    fn bytes(&self) -> usize {
        self.open.iter().filter_map(|open| open.params.as_ref()).map(|params| params.bytes().len()).sum()
    }

    /// A name for what is asked, the same when it is asked again.
    fn key(&self, method: &str, params: Option<&Json>) -> String {
        let digest = digest(&[method.as_bytes(), params.map_or(&b""[..], Json::bytes)]);
        let base: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let same = self.open.iter().filter(|open| open.key.starts_with(&base)).count();
        if same == 0 { base } else { format!("{base}-{same}") }
    }
}

impl Conversation {
    /// A server of before 2026-07-28 asks.
    pub(super) async fn asked(
        &mut self,
        exchange: &Exchange,
        id: Id,
        method: String,
        params: Option<Json>,
    ) -> Result<(), Broken> {
        if method == "ping" {
            return Ok(exchange.answer(&id, &Outcome::result(&json!({}))).await?);
        }
        let lacks = self.ask.abilities.lacks(&method, params.as_ref()).is_some();
        let bytes = self.asks.bytes() + params.as_ref().map_or(0, |params| params.bytes().len());
        if lacks || self.asks.open.len() >= AT_ONCE || bytes > self.hub.limits.stream_bytes {
            let why = if lacks { "the client does not do this" } else { "too much is asked at once" };
            return Ok(exchange.answer(&id, &Outcome::error(METHOD_NOT_FOUND, why)).await?);
        }
        let key = self.asks.key(&method, params.as_ref());
        if let Some(given) = self.asks.given.remove(&key) {
            return Ok(exchange.answer(&id, &Outcome::Result(given)).await?);
        }
        let open = Open { to: To::Server(id), key, number: 0, method, params };
        if self.client.revision.is_modern() {
            self.asks.open.push(open);
            if self.client.stream.is_some() {
                self.asks.gather.get_or_insert_with(|| Instant::now() + GATHER);
            }
            return Ok(());
        }
        self.ask_client(open)
    }

    /// A server of 2026-07-28 asks a client of before.
    pub(super) fn ask_all(&mut self, required: &Object) -> Result<(), Broken> {
        self.asks.rounds += 1;
        let requests = required.object("inputRequests").unwrap_or_default();
        let count = requests.iter().count();
        if self.asks.rounds > ROUNDS || count > AT_ONCE {
            let why = format!("server '{}' asks without end", self.server.config.name);
            return Err(Broken::Refused(Refusal::broken(why)));
        }
        self.asks.results = Object::default();
        // Those of the round before were answers to other questions.
        drop(self.ask.params.remove("inputResponses"));
        match required.get("requestState") {
            Some(state) => self.ask.params.set("requestState", state.clone()),
            None => drop(self.ask.params.remove("requestState")),
        }
        for (key, asked) in requests.iter() {
            let asked = Object::read(asked).unwrap_or_default();
            let (method, params) = (asked.text("method").unwrap_or_default(), asked.get("params").cloned());
            if let Some(needed) = self.ask.abilities.lacks(&method, params.as_ref()) {
                return Err(Broken::Refused(Refusal::capability(&needed)));
            }
            let to = To::Result(key.to_owned());
            self.ask_client(Open { to, key: key.to_owned(), number: 0, method, params })?;
        }
        if count == 0 {
            // Nothing but its state is to come back; it is asked again at once, by way of an answer to nothing.
            let nothing = Control::Answer { number: NOTHING, outcome: Outcome::result(&json!({})) };
            drop(self.asks.me.try_send(nothing));
        }
        Ok(())
    }

    /// Asks a client of before 2026-07-28, on the stream of its request.
    fn ask_client(&mut self, open: Open) -> Result<(), Broken> {
        let none = || {
            let why = "the server asks something of the client, which has no session to be asked in";
            Broken::Refused(Refusal::broken(why))
        };
        let (Some(live), Some(stream)) = (&self.client.live, &self.client.stream) else { return Err(none()) };
        let number = live.ask(self.asks.me.clone());
        let sealed = self.hub.seal_ask(&self.asks.scope, live.ticket.key, number);
        let message = request(&Id::text(&sealed), &open.method, open.params.as_ref());
        self.asks.since.get_or_insert_with(Instant::now);
        self.asks.open.push(Open { number, ..open });
        stream.push(message).map_err(|_| Broken::Refused(Refusal::broken("the client does not read what it is asked")))
    }

    /// Answers a client of 2026-07-28 with what it is asked, and waits for it to come back.
    pub(super) fn park(&mut self) {
        self.asks.gather = None;
        let left = self.deadline.saturating_duration_since(Instant::now());
        self.asks.parked = Some((Instant::now() + self.asks.wait, left));
        let parked = self.hub.park(self.asks.me.clone());
        let state = Writer::default()
            .bytes(self.hub.advertise.as_bytes())
            .fixed(&parked.key)
            .fixed(&self.on.owner)
            .fixed(&self.asks.about)
            .fixed(&self.hub.input_ends().to_be_bytes())
            .done();
        self.asks._waits = Some(parked);
        let state = self.hub.keys.seal(Purpose::State, &self.asks.scope, &state);
        let requests: BTreeMap<_, _> = self.asks.open.iter().map(|open| (&open.key, asked_json(open))).collect();
        let result = json!({ "resultType": "input_required", "inputRequests": requests, "requestState": state });
        let message = Outcome::result(&result).message(&self.client.id);
        if let Some(stream) = self.client.stream.take() {
            stream.finish(message, http::StatusCode::OK);
        }
        // That the request was answered is no sign that nobody waits.
        self.client.gone = CancellationToken::new();
    }

    /// Somebody outside says something; whether the server has to be asked again.
    pub(super) async fn told(&mut self, control: Control, exchange: &Exchange) -> Result<bool, Broken> {
        match control {
            Control::Answer { number, outcome } => self.client_answers(number, outcome, exchange).await,
            Control::Attach { stream, id, gone, responses } => {
                self.client.stream = Some(stream);
                self.client.id = id;
                self.client.gone = gone;
                self.asks._waits = None;
                if let Some((_, left)) = self.asks.parked.take() {
                    self.deadline = Instant::now() + left;
                }
                let open = std::mem::take(&mut self.asks.open);
                for open in open {
                    match (&open.to, responses.get(&open.key)) {
                        (To::Server(id), Some(result)) => {
                            exchange.answer(id, &Outcome::Result(result.clone())).await?;
                        }
                        _ => self.asks.open.push(open),
                    }
                }
                // What is still open is asked for again.
                self.asks.gather = (!self.asks.open.is_empty()).then(Instant::now);
                Ok(false)
            }
        }
    }

    async fn client_answers(&mut self, number: u64, outcome: Outcome, exchange: &Exchange) -> Result<bool, Broken> {
        let at = self.asks.open.iter().position(|open| open.number == number);
        if at.is_none() && number != NOTHING {
            // It was asked in an attempt before: the server is not to be asked again for it.
            return Ok(false);
        }
        if let Some(at) = at {
            let open = self.asks.open.remove(at);
            if self.asks.open.is_empty() {
                self.deadline += self.asks.since.take().map(|since| since.elapsed()).unwrap_or_default();
            }
            match (open.to, outcome) {
                (To::Server(id), outcome) => {
                    exchange.answer(&id, &outcome).await?;
                    return Ok(false);
                }
                (To::Result(key), Outcome::Result(result)) => self.asks.results.set(&key, result),
                // There is a way to say no to this one, and none to the others.
                (To::Result(key), Outcome::Error(_)) if open.method == "elicitation/create" => {
                    self.asks.results.set(&key, Json::of(&json!({ "action": "cancel" })));
                }
                (To::Result(_), Outcome::Error(error)) => {
                    let said = error.read::<Value>().unwrap_or_default();
                    let said = said["message"].as_str().unwrap_or_default().chars().take(200).collect::<String>();
                    let why = format!("the client refused what the server asked of it ({}): {said}", open.method);
                    return Err(Broken::Refused(Refusal::broken(why)));
                }
            }
        }
        if !self.asks.open.is_empty() {
            return Ok(false);
        }
        if !self.asks.results.is_empty() {
            self.ask.params.set("inputResponses", self.asks.results.write());
        }
        Ok(true)
    }
}

fn asked_json(open: &Open) -> Value {
    let mut asked = json!({ "method": open.method });
    if let Some(params) = open.params.as_ref().and_then(|params| params.read::<Value>()) {
        asked["params"] = params;
    }
    asked
}
