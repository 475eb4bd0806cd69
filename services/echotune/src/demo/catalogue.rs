use std::collections::HashSet;

use echotune_model::Track;

use super::{
    Shape, names,
    rng::{Rng, cumulative, divide},
};

/// Genres around a circle: neighbours are alike.
pub(super) const GENRES: [&str; 24] = [
    "ambient",
    "downtempo",
    "trip hop",
    "house",
    "techno",
    "synthpop",
    "new wave",
    "post-punk",
    "indie rock",
    "shoegaze",
    "dream pop",
    "folk",
    "country",
    "americana",
    "blues",
    "soul",
    "funk",
    "hip hop",
    "jazz",
    "classical",
    "film music",
    "progressive rock",
    "hard rock",
    "metal",
];
/// Decades from the 1960s to the 2020s.
pub(super) const ERAS: [&str; 7] = ["60s", "70s", "80s", "90s", "00s", "10s", "20s"];
/// Tracks on one album.
const ALBUM: usize = 9;

const STREAM_ARTISTS: u64 = 1;
const STREAM_TRACKS: u64 = 2;

/// An artist and its place in the world.
pub(super) struct Artist {
    pub(super) name: String,
    pub(super) genre: usize,
    pub(super) era: usize,
    first_track: usize,
    tracks: usize,
}

/// Artists of one genre and era.
#[derive(Default)]
struct Bucket {
    artists: Vec<usize>,
    weights: Vec<f64>,
}

/// All artists and tracks.
pub(super) struct Catalogue {
    pub(super) artists: Vec<Artist>,
    tracks: Vec<Track>,
    buckets: Vec<Bucket>,
    popularity: Vec<f64>,
    ranks: Vec<f64>,
}

impl Catalogue {
    #[allow(clippy::cast_precision_loss, reason = "small counts")]
    pub(super) fn new(shape: &Shape, seed: u64) -> Self {
        let mut rng = Rng::new(seed, STREAM_ARTISTS);
        let mut taken = HashSet::new();
        // Popularity follows a power law of the rank; the most popular artists have the most tracks.
        let weights: Vec<f64> = (0..shape.artists).map(|rank| (rank as f64 + 3.0).powf(-0.85)).collect();
        let shares = divide(shape.tracks, &weights.iter().map(|weight| weight.powf(0.3)).collect::<Vec<_>>());
        let genres = cumulative((0..GENRES.len()).map(|genre| 1.0 + ((genre * 7) % GENRES.len()) as f64 / 12.0));
        let mut artists = Vec::with_capacity(shape.artists);
        let mut first_track = 0;
        for tracks in &shares {
            let genre = rng.weighted(&genres);
            let era = era_near((genre * 5 % ERAS.len()) as f64 * 0.5 + 2.0, 1.6, &mut rng);
            artists.push(Artist {
                name: names::unique(&mut taken, &mut rng, names::artist),
                genre,
                era,
                first_track,
                tracks: *tracks,
            });
            first_track += tracks;
        }
        let mut buckets: Vec<Bucket> = (0..GENRES.len() * ERAS.len()).map(|_| Bucket::default()).collect();
        for (index, (artist, weight)) in artists.iter().zip(&weights).enumerate() {
            let bucket = &mut buckets[artist.genre * ERAS.len() + artist.era];
            bucket.artists.push(index);
            bucket.weights.push(bucket.weights.last().copied().unwrap_or(0.0) + weight);
        }
        let longest = shares.iter().copied().max().unwrap_or(1);
        let ranks = cumulative((0..longest).map(|rank| (rank as f64 + 1.0).powf(-0.8)));
        let tracks = tracks(&artists, seed);
        Self { artists, tracks, buckets, popularity: cumulative(weights.into_iter()), ranks }
    }

    pub(super) fn track(&self, index: usize) -> &Track {
        &self.tracks[index]
    }

    /// A track of an artist, by its popularity.
    pub(super) fn track_of(&self, artist: usize, rng: &mut Rng) -> usize {
        let artist = &self.artists[artist];
        artist.first_track + rng.weighted(&self.ranks[..artist.tracks.max(1)])
    }

    /// Any artist, by popularity.
    pub(super) fn any_artist(&self, rng: &mut Rng) -> usize {
        rng.weighted(&self.popularity)
    }

    /// An artist of a genre, by popularity and by how near its era is.
    #[allow(clippy::cast_precision_loss, reason = "seven eras")]
    pub(super) fn artist_like(&self, genre: usize, era: f64, spread: f64, rng: &mut Rng) -> usize {
        let buckets = &self.buckets[genre * ERAS.len()..(genre + 1) * ERAS.len()];
        let near = cumulative(buckets.iter().enumerate().map(|(at, bucket)| {
            let distance = (at as f64 - era) / spread;
            bucket.weights.last().copied().unwrap_or(0.0).sqrt() * (-distance * distance / 2.0).exp()
        }));
        let bucket = &buckets[rng.weighted(&near)];
        match bucket.artists.as_slice() {
            [] => self.any_artist(rng),
            artists => artists[rng.weighted(&bucket.weights)],
        }
    }
}

/// An era around a centre, within what there is.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
fn era_near(centre: f64, spread: f64, rng: &mut Rng) -> usize {
    (centre + spread * rng.normal()).round().clamp(0.0, (ERAS.len() - 1) as f64) as usize
}

fn tracks(artists: &[Artist], seed: u64) -> Vec<Track> {
    let mut rng = Rng::new(seed, STREAM_TRACKS);
    let mut tracks = Vec::new();
    for artist in artists {
        let (mut titles, mut albums) = (HashSet::new(), HashSet::new());
        let mut album = String::new();
        for number in 0..artist.tracks {
            if number % ALBUM == 0 {
                album = names::unique(&mut albums, &mut rng, names::title);
            }
            let title = names::unique(&mut titles, &mut rng, names::title);
            tracks.push(Track { title, artist: artist.name.clone(), album: album.clone() });
        }
    }
    tracks
}
