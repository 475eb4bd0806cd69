//! What the stores of regions hold at the end, as entries of a history.

use std::{
    collections::{BTreeMap, BTreeSet, hash_map::DefaultHasher},
    hash::Hasher as _,
};

use echotune_agents::{GROUP, RunStore as _};
use echotune_api::events::{Event, USERS_TOPIC};
use echotune_eventlog::{Delivered, EventLog as _, Positions};
use echotune_model::{Hlc, PageRequest, User, UserId};
use echotune_recommendations::{RecommendationStore as _, store::Row};
use echotune_testbed::{
    Region,
    history::{Entry, Op, Outcome},
};
use echotune_users::UserStore as _;
use futures::FutureExt as _;

use crate::{
    clients::number_of,
    log::{copied, copy_of},
    notes::{Listener, Notes, listens, playlists, settings},
    region::{Inside, World},
};

/// Simulated stores answer reads at once.
fn now<T, E: std::fmt::Display>(answer: impl Future<Output = Result<T, E>>) -> T {
    match answer.now_or_never().expect("a read does not wait") {
        Ok(answer) => answer,
        Err(cause) => panic!("a store cannot be read: {cause}"),
    }
}

/// What some region has not come to know yet, if there is such a thing.
pub(crate) fn behind(world: &World) -> Option<String> {
    let regions = world.regions.borrow();
    for (here, inside) in &*regions {
        let ends = now(inside.log.ends(USERS_TOPIC));
        if !inside.users.all_published().expect("read") {
            return Some(format!("events wait in {here}"));
        }
        for (of, other) in regions.iter().filter(|(of, _)| *of != here) {
            if copied(&inside.db, *of) < now(other.log.own.ends(USERS_TOPIC)).next(USERS_TOPIC) {
                return Some(format!("{here} has not copied all of {of}"));
            }
        }
        if !inside.service.positions().covers(&ends) {
            return Some(format!("recommendations of {here} have not read all"));
        }
        if !now(inside.log.committed(USERS_TOPIC, GROUP)).covers(&ends) {
            return Some(format!("agents of {here} have not read all"));
        }
    }
    None
}

struct Look<'l> {
    regions: BTreeMap<Region, Inside>,
    /// What recommendations of each region hold.
    views: BTreeMap<Region, Vec<Row>>,
    notes: &'l Notes,
    at: u64,
    entries: Vec<Entry>,
}

/// The history of a run with what is there at the end.
pub(crate) fn look(world: &World, notes: &Notes, at: u64) -> Vec<Entry> {
    let regions = world.regions.borrow().clone();
    let views = regions.iter().map(|(region, inside)| {
        let mut rows = Vec::new();
        now(inside.view.load(&mut |row| rows.push(row)));
        (*region, rows)
    });
    let views = views.collect();
    let mut look = Look { regions, views, notes, at, entries: Vec::new() };
    // Whoever may be erased has nothing that must be there.
    let is_judged = |of: &str, op: &Op| !notes.erased.contains_key(of) || matches!(op, Op::Erase { .. });
    let told = notes.entries.iter().filter(|(of, entry)| is_judged(of, &entry.op)).map(|(_, entry)| entry.clone());
    look.entries.extend(told);
    for listener in &notes.listeners {
        match look.user(listener) {
            Some(user) if !notes.erased.contains_key(&listener.name) => look.living(listener, &user),
            Some(_) => {}
            None => look.gone(listener),
        }
    }
    look.owners();
    look.entries
}

fn all() -> PageRequest {
    PageRequest { size: echotune_model::MAX_PAGE, token: String::new() }
}

fn digest(of: &impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// Tracks with how often they were played, and who is blocked.
type Known = (BTreeMap<String, u32>, Vec<String>);

impl Look<'_> {
    fn note(&mut self, region: Region, op: Op) {
        self.entries.push(Entry { region, began: self.at, ended: self.at, outcome: Outcome::Ok, op });
    }

    fn user(&self, of: &Listener) -> Option<User> {
        now(self.regions[&of.home].users.by_name(&of.name.parse().expect("a name")))
    }

    /// What is there of somebody, at home and in every region's view.
    fn living(&mut self, of: &Listener, user: &User) {
        let (home, name) = (of.home, &of.name);
        let users = &self.regions[&home].users;
        let heard = now(users.listens(user.id, all())).rows;
        let kept = now(users.playlists(user.id, all())).rows;
        let blocked = now(users.settings(user.id)).blocked_artists;
        let mut wanted: Known = (BTreeMap::new(), blocked.clone());
        for entry in &heard {
            *wanted.0.entry(entry.listen.track.title.clone()).or_default() += 1;
        }
        let elements = heard.iter().map(|entry| number_of(&entry.listen)).collect();
        self.note(home, Op::Read { set: listens(name), elements });
        let elements = kept.iter().map(|playlist| playlist.content.title.parse().unwrap_or(u64::MAX)).collect();
        self.note(home, Op::Read { set: playlists(name), elements });
        let value = blocked.first().map_or(0, |version| version.parse().unwrap_or(u64::MAX));
        self.note(home, Op::Total { counter: settings(name), value });
        for region in Region::ALL {
            // What it should be is told as by another region, so that regions that agree on something else do not pass.
            let other = Region::ALL.into_iter().find(|other| *other != region).expect("several");
            let of = format!("what recommendations of {region} know of {name}, and what users have");
            let known = digest(&self.known(region, user.id));
            self.note(region, Op::View { of: of.clone(), digest: known });
            self.note(other, Op::View { of, digest: digest(&wanted) });
            let known = now(self.regions[&region].runs.account(user.id)).map(|name| name.to_string());
            let of = format!("whom agents of {region} know as {name}");
            self.note(region, Op::View { of: of.clone(), digest: digest(&known) });
            self.note(other, Op::View { of, digest: digest(&Some(name.clone())) });
        }
        self.order(of, user);
    }

    fn known(&self, region: Region, user: UserId) -> Known {
        let mut known = Known::default();
        for row in &self.views[&region] {
            match row {
                Row::Tally(of, tally) if *of == user => {
                    known.0.insert(tally.track.title.clone(), tally.plays);
                }
                Row::Settings(of, settings, _) if *of == user => known.1.clone_from(&settings.blocked_artists),
                _ => {}
            }
        }
        known
    }

    /// The records of a region's log that came from one region.
    fn records(&self, region: Region, from: Region) -> Vec<Delivered> {
        let topic = if region == from { USERS_TOPIC.to_owned() } else { copy_of(from, USERS_TOPIC) };
        let own = &self.regions[&region].log.own;
        let count = usize::try_from(now(own.ends(&topic)).next(&topic)).expect("few");
        if count == 0 {
            return Vec::new();
        }
        let mut reader = now(own.read_from(&topic, Positions::default()));
        now(reader.next(count))
    }

    /// In which order the events of somebody are on each log.
    fn order(&mut self, of: &Listener, user: &User) {
        let key = user.id.to_string();
        let times = |records: &[Delivered]| -> Vec<Hlc> {
            let own = records.iter().filter(|one| one.record.key == key);
            let events = own.filter_map(|one| Event::decode(&one.record.value).ok().flatten());
            events.map(|event| event.written_at).collect()
        };
        let logs: BTreeMap<Region, Vec<Hlc>> =
            Region::ALL.into_iter().map(|region| (region, times(&self.records(region, of.home)))).collect();
        let acknowledged = self.notes.written.get(&of.name).cloned().unwrap_or_default();
        let all: BTreeSet<Hlc> = logs.values().flatten().chain(&acknowledged).copied().collect();
        let places: BTreeMap<Hlc, u64> = all.into_iter().zip(0..).collect();
        for (time, sequence) in &places {
            let outcome = if acknowledged.contains(time) { Outcome::Ok } else { Outcome::Unknown };
            let op = Op::Send { key: of.name.clone(), sequence: *sequence };
            self.entries.push(Entry { region: of.home, began: 0, ended: self.at, outcome, op });
        }
        for (region, times) in logs {
            for time in times {
                let (consumer, key) = (format!("the log of {region}"), of.name.clone());
                self.note(region, Op::Deliver { consumer, key, sequence: places[&time] });
                // Entries are taken up by their times.
                self.at += 1;
            }
        }
    }

    /// What is left anywhere of somebody who was erased.
    fn gone(&mut self, of: &Listener) {
        let Some(id) = self.notes.ids.get(&of.name).copied() else { return };
        let key = id.to_string();
        for region in Region::ALL {
            let inside = &self.regions[&region];
            let is_of = |row: &&Row| match row {
                Row::Name(user, _)
                | Row::Tally(user, _)
                | Row::Count(user, _)
                | Row::Tagging(user, _)
                | Row::Settings(user, ..)
                | Row::Feedback(user, ..) => *user == id,
                Row::Friend(user, friend) => *user == id || *friend == id,
            };
            let mut rows = self.views[&region].iter().filter(is_of).count();
            rows += usize::from(now(inside.runs.account(id)).is_some());
            rows += usize::from(now(inside.users.by_id(id)).is_some());
            rows += now(inside.users.listens(id, all())).rows.len();
            rows += now(inside.users.playlists(id, all())).rows.len();
            let readable = |one: &&Delivered| one.record.key == key && !one.record.is_lasting;
            let records = self.records(region, of.home);
            rows += records.iter().filter(readable).filter(|one| !one.record.value.is_empty()).count();
            self.note(region, Op::Remains { of: of.name.clone(), rows: rows as u64 });
        }
    }

    /// Whose each name is.
    fn owners(&mut self) {
        let claims = self.notes.entries.iter().filter_map(|(of, entry)| match &entry.op {
            Op::Claim { name, owner } if !self.notes.erased.contains_key(of) => {
                Some((name.clone(), entry.region, entry.outcome, *owner))
            }
            _ => None,
        });
        let claims: Vec<_> = claims.collect();
        let names: BTreeSet<_> = claims.iter().map(|(name, region, ..)| (name.clone(), *region)).collect();
        for (name, home) in names {
            let listener = Listener { home, name: name.clone() };
            let found = self.user(&listener);
            let unknown = claims.iter().find(|(of, _, outcome, _)| *of == name && *outcome == Outcome::Unknown);
            // Whoever did not learn whether they were given it may be who has it.
            let owner = found.map(|user| match self.notes.owners.get(&user.id) {
                Some(owner) => *owner,
                None => unknown.map_or(u64::MAX, |(.., owner)| *owner),
            });
            self.note(home, Op::Owner { name, owner });
        }
    }
}
