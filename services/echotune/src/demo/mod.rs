//! Listeners that do not exist, for trying the platform out and for tests and benchmarks: generated
//! from a seed, with genres, eras, favourites, repeats and sessions that a model can learn. All names
//! are made of syllables and everyday words; nothing is taken from anybody's history.

mod catalogue;
mod export;
mod listener;
mod load;
mod names;
mod rng;

use std::collections::HashSet;

use echotune_model::{Listen, Tagging};
use serde::{Deserialize, Serialize};

use self::{
    catalogue::{Catalogue, GENRES},
    listener::Taste,
    rng::{Rng, divide},
};

pub use self::{
    export::write_listenbrainz,
    load::{MARKER_FILE, load},
};

const DAY_MS: i64 = 86_400_000;
const STREAM_USERS: u64 = 3;
const STREAM_TASTES: u64 = 1 << 32;
const STREAM_YEARS: u64 = 2 << 32;
const STREAM_FRIENDS: u64 = 3 << 32;

/// How much to generate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Accounts.
    pub listeners: usize,
    /// Artists; each has at least one track.
    pub artists: usize,
    /// Tracks of all artists.
    pub tracks: usize,
    /// Listens of all listeners; each has at least one.
    pub listens: usize,
}

impl Default for Shape {
    fn default() -> Self {
        Self { listeners: 2_000, artists: 2_000, tracks: 20_000, listens: 500_000 }
    }
}

/// A generated listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Account name.
    pub name: String,
    /// Listens, oldest first.
    pub listens: Vec<Listen>,
    /// Tags given to favourites.
    pub taggings: Vec<Tagging>,
    /// Account names of friends.
    pub friends: Vec<String>,
}

/// A generated world. The same shape, seed and day give the same world.
pub struct Demo {
    catalogue: Catalogue,
    seed: u64,
    until_ms: i64,
    names: Vec<String>,
    counts: Vec<usize>,
    tastes: Vec<Taste>,
    /// Listeners by the genre that they like most.
    circles: Vec<Vec<usize>>,
}

/// Generates a world whose last listens lie before the day of `now_ms` (milliseconds since the Unix
/// epoch, UTC) and whose first lie a year before that.
pub fn generate(shape: &Shape, seed: u64, now_ms: i64) -> Demo {
    let catalogue = Catalogue::new(shape, seed);
    let mut rng = Rng::new(seed, STREAM_USERS);
    let mut taken = HashSet::new();
    let names = (0..shape.listeners).map(|_| names::unique(&mut taken, &mut rng, names::user)).collect();
    // A few listen all day, most now and then.
    let activity: Vec<f64> = (0..shape.listeners).map(|_| (0.8 * rng.normal()).clamp(-2.0, 2.2).exp()).collect();
    let tastes: Vec<_> = (0_u64..)
        .take(shape.listeners)
        .map(|at| Taste::new(&catalogue, &mut Rng::new(seed, STREAM_TASTES + at)))
        .collect();
    let mut circles = vec![Vec::new(); GENRES.len()];
    for (index, taste) in tastes.iter().enumerate() {
        circles[taste.main()].push(index);
    }
    let until_ms = now_ms.div_euclid(DAY_MS) * DAY_MS;
    Demo { catalogue, seed, until_ms, names, counts: divide(shape.listens, &activity), tastes, circles }
}

impl Demo {
    /// The listeners, each generated when it is asked for.
    pub fn listeners(&self) -> impl Iterator<Item = Listener> + '_ {
        (0_u64..).zip(&self.tastes).enumerate().map(|(index, (stream, taste))| {
            let mut rng = Rng::new(self.seed, STREAM_YEARS + stream);
            let (name, count) = (&self.names[index], self.counts[index]);
            let mut listener = listener::year(&self.catalogue, taste, name, count, self.until_ms, &mut rng);
            listener.friends = self.friends(index, &mut Rng::new(self.seed, STREAM_FRIENDS + stream));
            listener
        })
    }

    /// The genre of an artist, for judging what a model makes of it.
    pub fn genre_of(&self, artist: &str) -> Option<&'static str> {
        self.catalogue.artists.iter().find(|known| known.name == artist).map(|known| GENRES[known.genre])
    }

    /// Listens of all listeners.
    pub fn listen_count(&self) -> usize {
        self.counts.iter().sum()
    }

    /// Friends are mostly people of the same taste.
    fn friends(&self, index: usize, rng: &mut Rng) -> Vec<String> {
        let circle = &self.circles[self.tastes[index].main()];
        let mut friends = Vec::new();
        for _ in 0..rng.below(5) {
            let friend = if rng.chance(0.75) { rng.pick(circle) } else { rng.below(self.names.len()) };
            if friend != index && !friends.contains(&friend) {
                friends.push(friend);
            }
        }
        friends.into_iter().map(|friend| self.names[friend].clone()).collect()
    }
}
