//! Meeting a server, and opening sessions and children.

use std::sync::Arc;

use tokio::time::timeout;

use super::{
    Ask, Exchange, Failed, OnBehalf,
    child::Child,
    endpoints::Endpoint,
    era::{Info, Probed, answer, initialize, initialized, probed},
    links::{Link, LinkKey, Way},
    server::{Kind, PROBE, Server},
};
use crate::{
    abilities::Abilities,
    config::{EraChoice, ProcessConfig},
    message::{MODERN, Revision, notice},
};

impl Server {
    pub(super) async fn greet(&self) -> Result<Info, Failed> {
        match &self.kind {
            Kind::Http { .. } => match self.probe_http().await? {
                Probed::Modern(info) => Ok(*info),
                Probed::Legacy => {
                    let on = OnBehalf::gateway();
                    let (link, info) = self.open_session(&on, Abilities::default(), None).await?;
                    self.ways.links.keep(LinkKey::new(&on, Abilities::default(), self.sharing()), link);
                    Ok(info)
                }
            },
            Kind::Process(process) => {
                let (link, info) = self.open_child(process, Abilities::default(), None).await?;
                let key = LinkKey::new(&OnBehalf::gateway(), Abilities::default(), process.sharing);
                // It has started, so it may as well serve.
                self.ways.links.keep(key, link);
                Ok(info)
            }
        }
    }

    async fn probe_http(&self) -> Result<Probed, Failed> {
        if self.config.era == EraChoice::Legacy {
            return Ok(Probed::Legacy);
        }
        let (mut route, pass) = self.route(&OnBehalf::gateway(), None)?;
        route.revision = MODERN;
        match route.send(&Ask::own("server/discover"), self.id(), pass).await {
            Ok(exchange) => probed(&answer(&mut Exchange::Http(Box::new(exchange))).await?),
            Err(Failed::OtherEra | Failed::Gone) if self.config.era == EraChoice::Auto => Ok(Probed::Legacy),
            Err(failed) => Err(failed),
        }
    }

    pub(super) async fn open(
        &self,
        on: &OnBehalf,
        abilities: Abilities,
        pod: Option<&Arc<Endpoint>>,
    ) -> Result<Link, Failed> {
        let (link, info) = match &self.kind {
            Kind::Http { .. } => self.open_session(on, abilities, pod).await?,
            Kind::Process(process) => {
                let known = self.known().map(|info| info.revision);
                self.open_child(process, abilities, known).await?
            }
        };
        // What it says to one of whom it is told need not hold for another.
        if self.is_process() || self.is_alike() || on.is_gateway() {
            self.learn(info);
        }
        Ok(link)
    }

    /// Opens a session of a revision before 2026-07-28.
    async fn open_session(
        &self,
        on: &OnBehalf,
        abilities: Abilities,
        pod: Option<&Arc<Endpoint>>,
    ) -> Result<(Link, Info), Failed> {
        let (mut route, pass) = self.route(on, pod)?;
        route.revision = crate::message::LATEST_LEGACY;
        let exchange = route.clone().send(&initialize(abilities), self.id(), pass).await?;
        route.session = exchange.opened.clone();
        let info = initialized(&answer(&mut Exchange::Http(Box::new(exchange))).await?)?;
        route.revision = info.revision;
        route.tell(notice("notifications/initialized", None)).await?;
        Ok((Link::new(Way::Session(Box::new(route)), on, &self.config.name, &self.meters), info))
    }

    /// Starts a child. One of before 2026-07-28 is taken for such again; others say what they are and what they can.
    async fn open_child(
        &self,
        process: &ProcessConfig,
        abilities: Abilities,
        known: Option<Revision>,
    ) -> Result<(Link, Info), Failed> {
        let mut child = self.start(process)?;
        let is_legacy = self.config.era == EraChoice::Legacy || known.is_some_and(|revision| !revision.is_modern());
        let modern = if is_legacy {
            None
        } else {
            match self.probe_child(&child, process, known.is_some()).await {
                Ok(Probed::Modern(info)) => Some(*info),
                Ok(Probed::Legacy) => None,
                // Some of before 2026-07-28 take it so amiss to be asked that they end.
                Err(Failed::Cut(_)) if self.config.era == EraChoice::Auto => {
                    child = self.start(process)?;
                    None
                }
                Err(failed) => return Err(failed),
            }
        };
        let info = match modern {
            Some(info) => info,
            None => {
                let mut exchange = Exchange::Child(child.send(&initialize(abilities), crate::message::LATEST_LEGACY)?);
                let info = initialized(&answer(&mut exchange).await?)?;
                child.tell(&notice("notifications/initialized", None))?;
                info
            }
        };
        let way = Way::Child { child, revision: info.revision };
        Ok((Link::new(way, &OnBehalf::gateway(), &self.config.name, &self.meters), info))
    }

    fn start(&self, process: &ProcessConfig) -> Result<Arc<Child>, Failed> {
        // Whoever waits for the end of all children counts this one before it is known whether it may start at all.
        let _counted = self.tasks.token();
        if self.ways.links.is_closed() {
            return Err(self.ended());
        }
        Child::start(&self.config.name, process, self.answer_bytes, self.changes.clone(), &self.tasks)
    }

    /// Asks a child what it is. One that says nothing is of before 2026-07-28, unless those before it were not.
    async fn probe_child(
        &self,
        child: &Arc<Child>,
        process: &ProcessConfig,
        was_modern: bool,
    ) -> Result<Probed, Failed> {
        let mut exchange = Exchange::Child(child.send(&Ask::own("server/discover"), MODERN)?);
        let is_auto = self.config.era == EraChoice::Auto;
        let wait = match (is_auto, was_modern) {
            (false, _) => process.start,
            // It may start slowly; and when it is another now, this is found out before its time to start is over.
            (true, true) => process.start / 2,
            (true, false) => PROBE.min(process.start / 2),
        };
        match timeout(wait, answer(&mut exchange)).await {
            Ok(outcome) => probed(&outcome?),
            Err(_) if is_auto && !was_modern => Ok(Probed::Legacy),
            Err(_) => Err(Failed::Wrong("it does not let itself be discovered".to_owned())),
        }
    }
}
