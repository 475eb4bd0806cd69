//! Two regions of two jurisdictions: `eu` is of `eea`, and the other is of none, which is the open one.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use echotune_kit::{
    cql::{CqlConfig, CqlSession, WriteClock, scratch},
    keys::{CqlSubjectKeys, MasterKeys, NamesKey, SubjectKeys},
};
use echotune_model::{Clock, Jurisdictions};
use echotune_users::{CqlUserStore, Homes, RegionalUsers, Residency, UserStoreError, UsersService};
use tokio::sync::{Mutex, MutexGuard};

use crate::{
    place::held,
    regions::{LAPSE, Region, reached},
};

/// Keyspaces of both jurisdictions and the common one, for as long as a test has them.
pub(crate) struct Apart {
    /// Sessions with the keyspace of the own jurisdiction, by region.
    pub(crate) own: Vec<CqlSession>,
    /// Sessions with the common keyspace, by region.
    pub(crate) common: Vec<CqlSession>,
    pub(crate) residency: Residency,
    _turn: MutexGuard<'static, ()>,
}

/// Both regions, with ways to each other.
pub(crate) struct Parted {
    pub(crate) us: Region,
    pub(crate) eu: Region,
    pub(crate) apart: Apart,
}

/// How the keyspace of the jurisdiction of a region is reached from there.
fn own(common: &CqlConfig, residency: &Residency) -> CqlConfig {
    let Residency { regions, jurisdictions, .. } = residency;
    let region = &common.datacenter;
    let beside = jurisdictions.beside(region, regions).into_iter().map(|name| (name.to_owned(), 1)).collect();
    let keyspace = format!("{}_{}", common.keyspace, jurisdictions.of(region));
    CqlConfig { keyspace, replication: beside, ..common.clone() }
}

impl Apart {
    pub(crate) async fn take() -> Self {
        static TURN: Mutex<()> = Mutex::const_new(());
        static CONFIGS: OnceLock<Vec<CqlConfig>> = OnceLock::new();
        let turn = TURN.lock().await;
        let configs = CONFIGS.get_or_init(|| scratch::configs("apart"));
        assert!(configs.len() > 1, "jurisdictions need servers of two regions: ECHOTUNE_CQL=us=HOST:PORT,eu=HOST:PORT");
        let regions: Vec<_> = configs.iter().map(|config| config.datacenter.clone()).collect();
        let residency = Residency {
            common: configs[0].keyspace.clone(),
            jurisdictions: Jurisdictions::parse(&[format!("eea={}", regions[1])], &regions).expect("well"),
            regions,
            key: NamesKey::new([5; 32]),
        };
        let (mut ours, mut common) = (Vec::new(), Vec::new());
        for config in &configs[..2] {
            common.push(CqlSession::connect(config).await.expect("connected"));
            ours.push(CqlSession::connect(&own(config, &residency)).await.expect("connected"));
        }
        let apart = Self { own: ours, common, residency, _turn: turn };
        for n in 0..2 {
            CqlSubjectKeys::migrate(&apart.own[n]).await.expect("migrated");
            apart.migrate(n).await.expect("migrated");
        }
        for session in apart.own.iter().chain(&apart.common[..1]) {
            scratch::empty(session).await.expect("emptied");
        }
        apart.migrate(0).await.expect("recorded again");
        apart
    }

    pub(crate) async fn migrate(&self, n: usize) -> Result<(Vec<i32>, Vec<i32>), UserStoreError> {
        CqlUserStore::migrate_apart(&self.common[n], &self.own[n], &self.residency).await
    }

    /// A store of a region that was told this.
    pub(crate) async fn store(&self, n: usize, residency: Option<&Residency>) -> Result<CqlUserStore, UserStoreError> {
        let session = self.own[n].clone();
        let (master, times) = (MasterKeys::new(&[[7; 32]]), WriteClock::new(Default::default()));
        let keys = CqlSubjectKeys::connect(session.clone(), master, times).await.expect("connected");
        let keys: Arc<dyn SubjectKeys> = Arc::new(keys);
        CqlUserStore::connect_apart(session, residency, held(keys), "one", Arc::new(Clock::default())).await
    }
}

impl Parted {
    pub(crate) async fn new() -> Self {
        let apart = Apart::take().await;
        let told = Some(&apart.residency);
        let stores = [apart.store(0, told).await.expect("connected"), apart.store(1, told).await.expect("connected")];
        let homes = stores.clone().map(|store| Arc::new(Homes::new(store).lapsing_after(LAPSE)));
        let of =
            |n: usize, peers| RegionalUsers::new(UsersService::new(stores[n].clone()), Arc::clone(&homes[n]), peers);
        let names = stores.each_ref().map(|store| store.region().to_owned());
        let ways = [reached(of(0, BTreeMap::new())).await, reached(of(1, BTreeMap::new())).await];
        let region = |n: usize| {
            let peers = BTreeMap::from([(names[1 - n].clone(), ways[1 - n].clone())]);
            Region { name: names[n].clone(), store: stores[n].clone(), users: of(n, peers) }
        };
        Self { us: region(0), eu: region(1), apart }
    }
}

/// Tables of a keyspace with a row that tells one of these: an id, or a text in clear or in bytes.
pub(crate) async fn tables_with(session: &CqlSession, wanted: &[&str]) -> Vec<String> {
    let keyspace = &session.config().keyspace;
    let tables = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ?";
    let tables = session.read("tables", tables).await.expect("prepared");
    let tables: Vec<(String,)> = session.rows(&tables, (keyspace,), usize::MAX).await.expect("read");
    assert!(!tables.is_empty(), "{keyspace} has no tables");
    // JSON shows bytes as hexadecimal digits.
    let bytes = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let wanted: Vec<_> =
        wanted.iter().flat_map(|text| [(*text).to_owned(), text.replace('-', ""), bytes(text)]).collect();
    let mut found = Vec::new();
    for (table,) in tables {
        let read = session.read("all", &format!("SELECT JSON * FROM {keyspace}.{table}")).await.expect("prepared");
        let rows: Vec<(String,)> = session.rows(&read, (), usize::MAX).await.expect("read");
        if rows.iter().any(|(row,)| wanted.iter().any(|one| row.to_lowercase().contains(one))) {
            found.push(table);
        }
    }
    found.sort();
    found
}
