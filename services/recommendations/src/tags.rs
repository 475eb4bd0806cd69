//! Which tags artists bear, and which artists bear a tag: as listeners that are not private say.

use std::collections::{HashMap, HashSet};

use echotune_model::fold;

#[derive(Debug, Default)]
struct Tag {
    folded: String,
    /// As first spelt.
    name: String,
    /// How many taggings name it, those of private listeners too.
    uses: u32,
    /// Artist → taggers that are not private.
    artists: HashMap<u32, u32>,
}

/// Tags by how many taggers gave them to which artist.
#[derive(Debug, Default)]
pub(crate) struct Tags {
    tags: Vec<Tag>,
    index: HashMap<String, u32>,
    /// Per artist: (tag, taggers that are not private).
    of_artist: HashMap<u32, Vec<(u32, u32)>>,
}

impl Tags {
    pub(crate) fn intern(&mut self, tag: &str) -> u32 {
        let folded = fold(tag);
        *self.index.entry(folded).or_insert_with_key(|folded| {
            self.tags.push(Tag { folded: folded.clone(), name: tag.to_owned(), ..Tag::default() });
            u32::try_from(self.tags.len() - 1).expect("at most 2^32 tags")
        })
    }

    pub(crate) fn hold(&mut self, tag: u32) {
        self.tags[tag as usize].uses += 1;
    }

    /// Forgets the tag when no tagging names it any more.
    pub(crate) fn release(&mut self, tag: u32) {
        let tag = &mut self.tags[tag as usize];
        tag.uses = tag.uses.saturating_sub(1);
        if tag.uses == 0 {
            self.index.remove(&std::mem::take(tag).folded);
        }
    }

    /// Counts one more tagger that is not private.
    pub(crate) fn add(&mut self, artist: u32, tag: u32) {
        *self.tags[tag as usize].artists.entry(artist).or_default() += 1;
        let tags = self.of_artist.entry(artist).or_default();
        match tags.iter_mut().find(|(one, _)| *one == tag) {
            Some((_, taggers)) => *taggers += 1,
            None => tags.push((tag, 1)),
        }
    }

    /// Takes away one that [`Tags::add`] counted.
    pub(crate) fn remove(&mut self, artist: u32, tag: u32) {
        let artists = &mut self.tags[tag as usize].artists;
        if let Some(taggers) = artists.get_mut(&artist) {
            *taggers -= 1;
            if *taggers == 0 {
                artists.remove(&artist);
            }
        }
        if let Some(tags) = self.of_artist.get_mut(&artist) {
            tags.iter_mut().filter(|(one, _)| *one == tag).for_each(|(_, taggers)| *taggers -= 1);
            tags.retain(|(_, taggers)| *taggers > 0);
            if tags.is_empty() {
                self.of_artist.remove(&artist);
            }
        }
    }

    /// Whether an artist bears any of these tags.
    pub(crate) fn bears(&self, artist: u32, tags: &HashSet<u32>) -> bool {
        let own = self.of_artist.get(&artist).map_or(&[][..], Vec::as_slice);
        own.iter().any(|(tag, _)| tags.contains(tag))
    }

    pub(crate) fn name(&self, tag: u32) -> &str {
        &self.tags[tag as usize].name
    }

    /// What tags are ordered by where nothing else tells them apart; no restart changes it.
    pub(crate) fn folded(&self, tag: u32) -> &str {
        &self.tags[tag as usize].folded
    }

    /// The tags given most to an artist, at most `limit`.
    pub(crate) fn of(&self, artist: u32, limit: usize) -> Vec<String> {
        let mut tags = self.of_artist.get(&artist).cloned().unwrap_or_default();
        tags.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| self.folded(a.0).cmp(self.folded(b.0))));
        tags.truncate(limit);
        tags.into_iter().map(|(tag, _)| self.name(tag).to_owned()).collect()
    }

    /// The tags given most to an artist, at most `limit`, folded: each with its share of their taggers.
    pub(crate) fn mix(&self, artist: u32, limit: usize) -> Vec<(&str, f64)> {
        let given = self.of_artist.get(&artist).map_or(&[][..], Vec::as_slice).iter();
        let mut tags: Vec<(&str, u32)> = given.map(|(tag, taggers)| (self.folded(*tag), *taggers)).collect();
        tags.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
        tags.truncate(limit);
        let all: f64 = tags.iter().map(|(_, taggers)| f64::from(*taggers)).sum();
        tags.into_iter().map(|(tag, taggers)| (tag, f64::from(taggers) / all)).collect()
    }

    /// Every (artist, tag, taggers) with taggers that are not private; tags are numbered in the order of their
    /// names.
    pub(crate) fn counted(&self) -> Vec<(u32, u32, u32)> {
        let mut named: Vec<&Tag> = self.tags.iter().filter(|tag| !tag.artists.is_empty()).collect();
        named.sort_unstable_by(|a, b| a.folded.cmp(&b.folded));
        let counts = (0..)
            .zip(named)
            .flat_map(|(number, tag)| tag.artists.iter().map(move |(artist, taggers)| (*artist, number, *taggers)));
        counts.collect()
    }

    /// The number of each tag in [`Self::counted`].
    pub(crate) fn numbers(&self) -> HashMap<u32, u32> {
        let named = (0..).zip(&self.tags).filter(|(_, tag)| !tag.artists.is_empty());
        let mut named: Vec<(u32, &Tag)> = named.collect();
        named.sort_unstable_by(|a, b| a.1.folded.cmp(&b.1.folded));
        named.into_iter().zip(0..).map(|((tag, _), number)| (tag, number)).collect()
    }

    /// The artists that bear a tag, with their taggers as a share of the most tagged one's.
    pub(crate) fn shares(&self, tag: u32) -> impl Iterator<Item = (u32, f64)> {
        let artists = &self.tags[tag as usize].artists;
        let most = f64::from(artists.values().copied().max().unwrap_or(1));
        artists.iter().map(move |(artist, taggers)| (*artist, f64::from(*taggers) / most))
    }
}
