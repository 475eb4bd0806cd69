use echotune_model::{Listen, Tagging};

use super::{
    Listener,
    catalogue::{Catalogue, ERAS, GENRES},
    rng::{Rng, cumulative},
};

/// Where demo listens say they come from.
const SOURCE: &str = "demo";
const DAY_MS: i64 = 86_400_000;
const DAYS: usize = 365;
/// Sessions begin around these hours; the longest one ends before the next can begin.
const HOURS: [i64; 2] = [7, 18];
/// Listens in one session at the most: 11 hours of the longest tracks.
const LONGEST_SESSION: usize = 110;

/// What somebody likes.
pub(super) struct Taste {
    genres: Vec<usize>,
    weights: Vec<f64>,
    era: f64,
    spread: f64,
}

impl Taste {
    #[allow(clippy::cast_precision_loss, reason = "seven eras")]
    pub(super) fn new(catalogue: &Catalogue, rng: &mut Rng) -> Self {
        let idol = &catalogue.artists[catalogue.any_artist(rng)];
        let mut genres = vec![idol.genre];
        for _ in 0..rng.below(3) {
            let near = (idol.genre + GENRES.len() - 2 + rng.below(5)) % GENRES.len();
            let genre = if rng.chance(0.75) { near } else { rng.below(GENRES.len()) };
            if !genres.contains(&genre) {
                genres.push(genre);
            }
        }
        let weights = cumulative((0..genres.len()).map(|rank| 0.45_f64.powi(i32::try_from(rank).unwrap_or(0))));
        let era = (idol.era as f64 + 0.7 * rng.normal()).clamp(0.0, (ERAS.len() - 1) as f64);
        Self { genres, weights, era, spread: 0.7 + rng.unit() }
    }

    /// The genre liked most.
    pub(super) fn main(&self) -> usize {
        self.genres[0]
    }

    fn artist(&self, catalogue: &Catalogue, rng: &mut Rng) -> usize {
        let genre = self.genres[rng.weighted(&self.weights)];
        catalogue.artist_like(genre, self.era, self.spread, rng)
    }
}

/// Artists somebody returns to, favourite first, with cumulative weights.
struct Repertoire {
    artists: Vec<usize>,
    weights: Vec<f64>,
}

impl Repertoire {
    #[allow(clippy::cast_precision_loss, reason = "small counts")]
    fn new(catalogue: &Catalogue, taste: &Taste, size: usize, rng: &mut Rng) -> Self {
        let mut artists = Vec::new();
        for _ in 0..size * 3 {
            let artist = taste.artist(catalogue, rng);
            if artists.len() < size && !artists.contains(&artist) {
                artists.push(artist);
            }
        }
        let weights = cumulative((0..artists.len()).map(|rank| (rank as f64 + 1.5).powf(-0.8)));
        Self { artists, weights }
    }
}

/// One listener's year, which ends at the midnight `until_ms`.
pub(super) fn year(
    catalogue: &Catalogue,
    taste: &Taste,
    name: &str,
    count: usize,
    until_ms: i64,
    rng: &mut Rng,
) -> Listener {
    let repertoire = Repertoire::new(catalogue, taste, 6 + rng.below(10) + (count / 12).min(50), rng);
    let mut listens = Vec::with_capacity(count);
    for (start_ms, length) in sessions(count, until_ms, rng) {
        session(catalogue, taste, &repertoire, start_ms, length, rng, &mut listens);
    }
    let taggings = taggings(catalogue, &repertoire, until_ms, rng);
    Listener { name: name.to_owned(), listens, taggings, friends: Vec::new() }
}

/// Starts and lengths of sessions that do not overlap, oldest first.
fn sessions(count: usize, until_ms: i64, rng: &mut Rng) -> Vec<(i64, usize)> {
    let slots = DAYS * HOURS.len();
    let mut lengths = Vec::new();
    let mut left = count;
    while left > 0 {
        let least = left.div_ceil(slots - lengths.len());
        let length = (3 + rng.below(18)).max(least).min(LONGEST_SESSION).min(left);
        lengths.push(length);
        left = if lengths.len() == slots { 0 } else { left - length };
    }
    // Floyd's choice of distinct slots would need a set; a partial shuffle of so few is as good.
    let mut order: Vec<usize> = (0..slots).collect();
    for at in 0..lengths.len() {
        let other = at + rng.below(slots - at);
        order.swap(at, other);
    }
    order.truncate(lengths.len());
    order.sort_unstable();
    let start = |slot: usize, rng: &mut Rng| {
        let day = i64::try_from(slot / HOURS.len()).unwrap_or(0) - i64::try_from(DAYS).unwrap_or(0);
        let minute = i64::try_from(rng.below(55)).unwrap_or(0);
        until_ms + day * DAY_MS + HOURS[slot % HOURS.len()] * 3_600_000 + minute * 60_000
    };
    order.into_iter().zip(lengths).map(|(slot, length)| (start(slot, rng), length)).collect()
}

/// Plays in a row: favourites, runs through one artist, repeats, a little exploration, a few hits.
fn session(
    catalogue: &Catalogue,
    taste: &Taste,
    repertoire: &Repertoire,
    start_ms: i64,
    length: usize,
    rng: &mut Rng,
    listens: &mut Vec<Listen>,
) {
    let mut at = start_ms;
    let mut last: Option<(usize, usize)> = None;
    for _ in 0..length {
        let (artist, track) = match last {
            Some(last) if rng.chance(0.04) => last,
            Some((artist, _)) if rng.chance(0.35) => (artist, catalogue.track_of(artist, rng)),
            _ => {
                let artist = match rng.unit() {
                    kind if kind < 0.05 => catalogue.any_artist(rng),
                    kind if kind < 0.17 || repertoire.artists.is_empty() => taste.artist(catalogue, rng),
                    _ => repertoire.artists[rng.weighted(&repertoire.weights)],
                };
                (artist, catalogue.track_of(artist, rng))
            }
        };
        last = Some((artist, track));
        let full = 150_000 + u32::try_from(track * 7_919 % 180_000).unwrap_or(0);
        let played_ms = if rng.chance(0.92) { full } else { 5_000 + u32::try_from(rng.below(60_000)).unwrap_or(0) };
        let track = catalogue.track(track).clone();
        listens.push(Listen { listened_at_ms: at, track, played_ms, source: SOURCE.into(), explicit: None });
        at += i64::from(played_ms) + 1_000;
    }
}

fn taggings(catalogue: &Catalogue, repertoire: &Repertoire, until_ms: i64, rng: &mut Rng) -> Vec<Tagging> {
    let count = if rng.chance(0.6) { 1 + rng.below(6) } else { 0 };
    let mut taggings = Vec::with_capacity(count);
    for artist in repertoire.artists.iter().take(count) {
        let artist = &catalogue.artists[*artist];
        let tag = match rng.unit() {
            kind if kind < 0.75 => GENRES[artist.genre],
            kind if kind < 0.92 => ERAS[artist.era],
            _ => GENRES[(artist.genre + 1) % GENRES.len()],
        };
        let day = i64::try_from(1 + rng.below(DAYS - 1)).unwrap_or(1);
        taggings.push(Tagging { artist: artist.name.clone(), tag: tag.into(), tagged_at_ms: until_ms - day * DAY_MS });
    }
    taggings
}
