//! What share of served recommendations listeners accept, by the platform's own log: holds out a tenth of each
//! listener's artists, imports the rest into a new data folder, has the blend fitted, and plays for each listener what
//! of their list of ten was held out: `cargo run --release -p echotune --example acceptance -- HETREC NEW_FOLDER`.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    env, fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use echotune::{
    Platform,
    import::{self, Progress, Request},
};
use echotune_api::RecommendQuery;
use echotune_kit::telemetry::SpanStore;
use echotune_model::{Call, Feedback, Impression, ItemId, ItemKind, Signal, TraceId};

const USAGE: &str = "usage: acceptance HETREC NEW_FOLDER";
/// One artist in so many is held out.
const SHARE: usize = 10;
/// Length of a list.
const SHOWN: u32 = 10;
/// Listeners from which on a blend is fitted.
const LEAST: usize = 100;
/// For the fit.
const PATIENCE: Duration = Duration::from_secs(30 * 60);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let words: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [data, folder] = words.as_slice() else { anyhow::bail!(USAGE) };
    anyhow::ensure!(!folder.exists(), "{} is there already; give a new folder", folder.display());
    let world = folder.join("world");
    let held = hold_out(data, &world)?;
    let mut platform = Platform::open(&folder.join("data"), SpanStore::default())?;
    let request = Request { format: "lastfm-hetrec".into(), paths: vec![world], user: None, rejects: None };
    import::run(Arc::clone(&platform.users), &Call::internal(), &request, &Progress::hidden()).await?;
    platform.settle().await?;
    platform.stop().await?;
    // Opened again, it fits all that was imported at once.
    let platform = Platform::open(&folder.join("data"), SpanStore::default())?;
    let fitted = async {
        while platform.operations.status(&Call::internal()).await?.cuts.is_empty() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, fitted).await.context("no blend was fitted within half an hour")??;
    let most = serve(&platform, &held).await?;
    for told in platform.recommendations.acceptance(&Call::internal()).await? {
        let share = |of: u64| percent(of, told.items);
        println!(
            "{}: {} lists, {} items shown, {} accepted: {:.2} %; at the most {:.2} %",
            told.model_version,
            told.impressions,
            told.items,
            told.accepted,
            share(told.accepted),
            share(most)
        );
    }
    platform.stop().await
}

#[expect(clippy::cast_precision_loss, reason = "counts of a small data set")]
fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}

/// Shows each listener their list and plays what they had played; how many items could have been accepted.
async fn serve(platform: &Platform, held: &BTreeMap<u32, HashSet<ItemId>>) -> anyhow::Result<u64> {
    let query = RecommendQuery { kind: ItemKind::Artist, limit: SHOWN, include_known: false };
    let mut most = 0;
    for (number, held) in held {
        let (user, trace) = (format!("hetrec-{number}"), TraceId(u128::from(*number)));
        let call = Call { trace, ..Call::internal() };
        let list = platform.recommendations.recommend(&call, &user, &query).await?;
        let items: Vec<ItemId> = list.items.iter().map(|one| one.id).collect();
        let accepted: Vec<ItemId> = items.iter().filter(|item| held.contains(item)).copied().collect();
        let impression = Impression { trace, model_version: list.model_version, items };
        platform.recommendations.record_impression(&call, &user, impression).await?;
        for item in accepted {
            let feedback = Feedback { item, signal: Signal::Played, trace };
            platform.recommendations.record_feedback(&call, &user, feedback).await?;
        }
        most += u64::from(SHOWN).min(held.len() as u64);
    }
    Ok(most)
}

/// Writes the tables without a tenth of each listener's artists, and without what the listener says of these; the
/// artists held out, by listener.
fn hold_out(data: &Path, world: &Path) -> anyhow::Result<BTreeMap<u32, HashSet<ItemId>>> {
    let read = |name: &str| -> anyhow::Result<Vec<u8>> {
        fs::read(data.join(name)).with_context(|| data.join(name).display().to_string())
    };
    let artists: HashMap<u32, ItemId> = pairs(&read("artists.dat")?)
        .map(|(_, fields)| (fields[0].parse().unwrap_or(0), ItemId::artist(&fields[1])))
        .collect();
    let plays = read("user_artists.dat")?;
    let mut histories: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (_, fields) in pairs(&plays) {
        if let (Ok(user), Ok(artist)) = (fields[0].parse(), fields[1].parse()) {
            histories.entry(user).or_default().push(artist);
        }
    }
    let found = histories.len();
    anyhow::ensure!(found >= LEAST, "{} has {found} listeners; a blend needs {LEAST}", data.display());
    for (user, history) in &mut histories {
        history.sort_unstable_by_key(|artist| dealt(*user, *artist));
        history.truncate((history.len() + SHARE / 2) / SHARE);
    }
    let held = |fields: &[String]| {
        let of = fields[0].parse().ok().and_then(|user: u32| histories.get(&user));
        of.is_some_and(|held| fields[1].parse().is_ok_and(|artist| held.contains(&artist)))
    };
    let taggings = read("user_taggedartists.dat")?;
    fs::create_dir_all(world)?;
    for name in ["artists.dat", "tags.dat", "user_friends.dat"] {
        fs::write(world.join(name), read(name)?)?;
    }
    for (name, bytes) in [("user_artists.dat", &plays), ("user_taggedartists.dat", &taggings)] {
        let kept: Vec<&[u8]> = pairs(bytes).filter(|(_, fields)| !held(fields)).map(|(line, _)| line).collect();
        let head = bytes.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default();
        fs::write(world.join(name), [head, &kept.concat()].concat())?;
    }
    let known = |artist: &u32| artists.get(artist).copied();
    let sets = histories.iter().map(|(user, held)| (*user, held.iter().filter_map(known).collect()));
    Ok(sets.filter(|(_, held): &(u32, HashSet<ItemId>)| !held.is_empty()).collect())
}

/// The rows behind the head, as they are written and by their fields, two at least.
fn pairs(table: &[u8]) -> impl Iterator<Item = (&[u8], Vec<String>)> {
    let rows = table.split_inclusive(|byte| *byte == b'\n').skip(1);
    let fields = |row: &[u8]| String::from_utf8_lossy(row).trim_end().split('\t').map(str::to_owned).collect();
    rows.map(move |row| (row, fields(row))).filter(|(_, fields): &(_, Vec<String>)| fields.len() > 1)
}

/// Where an artist of a listener is in a shuffled history (SplitMix64's finalizer, Steele et al., OOPSLA 2014).
fn dealt(user: u32, artist: u32) -> u64 {
    let mut z = (u64::from(user) << 32 | u64::from(artist)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
