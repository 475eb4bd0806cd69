//! What runs in a region: all services over one store, as `echotune up` has them, the copying of the others' logs, and gRPC.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, sync::Arc};

use echotune_agents::EmbeddedRunStore;
use echotune_api::events::USERS_TOPIC;
use echotune_eventlog::{EmbeddedEventLog, EventLog as _, Pace};
use echotune_kit::embedded::{Db, Disk, Pause};
use echotune_model::Clock;
use echotune_recommendations::{EmbeddedRecommendationStore, RecommendationsService};
use echotune_testbed::Region;
use echotune_users::{EmbeddedUserStore, UserStore as _, UsersService, Ways};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    draw::{Draw, SharedDraw},
    forwarding::Forwarding,
    log::{RegionLog, copy, give, told},
    net,
    planted::Planted,
};

/// What the hosts of a run share with whoever judges it.
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) planted: Option<Planted>,
    /// By how many milliseconds the clock of each region is ahead.
    pub(crate) ahead: BTreeMap<Region, u64>,
    pub(crate) disks: BTreeMap<Region, Disk>,
    pub(crate) regions: RefCell<BTreeMap<Region, Inside>>,
}

/// The stores of a region, as they were opened last.
#[derive(Clone)]
pub(crate) struct Inside {
    pub(crate) db: Db,
    pub(crate) log: RegionLog,
    pub(crate) users: EmbeddedUserStore,
    pub(crate) view: EmbeddedRecommendationStore,
    pub(crate) service: RecommendationsService,
    pub(crate) runs: EmbeddedRunStore,
}

fn number(of: Region) -> u64 {
    Region::ALL.iter().position(|region| *region == of).map_or(0, |at| at as u64)
}

/// For as long as a disk takes at the most, as the seed says: some are slow.
fn pause(longest_ms: u64, draw: SharedDraw) -> Pause {
    Box::new(move || Box::pin(tokio::time::sleep(draw.ms(0, longest_ms))))
}

fn open(world: &World, here: Region) -> Result<Inside, String> {
    let mut draw = Draw::new(world.seed, 100 + number(here));
    let longest_ms = draw.of(&[2, 10, 40]);
    let db = world.disks[&here].open(pause(longest_ms, SharedDraw::new(draw))).map_err(told)?;
    let ahead = world.ahead[&here];
    let wall_ms =
        move || turmoil::since_epoch().map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0) + ahead);
    let clock = Arc::new(Clock::over(wall_ms));
    let own = EmbeddedEventLog::new(db.clone());
    let log = RegionLog { own, region: here, planted: world.planted };
    let view = EmbeddedRecommendationStore::new(db.clone());
    let service = RecommendationsService::load(view.clone()).map_err(told)?;
    let users = EmbeddedUserStore::new(db.clone(), Arc::clone(&clock));
    let runs = EmbeddedRunStore::new(db.clone(), clock);
    Ok(Inside { db, log, users, view, service, runs })
}

/// Runs until the host is gone; an end by itself is a fault.
pub(crate) async fn run(world: Rc<World>, here: Region) -> turmoil::Result {
    let inside = open(&world, here)?;
    world.regions.borrow_mut().insert(here, inside.clone());
    let Inside { db, log, users, service, runs, .. } = inside;
    users.resume_erasures().await?;
    let mut tasks: JoinSet<Result<(), String>> = JoinSet::new();
    let (store, relayed) = (users.clone(), log.clone());
    if world.planted == Some(Planted::RemovesBeforePublishing) {
        tasks.spawn(async move { careless_relay(store, relayed).await });
    } else {
        tasks
            .spawn(async move { echotune_users::relay(store, &relayed, CancellationToken::new()).await.map_err(told) });
    }
    let read = log.clone();
    tasks.spawn(async move {
        echotune_recommendations::consume(service, &read, CancellationToken::new()).await.map_err(told)
    });
    let read = log.clone();
    tasks.spawn(async move {
        let pace = Pace::default();
        echotune_agents::consume(&runs, &read, &pace, CancellationToken::new()).await.map_err(told)
    });
    tasks.spawn(give(log.own.clone()));
    let others = Region::ALL.into_iter().filter(|region| *region != here);
    for of in others.clone() {
        let draw = SharedDraw::new(Draw::new(world.seed, 200 + 10 * number(here) + number(of)));
        tasks.spawn(copy(log.clone(), db.clone(), of, draw));
    }
    let ways = Ways::new(here.name(), others.map(|of| (of.to_string(), net::peer(of))).collect());
    let is_careless = world.planted == Some(Planted::PassesOnWithoutKey);
    let forwarding = Forwarding { local: UsersService::new(users), ways, is_careless };
    tasks.spawn(net::serve(Arc::new(forwarding)));
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(told)??;
    }
    Err(format!("everything in {here} has ended").into())
}

/// As the real relay, in the wrong order.
async fn careless_relay(store: EmbeddedUserStore, log: RegionLog) -> Result<(), String> {
    loop {
        let waiting = store.next_events(512).await.map_err(told)?;
        let (places, records) = waiting.into_iter().map(|waiting| (waiting.place, waiting.record)).unzip();
        store.published(places).await.map_err(told)?;
        let records: Vec<echotune_eventlog::Record> = records;
        let erased: Vec<_> = records.iter().filter(|one| one.is_lasting).map(|one| one.key.clone()).collect();
        log.append(USERS_TOPIC, records).await.map_err(told)?;
        for user in erased {
            log.forget(USERS_TOPIC, &user).await.map_err(told)?;
        }
    }
}
