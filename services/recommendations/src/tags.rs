//! Which tags artists bear, and which artists bear a tag.

use std::collections::HashMap;

use echotune_model::fold;

/// Tags by how many taggers gave them to which artist.
#[derive(Debug, Default)]
pub(crate) struct Tags {
    /// As first spelt.
    names: Vec<String>,
    index: HashMap<String, u32>,
    /// Per artist: (tag, taggers).
    of_artist: HashMap<u32, Vec<(u32, u32)>>,
    /// Per tag: artist → taggers.
    artists: Vec<HashMap<u32, u32>>,
}

impl Tags {
    pub(crate) fn intern(&mut self, tag: &str) -> u32 {
        *self.index.entry(fold(tag)).or_insert_with(|| {
            self.names.push(tag.to_owned());
            self.artists.push(HashMap::new());
            u32::try_from(self.names.len() - 1).expect("at most 2^32 tags")
        })
    }

    pub(crate) fn add(&mut self, artist: u32, tag: u32) {
        *self.artists[tag as usize].entry(artist).or_default() += 1;
        let tags = self.of_artist.entry(artist).or_default();
        match tags.iter_mut().find(|(one, _)| *one == tag) {
            Some((_, taggers)) => *taggers += 1,
            None => tags.push((tag, 1)),
        }
    }

    /// Takes one tagger away; a tag that nobody gives any more is forgotten.
    pub(crate) fn remove(&mut self, artist: u32, tag: u32) {
        let artists = &mut self.artists[tag as usize];
        if let Some(taggers) = artists.get_mut(&artist) {
            *taggers -= 1;
            if *taggers == 0 {
                artists.remove(&artist);
            }
        }
        if artists.is_empty() {
            self.index.retain(|_, one| *one != tag);
            self.names[tag as usize].clear();
        }
        if let Some(tags) = self.of_artist.get_mut(&artist) {
            tags.iter_mut().filter(|(one, _)| *one == tag).for_each(|(_, taggers)| *taggers -= 1);
            tags.retain(|(_, taggers)| *taggers > 0);
            if tags.is_empty() {
                self.of_artist.remove(&artist);
            }
        }
    }

    pub(crate) fn name(&self, tag: u32) -> &str {
        &self.names[tag as usize]
    }

    /// The tags given most to an artist, at most `limit`.
    pub(crate) fn of(&self, artist: u32, limit: usize) -> Vec<String> {
        let mut tags = self.of_artist.get(&artist).cloned().unwrap_or_default();
        tags.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        tags.truncate(limit);
        tags.into_iter().map(|(tag, _)| self.name(tag).to_owned()).collect()
    }

    /// The artists that bear a tag, with their taggers as a share of the most tagged one's.
    pub(crate) fn shares(&self, tag: u32) -> impl Iterator<Item = (u32, f64)> {
        let artists = &self.artists[tag as usize];
        let most = f64::from(artists.values().copied().max().unwrap_or(1));
        artists.iter().map(move |(artist, taggers)| (*artist, f64::from(*taggers) / most))
    }
}
