//! Names made of syllables and everyday words.

use std::collections::HashSet;

use echotune_model::fold;

use super::rng::Rng;

const ONSETS: [&str; 24] = [
    "b", "br", "c", "d", "f", "g", "h", "j", "k", "l", "l", "m", "m", "n", "p", "r", "r", "s", "sh", "st", "t", "tr",
    "v", "w",
];
const VOWELS: [&str; 10] = ["a", "a", "e", "e", "i", "i", "o", "o", "u", "ea"];
/// How a word ends; inside a word every syllable is open, so that it can be spoken.
const ENDS: [&str; 12] = ["", "", "", "", "l", "m", "n", "n", "r", "s", "th", "nd"];
const ADJECTIVES: [&str; 30] = [
    "Amber", "Bitter", "Borrowed", "Brittle", "Careful", "Copper", "Distant", "Early", "Empty", "Faded", "Gentle",
    "Hollow", "Idle", "Late", "Little", "Lonely", "Muted", "Narrow", "Northern", "Pale", "Patient", "Quiet",
    "Restless", "Second", "Silver", "Slow", "Tender", "Unsent", "Velvet", "Wooden",
];
const NOUNS: [&str; 36] = [
    "Alphabet",
    "Anchor",
    "Attic",
    "Balcony",
    "Bridge",
    "Candle",
    "Carousel",
    "Chimney",
    "Corridor",
    "Engine",
    "Ferry",
    "Garden",
    "Harbour",
    "Island",
    "Kite",
    "Ladder",
    "Lantern",
    "Letter",
    "Meadow",
    "Mirror",
    "Motel",
    "Orchard",
    "Parade",
    "Pendulum",
    "Postcard",
    "Radio",
    "River",
    "Satellite",
    "Shadow",
    "Signal",
    "Staircase",
    "Station",
    "Summer",
    "Telegram",
    "Window",
    "Winter",
];
const VERBS: [&str; 14] = [
    "Borrow", "Carry", "Chase", "Count", "Follow", "Forget", "Hold", "Leave", "Light", "Paint", "Remember", "Repair",
    "Trade", "Wake",
];
const FIRST_NAMES: [&str; 48] = [
    "ada", "aiko", "alma", "amir", "anna", "arlo", "asta", "bela", "bruno", "carla", "chidi", "dara", "edith", "elif",
    "emil", "enzo", "farah", "finn", "gita", "hana", "hugo", "ida", "ines", "ivo", "jonas", "juno", "kaya", "kofi",
    "lena", "liam", "luca", "maja", "malik", "mina", "nils", "noor", "olga", "oscar", "paula", "priya", "rosa", "sami",
    "tara", "theo", "uma", "vera", "yara", "zoe",
];
const SURNAME_ENDS: [&str; 16] = [
    "berg", "dal", "ek", "feld", "gren", "holm", "ini", "kar", "land", "lund", "mann", "oss", "qvist", "sen", "son",
    "stad",
];

/// Open syllables.
fn syllables(rng: &mut Rng, count: usize) -> String {
    (0..count).map(|_| [rng.pick(&ONSETS), rng.pick(&VOWELS)].concat()).collect()
}

/// An invented word, capitalised.
fn word(rng: &mut Rng) -> String {
    let count = 2 + rng.below(2);
    let word = syllables(rng, count) + rng.pick(&ENDS);
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

fn plural(noun: &str) -> String {
    match noun {
        "Parade" | "Bridge" => format!("{noun}s"),
        _ => noun.strip_suffix('y').map_or_else(
            || format!("{noun}s"),
            |stem| if stem.ends_with('a') { format!("{noun}s") } else { format!("{stem}ies") },
        ),
    }
}

pub(super) fn artist(rng: &mut Rng) -> String {
    match rng.below(6) {
        0 => word(rng),
        1 => format!("{} {}", word(rng), word(rng)),
        2 => format!("The {} {}", word(rng), plural(rng.pick(&NOUNS))),
        3 => format!("{} {}", rng.pick(&ADJECTIVES), word(rng)),
        4 => format!("{} & the {}", word(rng), plural(rng.pick(&NOUNS))),
        _ => format!("{} {}", word(rng), rng.pick(&NOUNS)),
    }
}

pub(super) fn title(rng: &mut Rng) -> String {
    match rng.below(7) {
        0 => format!("{} {}", rng.pick(&ADJECTIVES), rng.pick(&NOUNS)),
        1 => format!("{} of {}", rng.pick(&NOUNS), word(rng)),
        2 => format!("{} the {}", rng.pick(&VERBS), rng.pick(&NOUNS)),
        3 => word(rng),
        4 => format!("{} in {}", plural(rng.pick(&NOUNS)), word(rng)),
        5 => format!("No {} for {}", rng.pick(&NOUNS), word(rng)),
        _ => format!("{} {} {}", rng.pick(&VERBS), rng.pick(&ADJECTIVES), plural(rng.pick(&NOUNS))),
    }
}

pub(super) fn user(rng: &mut Rng) -> String {
    let root = syllables(rng, 1) + rng.pick(&["", "", "l", "n", "r"]);
    format!("{}-{root}{}", rng.pick(&FIRST_NAMES), rng.pick(&SURNAME_ENDS))
}

/// A name that `taken` does not have yet in any spelling.
pub(super) fn unique(taken: &mut HashSet<String>, rng: &mut Rng, make: fn(&mut Rng) -> String) -> String {
    let mut name = make(rng);
    let mut tries = 0;
    while !taken.insert(fold(&name)) {
        tries += 1;
        name = make(rng);
        if tries > 20 {
            // The grammar is nearly used up: a longer name is free.
            name.push_str(&syllables(rng, 2));
        }
    }
    name
}
