//! A process of a region, as it looks, writes, takes over, moves the user here and lets the user go.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::{Duration, Instant},
};

use echotune_model::{Clock, Hlc};
use echotune_testbed::Region;
use echotune_users::homes::{HomeState, Lease, Rules, Served, Way, left};
use tokio::time::sleep;

use super::{
    Without,
    register::{WORLD, ask, served_of},
};
use crate::draw::Draw;

/// For how long what was seen holds, and how often it is looked at: in proportion as on real servers, and sooner.
const LAPSE: Duration = Duration::from_secs(2);
const LOOK_MS: (u64, u64) = (300, 1_500);
/// How late what is agreed on comes to the copies of a region.
const COPY_MS: (u64, u64) = (50, 600);
/// How long a write may be on its way from when it got its time until it is sent.
const UNDER_WAY_MS: u64 = 3_000;

/// One write, when it was sent.
#[derive(Debug, Clone)]
pub(super) struct Write {
    pub(super) region: Region,
    /// How often the home had changed, and how often it had been decided who serves it.
    pub(super) tenure: (u64, u64),
    pub(super) at: Hlc,
    /// Microseconds of the run.
    pub(super) sent: u64,
}

#[derive(Clone)]
struct Known {
    state: HomeState,
    lease: Lease,
    is_sure: bool,
}

/// A process between its start and its end.
pub(super) struct Process {
    here: Region,
    without: Option<Without>,
    clock: Clock,
    rules: RefCell<Option<Rules>>,
    is_blind: Cell<bool>,
    /// The home as the copies of this region have it.
    copy: RefCell<Option<HomeState>>,
    known: RefCell<Option<Known>>,
    saw: RefCell<BTreeMap<u64, Instant>>,
    writes: Rc<RefCell<Vec<Write>>>,
}

/// By the clock of the simulation.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Process {
    pub(super) fn new(
        here: Region,
        ahead_ms: u64,
        without: Option<Without>,
        writes: Rc<RefCell<Vec<Write>>>,
    ) -> Rc<Self> {
        let wall_ms =
            move || turmoil::since_epoch().map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0) + ahead_ms);
        Rc::new(Self {
            here,
            without,
            clock: Clock::over(wall_ms),
            rules: RefCell::default(),
            is_blind: Cell::new(false),
            copy: RefCell::default(),
            known: RefCell::default(),
            saw: RefCell::default(),
            writes,
        })
    }

    async fn look(&self) -> Result<Rules, String> {
        let began = now();
        let answer = ask(WORLD, "regions").await;
        self.is_blind.set(answer.is_err());
        let served = served_of(&answer?);
        let mut rules = self.rules.borrow_mut();
        let rules = rules.get_or_insert_with(|| Rules::new(self.here.name(), LAPSE, began));
        rules.see(served, began, now());
        Ok(rules.clone())
    }

    async fn rules(&self) -> Result<Rules, String> {
        let known = self.rules.borrow().clone();
        match known {
            Some(rules) if self.is_blind.get() || !rules.is_lapsed(now()) => Ok(rules),
            Some(rules) => Ok(self.look().await.unwrap_or(rules)),
            None => self.look().await,
        }
    }

    fn remember(&self, began: Instant, at: Hlc, state: HomeState, is_sure: bool) -> Known {
        self.clock.observe(state.fence);
        let known = Known { state, lease: Lease::new(began, at, LAPSE), is_sure };
        *self.known.borrow_mut() = Some(known.clone());
        known
    }

    async fn look_home(&self) -> Result<Known, String> {
        let (began, at) = (now(), self.clock.now());
        let state: HomeState = ask(WORLD, "home").await?.parse()?;
        Ok(self.remember(began, at, state, true))
    }

    fn home(&self) -> Result<Known, String> {
        let known = self.known.borrow().clone();
        let holds = |known: &Known| known.state.moving.is_none() && known.lease.covers(now(), self.clock.now());
        if let Some(known) = known.filter(holds) {
            return Ok(known);
        }
        let (began, at) = (now(), self.clock.now());
        let state = self.copy.borrow().clone().ok_or("nothing has come here yet")?;
        Ok(self.remember(began, at, state, false))
    }

    /// The home, and by which decision its writes are made here, if they are.
    async fn standing(&self) -> Result<Option<(Known, Served)>, String> {
        let mut known = self.home()?;
        let mut way = self.way(&known.state.region).await?;
        if way.0 == Way::Here && known.state.region != self.here.name() && !known.is_sure {
            known = self.look_home().await?;
            way = self.way(&known.state.region).await?;
        }
        if !self.is_blind.get() {
            known.lease = known.lease.within(way.2);
        }
        let is_here = way.0 == Way::Here && known.state.moving.is_none();
        Ok(is_here.then_some((known, way.1)))
    }

    async fn way(&self, home: &str) -> Result<(Way, Served, Instant), String> {
        let rules = self.rules().await?;
        // Long after a decision there is nothing to wait for.
        let wall_ms = if self.without == Some(Without::Lapse) { u64::MAX } else { self.clock.wall_ms() };
        Ok((rules.way(home, now(), wall_ms), rules.served(home), rules.until()))
    }

    /// Makes one write, if it is to be made here.
    async fn write(&self, under_way: Duration) -> Result<(), String> {
        let Some((known, served)) = self.standing().await? else { return Ok(()) };
        let mut tenure = (known.state.epoch, served.epoch);
        let at = self.clock.now();
        sleep(under_way).await;
        if !known.lease.covers(now(), at) && self.without != Some(Without::Epoch) {
            match self.standing().await? {
                Some((again, served)) if again.state.epoch == known.state.epoch => tenure.1 = served.epoch,
                _ => return Ok(()),
            }
        }
        let sent = turmoil::sim_elapsed().map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX));
        self.writes.borrow_mut().push(Write { region: self.here, tenure, at, sent });
        Ok(())
    }

    /// Looks, follows the home and writes, until the host is gone.
    pub(super) async fn live(self: Rc<Self>, mut draw: Draw) {
        let (looking, look) = (Rc::clone(&self), draw.ms(LOOK_MS.0, LOOK_MS.1));
        tokio::task::spawn_local(async move {
            loop {
                drop(looking.look().await);
                sleep(look).await;
            }
        });
        let (copying, mut late) = (Rc::clone(&self), draw.clone());
        tokio::task::spawn_local(async move {
            loop {
                if let Ok(Ok(state)) = ask(WORLD, "home").await.map(|state| state.parse::<HomeState>()) {
                    *copying.copy.borrow_mut() = Some(state);
                }
                let pause = late.ms(COPY_MS.0, COPY_MS.1);
                sleep(pause).await;
            }
        });
        loop {
            let under_way = if draw.happens(20) { draw.ms(0, UNDER_WAY_MS) } else { Duration::ZERO };
            let writing = Rc::clone(&self);
            tokio::task::spawn_local(async move { drop(writing.write(under_way).await) });
            let pause = draw.ms(50, 250);
            sleep(pause).await;
        }
    }

    /// Takes over the users of a region, or back its own.
    pub(super) async fn serve(&self, region: Region) -> Result<(), String> {
        let served = self.look().await?.served(region.name());
        if served.by != self.here.name() {
            let (epoch, since_ms) = (served.epoch + 1, self.clock.wall_ms());
            ask(WORLD, &format!("serve {region} {} {epoch} {since_ms}", self.here)).await?;
        }
        Ok(())
    }

    async fn change(&self, seen: &HomeState, wanted: &HomeState) -> Result<bool, String> {
        *self.known.borrow_mut() = None;
        // Where the answer is lost the home tells, for no state comes twice.
        match ask(WORLD, &format!("change {seen}|{wanted}")).await {
            Ok(answer) => Ok(answer == "yes"),
            Err(_) => Ok(self.look_home().await?.state == *wanted),
        }
    }

    /// Moves the user here, or goes on with it.
    pub(super) async fn fetch(&self) -> Result<(), String> {
        let mut state = self.look_home().await?.state;
        match &state.moving {
            Some(moving) if moving.to != self.here.name() => {
                self.change(&state, &state.back()).await?;
                return Ok(());
            }
            None if state.region == self.here.name() => return Ok(()),
            None => {
                let begun = state.begun(self.here.name(), self.clock.wall_ms());
                if !self.change(&state, &begun).await? {
                    return Ok(());
                }
                state = begun;
            }
            Some(_) => {}
        }
        for _ in 0..60 {
            if let Ok(answer) = ask(&state.region, &format!("let go {}", state.epoch)).await
                && let Ok(fence) = answer.parse::<u64>()
            {
                self.change(&state, &state.arrived(Hlc(fence).max(self.clock.now()))).await?;
                return Ok(());
            }
            sleep(Duration::from_millis(300)).await;
        }
        Err("the region before does not let go".to_owned())
    }

    /// Answers a region that the user moves to: a time after all writes here once there will be none, or to wait.
    pub(super) fn let_go(&self, question: &str) -> String {
        let Some(epoch) = question.strip_prefix("let go ").and_then(|epoch| epoch.parse::<u64>().ok()) else {
            return "what".to_owned();
        };
        let knows = |state: &HomeState| state.epoch == epoch && state.moving.is_some();
        if !self.copy.borrow().as_ref().is_some_and(knows) {
            return "wait".to_owned();
        }
        let seen = *self.saw.borrow_mut().entry(epoch).or_insert_with(now);
        if !left(seen, now(), LAPSE).is_zero() && self.without != Some(Without::Wait) {
            return "wait".to_owned();
        }
        self.clock.now().0.to_string()
    }
}
