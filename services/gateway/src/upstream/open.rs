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
    message::{MODERN, notice},
};

impl Server {
    pub(super) async fn greet(&self) -> Result<Info, Failed> {
        match &self.kind {
            Kind::Http { .. } => match self.probe_http().await? {
                Probed::Modern(info) => Ok(*info),
                Probed::Legacy => {
                    let on = OnBehalf::gateway();
                    let (link, info) = self.open_session(&on, Abilities::default(), None).await?;
                    self.ways.links.insert(LinkKey::new(&on, Abilities::default(), self.sharing()), link).await;
                    Ok(info)
                }
            },
            Kind::Process(process) => {
                let (link, info) = self.open_child(process, Abilities::default(), None).await?;
                let key = LinkKey::new(&OnBehalf::gateway(), Abilities::default(), process.sharing);
                // It has started, so it may as well serve.
                self.ways.links.insert(key, link).await;
                Ok(info)
            }
        }
    }

    async fn probe_http(&self) -> Result<Probed, Failed> {
        if self.config.era == EraChoice::Legacy {
            return Ok(Probed::Legacy);
        }
        let (route, pass) = self.route(&OnBehalf::gateway(), None)?;
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
        match &self.kind {
            Kind::Http { .. } => Ok(self.open_session(on, abilities, pod).await?.0),
            Kind::Process(process) => {
                let era = self.known().map(|info| Info::clone(&info));
                Ok(self.open_child(process, abilities, era).await?.0)
            }
        }
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

    /// Starts a child. Its era is that of the last one, or found out.
    async fn open_child(
        &self,
        process: &ProcessConfig,
        abilities: Abilities,
        era: Option<Info>,
    ) -> Result<(Link, Info), Failed> {
        let mut child = self.start(process)?;
        let modern = match (&era, self.config.era) {
            (_, EraChoice::Legacy) => None,
            (Some(info), _) => info.revision.is_modern().then(|| info.clone()),
            (None, choice) => match self.probe_child(&child, process, choice).await {
                Ok(Probed::Modern(info)) => Some(*info),
                Ok(Probed::Legacy) => None,
                // Some of before 2026-07-28 take it so amiss to be asked that they end.
                Err(Failed::Cut(_)) if choice == EraChoice::Auto => {
                    child = self.start(process)?;
                    None
                }
                Err(failed) => return Err(failed),
            },
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
        Child::start(&self.config.name, process, self.answer_bytes, self.changes.clone(), &self.tasks)
    }

    async fn probe_child(
        &self,
        child: &Arc<Child>,
        process: &ProcessConfig,
        choice: EraChoice,
    ) -> Result<Probed, Failed> {
        let mut exchange = Exchange::Child(child.send(&Ask::own("server/discover"), MODERN)?);
        let wait = if choice == EraChoice::Auto { PROBE.min(process.start / 2) } else { process.start };
        match timeout(wait, answer(&mut exchange)).await {
            Ok(outcome) => probed(&outcome?),
            Err(_) if choice == EraChoice::Auto => Ok(Probed::Legacy),
            Err(_) => Err(Failed::Wrong("it does not let itself be discovered".to_owned())),
        }
    }
}
