//! One request of a client on its way to a server and back: attempts, what is said in between, and how it ends.

use std::{sync::Arc, time::Duration};

use echotune_kit::telemetry;
use echotune_model::Principal;
use http::{HeaderValue, StatusCode};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{
    asks::Asks,
    convert,
    live::{Control, Live},
    stream::{Ending, Stream},
};
use crate::{
    hub::Hub,
    message::{Id, Json, LATEST_LEGACY, Object, Outcome, Revision, notice},
    refusal::Refusal,
    regions::{Away, Mark},
    telemetry::{asking, fail},
    ticket::Held,
    upstream::{Ask, Endpoint, Exchange, Failed, HOLD, OnBehalf, PROGRESS_TOKEN, Place, Said, Server, Wanted},
};

/// How often a request is repeated whose answer was lost, where it may be.
const REPEATS: u32 = 3;
/// How often a session is opened anew for one request.
const RENEWALS: u32 = 3;
/// The first pause before another attempt, doubled up to the longest.
const PAUSE: Duration = Duration::from_millis(25);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Who asked, and in which way.
pub(crate) struct Client {
    pub(crate) id: Id,
    pub(crate) revision: Revision,
    /// Its own mark of progress.
    pub(crate) progress: Option<Json>,
    /// From which level on it wants to see the server's log; always, before 2026-07-28.
    pub(crate) log_level: Option<String>,
    pub(crate) live: Option<Arc<Live>>,
    /// Set when it does not wait any more.
    pub(crate) gone: CancellationToken,
    /// Where it reads; `None` while a client of 2026-07-28 is away for what it was asked.
    pub(crate) stream: Option<Arc<Stream>>,
}

/// A request under way.
pub(crate) struct Conversation {
    pub(crate) hub: Arc<Hub>,
    pub(crate) server: Arc<Server>,
    pub(crate) on: OnBehalf,
    pub(crate) ask: Ask,
    pub(crate) held: Option<Held>,
    pub(crate) client: Client,
    pub(crate) asks: Asks,
    /// Whether another region may make it, which is tried once.
    pub(crate) may_leave: bool,
    /// What its token was issued for, as that is told.
    pub(crate) scopes: Option<HeaderValue>,
    /// Whether another region has sent it.
    pub(crate) is_guest: bool,
    /// Where it is made now, if not here.
    pub(crate) away: Option<Away>,
    pub(crate) deadline: Instant,
    pub(crate) control: mpsc::Receiver<Control>,
    /// Its place at the server, given back while it waits for people, who take their time.
    pub(crate) place: Option<Place>,
    /// Shows that the server is in use.
    pub(crate) _used: Arc<()>,
}

/// Why an attempt came to nothing.
pub(super) enum Broken {
    Failed(Failed),
    /// The deadline is over.
    Late,
    /// Nobody waits for the answer.
    Gone,
    /// It ends without the server.
    Refused(Refusal),
}

impl From<Failed> for Broken {
    fn from(failed: Failed) -> Self {
        Self::Failed(failed)
    }
}

/// How it stands with further attempts.
#[derive(Default)]
struct Tries {
    repeats: u32,
    renewals: u32,
    pauses: u32,
    unreached: Option<Instant>,
}

impl Tries {
    /// How long to wait before another attempt: for as long as a server asks that says it is full. One that is left
    /// alone costs nothing to look at, and another may be there before it is tried again.
    fn pause(&mut self, failed: &Failed) -> Duration {
        let [random] = crate::token::random();
        let pause = (PAUSE * (1 << self.pauses.min(6))).min(PAUSE_MAX).mul_f64(0.5 + f64::from(random) / 512.0);
        self.pauses += 1;
        match failed {
            Failed::NotSent { retry_after: Some(asked), by_server: true, .. } => pause.max(PAUSE_MAX.min(*asked)),
            Failed::NotSent { retry_after: Some(left), .. } => pause.min(*left),
            _ => pause,
        }
    }

    /// Until when it is tried at a server that cannot be reached.
    fn until(&mut self) -> Instant {
        *self.unreached.get_or_insert_with(Instant::now) + HOLD
    }

    /// It has waited for a place for so long, which says nothing of where it is tried next.
    fn waited(&mut self, time: Duration) {
        self.unreached = self.unreached.map(|since| since + time);
    }
}

impl Conversation {
    /// Sees the request to its end, and tells the client; the value of `error.type`.
    pub(crate) async fn run(mut self) -> &'static str {
        let begun = Instant::now();
        let outcome = self.converse().await;
        let usage = self.usage(&outcome, begun.elapsed());
        let outcome = self.brought(outcome).await;
        // Whoever has the answer is not taken for one who still waits for it.
        if let Some(live) = self.client.live.take() {
            live.ended(&self.client.id);
            self.asks.forget(&live);
        }
        let error = match outcome {
            Ok(outcome) => {
                self.finish(&outcome, convert::status(&outcome, self.client.revision).into());
                convert::error_type(&outcome)
            }
            Err(Broken::Refused(refusal)) => {
                fail(&tracing::Span::current(), refusal.kind_name(), &refusal.message);
                let (outcome, ending) = convert::refused(&refusal, &self.ask.method, self.client.revision);
                self.finish(&outcome, ending);
                "refused"
            }
            // Whoever gave up wants to hear nothing more of it.
            Err(_) => {
                if let Some(stream) = self.client.stream.take() {
                    stream.close();
                }
                "cancelled"
            }
        };
        // After the answer, whose reader does not wait for it; what is under way keeps its place until it is entered.
        if let (Some(metering), Some(usage)) = (&self.hub.metering, usage)
            && !metering.record(usage).await
        {
            self.server.event("unmetered");
        }
        error
    }

    /// A client that is away for what it was asked is told how it ended when it is back, also when that is just then.
    async fn brought(&mut self, outcome: Result<Outcome, Broken>) -> Result<Outcome, Broken> {
        if self.client.stream.is_some() {
            return outcome;
        }
        self.leave();
        if !matches!(outcome, Err(Broken::Gone)) {
            let (until, stop) = (self.asks.until(self.deadline), self.hub.stop.clone());
            tokio::select! {
                () = self.comes_back() => {}
                () = sleep_until(until) => {}
                () = stop.cancelled() => {}
            }
        }
        // Nobody can come any more, and whoever has come must not wait for nothing.
        self.control.close();
        self.comes_back().await;
        match outcome {
            Err(Broken::Gone) if self.client.stream.is_some() => Err(Broken::Refused(self.late())),
            outcome => outcome,
        }
    }

    /// Waits until the client is back, or nobody can come any more.
    async fn comes_back(&mut self) {
        while let Some(control) = self.control.recv().await {
            if let Control::Attach { stream, id, gone, .. } = control {
                self.client.stream = Some(stream);
                self.client.id = id;
                self.client.gone = gone;
                return;
            }
        }
    }

    /// Tells the server that nobody waits any more. Nobody waits for that either: it may hang. One that has as much of
    /// this to hear as it may have at once is told by the end of the connection alone.
    fn give_up(&self, exchange: Exchange, why: &'static str) {
        let Ok(one) = Arc::clone(&self.server.given_up).try_acquire_owned() else {
            return self.server.event("untold");
        };
        self.hub.tasks.spawn(async move {
            exchange.cancel(why).await;
            drop(one);
        });
    }

    fn finish(&self, outcome: &Outcome, ending: Ending) {
        if let Some(stream) = &self.client.stream {
            stream.finish(outcome.message(&self.client.id), ending);
        }
    }

    async fn converse(&mut self) -> Result<Outcome, Broken> {
        self.set_out().await?;
        self.server.budget.earn();
        let mut tries = Tries::default();
        loop {
            match self.attempt().await {
                Ok(outcome) => return Ok(outcome),
                Err(Broken::Failed(Failed::Late) | Broken::Late) => return Err(Broken::Refused(self.late())),
                Err(Broken::Failed(failed)) => self.again(failed, &mut tries).await?,
                Err(broken) => return Err(broken),
            }
        }
    }

    /// Waits for a place at the server.
    pub(super) async fn enter(&mut self, failed_on: Option<Arc<Endpoint>>) -> Result<(), Broken> {
        let tool = self.ask.name.as_deref().filter(|_| self.ask.method == "tools/call");
        let wanted = Wanted {
            ends: self.deadline,
            class: self.server.class_of(tool),
            pin: self.server.pin(&self.on, self.ask.abilities, self.held.as_ref()).await,
            failed_on,
            is_call: true,
            is_guest: self.is_guest,
        };
        let (gate, before) = (&self.server.gate, self.place.take());
        let entering = async {
            match before {
                Some(before) => gate.enter_again(before, wanted).await,
                None => gate.enter(self.on.owner, wanted).await,
            }
        };
        let place = tokio::select! {
            place = entering => place,
            () = self.client.gone.cancelled() => return Err(Broken::Gone),
        };
        match place {
            Ok(place) => {
                self.ask.pod = place.pod().cloned();
                self.place = Some(place);
                Ok(())
            }
            // That somebody asks for too much is no reason to ask elsewhere.
            Err(Refusal { status: StatusCode::SERVICE_UNAVAILABLE, .. }) if self.has_none() && self.flees() => Ok(()),
            Err(refusal) => {
                self.server.event("shed");
                Err(Broken::Refused(refusal))
            }
        }
    }

    /// Lets go of the place while it waits for people.
    pub(super) fn leave(&mut self) {
        self.place = None;
        self.ask.pod = None;
    }

    fn late(&self) -> Refusal {
        let why = format!("server '{}' did not answer in time", self.server.config.name);
        if self.ask.may_repeat {
            Refusal::late(why)
        } else {
            self.server.event("unknown");
            Refusal::unknown(format!("{why}: what was asked may have been done; look before you repeat it"))
        }
    }

    /// Waits for another attempt, where there may be one.
    async fn again(&mut self, failed: Failed, tries: &mut Tries) -> Result<(), Broken> {
        if self.is_turned_away(&failed) {
            self.away = None;
            return self.enter(None).await;
        }
        let is_unsent = matches!(failed, Failed::NotSent { .. } | Failed::Unmet(_));
        let pause = match self.may_try_again(&failed, tries) {
            Ok(_) if self.server.is_down() && self.flees() => return Ok(()),
            Ok(pause) => pause,
            Err(_) if is_unsent && self.flees() => return Ok(()),
            Err(refusal) => return Err(Broken::Refused(refusal)),
        };
        let is_back = self.away.take().is_some();
        let failed_on = self.ask.pod.clone();
        if failed_on.is_some() {
            // Another pod may have room, and this one may be no more.
            self.place.iter_mut().for_each(Place::vacate);
            self.ask.pod = None;
        }
        tokio::select! {
            () = sleep(pause) => {}
            () = self.client.gone.cancelled() => return Err(Broken::Gone),
        }
        if is_back || failed_on.is_some() {
            let begun = Instant::now();
            self.enter(failed_on).await?;
            tries.waited(begun.elapsed());
        }
        Ok(())
    }

    fn may_try_again(&self, failed: &Failed, tries: &mut Tries) -> Result<Duration, Refusal> {
        let name = &self.server.config.name;
        let why = format!("server '{name}': {}", failed.why());
        let pause = tries.pause(failed);
        match failed {
            Failed::Gone | Failed::OtherEra if tries.renewals < RENEWALS => {
                tries.renewals += 1;
                return Ok(Duration::ZERO);
            }
            Failed::NotSent { retry_after, by_server, .. } => {
                // One that says it is full is spared: asked as seldom as may be, where there is no leave for more.
                let is_spared = !by_server || pause >= PAUSE_MAX || self.server.budget.spend();
                let pause = if is_spared { pause } else { PAUSE_MAX };
                if Instant::now() + pause < self.deadline.min(tries.until()) {
                    return Ok(pause);
                }
                let seconds = retry_after.map_or(1, |after| u32::try_from(after.as_secs()).unwrap_or(u32::MAX));
                return Err(Refusal::unavailable(why, seconds));
            }
            Failed::Cut(_) | Failed::Unmet(_)
                if tries.repeats < REPEATS && (self.ask.may_repeat || matches!(failed, Failed::Unmet(_))) =>
            {
                let late = Instant::now() + pause >= self.deadline;
                if !late && self.server.budget.spend() {
                    tries.repeats += 1;
                    tries.unreached = None;
                    self.server.event("repeated");
                    tracing::info!(server = name, why, "a request is repeated");
                    return Ok(pause);
                }
                return Err(Refusal::unavailable(why, 1));
            }
            _ => {}
        }
        Err(self.given_up(failed, why))
    }

    fn given_up(&self, failed: &Failed, why: String) -> Refusal {
        match failed {
            Failed::Cut(_) | Failed::Wrong(_) if !self.ask.may_repeat => {
                self.server.event("unknown");
                Refusal::unknown(format!("{why}: what was asked may have been done; look before you repeat it"))
            }
            Failed::Cut(_) | Failed::Unmet(_) | Failed::Gone | Failed::OtherEra => Refusal::unavailable(why, 1),
            Failed::Unauthorized(_) => self.unauthorized(why),
            _ => Refusal::broken(why),
        }
    }

    /// There is no token for the server. The operator is told what to open; nobody else is, for who opens it lets the
    /// gateway act as them for all its callers.
    fn unauthorized(&self, why: String) -> Refusal {
        let Some(url) = self.server.tokens().and_then(|tokens| tokens.waits_for()) else {
            return Refusal::unavailable(why, 1);
        };
        if self.on.principal != Principal::Operator.encode() {
            return Refusal::unauthorized(why);
        }
        if self.client.revision == LATEST_LEGACY && self.ask.abilities.opens_addresses() {
            let name = &self.server.config.name;
            return Refusal::to_open(why, &url, &format!("authorization-{name}"));
        }
        Refusal::unauthorized(why).opened_at(&url)
    }

    /// Asks the server once.
    async fn attempt(&mut self) -> Result<Outcome, Broken> {
        let name = self.ask.name.as_deref();
        let transport = if self.server.is_process() && self.away.is_none() { "pipe" } else { "tcp" };
        let span = asking(&self.ask.method, name, &self.server.config.name, transport);
        let traceparent = telemetry::traceparent_of(&span);
        if !traceparent.is_empty() {
            self.ask.traceparent = traceparent;
        }
        let begun = Instant::now();
        let outcome = self.ask_and_follow().instrument(span.clone()).await;
        let (error, why) = match &outcome {
            Ok(Outcome::Result(_)) => ("", String::new()),
            Ok(Outcome::Error(error)) => ("jsonrpc_error", format!("{error:?}")),
            Err(Broken::Failed(failed)) => (kind_of(failed), failed.why()),
            Err(Broken::Late) => ("timeout", "it did not answer in time".to_owned()),
            Err(Broken::Gone) => ("cancelled", "nobody waits any more".to_owned()),
            Err(Broken::Refused(refusal)) => ("_OTHER", refusal.message.clone()),
        };
        if !error.is_empty() {
            fail(&span, error, &why);
        }
        self.hub.meters.asked(begun.elapsed(), &self.ask.method, &self.server.config.name, transport, error);
        self.count_away(&outcome);
        outcome
    }

    async fn ask_and_follow(&mut self) -> Result<Outcome, Broken> {
        let mut exchange = self.send().await?;
        self.asks.begin(self.client.live.as_deref());
        // After it has answered there is nothing more to hear, though the client is still asked for what it wants.
        let mut has_answered = false;
        loop {
            let until = self.asks.until(self.deadline);
            let said = tokio::select! {
                said = exchange.next(), if !has_answered => said?,
                Some(control) = self.control.recv() => {
                    if self.told(control, &exchange).await? {
                        exchange = self.send().await?;
                        has_answered = false;
                    }
                    continue;
                }
                () = self.client.gone.cancelled() => {
                    self.give_up(exchange, "the client has given it up");
                    return Err(Broken::Gone);
                }
                // Whoever is away for what it was asked comes back to another replica.
                () = self.hub.stop.cancelled(), if self.client.stream.is_none() => {
                    self.give_up(exchange, "the gateway is stopping");
                    return Err(Broken::Gone);
                }
                () = sleep_until(until) => {
                    if self.asks.must_park() {
                        self.park();
                        self.leave();
                        continue;
                    }
                    exchange.late();
                    self.give_up(exchange, "it took too long");
                    return Err(if self.client.stream.is_some() { Broken::Late } else { Broken::Gone });
                }
            };
            match said {
                Said::Answer(outcome) => {
                    if let Some(outcome) = self.answered(outcome, exchange.revision())? {
                        return Ok(outcome);
                    }
                    has_answered = true;
                    self.leave();
                }
                Said::Notice { method, params } => self.notice(&method, params)?,
                Said::Asks { id, method, params } => self.asked(&exchange, id, method, params).await?,
            }
        }
    }

    pub(super) async fn send(&mut self) -> Result<Exchange, Broken> {
        // The time that people took is not the server's.
        self.ask.deadline = self.deadline;
        let sending = async {
            match &self.away {
                Some(away) => {
                    let mark = Mark { may_repeat: self.ask.may_repeat, scopes: self.scopes.as_ref() };
                    self.server.send_to(&away.region, &self.on, &self.ask, mark).await
                }
                None => self.server.send(&self.on, &self.ask, self.held.as_ref()).await,
            }
        };
        tokio::select! {
            sent = timeout_at(self.deadline, sending) => Ok(sent.map_err(|_| Broken::Late)??),
            () = self.client.gone.cancelled() => Err(Broken::Gone),
        }
    }

    /// The server has answered: how it ends, or `None` when it goes on with what the client is asked.
    fn answered(&mut self, outcome: Outcome, from: Revision) -> Result<Option<Outcome>, Broken> {
        let Outcome::Result(result) = outcome else { return Ok(Some(outcome)) };
        if from.is_modern()
            && !self.client.revision.is_modern()
            && let Some(required) = convert::input_required(&result)
        {
            self.ask_all(&required)?;
            return Ok(None);
        }
        let converted = convert::result(result, &self.ask.method, from, self.client.revision);
        converted.map(|result| Some(Outcome::Result(result))).map_err(Broken::Refused)
    }

    /// What the server tells meanwhile goes to the client as far as it is about its request.
    fn notice(&mut self, method: &str, params: Option<Json>) -> Result<(), Broken> {
        if self.server.changes.hear(method, params.as_ref()) {
            return Ok(());
        }
        let params = match method {
            "notifications/progress" => {
                let Some(token) = &self.client.progress else { return Ok(()) };
                let mut told = Object::read_optional(params.as_ref()).unwrap_or_default();
                told.set(PROGRESS_TOKEN, token.clone());
                Some(told.write())
            }
            "notifications/message" if !self.wants_log(params.as_ref()) => return Ok(()),
            "notifications/message" => params,
            // 2026-07-28 knows no others in the course of a request.
            _ if self.client.revision.is_modern() => return Ok(()),
            _ => params,
        };
        let Some(stream) = &self.client.stream else { return Ok(()) };
        let flooded = || {
            let why = format!("server '{}' says more than its client can read", self.server.config.name);
            Broken::Refused(if self.ask.may_repeat { Refusal::broken(why) } else { Refusal::unknown(why) })
        };
        stream.push(notice(method, params.as_ref())).map_err(|_| flooded())
    }

    fn wants_log(&self, params: Option<&Json>) -> bool {
        if !self.client.revision.is_modern() {
            return true;
        }
        const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];
        let place = |level: &str| LEVELS.iter().position(|known| *known == level);
        let told = Object::read_optional(params).unwrap_or_default().text("level");
        let wanted = self.client.log_level.as_deref().and_then(place);
        wanted.is_some_and(|wanted| told.as_deref().and_then(place).is_some_and(|told| told >= wanted))
    }
}

/// The value of `error.type`.
const fn kind_of(failed: &Failed) -> &'static str {
    match failed {
        Failed::NotSent { .. } | Failed::Unmet(_) => "unavailable",
        Failed::Gone => "session_gone",
        Failed::OtherEra => "other_revision",
        Failed::Cut(_) => "unknown_outcome",
        Failed::Late => "timeout",
        Failed::Wrong(_) => "invalid_response",
        Failed::Refused { .. } => "refused",
        Failed::Unauthorized(_) => "unauthorized",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_left_alone_is_looked_at_sooner_than_a_server_that_is_full_is_asked_again() {
        let second = Duration::from_secs(1);
        let failed = |retry_after, by_server| Failed::NotSent { why: String::new(), retry_after, by_server };
        let pause = |failed: &Failed| Tries::default().pause(failed);
        assert!(pause(&failed(Some(second), false)) < PAUSE * 2, "a pod may be there before");
        assert_eq!(pause(&failed(Some(Duration::from_millis(1)), false)), Duration::from_millis(1));
        assert_eq!(pause(&failed(Some(second * 7), true)), PAUSE_MAX, "it is believed");
        assert!(pause(&failed(None, false)) < PAUSE * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_the_queue_is_not_taken_for_time_in_which_the_server_could_not_be_reached() {
        let mut tries = Tries::default();
        let until = tries.until();
        assert_eq!(until, Instant::now() + HOLD);
        // It has waited for a pod for longer than for one that cannot be reached.
        tokio::time::advance(HOLD * 2).await;
        tries.waited(HOLD * 2);
        assert_eq!(tries.until(), Instant::now() + HOLD);
    }
}
